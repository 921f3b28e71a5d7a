"""Routing variants in whole models: the coin of a stack, a few steps of training, what a dry run says of the size."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import toy_model as toy
from flax import nnx

from nmt.config import MoEConfig
from nmt.models.building import abstract_model
from nmt.models.tokens import Phase, TokenInfo
from nmt.recipes.size import measure
from nmt.sharding import make_mesh
from nmt.train.step import make_trainer


@functools.partial(jax.jit, static_argnames=("graph", "phase"))
def run_stack(graph, state, x, key, phase):
    model = nnx.merge(graph, state)
    info = TokenInfo(jnp.zeros(x.shape[:2], jnp.int32), jnp.ones(x.shape[:2], bool))
    return model.encoder(x, jnp.zeros((1, 1, 1, 1)), info, key=key, phase=phase)[0]


def test_all_sparse_layers_of_a_stack_are_passed_by_together():
    moe = toy.moe_config(every=1, gating_dropout=0.5, second_expert="all", capacity_factor=4.0, group_size=None)
    graph, state = toy.weights(toy.model_config(encoder_layers=3, decoder_layers=1, dropout=0.0, moe=moe))
    silent = jax.tree.map(lambda leaf: leaf, state)
    wo = silent.encoder.blocks[0].moe.wo
    silent.encoder.blocks[0].moe.wo = wo.replace(jnp.zeros_like(wo[...]))
    x = jnp.asarray(np.random.default_rng(0).normal(size=(2, 6, 16)), jnp.float32)
    usual = run_stack(graph, state, x, jax.random.key(0), Phase.INFER)
    passed = run_stack(graph, silent, x, jax.random.key(0), Phase.INFER)
    seen = []
    for seed in range(12):
        y = run_stack(graph, state, x, jax.random.key(seed), Phase.TRAIN)
        near = [float(np.abs(y - other).max()) < 1e-4 for other in (usual, passed)]
        assert sum(near) == 1
        seen.append(near[0])
    assert 0 < sum(seen) < 12


def test_a_few_steps_of_training():
    changes = {
        "every": 1,
        "routing": "expert_choice",
        "decoder_routing": "hash",
        "shared": "gated",
        "gated_dropout": 0.1,
        "gating_dropout": 0.1,
        "output_masking": 0.1,
        "jitter": 0.01,
        "z_weight": 0.001,
    }
    model = toy.model_config(encoder_layers=1, decoder_layers=1, dropout=0.0, moe=toy.moe_config(**changes))
    recipe = toy.recipe(model=model, ema_decay=None)
    mesh = make_mesh(devices=jax.devices()[:1])
    with jax.set_mesh(mesh):
        trainer = make_trainer(recipe, toy.SIZES, mesh)
        state, batch = trainer.initial(), trainer.place(toy.batch())
        before = toy.flat(state.parameters)
        losses = []
        for _ in range(8):
            state, metrics, _ = trainer.step(state, batch)
            losses.append(float(metrics.loss))
        after = toy.flat(state.parameters)
    assert np.isfinite(losses).all()
    assert losses[-1] < 0.8 * losses[0]
    assert [name for name in before if "moe" in name and np.array_equal(before[name], after[name])] == []


EXPERT = 2 * 16 * 24  # parameters


@pytest.mark.parametrize(
    ("changes", "encoder", "decoder", "beside"),
    [
        ({"top_k": 1}, 1, 1, 2 * 64),  # beside: the routers, which every token uses
        ({"top_k": 3}, 3, 3, 2 * 64),
        ({"routing": "hash", "top_k": 2}, 2, 2, 0),
        ({"routing": "expert_choice", "decoder_routing": "hash", "top_k": 1, "capacity_factor": 3.0}, 3, 1, 64),
        ({"shared": "gated", "shared_hidden": 10, "top_k": 1}, 1, 1, 2 * (64 + 2 * 16 * 10 + 17)),
        ({"experts": 1, "top_k": 2}, 1, 1, 2 * 16),
    ],
)
def test_active_parameters_are_those_of_the_experts_that_a_token_uses(changes, encoder, decoder, beside):
    def model(moe):
        return toy.model_config(encoder_layers=1, decoder_layers=1, moe=moe)

    config = MoEConfig(**({"experts": 4, "every": 1} | changes))
    size = measure(toy.recipe(model=model(config)), toy.SIZES)
    dense = sum(leaf.size for leaf in jax.tree.leaves(abstract_model(model(None), toy.SIZES)[1]))
    assert size.active == dense - 2 * EXPERT + (encoder + decoder) * EXPERT + beside
    assert size.parameters == dense - 2 * EXPERT + 2 * config.experts * EXPERT + beside
