"""The promises that every reader keeps: order, bounded memory, damage with its place, unknown codes, single texts."""

import html
import json
import sqlite3
import tracemalloc
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from test_corpus_forms import PAIR, make_dataset, make_example
from toy_corpus import make_arrow, make_parquet, open_files

from nmt.corpora.readers.kinds import READER_KINDS
from nmt.errors import UserError

PARTS = ("a", "b", "c")
UNKNOWN = "qqq"
ARROW = "data-00000-of-00001.arrow"

Texts = dict[str, dict[str, list[str]]]  # by component and language


@dataclass(frozen=True)
class Case:
    """How a corpus of one kind is written.

    Attributes:
      read: the section of the declaration.
      write: writes texts into a folder.
      damage: makes some text of component b unusable; returns a piece of the note that names the place.
      changes: other keys of the declaration, given the folder.
      unknown: whether a code of a language can be unknown.
      index: bytes that an index of the corpus may hold for each row; its texts are on the disk.
    """

    read: dict[str, Any]
    write: Callable[[Path, Texts], None]
    damage: Callable[[Path], str]
    changes: dict[str, Any] = field(default_factory=dict)
    unknown: bool = True
    index: int = 0


def put(path: Path, content: bytes | str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content.encode() if isinstance(content, str) else content)


def by_language(form: str, encode: Callable[[list[str], list[str]], bytes | str]) -> Callable[[Path, Texts], None]:
    """Write a file for each component and language."""

    def write(folder: Path, texts: Texts) -> None:
        for part, languages in texts.items():
            for code, lines in languages.items():
                put(folder / form.format(part=part, code=code), encode(languages["en"], lines))

    return write


def pages(_: list[str], lines: list[str]) -> str:
    return "".join(f'<p id="p{n:06}">{html.escape(line)}</p>' for n, line in enumerate(lines))


def table(_: list[str], lines: list[str]) -> str:
    return json.dumps({f"k{n:06}": line for n, line in enumerate(lines)})


def plain(_: list[str], lines: list[str]) -> str:
    return "".join(f"{line}\n" for line in lines)


def catalogue(keys: list[str], lines: list[str]) -> str:
    return "".join(f'msgid "{key}"\nmsgstr "{line}"\n\n' for key, line in zip(keys, lines, strict=True))


def descriptions(_: list[str], lines: list[str]) -> str:
    stanzas = (f"Package: p{n:06}\nDescription-md5: {n}\nDescription-xx: {line}\n" for n, line in enumerate(lines))
    return "\n".join(stanzas)


def properties(_: list[str], lines: list[str]) -> str:
    return "".join(f"k{n:06}={line}\n" for n, line in enumerate(lines))


def columns(
    name: str, header: Callable[[list[str]], str], row: Callable[[dict[str, str]], str], footer: str = ""
) -> Any:
    def write(folder: Path, texts: Texts) -> None:
        for part, languages in texts.items():
            rows = (dict(zip(languages, cells, strict=True)) for cells in zip(*languages.values(), strict=True))
            put(folder / name.format(part=part), header([*languages]) + "".join(map(row, rows)) + footer)

    return write


def memory(codes: list[str]) -> str:
    return '<tmx version="1.4"><header srclang="en"/><body>'


def memory_unit(row: dict[str, str]) -> str:
    variants = (f'<tuv xml:lang="{code}"><seg>{html.escape(text)}</seg></tuv>' for code, text in row.items())
    return f"<tu>{''.join(variants)}</tu>"


def xliff(folder: Path, texts: Texts) -> None:
    """Write a <file> for each language beside English."""
    for part, languages in texts.items():
        content = '<xliff version="1.2">'
        for code in languages.keys() - {"en"}:
            content += f'<file source-language="en" target-language="{code}"><body>'
            for line, other in zip(languages["en"], languages[code], strict=True):
                content += f"<trans-unit><source>{line}</source><target>{other}</target></trans-unit>"
            content += "</body></file>"
        put(folder / f"{part}.xlf", content + "</xliff>")


