"""Bias-balanced routing: the router against loops, the rule of the biases, and their way through a train step."""

import functools
from dataclasses import replace

import grain
import jax
import jax.numpy as jnp
import numpy as np
import oracles
import pytest
import toy_model as toy
from flax import nnx
from hypothesis import given, settings
from hypothesis import strategies as st
from toy_routing import WIDTH, draw_real, make_layer, run_layer

from nmt.config import MoEConfig
from nmt.errors import UserError
from nmt.models.buffers import Buffer
from nmt.models.building import abstract_model, split_buffers
from nmt.models.moe.routers import make_router
from nmt.models.moe.statistics import RoutingStats, statistics
from nmt.models.tokens import Phase, TokenInfo
from nmt.models.weights import load_model
from nmt.sharding import make_mesh
from nmt.train.checkpoints import Checkpoints, Progress
from nmt.train.step import make_trainer

RATE = 0.01
BIASED = {"preset": "deepseek_v3", "shared": "none", "every": 2, "bias_rate": RATE}


def moe(**changes):
    return MoEConfig(**(BIASED | {"experts": 4} | changes))


@functools.partial(jax.jit, static_argnames=("config", "slots", "groups"))
def decide(logits, real, bias, config, slots, groups=None):
    decision = make_router(config).choose(logits, real, {"router_bias": bias}, slots, None)
    info = TokenInfo(jnp.zeros(real.shape, jnp.int32), real)
    return decision.moves, statistics(decision, info, logits.shape[-1], groups)


@settings(max_examples=30, deadline=None)
@given(
    seed=st.integers(0, 2**20),
    shape=st.sampled_from([(2, 9, 5), (1, 12, 3), (3, 4, 2), (1, 1, 4)]),
    affinity=st.sampled_from(["sigmoid", "softmax"]),
    normalise=st.sampled_from(["before", "after", "none"]),
    slots=st.sampled_from([None, 1, 3]),
    padding=st.sampled_from(["none", "some", "everywhere"]),
)
def test_the_router_is_the_transcription(seed, shape, affinity, normalise, slots, padding):
    rng = np.random.default_rng(seed)
    logits = rng.normal(size=shape).astype(np.float32)
    bias = rng.normal(size=shape[-1]).astype(np.float32)  # as large as affinities: it decides
    real = draw_real(rng, shape, padding)
    config = moe(experts=shape[-1], affinity=affinity, normalise=normalise)
    routing, stats = decide(logits, real, bias, config, slots)
    expert, gate, kept, load, losses = oracles.bias_balanced(logits, real, bias, slots, 2, affinity, normalise)
    np.testing.assert_array_equal(np.asarray(routing.expert)[real], expert[real])
    np.testing.assert_array_equal(routing.kept, kept)
    np.testing.assert_allclose(routing.gate, gate, rtol=1e-5, atol=1e-7)
    np.testing.assert_array_equal(stats.assigned, load)
    np.testing.assert_allclose(stats.load, load / max(load.sum(), 1), rtol=1e-6)
    np.testing.assert_allclose(stats.balance_loss, np.mean(losses) if losses else 0.0, rtol=1e-5)
    np.testing.assert_array_equal(stats.bias, bias)
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(stats))


def test_gates_do_not_know_the_biases():
    logits = np.array([[[2.0, 1.0, -1.0]]], np.float32)
    routing, _ = decide(logits, np.ones((1, 1), bool), jnp.array([0.0, 0.0, 9.0]), moe(experts=3, normalise="none"), 1)
    assert routing.expert[0, 0].tolist() == [2, 0]
    np.testing.assert_allclose(routing.gate[0, 0], 1 / (1 + np.exp([1.0, -2.0])), rtol=1e-6)


def test_the_loss_of_sequences_is_a_mean_over_rows_and_has_its_own_weight():
    graph, state = make_layer(**BIASED, group_size=24)
    state["router_bias"] = state["router_bias"].replace(jnp.zeros(4))
    rng = np.random.default_rng(2)
    x, real = rng.normal(size=(4, 6, WIDTH)).astype(np.float32), rng.random((4, 6)) > 0.3
    real[1] = False  # a row without tokens has no part
    _, stats = run_layer(graph, state, x, real, None, Phase.TRAIN)
    logits = np.einsum("bsm,me->bse", x, np.asarray(state["router"][...]))
    *_, losses = oracles.bias_balanced(logits, real, np.zeros(4), None, 2)
    assert len(losses) == 3
    np.testing.assert_allclose(stats.balance_loss, np.mean(losses), rtol=1e-5)
    assert make_router(moe(sequence_balance_weight=0.25)).balance_weight == 0.25


