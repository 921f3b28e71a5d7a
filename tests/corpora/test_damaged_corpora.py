"""What becomes of files that are cut, corrupt, empty, in another encoding, or not what the declaration says."""

import bz2
import contextlib
import gzip
import json
import lzma
import sqlite3
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from toy_corpus import make_parquet, open_files, texts

from nmt.corpora import CorpusReader
from nmt.corpora.cleaned.testsets import KeptOutTexts
from nmt.corpora.declare.spec_read_columns import Tsv
from nmt.corpora.readers.catalogues import read_catalogue
from nmt.errors import UserError

ROWS = [(f"sentence {number}", {"de": f"Satz {number * 7919 % 99991}"}) for number in range(20_000)]
TSV = "".join(f"{row['de']}\t{text}\n" for text, row in ROWS).encode()
READ = {"kind": "tsv", "columns": {"de": 0, "en": 1}}
PAIRS = {"kind": "tsv", "files": "{source}-{target}.tsv"}


@pytest.fixture
def corpus(tmp_path: Path) -> Callable[..., CorpusReader]:
    """Open a corpus of files in a folder of the test."""
    return partial(open_files, tmp_path)


def zstandard_frames(content: bytes) -> bytes:
    """Compress as pzstd does, in frames with skippable ones around; blocks can be read before their frame ends."""
    import zstandard

    skippable = b"\x50\x2a\x4d\x18" + (3).to_bytes(4, "little") + b"abc"
    packed = skippable
    for part in (content[:50_000], content[50_000:]):
        writer = zstandard.ZstdCompressor(write_checksum=True).compressobj()
        for place in range(0, len(part), 5000):
            packed += writer.compress(part[place : place + 5000]) + writer.flush(zstandard.COMPRESSOBJ_FLUSH_BLOCK)
        packed += writer.flush() + skippable
    return packed


COMPRESS: dict[str, Callable[[bytes], bytes]] = {
    ".gz": gzip.compress,
    ".xz": lzma.compress,
    ".bz2": bz2.compress,
    ".zst": zstandard_frames,
}


