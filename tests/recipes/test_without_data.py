"""Recipes on a machine that has no text and no network, and text of which nothing is held out."""

import io
import socket
from pathlib import Path
from typing import NoReturn

import pytest
from etils import epath
from rich.console import Console

from nmt.cli.train import usage
from nmt.config import load_recipe
from nmt.config.schema_data import DataConfig
from nmt.corpora.declare.spec_split import Split
from nmt.data.store import DirectionStats, RowLengths, SplitStats, Stats
from nmt.errors import UserError
from nmt.languages import parse_directions
from nmt.progress import SILENT
from nmt.recipes.dry_run import dry_run
from nmt.recipes.held_out import check_stages, note_missing
from nmt.recipes.stages import RunPreparation
from nmt.train.curriculum import Curriculum

ROOT = Path(__file__).parents[2]
SHIPPED = sorted(path.stem for path in (ROOT / "recipes").glob("*.yaml"))
OF_OWN_FILES = [name for name in SHIPPED if name.startswith("m4_")]
REPLACED = "corpus m4 is replaced by mix100, since the environment variable M4_FILES is not set"


@pytest.fixture(autouse=True)
def bare_machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither text nor network, and nothing in the environment that would say where text is."""

    def no_network(*_: object, **__: object) -> NoReturn:
        raise AssertionError("a connection was opened")

    for name in ("M4_FILES", "PIP_FIND_LINKS", "PIP_INDEX_URL", "PIP_EXTRA_INDEX_URL"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("NMT_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("PIP_CONFIG_FILE", "/dev/null")
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setattr(socket.socket, "connect", no_network)
    monkeypatch.chdir(tmp_path)


@pytest.mark.parametrize("name", SHIPPED)
def test_a_dry_run_of_every_recipe_needs_no_text(name: str, tmp_path: Path) -> None:
    recipe = load_recipe(name, ["model.dtype=float32"])
    shown = io.StringIO()
    dry_run(recipe, RunPreparation(recipe, epath.Path(tmp_path / "run"), SILENT), Console(file=shown, width=200))
    text = shown.getvalue()
    assert f"name: {name}\n" in text
    assert "parameters: " in text
    assert "mixture: not shown, since " in text
    assert not (tmp_path / "run").exists()


def test_help_needs_no_text() -> None:
    assert all(name in usage() for name in SHIPPED)


@pytest.mark.parametrize("name", OF_OWN_FILES)
def test_recipes_of_own_files_learn_from_a_public_corpus_without(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[str] = []
    data = load_recipe(name, say=said.append).data
    assert said == [REPLACED]
    assert data.corpora == ("mix100",)
    assert data.directions == load_recipe("mix100", ["data.directions=*-en"]).data.directions

    monkeypatch.setenv("M4_FILES", "/corpora/{source}-{target}.tsv")
    said.clear()
    data = load_recipe(name, say=said.append).data
    assert (said, data.corpora, len(data.directions)) == ([], ("m4",), 100)


def test_a_corpus_without_a_substitute_still_asks_for_its_variable(tmp_path: Path) -> None:
    recipe = load_recipe(write_recipe(tmp_path, "files: $MY_FILES"))
    shown = io.StringIO()
    preparation = RunPreparation(recipe, epath.Path(tmp_path / "run"), SILENT)
    dry_run(recipe, preparation, Console(file=shown, width=200))
    wanted = "corpus mine is at $MY_FILES: set the environment variable MY_FILES"
    assert f"mixture: not shown, since {wanted}" in shown.getvalue()
    with pytest.raises(UserError, match=r"set the environment variable MY_FILES"):
        preparation.vocabularies()


@pytest.mark.parametrize(
    ("folder", "environment", "expected"),
    [("$HERE", {}, "quickstart"), ("$HERE", {"HERE": "/x"}, "mine"), ("/x", {}, "mine")],
)
def test_a_variable_counts_in_any_path(
    folder: str, environment: dict[str, str], expected: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("HERE", raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    path = write_recipe(tmp_path, "files: de-en.tsv", f"instead: quickstart\nfolder: {folder}")
    assert load_recipe(path).data.corpora == (expected,)


def write_recipe(folder: Path, files: str, instead: str = "") -> str:
    """Write a recipe and its corpus, which is a file that is not there."""
    (folder / "data").mkdir()
    lines = instead.splitlines()
    obtain = "".join(f", {line}" for line in lines[1:])
    (folder / "data" / "mine.yaml").write_text(
        f"name: mine\nlicence: CC0-1.0\nobtain: {{kind: files{obtain}}}\nread:\n  kind: any\n  {files}\n"
        f"split: {{by: name}}\n" + "".join(f"{line}\n" for line in lines[:1])
    )
    (folder / "mine.yaml").write_text("data: {corpora: [mine], directions: [de-en]}\nmodel: {width: 64}\n")
    return "mine.yaml"


# Text of which nothing is held out.


def stats_of(**pairs: tuple[int, int, int]) -> Stats:
    """Return the statistics of a store, from training, development and test pairs by direction."""

    def splits(counts: tuple[int, int, int]) -> dict[Split, SplitStats]:
        names: tuple[Split, ...] = ("train", "dev", "test")
        return {name: SplitStats(count, 0, 0, []) for name, count in zip(names, counts, strict=True)}

    directions = {name.replace("_", "-"): DirectionStats(0, {}, splits(counts)) for name, counts in pairs.items()}
    return Stats({}, RowLengths(8, 8), directions, [])


@pytest.mark.parametrize(
    ("counts", "split", "expected"),
    [
        ({"de_en": (9, 1, 1), "en_de": (9, 0, 0)}, "test", []),
        ({"de_en": (9, 0, 1)}, "test", ["no development loss"]),
        ({"de_en": (9, 1, 0)}, "test", ["nothing will be evaluated; evaluate.split=dev takes what there is"]),
        ({"de_en": (9, 0, 1)}, "dev", ["no development loss", "evaluated; evaluate.split=test takes what there is"]),
        ({"de_en": (9, 0, 0)}, "test", ["no development loss", "evaluated; `split` in the declaration of a corpus"]),
    ],
)
def test_what_a_run_will_not_have_is_said(
    counts: dict[str, tuple[int, int, int]], split: str, expected: list[str]
) -> None:
    recipe = load_recipe("quickstart", [f"evaluate.split={split}"])
    notes = note_missing(recipe, stats_of(**counts))
    assert len(notes) == len(expected)
    assert all(part in note for part, note in zip(expected, notes, strict=True))


@pytest.mark.parametrize(
    ("first", "dev", "ends"),
    [
        ({"patience": 2}, 0, False),
        ({"patience": 2, "steps": 9}, 0, True),
        ({"steps": 9}, 0, True),
        ({"patience": 2}, 1, True),
    ],
)
def test_a_stage_that_could_never_end_is_refused(first: dict[str, int], dev: int, ends: bool) -> None:
    stages = ({"directions": ("de-en",), **first}, {"patience": 1})
    names = ("de-en", "es-en")
    data = DataConfig.model_validate({"corpora": ("x",), "directions": names, "mixture": {"stages": stages}})
    # Only the development text of its own directions ends a stage.
    stats = stats_of(de_en=(9, dev, 0), es_en=(9, 5, 0))
    curriculum = Curriculum.from_store(data, parse_directions(names), stats)
    if ends:
        check_stages(curriculum, stats)
    else:
        with pytest.raises(UserError, match=r"stage 1 of data\.mixture\.stages ends by its patience, and de-en have"):
            check_stages(curriculum, stats)
