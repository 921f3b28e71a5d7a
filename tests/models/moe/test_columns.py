"""Experts that are separate, for inference on a CPU: the results of the layer as it is trained, row by row."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from toy_routing import WIDTH, make_layer, tokens_of

from nmt.models.moe.columns import BLOCK, MOST_CHOICES, MOST_EXPERTS, Expert, block_columns, columns_dispatch, separable
from nmt.models.moe.layer import ExpertOptions
from nmt.models.moe.routing import Routing
from nmt.models.tokens import TokenInfo
from nmt.models.weight_matrix import weight_matrix
from nmt.sharding import make_layout

F32 = jnp.float32
OPTIONS = {
    "relu": ({}, ExpertOptions()),
    "biases": ({"top_k": 3, "shared": "add"}, ExpertOptions("gelu", bias=True)),
    "gated": ({"preset": "nllb", "shared": "gated"}, ExpertOptions("swiglu", bias=True)),
}


@jax.jit
def run(layer, x, real):
    return layer(x, TokenInfo(jnp.zeros(real.shape, jnp.int32), real))


@pytest.mark.parametrize("case", OPTIONS)
def test_separate_experts_give_the_results_of_stacked_ones(case):
    changes, options = OPTIONS[case]
    stacked, separate = (nnx.merge(*make_layer(experts=5, options=options, **changes)) for _ in range(2))
    separate.separate_experts()
    assert {part.shape for part in (separate.separate[0].inner.weight, separate.separate[4].outer.weight.T)} == {
        (10, WIDTH)
    }
    assert separate.wi is None  # weights are kept once
    x, real = tokens_of(1, 6, 8)
    expected, statistics = run(stacked, x, real)
    got, also = run(separate, x, real)
    np.testing.assert_allclose(got, expected, rtol=1e-5, atol=1e-5)
    jax.tree.map(np.testing.assert_array_equal, also, statistics)


# The dispatch, with outputs that tell by which expert they were made


def routing_of(expert, kept=None):
    expert = jnp.asarray(expert, jnp.int32)[None]
    kept = jnp.ones(expert.shape, bool) if kept is None else jnp.asarray(kept)[None]
    return Routing(expert, jnp.where(kept, 0.5, 0.0), jnp.zeros(expert.shape, jnp.int32), kept)


@functools.partial(jax.jit, static_argnames="precision")
def experts_of(inner, outer, precision):
    matrices = [[weight_matrix(one, precision) for one in weights] for weights in (inner, outer)]
    return tuple(Expert(a, None, b, None, None, None) for a, b in zip(*matrices, strict=True))


def draw_experts(number, width=32, hidden=64, precision="float32"):
    rng = np.random.default_rng(0)
    draw = [rng.normal(size=(number, *shape)).astype(np.float32) for shape in ((hidden, width), (width, hidden))]
    return experts_of(*draw, precision)


@jax.jit
def dispatched(x, routing, experts):
    return columns_dispatch(x, routing, experts, "relu")


@pytest.mark.parametrize("favourite", [0.0, 1.0])
def test_a_row_has_the_same_bits_whoever_is_beside_it(favourite):
    """Alone, among others, and where all others want its expert, in as many blocks as that takes."""
    rng, experts = np.random.default_rng(3), draw_experts(6)
    x = jnp.asarray(rng.normal(size=(1, 40, 32)), F32)
    chosen = np.stack([rng.permutation(6)[:2] for _ in range(40)])
    chosen[rng.random(40) < favourite] = chosen[0]
    together = np.asarray(dispatched(x, routing_of(chosen), experts))
    for row in (0, 39):
        alone = dispatched(x[:, row : row + 1], routing_of(chosen[row : row + 1]), experts)
        np.testing.assert_array_equal(alone[0, 0], together[0, row])
    order = rng.permutation(40)
    shuffled = dispatched(x[:, order], routing_of(chosen[order]), experts)
    np.testing.assert_array_equal(np.asarray(shuffled)[0], together[0, order])


def test_padding_is_sent_to_no_expert():
    experts = draw_experts(3)
    spoilt = jax.tree.map(lambda leaf: leaf * jnp.nan, experts)
    x, chosen = jnp.ones((1, 9, 32)), np.tile([0, 1], (9, 1))
    real = np.arange(9)[:, None] < 5
    got = np.asarray(dispatched(x, routing_of(chosen, real & [True, True]), experts))
    assert np.abs(got[0, :5]).min() > 0
    np.testing.assert_array_equal(got[0, 5:], 0.0)
    np.testing.assert_array_equal(dispatched(x, routing_of(chosen, np.zeros((9, 2), bool)), spoilt), 0.0)
    # An expert that nobody chose is not so much as read.
    np.testing.assert_array_equal(dispatched(x, routing_of(chosen), (*experts[:2], spoilt[2]))[0, 0], got[0, 0])


@pytest.mark.parametrize(("precision", "tolerance"), [("bfloat16", 0.01), ("int8", 0.03)])
def test_smaller_precisions_stay_close_and_sums_are_float32(precision, tolerance):
    x = jax.random.normal(jax.random.key(0), (1, 4, 32))
    routing = routing_of(np.tile([0, 1], (4, 1)))
    small = draw_experts(2, precision=precision)
    assert small[1].outer.weight.dtype == precision
    got, exact = (dispatched(x, routing, experts) for experts in (small, draw_experts(2)))
    assert got.dtype == x.dtype
    assert 0 < jnp.linalg.norm(got - exact) < tolerance * jnp.linalg.norm(exact)
    # Each row has a scale of its own: it does not matter that another is a thousand times as large.
    scaled = dispatched(x.at[0, 0].multiply(1000.0), routing, small)
    np.testing.assert_array_equal(scaled[0, 1:], got[0, 1:])


def test_steps_of_decoding_have_blocks_of_one_size():
    assert {block_columns(choices, experts) for choices in (1, 256, MOST_CHOICES) for experts in (2, 128)} == {BLOCK}
    assert block_columns(MOST_CHOICES + 1, 32) == 64  # whole texts


def test_experts_are_separate_on_one_cpu_only_and_where_they_are_not_too_many():
    assert separable(MOST_EXPERTS)
    assert not separable(MOST_EXPERTS + 1)
    with make_layout(devices=1).use():
        assert separable(4)
    with make_layout(devices=8).use():
        assert not separable(4)


def test_a_program_holds_no_copy_of_a_matrix():
    """A slice of a common array, or a matrix that is turned, would be read and written before it is multiplied."""
    experts = draw_experts(4, 64, 128)
    x, routing = jnp.ones((1, 8, 64)), routing_of(np.tile([0, 1], (8, 1)))
    program = dispatched.lower(x, routing, experts).compile().as_text()
    made = [line.partition(" = ")[2].split("(")[0] for line in program.splitlines()]
    ways = {how.split()[-1] for how in made if how.startswith(("f32[128,64]", "f32[64,128]"))}
    assert ways == {"parameter", "get-tuple-element"}
