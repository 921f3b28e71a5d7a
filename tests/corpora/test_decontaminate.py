"""Named test sets that are kept out of training: every form of file, what is refused, and the counts of each file."""

import csv
import gzip
import json
from pathlib import Path
from typing import Any

import pytest
from toy_corpus import make_parquet

from nmt.config import CleanConfig
from nmt.corpora.cleaned.load import clean_corpora
from nmt.corpora.cleaned.statistics import corpus_statistics
from nmt.corpora.cleaned.testsets import find_test_sets
from nmt.corpora.readers.file_texts import file_texts
from nmt.errors import UserError
from nmt.languages import parse_direction

EN = ("The old lighthouse keeper counts seven ships", "Nobody believed the story about the waterfall")
DE = ("Der alte Leuchtturmwärter zählt sieben Schiffe", "Niemand glaubte die Geschichte vom Wasserfall")
SEGMENTS = "".join(f'<seg id="{number}">{text}</seg>\n' for number, text in enumerate(EN))

FILES: dict[str, tuple[str, int]] = {  # content, and the number of its texts
    "lines.txt": ("\ufeff" + "\n".join(EN) + "\n\n", 2),
    "eng_Latn.devtest": ("\n".join(EN), 2),
    "test.sgm": (f'<srcset setid="x" srclang="any"><doc docid="a">\n{SEGMENTS}</doc></srcset>', 2),
    "test.xml": (f'<dataset id="x"><doc id="a"><src lang="en">{SEGMENTS}</src></doc></dataset>', 2),
    "test.csv": (f'id,en,de\n1,"{EN[0]}","{DE[0]}"\n2,"{EN[1]}","{DE[1]}"\n', 4),
    "semicolon.csv": (f"1;{EN[0]};{DE[0]}\n2;{EN[1]};{DE[1]}\n", 4),
    "test.tsv": (f"{EN[0]}\t{DE[0]}\n{EN[1]}\t{DE[1]}\n", 4),
    "quoted.tsv": (f'"{EN[0][:20]}\n{EN[0][21:]}"\t"{DE[0]} ""so"""\n"{EN[1]}"\t"{DE[1]}"\n', 4),
    "test.tmx": (
        '<tmx version="1.4"><header/><body>'
        + "".join(
            f'<tu><tuv xml:lang="en"><seg>{en}</seg></tuv>'
            f'<tuv xml:lang="de"><seg><bpt i="1">x</bpt>{de}</seg></tuv></tu>'
            for en, de in zip(EN, DE, strict=True)
        )
        + "</body></tmx>",
        4,
    ),
    "test.xlf": (
        '<xliff version="1.2"><file source-language="en" target-language="de"><body>'
        + "".join(f'<trans-unit id="{n}"><source>{text}</source><target/></trans-unit>' for n, text in enumerate(EN))
        + "</body></file></xliff>",
        2,
    ),
    "test.tbx": (
        f"<martif><text><body><termEntry><term>{EN[0]}</term><term>{EN[1]}</term></termEntry></body></text></martif>",
        2,
    ),
    "header.tsv": (f"en\tde\n{EN[0]}\t{DE[0]}\n{EN[1]}\t{DE[1]}\n", 4),
    "test.json": (json.dumps([{"en": EN[0], "de": DE[0], "id": 1}, {"en": EN[1], "de": DE[1], "id": 2}]), 4),
    "nested.json": (json.dumps({"data": [{"refs": [EN[0], EN[1]]}]}), 2),
    "test.jsonl": ("".join(json.dumps({"translation": {"en": en}}) + "\n" for en in EN), 2),
}


@pytest.fixture
def corpus(tmp_path: Path) -> str:
    (tmp_path / "train.tsv").write_text(
        "".join(f"{de}\t{en}\n" for de, en in [*zip(DE, EN, strict=True), ("Die Katze schläft dort", "The cat sleeps")])
    )
    (tmp_path / "toy.yaml").write_text(
        "name: toy\nlicence: CC0-1.0\n"
        f"obtain: {{kind: files, folder: {tmp_path}}}\n"
        "read: {kind: tsv, files: train.tsv, columns: {de: 0, en: 1}}\n"
        "split: {by: text, test: 0, dev: 0}\n"
    )
    return str(tmp_path / "toy.yaml")


def cleaned(corpus: str, *named: str) -> Any:
    clean = CleanConfig(decontaminate=named, min_words=3)
    return clean_corpora([corpus], [*map(parse_direction, ("de-en", "en-de"))], clean, workers=1)


def write(folder: Path, name: str) -> Path:
    content, _ = FILES[name]
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content)
    return path


@pytest.mark.parametrize("compressed", [False, True])
@pytest.mark.parametrize("name", FILES)
def test_every_form_keeps_its_texts_out(name: str, compressed: bool, corpus: str, tmp_path: Path) -> None:
    path = write(tmp_path / "sets", name)
    if compressed:
        path = path.rename(f"{path}.gz")
        path.write_bytes(gzip.compress(path.read_bytes()))
    found = cleaned(corpus, str(path))
    assert [len(splits["train"]) for splits in found.pairs.values()] == [1, 1]
    # Two pairs in either direction, with whichever of their sides they overlap.
    assert found.test_sets == ((str(path), FILES[name][1], 4),)
    assert corpus_statistics(found)["test_sets"] == [{"file": str(path), "texts": FILES[name][1], "removed": 4}]


