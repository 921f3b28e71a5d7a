"""Inputs of a cleaned corpus: files that change, damaged files, damaged parts of mixtures."""

import hashlib
import io
import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console
from toy_corpus import WHEEL, make_wheel, values_of, write_spec

from nmt.config import CleanConfig
from nmt.corpora import inputs_digest, load_pairs, load_specs, open_corpora
from nmt.corpora.cleaned.load import clean_corpora
from nmt.corpora.counts import count_corpus, expected_pairs
from nmt.corpora.obtain import contents
from nmt.corpora.obtain.own import own_files
from nmt.errors import UserError
from nmt.languages import Direction
from nmt.recipes import terminal
from nmt.recipes.terminal import TerminalProgress

DE_EN, FR_EN = Direction("de", "en"), Direction("fr", "en")
CLEAN = CleanConfig()


@pytest.fixture(autouse=True)
def surroundings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NMT_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def own(tmp_path: Path) -> Callable[..., str]:
    """Declare text of a person's own, as files of lines or as one of columns."""

    def declare(name: str, content: dict[str, str], **read: Any) -> str:
        for file, text in content.items():
            (tmp_path / name / file).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / name / file).write_text(text)
        values = {
            "name": name,
            "licence": "CC0-1.0",
            "obtain": {"kind": "files", "folder": str(tmp_path / name)},
            "read": read or {"kind": "parallel_text", "files": "{component}.{language}"},
            "split": {"by": "text", "test": 0, "dev": 0},
        }
        return write_spec(tmp_path, values, f"{name}.yaml")

    return declare


GOOD = {
    "a.de": "Der Hund schläft im warmen Garten\nDie Katze trinkt am Morgen Milch\n",
    "a.en": "The dog sleeps in the warm garden\nThe cat drinks milk in the morning\n",
}
# The first line of the translation is missing: what comes before the error is no translation.
SLIPPED = {
    "b.de": "Der Zug kommt heute leider zu spät\nDas Brot liegt auf dem Tisch dort\nEin Vogel singt im hohen Baum\n",
    "b.en": "The bread lies on the table there\nA bird is singing in the high tree\n",
    "b.fr": "Le train arrive en retard ce soir\nLe pain est sur la table là-bas\nUn oiseau chante dans un arbre\n",
}


# Files that change


def test_an_edit_of_a_file_is_noticed_even_where_size_and_time_are_the_same(
    own: Callable[..., str], tmp_path: Path
) -> None:
    path, file = own("mine", GOOD), tmp_path / "mine" / "a.en"
    before = load_pairs([path], [DE_EN], CLEAN)
    time = file.stat()
    file.write_text(GOOD["a.en"].replace("dog", "fox"))
    os.utime(file, ns=(time.st_atime_ns, time.st_mtime_ns))
    after = load_pairs([path], [DE_EN], CLEAN)
    assert before.digest != after.digest
    assert [english for _, english in after.pairs[DE_EN]["train"]] == [
        "The fox sleeps in the warm garden",
        "The cat drinks milk in the morning",
    ]
    file.write_text(GOOD["a.en"])
    assert load_pairs([path], [DE_EN], CLEAN).digest == before.digest


def test_the_hash_of_every_file_is_recorded(own: Callable[..., str], tmp_path: Path) -> None:
    corpus = load_pairs([own("mine", GOOD)], [DE_EN], CLEAN)
    assert {one.source: one.sha256 for one in corpus.provenance} == {
        name: hashlib.sha256(text.encode()).hexdigest() for name, text in GOOD.items()
    }


def test_a_file_is_hashed_once_while_it_looks_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "text"
    path.write_text("one")
    # It has just been written, and may be written again without another time.
    one = contents.known_sha256(path)
    assert not any((tmp_path / "cache" / "hashes").iterdir())
    monkeypatch.setattr(contents, "_SETTLED_NS", -1)
    assert contents.known_sha256(path) == one == hashlib.sha256(b"one").hexdigest()
    with monkeypatch.context() as patch:
        patch.setattr(contents, "file_sha256", lambda path: pytest.fail("hashed again"))
        assert contents.known_sha256(path) == one
    path.write_text("two")
    assert contents.known_sha256s([path, tmp_path / "gone"]) == [hashlib.sha256(b"two").hexdigest(), ""]


