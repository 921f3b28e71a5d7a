import functools
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import oracles
import pytest
from flax import nnx
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from nmt.config import MoEConfig
from nmt.errors import UserError
from nmt.models.moe.layer import MoE
from nmt.models.moe.routing import capacity, route
from nmt.models.tokens import Phase, TokenInfo

WIDTH, HIDDEN = 6, 10
KEY = jax.random.key(7)


# Routing


@functools.partial(jax.jit, static_argnames=("config",))
def routed(logits, real, slots, key, config):
    return route(logits, real, config, slots, key)


ALL = MoEConfig(second_expert="all")
HALF = MoEConfig(second_expert="random", second_threshold=0.5)
FIFTH = MoEConfig(second_expert="random", second_threshold=0.2)
# Groups, tokens and experts, each combination compiled once.
SHAPES = [((1, 1, 4), ALL), ((2, 6, 1), HALF), ((3, 8, 2), HALF), ((2, 12, 5), HALF), ((1, 24, 8), FIFTH)]


def draw_logits(rng, shape, kind):
    """Router logits on a coarse grid: equal ones are equal, different ones are further apart than any rounding."""
    if kind == "ties":
        return rng.integers(0, 2, shape).astype(np.float32)
    if kind == "collapse":  # all other probabilities underflow
        return np.where(np.arange(shape[-1]) == rng.integers(shape[-1]), 200.0, 0.0) * np.ones(shape, np.float32)
    return (rng.integers(-24, 25, shape) / 8).astype(np.float32)


def draw_real(rng, shape, padding):
    if padding == "everywhere":
        return np.zeros(shape[:2], bool)
    real = rng.random(shape[:2]) > {"none": 0.0, "some": 0.4}[padding]
    if padding == "some":
        real[0] = False  # a group without tokens
    return real


CASES = {
    "seed": st.integers(0, 2**20),
    "case": st.sampled_from(SHAPES),
    "kind": st.sampled_from(["spread", "ties", "collapse"]),
    "padding": st.sampled_from(["none", "some", "everywhere"]),
    "slots": st.integers(1, 30),
}


def assert_routed(routing, stats, expected, wanted_slots=True):
    np.testing.assert_array_equal(routing.expert, expected.expert)
    np.testing.assert_array_equal(routing.kept, expected.kept)
    np.testing.assert_allclose(routing.gate, expected.gate, rtol=1e-5, atol=1e-7)
    wanted = expected.slot >= 0
    np.testing.assert_array_equal(np.asarray(routing.slot)[wanted], expected.slot[wanted])
    for name in ("balance_loss", "load", "dropped"):
        np.testing.assert_allclose(getattr(stats, name), getattr(expected, name), rtol=1e-5, atol=1e-6, err_msg=name)


@settings(max_examples=120, deadline=None)
@given(**CASES)
def test_training_routes_as_the_transcription_does(seed, case, kind, padding, slots):
    (shape, config), rng = case, np.random.default_rng(seed)
    logits, real, key = draw_logits(rng, shape, kind), draw_real(rng, shape, padding), jax.random.key(seed)
    threshold = config.second_threshold if config is not ALL else None
    uniform = np.asarray(jax.random.uniform(key, real.shape), np.float64)
    expected = oracles.route(logits, real, slots, threshold, uniform)
    if threshold is not None:  # whoever is within rounding of the threshold may go either way
        everyone = oracles.route(logits, np.ones_like(real), None)
        assume(np.abs(uniform * threshold - everyone.gate[..., 1]).min() > 1e-6)
    assert_routed(*routed(logits, real, slots, key, config), expected)


@settings(max_examples=40, deadline=None)
@given(**CASES)
def test_inference_drops_nothing_and_draws_nothing(seed, case, kind, padding, slots):
    (shape, config), rng = case, np.random.default_rng(seed)
    logits, real = draw_logits(rng, shape, kind), draw_real(rng, shape, padding)
    routing, stats = routed(logits, real, None, None, config)
    assert_routed(routing, stats, oracles.route(logits, real, None))
    np.testing.assert_array_equal(routing.kept[..., 0], real)
    np.testing.assert_allclose(np.asarray(routing.gate).sum(axis=-1), real, atol=1e-6)
    assert not np.asarray(stats.dropped).any()


def combine_weights(routing, experts):
    gates = np.zeros((*routing.gate.shape[:2], experts))
    for choice in range(2):
        at = np.asarray(routing.expert[..., choice])[..., None]
        np.put_along_axis(gates, at, np.take_along_axis(gates, at, -1) + routing.gate[..., choice, None], axis=-1)
    return gates