@pytest.fixture(params=[".gz", ".xz", ".bz2", ".zst by zstandard", ".zst by pyarrow"])
def packed(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> tuple[str, bytes]:
    """The ending of a compression, and what it makes of TSV; Zstandard is then read by one package only."""
    ending, _, module = request.param.partition(" by ")
    content = COMPRESS[ending](TSV)
    if module:
        monkeypatch.setitem(sys.modules, "pyarrow" if module == "zstandard" else "zstandard", None)
    return ending, content


# Compression


def test_compressed_text_is_read_whole(packed: tuple[str, bytes], corpus: Any) -> None:
    suffix, content = packed
    source = corpus(READ | {"files": f"x.tsv{suffix}"}, {f"x.tsv{suffix}": content})
    assert texts(source) == ROWS
    assert (source.unreadable, source.skipped) == ([], {})


@pytest.mark.parametrize("damage", ["cut", "cut at the end", "corrupt"])
def test_damaged_text_is_read_as_far_as_it_goes_and_noted(
    damage: str, packed: tuple[str, bytes], corpus: Any, tmp_path: Path
) -> None:
    suffix, content = packed
    half = len(content) // 2
    damaged = {
        "cut": content[:half],
        "cut at the end": content[: len(content) - (20 if suffix == ".zst" else 5)],
        "corrupt": content[:half] + bytes(byte ^ 0x5A for byte in content[half : half + 64]) + content[half + 64 :],
    }[damage]
    files = {f"x.tsv{suffix}": damaged, "y.tsv": "Ende\tlast\n"}
    source = corpus(READ | {"files": [f"x.tsv{suffix}", "y.tsv"]}, files)
    *rows, last = texts(source)
    assert last == ("last", {"de": "Ende"})
    (note,) = source.unreadable
    if rows:
        # A gzip file that is corrupt is noticed at the sum behind its content at the latest.
        assert note.startswith(f"x.tsv{suffix}: read as far as line {len(rows) + sum(source.skipped.values()):,} (")
    else:
        assert note.startswith(f"x.tsv{suffix}: ")
    if damage != "corrupt":
        assert rows == ROWS[: len(rows)]
        assert len(rows) < len(ROWS) or damage == "cut at the end"
    (tmp_path / f"set.tsv{suffix}").write_bytes(damaged)
    with pytest.raises(UserError, match=rf"decontaminate: .*/set.tsv{suffix} cannot be read: .") as raised:
        list(KeptOutTexts(str(tmp_path / f"set.tsv{suffix}")))
    assert "\n" not in str(raised.value)


def test_test_sets_are_read_in_every_compression(packed: tuple[str, bytes], tmp_path: Path) -> None:
    suffix, content = packed
    (tmp_path / f"set.tsv{suffix}").write_bytes(content)
    assert list(KeptOutTexts(str(tmp_path / f"set.tsv{suffix}"))) == [
        text for english, row in ROWS for text in (row["de"], english)
    ]


def test_what_is_not_compressed_as_its_name_says(packed: tuple[str, bytes], corpus: Any) -> None:
    suffix, _ = packed
    source = corpus(READ | {"files": f"x.tsv{suffix}"}, {f"x.tsv{suffix}": b"this is not compressed at all, not even"})
    with pytest.raises(UserError, match=rf"^corpus toy: no pair could be read: x.tsv{suffix}: \S") as raised:
        texts(source)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize("suffix", COMPRESS)
def test_tables_databases_and_parquet_may_be_compressed(suffix: str, corpus: Any, tmp_path: Path) -> None:
    def compress(content: bytes) -> bytes:
        return COMPRESS[suffix](content)

    expected = [("one", {"de": "eins"})]
    tables = {"t.en.json": b'{"a": "one"}', "t.de.json": b'{"a": "eins"}'}
    files = {name + suffix: compress(content) for name, content in tables.items()}
    read = {"kind": "json_tables", "files": f"t.{{language}}.json{suffix}", "key_language": "en"}
    assert texts(corpus(read, files)) == expected
    catalogue = compress(b'msgid "one"\nmsgstr "eins"\n')
    read = {"kind": "gettext", "files": f"{{language}}.po{suffix}"}
    assert texts(corpus(read, {f"de.po{suffix}": catalogue})) == expected
    make_parquet(tmp_path / "x.parquet", {"de": ["eins"], "en": ["one"]})
    files = {f"x.parquet{suffix}": compress((tmp_path / "x.parquet").read_bytes())}
    assert texts(corpus({"kind": "parquet", "files": f"x.parquet{suffix}"}, files)) == expected
    with contextlib.closing(sqlite3.connect(tmp_path / "x.db")) as database, database:
        database.execute("create table t (language, component, key, text)")
        database.executemany("insert into t values (?, 1, 1, ?)", [("en", "one"), ("de", "eins")])
    files = {f"x.db{suffix}": compress((tmp_path / "x.db").read_bytes())}
    read = {"kind": "sqlite", "files": f"x.db{suffix}", "key_language": "en", "query": "select * from t"}
    assert texts(corpus(read, files)) == expected


# Files that end too soon


def test_parallel_text_ends_where_a_file_is_damaged(corpus: Any) -> None:
    german, english = (b"".join(b"%s %d\n" % (word, number) for number in range(9999)) for word in (b"Satz", b"line"))
    read = {"kind": "parallel_text", "files": ["x.{language}.gz", "x.{language}"]}
    source = corpus(read, {"x.en": english, "x.de.gz": gzip.compress(german)[:-2000]})
    with pytest.raises(UserError, match=r"no file has text of two languages that belongs together"):
        corpus({"kind": "parallel_text", "files": "x.{language}"}, {})
    source = corpus(
        {"kind": "parallel_text", "files": "x.{language}.gz"},
        {"x.en.gz": gzip.compress(english), "x.de.gz": gzip.compress(german)[:-2000]},
    )
    found = texts(source)
    assert found == [(f"line {number}", {"de": f"Satz {number}"}) for number in range(len(found))]
    assert 0 < len(found) < 9999
    reason = "Compressed file ended before the end-of-stream marker was reached"
    assert source.unreadable == [f"x.de.gz: read as far as line {len(found):,} ({reason})"]


def test_damaged_parquet(corpus: Any, tmp_path: Path) -> None:
    make_parquet(tmp_path / "x.parquet", {"de": [row["de"] for _, row in ROWS], "en": [text for text, _ in ROWS]})
    content = (tmp_path / "x.parquet").read_bytes()
    read = {"kind": "parquet", "files": "{component}.parquet"}
    place = len(content) // 3
    files = {"x.parquet": content[:place] + bytes(2000) + content[place + 2000 :], "y.parquet": content[: 2 * place]}
    source = corpus(read, files)
    found = texts(source)
    assert 0 < len(found) < len(ROWS)
    assert found == ROWS[: len(found)]
    whole, cut = sorted(source.unreadable)
    assert whole.startswith(f"x.parquet: read as far as row {len(found):,} (")
    assert cut.startswith("y.parquet: Parquet magic bytes not found in footer")


def test_empty_files(corpus: Any, tmp_path: Path) -> None:
    source = corpus(PAIRS, {"de-en.tsv": "Eins\tone\n", "fr-en.tsv": "", "sv-en.tsv": ""})
    assert texts(source) == [("one", {"de": "Eins"})]
    assert source.skipped == {"empty file, first at fr-en.tsv": 2}
    cases: list[tuple[dict[str, Any], dict[str, bytes]]] = [
        ({"kind": "parallel_text", "files": "a.{language}"}, {"a.de": b"", "a.en": b""}),
        ({"kind": "jsonl", "files": "a.jsonl"}, {"a.jsonl": b""}),
        ({"kind": "tsv", "files": "a.tsv", "header": True}, {"a.tsv": b"de\ten\n"}),
        ({"kind": "gettext", "files": "{language}/a.po"}, {"de/a.po": b""}),
        ({"kind": "html", "files": "{language}/a.html", "key_language": "en", "align": "id"},
         {"de/a.html": b"", "en/a.html": b'<p id="p">One</p>'}),
    ]  # fmt: skip
    for read, files in cases:
        with pytest.raises(UserError, match=r"corpus toy: no pair could be read: empty file, first at \S*a\."):
            texts(corpus(read, files))
    make_parquet(tmp_path / "a.parquet", {"de": [], "en": []})
    with pytest.raises(UserError, match=r"no pair could be read: empty file, first at a.parquet"):
        texts(corpus({"kind": "parquet", "files": "a.parquet"}, {}))
    alone = {"kind": "text", "files": "a.{language}"}
    with pytest.raises(UserError, match=r"no text could be read: empty file, first at a.de"):
        texts(corpus(alone, {"a.de": ""}, monolingual=True, split={"by": "text", "test": 0, "dev": 0}))


def test_other_encodings_are_told(corpus: Any) -> None:
    for encoding in ("utf-16-le", "utf-16-be"):
        files = {"de-en.tsv": "\ufeffEins\tone\n".encode(encoding)}
        with pytest.raises(UserError, match=r"no pair could be read: de-en.tsv: it is UTF-16, and must be converted"):
            texts(corpus(PAIRS, files))


def test_one_damaged_file_of_columns_that_are_found_by_name_leaves_the_others(corpus: Any) -> None:
    files = {"a.jsonl.gz": b"no", "b.jsonl.gz": gzip.compress(b'{"de": "Eins", "en": "one"}')}
    source = corpus({"kind": "jsonl", "files": "{component}.jsonl.gz"}, files)
    assert texts(source) == [("one", {"de": "Eins"})]
    assert source.unreadable == ["a.jsonl.gz: Not a gzipped file (b'no')"]


def test_what_is_left_out_is_counted_anew_with_every_reading(corpus: Any) -> None:
    files = {"a.jsonl.gz": b"no", "b.jsonl": '{"de": "Eins", "en": "one"}\n[]', "c.jsonl": ""}
    with corpus({"kind": "jsonl", "files": ["{component}.jsonl.gz", "{component}.jsonl"]}, files) as source:
        for _ in "again":
            assert len(list(source.rows(source.languages))) == 1
            assert source.unreadable == ["a.jsonl.gz: Not a gzipped file (b'no')"]
            assert source.skipped == {
                "empty file, first at c.jsonl": 1,
                "line that is no JSON object, first at b.jsonl:2": 1,
            }


def test_many_damages_are_told_in_one_short_line(corpus: Any) -> None:
    files = {f"{code}-en.tsv.gz": b"no" for code in ("de", "fr", "sv", "it", "es")}
    source = corpus({"kind": "tsv", "files": "{source}-{target}.tsv.gz"}, files)
    with pytest.raises(UserError, match=r"de-en.*; es-en.*; fr-en[^;]*; and 2 more$"):
        texts(source)


# Rows that are not used


def test_rows_that_are_not_used_are_counted(corpus: Any, tmp_path: Path) -> None:
    values: list[dict[str, Any]] = [
        {"de": "Eins", "en": "one", "fr": "un"},
        {"de": None, "en": "null"},
        {"de": 5, "en": "five", "fr": "cinq"},
        {"en": "no key"},
        {"de": "kein Schlüssel", "fr": "pas de clef"},
        {"de": ["Zwei"], "en": "list"},
    ]
    files = {"x.jsonl": "\n".join(map(json.dumps, values))}
    source = corpus({"kind": "jsonl", "files": "x.jsonl"}, files)
    assert texts(source) == [("one", {"de": "Eins", "fr": "un"}), ("five", {"fr": "cinq"})]
    assert source.skipped == {
        "row without text on a side, first at x.jsonl:2": 3,
        "row with a value that is no text, first at x.jsonl:3": 2,
    }
    # A row for other languages than the wanted one is no loss.
    source = corpus({"kind": "jsonl", "files": "x.jsonl"}, {"x.jsonl": json.dumps({"en": "one", "fr": "un", "de": 1})})
    with pytest.raises(StopIteration):
        next(source.rows(["sv"]))
    make_parquet(tmp_path / "n.parquet", {"de": ["Eins", None, "Drei"], "en": [1, 2, 3]})
    source = corpus({"kind": "parquet", "files": "n.parquet", "columns": {"de": "de", "en": "en"}}, {})
    assert texts(source) == []
    assert source.skipped == {"row with a value that is no text, first at n.parquet:1": 3}
    read = {"kind": "jsonl", "files": "m.jsonl", "columns": {"de": "text"}}
    lines = [{"text": "Eins"}, {"text": None}, {"text": ""}]
    source = corpus(read, {"m.jsonl": "\n".join(map(json.dumps, lines))}, monolingual=True)
    assert texts(source) == [("Eins", {})]
    assert source.skipped == {"row without text on a side, first at m.jsonl:2": 2}


def test_texts_of_a_database_that_are_none_are_counted(corpus: Any, tmp_path: Path) -> None:
    with contextlib.closing(sqlite3.connect(tmp_path / "x.db")) as database, database:
        database.execute("create table t (language, component, key, text)")
        rows = [("en", 1, "one"), ("de", 1, "eins"), ("en", 2, "two"), ("de", 2, None), ("en", 3, 3), ("de", 3, b"x")]
        database.executemany("insert into t values (?, 1, ?, ?)", rows)
    read = {"kind": "sqlite", "files": "x.db", "key_language": "en", "query": "select * from t"}
    source = corpus(read, {})
    assert texts(source) == [("one", {"de": "eins"}), ("two", {}), ("3", {})]
    assert source.skipped == {"text that is NULL or a BLOB, first at de 1 2": 2}


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        (r"a\tb\nc\\d\"e\?f\'g", "a\tb\nc\\d\"e?f'g"),
        (r"C:\New\Ordner \d \%", r"C:\New\Ordner \d \%"),
        (r"Schl\303\274ssel \x41\x42", "Schlüssel AB"),
        ("line\u2028separator \x85 \x0c feed", "line\u2028separator \x85 \x0c feed"),
        ('one" "two', "onetwo"),
        (r'a "word" inside', 'a "word" inside'),
    ],
)
def test_strings_of_catalogues(written: str, meant: str) -> None:
    content = (
        f'msgid "first"\r\nmsgstr "x"\r\n\r\nmsgid "text"\r\nmsgstr "{written}"\r\n\r\nmsgid "last"\r\nmsgstr "y"\r\n'
    )
    assert [pair for message in read_catalogue(content.encode()) for pair in message.pairs()] == [
        ("first", "x"),
        ("text", meant),
        ("last", "y"),
    ]


