"""All texts of a file in any languages, read by the ending of its name: for test sets that are kept out of training.

What cannot be read is refused: read as lines, a file of another form would give pieces of texts, or none.
"""

import contextlib
import csv
import io
import itertools
import json
import re
from collections.abc import Callable, Collection, Iterable, Iterator
from typing import IO, Any

from nmt.corpora.readers.compressed import decompressed, stem
from nmt.corpora.readers.delimited import usual_width
from nmt.corpora.readers.files import canonical_code, check_line_ends
from nmt.corpora.readers.quoting import are_all_quoted, mark_quoted
from nmt.corpora.readers.wmt_text import is_wmt, read_wmt
from nmt.corpora.readers.xml_stream import inline_text, stream_elements
from nmt.errors import UserError

_HEAD = 4096
_MOST_CHARACTERS = 1 << 27  # of a quoted cell
_BOM = b"\xef\xbb\xbf"
_HEADINGS = {"source", "target", "text", "sentence", "id", "sourceString", "targetString"}
_LETTER = re.compile(r"[^\W\d_]")
_MARKUP = re.compile(rb"\s*<(\?xml|!doctype|[a-z]+[\s>])", re.IGNORECASE)
_JSON = re.compile(rb"\s*(\[\s*[\[{\"]|\{\s*\")")


def text_form(name: str, head: bytes = b"") -> str:
    """Return how the texts of a file are read, a key of `_FORMS`.

    Args:
      name: its name; the ending of its compression does not count.
      head: its first bytes, decompressed.

    Raises:
      ValueError: it is not read; the message says why.
    """
    ending = stem(name).rpartition("/")[2].rpartition(".")[2].lower()
    if ending in _UNREAD:
        raise ValueError(f".{ending} is not read: give its text in a form that is ({READABLE})")
    form = _ENDINGS.get(ending, "lines")
    if form in ("lines", "wmt"):
        if is_wmt(head):
            return "wmt"
        _check_lines(form, head)
    return form


def _check_lines(form: str, head: bytes) -> None:
    if form == "wmt":
        raise ValueError("it is no test set of WMT (srcset, refset or dataset), and other .sgm and .xml is not read")
    for content, kind in _MAGIC.items():
        if head.startswith(content):
            raise ValueError(f"it is {kind}, which is not read: give its text in a form that is ({READABLE})")
    if b"\0" in head:
        raise ValueError(f"it is no text: give it in a form that is read ({READABLE})")
    if _MARKUP.match(head):
        raise ValueError("it is not plain text but markup: give its text, or the ending that says what it is")
    if _JSON.match(head):
        raise ValueError("it is not plain text but JSON: its name is to end in .json or .jsonl")


def file_texts(raw: IO[bytes], name: str) -> Iterator[str]:
    """Yield the texts of an open file, of every language and reference; headings, and numbers in tables, are none.

    Args:
      raw: the file, compressed or not.
      name: its name.

    Raises:
      ValueError: it is not read, or damaged; the other errors of `tree.UNREADABLE` as well.
      UserError: a package is needed that is not installed.
    """
    with decompressed(raw, name) as opened:
        buffered = io.BufferedReader(_Rest(opened))
        head = buffered.peek(_HEAD)[:_HEAD].removeprefix(_BOM)
        for text in _FORMS[text_form(name, head)](buffered):
            if text and not text.isspace():
                yield text