@settings(max_examples=60, deadline=None)
@given(seed=CASES["seed"], case=st.sampled_from([s for s in SHAPES if s[0][2] > 1]), slots=CASES["slots"])
def test_the_paper_as_printed(seed, case, slots):
    (shape, config), rng = case, np.random.default_rng(seed)
    logits = draw_logits(rng, shape, "spread")
    gates = oracles.softmax(logits.astype(np.float64))
    real = np.ones(shape[:2], bool)

    # When every second choice is sampled, Algorithm 1 is what is done here, and its loss is over E^2.
    routing, stats = routed(logits, real, slots, None, config)
    printed = [oracles.algorithm_1(g, slots, np.zeros(len(g))) for g in gates]
    np.testing.assert_allclose(
        combine_weights(routing, shape[2]), np.array([c for c, _ in printed]), rtol=1e-5, atol=1e-7
    )
    np.testing.assert_allclose(stats.balance_loss, shape[2] ** 2 * np.mean([a for _, a in printed]), rtol=1e-5)

    # When some are not, the printed counters run ahead of ours: what the paper keeps is kept here, and maybe more.
    key = jax.random.key(seed)
    uniform = np.asarray(jax.random.uniform(key, real.shape), np.float64)
    ours = oracles.route(logits, real, slots, 0.5, uniform)
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
    ours = oracles.route(np.log(gates)[None], np.ones((1, 4), bool), 2, 0.5, uniform[None])
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
    [(1024, 8, 2.0, 4, 256), (1024, 8, 1.25, 4, 160), (100, 8, 1.25, 1, 16), (8, 8, 1.0, 4, 4), (7, 2, 1.0, 1, 4)],
)
def test_capacity(tokens, experts, factor, least, expected):
    config = MoEConfig(experts=experts, capacity_factor=factor, min_capacity=least)
    assert capacity(tokens, config) == expected


# The load-balancing loss


def test_balance_loss_is_one_when_balanced_and_e_when_collapsed():
    shape, experts = (2, 24, 4), 4
    real = np.ones(shape[:2], bool)

    def loss(logits):
        return float(routed(logits.astype(np.float32), real, 24, None, ALL)[1].balance_loss)

    one_hot = 200.0 * np.eye(experts)
    assert loss(np.broadcast_to(one_hot[np.arange(24) % experts], shape)) == pytest.approx(1.0)
    assert loss(np.zeros(shape)) == pytest.approx(1.0)  # f is collapsed, but P is uniform
    assert loss(np.broadcast_to(one_hot[2], shape)) == pytest.approx(experts)
    # Half of the tokens are sure of expert 0, the others are sure of expert 1: E (1/4 + 1/4).
    assert loss(np.broadcast_to(one_hot[np.arange(24) % 2], shape)) == pytest.approx(experts / 2)


def test_balance_loss_moves_the_router_towards_balance():
    rng = np.random.default_rng(0)
    logits = jnp.asarray(rng.normal(size=(1, 40, 4)) + np.eye(4)[0], jnp.float32)
    real = np.ones((1, 40), bool)
    loss = jax.jit(lambda x: route(x, real, ALL, 40, None)[1].balance_loss)
    gradient = jax.grad(loss)(logits)
    # f is constant almost everywhere, so the derivative is that of E sum_e f_e P_e by P alone.
    probability = oracles.softmax(np.asarray(logits, np.float64))
    f = np.bincount(probability[0].argmax(axis=-1), minlength=4) / 40
    expected = 4 / 40 * probability * (f - (probability * f).sum(axis=-1, keepdims=True))
    np.testing.assert_allclose(gradient, expected, rtol=1e-4, atol=1e-7)
    assert float(loss(logits - 5 * gradient)) < float(loss(logits))


# The layer


def make_layer(seed=0, **changes):
    config = MoEConfig(**({"experts": 4, "second_expert": "all", "min_capacity": 1} | changes))
    layer = nnx.eval_shape(lambda: MoE(WIDTH, HIDDEN, config, jnp.dtype(jnp.float32), nnx.Rngs(0)))
    rng = np.random.default_rng(seed)
    graph, state = nnx.split(layer)
    return graph, jax.tree.map(lambda leaf: jnp.asarray(rng.normal(size=leaf.shape), jnp.float32), state)


@functools.partial(jax.jit, static_argnames=("graph", "train"))
def run_layer(graph, state, x, real, key=None, train=False):
    return nnx.merge(graph, state)(x, info_of(real), key, Phase.TRAIN if train else Phase.INFER)


def info_of(real):
    """The tokens of a batch, which are all the same."""
    return TokenInfo(np.zeros(real.shape, np.int32), real)


def tokens_of(seed, rows, length):
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(rows, length, WIDTH)).astype(np.float32)
    return x, rng.random((rows, length)) > 0.25


