"""How the suite is compiled, checked and shared out among processes, and a place for whole runs."""

import gc
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import shape_checks
from jaxtyping import install_import_hook

install_import_hook(shape_checks.ROOMS, "shape_checks.check")  # before anything imports these rooms

from synthetic import COMPILED_QUICKLY, Playground  # noqa: E402

# What people run, and programs for TPUs, are compiled as always: `synthetic.py` and `small_plan.py` see to that.
for _name, _value in COMPILED_QUICKLY.items():
    if _name != "XLA_FLAGS":
        os.environ.setdefault(_name, _value)
    elif _value not in os.environ.get(_name, ""):
        os.environ[_name] = f"{os.environ.get(_name, '')} {_value}".strip()

# Tracing makes many objects that live long, which the collector need not look through again and again.
gc.set_threshold(20_000, 20, 20)

# Tables are as wide as these say, where they are set; a test that wants a width sets it.
for _name in ("COLUMNS", "LINES", "FORCE_COLOR", "TTY_COMPATIBLE", "TTY_INTERACTIVE"):
    os.environ.pop(_name, None)

# Programs that tests start import the helpers that stand beside this file too.
os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, (str(Path(__file__).parent), os.environ.get("PYTHONPATH"))))

WORKERS = 4  # at most: the longest group takes about a tenth of the suite's time
# Every page of the documentation is a group of its own; all other groups are the tests of a file.
PAGES = "tests/system/finished/test_docs_run.py"
# What takes longest is begun first, or the other workers would wait for it in the end; what needs the finished run
# comes when a worker has trained it.
SLOW = (
    "test_learn.py",
    "test_sharding.py",
    "test_train.py",
    "test_pods.py",
    "test_interrupted_run.py",
    "tests/system/",
    "test_sharding_recipes.py",
    "test_plan",
    "test_architecture.py",
    "tests/train/",
    "tests/models/",
)


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
    """Hand out whole files, and pages of the documentation one by one."""
    from xdist.scheduler import LoadFileScheduling

    class Files(LoadFileScheduling):
        def _split_scope(self, nodeid: str) -> str:
            return nodeid if nodeid.startswith(PAGES) else super()._split_scope(nodeid)

    return Files(config, log) if config.option.dist == "loadfile" else None


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Let workers begin with what takes longest."""
    if os.environ.get("PYTEST_XDIST_WORKER"):
        items.sort(key=lambda item: next((i for i, slow in enumerate(SLOW) if slow in item.nodeid), len(SLOW)))


# Keys of `train` that the loop reads, and no function that is compiled.
_OF_THE_LOOP = {"log_every": 1, "checkpoint_every": 1, "keep_checkpoints": 1, "max_minutes": None, "dev_batches": 1}


@pytest.fixture(scope="module")
def traced_once() -> Iterator[None]:
    """Let the runs of a file's tests share a trainer where their recipes differ in nothing that is computed."""
    from nmt.train import loop

    def made(recipe: Any, *arguments: Any) -> Any:
        key = (recipe.model_copy(update={"train": recipe.train.model_copy(update=_OF_THE_LOOP)}), *arguments)
        found = next((trainer for known, trainer in trainers if known == key), None)
        if found is None:
            found = make_trainer(recipe, *arguments)
            trainers.append((key, found))
        return found

    trainers: list[tuple[Any, Any]] = []
    make_trainer = loop.make_trainer
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(loop, "make_trainer", made)
        yield


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
def shared_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder that all workers of a session of tests share."""
    folder = tmp_path_factory.getbasetemp()
    return folder.parent if os.environ.get("PYTEST_XDIST_WORKER") else folder


@pytest.fixture(scope="session")
def programs(shared_folder: Path) -> Path:
    """The folder through which commands share what they compile."""
    return shared_folder / "programs"


@pytest.fixture(scope="session")
def playground(tmp_path_factory: pytest.TempPathFactory, programs: Path) -> Playground:
    """A working directory with a corpus and a recipe, its run not begun."""
    return Playground.make(tmp_path_factory.mktemp("playground"), programs)
