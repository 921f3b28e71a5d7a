import json

import pytest

from nmt.cli.vocab import parse_vocab
from nmt.config import VocabConfig
from nmt.data.coverage import measure_coverage, write_coverage
from nmt.data.vocab import Vocabulary, learn
from nmt.data.vocabularies import Vocabularies
from nmt.errors import UserError
from nmt.recipes.vocabulary import report

TEXTS = {
    "de": ["das Haus ist alt", "die Katze trinkt Milch"] * 3,
    "en": ["the house is old", "the cat drinks milk"] * 3,
}


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    path = tmp_path_factory.mktemp("vocab") / "vocab.model"
    learn(TEXTS, ["de", "en"], VocabConfig(size=300, model_type="bpe"), path, 1)
    return path


def test_coverage_counts_what_the_model_does(path):
    vocabulary = Vocabulary.load(path)
    greek = ["ωμέγα the"]
    found = {row.language: row for row in measure_coverage(vocabulary, {**TEXTS, "el": greek, "fr": []})}
    assert set(found) == {"de", "en", "el"}
    row = found["en"]
    pieces = [len(ids) for ids in vocabulary.encode(TEXTS["en"])]
    assert (row.sentences, row.words, row.characters) == (6, 24, 3 * (13 + 16))
    assert row.tokens == sum(pieces)
    assert row.per_word == sum(pieces) / 24
    assert (row.unknown, row.bytes) == (0, 0)
    ids = vocabulary.encode(greek)[0]
    assert found["el"].bytes == pytest.approx(10 / len(ids))  # five letters of two bytes
    assert next(iter(found["el"].longest)) == "ωμέγα"
    assert next(iter(measure_coverage(vocabulary, {**TEXTS, "el": greek}))).language == "el"


def test_reports_can_be_read_back(path, tmp_path):
    write_coverage(measure_coverage(Vocabulary.load(path), TEXTS), tmp_path)
    rows = json.loads((tmp_path / "coverage.json").read_text())
    assert {row["language"] for row in rows} == {"de", "en"}
    assert (tmp_path / "coverage.tsv").read_text().count("\n") == 3


def test_a_given_vocabulary_is_copied_and_checked(path, tmp_path):
    config = VocabConfig(size=300, model=str(path))
    given = Vocabularies.adopt(tmp_path / "vocab", config, ["de", "en"])
    assert Vocabularies.load(tmp_path / "vocab", config).digests == given.digests
    for changes, message in (
        ({"size": 301}, r"vocab\.size=301, but .*vocab\.model has 300 pieces: set vocab\.size=300"),
        ({"model": str(tmp_path / "nix.model")}, "cannot read the vocabulary"),
        ({"target_size": 300}, r"vocab\.target_model is to be given too"),
        ({"model": None, "target_model": str(path)}, r"vocab\.target_model is to be given too"),
    ):
        with pytest.raises(UserError, match=message):
            Vocabularies.adopt(tmp_path / "other", config.model_copy(update=changes), ["de"])
    with pytest.raises(UserError, match=r"vocab\.model has no tag for fr; it has de, en"):
        Vocabularies.adopt(tmp_path / "other", config, ["fr"])
    with pytest.raises(UserError, match=r"vocab\.size=400, but .* has 300 pieces"):
        Vocabularies.load(tmp_path / "vocab", VocabConfig(size=400))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "which recipe"),
        (["vocab.size=8000"], "which recipe"),
        (["recipe=a", "recipe=b"], "which recipe"),
        (["--report"], "takes one run or model"),
        (["--report", "a", "b"], "takes one run or model"),
    ],
)
def test_arguments_of_the_command(arguments, message):
    with pytest.raises(UserError, match=message):
        parse_vocab(arguments)


def test_reports_of_models_and_of_what_is_none(path, tmp_path, capsys, monkeypatch):
    report(str(path), ["the cat", ""])
    assert "2.00" in (shown := capsys.readouterr().out)  # tokens per word
    assert "the" in shown
    monkeypatch.setenv("COLUMNS", "60")
    report(str(path), ["the cat", ""])
    assert "2.00" in capsys.readouterr().out  # though there is no room for the words themselves
    for what, lines, message in (
        (path, ["", " "], "no text to report"),
        (tmp_path, [], "is not a run directory"),
        (tmp_path / "nix", [], "cannot read the vocabulary"),
    ):
        with pytest.raises(UserError, match=message):
            report(str(what), lines)