def test_biases_rise_below_the_mean_and_fall_above_it():
    router = make_router(moe())
    zeros = jnp.zeros((2, 1))
    load = jnp.array([[5.0, 3.0, 0.0, 4.0], [3.0, 3.0, 3.0, 3.0]])
    stats = RoutingStats(*[zeros] * 7, assigned=load)
    bias = jnp.array([[0.5, 0.0, 0.0, 0.0], [1.0, -1.0, 0.0, 0.0]])
    found = router.updated_buffers({"router_bias": bias}, stats)["router_bias"]
    expected = np.asarray(bias) + RATE * np.array([[-1, 0, 1, -1], [0, 0, 0, 0]])
    np.testing.assert_allclose(found, expected, rtol=1e-6)


def test_a_collapsed_router_becomes_balanced():
    """The expert that all tokens prefer loses its surplus to the others, though no gradient flows."""
    rng = np.random.default_rng(0)
    logits = (0.1 * rng.normal(size=(1, 240, 4)) + np.eye(4)[0]).astype(np.float32)
    real, router, bias = np.ones((1, 240), bool), make_router(moe(bias_rate=0.002)), jnp.zeros(4)
    shares = []
    for _ in range(250):
        _, stats = decide(logits, real, bias, moe(), None)
        shares.append(float(stats.assigned.max() / stats.assigned.mean()))
        bias = router.updated_buffers({"router_bias": bias}, stats)["router_bias"]
    assert shares[0] == pytest.approx(2.0)  # every token has expert 0 among its two
    assert shares[-1] < 1.2


# Through a train step

MODEL = toy.model_config(
    encoder_layers=2, dropout=0.0, moe=toy.moe_config(**BIASED | {"sequence_balance_weight": 0.01, "min_capacity": 16})
)


def trained(steps=3, model=MODEL, **changes):
    """The state after some steps on one device, and the statistics of each."""
    recipe = toy.recipe(model=model, **changes)
    mesh = make_mesh(devices=jax.devices()[:1])
    found = []
    with jax.set_mesh(mesh):
        trainer = make_trainer(recipe, toy.SIZES, mesh)
        state = trainer.initial()
        for seed in range(steps):
            state, metrics, _ = trainer.step(state, trainer.place(toy.batch(seed)))
            found.append(jax.device_get(metrics))
    return trainer, state, found


@pytest.fixture(scope="module")
def three_steps():
    return trained()


def test_a_step_moves_every_layer_by_its_own_load(three_steps):
    _, state, found = three_steps
    biases = toy.flat(state.buffers)
    # Layer 1 of the encoder and 1 and 3 of the decoder are sparse; two blocks of the decoder are stacked.
    assert {name: array.shape for name, array in biases.items()} == {
        "encoder.blocks.1.moe.router_bias": (1, 4),
        "decoder.blocks.1.moe.router_bias": (2, 4),
    }
    for stack in ("encoder", "decoder"):
        loads = np.stack([metrics.routing[stack].assigned for metrics in found])  # [steps,Y,E]
        expected = RATE * np.sign(loads.mean(axis=-1, keepdims=True) - loads).sum(axis=0)
        np.testing.assert_allclose(biases[f"{stack}.blocks.1.moe.router_bias"], expected, atol=1e-7)
        assert (expected != 0).any()
        np.testing.assert_allclose(found[0].routing[stack].bias, 0.0)
        tokens = float(sum(metrics.source_tokens if stack == "encoder" else metrics.tokens.sum() for metrics in found))
        np.testing.assert_allclose(loads.sum(axis=(0, 2)), 2 * tokens)  # both choices of every token, in every layer


def test_layers_that_are_left_over_have_their_own_load():
    changes = {"encoder_layers": 3, "decoder_layers": 1, "moe": MODEL.moe.model_copy(update={"offset": 0})}
    model = MODEL.model_copy(update=changes)
    _, state, found = trained(1, model)
    biases, loads = toy.flat(state.buffers), found[0].routing["encoder"].assigned
    for name, load in (("encoder.blocks.0.moe.router_bias", loads[:1]), ("encoder.rest.0.moe.router_bias", loads[1])):
        np.testing.assert_allclose(biases[name], RATE * np.sign(load.mean(axis=-1, keepdims=True) - load), atol=1e-8)


