"""The scripts that start a run on many hosts: they are whole, and the commands in them are commands."""

import re
import shlex
import shutil
import subprocess
from pathlib import Path

import pytest
import yaml

from nmt.cli import train
from nmt.config import load_recipe
from nmt.files import declarations

FOLDER = Path(__file__).parents[2] / "recipes" / "launch"
SCRIPTS = sorted(FOLDER.glob("*.sh"))
FILES = sorted(FOLDER.iterdir())


def commands(path: Path) -> list[list[str]]:
    """Return every nmt-train of a file, with the shell's variables in it as text."""
    if path.suffix == ".yaml":
        containers = []
        for job in yaml.safe_load(path.read_text())["spec"]["replicatedJobs"]:
            containers += job["template"]["spec"]["template"]["spec"]["containers"]
        return [container["command"] for container in containers]
    found = re.findall(r"^COMMAND=(?:'(.*)'|\((.*)\))$", path.read_text(), flags=re.MULTILINE)
    return [shlex.split(quoted or listed) for quoted, listed in found]


def test_there_is_a_script_for_every_place() -> None:
    names = {"tpu_vm.sh", "queued_resource.sh", "xpk.sh", "gke_jobset.yaml", "slurm_gpu.sh", "openmpi.sh"}
    assert {path.name for path in FILES} == names
    assert not names & set(declarations("recipes"))


@pytest.mark.parametrize("path", SCRIPTS, ids=lambda path: path.name)
def test_scripts_are_bash(path: Path) -> None:
    checkers = [["bash", "-n"], *([["shellcheck"]] if shutil.which("shellcheck") else [])]
    for checker in checkers:
        done = subprocess.run([*checker, str(path)], capture_output=True, text=True)
        assert done.returncode == 0, done.stdout + done.stderr
    assert path.stat().st_mode & 0o111


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_commands_are_understood(path: Path) -> None:
    found = commands(path)
    assert found
    for program, *arguments in found:
        assert program == "nmt-train"
        request = train.parse_train(arguments)
        assert load_recipe(request.recipe, request.overrides).run_dir.startswith(("gs://", "$SHARED/"))


@pytest.mark.parametrize("path", [path for path in SCRIPTS if "case ${1:-}" in path.read_text()], ids=str)
def test_scripts_without_an_argument_say_what_they_do(path: Path) -> None:
    done = subprocess.run([str(path)], capture_output=True, text=True)
    assert done.returncode == 2
    assert f"./{path.name} " in done.stderr
