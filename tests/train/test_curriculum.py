"""A curriculum in the training loop: stages change at checkpoints, and a run that goes on repeats that."""

import contextlib
import json

import jax
import numpy as np
import pytest
import toy_model as toy
from test_pipeline import Numbers
from test_train import MODEL, Watcher, assert_same_checkpoint, checkpoint, tell_to_stop

from nmt.config import DataConfig
from nmt.config.schema_mixture import MixtureConfig, StageConfig
from nmt.data.pipeline import dev_batches, train_batches
from nmt.data.store import RowLengths, load_stats, prepare
from nmt.data.vocabularies import Vocabularies
from nmt.languages import Direction
from nmt.sharding import make_mesh
from nmt.train.curriculum import Curriculum
from nmt.train.loop import Data, Machines, Outcome, train

pytestmark = pytest.mark.usefixtures("compiled_once", "traced_once")
DIRECTIONS = [Direction("de", "en"), Direction("en", "de")]


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    rng = np.random.default_rng(1)

    def text():
        return " ".join(map(str, rng.integers(10, toy.VOCABULARY, rng.integers(3, 9))))

    pairs = {d: {"train": [(text(), text()) for _ in range(300)], "dev": [(text(), text())] * 4} for d in DIRECTIONS}
    folder = tmp_path_factory.mktemp("store")
    prepare(pairs, Vocabularies.shared(Numbers()), folder, lengths=RowLengths(toy.LENGTH, toy.LENGTH))
    return folder


def start(store, run, stages, watcher=None):
    mixture = MixtureConfig(stages=stages)
    plain = toy.recipe(model=MODEL, rows=256, steps=12)
    data = DataConfig(**(plain.data.model_dump() | {"mixture": mixture.model_dump(), "shuffle_window": 512}))
    recipe, mesh = plain.model_copy(update={"data": data}), make_mesh(devices=jax.devices()[:1])
    curriculum = Curriculum.from_store(data, DIRECTIONS, load_stats(store))
    batches = train_batches(store, DIRECTIONS, data, 256, 3)
    with jax.set_mesh(mesh), contextlib.closing(batches):
        found = Data(batches, lambda: dev_batches(store, DIRECTIONS, data, 256), curriculum)
        return train(recipe, run, toy.SIZES, found, Machines(mesh), watcher or Watcher())


def seen(run):
    """The directions that each step learnt from."""
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return [{key[4:] for key in line if key.startswith("nll/")} for line in lines if line["kind"] == "train"]


def test_a_stage_ends_at_a_checkpoint_and_a_resumed_run_agrees(store, tmp_path):
    stages = (StageConfig(directions=("*-en",), steps=3), StageConfig(directions=("en-*",)))
    watcher = Watcher()
    assert start(store, tmp_path / "whole", stages, watcher).outcome is Outcome.FINISHED
    assert seen(tmp_path / "whole") == [{"de-en"}] * 4 + [{"en-de"}] * 8
    assert "step 4: stage 1 ends, en-de follow" in watcher.said
    for stop_at in (4, 6):
        run = tmp_path / str(stop_at)
        assert start(store, run, stages, Watcher(stop_at, tell_to_stop)).outcome is Outcome.PREEMPTED
        assert start(store, run, stages).outcome is Outcome.FINISHED
        assert_same_checkpoint(checkpoint(run), checkpoint(tmp_path / "whole"))


def test_the_last_stage_ends_the_run_when_its_loss_no_longer_falls(store, tmp_path, monkeypatch):
    monkeypatch.setattr(Curriculum, "_loss", lambda self, stage, line: float(line["step"]))
    result = start(store, tmp_path, (StageConfig(patience=1),))
    assert (result.outcome, result.progress.step) == (Outcome.CONVERGED, 8)
    again = start(store, tmp_path, (StageConfig(patience=1),))
    assert (again.outcome, again.progress.step) == (Outcome.CONVERGED, 8)
