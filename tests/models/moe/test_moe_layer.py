"""The mixture-of-experts layer: experts, masks, shared experts, invariances."""

import jax
import jax.numpy as jnp
import numpy as np
import oracles
import pytest
from flax import nnx
from toy_routing import HIDDEN, WIDTH, make_layer, run_layer, tokens_of

from nmt.config import ModelConfig, MoEConfig
from nmt.config.presets import PRESETS
from nmt.errors import UserError
from nmt.models.layers import Init
from nmt.models.moe.layer import ExpertOptions, MoE
from nmt.models.moe.losses import auxiliary_loss
from nmt.models.moe.regularise import toss
from nmt.models.moe.routers import make_router
from nmt.models.moe.statistics import RoutingStats
from nmt.models.tokens import Phase, TokenInfo

KEY = jax.random.key(7)
TRAIN, EVALUATE = Phase.TRAIN, Phase.EVALUATE
EXPERT_CHOICE = {"routing": "expert_choice", "decoder_routing": "token_choice"}
ROUTINGS = {"token": {}, "top1": {"preset": "switch"}, "expert": EXPERT_CHOICE, "hash": {"routing": "hash"}}


def ids_of(seed, shape):
    return np.random.default_rng(seed).integers(0, 1000, shape, dtype=np.int32)


def parameters(state):
    return {".".join(map(str, path)): np.asarray(leaf[...]) for path, leaf in nnx.to_flat_state(state)}


# Values, against every expert on every token


def combine_weights(x, token, config, weights, activation):
    """What each token takes of each expert in inference, [N,E]."""
    kind, experts = config.routing, config.experts
    combine = np.zeros((len(x), experts))
    number = make_router(config).experts_per_token
    gates = None if kind == "hash" else oracles.softmax(x.astype(np.float64) @ weights["router"].astype(np.float64))
    for n in range(len(x)):
        if kind == "hash":
            combine[n, oracles.hashed_experts(int(token[n]), experts, number)] = 1 / number
            continue
        chosen, gate = oracles.best(gates[n], number)
        raw = kind == "expert_choice" or config.normalise == "none"
        combine[n, chosen] = gate if raw else np.array(gate) / sum(gate)
    return combine * (1.0 - config.output_masking)


CASES = {
    "gshard": ({"preset": "gshard"}, ExpertOptions()),
    "switch": ({"preset": "switch"}, ExpertOptions("gelu", bias=True)),
    "st_moe": ({"preset": "st_moe", "shared": "add", "shared_hidden": 7}, ExpertOptions("geglu", dropout=0.3)),
    "nllb": ({"preset": "nllb", "shared": "gated"}, ExpertOptions("relu", bias=True)),
    "top3": ({"top_k": 3, "normalise": "after", "shared": "add"}, ExpertOptions("swiglu", bias=True)),
    "expert": (EXPERT_CHOICE | {"capacity_factor": 2.0}, ExpertOptions("gelu")),
    "hash": ({"routing": "hash", "shared": "gated", "output_masking": 0.4}, ExpertOptions("swiglu")),
    "one expert": ({"experts": 1}, ExpertOptions("geglu", bias=True)),
}


@pytest.mark.parametrize("case", CASES)
def test_inference_is_a_gated_sum_over_every_expert(case):
    changes, options = CASES[case]
    graph, state = make_layer(options=options, **changes)
    x, real = tokens_of(1, rows=3, length=7)
    token = ids_of(1, real.shape)
    config = MoEConfig(**({"experts": 4, "second_expert": "all", "min_capacity": 1} | changes))
    weights, rows = parameters(state), x.reshape(-1, WIDTH)
    combine = combine_weights(rows, token.reshape(-1), config, weights, options.activation)
    expected = oracles.dense_layer(weights, rows, options.activation, combine).reshape(x.shape)
    y, stats = run_layer(graph, state, x, real, token=token)
    np.testing.assert_allclose(np.asarray(y)[real], expected[real], rtol=2e-4, atol=2e-4)
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(stats))
    if config.shared == "gated":
        logit = rows.astype(np.float64) @ weights["share_w"] + weights["share_b"]
        gate = 1 / (1 + np.exp(-logit[real.reshape(-1)]))
        np.testing.assert_allclose(stats.budget_loss, abs(gate.mean() - 0.8), rtol=1e-4)
        assert run_layer(graph, state, x, np.zeros_like(real), token=token)[1].budget_loss == 0.0


