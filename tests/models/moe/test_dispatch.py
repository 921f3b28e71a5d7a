import functools
from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import oracles
import pytest
from flax import nnx
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from nmt.config import MoEConfig
from nmt.models.moe import grouped
from nmt.models.moe.dispatch import (
    Owners,
    einsum_dispatch,
    einsum_gather_dispatch,
    gather_dispatch,
    grouped_dispatch,
    scatter_dispatch,
)
from nmt.models.moe.grouped import Blocks, block_rows, grouped_product, sort_into_blocks
from nmt.models.moe.layer import MoE
from nmt.models.moe.ranks import ranks_within_experts
from nmt.models.moe.routing import ExpertChoice, Routing
from nmt.models.numerics import contract_rows
from nmt.models.tokens import Phase, TokenInfo

WIDTH, HIDDEN = 6, 10
F32, BF16 = jnp.dtype(jnp.float32), jnp.dtype(jnp.bfloat16)
LOADS = {"any": 0.8, "one expert": 1.0, "few": 0.1, "none": 0.0}
# Groups, tokens, experts and choices, each combination compiled once.
SHAPES = [(1, 5, 3, 2), (2, 16, 4, 3), (1, 40, 1, 1), (3, 70, 7, 2), (1, 1, 2, 2), (2, 33, 5, 1)]


def draw_routing(rng, shape, load):
    """Choices without an order: experts that differ by token, slots counted one by one, and whether each is kept."""
    groups, tokens, experts, choices = shape
    order = np.argsort(rng.random((groups, tokens, max(experts, choices))), axis=-1)
    expert = np.minimum(order[..., :choices], experts - 1)
    if load == "one expert":
        expert[:] = rng.integers(experts)
    kept = rng.random(expert.shape) < LOADS[load]
    slot = counted(kept, expert)
    gate = np.where(kept, rng.random(expert.shape) + 0.01, 0.0)
    return Routing(
        jnp.asarray(expert, jnp.int32), jnp.asarray(gate, jnp.float32), jnp.asarray(slot, jnp.int32), jnp.asarray(kept)
    )


def counted(wanted, expert):
    """The definition of `ranks_within_experts`, choice by choice."""
    position = np.zeros(expert.shape, np.int32)
    for group in range(expert.shape[0]):
        seen = {}
        for choice in range(expert.shape[2]):
            for token in range(expert.shape[1]):
                if wanted[group, token, choice]:
                    e = int(expert[group, token, choice])
                    position[group, token, choice] = seen.get(e, 0)
                    seen[e] = position[group, token, choice] + 1
    return position


@settings(max_examples=60, deadline=None)
@given(
    st.integers(0, 2**20),
    st.sampled_from([*SHAPES, (2, 200, 3, 2), (1, 128, 9, 1)]),
    st.sampled_from([*LOADS]),
)
def test_ranks_within_experts_are_counted_one_by_one(seed, shape, load):
    rng = np.random.default_rng(seed)
    routing = draw_routing(rng, shape, load)
    wanted, expert = (np.asarray(x) for x in (routing.kept, routing.expert))
    ours = jax.jit(ranks_within_experts, static_argnums=2)(wanted, expert, shape[2])
    np.testing.assert_array_equal(np.asarray(ours)[wanted], counted(wanted, expert)[wanted])


# All dispatches


def experts_of(wi, wo, dtype=F32):
    def apply(rows, owners):
        return owners.multiply(jax.nn.relu(owners.multiply(rows, wi, dtype)), wo, dtype)

    return apply


@functools.partial(jax.jit, static_argnames=("dispatch", "slots", "dtype"))
def dispatched(dispatch, x, gate, wi, wo, routing, cotangent, slots, dtype=F32):
    """What a dispatch returns, and its gradients times a cotangent."""

    def run(x, gate, wi, wo):
        routed, apply = replace(routing, gate=gate), experts_of(wi, wo, dtype)
        if dispatch is grouped_dispatch:
            return dispatch(x, routed, wi.shape[0], apply)
        return dispatch(x, routed, wi.shape[0], slots, apply)

    y, backward = jax.vjp(run, x, gate, wi, wo)
    return y, *backward(cotangent)


