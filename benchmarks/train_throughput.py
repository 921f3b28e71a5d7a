"""Training throughput beside Hugging Face `transformers`: tokens/s of models of one shape, in one run, as ratios.

    pip install -e '.[bench]'
    python benchmarks/train_throughput.py

A step is forward, backward and Adam's update on a batch of random tokens without padding, without clipping, on CPUs.
Ours is the train step of `nmt-train`. Theirs is what is fastest here: PyTorch without torch.compile, scaled dot-product
attention, fused Adam, for bf16 `torch.autocast`. Both sides keep float32 parameters and have the same dropout (on
embeddings, residuals and feed-forward hidden units), label smoothing, processors and allocator settings.
"""

import argparse
import contextlib
import importlib.util
import json
import os
import statistics
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields

from harness import Facts, Worker, WorkerError, circumstances, measure, print_table, quartiles, serve
from nmt.cli.shell import merged_tunables


@dataclass(frozen=True)
class Shape:
    """The shape that all models have, and the batch."""

    width: int = 256
    hidden: int = 1024
    heads: int = 4
    layers: int = 4  # of the encoder, and of the decoder
    vocabulary: int = 8000
    rows: int = 64
    source_length: int = 32
    target_length: int = 32
    dropout: float = 0.1
    label_smoothing: float = 0.1

    @property
    def tokens(self) -> int:
        """Source and target tokens of a batch."""
        return self.rows * (self.source_length + self.target_length)


@dataclass(frozen=True)
class System:
    """A model of one side.

    Every second layer of a sparse model has experts. A `wide` dense model has feed-forward layers 1.5 times as wide: it
    does the arithmetic of a sparse one whose tokens go to two experts each.
    """

    architecture: str  # "nmt", or of `transformers`
    experts: int = 0
    wide: bool = False


SYSTEMS = {
    "nmt-dense": System("nmt"),
    "nmt-dense-wide": System("nmt", wide=True),
    "nmt-moe8": System("nmt", experts=8),
    "nmt-moe32": System("nmt", experts=32),
    "hf-m2m100": System("m2m100"),
    "hf-m2m100-wide": System("m2m100", wide=True),
    "hf-marian": System("marian"),
    "hf-marian-wide": System("marian", wide=True),
    "hf-nllb-moe8": System("nllb-moe", experts=8),
    "hf-nllb-moe32": System("nllb-moe", experts=32),
    "hf-switch8": System("switch", experts=8),
    "hf-switch32": System("switch", experts=32),
}
DEFAULT = "nmt-dense nmt-moe8 nmt-moe32 hf-m2m100 hf-m2m100-wide hf-marian hf-nllb-moe8".split()
PEERS = {"nmt-dense": "", "nmt-dense-wide": "-wide", "nmt-moe8": "-wide", "nmt-moe32": "-wide"}
PRECISIONS = ("fp32", "bf16")
PACKAGES = ("nmt-moe", "jax", "jaxlib", "flax", "numpy", "torch", "transformers")


def main() -> None:
    arguments = _parser().parse_args()
    shape = Shape(**{field.name: getattr(arguments, field.name) for field in fields(Shape)})
    if arguments.worker:
        _work(shape, SYSTEMS[arguments.worker], arguments.precision[0], arguments.warmup)
        return
    needed = {"torch", "transformers"} if any(name.startswith("hf-") for name in arguments.systems) else set()
    if missing := sorted(package for package in needed if importlib.util.find_spec(package) is None):
        sys.exit(f"{' and '.join(missing)} not installed: pip install -e '.[bench]'")
    about = circumstances(PACKAGES)
    print(*(f"{name}: {value}" for name, value in about.items()), sep="\n", flush=True)
    groups = []
    for pages in ("on", "off") if arguments.huge_pages == "both" else (arguments.huge_pages,):
        for precision in arguments.precision:
            groups.append(_run_group(arguments, shape, precision, pages))
    if arguments.json:
        with open(arguments.json, "w") as file:
            json.dump({**about, "shape": asdict(shape), "groups": groups}, file, indent=1)
    sys.exit(1 if any(group["failed"] for group in groups) else 0)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description=__doc__.splitlines()[0], formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
    parser.add_argument("--systems", nargs="+", choices=SYSTEMS, default=DEFAULT, metavar="NAME", help=" ".join(SYSTEMS))
    parser.add_argument("--precision", nargs="+", choices=PRECISIONS, default=PRECISIONS, help="input of products")
    parser.add_argument("--huge-pages", choices=("on", "off", "both"), default="on", help="as nmt-train sets malloc up")
    parser.add_argument("--rounds", type=_positive, default=15, help="timed steps of every system")
    parser.add_argument("--warmup", type=int, default=3, help="untimed steps after the first")
    parser.add_argument("--json", metavar="FILE", help="write all figures there")
    parser.add_argument("--worker", choices=SYSTEMS, help=argparse.SUPPRESS)
    for field in fields(Shape):
        flag = f"--{field.name.replace('_', '-')}"
        parser.add_argument(flag, type=type(field.default), default=field.default, help="shape")
    return parser


def _positive(text: str) -> int:
    if (value := int(text)) < 1:
        raise ValueError
    return value


def _work(shape: Shape, system: System, precision: str, warmup: int) -> None:
    # Only the worker imports JAX or PyTorch, and only one of them.
    if system.architecture == "nmt":
        from systems.ours import build
    else:
        from systems.transformers import build
    ...


def _run_group(arguments: argparse.Namespace, shape: Shape, precision: str, pages: str) -> Facts:
    ...


if __name__ == "__main__":
    main()