def test_numbers_in_strings_of_catalogues_are_bytes_of_their_encoding() -> None:
    header = r'msgid ""' + "\n" + r'msgstr "Content-Type: text/plain; charset=ISO-8859-1\n"' + "\n\n"
    content = header + 'msgid "key"\n' + r'msgstr "Schl\374ssel"' + "\n"
    assert list(read_catalogue(content.encode())[0].pairs()) == [("key", "Schlüssel")]


# Columns and codes that are not there


@pytest.mark.parametrize(
    ("read", "files", "message"),
    [
        (
            {"kind": "jsonl", "files": "x.jsonl", "columns": {"de": "german", "en": "en"}},
            {"x.jsonl": '{"de": "Eins", "en": "one"}\n{"en": "two", "note": 1}\n'},
            r"x.jsonl has no column german; its columns are de, en, note; say under read: which",
        ),
        (
            {"kind": "jsonl", "files": "{source}-{target}.jsonl"},
            {"de-en.jsonl": '{"de": "Eins", "fr": "un"}'},
            r"de-en.jsonl has no column source and target, nor de and en; its columns are de, fr",
        ),
        (
            {"kind": "tsv", "files": "x.tsv", "columns": {"de": 0, "en": 7}},
            {"x.tsv": "Eins\tone\nZwei\ttwo\tx\n"},
            r"x.tsv has no column 7; its columns are 0, 1, 2;",
        ),
        (
            {"kind": "tsv", "files": "x.tsv", "header": True, "columns": {"de": "German", "en": "en"}},
            {"x.tsv": "german\ten\nEins\tone\n"},
            r"x.tsv has no column German; its columns are german, en;",
        ),
        (
            {"kind": "tsv", "files": "x.tsv", "header": True, "columns": {"de": 0, "en": 2}},
            {"x.tsv": "german\ten\nEins\tone\n"},
            r"x.tsv has no column 2; its columns are german, en;",
        ),
        (
            {"kind": "tsv", "files": "x.tsv", "header": True},
            {"x.tsv": "Wort\tword\nEins\tone\n"},
            r"x.tsv has no column of two languages; its columns are Wort, word",
        ),
        (
            {"kind": "jsonl", "files": "x.jsonl", "component": "doc"},
            {"x.jsonl": '{"de": "Eins", "en": "one"}'},
            r"x.jsonl has no column doc;",
        ),
        (
            {"kind": "tsv", "files": "x.tsv", "columns": {"de": "german", "en": "english"}},
            {},
            r"toy.yaml:\d+: read: column 'german' has a name: say header: true, or its number from 0$",
        ),
    ],
)
def test_columns_that_a_file_does_not_have(read: Any, files: Any, message: str, corpus: Any) -> None:
    with pytest.raises(UserError, match=message) as raised:
        texts(corpus(read, files))
    assert "\n" not in str(raised.value)


