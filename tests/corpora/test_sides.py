"""Files called .src and .trg, whose languages the path or the declaration says, and OPUS's .ids."""

import gzip
from pathlib import Path
from typing import Any

import pytest
from test_archives import MEMBERS, make_zip, tar_bytes
from toy_corpus import open_files, texts

from nmt.corpora.declare.patterns import SIDES
from nmt.corpora.readers.files import canonical_code
from nmt.errors import UserError

DE, EN = "eins\nzwei\n", "one\ntwo\n"
PAIRS = [("one", {"de": "eins"}), ("two", {"de": "zwei"})]
BY_COMPONENT = {"by": "component", "test": 0, "dev": 0}


def parallel(*files: str, **changes: Any) -> dict[str, Any]:
    return {"kind": "parallel_text", "files": list(files), **changes}


@pytest.mark.parametrize("sides", ["src trg", "src tgt", "source target", "src ref", "source reference"])
@pytest.mark.parametrize("form", ["{pair}/train.{side}", "{pair}.{side}", "{side}/{pair}.txt", "{pair}/{side}.txt"])
def test_sides_have_the_languages_of_the_path(tmp_path: Path, sides: str, form: str) -> None:
    files = {form.format(pair="deu-eng", side=side): text for side, text in zip(sides.split(), (DE, EN), strict=True)}
    read = parallel(form.replace("{pair}", "{source}-{target}"))
    with open_files(tmp_path, read, files) as reader:
        assert reader.languages == ["de", "en"]
        assert reader.unregistered == []
    assert texts(open_files(tmp_path, read, {})) == PAIRS


def test_files_of_the_tatoeba_challenge(tmp_path: Path) -> None:
    """It has train.src.gz, train.trg.gz and train.id.gz beside dev.src and so on, in a tar for each pair."""
    ids = b"OpenSubtitles\tdeu\teng\n" * 2
    members = {
        "train.src.gz": gzip.compress(DE.encode()), "train.trg.gz": gzip.compress(EN.encode()),
        "train.id.gz": gzip.compress(ids), "dev.src": b"drei\n", "dev.trg": b"three\n",
    }  # fmt: skip
    folder = "data/release/v2023-09-26/deu-eng"
    (tmp_path / "deu-eng.tar").write_bytes(tar_bytes({f"{folder}/{name}": one for name, one in members.items()}))
    end = "{source}-{target}.tar/**/{component}.{side}"
    reader = open_files(tmp_path, parallel(end, f"{end}.gz"), {}, split={"by": "name", "dev": ["dev"]})
    with reader:
        found = [(row.component, row.text, dict(row.translations)) for row in reader.rows({"de"})]
        assert not reader.skipped
    assert found == [("dev", "three", {"de": "drei"}), *[("train", *pair) for pair in PAIRS]]


def test_the_declaration_may_say_the_languages(tmp_path: Path) -> None:
    files = {"train.src": DE, "train.trg": EN}
    read = parallel("train.{language}")
    assert texts(open_files(tmp_path, read, files, languages={"src": "de", "trg": "en"})) == PAIRS


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ("train.{language}", r"no file has text of two languages that belongs together; src, trg are no languages: say "
                             r"which they are, as in languages: \{src: de, trg: en\}, or, where the path has the "
                             r"languages, \{source\}-\{target\}/train.\{side\}"),
        ("train.{side}", r"'train.\{side\}' has \{side\}, which is src or trg, but not the languages of these"),
        ("{source}-{target}/train.{side}.{language}", r"does not have \{language\} or \{side\} once"),
        ("{source}-{target}/train", r"does not have \{language\} or \{side\} once"),
        ("{source}-{target}/train.{sides}", r"has \{sides\}, which is none of .*\{side\}"),
    ],
)  # fmt: skip
def test_sides_without_languages_are_one_line(tmp_path: Path, files: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        open_files(tmp_path, parallel(files), {"train.src": DE, "train.trg": EN})


def test_two_files_of_one_side_are_refused(tmp_path: Path) -> None:
    files = {"de-en/test.src": DE, "de-en/test.trg": EN, "de-en/test.ref": EN}
    with pytest.raises(UserError, match=r"de-en/test.ref and de-en/test.trg are of the same texts; remove one"):
        open_files(tmp_path, parallel("{source}-{target}/test.{side}"), files)


def test_no_language_is_written_like_a_side() -> None:
    assert [side for side in (*SIDES, "ids", "hyp") if canonical_code(side)] == []


IDS = (
    "de/ep-00.xml.gz\ten/ep-00.xml.gz\t1\t1\n"
    "de/ep-01.xml.gz\ten/ep-01.xml.gz\t7 8\t5\n"
)  # fmt: skip
MOSES = {**MEMBERS, "toy.de-en.ids": IDS.encode(), "LICENSE": b"CC0\n", "toy.de-en.scores": b"0.9\n0.1\n"}
OPUS = "{source}-{target}.txt.zip/*.{language}"


def test_downloads_of_opus_are_read_as_they_come(tmp_path: Path) -> None:
    make_zip(tmp_path / "de-en.txt.zip", {**MOSES, "README.md": b"# toy\n"})
    with open_files(tmp_path, parallel(OPUS), {}) as reader:
        assert reader.languages == ["de", "en"]
        assert reader.unregistered == ["md", "scores"]
    assert texts(open_files(tmp_path, parallel(OPUS), {})) == PAIRS


@pytest.mark.parametrize(
    ("component", "expected"),
    [("*", ["ep-00", "ep-01"]), ("{component}", ["toy.de-en/ep-00", "toy.de-en/ep-01"])],
)
def test_ids_give_the_document_of_each_line(tmp_path: Path, component: str, expected: list[str]) -> None:
    make_zip(tmp_path / "de-en.txt.zip", MOSES)
    read = parallel(OPUS.replace("*", component), documents="ids")
    with open_files(tmp_path, read, {}, split=BY_COMPONENT) as reader:
        rows = list(reader.rows({"de"}))
    assert [row.component for row in rows] == expected
    assert [(row.text, dict(row.translations)) for row in rows] == PAIRS


@pytest.mark.parametrize(
    ("changes", "read", "message"),
    [
        ({"toy.de-en.ids": IDS.encode() * 2}, {}, r"unequal counts of lines: .*toy.de-en.ids has 4"),
        ({"toy.de-en.ids": None}, {}, r"there is no file of documents beside de-en.txt.zip/toy.de-en.de: leave out"),
        ({}, {"files": "{source}-{target}.txt.zip/*.{side}"}, r"documents: ids stands in place of \{language\}, not"),
    ],
)
def test_documents_that_do_not_fit_are_one_line(
    tmp_path: Path, changes: dict[str, Any], read: dict[str, Any], message: str
) -> None:
    make_zip(tmp_path / "de-en.txt.zip", {name: one for name, one in {**MOSES, **changes}.items() if one is not None})
    with pytest.raises(UserError, match=message):
        texts(open_files(tmp_path, {**parallel(OPUS, documents="ids"), **read}, {}))