def draw(rng, shape):
    """Tokens, a cotangent, and the weights of the experts."""
    groups, tokens, experts, _ = shape
    shapes = (groups, tokens, WIDTH), (groups, tokens, WIDTH), (experts, WIDTH, HIDDEN), (experts, HIDDEN, WIDTH)
    return [rng.normal(size=size).astype(np.float32) for size in shapes]


def assert_is_the_mixture(results, x, cotangent, wi, wo, routing):
    """Compare values and all gradients with a sum over choices in float64."""
    y, of_x, of_gate, of_wi, of_wo = (np.asarray(result) for result in results)
    kept, choices = np.asarray(routing.kept), routing.expert.shape[-1]
    expert, gate = (np.asarray(part).reshape(-1, choices) for part in (routing.expert, routing.gate))
    expected = oracles.mixture(x.reshape(-1, WIDTH), expert, gate, wi, wo, cotangent.reshape(-1, WIDTH))
    tolerance = {"rtol": 1e-4, "atol": 1e-4}
    np.testing.assert_allclose(y.reshape(-1, WIDTH), expected[0], **tolerance)
    np.testing.assert_allclose(of_x.reshape(-1, WIDTH), expected[1], **tolerance)
    # The gate of a dropped choice is the constant zero, whatever the derivative by it.
    np.testing.assert_allclose(np.where(kept, of_gate, 0).reshape(-1, choices), expected[2], **tolerance)
    np.testing.assert_allclose(of_wi, expected[3], **tolerance)
    np.testing.assert_allclose(of_wo, expected[4], **tolerance)
    assert not y[~kept.any(axis=-1)].any()  # the residual alone


@settings(max_examples=50, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.integers(0, 2**20), st.sampled_from(SHAPES), st.sampled_from([*LOADS]))
def test_grouped_is_a_gated_sum_of_experts(seed, shape, load):
    rng = np.random.default_rng(seed)
    routing = draw_routing(rng, shape, load)
    x, cotangent, wi, wo = draw(rng, shape)
    results = dispatched(grouped_dispatch, x, routing.gate, wi, wo, routing, cotangent, None)
    assert_is_the_mixture(results, x, cotangent, wi, wo, routing)


@pytest.mark.parametrize("shape", [(2, 9, 4, 2), (1, 2048, 2, 2), (2, 1, 8, 2)])
@pytest.mark.parametrize("load", [*LOADS])
def test_grouped_as_on_gpus_is_a_gated_sum_of_experts(shape, load, monkeypatch):
    on_cpus = {"_looped": grouped._copied, "_looped_backward": grouped._copied_backward}
    for name, value in {"platform": lambda: "gpu", **on_cpus}.items():
        monkeypatch.setattr(grouped, name, value)
    rng = np.random.default_rng(shape)
    routing = draw_routing(rng, shape, load)
    x, cotangent, wi, wo = draw(rng, shape)
    results = dispatched(grouped_dispatch, x, routing.gate, wi, wo, routing, cotangent, None)
    assert_is_the_mixture(results, x, cotangent, wi, wo, routing)


@pytest.mark.parametrize(("platform", "ragged"), [("cuda", False), ("tpu", True)])
def test_only_tpus_are_given_ragged_products(platform, ragged):
    """XLA for GPUs computes them for every pair of row and expert."""

    def loss(rows, weights):
        return grouped_product(rows, weights, BLOCKS, F32).sum()

    traced = jax.jit(jax.grad(loss, argnums=(0, 1))).trace(jnp.zeros((6, 8, 5)), jnp.zeros((4, 5, 3)))
    assert ("ragged_dot" in traced.lower(lowering_platforms=(platform,)).as_text()) == ragged


