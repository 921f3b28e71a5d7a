"""Tatoeba's exports: pairs of any two languages by links between the numbers of sentences."""

import bz2
import random
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from test_archives import tar_bytes
from toy_corpus import open_files

from nmt.corpora.readers.sentence_index import parse_links
from nmt.errors import UserError

READ = {"kind": "tatoeba", "files": "sentences.csv", "links": "links.csv"}
SENTENCES = [
    (1, "eng", "Let's try."),
    (2, "deu", "Lasst es uns versuchen."),
    (3, "fra", "Essayons !"),
    (4, "deu", "Versuchen wir es."),
    (5, "\\N", "???"),
    (6, "eng", "Let us try."),
    (7, "cmn", "我們試試看！"),
    (8, "qqq", "unknown"),
    (9, "fra", "Je dois aller dormir."),
    (10, "deu", "Ich muss schlafen gehen."),
]
LINKS = [
    *[(1, 2), (2, 1), (1, 3), (3, 1), (1, 4), (4, 1)],
    (1, 6),  # of one language
    *[(5, 1), (1, 5)],  # a language that is not known
    *[(7, 1)],  # in one direction only
    *[(8, 1), (1, 8)],  # a code that the registry does not know
    *[(1, 99), (99, 1), (2, 98)],  # deleted
    *[(9, 10), (10, 9), (10, 9)],  # without the key language
]


def rows(lines: Iterable[tuple[Any, ...]]) -> str:
    return "".join("\t".join(map(str, line)) + "\n" for line in lines)


def pairs(reader: Any, *wanted: str) -> set[tuple[str, ...]]:
    found = [(row.language, row.text, *item) for row in reader.rows(wanted) for item in row.translations.items()]
    assert len(found) == len(set(found))
    return set(found)


ALL = {
    ("en", "Let's try.", "de", "Lasst es uns versuchen."),
    ("en", "Let's try.", "de", "Versuchen wir es."),
    ("en", "Let's try.", "fr", "Essayons !"),
    ("en", "Let's try.", "zh-Hant", "我們試試看！"),
    ("de", "Ich muss schlafen gehen.", "fr", "Je dois aller dormir."),
}


def test_links_in_either_direction_are_one_pair(tmp_path: Path) -> None:
    files = {"sentences.csv": rows(SENTENCES), "links.csv": rows(LINKS)}
    with open_files(tmp_path, READ, files, languages={"cmn": "zh-Hant"}) as reader:
        assert reader.languages == ["de", "en", "fr", "zh-Hant"]
        assert reader.unregistered == ["qqq"]
        assert reader.has("de", "fr")
        assert pairs(reader, *reader.languages) == ALL
        assert dict(reader.skipped) == {
            "sentence whose language is not known, first at sentences.csv:5": 1,
            "link between two sentences of one language, first at links.csv:7": 1,
            "link to a sentence that is not there, first at links.csv:13": 2,
        }
        assert pairs(reader, "de") == {one for one in ALL if one[0] == "en" and one[2] == "de"}
        assert pairs(reader, "de", "fr") == {one for one in ALL if one[2] != "zh-Hant"}


def test_monolingual_text_needs_no_links(tmp_path: Path) -> None:
    files = {"sentences.csv": rows(SENTENCES)}
    with open_files(tmp_path, READ, files, monolingual=True) as reader:
        assert [row.text for row in reader.rows({"de"})] == [text for _, code, text in SENTENCES if code == "deu"]


@pytest.mark.parametrize("layout", ["detailed", "by language", "tar"])
def test_every_export_is_read(tmp_path: Path, layout: str) -> None:
    read: dict[str, Any] = dict(READ)
    if layout == "detailed":
        read["files"] = "sentences_detailed.csv"
        dates = ("CK", "0000-00-00 00:00:00", "\\N")
        files: dict[str, Any] = {"sentences_detailed.csv": rows((*one, *dates) for one in SENTENCES)}
        files["links.csv"] = rows(LINKS)
    elif layout == "by language":
        read |= {"files": "{language}_sentences.tsv.bz2", "links": "{source}-{target}_links.tsv.bz2"}
        codes = ("eng", "deu", "fra", "cmn")
        of = {number: code for number, code, _ in SENTENCES}
        files = {
            f"{code}_sentences.tsv.bz2": bz2.compress(rows(one for one in SENTENCES if one[1] == code).encode())
            for code in codes
        }
        for one, other in (("eng", "deu"), ("fra", "eng"), ("cmn", "eng"), ("deu", "fra")):
            between = (link for link in LINKS if {of.get(link[0]), of.get(link[1])} == {one, other})
            files[f"{one}-{other}_links.tsv.bz2"] = bz2.compress(rows(between).encode())
    else:
        read |= {"files": "sentences.tar.bz2/sentences.csv", "links": "links.tar.bz2/links.csv"}
        files = {
            "sentences.tar.bz2": bz2.compress(tar_bytes({"sentences.csv": rows(SENTENCES).encode()})),
            "links.tar.bz2": bz2.compress(tar_bytes({"links.csv": rows(LINKS).encode()})),
        }
    with open_files(tmp_path, read, files, languages={"cmn": "zh-Hant"}) as reader:
        assert pairs(reader, *reader.languages) == ALL


