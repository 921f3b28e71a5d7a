"""Reading every form of corpus: against Python's own readers where there are any, and through bad input."""

import bz2
import contextlib
import gettext
import gzip
import io
import json
import lzma
import sqlite3
import struct
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from array_record.python.array_record_module import ArrayRecordWriter
from hypothesis import given
from hypothesis import strategies as st
from toy_corpus import make_parquet, open_files, texts

from nmt.corpora import CorpusReader, Row, open_corpus
from nmt.corpora.declare.patterns import compile_pattern, match_path
from nmt.corpora.readers.catalogues import read_catalogue
from nmt.corpora.readers.segments import divide
from nmt.corpora.readers.tfds import parse_example
from nmt.errors import UserError

EN = "The alarm was set off"


@pytest.fixture
def corpus(tmp_path: Path) -> Callable[..., CorpusReader]:
    """Open a corpus of files in a folder of the test."""

    return partial(open_files, tmp_path)


# Patterns


@pytest.mark.parametrize(
    ("pattern", "name", "fields"),
    [
        ("{language}/LC/{component}.mo", "pt_BR/LC/x-y.mo", ("pt_BR", "x-y", "", "")),
        ("l/{component}-{language}.mo", "l/admin-network-de_DE.mo", ("de_DE", "admin-network", "", "")),
        ("h/{language}/{path}.html", "h/de/a/b/c.html", ("de", "a/b/c", "", "")),
        ("w/**/{language}-*.json", "w/a/b/pt-BR-0af.json", ("pt-BR", "", "", "")),
        ("w/**/{language}-*.json", "w/de-0af.json", ("de", "", "", "")),
        ("{source}-{target}/x.{language}", "zh-Hans-en/x.en", ("en", "", "zh-Hans", "en")),
        ("{source}/{source}-{target}.tsv", "de/de-en.tsv", ("", "", "de", "en")),
    ],
)
def test_what_fields_stand_for(pattern: str, name: str, fields: tuple[str, ...]) -> None:
    found = match_path(compile_pattern(pattern), name)
    assert found
    assert (found.language, found.component, found.source, found.target) == fields


def test_a_field_that_comes_twice_is_the_same_text() -> None:
    assert match_path(compile_pattern("{source}/{source}-{target}.tsv"), "de/fr-en.tsv") is None


# Catalogues

TEXT = st.text(st.characters(exclude_characters="\x00\x04", exclude_categories=["Cs"]), min_size=1, max_size=8)
# A message of either kind: context, singular, plural, translations.
MESSAGES = st.dictionaries(
    st.tuples(st.none() | TEXT, TEXT), st.tuples(st.none() | TEXT, st.lists(TEXT, min_size=2, max_size=2)), max_size=6
)
HEADER = "Content-Type: text/plain; charset=UTF-8\nPlural-Forms: nplurals=2; plural=n != 1;\n"


def make_mo(messages: dict[Any, Any], header: str = HEADER, order: str = "<", charset: str = "utf-8") -> bytes:
    entries = {b"": header.encode()}
    for (context, singular), (plural, forms) in messages.items():
        key = "" if context is None else f"{context}\x04"
        key += singular if plural is None else f"{singular}\x00{plural}"
        entries[key.encode(charset)] = "\x00".join(forms if plural else forms[:1]).encode(charset)
    keys = sorted(entries)
    strings = [*keys, *(entries[key] for key in keys)]
    place, table = 28 + 16 * len(keys), b""
    for string in strings:
        table += struct.pack(f"{order}2I", len(string), place)
        place += len(string) + 1
    head = struct.pack(f"{order}7I", 0x950412DE, 0, len(keys), 28, 28 + 8 * len(keys), 0, 0)
    return head + table + b"".join(string + b"\x00" for string in strings)


@given(MESSAGES, st.sampled_from("<>"))
def test_compiled_catalogues_are_read_as_python_reads_them(messages: dict[Any, Any], order: str) -> None:
    content = make_mo(messages, order=order)
    expected = gettext.GNUTranslations(io.BytesIO(content))
    found = {(one.context, one.singular): one for one in read_catalogue(content)}
    assert len(found) == len({(context or "", singular) for context, singular in messages})
    for (context, singular), (plural, _) in messages.items():
        one = found[context or "", singular]
        if plural is None:
            wanted = expected.pgettext(context, singular) if context else expected.gettext(singular)
            assert one.forms == {0: wanted}
        elif context:
            assert [one.forms[0], one.forms[1]] == [expected.npgettext(context, singular, plural, n) for n in (1, 2)]
        else:
            assert [one.forms[0], one.forms[1]] == [expected.ngettext(singular, plural, n) for n in (1, 2)]