def test_first_weights_and_their_names():
    options = ExpertOptions("geglu", bias=True, init=Init("truncated_normal", 0.1))
    config = MoEConfig(experts=4, shared="gated", router_init_scale=0.025)
    layer = MoE(64, 32, config, jnp.dtype(jnp.float32), nnx.Rngs(0), False, options)
    shapes = {name: tuple(leaf.shape) for name, leaf in parameters(nnx.state(layer)).items()}
    experts = {"router": (64, 4), "wi": (4, 64, 32), "wg": (4, 64, 32), "wo": (4, 32, 64)}
    biases = {"bi": (4, 32), "bg": (4, 32), "bo": (4, 64), "share_w": (64,), "share_b": (1,)}
    shared = {"wi": (64, 32), "wg": (64, 32), "wo": (32, 64), "bi": (32,), "bg": (32,), "bo": (64,)}
    assert shapes == experts | biases | {f"shared.{name}": shape for name, shape in shared.items()}
    bound = 2 * (0.1 / 64) ** 0.5
    assert bound * 0.9 < np.abs(layer.wi[...]).max() <= bound
    assert bound * 0.35 < np.abs(layer.router[...]).max() <= bound / 2  # a quarter of the variance
    assert layer.router.get_metadata()["logical_axes"] == ("embed", None)
    assert layer.bi.get_metadata()["logical_axes"] == ("expert", "mlp")
    for preset, scale in {"switch": 0.1, "st_moe": 0.1, "gshard": 0.4, "nllb": 0.4}.items():  # null: of the model
        usual = ExpertOptions(init=Init("truncated_normal", 0.4))
        layer = MoE(64, 32, MoEConfig(preset=preset), jnp.dtype(jnp.float32), nnx.Rngs(0), False, usual)
        assert 0.9 * 2 * (scale / 64) ** 0.5 < np.abs(layer.router[...]).max() <= 2 * (scale / 64) ** 0.5
    assert not hasattr(MoE(4, 4, MoEConfig(routing="hash"), jnp.dtype(jnp.float32), nnx.Rngs(0)), "router")
    of_model = ExpertOptions.from_config(ModelConfig(activation="swiglu", init="xavier", init_scale=2.0, dropout=0.3))
    assert of_model == ExpertOptions("swiglu", False, Init("xavier", 2.0), 0.3)


# Invariances


@pytest.mark.parametrize("routing", ["token", "expert", "hash", *PRESETS])
@pytest.mark.parametrize(("dtype", "tolerance"), [(jnp.float32, 1e-5), (jnp.bfloat16, 2**-8)])
def test_a_token_is_treated_the_same_whoever_is_beside_it(routing, dtype, tolerance):
    changes = ROUTINGS.get(routing, {"preset": routing, "second_expert": "random"})
    graph, state = make_layer(**changes, shared="gated")
    x, real = tokens_of(1, rows=6, length=8)
    x = x.astype(dtype)
    same = {"rtol": tolerance, "atol": 1e-5}  # in bfloat16, within the rounding of the result
    token = ids_of(2, real.shape)
    together, _ = run_layer(graph, state, x, real, token=token)
    order = np.random.default_rng(2).permutation(6)
    shuffled, _ = run_layer(graph, state, x[order], real[order], token=token[order])
    together = np.asarray(together, np.float32)
    np.testing.assert_allclose(np.asarray(shuffled, np.float32), together[order], **same)
    alone = np.concatenate([run_layer(graph, state, x[[r]], real[[r]], token=token[[r]])[0] for r in range(6)])
    np.testing.assert_allclose(alone.astype(np.float32), together, **same)
    crowd = np.array([0, 1, 1, 1, 1, 1])  # everybody else wants the same experts
    crowded, _ = run_layer(graph, state, x[crowd], np.ones_like(real), token=token[crowd])
    np.testing.assert_allclose(np.asarray(crowded, np.float32)[0][real[0]], together[0][real[0]], **same)


