#!/usr/bin/env bash
# jax 0.10.2 on CPUs: jax.lax.ragged_dot computes every pair of row and group.
#
# ragged_dot multiplies each row with the matrix of its own group, so 512 rows cost the same arithmetic whether they
# belong to one group or to 64; that is why it is used for mixtures of experts. One would have guessed that FLOPs do not
# grow with the groups. On CPUs they do, in proportion, and so does the time (and on GPUs: 6 to 90 times the time of the
# batched product at 8 to 128 groups, JAX 0.11.2 on an H200).
#
# Output seen (2026-11-30, Python 3.11, two cores):
#     1 groups: 1.0 times the FLOPs of 512 rows by [128, 128]
#     8 groups: 8.1 times
#    64 groups: 65.0 times
set -euo pipefail

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
unset PYTHONPATH PYTHONHOME PIP_CONSTRAINT JAX_PLATFORMS XLA_FLAGS
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check jax==0.10.2

JAX_PLATFORMS=cpu "$folder/venv/bin/python" - <<'PYTHON'
import jax
import jax.numpy as jnp

ROWS, WIDTH = 512, 128
ratios = []
for groups in (1, 8, 64):
    rows, sizes = jnp.ones((ROWS, WIDTH)), jnp.full((groups,), ROWS // groups, jnp.int32)
    program = jax.jit(jax.lax.ragged_dot).lower(rows, jnp.ones((groups, WIDTH, WIDTH)), sizes).compile()
    ratios.append(program.cost_analysis()["flops"] / (2 * ROWS * WIDTH * WIDTH))
    print(f"{groups:5} groups: {ratios[-1]:.1f} times the FLOPs of {ROWS} rows by [{WIDTH}, {WIDTH}]")
assert ratios[2] / ratios[0] > 32, "the behaviour has changed"
PYTHON