def entry(row: dict[str, str]) -> str:
    terms = (
        f'<langSet xml:lang="{code}"><tig><term>{html.escape(text)}</term></tig></langSet>'
        for code, text in row.items()
    )
    return f"<termEntry>{''.join(terms)}</termEntry>"


def comma_separated(cells: list[str]) -> str:
    quoted = ('"{}"'.format(cell.replace('"', '""')) for cell in cells)
    return ",".join(quoted) + "\n"


def json_lists(folder: Path, texts: Texts) -> None:
    for part, languages in texts.items():
        rows = [dict(zip(languages, cells, strict=True)) for cells in zip(*languages.values(), strict=True)]
        put(folder / f"{part}.json", json.dumps({"version": 1, "data": rows}, indent=1))


def cut_list(folder: Path) -> str:
    path = folder / "b.json"
    put(path, path.read_bytes()[:-40])
    return "b.json: read as far as record 4 ("


def saved_dataset(folder: Path, texts: Texts) -> None:
    for part, languages in texts.items():
        make_arrow(folder / "set" / part / "data-00000-of-00001.arrow", languages)
        put(folder / "set" / part / "state.json", json.dumps({"_data_files": [{"filename": ARROW}], "_split": part}))


def cut_stream(folder: Path) -> str:
    path = folder / "set" / "b" / ARROW
    put(path, path.read_bytes()[:-200])
    return f"set/b/{ARROW}: "


def parquet(folder: Path, texts: Texts) -> None:
    for part, languages in texts.items():
        make_parquet(folder / f"{part}.parquet", languages)


def database(folder: Path, texts: Texts) -> None:
    with sqlite3.connect(folder / "toy.db") as opened:
        opened.execute("CREATE TABLE t (language, component, key, text)")
        rows = [
            (code, part, n, line)
            for part, languages in texts.items()
            for code, lines in languages.items()
            for n, line in enumerate(lines)
        ]
        opened.executemany("INSERT INTO t VALUES (?, ?, ?, ?)", rows)
    opened.close()


def published_set(folder: Path, texts: Texts) -> None:
    for part, languages in texts.items():
        for code, lines in languages.items():
            kind = "src" if code == "en" else "ref"
            segments = "".join(f'<seg id="{n}">{line}</seg>\n' for n, line in enumerate(lines))
            content = f'<{kind}set setid="{part}" srclang="any">\n<doc docid="{part}">\n{segments}</doc></{kind}set>\n'
            put(folder / f"{part}-{kind}.{code}.sgm", content)


def dataset(folder: Path, texts: Texts) -> None:
    codes = [*next(iter(texts.values()))]
    records = {
        part: [
            make_example({code: [cell.encode()] for code, cell in zip(languages, cells, strict=True)})
            for cells in zip(*languages.values(), strict=True)
        ]
        for part, languages in texts.items()
    }
    feature = {**PAIR, "translation": {"languages": codes}}
    make_dataset(folder / "toy" / "1.0.0", feature, records, "array_record")


def alignments(folder: Path, texts: Texts) -> None:
    """Write a file a document and language, and an alignment of every language with English."""
    for part, languages in texts.items():
        for code, lines in languages.items():
            sentences = "".join(f'<s id="{n}">{html.escape(line)}</s>' for n, line in enumerate(lines))
            put(folder / "xml" / code / f"{part}.xml", f"<text>{sentences}</text>")
    for code in {*next(iter(texts.values()))} - {"en"}:
        groups = (
            f'<linkGrp fromDoc="{code}/{part}.xml.gz" toDoc="en/{part}.xml.gz">'
            + "".join(f'<link xtargets="{n};{n}"/>' for n in range(len(languages["en"])))
            + "</linkGrp>"
            for part, languages in texts.items()
        )
        put(folder / f"{code}-en.xml", f"<cesAlign>{''.join(groups)}</cesAlign>")


