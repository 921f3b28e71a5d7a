"""Token choice: selection, capacity, gates, statistics."""

from types import SimpleNamespace

import jax
import numpy as np
import oracles
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from toy_routing import ALL, HALF, draw_logits, draw_real, routed

from nmt.config import MoEConfig
from nmt.models.moe.capacity import capacity
from nmt.models.moe.routers import make_router

KEY = jax.random.key(7)


def config(**changes):
    return MoEConfig(**({"second_expert": "all", "normalise": "before"} | changes))


# Groups, tokens and experts, each combination compiled once.
SHAPES = [
    ((1, 1, 4), ALL),
    ((2, 6, 1), HALF),
    ((3, 8, 2), HALF),
    ((2, 12, 5), config(second_expert="random", normalise="after")),
    ((1, 24, 8), config(top_k=3, second_expert="random", second_threshold=0.2)),
    ((2, 9, 4), config(top_k=1, normalise="none")),
    ((2, 10, 3), config(top_k=3, normalise="after", batch_prioritised=True)),
    ((1, 16, 6), config(top_k=4, normalise="none", second_expert="random", batch_prioritised=True)),
]
CASES = {
    "seed": st.integers(0, 2**20),
    "case": st.sampled_from(SHAPES),
    "kind": st.sampled_from(["spread", "ties", "collapse", "twins"]),
    "padding": st.sampled_from(["none", "some", "everywhere"]),
    "slots": st.integers(0, 30),
}


def draw(rng, shape, kind):
    """Logits; twins are tokens that are alike, of which none has the first gate of another kind."""
    if kind != "twins":
        return draw_logits(rng, shape, kind)
    kinds = draw_logits(rng, (1, 3, shape[2]), "spread")[0]
    return kinds[rng.integers(0, 3, shape[:2])]


def priorities_are_clear(logits):
    """Whether first gates are equal only where tokens are: otherwise rounding decides who comes first."""
    rows = np.unique(logits.reshape(-1, logits.shape[-1]), axis=0)
    first = np.sort(oracles.softmax(rows.astype(np.float64)).max(axis=-1))
    return logits.shape[-1] == 1 or np.diff(first).min(initial=1.0) > 1e-5


def assert_routed(routing, stats, expected):
    wanted = expected.slot >= 0
    np.testing.assert_array_equal(np.asarray(routing.expert)[wanted], expected.expert[wanted])
    np.testing.assert_array_equal(routing.kept, expected.kept)
    np.testing.assert_allclose(routing.gate, expected.gate, rtol=1e-5, atol=1e-7)
    np.testing.assert_array_equal(np.asarray(routing.slot)[wanted], expected.slot[wanted])
    for name in ("balance_loss", "z_loss", "confidence", "load", "dropped"):
        np.testing.assert_allclose(getattr(stats, name), getattr(expected, name), rtol=1e-5, atol=1e-6, err_msg=name)
    assert float(stats.budget_loss) == 0.0


def oracle(logits, real, slots, config, uniform=None):
    threshold = config.second_threshold if config.second_expert == "random" and uniform is not None else None
    prioritised = config.batch_prioritised and slots is not None
    return oracles.route(logits, real, slots, threshold, uniform, config.top_k, config.normalise, prioritised)


@settings(max_examples=120, deadline=None)
@given(**CASES)
def test_training_routes_as_the_transcription_does(seed, case, kind, padding, slots):
    (shape, config), rng = case, np.random.default_rng(seed)
    logits, real, key = draw(rng, shape, kind), draw_real(rng, shape, padding), jax.random.key(seed)
    assume(not config.batch_prioritised or priorities_are_clear(logits))
    uniform = np.asarray(jax.random.uniform(key, (*real.shape, config.top_k - 1)), np.float64)
    if config.second_expert == "random":  # whoever is within rounding of the threshold may go either way
        everyone = oracles.route(logits, np.ones_like(real), None, choices=config.top_k).gate[..., 1:]
        assume(np.abs(uniform * config.second_threshold - everyone).min() > 1e-6)
    assert_routed(*routed(logits, real, slots, key, config), oracle(logits, real, slots, config, uniform))