def test_columns_that_parquet_does_not_have(corpus: Any, tmp_path: Path) -> None:
    nothing = [{"de": None, "en": "one"}]  # the column is there, though there is nothing in it
    make_parquet(tmp_path / "x.parquet", {"translation": nothing, "note": [1]})
    read = {"kind": "parquet", "files": "x.parquet"}
    assert texts(corpus(read | {"columns": {"de": "translation.de", "en": "translation.en"}}, {})) == []
    with pytest.raises(UserError, match=r"x.parquet has no column german; its columns are translation, transl"):
        texts(corpus(read | {"columns": {"de": "german", "en": "translation.en"}}, {}))


def test_columns_of_json_lines_need_not_be_in_the_first_record(corpus: Any) -> None:
    lines = [{"en": "alone"}, {"en": "one", "de": "Eins"}]
    files = {"x.jsonl": "\n".join(map(json.dumps, lines))}
    assert texts(corpus({"kind": "jsonl", "files": "x.jsonl"}, files)) == [("one", {"de": "Eins"})]
    late = "\n".join(map(json.dumps, [lines[0]] * 300 + [lines[1]]))
    read = {"kind": "jsonl", "files": "x.jsonl", "columns": {"de": "de", "en": "en"}}
    assert texts(corpus(read, {"x.jsonl": late})) == [("one", {"de": "Eins"})]