def test_what_is_wrong_is_counted_with_its_place(tmp_path: Path) -> None:
    sentences = b"id\tlang\ttext\n1\teng\tone\n2\tdeu\teins\n3\tdeu\n4\tdeu\t\xff\n5\tdeu\t \n"
    sentences += b"2\tdeu\tzwei\n9999999999\tdeu\tx\n"
    links = "1\t2\n2\n1\t2\tx\nx\ty\n1\t4\n"
    with open_files(tmp_path, READ, {"sentences.csv": sentences, "links.csv": links}) as reader:
        assert pairs(reader, "de") == {("en", "one", "de", "eins")}
        assert dict(reader.skipped) == {
            "line without the number, language and text of a sentence, first at sentences.csv:1": 3,
            "line that is not UTF-8, first at sentences.csv:5": 1,
            "row without text on a side, first at sentences.csv:6": 1,
            "sentence with the number of another one, first at sentence 2": 1,
            "line without two numbers of sentences, first at links.csv:2": 2,
        }


def test_a_cut_export_is_read_as_far_as_it_goes(tmp_path: Path) -> None:
    generator = random.Random(1)
    sentences = [(n, ("eng", "deu")[n % 2], f"{n} {generator.random()}") for n in range(20_000)]
    links = [(n, n + 1) for n in range(0, 20_000, 2)]
    files = {
        "sentences.csv.bz2": bz2.compress(rows(sentences).encode(), 1)[:-100_000],
        "links.csv.bz2": bz2.compress(rows(links).encode(), 1)[:-100],
    }
    read = READ | {"files": "sentences.csv.bz2", "links": "links.csv.bz2"}
    with open_files(tmp_path, read, files) as reader:
        found = pairs(reader, "de")
        assert found
        assert found <= {("en", sentences[a][2], "de", sentences[b][2]) for a, b in links}
        assert [note.split(":")[0] for note in reader.unreadable] == ["sentences.csv.bz2", "links.csv.bz2"]


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({"sentences.csv": rows(SENTENCES)}, "there is no file like links.csv in"),
        ({"links.csv": rows(LINKS)}, "there is no file like sentences.csv in"),
        ({"sentences.csv": "", "links.csv": ""}, "no file has text of two languages that belongs together"),
        ({"sentences.csv": "1\teng\tone\n2\tqqq\tx\n", "links.csv": "1\t2\n"}, "unknown codes of languages: qqq"),
        ({"sentences.csv": "a,b\n" * 9, "links.csv": "1\t2\n"}, "no file has text of two languages"),
    ],
)
def test_a_wrong_export_is_one_line(tmp_path: Path, files: dict[str, str], message: str) -> None:
    with pytest.raises(UserError) as error:
        open_files(tmp_path, READ, files)
    assert message in str(error.value)
    assert "\n" not in str(error.value)


def test_links_are_parsed_as_line_by_line() -> None:
    good = [b"1\t2\n", b"3\t4\r\n", b"2147483647\t5"]
    first, second, wrong = parse_links(good)
    assert (first.tolist(), second.tolist(), wrong) == ([1, 3, 2147483647], [2, 4, 5], [])
    # As many numbers as two a line, but not so on each line.
    first, second, wrong = parse_links([b"1\t2\t3\n", b"4\n", b"5 6\n", b"7\t8\n"])
    assert (first.tolist(), second.tolist(), wrong) == ([1, -1, -1, 7], [2, -1, -1, 8], [1, 2])
    assert first.dtype == np.int64