@settings(max_examples=40, deadline=None)
@given(**CASES)
def test_inference_drops_nothing_and_draws_nothing(seed, case, kind, padding, slots):
    (shape, config), rng = case, np.random.default_rng(seed)
    logits, real = draw(rng, shape, kind), draw_real(rng, shape, padding)
    routing, stats = routed(logits, real, None, None, config)
    assert_routed(routing, stats, oracle(logits, real, None, config))
    np.testing.assert_array_equal(routing.kept[..., 0], real)
    if config.normalise != "none":
        np.testing.assert_allclose(np.asarray(routing.gate).sum(axis=-1), real, atol=1e-6)
    assert not np.asarray(stats.dropped).any()


def combine_weights(routing, experts):
    gates = np.zeros((*routing.gate.shape[:2], experts))
    for choice in range(2):
        at = np.asarray(routing.expert[..., choice])[..., None]
        np.put_along_axis(gates, at, np.take_along_axis(gates, at, -1) + routing.gate[..., choice, None], axis=-1)
    return gates


@settings(max_examples=40, deadline=None)
@given(seed=CASES["seed"], shape=st.sampled_from([(1, 1, 4), (3, 8, 2), (1, 24, 8)]), slots=CASES["slots"])
def test_the_paper_as_printed(seed, shape, slots):
    rng = np.random.default_rng(seed)
    logits = draw_logits(rng, shape, "spread")
    gates = oracles.softmax(logits.astype(np.float64))
    real = np.ones(shape[:2], bool)

    # When every second choice is sampled, Algorithm 1 is what is done here, and its loss is over E^2.
    routing, stats = routed(logits, real, slots, None, HALF)
    printed = [oracles.algorithm_1(g, slots, np.zeros(len(g))) for g in gates]
    np.testing.assert_allclose(
        combine_weights(routing, shape[2]), np.array([c for c, _ in printed]), rtol=1e-5, atol=1e-7
    )
    np.testing.assert_allclose(stats.balance_loss, shape[2] ** 2 * np.mean([a for _, a in printed]), rtol=1e-5)

    # When some are not, the printed counters run ahead of ours: what the paper keeps is kept here, and maybe more.
    key = jax.random.key(seed)
    uniform = np.asarray(jax.random.uniform(key, real.shape), np.float64)
    ours = oracles.route(logits, real, slots, 0.5, uniform[..., None])
    for group, (gate, u) in enumerate(zip(gates, uniform, strict=True)):
        combine, _ = oracles.algorithm_1(gate, slots, u)
        here = combine_weights(SimpleNamespace(gate=ours.gate[[group]], expert=ours.expert[[group]]), shape[2])[0]
        np.testing.assert_allclose(here[combine > 0], combine[combine > 0], rtol=1e-6)


def test_where_the_paper_as_printed_drops_and_we_do_not():
    # Four tokens want expert 1 second; the first two are not sampled, and there are two slots.
    gates = np.array([[0.75, 0.25]] * 4)
    uniform = np.array([0.99, 0.99, 0.0, 0.0])
    printed, _ = oracles.algorithm_1(gates, 2, uniform)
    assert (printed[:, 1] > 0).tolist() == [False, False, False, False]
    ours = oracles.route(np.log(gates)[None], np.ones((1, 4), bool), 2, 0.5, uniform[None, :, None])
    assert ours.kept[0, :, 1].tolist() == [False, False, True, True]


def test_an_example_by_hand():
    # Three tokens prefer expert 0 at 3 : 1; an expert has two slots.
    logits = np.log(np.array([[[0.75, 0.25]] * 3], np.float32))
    routing, stats = routed(logits, np.ones((1, 3), bool), 2, None, ALL)
    assert routing.expert[0].tolist() == [[0, 1]] * 3
    assert routing.kept[0].tolist() == [[True, True], [True, True], [False, False]]
    assert routing.slot[0].tolist() == [[0, 0], [1, 1], [2, 2]]
    np.testing.assert_allclose(routing.gate[0], [[0.75, 0.25], [0.75, 0.25], [0, 0]], rtol=1e-6)
    np.testing.assert_allclose(stats.load, [1.0, 0.0])
    np.testing.assert_allclose(float(stats.balance_loss), 2 * 0.75, rtol=1e-6)
    np.testing.assert_allclose(stats.dropped, [1 / 3, 1 / 3], rtol=1e-6)


