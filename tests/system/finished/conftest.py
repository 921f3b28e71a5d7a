"""One whole run, trained once through the real commands, for all tests of this folder."""

import fcntl
import json
import shutil
import subprocess
from pathlib import Path

import pytest
from synthetic import Playground


@pytest.fixture(scope="session")
def master(shared_folder: Path) -> tuple[Playground, subprocess.CompletedProcess[str]]:
    """The working directory in which the worker that comes first trains, as people do, and the command as it ended."""
    folder = shared_folder / "trained"
    ended = folder / "ended.json"
    with (shared_folder / "trained.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not ended.exists():
            playground = Playground.make(folder)
            done = playground.command("nmt-train", f"recipe={playground.recipe}")
            ended.write_text(json.dumps(vars(done)))
    return Playground(folder, "quickstart"), subprocess.CompletedProcess(**json.loads(ended.read_text()))


@pytest.fixture(scope="session")
def training(
    master: tuple[Playground, subprocess.CompletedProcess[str]],
) -> subprocess.CompletedProcess[str]:
    """The command that trained the run of the recipe, as it ended."""
    return master[1]


@pytest.fixture(scope="session")
def trained(
    master: tuple[Playground, subprocess.CompletedProcess[str]],
    tmp_path_factory: pytest.TempPathFactory,
    programs: Path,
) -> Playground:
    """This worker's copy of the working directory with the run of its recipe finished."""
    original, done = master
    assert done.returncode == 0, done.stderr
    folder = shutil.copytree(original.folder, tmp_path_factory.mktemp("trained") / "copy")
    return Playground(folder, original.recipe, programs)
