"""CSV and tab-separated text: quoting, names of columns, rows that cannot be divided, and first lines."""

import csv
import functools
import io
import random
from pathlib import Path
from typing import Any

import pytest
from toy_corpus import open_files, texts

from nmt.corpora.readers import quoting
from nmt.corpora.readers.quoting import NumberedLine, quoted_rows
from nmt.errors import UserError

CSV = {"kind": "csv", "files": "x.csv"}
TSV = {"kind": "tsv", "files": "x.tsv"}
NUMBERS = {"columns": {"de": 0, "en": 1}}


@pytest.fixture
def corpus(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setenv("NMT_CACHE", str(tmp_path / "cache"))
    return functools.partial(open_files, tmp_path)


def lines_of(text: str) -> Any:
    return (NumberedLine(number, line, False) for number, line in enumerate(text.splitlines(), start=1))


# Cells in quotes


def test_quoted_cells_with_breaks_delimiters_and_doubled_quotes(corpus: Any) -> None:
    rows = [
        "en,de",
        '"He said ""come in"", and left","Er sagte „herein“"',
        '"First line',
        'second line","Erste Zeile \r\n  zweite Zeile"',
        'plain, "behind a space, one cell"',
        '5" disk,Diskette',
    ]
    source = corpus(CSV, {"x.csv": ("\ufeff" + "\r\n".join(rows) + "\r\n").encode()})
    assert texts(source) == [
        ('He said "come in", and left', {"de": "Er sagte „herein“"}),
        ("First line second line", {"de": "Erste Zeile zweite Zeile"}),
        ("plain", {"de": "behind a space, one cell"}),
        ('5" disk', {"de": "Diskette"}),
    ]
    assert source.skipped == {}


@pytest.mark.parametrize("delimiter", [";", "\t", "|"])
def test_other_delimiters_and_no_row_of_names(delimiter: str, corpus: Any) -> None:
    read = CSV | NUMBERS | {"delimiter": delimiter, "header": False}
    content = f'"Eins{delimiter} zwei"{delimiter}one, two\nDrei{delimiter}three\n'
    assert texts(corpus(read, {"x.csv": content})) == [
        ("one, two", {"de": f"Eins{delimiter} zwei"}),
        ("three", {"de": "Drei"}),
    ]


def test_rows_are_those_of_the_standard_library_where_it_can_read_them() -> None:
    generator = random.Random(5)
    for _ in range(200):
        table = [
            ["".join(generator.choices('ab ",;\n', k=generator.randrange(1, 9))).strip() or "x" for _ in range(3)]
            for _ in range(5)
        ]
        written = io.StringIO()
        csv.writer(written, lineterminator="\n").writerows(table)
        rows = list(quoted_rows(lines_of(written.getvalue()), ","))
        assert [row.cells for row in rows] == [[" ".join(cell.split("\n")) for cell in row] for row in table] or any(
            "\n" in cell for row in table for cell in row
        )
        assert [row.problem for row in rows] == [""] * 5


def test_a_quote_that_is_never_closed_loses_its_line_only(corpus: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    content = 'de,en\n"Eins,one\nZwei,two\n"Drei",three\n"Vier" x,four\nFünf,five\n'
    source = corpus(CSV, {"x.csv": content})
    # The quote of line 2 is closed by that of line 4, behind which text stands.
    assert texts(source) == [("two", {"de": "Zwei"}), ("three", {"de": "Drei"}), ("five", {"de": "Fünf"})]
    assert source.skipped == {"row with text behind a closing quote, first at x.csv:2": 2}
    monkeypatch.setattr(quoting, "_MOST_CHARACTERS", 50)
    many = 'de,en\n"Eins,one\n' + "Zwei,two\n" * 100
    source = corpus(CSV, {"x.csv": many})
    assert texts(source) == [("two", {"de": "Zwei"})] * 100
    assert source.skipped == {"row with a quote that is never closed, first at x.csv:2": 1}


def test_quotes_behind_a_backslash(corpus: Any) -> None:
    content = 'de,en\n"Er sagte \\"ja\\", laut","He said \\"yes\\", loudly"\n'
    assert texts(corpus(CSV | {"escape": "\\"}, {"x.csv": content})) == [
        ('He said "yes", loudly', {"de": 'Er sagte "ja", laut'})
    ]
    source = corpus(CSV, {"x.csv": content})
    assert texts(source) == []
    assert source.skipped == {"row with text behind a closing quote, first at x.csv:2": 1}


def test_a_line_that_is_not_utf8_costs_the_row_that_it_stands_in(corpus: Any) -> None:
    content = b'de,en\n"Eins\nb\xffroken","one"\nZwei,two\n'
    source = corpus(CSV, {"x.csv": content})
    assert texts(source) == [("two", {"de": "Zwei"})]
    assert source.skipped == {"line that is not UTF-8, first at x.csv:3": 1}


def test_the_line_by_which_excel_names_the_delimiter(corpus: Any) -> None:
    content = "sep=;\nde;en\nEins;one\n"
    assert texts(corpus(CSV | {"delimiter": ";"}, {"x.csv": content})) == [("one", {"de": "Eins"})]
    with pytest.raises(UserError, match=r'x.csv says sep=;: say under read: delimiter: ";"'):
        corpus(CSV, {"x.csv": content})


@pytest.mark.parametrize(
    ("read", "content", "message"),
    [
        (CSV, "de;en\nEins;one\n", r'its columns are de;en; its lines have no comma: say under read: delimiter: ";"'),
        (TSV | {"header": True}, "de,en\n", r'no tab: say under read: kind: csv and delimiter: ","'),
        (TSV | NUMBERS, "Eins;one\n", r'no tab: say under read: kind: csv and delimiter: ";"'),
        (CSV, "id,translation\na,\"{'de': 'Eins'}\"\n", r"if cells of translation are mappings, .* JSON lines"),
        (CSV, "Das ist ein Haus.,This is a house.\n", r"if the first line is text, say under read: header: false"),
        (CSV | {"columns": {"de": "text", "en": "en"}}, "text,text,en\n", r"columns 0 and 1 are called text; give"),
        (CSV | {"delimiter": '"'}, "", r"read: delimiter: '\"' cannot stand between cells"),
        (CSV | {"delimiter": ",,"}, "", r"read.delimiter: String should have at most 1 character"),
        (CSV | {"header": False, "columns": {"de": "de"}}, "", r"column 'de' has a name: say header: true"),
        (CSV | {"header": False}, "Eins,one\n", r"say under read: which columns have which language"),
        (CSV, b"", r"no pair could be read: empty file, first at x.csv"),
    ],
)
def test_csv_that_cannot_be_used(read: Any, content: Any, message: str, corpus: Any) -> None:
    with pytest.raises(UserError, match=message) as raised:
        texts(corpus(read, {read["files"]: content}))
    assert "\n" not in str(raised.value)


# Tab-separated text, whose quotes are text

QUOTED = (
    'en\tde\n"He said ""come in"" and left"\tEr sagte „herein“\n'
    '"First line\nsecond line"\t"Erste Zeile\nzweite Zeile"\n'
    "The red door\tDie rote Tür\n"
)


def test_a_quoted_file_is_an_error_until_it_is_said_to_be_quoted(corpus: Any) -> None:
    read = TSV | {"header": True}
    with pytest.raises(UserError, match=r"x.tsv:2 looks like a row whose cells are quoted; say under read: quoted: tr"):
        corpus(read, {"x.tsv": QUOTED})
    with pytest.raises(UserError, match=r"x.tsv:1 looks like a row whose cells are quoted"):
        corpus(read, {"x.tsv": '"en"\t"de"\n"one"\t"Eins"\n'})
    for section in (read | {"quoted": True}, CSV | {"files": "x.tsv", "delimiter": "\t"}):
        assert texts(corpus(section, {"x.tsv": QUOTED})) == [
            ('He said "come in" and left', {"de": "Er sagte „herein“"}),
            ("First line second line", {"de": "Erste Zeile zweite Zeile"}),
            ("The red door", {"de": "Die rote Tür"}),
        ]
    assert texts(corpus(read | {"quoted": False}, {"x.tsv": QUOTED}))[0][0] == '"He said ""come in"" and left"'


def test_quotation_marks_of_text_are_text(corpus: Any) -> None:
    rows = [
        ('"Ja.', '"Yes.'),
        ('Nein", sagte sie.', 'No," she said.'),
        ('"Komm herein"', '"Come in"'),
        ('Er sagte ""', 'He said ""'),
        ('""Nein""', '""No""'),
        ('5"', '5"'),
        ('ein Wort"', '"a word'),
    ]
    source = corpus(TSV | NUMBERS, {"x.tsv": "".join(f"{de}\t{en}\n" for de, en in rows)})
    assert texts(source) == [(en, {"de": de}) for de, en in rows]
    assert source.skipped == {}


@pytest.mark.parametrize(
    ("quoted", "count"),
    [
        ('"a ""b"" c"\td\n', 1),
        ('Eins\t"one\ntwo"\n', 2),
        ('"Eins\nzwei"\t"one\ntwo"\n', 3),
        ('"Eins\n\nzwei"\tone\n', 3),
    ],
)
def test_later_lines_that_look_quoted_are_left_out_and_counted(quoted: str, count: int, corpus: Any) -> None:
    plain = "Haus\thouse\n"
    source = corpus(TSV | NUMBERS, {"x.tsv": plain * 150 + quoted + plain})
    assert texts(source) == [("house", {"de": "Haus"})] * 151
    what = "line that looks quoted (say quoted: true, or quoted: false if quotes are text), first at x.tsv:151"
    assert source.skipped == {what: count}


def test_rows_of_other_widths(corpus: Any) -> None:
    names = "id\tde\ten\n"
    source = corpus(TSV | {"header": True}, {"x.tsv": f"{names}7\tEins\tone\n8\tmit\tTab\ttwo\n9\tDrei\n"})
    assert texts(source) == [("one", {"de": "Eins"})]
    assert {
        "line with too many columns, first at x.tsv:3": 1,
        "line with too few columns, first at x.tsv:4": 1,
    }.items() <= source.skipped.items()
    # Without names, most of the first lines say how many cells a row has.
    lines = "a\tb\tc\n" + "Eins\tone\n" * 5 + "mit\tTab\ttwo\n"
    source = corpus(TSV | NUMBERS, {"x.tsv": lines})
    assert texts(source) == [("one", {"de": "Eins"})] * 5
    assert source.skipped == {"line with too many columns, first at x.tsv:1": 2}


# First lines


@pytest.mark.parametrize("first", ["source\ttarget", "de\ten", "src\ttrg", "German\tEnglish", "deu_Latn\teng"])
def test_a_first_line_of_names_is_no_text(first: str, corpus: Any) -> None:
    files = {"de-en.tsv": f"{first}\nEins\tone\n"}
    source = corpus({"kind": "tsv", "files": "{source}-{target}.tsv"}, files)
    assert texts(source) == [("one", {"de": "Eins"})]
    assert source.skipped == {"first line that names the columns (say header: true), first at de-en.tsv:1": 1}


@pytest.mark.parametrize("first", ["target\tsource", "en\tde", "id\tsource", "English\tGerman"])
def test_a_first_line_that_says_that_the_columns_are_others_is_an_error(first: str, corpus: Any) -> None:
    files = {"de-en.tsv": f"{first}\nEins\tone\n"}
    with pytest.raises(UserError, match=r"de-en.tsv:1 names these columns .*, but by the declaration .*header: true"):
        texts(corpus({"kind": "tsv", "files": "{source}-{target}.tsv"}, files))
    named = {"x.tsv": "en\tde\none\tEins\n"}
    with pytest.raises(UserError, match=r"the first line of x.tsv names these columns .*, but by the declaration"):
        texts(corpus(TSV | NUMBERS | {"header": True}, named))


@pytest.mark.parametrize("first", ["German\tDeutsch", "no\tnein", "it\tes", "text\tText", "he\ter", "Quelle\tsource"])
def test_a_first_line_of_a_dictionary_is_text(first: str, corpus: Any) -> None:
    left, right = first.split("\t")
    source = corpus({"kind": "tsv", "files": "{source}-{target}.tsv"}, {"en-de.tsv": f"{first}\none\tEins\n"})
    assert texts(source) == [(left, {"de": right}), ("one", {"de": "Eins"})]
    assert source.skipped == {}


def test_text_that_is_taken_for_names_is_counted(corpus: Any) -> None:
    content = "Das ist ein Haus.\tThis is a house.\nEins\tone\n"
    source = corpus(TSV | NUMBERS | {"header": True}, {"x.tsv": content})
    assert texts(source) == [("one", {"de": "Eins"})]
    what = "first line that is taken for names of columns and reads as text (header: true), first at x.tsv:1"
    assert source.skipped == {what: 1}


@pytest.mark.parametrize(
    ("names", "row"),
    [
        ("id\tsource\ttarget", "1\tEins\tone"),
        ("tgt\tsrc", "one\tEins"),
        ("en\tde", "one\tEins"),
        ("id\ten\tde", "1\tone\tEins"),
        ("source\tde\ten", "books\tEins\tone"),
        ("left\tright", "Eins\tone"),
    ],
)
def test_columns_of_a_direction_go_by_their_names(names: str, row: str, corpus: Any) -> None:
    read = {"files": "{source}-{target}.tsv", "header": True}
    source = corpus({"kind": "tsv", **read}, {"de-en.tsv": f"{names}\n{row}\n"})
    assert texts(source) == [("one", {"de": "Eins"})]


@pytest.mark.parametrize(
    ("names", "message"),
    [
        ("a\tb\tc", r"de-en.tsv has no column source and target, nor de and en; its columns are a, b, c"),
        ("source\ttarget\tde\ten", r"has 4 columns for both sides: source and target and de and en; say under read:"),
        ("source\tsrc\ttarget", r"has 2 columns of the source: source and src; say under read:"),
        ("source\ten", r"has no column source and target, nor de and en"),
    ],
)
def test_names_that_do_not_tell_the_sides(names: str, message: str, corpus: Any) -> None:
    row = "\t".join("Haus" for _ in names.split("\t"))
    read = {"kind": "tsv", "files": "{source}-{target}.tsv", "header": True}
    with pytest.raises(UserError, match=message):
        texts(corpus(read, {"de-en.tsv": f"{names}\n{row}\n"}))