def test_catalogues_that_python_refuses_are_read() -> None:
    content = make_mo({(None, "Yes"): (None, ["Ja"])}, "Plural-Forms: nplurals=INTEGER; plural=EXPRESSION;\n")
    with pytest.raises(ValueError, match="plural"):
        gettext.GNUTranslations(io.BytesIO(content))
    assert [(one.singular, one.forms[0]) for one in read_catalogue(content)] == [("Yes", "Ja")]
    latin = make_mo({(None, "Key"): (None, ["Schlüssel"])}, HEADER.replace("UTF-8", "ISO-8859-1"), charset="latin-1")
    assert read_catalogue(latin)[0].forms == {0: "Schlüssel"}


PO = r"""
msgid ""
msgstr ""
"Content-Type: text/plain; charset=UTF-8\n"

# A comment.
msgctxt "menu"
msgid "Open the "
"\"file\""
msgstr "Die Datei\töffnen"
#, fuzzy
msgid "Fuzzy"
msgstr "Unsicher"

msgid "one file"
msgid_plural "%d files"
msgstr[0] "eine Datei"
msgstr[1] "%d Dateien"
#~ msgid "Old"
#~ msgstr "Alt"

msgid "Untranslated"
msgstr ""
msgid "Last"
msgstr "Letzte"
"""


def test_portable_catalogues_without_fuzzy_obsolete_and_untranslated() -> None:
    messages = read_catalogue(PO.replace("\n", "\r\n").encode())
    pairs = [pair for message in messages for pair in message.pairs()]
    assert pairs == [
        ('Open the "file"', "Die Datei\töffnen"),
        ("one file", "eine Datei"),
        ("%d files", "%d Dateien"),
        ("Last", "Letzte"),
    ]
    assert messages[0].context == "menu"


@pytest.mark.parametrize(
    "content", [b"", b"not a catalogue", make_mo({(None, "a"): (None, ["b"])})[:40], b"\xde\x12\x04\x95"]
)
def test_what_is_no_catalogue(content: bytes) -> None:
    with pytest.raises(ValueError, match="catalogue"):
        read_catalogue(content)


def test_gettext_corpus_cuts_contexts_and_accelerators_and_skips_its_own_language(corpus: Any) -> None:
    german = {
        (None, "unit^Ghost ship"): (None, ["Geisterschiff"]),
        (None, "Save &As AT&T (&S)"): (None, ["Speichern &unter AT&T (&S)"]),
    }
    files = {
        "de/game.mo": make_mo(german),
        "fr/game.po": 'msgid "unit^Ghost ship"\nmsgstr "Vaisseau"\n',
        "en_GB/game.mo": make_mo({(None, "unit^Ghost ship"): (None, ["Ghost ship"])}),
        "tlh/game.mo": make_mo({}),
        "sv/game.mo": b"broken",
    }
    read = {"kind": "gettext", "files": ["{language}/{component}.mo", "{language}/{component}.po"]}
    source = corpus(read | {"context_mark": "^", "accelerators": "&"}, files)
    assert (source.languages, source.unregistered) == (["de", "en", "fr", "sv"], ["tlh"])
    assert texts(source) == [
        ("Ghost ship", {"de": "Geisterschiff", "fr": "Vaisseau"}),
        ("Save As AT&T", {"de": "Speichern unter AT&T"}),
    ]
    assert source.unreadable == ["sv/game.mo: no catalogue"]


# Tables and pages


def test_json_tables_with_chosen_keys_and_optional_components(corpus: Any) -> None:
    files = {
        "t/en-01.json": json.dumps({"a": "Yes", "b": {"message": EN, "description": "note"}, "l": {"x": ["first"]}}),
        "t/de-02.json": "\ufeff" + json.dumps({"a": "Ja", "b": {"message": "Alarm"}, "l": {"x": ["erste", "zweite"]}}),
        "t/c/en-03.json": json.dumps({"a": "No"}),
        "t/c/de-04.json": json.dumps({"a": "Nein"}),
    }
    read = {"kind": "json_tables", "files": ["t/{component}/{language}-*.json", "t/{language}-*.json"]}
    source = corpus(read | {"key_language": "en", "keys": ["*", "*/message", "l/*/0"]}, files)
    assert texts(source) == [
        ("Yes", {"de": "Ja"}),
        (EN, {"de": "Alarm"}),
        ("first", {"de": "erste"}),
        ("No", {"de": "Nein"}),
    ]


