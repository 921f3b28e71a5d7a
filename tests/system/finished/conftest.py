"""One whole run, trained once through the real commands, for all tests of this folder."""

import subprocess

import pytest
from synthetic import Playground


@pytest.fixture(scope="session")
def training(playground: Playground) -> subprocess.CompletedProcess[str]:
    """The command that trained the run of the recipe, as it ended."""
    return playground.command("nmt-train", f"recipe={playground.recipe}")


@pytest.fixture(scope="session")
def trained(playground: Playground, training: subprocess.CompletedProcess[str]) -> Playground:
    """The working directory with the run of its recipe finished."""
    assert training.returncode == 0, training.stderr
    return playground
