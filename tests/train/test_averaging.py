"""Averages of checkpoints: right sums, a run that loads, and one clear line for each mistake."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp
import pytest
import toy_model as toy
from etils import epath

from nmt.cli.average import AverageArguments, run_average
from nmt.errors import UserError
from nmt.models.building import split_model
from nmt.models.weights import AVERAGE, WEIGHTS, checkpoint_folder, load_model, to_arrays
from nmt.sharding import make_mesh
from nmt.train.averaging import AveragePlan, best_steps, newest_steps, write_average
from nmt.train.checkpoints import Checkpoints

MODEL = toy.model_config(encoder_layers=2, decoder_layers=2, moe=None)
STEPS = (4, 8, 12)
LOSSES = {4: 3.0, 8: 2.0, 12: 2.5}


def saved(folder, item, drawn):
    """Write a run with a checkpoint of other weights for each step."""
    with ocp.CheckpointManager(checkpoint_folder(folder)) as manager:
        for step, weights in drawn.items():
            manager.save(step, args=ocp.args.Composite(**{item: ocp.args.StandardSave(weights)}))
    (folder / "recipe.yaml").write_text("name: toy\n")
    (folder / "vocab").mkdir()
    (folder / "vocab" / "vocab.model").write_bytes(b"pieces")


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = epath.Path(tmp_path_factory.mktemp("run"))
    drawn = {step: to_arrays(toy.weights(MODEL, seed=step)[1]) for step in STEPS}
    saved(folder, AVERAGE, drawn)
    return folder, drawn


def loaded(folder, config=MODEL):
    model, step = load_model(folder, config, toy.SIZES, make_mesh(devices=jax.devices()[:1]))
    return to_arrays(split_model(model)[1]), step


def assert_mean(found, weights, shares):
    """Check arrays against the weighted mean by NumPy."""
    expected = jax.tree.map(
        lambda *leaves: sum(s * np.asarray(leaf, np.float64) for s, leaf in zip(shares, leaves, strict=True)), *weights
    )
    jax.tree.map(
        lambda one, other: np.testing.assert_allclose(np.asarray(one), other, rtol=1e-6, atol=1e-8), found, expected
    )


def test_a_weighted_average_is_a_run_with_the_vocabulary_and_the_recipe(run, tmp_path):
    folder, drawn = run
    write_average(AveragePlan(folder, (8, 4), (3.0, 1.0)), tmp_path / "new")
    found, step = loaded(tmp_path / "new")
    assert step == 8
    assert_mean(found, [drawn[8], drawn[4]], [0.75, 0.25])
    assert (tmp_path / "new" / "vocab" / "vocab.model").read_bytes() == b"pieces"
    assert (tmp_path / "new" / "recipe.yaml").read_text() == "name: toy\n"
    record = json.loads((tmp_path / "new" / "average.json").read_text())
    assert record == {"run": str(folder), "item": "average", "shares": {"8": 0.75, "4": 0.25}}


def test_weights_of_bfloat16_are_averaged_in_float32_where_there_is_no_moving_average(tmp_path):
    folder = epath.Path(tmp_path / "run")
    folder.mkdir()
    rng = np.random.default_rng(0)
    drawn = {step: {"a": {"b": jnp.asarray(rng.normal(size=(2, 3)), jnp.bfloat16)}} for step in STEPS}
    saved(folder, WEIGHTS, drawn)
    plan = AveragePlan(folder, (4, 12), (1.0, 1.0))
    assert plan.item == WEIGHTS
    found = plan.average(WEIGHTS)
    assert found["a"]["b"].dtype == np.float32
    assert_mean(found, [drawn[4], drawn[12]], [0.5, 0.5])


def test_the_newest_and_the_best_are_chosen(run):
    folder, _ = run
    dev = [{"kind": "dev", "step": step, "nll": loss} for step, loss in LOSSES.items()]
    others = [
        {"kind": "dev", "step": 6, "nll": 0.1},
        {"kind": "train", "step": 4, "nll": 0.1},
        {"kind": "dev", "step": 4},
    ]
    assert newest_steps(folder, 2) == (8, 12)
    assert best_steps(folder, [*others, *dev], 2) == (8, 12)
    assert best_steps(folder, [*others, *dev], 3) == (8, 12, 4)
    with pytest.raises(UserError, match=r"has 3 checkpoints \(4, 8, 12\), not 5; train.keep_checkpoints"):
        newest_steps(folder, 5)
    with pytest.raises(UserError, match="has 1 checkpoints with a development loss"):
        best_steps(folder, dev[:1], 2)


@pytest.mark.parametrize(
    ("steps", "weights", "message"),
    [
        ((4, 5), (1, 1), r"has no checkpoint of step 5 \(it has 4, 8, 12\)"),
        ((4, 4), (1, 1), "step 4 is named twice"),
        ((4,), (1,), "needs two checkpoints"),
        ((4, 8), (1,), "1 weights for 2 checkpoints"),
        ((4, 8), (1, 0), r"above 0 \(not 0\)"),
        ((4, 8), (1, float("nan")), r"above 0 \(not nan\)"),
    ],
)
def test_mistakes_of_a_plan(run, steps, weights, message):
    with pytest.raises(UserError, match=message):
        AveragePlan(run[0], steps, weights)


def test_an_existing_run_is_left_alone_and_a_failed_one_is_removed(run, tmp_path, monkeypatch):
    plan = AveragePlan(run[0], (4, 8), (1, 1))
    (tmp_path / "there").mkdir()
    with pytest.raises(UserError, match="exists already"):
        write_average(plan, tmp_path / "there")
    monkeypatch.setattr(AveragePlan, "average", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        write_average(plan, tmp_path / "new")
    assert not (tmp_path / "new").exists()


def test_training_does_not_go_on_from_an_average(run):
    with Checkpoints(run[0], 3) as checkpoints, pytest.raises(UserError, match="12 has weights only, no state"):
        checkpoints.restore(None, None)


def test_the_command_wants_one_way_to_choose_and_numbers():
    for given in ({}, {"last": 2, "best": 2}):
        with pytest.raises(UserError, match="give one of --last N"):
            run_average(AverageArguments("run", "new", **given))
    with pytest.raises(UserError, match="--steps must be whole numbers with commas between"):
        run_average(AverageArguments("run", "new", steps="4,x"))
    with pytest.raises(UserError, match="--weights must be numbers"):
        run_average(AverageArguments("run", "new", last=2, weights="1;2"))
