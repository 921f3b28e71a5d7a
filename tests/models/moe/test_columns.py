"""Experts that are separate, for inference on a CPU: the results of the layer as it is trained, row by row."""

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
    assert {part.shape for part in (separate.separate[0].inner, separate.separate[4].outer.T)} == {(10, WIDTH)}
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


def draw_experts(number, width=32, hidden=64):
    rng = np.random.default_rng(0)
    draw = [rng.normal(size=(number, *shape)).astype(np.float32) for shape in ((hidden, width), (width, hidden))]
    return tuple(Expert(jnp.asarray(a), None, jnp.asarray(b), None, None, None) for a, b in zip(*draw, strict=True))


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
    spoilt = tuple(jax.tree.map(lambda leaf: leaf * jnp.nan, expert) for expert in experts)
    x, chosen = jnp.ones((1, 9, 32)), np.tile([0, 1], (9, 1))
    real = np.arange(9)[:, None] < 5
    got = np.asarray(dispatched(x, routing_of(chosen, real & [True, True]), experts))
    assert np.abs(got[0, :5]).min() > 0
    np.testing.assert_array_equal(got[0, 5:], 0.0)
    np.testing.assert_array_equal(dispatched(x, routing_of(chosen, np.zeros((9, 2), bool)), spoilt), 0.0)
    # An expert that nobody chose is not so much as read.
    np.testing.assert_array_equal(dispatched(x, routing_of(chosen), (*experts[:2], spoilt[2]))[0, 0], got[0, 0])


def test_bfloat16_weights_are_multiplied_in_bfloat16_and_summed_in_float32():
    experts = jax.tree.map(lambda leaf: leaf.astype(jnp.bfloat16), draw_experts(2))
    x = jax.random.normal(jax.random.key(0), (1, 4, 32))
    got = dispatched(x, routing_of(np.tile([0, 1], (4, 1))), experts)
    rounded = np.asarray(x[0].astype(jnp.bfloat16), np.float32)
    expected = 0.0
    for expert in experts:
        hidden = np.maximum(rounded @ np.asarray(expert.inner, np.float32).T, 0)
        hidden = np.asarray(jnp.asarray(hidden).astype(jnp.bfloat16), np.float32)
        expected = expected + 0.5 * hidden @ np.asarray(expert.outer, np.float32).T
    assert got.dtype == x.dtype
    np.testing.assert_allclose(got[0], expected, rtol=2e-2, atol=2e-2)


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