@pytest.mark.parametrize(
    ("routing", "phase"),
    [("token", TRAIN), ("top1", EVALUATE), ("expert", TRAIN), ("hash", TRAIN), ("token", Phase.INFER)],
)
def test_what_stands_in_padding_is_of_no_consequence(routing, phase):
    changes = ROUTINGS[routing] | {"group_size": 8, "capacity_factor": 1.0, "eval_capacity_factor": 0.75}
    graph, state = make_layer(**changes)
    x, real = tokens_of(3, rows=6, length=8)
    real[4] = False
    token = ids_of(3, real.shape)
    y, stats = run_layer(graph, state, x, real, KEY, phase, token)
    other = np.where(real[..., None], x, 100.0)
    again, stats_again = run_layer(graph, state, other, real, KEY, phase, np.where(real, token, 7))
    np.testing.assert_array_equal(y, again)
    assert not np.asarray(y)[~real].any()
    for mine, its in zip(jax.tree.leaves(stats), jax.tree.leaves(stats_again), strict=True):
        np.testing.assert_array_equal(mine, its)
        assert np.isfinite(mine).all()


# Capacity


@pytest.mark.parametrize("dispatch", ["einsum", "scatter"])
def test_tokens_past_capacity_are_left_to_the_residual(dispatch):
    graph, state = make_layer(group_size=8, capacity_factor=1.0, eval_capacity_factor=2.0, dispatch=dispatch)
    state["router"] = state["router"].replace(jnp.zeros((WIDTH, 4)))  # ties: everybody to expert 0, then 1
    x, _ = tokens_of(4, rows=2, length=8)
    real = np.ones((2, 8), bool)
    for phase, slots in ((TRAIN, 2), (EVALUATE, 4)):  # C = factor * 8 / 4
        y, stats = run_layer(graph, state, x, real, phase=phase)
        y = np.asarray(y)
        assert np.abs(y[:, :slots]).max(axis=-1).min() > 0
        assert not y[:, slots:].any()
        np.testing.assert_allclose(stats.dropped, [1 - slots / 8] * 2)
    everywhere, _ = run_layer(graph, state, x, real)
    assert np.abs(everywhere).max(axis=-1).min() > 0


@pytest.mark.parametrize("routing", ["token", "expert", "hash"])
def test_without_capacity_every_token_passes_by(routing):
    graph, state = make_layer(**ROUTINGS[routing], capacity_factor=0.0, min_capacity=0)
    x, real = tokens_of(4, rows=2, length=8)
    y, stats = run_layer(graph, state, x, real, phase=TRAIN)
    assert not np.asarray(y).any()
    np.testing.assert_allclose(stats.dropped, np.ones(len(stats.dropped)), rtol=1e-6)
    assert np.asarray(run_layer(graph, state, x, real)[0])[real].any()


def test_a_group_size_that_divides_nothing_is_a_mistake():
    graph, state = make_layer(group_size=7)
    x, real = tokens_of(8, rows=2, length=8)
    with pytest.raises(UserError, match=r"group_size=7 does not divide the 16 token slots"):
        run_layer(graph, state, x, real, phase=TRAIN)
    run_layer(graph, state, x, real)  # at inference there are no groups
    run_layer(graph, state, x, real, phase=EVALUATE)


# Dispatches


@pytest.mark.parametrize("routing", ["token", "expert", "hash"])
def test_dispatches_agree_in_the_layer_and_in_every_gradient(routing):
    x, real = tokens_of(5, rows=6, length=8)
    token = ids_of(5, real.shape)
    cotangent = np.random.default_rng(6).normal(size=x.shape)
    factors = {"einsum": 0.75, "scatter": 0.75} | ({"grouped": 0.75} if routing == "expert" else {})
    changes = {"second_expert": "random", "expert_dropout": 0.2, "output_masking": 0.2, "jitter": 0.1}
    results = {}
    for dispatch, factor in factors.items():
        graph, state = make_layer(
            group_size=16,
            capacity_factor=factor,
            dispatch=dispatch,
            options=ExpertOptions("swiglu", bias=True),
            **ROUTINGS[routing] | changes,
        )

        @jax.jit
        def loss(state, x, graph=graph):
            y, stats = nnx.merge(graph, state)(x, TokenInfo(token, real), KEY, TRAIN)
            return (y * cotangent).sum() + stats.balance_loss + stats.z_loss, stats.dropped[-1]

        results[dispatch] = jax.grad(loss, argnums=(0, 1), has_aux=True)(state, x)
    reference = results.pop("einsum")
    assert 0.0 < float(reference[1]) < 1.0
    for result in results.values():
        for one, other in zip(jax.tree.leaves(reference), jax.tree.leaves(result), strict=True):
            np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-4)


