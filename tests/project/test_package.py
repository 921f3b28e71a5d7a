"""The package as people install it: what the wheel holds, how its commands do far from the checkout, the lock."""

import importlib.metadata
import os
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

import nmt
from nmt.files import DECLARATIONS

ROOT = Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
COMMANDS = PROJECT["scripts"]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel, built without a network."""
    folder = tmp_path_factory.mktemp("wheel")
    pip("wheel", "--no-deps", "--no-build-isolation", f"--wheel-dir={folder}", str(ROOT))
    return next(folder.glob("*.whl"))


@pytest.fixture(scope="module")
def site(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of packages with nothing but ours."""
    folder = tmp_path_factory.mktemp("site")
    pip("install", "--no-deps", f"--target={folder}", str(wheel))
    return folder


def pip(*arguments: str) -> None:
    command = [sys.executable, "-m", "pip", "--no-input", *arguments, "--no-index", "--quiet"]
    # What is built here is built with what is installed: constraints, the user's or CI's, have no say in it.
    environment = {name: value for name, value in os.environ.items() if not name.endswith("_CONSTRAINT")}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr


def run(site: Path, folder: Path, *command: str) -> subprocess.CompletedProcess[str]:
    """Run Python in another directory with our package from `site`, where an editable one cannot be met first."""
    environment = os.environ | {"PYTHONPATH": str(site), "NMT_CACHE": str(folder / "cache")}
    return subprocess.run(
        [sys.executable, *command], cwd=folder, env=environment, capture_output=True, text=True, timeout=120
    )


# The wheel


def test_only_nmt_is_installed(wheel: Path, site: Path) -> None:
    tops = {name.partition("/")[0] for name in zipfile.ZipFile(wheel).namelist()}
    assert tops == {"nmt", f"nmt_moe-{nmt.__version__}.dist-info"}
    assert {path.name for path in site.iterdir()} == tops | {"bin"}


def test_all_of_the_code_is_in_the_wheel(wheel: Path) -> None:
    here = {path.relative_to(ROOT) for path in (ROOT / "nmt").rglob("*") if path.is_file()}
    expected = {path.as_posix() for path in here if "__pycache__" not in path.parts}
    packed = {name for name in zipfile.ZipFile(wheel).namelist() if name.startswith("nmt/")}
    assert {name for name in packed if not name.startswith("nmt/_declarations/")} == expected
    assert "nmt/py.typed" in packed


@pytest.mark.parametrize("kind", DECLARATIONS)
def test_declarations_are_in_the_wheel(kind: str, wheel: Path) -> None:
    here = {path.name: path.read_bytes() for path in (ROOT / kind).iterdir() if path.suffix in (".yaml", ".tsv")}
    with zipfile.ZipFile(wheel) as archive:
        packed = {name: archive.read(f"nmt/_declarations/{kind}/{name}") for name in here}
    assert here
    assert packed == here


def test_launch_scripts_are_in_the_wheel(wheel: Path) -> None:
    here = {path.name: path.read_bytes() for path in (ROOT / "recipes" / "launch").iterdir()}
    with zipfile.ZipFile(wheel) as archive:
        assert {name: archive.read(f"nmt/_declarations/recipes/launch/{name}") for name in here} == here


def test_licence_is_in_the_wheel(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        packed = archive.read(f"nmt_moe-{nmt.__version__}.dist-info/licenses/LICENSE")
    assert packed == (ROOT / "LICENSE").read_bytes()


def test_the_version_is_the_packages() -> None:
    assert PROJECT["version"] == nmt.__version__ == importlib.metadata.version(PROJECT["name"])


# The installed package, far from the checkout


@pytest.mark.parametrize("command", COMMANDS)
def test_commands_show_their_help_anywhere(command: str, site: Path, tmp_path: Path) -> None:
    done = run(site, tmp_path, str(site / "bin" / command), "--help")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.lstrip().startswith(f"Usage: {command} ")


def test_recipes_are_complete_anywhere(site: Path, tmp_path: Path) -> None:
    program = """
import nmt
from nmt import languages
from nmt.config import load_recipe
from nmt.corpora import load_specs
from nmt.files import declarations
print(nmt.__file__)
for name in declarations("recipes"):
    load_specs(load_recipe(name).data.corpora)
print(sorted(declarations("recipes")), languages.get("deu").code)
"""
    done = run(site, tmp_path, "-c", program)
    recipes = sorted(path.stem for path in (ROOT / "recipes").glob("*.yaml"))
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == [str(site / "nmt" / "__init__.py"), f"{recipes} de"]


# The lock


def pins() -> dict[str, str]:
    lines = [line for line in (ROOT / "constraints.txt").read_text().splitlines() if not line.startswith("#")]
    return {canonicalize_name(name): version for name, _, version in (line.partition("==") for line in lines)}


def test_the_lock_pins_what_is_asked_for() -> None:
    extras = PROJECT["optional-dependencies"]
    asked = [Requirement(text) for text in [*PROJECT["dependencies"], *extras["test"], *extras["dev"], *extras["docs"]]]
    versions = pins()
    wrong = [str(one) for one in asked if versions.get(canonicalize_name(one.name), "") not in one.specifier]
    assert not wrong


def test_the_lock_pins_what_that_needs() -> None:
    """Also what is needed indirectly, by the pinned versions as far as they are installed here."""
    versions, seen, todo = pins(), set(), [(PROJECT["name"], "test")]
    while todo:
        name, extra = todo.pop()
        for text in importlib.metadata.requires(name) or ():
            one = Requirement(text)
            if one.marker and not one.marker.evaluate({"extra": extra}):
                continue
            assert canonicalize_name(one.name) in versions, f"{one.name}, which {name} needs"
            pinned = versions[canonicalize_name(one.name)] == importlib.metadata.version(one.name)
            if pinned and one.name not in seen:
                todo += [(one.name, extra) for extra in one.extras or {""}]
            seen.add(one.name)
    assert len(seen) > len(PROJECT["dependencies"])
