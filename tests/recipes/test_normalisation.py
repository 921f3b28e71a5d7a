"""The rule by which a vocabulary changes text: of new runs, of old ones, and of vocabularies of other makers."""

import io
import json
import os
import random
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import sentencepiece
from etils import epath
from recorded_progress import RecordedProgress
from rich.console import Console
from synthetic import lexicon, sentence, translation

from nmt.config import Recipe, load_recipe, read_run_recipe, resume_conflicts, save_recipe
from nmt.config.documents import dump_document, read_document
from nmt.config.runs import keep_normalisation
from nmt.data.adoption import adopt
from nmt.data.vocab import Vocabulary
from nmt.errors import UserError
from nmt.progress import SILENT
from nmt.recipes.dry_run import dry_run
from nmt.recipes.stages import RunPreparation
from nmt.recipes.vocabulary import learn_vocabulary, report

PERSIAN = "می\u200cخواهم \u00b3"


@pytest.fixture
def corpus(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working directory with a corpus of Spanish and English; each Spanish line ends with ten to the third."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("NMT_CACHE", str(tmp_path / "cache"))
    (tmp_path / "text").mkdir()
    generator, rows = random.Random(1), []
    for number in range(60):
        english = sentence(generator, lexicon())
        rows.append((("dev", "test", "train")[min(number // 4, 2)], f"{translation(english, 'es')} 10\u00b3", english))
    for component in ("dev", "test", "train"):
        for language, column in (("es", 1), ("en", 2)):
            lines = [f"{row[column]}\n" for row in rows if row[0] == component]
            (tmp_path / "text" / f"{component}.{language}").write_text("".join(lines))
    declaration = {
        "name": "toy",
        "licence": "CC0-1.0",
        "obtain": {"kind": "files", "folder": str(tmp_path / "text")},
        "read": {"kind": "parallel_text", "files": "{component}.{language}", "key_language": "en"},
        "split": {"by": "name", "test": ["test"], "dev": ["dev"]},
    }
    (tmp_path / "toy.yaml").write_text(dump_document(declaration))
    recipe = {"data": {"corpora": ["toy.yaml"], "directions": ["es-en"]}, "vocab": {"size": 330}}
    (tmp_path / "own.yaml").write_text(dump_document(recipe))
    return tmp_path


def prepared(recipe: Recipe) -> RecordedProgress:
    progress = RecordedProgress()
    save_recipe(recipe, recipe.run_dir)
    RunPreparation(recipe, epath.Path(recipe.run_dir), progress).vocabularies()
    return progress


def model_of(recipe: Recipe) -> Path:
    return Path(recipe.run_dir) / "vocab" / "vocab.model"


def without_keys(recipe: Recipe) -> None:
    """Make a run as it was left before there were the keys."""
    for file, text in (("recipe.yaml", dump_document), ("vocab/inputs.json", json.dumps)):
        path = Path(recipe.run_dir) / file
        values: dict[str, Any] = read_document(path).values if file.endswith("yaml") else json.loads(path.read_text())
        for key in ("normalisation", "split_digits"):
            del values.get("vocab", values)[key]
        path.write_text(text(values))


def test_a_new_run_changes_nothing_and_nfkc_warns(corpus: Path) -> None:
    recipe = load_recipe("own.yaml")
    assert recipe.vocab.normalisation == "identity"
    assert not [line for line in prepared(recipe).lines if "warning" in line]
    assert Vocabulary.load(model_of(recipe)).normalisation == "identity"
    folding = load_recipe("own.yaml", ["vocab.normalisation=nfkc", "run_dir=runs/nfkc"])
    (warning,) = [line for line in prepared(folding).lines if "warning" in line]
    assert "by its rule nfkc: 100.00% of the lines of es do not come back (U+00B3 SUPERSCRIPT THREE)" in warning
    assert Vocabulary.load(model_of(folding)).normalisation == "nfkc"


def test_an_old_run_keeps_its_vocabulary_and_goes_on(corpus: Path) -> None:
    old = load_recipe("own.yaml", ["vocab.normalisation=nfkc"])
    prepared(old)
    without_keys(old)
    assert read_run_recipe(old.run_dir).vocab.normalisation == "nfkc"
    before = model_of(old).read_bytes()
    for _ in range(2):  # the second time its recipe has the key
        recipe = keep_normalisation(load_recipe("own.yaml"), old.run_dir)
        assert resume_conflicts(read_run_recipe(old.run_dir), recipe) == []
        model_of(old).with_suffix(".tsv").unlink(missing_ok=True)  # learning would write it anew
        prepared(recipe)
        learn_vocabulary(load_recipe("own.yaml"))
        assert model_of(old).read_bytes() == before
        assert not model_of(old).with_suffix(".tsv").exists()
    asked = keep_normalisation(load_recipe("own.yaml", ["vocab.normalisation=identity"]), old.run_dir)
    assert resume_conflicts(read_run_recipe(old.run_dir), asked) == ["vocab.normalisation: nfkc -> identity"]
    with pytest.raises(UserError, match=r"learnt from another input \(changed: normalisation\)"):
        RunPreparation(asked, epath.Path(old.run_dir), SILENT).vocabularies()
    split = keep_normalisation(load_recipe("own.yaml", ["vocab.split_digits=true"]), old.run_dir)
    with pytest.raises(UserError, match=r"learnt from another input \(changed: split_digits\)"):
        RunPreparation(split, epath.Path(old.run_dir), SILENT).vocabularies()


def foreign_model(folder: Path, **options: Any) -> Path:
    path = folder / "foreign.model"
    generator = random.Random(2)
    lines = [f"{sentence(generator, lexicon())} می خواهم" for _ in range(200)]
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(lines),
        model_prefix=str(path.with_suffix("")),
        vocab_size=90,
        hard_vocab_limit=False,
        minloglevel=2,
        **options,
    )
    return path


def size_of(model: Path) -> int:
    """Return the number of pieces that a run would have of a model: with two tags, and bytes."""
    return Vocabulary(adopt(model.read_bytes(), "x", ["en", "es"])).size


def planned(recipe: Recipe) -> str:
    shown = io.StringIO()
    dry_run(recipe, RunPreparation(recipe, epath.Path(recipe.run_dir), SILENT), Console(file=shown, width=200))
    return shown.getvalue()


def test_a_dry_run_looks_at_the_vocabulary_that_is_named(corpus: Path) -> None:
    path = foreign_model(corpus)
    size = size_of(path)
    (corpus / "none.model").write_text("no model")
    for model, message in (
        ("nowhere.model", r"cannot read the vocabulary nowhere\.model"),
        ("none.model", r"^none\.model is no SentencePiece model$"),
        (path, rf"vocab\.size=330, but .*foreign\.model has {size} pieces: set vocab\.size={size}"),
    ):
        with pytest.raises(UserError, match=message):
            planned(load_recipe("own.yaml", [f"vocab.model={model}"]))
    recipe = load_recipe("own.yaml", [f"vocab.model={path}", f"vocab.size={size}"])
    shown = planned(recipe)
    assert f"vocabulary: {size} pieces of {path}, rule of normalisation nmt_nfkc; it changes text, such as " in shown
    assert "U+200C ZERO WIDTH NON-JOINER" in shown
    assert not Path(recipe.run_dir).exists()
    (warning,) = [line for line in prepared(recipe).lines if "warning" in line]
    assert "nmt_nfkc" in warning
    assert "vocabulary: " not in planned(recipe)  # the run has its own now, whatever became of that file


def test_a_dry_run_names_a_vocabulary_that_changes_nothing(corpus: Path) -> None:
    path = foreign_model(corpus, normalization_rule_name="identity")
    size = size_of(path)
    shown = planned(load_recipe("own.yaml", [f"vocab.model={path}", f"vocab.size={size}"]))
    assert f"vocabulary: {size} pieces of {path}, rule of normalisation identity\n" in shown


def test_the_report_takes_any_model_and_names_what_is_lost(corpus: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = foreign_model(corpus)
    report(str(path), [PERSIAN, "una casa", "soft\u00adhyphens go anyway", "\u200b", PERSIAN.replace("\u00b3", "")])
    text = capsys.readouterr().out
    assert "foreign.model (rule of normalisation: nmt_nfkc)" in text
    lost = "U+200C ZERO WIDTH NON-JOINER 2, U+00B3 SUPERSCRIPT THREE 1"
    assert f"text: 50.00% of lines do not come back from encode and decode: {lost}\n" in text
    report(str(foreign_model(corpus, normalization_rule_name="identity")), [PERSIAN])
    text = capsys.readouterr().out
    assert "0.00%" in text
    assert "do not come back" not in text
    with pytest.raises(UserError, match=r"own\.yaml is no SentencePiece model"):
        report("own.yaml", ["x"])


def test_the_report_of_a_run_has_the_characters_language_by_language(corpus: Path) -> None:
    recipe = load_recipe("own.yaml", ["vocab.normalisation=nmt_nfkc"])
    prepared(recipe)
    rows = {row["language"]: row for row in json.loads((Path(recipe.run_dir) / "vocab" / "coverage.json").read_text())}
    count = rows["es"]["sentences"]
    assert (rows["es"]["changed"], rows["es"]["lost"]) == (1.0, {"U+00B3 SUPERSCRIPT THREE": count})
    assert (rows["en"]["changed"], rows["en"]["lost"]) == (0.0, {})
    command = [sys.executable, "-m", "nmt.cli.vocab", "--report", recipe.run_dir]
    done = subprocess.run(command, capture_output=True, text=True, check=True, env=os.environ)
    assert (
        f"es: 100.00% of lines do not come back from encode and decode: U+00B3 SUPERSCRIPT THREE {count}" in done.stdout
    )


def test_the_report_of_an_old_run_is_shown_as_it_is(corpus: Path, capsys: pytest.CaptureFixture[str]) -> None:
    recipe = load_recipe("own.yaml")
    prepared(recipe)
    titles = ("language", "sentences", "tokens", "per word", "per character", "unknown", "bytes", "most pieces")
    table = Path(recipe.run_dir) / "vocab" / "coverage.tsv"
    table.write_text(
        "\t".join(titles) + "\n" + "\t".join(["es", "7", "9", "1.00", "0.100", "0%", "0%", "casa 1"]) + "\n"
    )
    report(recipe.run_dir, ())
    text = capsys.readouterr().out
    assert "most pieces" in text
    assert "changed" not in text
