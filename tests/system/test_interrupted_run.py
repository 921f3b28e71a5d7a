"""Runs as people treat them: planned, stopped, killed, gone on with, changed."""

import fcntl
import json
import os
import re
import signal
import subprocess
import time
from pathlib import Path
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp
import pytest
from synthetic import DIRECTIONS, Playground, one_line, written

STEPS = 120
# What a model that has hardly learnt says is long, and of no interest here.
BRIEF = (
    "decode.beam=1",
    "decode.max_length_ratio=0.1",
    "decode.max_length_extra=1",
    "evaluate.samples=0",
    "evaluate.sentences=10",
)
# Layers of one kind, so that little has to be compiled.
SHALLOW = ("model.encoder_layers=1", "model.decoder_layers=1", "model.moe.every=1")
SHORT = (f"train.steps={STEPS}", "train.checkpoint_every=20", "train.log_every=10", *SHALLOW, *BRIEF)
TIMES = ("seconds", "tokens_per_second")


# A run that is only planned.


def test_dry_run_shows_the_plan_and_writes_no_run(playground: Playground) -> None:
    done = playground.command("nmt-train", f"recipe={playground.recipe}", "dry_run=true", "run_dir=runs/plan")
    assert done.returncode == 0, done.stderr
    recipe, _, rest = done.stdout.partition("\nparameters: ")
    assert "name: quickstart\n" in recipe
    assert "run_dir: runs/plan\n" in recipe
    total, active = (int(number.replace(",", "")) for number in re.findall(r"[\d,]{5,}\d", rest)[:2])
    assert 0 < active < total
    assert "memory, estimated: " in rest
    for direction in DIRECTIONS:
        assert any(direction in line and "25.0%" in line for line in rest.splitlines())
    assert not (playground.folder / "runs" / "plan").exists()


# A run that is interrupted.


def lines_of(run: Path, kind: str) -> list[dict[str, Any]]:
    path = run / "metrics.jsonl"
    lines = path.read_text().split("\n")[:-1] if path.exists() else []
    return [line for line in map(json.loads, lines) if line["kind"] == kind]


def wait_for_step(process: subprocess.Popen[str], run: Path, step: int) -> None:
    """Return when a run that is under way has reported a step."""
    deadline = time.monotonic() + 600
    while not any(line["step"] >= step for line in lines_of(run, "train")):
        assert process.poll() is None, process.stderr.read() if process.stderr else ""
        assert time.monotonic() < deadline
        time.sleep(0.02)


def weights(run: Path) -> dict[str, np.ndarray]:
    folder = run / "checkpoints" / str(STEPS) / "model"
    with ocp.StandardCheckpointer() as reader:
        tree = reader.restore(folder)
    return {jax.tree_util.keystr(path): np.asarray(leaf) for path, leaf in jax.tree_util.tree_leaves_with_path(tree)}


@pytest.fixture(scope="module")
def whole(playground: Playground) -> Path:
    """A short run that nothing disturbed."""
    done = playground.command("nmt-train", f"recipe={playground.recipe}", *SHORT, "run_dir=runs/whole")
    assert done.returncode == 0, done.stderr
    return playground.folder / "runs" / "whole"


@pytest.fixture(scope="module")
def disturbed(playground: Playground) -> Path:
    """The same run: first told to stop, then killed, now finished."""
    run = playground.folder / "runs" / "disturbed"
    command = ("nmt-train", f"recipe={playground.recipe}", *SHORT, "run_dir=runs/disturbed")
    for step, number, status in ((30, signal.SIGTERM, 130), (70, signal.SIGKILL, -signal.SIGKILL)):
        with playground.start(*command) as process:
            wait_for_step(process, run, step)
            os.kill(process.pid, number)
            assert process.wait(timeout=60) == status
            assert not (run / "checkpoints" / str(STEPS)).exists()
            assert not (run / "evaluation").exists()
    done = playground.command(*command)
    assert done.returncode == 0, done.stderr
    assert "resuming after step " in done.stderr
    return run


def test_a_disturbed_run_ends_as_an_undisturbed_one(whole: Path, disturbed: Path) -> None:
    expected, found = weights(whole), weights(disturbed)
    assert expected.keys() == found.keys()
    assert all(np.array_equal(expected[name], found[name]) for name in expected)


def test_a_disturbed_run_reports_each_step_once(whole: Path, disturbed: Path) -> None:
    steps = [line["step"] for line in lines_of(disturbed, "train")]
    assert steps == sorted(set(steps))
    expected, found = (
        {line["step"]: {key: value for key, value in line.items() if key not in TIMES} for line in lines_of(run, "dev")}
        for run in (whole, disturbed)
    )
    assert expected.keys() <= found.keys()
    assert all(found[step] == expected[step] for step in expected)


def test_two_commands_do_not_train_one_run(whole: Path, playground: Playground) -> None:
    before = written(whole)
    with (whole / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        done = playground.command("nmt-train", f"recipe={playground.recipe}", *SHORT, "run_dir=runs/whole")
    assert "another nmt-train is working in runs/whole" in one_line(done, "nmt-train")
    assert written(whole) == before


def test_another_recipe_does_not_go_on_with_a_run(whole: Path, playground: Playground) -> None:
    before = written(whole)
    changes = ("model.width=32", "train.schedule.learning_rate=0.1")
    done = playground.command("nmt-train", f"recipe={playground.recipe}", *SHORT, *changes, "run_dir=runs/whole")
    line = one_line(done, "nmt-train")
    assert "model.width: 64 -> 32" in line
    assert "train.schedule.learning_rate: 0.003 -> 0.1" in line
    assert "run_dir=" in line
    assert written(whole) == before


def test_another_corpus_does_not_go_on_with_a_run(whole: Path, playground: Playground) -> None:
    done = playground.command(
        "nmt-train", f"recipe={playground.recipe}", *SHORT, "data.clean.min_words=5", "run_dir=runs/whole"
    )
    assert "data.clean.min_words: 4 -> 5" in one_line(done, "nmt-train")


def test_more_steps_are_added_to_a_finished_run(playground: Playground) -> None:
    for steps in (20, 40):
        arguments = (*SHORT[1:], f"train.steps={steps}", "train.schedule.name=rsqrt", "run_dir=runs/longer")
        done = playground.command("nmt-train", f"recipe={playground.recipe}", *arguments)
        assert done.returncode == 0, done.stderr
    assert "resuming after step 20" in done.stderr
    assert [line["step"] for line in lines_of(playground.folder / "runs" / "longer", "train")] == [10, 20, 30, 40]


def test_a_corpus_that_cannot_be_fetched_leaves_nothing(playground: Playground, tmp_path: Path) -> None:
    done = playground.command(
        "nmt-train",
        f"recipe={playground.recipe}",
        "run_dir=runs/offline",
        NMT_CACHE=str(tmp_path),
        PIP_FIND_LINKS=str(tmp_path),
    )
    assert done.returncode == 2
    errors = [line for line in done.stderr.splitlines() if line.startswith("nmt-train: error: ")]
    assert len(errors) == 1
    assert "cannot fetch corpus toy" in errors[0]
    assert "Traceback" not in done.stderr
    assert list((tmp_path / "corpora").rglob("*.whl")) == []
    assert not (playground.folder / "runs" / "offline" / "vocab").exists()