def test_first_choices_are_served_before_any_second_choice():
    # The second choice of token 0 and the first of token 1 are the same expert, which has one slot.
    logits = np.log(np.array([[[0.6, 0.4], [0.3, 0.7]]], np.float32))
    routing, _ = routed(logits, np.ones((1, 2), bool), 1, None, ALL)
    assert routing.expert[0].tolist() == [[0, 1], [1, 0]]
    assert routing.kept[0].tolist() == [[True, False], [True, False]]


@pytest.mark.parametrize(
    ("tokens", "experts", "factor", "least", "expected"),
    [
        (1024, 8, 2.0, 4, 256),
        (1024, 8, 1.25, 4, 160),
        (100, 8, 1.25, 1, 16),
        (8, 8, 1.0, 4, 4),
        (7, 2, 1.0, 1, 4),
        (100, 10, 1.1, 1, 11),  # in floating point 1.1 * 100 / 10 is more than 11
        (50, 5, 2.2, 1, 22),
    ],
)
def test_capacity(tokens, experts, factor, least, expected):
    config = MoEConfig(experts=experts, capacity_factor=factor, min_capacity=least)
    assert capacity(tokens, config) == expected


def test_capacity_and_choices_of_a_configuration():
    assert capacity(8, config(experts=1, capacity_factor=2.0)) == 8  # more than the tokens are of no use
    assert capacity(8, config(experts=4, min_capacity=20)) == 8
    assert capacity(8, config(experts=4, capacity_factor=0.0, min_capacity=0)) == 0
    assert capacity(64, config(experts=4, capacity_factor=1.0), 2.0) == 32
    assert make_router(config(top_k=3), True).experts_per_token == 3
    assert make_router(config(experts=1), False).experts_per_token == 1
    mixed = config(routing="expert_choice", decoder_routing="hash", top_k=1, capacity_factor=2.6)
    assert (make_router(mixed, False).experts_per_token, make_router(mixed, True).experts_per_token) == (3, 1)
    assert (
        make_router(
            config(routing="expert_choice", decoder_routing="hash", capacity_factor=0.1), False
        ).experts_per_token
        == 1
    )


@settings(max_examples=40, deadline=None)
@given(
    seed=CASES["seed"],
    shape=st.sampled_from([(1, 1, 4), (3, 8, 2), (1, 24, 8)]),
    slots=CASES["slots"],
    second=st.sampled_from(["all", "random"]),
)
def test_lingvo_is_what_is_done_here(seed, shape, slots, second):
    logits = draw_logits(np.random.default_rng(seed), shape, "spread")
    gates, real = oracles.softmax(logits.astype(np.float64)), np.ones(shape[:2], bool)
    key = jax.random.key(seed) if second == "random" else None
    uniform = np.asarray(jax.random.uniform(jax.random.key(seed), (*real.shape, 1)), np.float64)[..., 0]
    normalised = oracles.route(logits, real, None).gate[..., 1]
    assume(np.abs(uniform * 0.5 - normalised).min() > 1e-6)
    routing, stats = routed(logits, real, slots, key, HALF)
    threshold = 0.5 if second == "random" else None
    lingvo = [oracles.lingvo_top_2(g, slots, u, threshold) for g, u in zip(gates, uniform, strict=True)]
    combine = np.zeros((*shape, slots))
    for g, n, k in zip(*np.nonzero(routing.kept), strict=True):
        combine[g, n, routing.expert[g, n, k], routing.slot[g, n, k]] += routing.gate[g, n, k]
    np.testing.assert_allclose(combine, np.array([c for c, _ in lingvo]).reshape(combine.shape), rtol=1e-5, atol=1e-7)
    np.testing.assert_allclose(stats.balance_loss, np.mean([loss for _, loss in lingvo]), rtol=1e-5)