def test_pages_by_id_and_in_sentences(corpus: Any) -> None:
    files = {
        "en-US/a/x.html": '<p class="c" id="p1">One <b>bold</b> thing. Another &amp; more.</p>'
        '<h2 id="h">Title</h2><p>no</p>',
        "de/a/x.html": '<h2 id="h">Titel</h2><p id="p1">Ein <i>fettes</i> Ding. Noch eines &amp; mehr.</p>',
        "fr/a/x.html": '<p id="p1">Une chose et une autre.</p>',
    }
    read = {"kind": "html", "files": "{language}/{path}.html", "key_language": "en", "align": "id", "sentences": True}
    source = corpus(read, files, split={"by": "component", "test": 0, "dev": 0})
    assert texts(source) == [
        ("Title", {"de": "Titel"}),
        ("One bold thing.", {"de": "Ein fettes Ding."}),
        ("Another & more.", {"de": "Noch eines & mehr."}),
        ("One bold thing. Another & more.", {"fr": "Une chose et une autre."}),
    ]
    with source:
        assert {row.component for row in source.rows({"de"})} == {"a/x"}


def test_pages_by_section(corpus: Any) -> None:
    def page(*sections: tuple[str, ...]) -> str:
        return "".join(f"<article><h2>n</h2>{''.join(f'<p>{text}</p>' for text in one)}</article>" for one in sections)

    files = {
        "eng.html": page(("a1", "a2"), ("b1",)),
        "deu.html": page(("A1", "A2"), ("B1",)),
        "fra.html": page(("A1 A2",)),
    }
    read = {"kind": "html", "files": "{language}.html", "key_language": "eng", "align": "section"}
    assert texts(corpus(read, files)) == [
        ("a1", {"de": "A1"}),
        ("a2", {"de": "A2"}),
        ("a1 a2", {"fr": "A1 A2"}),
        ("b1", {"de": "B1"}),
    ]


PARAGRAPHS = st.lists(st.text("ab.? A", min_size=1, max_size=12), min_size=1, max_size=3)


@given(PARAGRAPHS, st.dictionaries(st.sampled_from(["de", "fr"]), PARAGRAPHS), st.booleans())
def test_dividing_loses_and_invents_no_text(text: list[str], others: dict[str, list[str]], sentences: bool) -> None:
    row = Row("en", "c", ("k",), "\n".join(text), {code: "\n".join(parts) for code, parts in others.items()})
    parts = list(divide(row, "all", sentences))
    for code, paragraphs in others.items():
        mine = [part for part in parts if code in part.translations]
        assert "".join("".join(part.text for part in mine).split()) == "".join("".join(text).split())
        translated = "".join(part.translations[code] for part in mine)
        assert "".join(translated.split()) == "".join("".join(paragraphs).split())
    assert len({part.key for part in parts}) == len(parts)


def test_a_database(corpus: Any, tmp_path: Path) -> None:
    with sqlite3.connect(tmp_path / "b.db") as database:
        database.execute("create table t (e, b, v, x)")
        rows = [("k", 2, 1, "two"), ("k", 1, 2, "one"), ("d", 1, 2, "eins"), ("d", 2, 9, "neun"), ("z", 1, 2, "?")]
        database.executemany("insert into t values (?, ?, ?, ?)", rows)
    query = "select e as language, b as component, v as key, x as text from t"
    read = {"kind": "sqlite", "files": "b.db", "key_language": "en", "query": query}
    codes = {"k": "en", "d": "de"}
    source = corpus(read, {}, languages=codes, replace={"o(n)": r"0\1"})
    assert (source.languages, source.unregistered) == (["de", "en"], ["z"])
    assert texts(source) == [("0ne", {"de": "eins"}), ("two", {})]
    with pytest.raises(UserError, match=r"corpus toy: read.query: no such column: component"):
        corpus(read | {"query": "select e as language from t"}, {}, languages=codes).rows({"de"}).__next__()
    with pytest.raises(UserError, match=r"corpus toy: cannot read b.db: file is not a database"):
        corpus(read, {"b.db": b"x" * 200})
    with pytest.raises(UserError, match=r"corpus toy: cannot read b.db: empty file"):
        corpus(read, {"b.db": b""})
    with pytest.raises(UserError, match=r"0 databases instead of one like c.db in .*/test_a_database"):
        corpus(read | {"files": "c.db"}, {})