def test_files_of_unknown_languages_only(corpus: Any) -> None:
    with pytest.raises(UserError, match=r"two languages that belongs together; unknown codes of languages: qqx; say"):
        corpus(PAIRS, {"qqx-en.tsv": "x\ty\n"})
    with pytest.raises(UserError, match=r"there is no catalogue among {language}.po in .*; unknown codes .*: qqx; say"):
        corpus({"kind": "gettext", "files": "{language}.po"}, {"qqx.po": 'msgid "a"\nmsgstr "b"\n'})
    with pytest.raises(UserError, match=r"no file has text of a language; unknown codes of languages: qqx; say"):
        corpus({"kind": "text", "files": "x.{language}"}, {"x.qqx": "x\n"}, monolingual=True)


# Patterns


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ("{lang}.tsv", r"toy.yaml:\d+: read.files: '{lang}.tsv' has {lang}, which is none of {language}, {component}"),
        (["a.tsv", "{lang}.tsv"], r"read.files: '{lang}.tsv' has {lang}, which is none"),
        (5, r"read.files: a path is needed, or a list of paths, not 5$"),
        ([], r"read.files: a path is needed, or a list of paths, not \(\)$"),
        ("", r"read.files: a path is needed, or a list of paths, not ''$"),
    ],
)
def test_wrong_patterns(files: Any, message: str, corpus: Any) -> None:
    with pytest.raises(UserError, match=message) as raised:
        corpus(READ | {"files": files}, {})
    assert str(raised.value).count("read.files") == 1


def test_where_files_were_looked_for(corpus: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for read, what in (
        (PAIRS, "there is no file like {source}-{target}.tsv"),
        ({"kind": "gettext", "files": "{language}.po"}, "there is no catalogue among {language}.po"),
        ({"kind": "json_tables", "files": "{language}.json", "key_language": "en"},
         "there is no en table among {language}.json"),
    ):  # fmt: skip
        with pytest.raises(UserError) as raised:
            corpus(read, {})
        assert str(raised.value) == f"corpus toy: {what} in {tmp_path}"
    obtain = {"kind": "files", "folder": str(tmp_path / "gone")}
    with pytest.raises(UserError, match=rf"like {{source}}-{{target}}.tsv in {tmp_path}/gone, which is no folder$"):
        corpus(PAIRS, {}, obtain=obtain)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match=rf"like {{source}}-{{target}}.tsv in {tmp_path}$"):
        corpus(PAIRS, {}, obtain={"kind": "files"})
    assert Tsv(kind="tsv", files="a.tsv").patterns == ("a.tsv",)