def test_priority_goes_to_the_surest_tokens_in_an_encoder_and_to_the_earliest_in_a_decoder():
    logits = np.log(np.array([[[0.6, 0.4], [0.9, 0.1], [0.7, 0.3], [0.9, 0.1]]], np.float32))
    real = np.ones((1, 4), bool)
    prioritised = config(batch_prioritised=True)
    routing, _ = routed(logits, real, 2, None, prioritised)
    assert routing.slot[0, :, 0].tolist() == [3, 0, 2, 1]
    assert routing.kept[0].tolist() == [[False, False], [True, True], [False, False], [True, True]]
    decoder, _ = routed(logits, real, 2, None, prioritised, decoder=True)
    assert decoder.slot[0, :, 0].tolist() == [0, 1, 2, 3]
    assert decoder.kept[0].tolist() == [[True, True], [True, True], [False, False], [False, False]]


def test_normalisation_after_dropping_gives_all_of_the_weight_to_what_is_left():
    logits = np.log(np.array([[[0.6, 0.4], [0.3, 0.7]]], np.float32))
    gates = {
        normalise: np.asarray(routed(logits, np.ones((1, 2), bool), 1, None, config(normalise=normalise))[0].gate[0])
        for normalise in ("before", "after", "none")
    }
    np.testing.assert_allclose(gates["before"], [[0.6, 0.0], [0.7, 0.0]], rtol=1e-6)
    np.testing.assert_allclose(gates["after"], [[1.0, 0.0], [1.0, 0.0]], rtol=1e-6)
    three = np.log(np.array([[[0.5, 0.3, 0.2]]], np.float32))
    raw, _ = routed(three, np.ones((1, 1), bool), 1, None, config(normalise="none"))
    np.testing.assert_allclose(raw.gate[0, 0], [0.5, 0.3], rtol=1e-6)


def test_the_routing_of_a_token_is_exactly_the_same_whoever_is_beside_it():
    rng = np.random.default_rng(5)
    logits = rng.normal(size=(2, 12, 5)).astype(np.float32)
    real = np.ones((2, 12), bool)
    together, _ = routed(logits, real, None, None, HALF)
    order = rng.permutation(12)
    shuffled, _ = routed(logits[:, order], real, None, None, HALF)
    crowd = np.repeat(logits[:, :1], 12, axis=1)
    crowded, _ = routed(crowd, real, None, None, HALF)
    for field in ("expert", "gate", "kept"):
        np.testing.assert_array_equal(getattr(shuffled, field), np.asarray(getattr(together, field))[:, order])
        np.testing.assert_array_equal(np.asarray(getattr(crowded, field))[:, 3], getattr(together, field)[:, 0])


@pytest.mark.parametrize(("choices", "shares"), [(2, [0.4]), (3, [0.6, 0.2])])
def test_share_of_later_choices_kept(choices, shares):
    # At threshold 0.5 a choice with gate 0.2 is kept with probability 0.4, and so on.
    tokens = 20_000
    gates = [0.8, 0.2] if choices == 2 else [0.6, 0.3, 0.1]
    logits = np.broadcast_to(np.log(np.array(gates, np.float32)), (1, tokens, choices))
    sampled = config(top_k=choices, second_expert="random")
    routing, _ = routed(logits, np.ones((1, tokens), bool), tokens, KEY, sampled)
    for choice, share in enumerate(shares, start=1):
        deviation = (share * (1 - share) / tokens) ** 0.5
        assert abs(float(routing.kept[..., choice].mean()) - share) < 5 * deviation
    assert bool(routing.kept[..., 0].all())


def test_a_bfloat16_router_has_ties_that_a_float32_router_has_not():
    # Probabilities 0.5007 and 0.4993 differ by less than half a bfloat16.
    logits = np.array([[[0.0, 0.003], [0.0, 1.0]]], np.float32)
    real = np.ones((1, 2), bool)
    assert routed(logits, real, 2, None, ALL)[0].expert[0, :, 0].tolist() == [1, 1]
    coarse, _ = routed(logits, real, 2, None, config(router_dtype="bfloat16", normalise="none"))
    assert coarse.expert[0, :, 0].tolist() == [0, 1]
    assert float(coarse.gate[0, 0, 0]) == 0.5
    assert float(coarse.gate[0, 1, 0]) == pytest.approx(0.731, abs=2**-9)
    assert float(coarse.gate[0, 1, 0]) * 2**8 % 1 == 0.0