def test_grouped_dispatch_is_one_whose_slots_suffice():
    x, real = tokens_of(5, rows=4, length=8)
    cotangent = np.random.default_rng(6).normal(size=x.shape)
    results = []
    for dispatch in ("scatter", "grouped"):
        graph, state = make_layer(
            capacity_factor=4.0, dispatch=dispatch, second_expert="random", options=ExpertOptions("geglu", bias=True)
        )

        @jax.jit
        def loss(state, x, graph=graph):
            y, stats = nnx.merge(graph, state)(x, TokenInfo(np.zeros(real.shape, np.int32), real), KEY, TRAIN)
            return (y * cotangent).sum() + stats.balance_loss

        results.append(jax.value_and_grad(loss, argnums=(0, 1))(state, x))
    for one, other in zip(*map(jax.tree.leaves, results), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-4)


# Noise and masks


def test_later_choices_are_drawn_in_training_only_and_by_the_key():
    graph, state = make_layer(second_expert="random", capacity_factor=8.0)
    x, _ = tokens_of(7, rows=6, length=8)
    real = np.ones((6, 8), bool)
    one, other = (run_layer(graph, state, x, real, jax.random.key(k), TRAIN)[0] for k in (0, 1))
    assert np.abs(one - other).max() > 1e-3
    np.testing.assert_array_equal(one, run_layer(graph, state, x, real, jax.random.key(0), TRAIN)[0])
    everything = run_layer(graph, state, x, real, phase=TRAIN)[0]  # without a key, all choices are kept
    np.testing.assert_allclose(everything, run_layer(graph, state, x, real)[0], rtol=1e-4, atol=1e-5)


def test_outside_of_training_a_key_is_of_no_consequence():
    x, real = tokens_of(7, rows=6, length=8)
    rates = {"jitter": 0.3, "expert_dropout": 0.3, "output_masking": 0.3, "gated_dropout": 0.3, "shared": "gated"}
    graph, state = make_layer(**rates, second_expert="random")
    for phase in (EVALUATE, Phase.INFER):
        np.testing.assert_array_equal(
            run_layer(graph, state, x, real, KEY, phase)[0], run_layer(graph, state, x, real, None, phase)[0]
        )


def test_jitter_moves_the_input_of_the_router_alone():
    graph, state = make_layer(top_k=1, normalise="none", jitter=0.5, capacity_factor=8.0)
    x, _ = tokens_of(7, rows=1, length=8)
    x[:] = x[0, 0]
    real = np.ones((1, 8), bool)
    # A single expert's output times its gate: jitter scales it within bounds, and never turns it.
    y = np.asarray(run_layer(graph, state, x, real, KEY, TRAIN)[0])[0]
    still = run_layer(graph, state, x, real)[0][0, 0]
    weights = parameters(state)
    of_expert = [oracles.feed_forward(x[0, 0], "relu", weights["wi"][e], weights["wo"][e]) for e in range(4)]
    gates = [max(float(row @ out / (out @ out)) for out in of_expert if out.any()) for row in y]
    assert np.std(gates) > 1e-3
    for row, gate in zip(y, gates, strict=True):
        assert min(np.abs(row - gate * out).max() for out in of_expert) < 1e-3
    assert np.abs(y - still).max() > 1e-3


