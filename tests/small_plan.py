"""A small recipe that nmt-plan compiles in seconds for eight devices, and the command as people run it."""

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

GIB = 2**30
OURS = ("XLA_FLAGS", "JAX_DISABLE_MOST_OPTIMIZATIONS")
MODEL = {"width": 16, "hidden": 32, "heads": 2, "head_width": 8, "layers": 2}
EXPERTS, ROWS, LENGTH, VOCABULARY = 8, 16, 16, 512
# Weights of tables, of attention (once in the encoder, twice in the decoder), of a dense layer, of an expert.
TABLE = VOCABULARY * MODEL["width"]
ATTENTION = 4 * MODEL["width"] * MODEL["heads"] * MODEL["head_width"]
FEED_FORWARD = 2 * MODEL["width"] * MODEL["hidden"]
NORMS = MODEL["width"] * (2 * 2 + 1 + 2 * 3 + 1)
DENSE = TABLE + 2 * ATTENTION * (1 + 2) + 2 * FEED_FORWARD + NORMS + 2 * MODEL["width"] * EXPERTS

RECIPE = f"""\
name: small
data: {{corpora: [homeassistant], directions: [de-en], source_length: {LENGTH}, target_length: {LENGTH}}}
vocab: {{size: {VOCABULARY}}}
model:
  width: 16
  hidden: 32
  heads: 2
  head_width: 8
  encoder_layers: 2
  decoder_layers: 2
  remat: local
  dtype: bfloat16
  moe: {{experts: {EXPERTS}, group_size: {LENGTH * ROWS // 8}}}
train:
  tokens_per_batch: {ROWS * LENGTH}
  optimizer: {{name: adafactor, beta1: 0.0, clip_norm: null}}
decode: {{batch_tokens: {ROWS * LENGTH}}}
"""

needs_libtpu = pytest.mark.skipif(
    importlib.util.find_spec("libtpu") is None,
    reason="compiling for TPUs needs libtpu: pip install -e '.[tpu]'",
)


def environment() -> dict[str, str]:
    """Return the environment of a command, without what is set for tests that compute: a plan is of what people run."""
    return {name: value for name, value in os.environ.items() if name not in OURS}


def command(*arguments: str, **more: str) -> subprocess.CompletedProcess[str]:
    line = [sys.executable, "-m", "nmt.cli.plan", *arguments]
    return subprocess.run(line, capture_output=True, text=True, env=environment() | more, check=False, timeout=900)


def planned(recipe: Path, *arguments: str) -> dict:
    done = command(f"recipe={recipe}", *arguments, "--json", "-")
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)