def test_much_text_is_not_hashed_in_silence(
    own: Callable[..., str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(contents, "_TOLD_BYTES", 1)
    monkeypatch.setattr(contents, "_SETTLED_NS", -1)
    specs, output = load_specs([own("mine", GOOD)]), io.StringIO()
    for _ in range(2):
        inputs_digest(specs, [DE_EN], CLEAN, TerminalProgress(Console(file=output)))
    assert output.getvalue() == "hashing 0.0 GB of text, once\n"


def test_a_dataset_is_known_by_its_shards_as_well(tmp_path: Path) -> None:
    folder = tmp_path / "ted" / "1.0.0"
    folder.mkdir(parents=True)
    for name in ("features.json", "dataset_info.json", "ted-train.array_record-00000-of-00001"):
        (folder / name).write_text("{}")
    values = {
        "name": "ted",
        "licence": "MIT",
        "obtain": {"kind": "tfds", "folder": str(tmp_path)},
        "read": {"kind": "tfds", "files": "ted"},
        "split": {"by": "name"},
    }
    (spec,) = load_specs([write_spec(tmp_path, values, "ted.yaml")])
    assert [one.name.rpartition("/")[2] for one in own_files(spec)] == sorted(path.name for path in folder.iterdir())


# Parts of mixtures that are damaged


@pytest.fixture
def mixture(own: Callable[..., str], tmp_path: Path) -> str:
    parts = [own("slipped", SLIPPED), own("good", GOOD)]
    return write_spec(tmp_path, {"name": "both", "mixture": parts}, "both.yaml")


def test_a_part_that_fails_while_it_is_read_is_left_out_as_a_whole(mixture: str, tmp_path: Path) -> None:
    output = io.StringIO()
    corpus = load_pairs([mixture], [DE_EN], CLEAN, TerminalProgress(Console(file=output, width=300)))
    alone = load_pairs([str(tmp_path / "good.yaml")], [DE_EN], CLEAN)
    assert list(corpus.pairs[DE_EN]["train"]) == list(alone.pairs[DE_EN]["train"])
    assert (corpus.rejections, corpus.rows, corpus.provenance) == (alone.rejections, alone.rows, alone.provenance)
    assert list(corpus.failures) == ["slipped"]
    assert "unequal counts of lines" in corpus.failures["slipped"]
    assert output.getvalue().count("warning: left out: corpus slipped: files of parallel text have unequal") == 1


def test_what_cannot_be_read_is_counted_once_where_cleaning_begins_anew(
    own: Callable[..., str], tmp_path: Path
) -> None:
    tsv = own(
        "columns", {"x.tsv": "eins zwei drei vier\tone two three four\nzu kurz\n"},
        kind="tsv", files="x.tsv", columns={"de": 0, "en": 1},
    )  # fmt: skip
    path = write_spec(tmp_path, {"name": "both", "mixture": [tsv, own("slipped", SLIPPED)]}, "both.yaml")
    (times,) = load_pairs([path], [DE_EN], CLEAN).skipped.values()
    assert times == 1


def test_a_damaged_corpus_that_is_asked_for_by_name_is_an_error(mixture: str, tmp_path: Path) -> None:
    for names in ([str(tmp_path / "slipped.yaml")], [mixture, str(tmp_path / "slipped.yaml")]):
        with pytest.raises(UserError, match=r"corpus slipped: files of parallel text have unequal counts"):
            load_pairs(names, [DE_EN], CLEAN)


def test_a_mixture_whose_every_part_is_damaged_is_an_error(own: Callable[..., str], tmp_path: Path) -> None:
    path = write_spec(tmp_path, {"name": "bad", "mixture": [own("one", SLIPPED), own("two", SLIPPED)]}, "bad.yaml")
    with pytest.raises(UserError, match=r"corpus one: files of .* corpus two: files of"):
        load_pairs([path], [DE_EN], CLEAN)


def test_a_direction_that_a_damaged_part_alone_has(mixture: str) -> None:
    corpus = clean_corpora([mixture], [DE_EN, FR_EN], CLEAN)
    assert (len(corpus.pairs[DE_EN]["train"]), len(corpus.pairs[FR_EN]["train"])) == (2, 0)
    with pytest.raises(UserError, match=r"no pair of the direction fr-en \(none read\); left out: corpus slipped: fil"):
        load_pairs([mixture], [DE_EN, FR_EN], CLEAN)


def test_a_part_whose_variable_is_not_set_is_left_out(
    own: Callable[..., str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("M4_FILES", raising=False)
    path = write_spec(tmp_path, {"name": "with_m4", "mixture": ["m4", own("good", GOOD)]}, "with_m4.yaml")
    assert list(load_pairs([path], [DE_EN], CLEAN).failures) == ["m4"]
    with pytest.raises(UserError, match="set the environment variable M4_FILES"):
        load_pairs(["m4"], [DE_EN], CLEAN)


# How much there is to do


def test_the_expected_number_of_pairs_is_that_of_the_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    toy = write_spec(tmp_path, values_of(make_wheel(tmp_path / "cache" / "corpora" / "toy" / WHEEL)))
    directions = [DE_EN, Direction("en", "de"), Direction("es", "de")]
    with open_corpora([toy]) as corpora:
        assert expected_pairs(corpora.sources, directions) is None
        count_corpus(corpora.sources[0].spec)
        assert expected_pairs(corpora.sources, directions[:2]) == 10
        assert expected_pairs(corpora.sources, directions) == 11
    monkeypatch.setattr(terminal, "LOG_SECONDS", 0)
    output = io.StringIO()
    load_pairs([toy], directions, CLEAN, TerminalProgress(Console(file=output, width=200)))
    assert re.match(r"cleaning: 11 pairs, [\d,]+ a second \(100%\)\n", output.getvalue())
