"""Layouts in which parallel text is published, each read by the declaration that docs/data.md gives for it."""

import gzip
from pathlib import Path
from typing import Any

import pytest
import yaml
from test_archives import make_zip, tar_bytes
from toy_corpus import open_files

DOCS = Path(__file__).parents[2] / "docs" / "data.md"
PAIRS = {("one", "eins"), ("two", "zwei")}
TMX = """<?xml version="1.0" encoding="UTF-8"?><tmx version="1.4"><header srclang="de"/><body>
<tu><tuv xml:lang="de"><prop type="source-document">x</prop><seg>eins</seg></tuv>
<tuv xml:lang="en"><seg>one</seg></tuv></tu>
<tu><tuv xml:lang="de"><seg>zwei</seg></tuv><tuv xml:lang="en"><seg>two</seg></tuv></tu></body></tmx>"""


def table(*rows: str) -> bytes:
    return "".join(f"{row}\n" for row in rows).encode()


# Each by the name that docs/data.md calls it by: its files.
LAYOUTS: dict[str, dict[str, bytes]] = {
    "ParaCrawl, as text": {"en-de.txt.gz": gzip.compress(table("one\teins", "two\tzwei"))},
    "ParaCrawl, as TMX": {"en-de.tmx.gz": gzip.compress(TMX.encode())},
    "CCMatrix and NLLB bitext": {
        "deu_Latn-eng_Latn.gz": gzip.compress(
            table("eins\tone\t1.25\t0.9\t0.8\thttps://a\thttps://b", "zwei\ttwo\t1.05\t0.9\t0.8\thttps://c\thttps://d")
        )
    },
    "WikiMatrix": {"WikiMatrix.de-en.tsv.gz": gzip.compress(table("1.25\teins\tone", "1.05\tzwei\ttwo"))},
    "TED2020": {"TED2020-de-en.tsv.gz": gzip.compress(table("eins\tone", "zwei\ttwo"))},
    "Moses files beside each other (JW300, Europarl of statmt)": {
        "jw300.de-en.de": table("eins", "zwei"), "jw300.de-en.en": table("one", "two")
    },
    "News Commentary, Wikititles": {"news-commentary-v18.de-en.tsv.gz": gzip.compress(table("eins\tone", "zwei\ttwo"))},
    "Europarl in one .tgz": {
        "de-en.tgz": gzip.compress(
            tar_bytes({"europarl-v7.de-en.de": table("eins", "zwei"), "europarl-v7.de-en.en": table("one", "two")})
        )
    },
    "sentence pairs that Tatoeba's site exports": {
        "Sentence pairs in German-English.tsv": table("77\teins\t1276\tone", "78\tzwei\t1277\ttwo")
    },
    "manythings.org": {"deu-eng.zip/deu.txt": table("one\teins\tCC-BY 2.0", "two\tzwei\tCC-BY 2.0")},
}  # fmt: skip


def declarations() -> dict[str, dict[str, Any]]:
    """Return the declarations of the documentation, by the name of the layout."""
    text = DOCS.read_text(encoding="utf-8").partition("### Layouts of published corpora")[2].partition("\n### ")[0]
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in text.splitlines() if line.startswith("| ")]
    return {name: yaml.safe_load(read.strip("`")) for name, read, *_ in rows[1:] if read.startswith("`{")}


def write(folder: Path, files: dict[str, bytes]) -> None:
    for name, content in files.items():
        if ".zip/" in name:
            archive, member = name.split("/")
            make_zip(folder / archive, {member: content, "_about.txt": b"about"})
        else:
            (folder / name).write_bytes(content)


@pytest.mark.parametrize("name", sorted(LAYOUTS))
def test_published_layouts_are_read_as_documented(name: str, tmp_path: Path) -> None:
    write(tmp_path, LAYOUTS[name])
    with open_files(tmp_path, declarations()[name], {}) as reader:
        assert reader.languages == ["de", "en"]
        rows = list(reader.rows({"de", "en"}))
        assert not reader.skipped
    found = {(row.text, row.translations["de"]) for row in rows}
    assert found == PAIRS


def test_text_of_the_leipzig_corpora(tmp_path: Path) -> None:
    (tmp_path / "deu_news_2023_10K").mkdir()
    (tmp_path / "deu_news_2023_10K" / "deu_news_2023_10K-sentences.txt").write_bytes(table("1\teins", "2\tzwei"))
    with open_files(tmp_path, declarations()["Leipzig corpora"], {}, monolingual=True) as reader:
        assert [(row.language, row.text) for row in reader.rows({"de"})] == [("de", "eins"), ("de", "zwei")]


def test_every_layout_of_the_documentation_is_tested() -> None:
    assert set(declarations()) == {*LAYOUTS, "Leipzig corpora"}
