#!/usr/bin/env bash
# jax 0.10.2 on CPUs: cost_analysis() counts the body of a loop once, however often it runs.
#
# A scan of n products of matrices. One would have guessed that the FLOPs of the compiled program grow with n, the more
# so as the number of trips is known when it is compiled, and is printed in its text. A model whose layers are scanned
# seems to need the arithmetic of one layer, and a loop over experts that of one expert. Multiply by
# `known_trip_count`, which the text of the program has.
#
# Output seen (2026-11-30, Python 3.11):
#     1 products: 524288 FLOPs
#    10 products: 524290 FLOPs
#   100 products: 524290 FLOPs
set -euo pipefail

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
unset PYTHONPATH PYTHONHOME PIP_CONSTRAINT JAX_PLATFORMS XLA_FLAGS
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check jax==0.10.2

JAX_PLATFORMS=cpu "$folder/venv/bin/python" - <<'PYTHON'
import jax
import jax.numpy as jnp

matrix = jnp.ones((64, 64))


def products(x: jax.Array, n: int) -> jax.Array:
    return jax.lax.scan(lambda carry, _: (carry @ matrix, None), x, None, length=n)[0]


counted = []
for n in (1, 10, 100):
    program = jax.jit(products, static_argnums=1).lower(matrix, n).compile()
    counted.append(program.cost_analysis()["flops"])
    print(f"{n:5} products: {counted[-1]:.0f} FLOPs")
assert counted[2] < 2 * counted[0], "the behaviour has changed"
PYTHON