def sentences_and_links(folder: Path, texts: Texts) -> None:
    sentences, links, number = [], [], 0
    for languages in texts.values():
        for cells in zip(*languages.values(), strict=True):
            sentences += [
                f"{number + n}\t{code}\t{cell}\n" for n, (code, cell) in enumerate(zip(languages, cells, strict=True))
            ]
            of = dict(zip(languages, range(number, number + len(languages)), strict=True))
            links += [f"{of['en']}\t{one}\n{one}\t{of['en']}\n" for code, one in of.items() if code != "en"]
            number += len(languages)
    put(folder / "sentences.csv", "".join(sentences))
    put(folder / "links.csv", "".join(links))


def spoil(name: str, content: bytes, note: str, *, appended: bool = True) -> Callable[[Path], str]:
    """Write bytes to a file, or behind its end."""

    def damage(folder: Path) -> str:
        path = folder / name
        put(path, path.read_bytes() + content if appended else content)
        return note

    return damage


def line_of_both(folder: Path) -> str:
    spoil("texts/b.en", b"one more\n", "")(folder)
    return spoil("texts/b.de", b"\xff\n", "first at texts/b.de:6")(folder)


def null_text(folder: Path) -> str:
    with sqlite3.connect(folder / "toy.db") as opened:
        opened.execute("UPDATE t SET text = NULL WHERE language = 'de' AND component = 'b' AND key = 0")
    opened.close()
    return "first at de b 0"


def null_row(folder: Path) -> str:
    make_parquet(folder / "b.parquet", {"en": ["b text", "x"], "de": ["b Text", None]})
    return "first at b.parquet:2"


def cut_shard(folder: Path) -> str:
    path = next((folder / "toy" / "1.0.0").glob("toy-b.*"))
    path.write_bytes(path.read_bytes()[:100])
    return path.name


