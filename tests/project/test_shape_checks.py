"""The import hook that checks shapes is on in tests, and nothing of it in a run."""

import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import shape_checks
from jaxtyping import Array, Float, TypeCheckError

from nmt.models.attention import attend, attention_bias
from nmt.models.tokens import TokenInfo

HEADS = jnp.ones((2, 3, 4, 5))
BIAS = jnp.zeros((2, 1, 3, 3))


def test_right_shapes_pass_in_whatever_way_jax_traces():
    def run(x):
        return attend(x, x, x, BIAS, jnp.dtype("float32"))

    assert run(HEADS).shape == jax.jit(run)(HEADS).shape == jax.eval_shape(run, HEADS).shape == HEADS.shape
    assert jax.vmap(run)(HEADS[None]).shape == (1, *HEADS.shape)
    assert jax.lax.scan(lambda x, _: (run(x), None), HEADS, length=2)[0].shape == HEADS.shape
    assert jax.grad(lambda x: run(x).sum())(HEADS).shape == HEADS.shape


@pytest.mark.parametrize(
    ("keys", "bias", "wrong"),
    [
        (HEADS[:, :, :, :4], BIAS, "k"),  # another head width
        (HEADS[:, :2], BIAS, "v"),  # another number of keys than of values
        (HEADS[0], BIAS, "k"),  # a dimension less
        (HEADS.astype(int), BIAS, "k"),  # another type
        (HEADS, BIAS[:, 0], "bias"),
    ],
)
def test_a_wrong_shape_is_an_error_that_names_the_argument(keys, bias, wrong):
    for call in (attend, jax.jit(attend, static_argnums=4)):
        with pytest.raises(TypeCheckError, match=f"parameter '{wrong}'"):
            call(HEADS, keys, HEADS, bias, jnp.dtype("float32"))


def test_a_wrong_result_is_an_error():
    with pytest.raises(TypeCheckError, match="'key_segment'"):
        attention_bias(np.ones((2, 3), int), np.ones((3, 3), int))

    def broken(x: Float[Array, "B T"]) -> Float[Array, "T B"]:
        return x

    checked = shape_checks.jaxtyped(typechecker=shape_checks.check)(broken)
    assert checked(jnp.ones((2, 2))).shape == (2, 2)
    with pytest.raises(TypeCheckError, match="return value"):
        checked(jnp.ones((2, 3)))


def test_trees_may_hold_anything():
    info = TokenInfo(np.ones((2, 3), int), np.ones((2, 3), bool))
    assert jax.tree.map(lambda leaf: None, info).token is None
    assert jax.tree.map(np.shape, info).real == (2, 3)


def test_a_run_checks_nothing():
    code = "import sys, nmt.decode.translator, nmt.train.loop; assert 'beartype' not in sys.modules"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