def test_output_masking_is_of_a_token_and_choice_and_evaluates_to_its_mean():
    rate, rows = 0.3, 64
    changes = {"top_k": 2, "capacity_factor": 8.0, "experts": 2}
    graph, state = make_layer(**changes, output_masking=rate)
    bare = make_layer(**changes)[0]
    x, _ = tokens_of(9, rows=rows, length=8)
    real = np.ones(x.shape[:2], bool)
    weights, tokens = parameters(state), x.reshape(-1, WIDTH)
    gates = oracles.softmax(tokens.astype(np.float64) @ weights["router"].astype(np.float64))
    parts = [
        gates[:, [e]] * oracles.feed_forward(tokens.astype(np.float64), "relu", weights["wi"][e], weights["wo"][e])
        for e in range(2)
    ]
    y = np.asarray(run_layer(graph, state, x, real, KEY, TRAIN)[0]).reshape(-1, WIDTH)
    # Each token has both outputs, one of them, or none, and what it has is not rescaled.
    options = np.stack([a * parts[0] + b * parts[1] for a in (0, 1) for b in (0, 1)])
    distance = np.abs(options - y).max(axis=-1)
    np.testing.assert_allclose(distance.min(axis=0), 0.0, atol=2e-4)
    clear = np.sort(distance, axis=0)[1] > 1e-2  # where an expert says nothing there is nothing to mask
    share = np.bincount(distance.argmin(axis=0)[clear], minlength=4) / clear.sum()
    kept = 1 - rate
    expected = np.array([rate * rate, rate * kept, kept * rate, kept * kept])
    assert np.abs(share - expected).max() < 5 * (0.25 / clear.sum()) ** 0.5
    for phase in (EVALUATE, Phase.INFER):
        without = np.asarray(run_layer(bare, state, x, real, phase=phase)[0])
        np.testing.assert_allclose(
            run_layer(graph, state, x, real, phase=phase)[0], 0.7 * without, rtol=1e-5, atol=1e-6
        )


def test_expert_dropout_is_of_hidden_units_of_experts():
    # With an identity for wo, the output shows the hidden units.
    graph, state = make_layer(experts=1, top_k=1, expert_dropout=0.4, capacity_factor=1.0)
    wo = np.zeros((1, HIDDEN, WIDTH), np.float32)
    wo[0, :WIDTH] = np.eye(WIDTH)
    state["wo"] = state["wo"].replace(jnp.asarray(wo))
    x, _ = tokens_of(9, rows=32, length=8)
    real = np.ones(x.shape[:2], bool)
    y = np.asarray(run_layer(graph, state, x, real, KEY, TRAIN)[0])
    still = np.asarray(run_layer(graph, state, x, real)[0])
    on = still > 1e-3
    dropped = on & (y == 0)
    np.testing.assert_allclose(y[on & ~dropped], still[on & ~dropped] / 0.6, rtol=1e-4)
    assert abs(dropped.sum() / on.sum() - 0.4) < 5 * (0.24 / on.sum()) ** 0.5


def test_a_closed_gate_leaves_a_token_to_the_shared_expert():
    graph, state = make_layer(shared="gated", gated_dropout=0.4, capacity_factor=8.0)
    x, _ = tokens_of(9, rows=32, length=8)
    real = np.ones(x.shape[:2], bool)
    y, stats = run_layer(graph, state, x, real, KEY, TRAIN)
    weights, rows = parameters(state), x.reshape(-1, WIDTH)
    shared = oracles.feed_forward(rows, "relu", weights["shared.wi"], weights["shared.wo"]).reshape(x.shape)
    still, still_stats = run_layer(graph, state, x, real)
    closed = np.abs(y - shared).max(axis=-1) < 1e-4
    np.testing.assert_allclose(np.asarray(y)[~closed], np.asarray(still)[~closed], rtol=1e-3, atol=1e-4)
    assert abs(closed.mean() - 0.4) < 5 * (0.24 / closed.size) ** 0.5
    np.testing.assert_allclose(stats.budget_loss, still_stats.budget_loss, rtol=1e-5)  # the gate that is learnt


def test_a_layer_that_is_passed_by_gives_nothing_and_its_router_still_learns():
    graph, state = make_layer(capacity_factor=8.0)
    x, real = tokens_of(9, rows=4, length=8)
    usual, stats = run_layer(graph, state, x, real, phase=TRAIN)
    y, stats_passed = run_layer(graph, state, x, real, phase=TRAIN, passed_by=np.array(True))
    assert not np.asarray(y).any()
    same, _ = run_layer(graph, state, x, real, phase=TRAIN, passed_by=np.array(False))
    np.testing.assert_array_equal(same, usual)
    jax.tree.map(np.testing.assert_array_equal, stats, stats_passed)
    shared, state = make_layer(capacity_factor=8.0, shared="add")
    y, _ = run_layer(shared, state, x, real, phase=TRAIN, passed_by=np.array(True))
    weights, rows = parameters(state), x.reshape(-1, WIDTH)
    expected = oracles.feed_forward(rows, "relu", weights["shared.wi"], weights["shared.wo"]).reshape(x.shape)
    np.testing.assert_allclose(y, expected, rtol=1e-4, atol=1e-4)


