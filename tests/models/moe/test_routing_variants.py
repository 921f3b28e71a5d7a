"""Hash routing and expert choice, each against loops."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import oracles
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from toy_routing import decide, draw_logits, draw_real

from nmt.config import MoEConfig
from nmt.models.moe.dispatch import Owners, einsum_gather_dispatch, gather_dispatch
from nmt.models.moe.routers import make_router
from nmt.models.moe.routers.hash import hashed_experts
from nmt.models.moe.statistics import statistics
from nmt.models.tokens import TokenInfo

SEED = st.integers(0, 2**20)
PADDING = st.sampled_from(["none", "some", "everywhere"])


# Hash routing


@functools.partial(jax.jit, static_argnames=("config",))
def hashed(token, real, slots, config):
    decision = make_router(config).choose(token, real, slots)
    return decision.moves, statistics(decision, TokenInfo(token, real), config.experts)


@settings(max_examples=40, deadline=None)
@given(
    seed=SEED,
    case=st.sampled_from([((2, 9), 1, 2), ((1, 1), 5, 1), ((2, 12), 4, 2), ((1, 20), 3, 3)]),
    padding=PADDING,
    slots=st.one_of(st.integers(0, 30), st.none()),
)
def test_hash_routing_is_a_function_of_the_token(seed, case, padding, slots):
    (shape, experts, choices), rng = case, np.random.default_rng(seed)
    config = MoEConfig(experts=experts, routing="hash", top_k=choices)
    token, real = rng.integers(0, 50_000, shape, dtype=np.int32), draw_real(rng, shape, padding)
    routing, stats = hashed(token, real, slots, config)
    choices = min(choices, experts)
    counter, kept = np.zeros((shape[0], experts), int), np.zeros((*shape, choices), bool)
    for k in range(choices):
        for g, n in zip(*np.nonzero(real), strict=True):
            e = oracles.hashed_experts(int(token[g, n]), experts, choices)[k]
            assert int(routing.expert[g, n, k]) == e
            kept[g, n, k] = slots is None or counter[g, e] < slots
            assert not kept[g, n, k] or int(routing.slot[g, n, k]) == counter[g, e]
            counter[g, e] += 1
    np.testing.assert_array_equal(routing.kept, kept)
    np.testing.assert_allclose(routing.gate, kept / choices)
    real_tokens = max(real.sum(), 1)
    np.testing.assert_allclose(stats.dropped, (real[..., None] & ~kept).sum(axis=(0, 1)) / real_tokens, rtol=1e-6)
    np.testing.assert_allclose(np.asarray(stats.load).sum(), real.any(), rtol=1e-6)
    np.testing.assert_allclose(stats.confidence, real.any() / choices, rtol=1e-6)
    assert float(stats.balance_loss) == float(stats.z_loss) == 0.0


@pytest.mark.parametrize("experts", [2, 3, 64])
def test_hashes_of_tokens_are_different_experts_evenly_spread(experts):
    tokens, choices = 30_000, min(experts, 3)
    expert = np.asarray(jax.jit(hashed_experts, static_argnums=(1, 2))(jnp.arange(tokens), experts, choices))
    assert (np.diff(np.sort(expert, axis=-1), axis=-1) > 0).all()
    share = 1 / experts
    for k in range(choices):
        count = np.bincount(expert[:, k], minlength=experts)
        assert np.abs(count - tokens * share).max() < 5 * (tokens * share * (1 - share)) ** 0.5
    # The second choice says nothing of the first beyond not being it.
    pairs = np.bincount(expert[:, 0] * experts + expert[:, 1], minlength=experts**2).reshape(experts, experts)
    expected = tokens / (experts * (experts - 1))
    assert np.abs(pairs[~np.eye(experts, dtype=bool)] - expected).max() < 6 * expected**0.5


# Expert choice

CHOICE = MoEConfig(routing="expert_choice", decoder_routing="token_choice")


@functools.partial(jax.jit, static_argnames=("config", "slots"))
def chosen(logits, real, config, slots):
    return decide(logits, real, config, slots)


@settings(max_examples=50, deadline=None)
@given(
    seed=SEED,
    case=st.sampled_from([((1, 1, 4), 1), ((2, 6, 1), 4), ((2, 12, 3), 5), ((1, 16, 4), 16), ((2, 9, 4), 0)]),
    kind=st.sampled_from(["spread", "twins"]),
    padding=PADDING,
)
def test_experts_take_the_tokens_that_they_like_best(seed, case, kind, padding):
    (shape, slots), rng = case, np.random.default_rng(seed)
    logits = draw_logits(rng, shape, "spread")
    if kind == "twins":  # of tokens that are alike, the first are taken
        logits[:, shape[1] // 2 :] = logits[:, : shape[1] - shape[1] // 2]
    real = draw_real(rng, shape, padding)
    choice, stats = chosen(logits, real, CHOICE, slots)
    taken = oracles.choose_tokens(logits, real, slots)
    for g in range(shape[0]):
        for e in range(shape[2]):
            kept = np.asarray(choice.kept[g, e])
            gates = dict(
                zip(np.asarray(choice.token[g, e])[kept].tolist(), np.asarray(choice.gate[g, e])[kept], strict=True)
            )
            expected = taken[g][e]
            # Within rounding of the last one that is taken, either may be.
            np.testing.assert_allclose(sorted(gates.values()), sorted(expected.values()), rtol=1e-5)
            last = min(expected.values(), default=0.0)
            assert {n for n, gate in gates.items() if gate > last * (1 + 1e-5)} == {
                n for n, gate in expected.items() if gate > last * (1 + 1e-5)
            }
            assert not np.asarray(choice.gate[g, e])[~kept].any()
    alone = sum(real[g, n] and not any(n in e for e in taken[g]) for g in range(shape[0]) for n in range(shape[1]))
    if kind == "spread":
        np.testing.assert_allclose(stats.dropped, [alone / max(real.sum(), 1)], rtol=1e-6)
    assert float(stats.balance_loss) == 0.0
    np.testing.assert_allclose(np.asarray(stats.load).sum(), real.any(), rtol=1e-6)
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(stats))


def test_equal_tokens_are_taken_in_their_order():
    choice, _ = chosen(np.zeros((1, 5, 2), np.float32), np.array([[True, False, True, True, True]]), CHOICE, 3)
    assert choice.token[0].tolist() == [[0, 2, 3], [0, 2, 3]]
    np.testing.assert_allclose(choice.gate, np.full((1, 2, 3), 0.5))


@pytest.mark.parametrize(("factor", "choices"), [(0.3, 1), (1.4, 1), (2.0, 2), (2.5, 3), (2.6, 3), (9.0, 4)])
def test_alone_a_token_takes_the_experts_that_it_likes_best(factor, choices):
    rng = np.random.default_rng(3)
    logits, real = draw_logits(rng, (2, 8, 4), "spread"), draw_real(rng, (2, 8, 4), "some")
    config = MoEConfig(experts=4, routing="expert_choice", decoder_routing="hash", capacity_factor=factor)
    routing, _ = jax.jit(lambda x, r: decide(x, r, config, None))(logits, real)
    expected = oracles.route(logits, real, None, choices=choices, normalise="none")
    np.testing.assert_array_equal(np.asarray(routing.expert)[real], expected.expert[real])
    np.testing.assert_allclose(routing.gate, expected.gate, rtol=1e-5)
    np.testing.assert_array_equal(routing.kept, expected.kept)


def test_dispatches_of_expert_choice_agree_with_loops_in_values_and_gradients():
    groups, tokens, experts, slots, width = 2, 7, 3, 4, 5
    rng = np.random.default_rng(1)
    logits, real = draw_logits(rng, (groups, tokens, experts), "spread"), np.ones((groups, tokens), bool)
    real[0, 2:] = False  # fewer tokens than slots
    x, w, cotangent = (
        rng.normal(size=s).astype(np.float32)
        for s in ((groups, tokens, width), (experts, width, width), (groups, tokens, width))
    )
    choice, _ = chosen(logits, real, CHOICE, slots)

    def run(dispatch, x, w):
        def apply(rows, owners):
            assert owners == Owners(None)
            return jnp.einsum("erm,emo->ero", rows, w, precision="highest")

        y = dispatch(x, choice, apply)
        return (y * cotangent).sum(), y

    results = [
        jax.jit(jax.grad(functools.partial(run, dispatch), argnums=(0, 1), has_aux=True))(x, w)
        for dispatch in (einsum_gather_dispatch, gather_dispatch)
    ]
    expected, of_x, of_w = np.zeros(x.shape), np.zeros(x.shape), np.zeros(w.shape)
    for g, of_group in enumerate(oracles.choose_tokens(logits, real, slots)):
        for e, taken in enumerate(of_group):
            for n, gate in taken.items():
                expected[g, n] += gate * (x[g, n] @ w[e])
                of_x[g, n] += gate * (w[e] @ cotangent[g, n])
                of_w[e] += gate * np.outer(x[g, n], cotangent[g, n])
    for (by_x, by_w), y in results:
        np.testing.assert_allclose(y, expected, rtol=1e-4, atol=1e-5)
        np.testing.assert_allclose(by_x, of_x, rtol=1e-4, atol=1e-5)
        np.testing.assert_allclose(by_w, of_w, rtol=1e-4, atol=1e-5)