def test_micro_batches_move_biases_by_the_whole_batch(three_steps):
    _, whole, metrics = three_steps
    _, state, found = trained(accumulate=2)
    for stack in ("encoder", "decoder"):
        np.testing.assert_array_equal(found[0].routing[stack].assigned, metrics[0].routing[stack].assigned)
        np.testing.assert_allclose(
            found[0].routing[stack].balance_loss, metrics[0].routing[stack].balance_loss, rtol=1e-5
        )
    np.testing.assert_allclose(found[0].loss, metrics[0].loss, rtol=1e-5)
    for one, other in zip(jax.tree.leaves(state.buffers), jax.tree.leaves(whole.buffers), strict=True):
        np.testing.assert_allclose(one, other, atol=2.1 * RATE)  # later steps round differently


def test_recomputation_changes_nothing(three_steps):
    _, again, _ = trained(model=MODEL.model_copy(update={"remat": "full"}))
    for one, other in zip(jax.tree.leaves(again.buffers), jax.tree.leaves(three_steps[1].buffers), strict=True):
        np.testing.assert_allclose(one, other, atol=1e-7)


def test_nothing_but_the_rule_sees_biases(three_steps):
    trainer, state, _ = three_steps
    for tree in (abstract_model(MODEL, toy.SIZES)[1], state.parameters, state.average, state.optimizer):
        assert not any(
            "router_bias" in jax.tree_util.keystr(path) for path, _ in jax.tree_util.tree_leaves_with_path(tree)
        )
    assert all(
        isinstance(leaf, Buffer) for leaf in jax.tree.leaves(state.buffers, is_leaf=lambda x: isinstance(x, Buffer))
    )
    assert jax.tree.leaves(trainer.state.buffers)[0].sharding is not None


def test_evaluation_and_inference_choose_by_the_biases(three_steps):
    trainer, state, _ = three_steps
    batch = toy.batch(9)
    with jax.set_mesh(make_mesh(devices=jax.devices()[:1])):
        plain = float(trainer.evaluate(state, trainer.place(batch)).nll.sum())
        far = replace(state, buffers=jax.tree.map(lambda leaf: leaf + 5.0 * jnp.eye(4)[2], state.buffers))
        metrics = trainer.evaluate(far, trainer.place(batch))
    assert float(metrics.nll.sum()) != plain
    assert float(metrics.routing["decoder"].load[0, 2]) == pytest.approx(0.5)  # one of two choices


def test_a_checkpoint_holds_biases_and_goes_on_bit_for_bit(three_steps, tmp_path):
    trainer, state, _ = three_steps
    mesh = make_mesh(devices=jax.devices()[:1])
    batches = iter(grain.MapDataset.range(3).to_iter_dataset())
    kept = jax.tree.map(lambda leaf: np.asarray(leaf).copy(), state)
    with jax.set_mesh(mesh), Checkpoints(tmp_path, keep=1) as checkpoints:
        checkpoints.save(state, batches, Progress(step=3))
        restored = checkpoints.restore(trainer.initial(), batches)
        for one, other in zip(jax.tree.leaves(restored), jax.tree.leaves(kept), strict=True):
            np.testing.assert_array_equal(one, other)
        following, _, _ = trainer.step(restored, trainer.place(toy.batch(3)))
        onward, _, _ = trainer.step(
            jax.tree.map(lambda leaf, like: jax.device_put(leaf, like.sharding), kept, trainer.state),
            trainer.place(toy.batch(3)),
        )
        for one, other in zip(jax.tree.leaves(following), jax.tree.leaves(onward), strict=True):
            np.testing.assert_array_equal(one, other)
        model, _ = load_model(tmp_path, MODEL, toy.SIZES, mesh)
        for one, other in zip(jax.tree.leaves(split_buffers(model)), jax.tree.leaves(kept.buffers), strict=True):
            np.testing.assert_array_equal(one, other)


def test_a_checkpoint_without_biases_is_of_another_model(tmp_path):
    plain = MODEL.model_copy(update={"moe": toy.moe_config()})
    mesh = make_mesh(devices=jax.devices()[:1])
    batches = iter(grain.MapDataset.range(3).to_iter_dataset())
    with jax.set_mesh(mesh), Checkpoints(tmp_path, keep=1) as checkpoints:
        trainer = make_trainer(toy.recipe(model=plain), toy.SIZES, mesh)
        state = trainer.initial()
        assert not jax.tree.leaves(state.buffers)
        checkpoints.save(state, batches, Progress(step=1))
        assert not (tmp_path / "checkpoints" / "1" / "buffers").exists()
        with pytest.raises(UserError, match=r"buffers.*(damaged|another model)"):
            load_model(tmp_path, MODEL, toy.SIZES, mesh)


def test_a_layer_owns_the_arrays_of_its_router():
    graph, state = make_layer(**BIASED)
    assert set(state) == {"router", "router_bias", "wi", "wo"}
    assert isinstance(nnx.merge(graph, state).router_bias, Buffer)