TSV = columns("{part}.tsv", lambda codes: "\t".join(codes) + "\n", lambda row: "\t".join(row.values()) + "\n")
CASES = {
    "json_tables": Case(
        {"kind": "json_tables", "files": "{component}/{language}.json", "key_language": "en"},
        by_language("{part}/{code}.json", table),
        spoil("b/de.json", b"{", "b/de.json"),
    ),
    "gettext": Case(
        {"kind": "gettext", "files": "{component}/{language}.po"},
        by_language("{part}/{code}.po", catalogue),
        spoil("b/de.po", b"\xde\x12\x04\x95", "b/de.po", appended=False),
    ),
    "html": Case(
        {"kind": "html", "files": "{component}/{language}.html", "key_language": "en", "align": "id"},
        by_language("{part}/{code}.html", pages),
        spoil("b/de.html", b"", "first at b/de.html", appended=False),
    ),
    "ddtp": Case(
        {"kind": "ddtp"},
        by_language("{part}/{code}.txt", descriptions),
        spoil("b/de.txt", b"", "first at b/de.txt", appended=False),
    ),
    "sqlite": Case(
        {"kind": "sqlite", "files": "toy.db", "key_language": "en", "query": "SELECT * FROM t"}, database, null_text
    ),
    "parallel_text": Case(
        {"kind": "parallel_text", "files": "texts/{component}.{language}"},
        by_language("texts/{part}.{code}", plain),
        line_of_both,
    ),
    "text": Case(
        {"kind": "text", "files": "texts/{component}.{language}"},
        by_language("texts/{part}.{code}", plain),
        spoil("texts/b.de", b"\xff\n", "first at texts/b.de:6"),
        {"monolingual": True},
    ),
    "tsv": Case({"kind": "tsv", "files": "{component}.tsv", "header": True}, TSV, spoil("b.tsv", b"\xff\n", "b.tsv:")),
    "jsonl": Case(
        {"kind": "jsonl", "files": "{component}.jsonl"},
        columns("{part}.jsonl", lambda _: "", lambda row: json.dumps(row) + "\n"),
        spoil("b.jsonl", b"{\n", "first at b.jsonl:"),
    ),
    "csv": Case(
        {"kind": "csv", "files": "{component}.csv"},
        columns("{part}.csv", comma_separated, lambda row: comma_separated([*row.values()])),
        spoil("b.csv", b'"never closed,\n', "row with a quote that is never closed, first at b.csv:"),
    ),
    "json": Case({"kind": "json", "files": "{component}.json"}, json_lists, cut_list),
    "arrow": Case({"kind": "arrow", "files": "set"}, saved_dataset, cut_stream),
    "parquet": Case({"kind": "parquet", "files": "{component}.parquet"}, parquet, null_row),
    "tfds": Case({"kind": "tfds", "files": "toy"}, dataset, cut_shard, {"obtain": "tfds"}),
    "tmx": Case(
        {"kind": "tmx", "files": "{component}.tmx"},
        columns("{part}.tmx", memory, memory_unit, "</body></tmx>"),
        spoil("b.tmx", b"<tu>", "b.tmx: read as far as unit 5 ("),
    ),
    "xliff": Case(
        {"kind": "xliff", "files": "{component}.xlf"}, xliff, spoil("b.xlf", b"<", "b.xlf: read as far as unit 5 (")
    ),
    "tbx": Case(
        {"kind": "tbx", "files": "{component}.tbx"},
        columns("{part}.tbx", lambda _: '<martif xml:lang="en"><text><body>', entry, "</body></text></martif>"),
        spoil("b.tbx", b"<", "b.tbx: read as far as unit 5 ("),
    ),
    "localisation": Case(
        {"kind": "localisation", "files": "{component}/{language}.properties"},
        by_language("{part}/{code}.properties", properties),
        spoil("b/de.properties", b"k=\\u12", "b/de.properties: Invalid"),
    ),
    "opus_xml": Case(
        {"kind": "opus_xml", "files": "{source}-{target}.xml", "sentences": "xml/{path}"},
        alignments,
        spoil("xml/de/b.xml", b"<", "xml/de/b.xml: read as far as sentence 5 ("),
    ),
    "tatoeba": Case(
        {"kind": "tatoeba", "files": "sentences.csv", "links": "links.csv"},
        sentences_and_links,
        spoil("sentences.csv", b"999\tde\t\xff\n", "first at sentences.csv:31"),
        index=120,
    ),
    "wmt": Case(
        {"kind": "wmt", "files": ["{component}-src.{language}.sgm", "{component}-ref.{language}.sgm"]},
        published_set,
        spoil("b-ref.de.sgm", b"\xff", "b-ref.de.sgm: line 9 is not UTF-8"),
    ),
    "any": Case(
        {"kind": "any", "files": "{source}-{target}/{component}.tsv"},
        columns("de-en/{part}.tsv", lambda _: "", lambda row: f"{row['de']}\t{row['en']}\n"),
        spoil("de-en/b.tsv", b"\xff\n", "first at de-en/b.tsv:"),
        unknown=False,
    ),
}  # fmt: skip
KINDS = pytest.mark.parametrize("kind", sorted(CASES))
COLUMNS = ("tsv", "csv", "jsonl", "json", "parquet", "arrow")


def make_texts(lines: int, *, unknown: bool = False, parts: tuple[str, ...] = PARTS) -> Texts:
    codes = ("de", "en", *([UNKNOWN] if unknown else []))
    return {part: {code: [f"{code} {part} {n:06} text" for n in range(lines)] for code in codes} for part in parts}


def opened(kind: str, folder: Path, **changes: Any) -> Any:
    values = {**CASES[kind].changes, **changes}
    if values.get("obtain") == "tfds":
        values["obtain"] = {"kind": "tfds", "folder": str(folder)}
    if values.get("monolingual"):
        values["split"] = {"by": "text", "test": 0, "dev": 0}
    return open_files(folder, values.pop("read", CASES[kind].read), {}, **values)


