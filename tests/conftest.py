"""The whole suite in several processes, and one whole run, trained once through the real commands, for who needs it."""

import os
import subprocess

import jaxlib
import pytest
from synthetic import Playground

# Groups of tests that take longest, in the order in which they are begun when there are several workers.
SLOW = ("trained", "test_sharding", "test_pods", "test_cli_run", "test_train", "test_separate_vocabularies")
# Most of the suite's time is XLA compiling what a test computes once. Its older code generator for CPUs, without LLVM's
# expensive passes, takes 0.6 times as long; what JAX asks of XLA and what XLA makes of that is the same. Commands as
# people run them, and programs for TPUs, are compiled as always: `synthetic.py` and `test_plan.py` see to that.
os.environ.setdefault("JAX_DISABLE_MOST_OPTIMIZATIONS", "1")
if jaxlib.__version__.startswith("0.10."):  # a flag that another release may not know ends the process
    os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} --xla_cpu_use_fusion_emitters=false".strip()


@pytest.hookimpl(tryfirst=True)
def pytest_cmdline_main(config: pytest.Config) -> None:
    """Share out tests among a worker for each processor, unless files are named: those are sooner done by one."""
    option = config.option
    if not config.pluginmanager.hasplugin("xdist") or os.environ.get("PYTEST_XDIST_WORKER"):
        return
    if option.numprocesses is None and not option.usepdb and not any(".py" in argument for argument in config.args):
        option.numprocesses = min(os.cpu_count() or 1, 4)
    if option.numprocesses == 1:
        option.numprocesses = 0
    if option.numprocesses and option.dist == "no":
        option.dist, option.loadscopereorder = "loadgroup", False


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Give a worker all tests of a file, which share fixtures, or all that share the finished run."""
    if not config.pluginmanager.hasplugin("xdist") or not os.environ.get("PYTEST_XDIST_WORKER"):
        return
    config.option.loadgroup = True  # workers are told nothing of what was decided above
    for item in items:
        item.add_marker(pytest.mark.xdist_group(_group(item)))
    items.sort(key=lambda item: SLOW.index(_group(item)) if _group(item) in SLOW else len(SLOW))


def _group(item: pytest.Item) -> str:
    assert isinstance(item, pytest.Function)
    return "trained" if {"trained", "training"} & set(item.fixturenames) else item.path.stem


@pytest.fixture(scope="session")
def playground(tmp_path_factory: pytest.TempPathFactory) -> Playground:
    """A working directory with a corpus and a recipe, its run perhaps not begun."""
    return Playground.make(tmp_path_factory.mktemp("playground"))


@pytest.fixture(scope="session")
def training(playground: Playground) -> subprocess.CompletedProcess[str]:
    """The command that trained the run of the recipe, as it ended."""
    return playground.command("nmt-train", f"recipe={playground.recipe}")


@pytest.fixture(scope="session")
def trained(playground: Playground, training: subprocess.CompletedProcess[str]) -> Playground:
    """The working directory with the run of its recipe finished."""
    assert training.returncode == 0, training.stderr
    return playground