def test_a_token_is_treated_the_same_whoever_is_beside_it():
    graph, state = make_layer()
    x, real = tokens_of(1, rows=6, length=8)
    together, _ = run_layer(graph, state, x, real)
    order = np.random.default_rng(2).permutation(6)
    shuffled, _ = run_layer(graph, state, x[order], real[order])
    np.testing.assert_allclose(shuffled, np.asarray(together)[order], rtol=1e-5, atol=1e-6)
    alone = np.concatenate([run_layer(graph, state, x[[row]], real[[row]])[0] for row in range(6)])
    np.testing.assert_allclose(alone, together, rtol=1e-5, atol=1e-6)
    crowd = np.concatenate([x[:1], np.repeat(x[1:2], 5, axis=0)])  # everybody else wants the same experts
    crowded, _ = run_layer(graph, state, crowd, np.ones_like(real))
    np.testing.assert_allclose(np.asarray(crowded)[0][real[0]], np.asarray(together)[0][real[0]], rtol=1e-5, atol=1e-6)


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


@pytest.mark.parametrize("train", [False, True])
def test_what_stands_in_padding_is_of_no_consequence(train):
    graph, state = make_layer(group_size=8, capacity_factor=1.0)
    x, real = tokens_of(3, rows=6, length=8)
    real[4] = False
    y, stats = run_layer(graph, state, x, real, train=train)
    other = np.where(real[..., None], x, 100.0)
    again, stats_again = run_layer(graph, state, other, real, train=train)
    np.testing.assert_array_equal(y, again)
    assert not np.asarray(y)[~real].any()
    for mine, its in zip(jax.tree.leaves(stats), jax.tree.leaves(stats_again), strict=True):
        np.testing.assert_array_equal(mine, its)


@pytest.mark.parametrize("dispatch", ["einsum", "scatter"])
def test_tokens_past_capacity_are_left_to_the_residual(dispatch):
    graph, state = make_layer(group_size=8, capacity_factor=1.0, dispatch=dispatch)
    state["router"] = state["router"].replace(jnp.zeros((WIDTH, 4)))  # ties: everybody to expert 0, then 1
    x, _ = tokens_of(4, rows=2, length=8)
    y, stats = run_layer(graph, state, x, np.ones((2, 8), bool), train=True)
    y = np.asarray(y)
    assert np.abs(y[:, :2]).max(axis=-1).min() > 0  # C = 8 / 4
    assert not y[:, 2:].any()
    np.testing.assert_allclose(stats.dropped, [0.75, 0.75])
    everywhere, _ = run_layer(graph, state, x, np.ones((2, 8), bool))
    assert np.abs(everywhere).max(axis=-1).min() > 0


def test_dispatches_agree_in_the_layer_and_in_every_gradient():
    x, real = tokens_of(5, rows=6, length=8)
    cotangent = np.random.default_rng(6).normal(size=x.shape)
    results = {}
    for dispatch in ("einsum", "scatter"):
        graph, state = make_layer(group_size=16, capacity_factor=0.75, dispatch=dispatch, second_expert="random")

        @jax.jit
        def loss(state, x, graph=graph):
            y, stats = nnx.merge(graph, state)(x, info_of(real), KEY, Phase.TRAIN)
            return (y * cotangent).sum() + stats.balance_loss, stats.dropped[1]

        results[dispatch] = jax.grad(loss, argnums=(0, 1), has_aux=True)(state, x)
    assert 0.0 < float(results["einsum"][1]) < 1.0
    for one, other in zip(jax.tree.leaves(results["einsum"]), jax.tree.leaves(results["scatter"]), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-5)


def test_second_choices_are_drawn_in_training_only_and_by_the_key():
    graph, state = make_layer(second_expert="random", capacity_factor=8.0)
    x, _ = tokens_of(7, rows=6, length=8)
    real = np.ones((6, 8), bool)
    one, other = (run_layer(graph, state, x, real, jax.random.key(k), train=True)[0] for k in (0, 1))
    assert np.abs(one - other).max() > 1e-3
    np.testing.assert_array_equal(one, run_layer(graph, state, x, real, jax.random.key(0), train=True)[0])
    everything = run_layer(graph, state, x, real, train=True)[0]  # without a key, all second choices are kept
    np.testing.assert_allclose(everything, run_layer(graph, state, x, real)[0], rtol=1e-4, atol=1e-5)


def test_share_of_second_choices_kept():
    # Every token has gates 0.8 and 0.2, so at threshold 0.5 a share of 0.4 keeps its second choice.
    tokens = 20_000
    logits = np.broadcast_to(np.log(np.array([0.8, 0.2], np.float32)), (1, tokens, 2))
    routing, _ = routed(logits, np.ones((1, tokens), bool), tokens, KEY, HALF)
    deviation = (0.4 * 0.6 / tokens) ** 0.5
    assert abs(float(routing.kept[..., 1].mean()) - 0.4) < 5 * deviation
    assert bool(routing.kept[..., 0].all())


def test_a_group_size_that_divides_nothing_is_a_mistake():
    graph, state = make_layer(group_size=7)
    x, real = tokens_of(8, rows=2, length=8)
    with pytest.raises(UserError, match=r"group_size=7 does not divide the 16 token slots"):
        run_layer(graph, state, x, real, train=True)
    run_layer(graph, state, x, real)  # at inference there are no groups