def test_parquet_keeps_its_texts_out(corpus: str, tmp_path: Path) -> None:
    make_parquet(tmp_path / "set.parquet", {"id": ["1", "2"], "translation": [{"en": text} for text in EN]})
    assert cleaned(corpus, str(tmp_path / "set.parquet")).test_sets[0][1:] == (2, 4)


def test_each_file_has_its_own_counts(corpus: str, tmp_path: Path) -> None:
    for name, lines in (("a.txt", [EN[0], DE[0]]), ("b.txt", [EN[1]]), ("c.txt", ["Something else altogether"])):
        (tmp_path / name).write_text("\n".join(lines))
    names = [str(tmp_path / f"{name}.txt") for name in "abc"]
    found = cleaned(corpus, *names, str(write(tmp_path, "lines.txt")))
    assert [one[1:] for one in found.test_sets] == [(2, 2), (1, 2), (1, 0), (2, 4)]
    assert str(found.test_sets[0]) == f"kept out of training: 2 texts of {names[0]}, which removed 2 pairs"
    (tmp_path / "a.txt").rename(tmp_path / "z.txt")  # the same content: nothing is cleaned again, and the name is new
    again = cleaned(corpus, str(tmp_path / "z.txt"), *names[1:], str(tmp_path / "lines.txt"))
    assert [one.file[-5:] for one in again.test_sets] == ["z.txt", "b.txt", "c.txt", "s.txt"]


def test_folders_and_patterns(corpus: str, tmp_path: Path) -> None:
    for place in ("f/dev/deu.dev", "f/devtest/eng.devtest", "f/devtest/deep/deu.devtest", "f/.hidden"):
        (tmp_path / place).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / place).write_text("\n".join(EN))
    folder = str(tmp_path / "f")
    below = [f"{folder}/{name}" for name in ("dev/deu.dev", "devtest/deep/deu.devtest", "devtest/eng.devtest")]
    assert find_test_sets([folder]) == below
    assert find_test_sets([f"{folder}/**/*.devtest", folder]) == [*below[1:], below[0]]
    assert find_test_sets([f"{folder}/dev*/*"]) == [below[0], below[2]]
    assert [one.removed for one in cleaned(corpus, folder).test_sets] == [4, 4, 4]
    (tmp_path / "none").mkdir()
    for name, message in (("none", "no file in the folder"), ("f/*.sgm", "no file is like")):
        with pytest.raises(UserError, match=rf"data.clean.decontaminate: .*{message} .*{name[-3:]}"):
            find_test_sets([str(tmp_path / name)])


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.tmx", b"<tmx version='1.4'></tmx>", "has no text"),
        ("a.tmx", b"<html></html>", "its outermost element is <html>, not <tmx>"),
        ("a.tmx", b"<!DOCTYPE tmx [<!ENTITY a 'b'>]><tmx></tmx>", "its DOCTYPE declares entities"),
        ("a.tmx", FILES["test.tmx"][0].encode()[:-20], "ends within an element"),
        ("a.properties", b"a=b\n", r"\.properties is not read"),
        ("a.tsv", b'"one ""1"""\tx\n"two\ty\n', "unexpected end of data"),
        ("a.txt", b"<?xml version='1.0'?><tmx></tmx>", "not plain text but markup"),
        ("a.xml", b"<article>text</article>", "no test set of WMT"),
        ("a.sgm", b"one\ntwo\n", "no test set of WMT"),
        ("a.devtest", b'[{"en": "text"}]', "not plain text but JSON"),
        ("a.txt", b'{"en": "text"}\n', "not plain text but JSON"),
        ("a.docx", b"PK\x03\x04 and more", "zip archive"),
        ("a.txt", b"\xff\xfea\0", "it is UTF-16"),
        ("a.en", b"a\0b", "it is no text"),
        ("a.txt", b"text\nt\xe4xt\n", "line 2 is not UTF-8"),
        ("a.po", b'msgid ""\n', r"\.po is not read"),
        ("a.json", b"{", "it is not JSON"),
        ("a.jsonl", b"{}\n{\n", "line 2 is not JSON"),
        ("a.csv", b'a,"b\n', "unexpected end of data"),
        ("a.parquet", b"PAR1", "cannot be read"),
        ("a.txt", b"\n \n", "has no text"),
        ("a.txt.gz", b"not gzip", "Not a gzipped file"),
        ("a.xml.gz", gzip.compress(FILES["test.xml"][0].encode())[:-20], "ended before"),
    ],
)
def test_what_cannot_be_read_is_refused_in_one_line(
    name: str, content: bytes, message: str, corpus: str, tmp_path: Path
) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(UserError, match=rf"^data.clean.decontaminate: .*{name}.*({message})") as raised:
        cleaned(corpus, str(tmp_path / name))
    assert "\n" not in str(raised.value)


def test_the_limit_of_cells_is_given_back(tmp_path: Path) -> None:
    before = csv.field_size_limit()
    path = tmp_path / "test.csv"
    path.write_text("de,en\n" + '"' + "wort " * 40_000 + '",words\n')
    with path.open("rb") as file:
        assert len(list(file_texts(file, path.name))) == 2
    assert csv.field_size_limit() == before
