"""How the suite is compiled, checked and shared out among processes, and a place for whole runs."""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jaxlib
import pytest
import shape_checks
from jaxtyping import install_import_hook

install_import_hook(shape_checks.ROOMS, "shape_checks.check")  # before anything imports these rooms

from synthetic import Playground  # noqa: E402

# Most of the suite's time is XLA compiling what a test computes once. Its older code generator for CPUs, without LLVM's
# expensive passes, takes a third of the time; what JAX asks of XLA and what XLA makes of that is the same. Commands as
# people run them, and programs for TPUs, are compiled as always: `synthetic.py` and `test_plan.py` see to that.
_QUICK = "--xla_cpu_use_fusion_emitters=false"
os.environ.setdefault("JAX_DISABLE_MOST_OPTIMIZATIONS", "1")
if jaxlib.__version__.startswith("0.10.") and _QUICK not in os.environ.get("XLA_FLAGS", ""):
    # A flag that another release may not know ends the process.
    os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} {_QUICK}".strip()

# Tables are as wide as these say, where they are set; a test that wants a width sets it.
for _name in ("COLUMNS", "LINES", "FORCE_COLOR", "TTY_COMPATIBLE", "TTY_INTERACTIVE"):
    os.environ.pop(_name, None)

# Programs that tests start import the helpers that stand beside this file too.
os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, (str(Path(__file__).parent), os.environ.get("PYTHONPATH"))))

WORKERS = 4  # at most: the longest group takes about a quarter of the suite's time
# All tests of a file share a worker, and all of this folder, which share a finished run.
FINISHED = "tests/system/finished"
# What takes longest is begun first, or the other workers would wait for it in the end.
SLOW = (FINISHED, "test_interrupted_run.py", "test_pods.py", "test_sharding.py", "test_train.py", "test_plan.py")


@pytest.hookimpl(tryfirst=True)
def pytest_cmdline_main(config: pytest.Config) -> None:
    """Start a worker for each processor, unless files are named, which are sooner done without, or somebody watches."""
    option = config.option
    if not config.pluginmanager.hasplugin("xdist") or os.environ.get("PYTEST_XDIST_WORKER"):
        return
    watched = option.usepdb or option.capture == "no"
    if option.numprocesses is None and not watched and not any(".py" in argument for argument in config.args):
        workers = min(os.cpu_count() or 1, WORKERS)
        option.numprocesses = workers if workers > 1 else 0
    if option.numprocesses and option.dist == "no":
        option.dist, option.loadscopereorder = "loadfile", False


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """Hand out whole files, and all that needs the finished run at once."""
    from xdist.scheduler import LoadFileScheduling

    class Files(LoadFileScheduling):
        def _split_scope(self, nodeid: str) -> str:
            return FINISHED if nodeid.startswith(FINISHED) else super()._split_scope(nodeid)

    return Files(config, log) if config.option.dist == "loadfile" else None


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Let workers begin with what takes longest."""
    if os.environ.get("PYTEST_XDIST_WORKER"):
        items.sort(key=lambda item: next((i for i, slow in enumerate(SLOW) if slow in item.nodeid), len(SLOW)))


@pytest.fixture(scope="module")
def compiled_once(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The folder through which a file's tests, and their processes, share what is compiled."""
    import jax

    folder = tmp_path_factory.mktemp("compiled")
    names = {
        "jax_compilation_cache_dir": str(folder),
        "jax_persistent_cache_min_compile_time_secs": 0.0,
        "jax_persistent_cache_min_entry_size_bytes": -1,
    }
    before = {name: getattr(jax.config, name) for name in names}
    for name, value in names.items():
        jax.config.update(name, value)
    yield folder
    for name, value in before.items():
        jax.config.update(name, value)


@pytest.fixture(scope="session")
def playground(tmp_path_factory: pytest.TempPathFactory) -> Playground:
    """A working directory with a corpus and a recipe, its run not begun."""
    return Playground.make(tmp_path_factory.mktemp("playground"))