class _Rest(io.RawIOBase):
    """An open file that only reads, so that its beginning can be looked at."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file

    def readable(self) -> bool:
        """Return True: it can be read."""
        return True

    def readinto(self, buffer: Any) -> int:
        """Read into a buffer; return how many bytes there were."""
        content = self._file.read(len(buffer))
        buffer[: len(content)] = content
        return len(content)


def _lines(file: IO[bytes]) -> Iterator[str]:
    for number, line in enumerate(file, start=1):
        if number == 1:
            check_line_ends(line)
        try:
            yield (line.removeprefix(_BOM) if number == 1 else line).decode().rstrip("\r\n")
        except UnicodeDecodeError:
            raise ValueError(f"line {number:,} is not UTF-8") from None


def _tsv(file: IO[bytes]) -> Iterator[str]:
    """Yield the cells of tab-separated text, in quotes or not, as the file looks."""
    lines = list(_lines(file))
    rows = [(number, line.split("\t")) for number, line in enumerate(lines, start=1)]
    looks_quoted = are_all_quoted(rows) or any(sign for _, sign in mark_quoted(rows, usual_width(rows)))
    cells = _quoted_cells(lines, "\t") if looks_quoted else (row for _, row in rows)
    return itertools.chain.from_iterable(_drop_heading(cells))


def _csv(file: IO[bytes]) -> Iterator[str]:
    lines = _lines(file)
    first = next(lines, "")
    cells = _quoted_cells(itertools.chain([first], lines), max(",;\t", key=first.count))
    return _keep_letters(itertools.chain.from_iterable(_drop_heading(cells)))


def _quoted_cells(lines: Iterable[str], delimiter: str) -> Iterator[list[str]]:
    before = csv.field_size_limit(_MOST_CHARACTERS)  # of the whole process, so others get theirs back
    try:
        yield from csv.reader((f"{line}\n" for line in lines), delimiter=delimiter, strict=True)
    except csv.Error as error:
        raise ValueError(str(error)) from None
    finally:
        csv.field_size_limit(before)


def _drop_heading(rows: Iterable[list[str]]) -> Iterator[list[str]]:
    """Yield the rows of a table but a first one that names languages or columns that tables of text have."""
    for number, row in enumerate(rows):
        if number or not any(cell in _HEADINGS or canonical_code(cell) for cell in row):
            yield row


def _keep_letters(texts: Iterable[str]) -> Iterator[str]:
    return (text for text in texts if _LETTER.search(text))


def _jsonl(file: IO[bytes]) -> Iterator[str]:
    for number, line in enumerate(_lines(file), start=1):
        try:
            yield from _strings(json.loads(line) if line.strip() else None)
        except ValueError as error:
            raise ValueError(f"line {number:,} is not JSON: {error}") from None


def _json(file: IO[bytes]) -> Iterator[str]:
    try:
        yield from _keep_letters(_strings(json.load(file)))
    except ValueError as error:
        raise ValueError(f"it is not JSON: {error}") from None


def _strings(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict | list):
        for part in value.values() if isinstance(value, dict) else value:
            yield from _strings(part)


def _parquet(file: IO[bytes]) -> Iterator[str]:
    with contextlib.suppress(ImportError):
        import pyarrow.parquet

        for batch in pyarrow.parquet.ParquetFile(io.BytesIO(file.read())).iter_batches():
            yield from _keep_letters(_strings(batch.to_pylist()))
        return
    raise UserError("Parquet needs pyarrow: pip install 'nmt-moe[parquet]'")


def _elements(roots: Collection[str], names: Collection[str]) -> Callable[[IO[bytes]], Iterator[str]]:
    """Return a function that yields the text of some elements of an XML file, without markup."""

    def texts(file: IO[bytes]) -> Iterator[str]:
        return (inline_text(one.element) for one in stream_elements(file, roots, names))

    return texts


def _wmt(file: IO[bytes]) -> Iterator[str]:
    for side in read_wmt(file):
        yield from side.segments.values()


_FORMS: dict[str, Callable[[IO[bytes]], Iterator[str]]] = {
    "lines": _lines,
    "tsv": _tsv,
    "csv": _csv,
    "jsonl": _jsonl,
    "json": _json,
    "parquet": _parquet,
    "wmt": _wmt,
    "tmx": _elements(("tmx",), ("seg",)),
    "xliff": _elements(("xliff",), ("source", "target")),
    "tbx": _elements(("martif", "tbx"), ("term",)),
}
# Files with other endings are lines of text, if they look like it: test.de, deu_Latn.devtest, test.en.ref0.
_ENDINGS = {
    "tsv": "tsv", "csv": "csv", "jsonl": "jsonl", "ndjson": "jsonl", "json": "json", "parquet": "parquet",
    "sgm": "wmt", "sgml": "wmt", "xml": "wmt",
    "tmx": "tmx", "xlf": "xliff", "xliff": "xliff", "sdlxliff": "xliff", "tbx": "tbx",
}  # fmt: skip
# Endings of text that would be taken for lines.
_UNREAD = {"po", "html", "htm", "strings", "properties", "ftl", "srt", "vtt", "yaml", "yml"}
READABLE = "lines of text, .tsv, .csv, .jsonl, .json, .parquet, .tmx, .xlf, .tbx, .sgm and .xml of WMT"
_MAGIC = {
    b"PK\x03\x04": "a zip archive or a document of an office suite",
    b"%PDF": "a PDF",
    b"\xff\xfe": "UTF-16",
    b"\xfe\xff": "UTF-16",
    b"\x1f\x8b": "gzip without .gz in its name",
    b"\xfd7zXZ": "xz without .xz in its name",
    b"PAR1": "Parquet without .parquet in its name",
    b"SQLite format": "a database",
}