def test_every_kind_has_its_entry() -> None:
    assert set(CASES) == set(READER_KINDS)
    assert all(name == kind.section.model_fields["kind"].annotation.__args__[0] for name, kind in READER_KINDS.items())  # type: ignore[union-attr]


@KINDS
def test_texts_come_in_the_order_of_the_files(kind: str, tmp_path: Path) -> None:
    CASES[kind].write(tmp_path, make_texts(30))
    with opened(kind, tmp_path) as reader:
        assert reader.languages == ["de", "en"]
        rows = list(reader.rows({"de", "en"}))
        assert list(reader.rows({"de", "en"})) == rows
    if kind == "text":
        assert [row.text for row in rows] == [
            f"{c} {p} {n:06} text" for p in PARTS for c in ("de", "en") for n in range(30)
        ]
        return
    expected = [(f"en {part} {n:06} text", {"de": f"de {part} {n:06} text"}) for part in PARTS for n in range(30)]
    assert [(row.text, dict(row.translations)) for row in rows] == expected


@KINDS
def test_memory_does_not_grow_with_the_corpus(kind: str, tmp_path: Path) -> None:
    peaks = []
    for count in (4, 24):
        folder = tmp_path / str(count)
        folder.mkdir()
        CASES[kind].write(folder, make_texts(1000, parts=tuple(f"p{n:02}" for n in range(count))))
        with opened(kind, folder) as reader:
            tracemalloc.start()
            rows = sum(1 for _ in reader.rows({"de", "en"}))
            peaks.append(tracemalloc.get_traced_memory()[1])
            tracemalloc.stop()
        assert rows >= 1000 * count
    # A list of the rows alone would be six times as much.
    assert peaks[1] < 2 * peaks[0] + 24_000 * CASES[kind].index


@KINDS
def test_damage_is_noted_with_its_place_and_the_rest_is_read(kind: str, tmp_path: Path) -> None:
    CASES[kind].write(tmp_path, make_texts(5))
    note = CASES[kind].damage(tmp_path)
    with opened(kind, tmp_path) as reader:
        texts = [row.text for row in reader.rows({"de", "en"})]
        notes = [*reader.unreadable, *reader.skipped]
    assert any(note in one for one in notes), notes
    assert {"en a 000004 text", "en c 000004 text"} <= set(texts)


@pytest.mark.parametrize("kind", sorted(kind for kind, case in CASES.items() if case.unknown))
def test_unknown_codes_are_named_and_left_out(kind: str, tmp_path: Path) -> None:
    CASES[kind].write(tmp_path, make_texts(3, unknown=True))
    # Of names of columns only those under `columns` are said to be languages, and can be unknown ones.
    named = {"columns": {code: code for code in ("de", "en", UNKNOWN)}} if kind in COLUMNS else {}
    with opened(kind, tmp_path, read={**CASES[kind].read, **named}) as reader:
        assert reader.languages == ["de", "en"]
        assert reader.unregistered == [UNKNOWN]
        assert all(UNKNOWN not in row.text and not set(row.translations) - {"de"} for row in reader.rows({"de", "en"}))


@KINDS
def test_single_texts_where_the_form_has_them(kind: str, tmp_path: Path) -> None:
    CASES[kind].write(tmp_path, make_texts(3))
    if kind in ("parallel_text", "opus_xml", "any"):
        with pytest.raises(UserError, match=r"is of pairs: monolingual text by lines is read.kind: text"):
            opened(kind, tmp_path, monolingual=True)
        return
    with opened(kind, tmp_path, monolingual=True) as reader:
        rows = list(reader.rows({"de"}))
    assert sorted(row.text for row in rows) == [f"de {part} {n:06} text" for part in PARTS for n in range(3)]
    assert all(row.language == "de" and not row.translations for row in rows)