def test_the_coin_of_a_stack_is_tossed_by_the_step_in_training_alone():
    info = TokenInfo(np.zeros((1, 2), np.int32), np.ones((1, 2), bool))
    assert toss(info, 0.3, KEY, Phase.INFER) is toss(info, 0.3, None, TRAIN) is toss(info, 0.0, KEY, TRAIN) is info
    coins = jax.vmap(lambda key: toss(info, 0.3, key, TRAIN).passed_by)(jax.random.split(KEY, 2000))
    assert abs(float(coins.mean()) - 0.3) < 5 * (0.21 / 2000) ** 0.5


# Losses


def gradient_of_router(name, **changes):
    graph, state = make_layer(**changes)
    x, real = map(jnp.asarray, tokens_of(10, rows=4, length=8))
    info = TokenInfo(jnp.zeros(real.shape, jnp.int32), real)

    def loss(state):
        return getattr(nnx.merge(graph, state)(x, info, KEY, TRAIN)[1], name)

    return parameters(jax.jit(jax.grad(loss))(state))


@pytest.mark.parametrize(
    ("name", "changes", "learns"),
    [
        ("balance_loss", {}, {"router"}),
        ("z_loss", {}, {"router"}),
        ("z_loss", {"routing": "expert_choice", "decoder_routing": "hash"}, {"router"}),
        ("budget_loss", {"shared": "gated"}, {"share_w", "share_b"}),
        ("balance_loss", {"router_dtype": "bfloat16"}, {"router"}),
    ],
)
def test_each_loss_alone_teaches_the_router_and_nothing_else(name, changes, learns):
    found = {path for path, gradient in gradient_of_router(name, **changes).items() if gradient.any()}
    assert found == learns


def test_z_loss_of_a_router_that_says_nothing():
    graph, state = make_layer(experts=5)
    state["router"] = state["router"].replace(jnp.zeros((WIDTH, 5)))
    x, real = tokens_of(10, rows=4, length=8)
    np.testing.assert_allclose(run_layer(graph, state, x, real)[1].z_loss, np.log(5) ** 2, rtol=1e-6)


def stats_of(layers, balance, z, budget):
    zeros = jnp.zeros((layers,))
    losses = (jnp.full((layers,), value, jnp.float32) for value in (balance, z, budget))
    return RoutingStats(*losses, load=zeros, dropped=zeros, confidence=zeros, by_direction=zeros)


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        # The encoder has two sparse layers, the decoder one.
        ({}, 0.5 * (2 * 1 + 4) / 3 + 0.25 * (2 * 3 + 6) / 3),
        ({"routing": "hash"}, 0.0),
        ({"decoder_routing": "hash"}, 0.5 * 1 + 0.25 * 3),
        (EXPERT_CHOICE, 0.5 * 4 + 0.25 * (2 * 3 + 6) / 3),
        ({"routing": "hash", "shared": "gated"}, 2.0 * (2 * 0.1 + 0.7) / 3),
    ],
)
def test_losses_are_means_over_the_layers_that_have_them(changes, expected):
    config = MoEConfig(balance_weight=0.5, z_weight=0.25, gated_weight=2.0, **changes)
    stats = {"encoder": stats_of(2, 1.0, 3.0, 0.1), "decoder": stats_of(1, 4.0, 6.0, 0.7)}
    np.testing.assert_allclose(auxiliary_loss(stats, config), expected, rtol=1e-6)


def test_balance_losses_are_added_up_if_so_wanted():
    config = MoEConfig(balance_weight=0.5, z_weight=0.25, balance_reduction="sum")
    stats = {"encoder": stats_of(2, 1.0, 3.0, 0.1), "decoder": stats_of(1, 4.0, 6.0, 0.7)}
    expected = 0.5 * (2 * 1 + 4) + 0.25 * (2 * 3 + 6) / 3
    np.testing.assert_allclose(auxiliary_loss(stats, config), expected, rtol=1e-6)