@pytest.mark.parametrize("dispatch", [einsum_dispatch, scatter_dispatch])
@pytest.mark.parametrize("shape", [(1, 7, 1, 1), (2, 9, 4, 2), (2, 6, 3, 3), (3, 1, 2, 1)])
@pytest.mark.parametrize("load", [*LOADS])
def test_dispatch_to_slots_is_a_gated_sum_of_experts(dispatch, shape, load):
    rng = np.random.default_rng(shape)
    slots = max(1, shape[1] * shape[3] // shape[2] // 2)
    routing = draw_routing(rng, shape, load)
    kept = routing.kept & (routing.slot < slots)
    routing = replace(routing, kept=kept, gate=jnp.where(kept, routing.gate, 0.0))
    x, cotangent, wi, wo = draw(rng, shape)
    results = dispatched(dispatch, x, routing.gate, wi, wo, routing, cotangent, slots)
    assert_is_the_mixture(results, x, cotangent, wi, wo, routing)


@pytest.mark.parametrize("dispatch", [einsum_dispatch, scatter_dispatch, grouped_dispatch])
def test_tokens_travel_in_their_own_type(dispatch):
    shape, rng = (2, 24, 4, 2), np.random.default_rng(3)
    routing = draw_routing(rng, shape, "any")
    x, cotangent, wi, wo = draw(rng, shape)
    x, cotangent = (jnp.asarray(array, BF16) for array in (x, cotangent))
    y, of_x, *rest = dispatched(dispatch, x, routing.gate, wi, wo, routing, cotangent, 24, BF16)
    assert (y.dtype, of_x.dtype) == (BF16, BF16)
    assert all(result.dtype == F32 for result in rest)
    wide = [np.asarray(array, np.float32) for array in (x, cotangent)]
    exact = dispatched(dispatch, wide[0], routing.gate, wi, wo, routing, wide[1], 24)
    kept = np.asarray(routing.kept)
    for mine, its in zip((y, of_x, *rest), exact, strict=True):
        mine, its = (np.asarray(array, np.float32) for array in (mine, its))
        mine, its = (np.where(kept, a, 0) if a.shape == kept.shape else a for a in (mine, its))
        assert np.abs(mine - its).max() < 0.03 * np.abs(its).max()


def test_the_weighted_sum_is_float32_when_tokens_are_bfloat16():
    # Ten experts give 1 and are weighed by 1/256 + 1/2^14: in bfloat16 the sum would go wrong at every addition.
    choices, gate = 10, 2.0**-8 + 2.0**-14
    routing = Routing(
        jnp.arange(choices, dtype=jnp.int32)[None, None],
        jnp.full((1, 1, choices), gate, jnp.float32),
        jnp.zeros((1, 1, choices), jnp.int32),
        jnp.ones((1, 1, choices), bool),
    )
    x = jnp.ones((1, 1, WIDTH), BF16)
    for y in (
        scatter_dispatch(x, routing, choices, 1, lambda rows, _: rows),
        einsum_dispatch(x, routing, choices, 1, lambda rows, _: rows),
        grouped_dispatch(x, routing, choices, lambda rows, _: rows),
    ):
        np.testing.assert_array_equal(y, np.full(x.shape, choices * gate).astype(BF16))


def test_a_bfloat16_token_that_many_experts_take_has_an_exact_gradient():
    """Sixty-four rows of it are added up in float32, and the sum alone is rounded."""
    experts, rng = 64, np.random.default_rng(0)
    choice = ExpertChoice(*(jnp.full((1, experts, 1), part) for part in (jnp.int32(0), jnp.float32(1), True)))
    factors = jnp.asarray(rng.normal(size=(experts, 1, WIDTH)), BF16)  # of rows, and so of their gradients
    x = jnp.ones((1, 2, WIDTH), BF16)
    for dispatch in (gather_dispatch, einsum_gather_dispatch):
        gradient = jax.grad(lambda x, run=dispatch: run(x, choice, lambda rows, _: rows * factors).sum())(x)
        assert gradient.dtype == BF16
        np.testing.assert_array_equal(gradient[0, 0], jnp.asarray(np.asarray(factors, np.float64).sum((0, 1)), BF16))
        assert not np.asarray(gradient[0, 1]).any()


@functools.partial(jax.jit, static_argnames=("graph", "train"))
def layer_and_gradients(graph, state, x, train):
    def loss(state, x):
        key, phase = (jax.random.key(3), Phase.TRAIN) if train else (None, Phase.INFER)
        info = TokenInfo(jnp.zeros(x.shape[:2], jnp.int32), jnp.arange(x.shape[1]) < jnp.asarray([[3], [7], [8]]))
        y, stats = nnx.merge(graph, state)(x, info, key, phase)
        return jnp.square(y).sum() + stats.balance_loss, stats.dropped

    return jax.value_and_grad(loss, argnums=(0, 1), has_aux=True)(state, x)


def test_a_layer_without_slots_trains_as_one_with_slots_enough():
    results = {}
    for dispatch in ("scatter", "grouped"):
        # Grouped has no use for a capacity, and random second choices are drawn the same.
        factor = {"scatter": 8.0, "grouped": 0.5}[dispatch]
        config = MoEConfig(experts=4, dispatch=dispatch, capacity_factor=factor, second_expert="random")
        graph, state = nnx.split(MoE(WIDTH, HIDDEN, config, F32, nnx.Rngs(0)))
        x = jnp.asarray(np.random.default_rng(2).normal(size=(3, 8, WIDTH)), F32)
        results[dispatch] = layer_and_gradients(graph, state, x, train=True)
    (everything, _), _ = layer_and_gradients(graph, state, x, train=False)
    assert abs(float(everything) - float(results["grouped"][0][0])) > 1e-3  # some second choices were not drawn
    for one, other in zip(jax.tree.leaves(results["scatter"]), jax.tree.leaves(results["grouped"]), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-5)


# Grouped products


@pytest.mark.parametrize(("width", "hidden"), [(4, 12), (12, 4)])
@pytest.mark.parametrize("rows", [2, 7, 128, 130])
def test_gradients_of_weights_whichever_way_they_are_computed(width, hidden, rows):
    rng = np.random.default_rng(rows)
    x, dy = (jnp.asarray(rng.normal(size=(3, rows, size)), BF16) for size in (width, hidden))
    ours = jax.jit(lambda x, dy: contract_rows("eri", x, "ero", dy, "eio"))(x, dy)
    expected = np.einsum("eri,ero->eio", np.asarray(x, np.float64), np.asarray(dy, np.float64))
    assert ours.dtype == F32
    np.testing.assert_allclose(ours, expected, rtol=1e-4, atol=1e-4)


@given(st.integers(1, 10**6), st.integers(1, 4096), st.sampled_from([128, 512]))
def test_blocks_pad_by_less_than_twice_the_work(choices, experts, most):
    rows = block_rows(choices, experts, most)
    assert 8 <= rows <= most
    padded = rows * (choices // rows + experts)
    assert padded <= choices + experts * max(8, 1.5 * choices / experts)


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 2**20), st.sampled_from(SHAPES), st.sampled_from([*LOADS]))
def test_every_kept_choice_has_a_row_of_its_own_in_a_block_of_its_expert(seed, shape, load):
    routing = draw_routing(np.random.default_rng(seed), shape, load)
    expert, kept = (part.reshape(-1, shape[3]) for part in (routing.expert, routing.kept))
    layout = jax.jit(sort_into_blocks, static_argnums=2)(expert, kept, shape[2])
    expert, kept, place, occupant = (np.asarray(part) for part in (expert, kept, layout.place, layout.occupant))
    owner, used = np.asarray(layout.blocks.owner), int(layout.blocks.used)
    rows = len(occupant) // len(owner)
    assert len(set(place[kept])) == kept.sum()
    assert (place[~kept] == len(occupant)).all()
    np.testing.assert_array_equal(owner[place[kept] // rows], expert[kept])
    np.testing.assert_array_equal(occupant[place[kept]], np.nonzero(kept)[0])
    assert (occupant == len(expert)).sum() == len(occupant) - kept.sum()
    full = np.bincount(expert[kept], minlength=shape[2])
    assert used == (-(-full // rows)).sum() <= len(owner) <= kept.size  # no more blocks than these are multiplied
    assert (np.diff(owner[:used]) >= 0).all()


BLOCKS = Blocks(jnp.asarray([0, 0, 2, 3, 3, 3], jnp.int32), jnp.asarray(4, jnp.int32))


def product_and_gradients(multiply, backward, dtype):
    rng = np.random.default_rng(1)
    rows, weights, dy = (rng.normal(size=s).astype(np.float32) for s in ((6, 8, 5), (4, 5, 3), (6, 8, 3)))
    run = jax.jit(lambda *a: (multiply(*a[:2], BLOCKS, dtype), *backward(*a[:2], BLOCKS, a[2], dtype)))
    return (rows, weights, dy), run(rows, weights, dy)


def reference(rows, weights, dy):
    y, of_rows, of_weights = np.zeros(dy.shape), np.zeros(rows.shape), np.zeros(weights.shape)
    for block in range(int(BLOCKS.used)):
        e = int(BLOCKS.owner[block])
        y[block] = rows[block].astype(np.float64) @ weights[e]
        of_rows[block] = dy[block].astype(np.float64) @ weights[e].T
        of_weights[e] += rows[block].astype(np.float64).T @ dy[block]
    return y, of_rows, of_weights


@pytest.mark.parametrize(
    ("multiply", "backward"),
    [
        (grouped._looped, grouped._looped_backward),
        (grouped._copied, grouped._copied_backward),
        (grouped._ragged, grouped._ragged_backward),
    ],
    ids=["in turn", "copied", "ragged"],
)
@pytest.mark.parametrize(("dtype", "tolerance"), [(F32, 1e-5), (BF16, 0.05)])
def test_all_ways_to_multiply_blocks(multiply, backward, dtype, tolerance):
    inputs, results = product_and_gradients(multiply, backward, dtype)
    for ours, expected in zip(results, reference(*inputs), strict=True):
        assert ours.dtype == jnp.float32
        np.testing.assert_allclose(ours, expected, rtol=tolerance, atol=tolerance)
        np.testing.assert_array_equal(np.asarray(ours)[expected == 0], 0.0)  # blocks and experts that are not used


def test_rows_of_blocks_that_are_not_used_are_never_read():
    rows = np.where(np.arange(6)[:, None, None] < 4, 1.0, np.nan) * np.ones((6, 8, 5), np.float32)
    weights = jnp.ones((4, 5, 3))
    copied = (
        grouped._copied(rows, weights, BLOCKS, F32),
        *grouped._copied_backward(rows, weights, BLOCKS, rows[..., :3], F32),
    )
    assert all(np.isfinite(np.asarray(part)).all() for part in copied)
    y, backward = jax.vjp(lambda r, w: grouped_product(r, w, BLOCKS, F32), jnp.asarray(rows, F32), weights)
    assert np.isfinite(np.asarray(y)).all()
    assert all(np.isfinite(np.asarray(gradient)).all() for gradient in backward(jnp.ones(y.shape)))


def test_vectors_of_experts_reach_their_blocks():
    vectors = jnp.arange(8.0).reshape(4, 2)
    np.testing.assert_array_equal(Owners(None).gather_vectors(vectors), vectors[:, None])
    np.testing.assert_array_equal(Owners(BLOCKS).gather_vectors(vectors)[:, 0], vectors[BLOCKS.owner])


def test_the_program_has_no_gradient_of_all_weights_for_each_block():
    """The loop adds to the slice of one expert; nothing of the size of all experts is added or copied in it."""
    rows, weights = jnp.zeros((12, 8, 5)), jnp.zeros((7, 5, 3))
    blocks = Blocks(jnp.zeros((12,), jnp.int32), jnp.asarray(3, jnp.int32))
    gradient = jax.jit(jax.grad(lambda r, w: grouped_product(r, w, blocks, F32).sum(), argnums=(0, 1)))
    text = gradient.lower(rows, weights).compile().as_text()
    body = next(part for part in text.split("\n\n") if "dynamic-update-slice" in part and "f32[7,5,3]" in part)
    assert " copy(" not in body
    assert not [line for line in text.splitlines() if "= f32[7,5,3]" in line and (" add(" in line or " copy(" in line)]
    assert "f32[12,7,5,3]" not in text
