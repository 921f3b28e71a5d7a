"""Weights of bfloat16: how they are rounded, what stays float32, and that checkpoints keep both."""

import grain
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import toy_model as toy

from nmt.config import resume_conflicts
from nmt.models.building import abstract_model, count_parameters, split_model
from nmt.models.weights import load_model
from nmt.sharding import make_mesh
from nmt.train.checkpoints import Checkpoints, Progress
from nmt.train.rounding import apply_updates, to_bfloat16, to_float32
from nmt.train.step import make_trainer


def test_rounding_at_random_is_exact_in_the_mean_and_never_further_than_the_next_number():
    exact = np.float32([1.0 + 2**-10, -3.3, 1e-30, 0.0, 1.0])
    keys = jax.random.split(jax.random.key(1), 4000)
    drawn = np.asarray(jax.vmap(lambda key: to_bfloat16(exact, key))(keys)).astype(np.float32)
    gap = np.abs(exact) * 2.0**-7
    assert (np.abs(drawn - exact) <= gap).all()
    # The error of a mean of 4000 draws that are at most a gap apart, six deviations of it.
    assert (np.abs(drawn.mean(axis=0) - exact) <= 6 * gap / 2 / 4000**0.5).all()
    assert (drawn[:, 3:] == exact[3:]).all()  # what bfloat16 has is left alone


def test_rounding_leaves_what_is_not_finite():
    strange = jnp.float32([jnp.inf, -jnp.inf, jnp.nan])
    np.testing.assert_array_equal(np.asarray(to_bfloat16(strange, jax.random.key(0)), np.float32), strange)


def test_small_updates_of_bfloat16_weights_add_up():
    weights = {"w": jnp.ones((256,), jnp.bfloat16)}
    for step in range(64):
        weights = apply_updates(weights, {"w": jnp.full((256,), 2.0**-12)}, jax.random.key(step))
    assert weights["w"].dtype == jnp.bfloat16
    np.testing.assert_allclose(np.asarray(weights["w"], np.float32).mean(), 1.0 + 64 * 2.0**-12, atol=5e-3)
    plain = jnp.ones((), jnp.bfloat16)
    for _ in range(64):
        plain = (plain + jnp.float32(2.0**-12)).astype(jnp.bfloat16)
    assert plain == 1.0  # which is why


@pytest.mark.parametrize("name", ["adam", "adafactor"])
def test_only_the_weights_are_bfloat16(name):
    model = toy.model_config(parameter_dtype="bfloat16")
    recipe = toy.recipe(model=model, optimizer=toy.OptimizerConfig(name=name))
    state = make_trainer(recipe, toy.SIZES, make_mesh(devices=jax.devices()[:1])).state
    assert {leaf.dtype for leaf in jax.tree.leaves(state.parameters)} == {jnp.dtype(jnp.bfloat16)}
    others = jax.tree.leaves((state.optimizer, state.average))
    assert {leaf.dtype for leaf in others if leaf.ndim} == {jnp.dtype(jnp.float32)}


def test_a_step_with_bfloat16_weights_is_that_of_float32_but_for_rounding():
    changes = {"encoder_layers": 1, "decoder_layers": 1, "dropout": 0.0, "moe": toy.moe_config(every=1)}
    found = {}
    mesh = make_mesh(devices=jax.devices()[:1])
    for dtype in ("float32", "bfloat16"):
        recipe = toy.recipe(model=toy.model_config(parameter_dtype=dtype, **changes))
        trainer = make_trainer(recipe, toy.SIZES, mesh)
        with jax.set_mesh(mesh):
            state, metrics, _ = trainer.step(trainer.initial(), toy.batch(recipe.rows))
        found[dtype] = metrics.loss, state
        assert state.parameters is not None
    np.testing.assert_allclose(found["bfloat16"][0], found["float32"][0], rtol=2e-2)
    for low, high in zip(
        *(jax.tree.leaves(to_float32(found[d][1].parameters)) for d in ("bfloat16", "float32")), strict=True
    ):
        np.testing.assert_allclose(low, high, atol=0.03)


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """A mesh, and by the type of weights a trainer, a state of random weights and the run that it is saved in."""
    mesh, found = make_mesh(devices=jax.devices()[:1]), {}
    batches = iter(grain.MapDataset.range(3).to_iter_dataset())
    for dtype in ("float32", "bfloat16"):
        recipe = toy.recipe(model=toy.model_config(parameter_dtype=dtype), ema_decay=None)
        run = tmp_path_factory.mktemp(dtype)
        with jax.set_mesh(mesh), Checkpoints(run, keep=1) as checkpoints:
            trainer = make_trainer(recipe, toy.SIZES, mesh)
            state = trainer.initial()
            checkpoints.save(state, batches, Progress(step=1))
        found[dtype] = recipe, state, run
    return mesh, found


def bits(parameters):
    return [np.asarray(leaf).view(np.uint8) for leaf in jax.tree.leaves(parameters)]


def test_checkpoints_keep_bfloat16_weights_exactly(saved):
    mesh, found = saved
    recipe, state, run = found["bfloat16"]
    batches = iter(grain.MapDataset.range(3).to_iter_dataset())
    with jax.set_mesh(mesh), Checkpoints(run, keep=1) as checkpoints:
        other = make_trainer(recipe.model_copy(update={"seed": 99}), toy.SIZES, mesh).initial()
        restored = checkpoints.restore(other, batches)
        model, _ = load_model(run, recipe.model, toy.SIZES, mesh)
    assert not all((a == b).all() for a, b in zip(bits(other.parameters), bits(state.parameters), strict=True))
    for tree in (restored.parameters, split_model(model)[1]):
        assert {leaf.dtype for leaf in jax.tree.leaves(tree)} == {jnp.dtype(jnp.bfloat16)}
        for read, written in zip(bits(tree), bits(state.parameters), strict=True):
            np.testing.assert_array_equal(read, written)


def test_weights_of_another_type_are_converted_when_they_are_read(saved):
    mesh, found = saved
    for written, read in (("float32", "bfloat16"), ("bfloat16", "float32")):
        with jax.set_mesh(mesh):
            model, _ = load_model(found[written][2], found[read][0].model, toy.SIZES, mesh)
        expected = jax.tree.map(lambda leaf, to=read: np.asarray(leaf.astype(to)), found[written][1].parameters)
        for got, wanted in zip(bits(split_model(model)[1]), bits(expected), strict=True):
            np.testing.assert_array_equal(got, wanted)


def test_a_run_does_not_go_on_with_weights_of_another_type():
    old, new = (toy.recipe(model=toy.model_config(parameter_dtype=dtype)) for dtype in ("float32", "bfloat16"))
    assert resume_conflicts(old, new) == ["model.parameter_dtype: float32 -> bfloat16"]


def test_parameters_are_counted_once_and_experts_by_choices():
    config = toy.model_config()
    total, active = count_parameters(config, abstract_model(config, toy.SIZES)[1])
    layers, experts, choices, matrices = 4, 4, 2, 2 * 16 * 24
    assert total - active == layers * (experts - choices) * matrices
