#!/usr/bin/env bash
# jax 0.10.2: donated arguments are matched to results by shape and order, and another order costs copies.
#
# A function of two donated arrays of one shape returns both, updated. One would have guessed that each result takes the
# memory of the array that it was computed from, in whatever order they are returned. They are matched first come,
# first served, before XLA sees what depends on what; returned the other way round, results are written elsewhere and
# copied, and the program needs memory for it. No warning: every donated array was used. Return a donated state in the
# order in which it came.
#
# Output seen (2026-11-30, Python 3.11, CPU):
#   same order: 1 copies, 4194304 bytes of temporaries
#   other order: 3 copies, 8388608 bytes of temporaries
set -euo pipefail

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
unset PYTHONPATH PYTHONHOME PIP_CONSTRAINT JAX_PLATFORMS XLA_FLAGS
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check jax==0.10.2

JAX_PLATFORMS=cpu "$folder/venv/bin/python" - <<'PYTHON'
import jax
import jax.numpy as jnp

array = jax.ShapeDtypeStruct((1 << 20,), jnp.float32)
functions = {"same order": lambda a, b: (a + 1, b + a), "other order": lambda a, b: (b + a, a + 1)}
temporaries = {}
for name, function in functions.items():
    program = jax.jit(function, donate_argnums=(0, 1)).lower(array, array).compile()
    temporaries[name] = program.memory_analysis().temp_size_in_bytes
    print(f"{name}: {program.as_text().count(' copy(')} copies, {temporaries[name]} bytes of temporaries")
assert temporaries["other order"] > temporaries["same order"], "the behaviour has changed"
PYTHON