# Lines and columns


def test_parallel_text_in_every_compression(corpus: Any) -> None:
    english, german = "\ufeffOne\r\n\r\nThree\n", "Eins\nZwei\nDrei"
    packed = {".gz": gzip.compress, ".xz": lzma.compress, ".bz2": bz2.compress}
    files: dict[str, bytes | str] = {"x.en": english, "x.de": german}
    for suffix, compress in packed.items():
        files |= {f"y.en{suffix}": compress(english.encode()), f"y.de{suffix}": compress(german.encode())}
    expected = [("One", {"de": "Eins"}), ("", {"de": "Zwei"}), ("Three", {"de": "Drei"})]
    for pattern in ("x.{language}", *(f"y.{{language}}{suffix}" for suffix in packed)):
        assert texts(corpus({"kind": "parallel_text", "files": pattern}, files)) == expected


@pytest.mark.parametrize("kind", ["parallel_text", "tsv"])
def test_lines_that_end_with_a_carriage_return_alone_are_not_taken_for_one(kind: str, corpus: Any) -> None:
    if kind == "tsv":
        read, files = {"files": "x.tsv", "columns": {"en": 0, "de": 1}}, {"x.tsv": "One\tEins\rTwo\tZwei\r"}
    else:
        read, files = {"files": "x.{language}"}, {"x.en": "One\rTwo\r", "x.de": "Eins\rZwei\r"}
    with pytest.raises(UserError, match="its lines end with a carriage return alone"):
        texts(corpus({"kind": kind, **read}, files))


def test_a_carriage_return_within_a_line_is_text(corpus: Any) -> None:
    files = {"x.en": "One\rtwo\nThree", "x.de": "Eins zwei\r\nDrei\r"}
    read = {"kind": "parallel_text", "files": "x.{language}"}
    assert texts(corpus(read, files)) == [("One\rtwo", {"de": "Eins zwei"}), ("Three", {"de": "Drei"})]


def test_a_file_without_one_of_another_language_is_told(corpus: Any) -> None:
    files = {"a.en": "One\n", "a.de": "Eins\n", "b.de": "Zwei\n", "c.de": "Drei\n"}
    source = corpus({"kind": "parallel_text", "files": "{component}.{language}"}, files)
    assert texts(source) == [("One", {"de": "Eins"})]
    assert dict(source.skipped) == {"file without one of another language beside it, first at b.de": 2}


@pytest.mark.parametrize("declaration", ["<meta charset=iso-8859-1>", '<meta content="text/html; charset=latin1">'])
def test_pages_are_read_in_the_encoding_that_they_name(declaration: str, corpus: Any) -> None:
    read = {"kind": "html", "files": "{language}.html", "key_language": "en", "align": "id"}
    page = f'{declaration}<p id="a">Tür</p>'
    files = {"en.html": '<p id="a">door</p>', "de.html": page.encode("latin-1")}
    assert texts(corpus(read, files)) == [("door", {"de": "Tür"})]


def test_json_in_utf_16_is_told(corpus: Any) -> None:
    files = {"x.json": '[{"en": "One", "de": "Eins"}]'.encode("utf-16")}
    with pytest.raises(UserError, match=r"x\.json: it is UTF-16, and must be converted to UTF-8"):
        corpus({"kind": "json", "files": "x.json"}, files)


