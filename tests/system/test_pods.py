"""One run in two processes of four devices each: it computes what one process with eight computes, stops and goes on.

The processes are real ones, connected by jax.distributed over localhost; CPUs stand in for the hosts of a pod.
"""

import json
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from synthetic import TINY, Playground

from nmt.models.weights import checkpoint_steps
from nmt.sharding.hosts import Hosts
from nmt.train import loop
from nmt.train.checkpoints import Progress

STEPS, EVERY = 60, 20
SMALL = (
    *TINY,
    "mesh.data=2",  # and four along the experts: each host has rows of the batch, and experts
    f"train.checkpoint_every={EVERY}",
    "train.log_every=1",
    "train.dev_batches=2",
    "train.keep_checkpoints=9",
)
# Sums over devices are the same numbers in another order.
CLOSE = {"rtol": 2e-5, "atol": 2e-6}
TIMES = ("seconds", "tokens_per_second")


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("localhost", 0))
        return probe.getsockname()[1]


def start(playground: Playground, run: str, devices: int, *arguments: str, steps: int = STEPS) -> subprocess.Popen[str]:
    """Start nmt-train with so many devices."""
    environment = playground.environment
    flags = f"{environment.get('XLA_FLAGS', '')} --xla_force_host_platform_device_count={devices}"
    command = [sys.executable, "-m", "nmt.cli.train", f"recipe={playground.recipe}", f"run_dir=runs/{run}"]
    return subprocess.Popen(
        [*command, *SMALL, f"train.steps={steps}", *arguments],
        cwd=playground.folder,
        env=environment | {"XLA_FLAGS": flags},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        encoding="utf-8",
    )


def start_two(playground: Playground, run: str, steps: int = STEPS) -> list[subprocess.Popen[str]]:
    """Start one nmt-train in two processes of four devices."""
    keys = (f"distributed.coordinator=localhost:{free_port()}", "distributed.processes=2")
    return [start(playground, run, 4, *keys, f"distributed.process={number}", steps=steps) for number in (0, 1)]


def ended(processes: Sequence[subprocess.Popen[str]], timeout: float = 600) -> list[tuple[int, str]]:
    """Return with which status processes ended, and what they said."""
    said = [process.communicate(timeout=timeout)[1] for process in processes]
    return [(process.returncode, text) for process, text in zip(processes, said, strict=True)]


def finish(playground: Playground, run: str) -> None:
    """Let one process with eight devices finish a run."""
    (status, said) = ended([start(playground, run, 8)])[0]
    assert status == 0, said


def lines_of(run: Path) -> dict[tuple[str, int], dict[str, Any]]:
    """Return the lines of metrics.jsonl that are whole, by kind and step."""
    path = run / "metrics.jsonl"
    lines = map(json.loads, path.read_text().split("\n")[:-1] if path.exists() else ())
    return {(line["kind"], line["step"]): line for line in lines}


def wait_for_step(process: subprocess.Popen[str], run: Path, step: int) -> None:
    deadline = time.monotonic() + 600
    while max((number for _, number in lines_of(run)), default=0) < step:
        assert process.poll() is None, process.communicate()[1]
        assert time.monotonic() < deadline
        time.sleep(0.01)


def assert_same_losses(run: Path, expected: Path) -> None:
    """Compare all that two runs have recorded of every step, but for times."""
    found, wanted = lines_of(run), lines_of(expected)
    assert found.keys() == wanted.keys()
    for key, line in wanted.items():
        assert found[key].keys() == line.keys()
        for name in line.keys() - {"kind", *TIMES}:
            np.testing.assert_allclose(found[key][name], line[name], **CLOSE, err_msg=f"{key} {name}")


def copy_until(source: Path, run: Path, step: int) -> Path:
    """Copy a run as it was after a step."""
    shutil.copytree(source, run)
    for folder in (run / "checkpoints").iterdir():
        if int(folder.name) > step:
            shutil.rmtree(folder)
    shutil.rmtree(run / "evaluation")
    kept = [json.dumps(line) for (_, number), line in lines_of(source).items() if number <= step]
    (run / "metrics.jsonl").write_text("\n".join(kept) + "\n")
    return run


@pytest.fixture(scope="module")
def one(playground: Playground) -> Path:
    """A run of one process with eight devices."""
    finish(playground, "one")
    return playground.folder / "runs" / "one"


def test_two_go_on_where_one_was_and_one_where_two_were(playground: Playground, one: Path) -> None:
    run = copy_until(one, playground.folder / "runs" / "stopped", EVERY)
    processes = start_two(playground, "stopped")
    wait_for_step(processes[0], run, EVERY + 3)
    processes[1].send_signal(signal.SIGTERM)
    for number, (status, said) in enumerate(ended(processes)):
        assert status == 130, said
        assert said.endswith("nmt-train: interrupted\n")
        # Host 0 has the word.
        assert (f"resuming after step {EVERY}" in said) == (number == 0)
    (step,) = checkpoint_steps(run)[-1:]
    assert EVERY + 3 <= step < STEPS
    assert max(number for kind, number in lines_of(run) if kind == "train") == step
    finish(playground, "stopped")
    assert_same_losses(run, one)


def test_time_is_that_of_host_0() -> None:
    """What a host wants when its time is up; `Vote` makes it the same for all, as it does with a signal."""
    late = SimpleNamespace(
        preemption=False,
        recipe=SimpleNamespace(train=SimpleNamespace(max_minutes=1.0)),
        progress=Progress(step=5, seconds=60.0),
    )
    wishes = [loop._Loop._wish(SimpleNamespace(**vars(late), hosts=Hosts(number, 2))) for number in (0, 1)]
    assert wishes == [loop._NO_TIME, loop._GO_ON]
    assert loop._GO_ON < loop._NO_TIME < loop._STOP  # the largest wish counts


def test_one_is_lost_and_the_other_ends(playground: Playground, one: Path) -> None:
    copy_until(one, playground.folder / "runs" / "lost", EVERY)
    processes = start_two(playground, "lost", steps=100_000)
    wait_for_step(processes[0], playground.folder / "runs" / "lost", EVERY + 3)
    processes[1].kill()
    (status, said), _ = ended(processes, timeout=60)
    assert status == 75, said
    assert "Traceback" not in said
    last = said.splitlines()[-1]
    assert last.startswith("nmt-train: error: process 1 is lost: it died, or its host did; start the run again")