@pytest.mark.parametrize("module", ["zstandard", "pyarrow"])
def test_zstandard_with_either_package(module: str, corpus: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pyarrow" if module == "zstandard" else "zstandard", None)
    # A frame of two raw blocks (RFC 8878): magic number, a window of 1 KiB, blocks with their sizes.
    blocks = [b"Eins\tone\nZw", b"ei\ttwo\n"]
    frame = b"\x28\xb5\x2f\xfd\x00\x00"
    for place, block in enumerate(blocks, start=1):
        frame += (len(block) << 3 | (place == len(blocks))).to_bytes(3, "little") + block
    source = corpus({"kind": "tsv", "files": "{source}-{target}.tsv.zst"}, {"de-en.tsv.zst": frame})
    assert texts(source) == [("one", {"de": "Eins"}), ("two", {"de": "Zwei"})]


def test_parallel_text_of_several_languages_and_directions(corpus: Any) -> None:
    files = {"m.en": "a\nb\n", "m.de": "A\nB\n", "m.fr": "1\n2\n"}
    read = {"kind": "parallel_text", "files": "m.{language}"}
    assert texts(corpus(read, files)) == [("a", {"de": "A", "fr": "1"}), ("b", {"de": "B", "fr": "2"})]
    assert texts(corpus(read, files), "fr") == [("a", {"fr": "1"}), ("b", {"fr": "2"})]
    pairs = {"de-fr/t.de": "x\n", "de-fr/t.fr": "y\n", "fr-en/t.fr": "u\n", "fr-en/t.en": "v\n", "fr-en/t.sv": "?\n"}
    source = corpus({"kind": "parallel_text", "files": "{source}-{target}/t.{language}"}, pairs)
    assert texts(source) == [("x", {"fr": "y"}), ("v", {"fr": "u"})]
    assert (source.has("de", "fr"), source.has("fr", "de"), source.has("de", "en")) == (True, True, False)


def test_parallel_text_of_unequal_length_is_an_error_with_the_numbers(corpus: Any) -> None:
    source = corpus({"kind": "parallel_text", "files": "x.{language}"}, {"x.en": "a\nb\nc\nd\n", "x.de": "A\nB"})
    with pytest.raises(UserError, match=r"unequal counts of lines: x.en has 4, x.de has 2"):
        texts(source)


def test_bytes_that_are_not_text_are_counted(corpus: Any) -> None:
    source = corpus({"kind": "parallel_text", "files": "x.{language}"}, {"x.en": b"a\n\xff\nc\n", "x.de": "A\nB\nC\n"})
    assert texts(source) == [("a", {"de": "A"}), ("c", {"de": "C"})]
    assert source.skipped == {"line that is not UTF-8, first at x.en:2": 1}


def test_columns(corpus: Any) -> None:
    tsv = {"de-en.tsv": "Eins\tone\nZwei\nDrei\tthree\tmore\r\n"}
    source = corpus({"kind": "tsv", "files": "{source}-{target}.tsv"}, tsv)
    assert texts(source) == [("one", {"de": "Eins"}), ("three", {"de": "Drei"})]
    assert source.skipped == {"line with too few columns, first at de-en.tsv:2": 1}
    table = {"t.tsv": "doc\ten\tde\tnote\nd1\tone\teins\tx\nd2\ttwo\tzwei\ty\n"}
    read = {"kind": "tsv", "files": "t.tsv", "header": True, "component": "doc"}
    with corpus(read, table, split={"by": "component", "test": 0, "dev": 0}) as source:
        assert source.languages == ["de", "en"]
        assert [(row.component, row.text) for row in source.rows({"de"})] == [("d1", "one"), ("d2", "two")]
    with pytest.raises(UserError, match=r"say under read: which columns"):
        corpus({"kind": "tsv", "files": "t.tsv"}, table)


def test_json_lines(corpus: Any) -> None:
    lines = [
        '{"translation": {"de": "Eins", "en": "one", "x": 1}}',
        "{",
        "",
        "[]",
        '{"translation": {"de": null, "en": "b"}}',
    ]
    source = corpus({"kind": "jsonl", "files": "x.jsonl"}, {"x.jsonl": "\n".join(lines)})
    assert texts(source) == [("one", {"de": "Eins"})]
    assert source.skipped == {
        "line that is no JSON object, first at x.jsonl:2": 3,
        "row without text on a side, first at x.jsonl:5": 1,
    }
    pairs = {"de-fr.jsonl": json.dumps({"source": "a", "target": "b"})}
    assert texts(corpus({"kind": "jsonl", "files": "{source}-{target}.jsonl"}, pairs)) == [("a", {"fr": "b"})]


def test_parquet_and_zstandard_say_what_to_install(corpus: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    for module in ("pyarrow", "pyarrow.parquet", "zstandard"):
        monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(UserError, match=r"x.parquet is a Parquet file: pip install 'nmt-moe\[parquet\]'"):
        corpus({"kind": "parquet", "files": "x.parquet"}, {"x.parquet": b""})
    source = corpus({"kind": "tsv", "files": "{source}-{target}.tsv.zst"}, {"de-en.tsv.zst": b"x"})
    with pytest.raises(UserError, match=r"Zstandard: pip install 'nmt-moe\[zstd\]'"):
        texts(source)


def test_parquet(corpus: Any, tmp_path: Path) -> None:
    make_parquet(tmp_path / "x.parquet", {"translation": [{"de": "Eins", "en": "one"}, {"de": None, "en": "two"}]})
    source = corpus({"kind": "parquet", "files": "x.parquet"}, {})
    assert texts(source) == [("one", {"de": "Eins"})]
    assert source.skipped == {"row without text on a side, first at x.parquet:2": 1}
    with pytest.raises(UserError, match=r"corpus toy: no pair could be read: y.parquet: Parquet"):
        corpus({"kind": "parquet", "files": "y.parquet"}, {"y.parquet": b"no, it is none"})


# Datasets


def field(number: int, content: bytes) -> bytes:
    """A field of a protocol buffer, of type bytes."""
    size, length = len(content), b""
    while size > 127:
        length, size = length + bytes([size & 127 | 128]), size >> 7
    return bytes([number << 3 | 2]) + length + bytes([size]) + content


def make_example(features: dict[str, list[bytes]]) -> bytes:
    entries = b""
    for name, values in features.items():
        feature = field(1, b"".join(field(1, value) for value in values))
        entries += field(1, field(1, name.encode()) + field(2, feature))
    return field(1, entries)


@given(st.dictionaries(st.text(max_size=5), st.lists(st.binary(max_size=300), min_size=1, max_size=3), max_size=4))
def test_examples_are_read_as_written(features: dict[str, list[bytes]]) -> None:
    assert parse_example(make_example(features)) == features


@given(st.binary(max_size=40))
def test_any_bytes_are_an_example_or_an_error_of_values(record: bytes) -> None:
    with contextlib.suppress(ValueError):
        parse_example(record)


def make_dataset(folder: Path, feature: dict[str, Any], splits: dict[str, list[bytes]], format_: str) -> None:
    folder.mkdir(parents=True)
    (folder / "features.json").write_text(json.dumps(feature))
    listed = [{"name": name, "shardLengths": [str(len(records))]} for name, records in splits.items()]
    info = {"name": "toy", "splits": listed, "fileFormat": format_}
    (folder / "dataset_info.json").write_text(json.dumps(info))
    for name, records in splits.items():
        writer = ArrayRecordWriter(str(folder / f"toy-{name}.{format_}-00000-of-00001"), "group_size:1")
        for record in records:
            writer.write(record)
        writer.close()


PAIR = {"pythonClassName": "x.translation_feature.Translation", "translation": {"languages": ["de", "en"]}}
MANY = {
    "pythonClassName": "x.FeaturesDict",
    "featuresDict": {
        "features": {
            "talk": {"pythonClassName": "x.Text"},
            "translations": {
                "pythonClassName": "x.translation_feature.TranslationVariableLanguages",
                "translation": {"languages": ["de", "en", "tlh"]},
            },
        }
    },
}


def test_datasets_of_tensorflow(corpus: Any, tmp_path: Path) -> None:
    def pair(number: int) -> bytes:
        return make_example({"de": [f"Satz {number}".encode()], "en": [f"Sentence {number}".encode()]})

    alone = make_example({"en": [b"Sentence 0"]})
    splits = {"train": [pair(1), b"\x0a\xff", alone, pair(2)], "test": [pair(3)]}
    make_dataset(tmp_path / "toy" / "de_en" / "1.0.0", PAIR, {"train": [pair(9)]}, "array_record")
    make_dataset(tmp_path / "toy" / "de_en" / "1.10.0", PAIR, splits, "array_record")
    tfds = {"obtain": {"kind": "tfds", "folder": str(tmp_path)}}
    source = corpus(
        {"kind": "tfds", "files": "toy/{source}_{target}"}, {}, **tfds, split={"by": "name", "test": ["test"]}
    )
    with source:
        rows = [(source.spec.split.assign(row.component), row.text, row.translations) for row in source.rows({"de"})]
    assert rows == [
        ("train", "Sentence 1", {"de": "Satz 1"}),
        ("train", "Sentence 2", {"de": "Satz 2"}),
        ("test", "Sentence 3", {"de": "Satz 3"}),
    ]
    shard = tmp_path / "toy" / "de_en" / "1.10.0" / "toy-train.array_record-00000-of-00001"
    assert source.skipped == {
        f"damaged record, first at {shard}:2": 1,
        f"row without text on a side, first at {shard}:3": 1,
    }
    several = {"translations/language": [b"en", b"de", b"en"], "translations/translation": [b"a", b"A", b"b"]}
    make_dataset(tmp_path / "many" / "1.1.0", MANY, {"train": [make_example(several)]}, "array_record")
    source = corpus({"kind": "tfds", "files": "many:1.1.0"}, {}, **tfds)
    assert (texts(source), source.unregistered) == ([("a", {"de": "A"})], ["tlh"])
    shard = tmp_path / "many" / "1.1.0" / "toy-train.array_record-00000-of-00001"
    shard.write_bytes(shard.read_bytes()[:100])
    with pytest.raises(UserError, match=r"no pair could be read: .*many/1.1.0/.*: none of 1 records can be found"):
        texts(corpus({"kind": "tfds", "files": "many:1.1.0"}, {}, **tfds))


@pytest.mark.parametrize(
    ("feature", "format_", "message"),
    [
        (
            PAIR,
            "tfrecord",
            r"toy/1.0.0 is prepared as tfrecord, not array_record; .*tfds build toy --file_format=array_record",
        ),
        ({"pythonClassName": "x.Text"}, "array_record", "toy/1.0.0 has no feature of the kind Translation"),
        ([], "array_record", "toy/1.0.0 is no dataset of TensorFlow Datasets"),
    ],
)
def test_other_datasets(feature: Any, format_: str, message: str, corpus: Any, tmp_path: Path) -> None:
    make_dataset(tmp_path / "toy" / "1.0.0", feature, {"train": []}, format_)
    tfds = {"obtain": {"kind": "tfds", "folder": str(tmp_path)}}
    with pytest.raises(UserError, match=message):
        corpus({"kind": "tfds", "files": "toy"}, {}, **tfds)
    with pytest.raises(UserError, match=r"other is not prepared in .*; have it prepared"):
        corpus({"kind": "tfds", "files": "other"}, {}, **tfds)


# The person's own files


def test_files_named_by_a_variable(corpus: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("M4_FILES", raising=False)
    with pytest.raises(UserError, match=r"corpus m4 is at \$M4_FILES: set the environment variable M4_FILES, such as"):
        open_corpus("m4")
    for name in ("de-en/train.tsv", "de-en/dev.tsv", "fr-en/train.tsv"):
        (tmp_path / "m4" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "m4" / name).write_text(f"{name}\tThe text of {name}\n")
    monkeypatch.setenv("M4_FILES", f"{tmp_path}/m4/{{source}}-{{target}}/{{component}}.tsv")
    with open_corpus("m4") as source:
        assert source.languages == ["de", "en", "fr"]
        splits = {row.text: source.spec.split.assign(row.component) for row in source.rows({"de", "fr"})}
    assert splits == {
        "The text of de-en/train.tsv": "train",
        "The text of de-en/dev.tsv": "dev",
        "The text of fr-en/train.tsv": "train",
    }


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ("/nowhere/{source}-{target}.tsv", "there is no file like /nowhere/{source}-{target}.tsv"),
        ("/nowhere/all.tsv", "all.tsv does not say where the languages of a direction stand"),
        ("/a/{source}-{target}.tsv,/a/{source}-{target}.jsonl", r"files of several kinds \(jsonl, tsv\)"),
        ("/a/{source}-{target}.txt", r"taken for parallel text, and does not have {language} once"),
        ("tfds:x/{source}_{target}", "x/{source}_{target} is not prepared in .*tfds build"),
    ],
)
def test_patterns_of_pairs_that_cannot_be_used(files: str, message: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("M4_FILES", files)
    with pytest.raises(UserError, match=message) as raised:
        open_corpus("m4")
    assert "\n" not in str(raised.value)
