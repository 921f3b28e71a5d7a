"""Test sets with one file a language, as FLORES-200, FLORES+ and NTREX-128 are published.

The sentences of a file are its lines; or the records of a .jsonl, .parquet, .csv or .tsv file with a column `text` (or
`sentence`), in the order of their `id` if they have one. A file is read when a direction needs it. Texts that were read
are kept as long as they are few enough, so that 200 files are not read once for each of 39,800 directions.
"""

import csv
import functools
import io
import json
import re
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import IO, Any, NamedTuple

from etils import epath

from nmt.corpora.readers.file_texts import text_form
from nmt.errors import UserError
from nmt.evaluate.pairs import Pair, open_plain, read_lines

KEPT_CHARACTERS = 50_000_000  # of all languages; those of FLORES-200 are 27 million

_TEXT = ("text", "sentence")
_HEAD = 4096
_SURROGATE = re.compile("[\ud800-\udfff]")  # JSON can spell half a pair


class Outline(NamedTuple):
    """The number of sentences and their ids, by which files of one test set must agree."""

    sentences: int
    ids: int | None  # hash of the ids; None: the sentences have none


@dataclass(frozen=True)
class LanguageFile:
    """A file with the text of a test set in one language."""

    path: epath.Path
    kept: "TextCache"

    def __str__(self) -> str:
        return str(self.path)

    @functools.cached_property
    def size(self) -> int:
        """The bytes of the file; asked for once, since a file is a side of many directions."""
        return int(self.path.stat().length)

    def texts(self) -> Sequence[str]:
        """Return the sentences. Raises UserError: the file cannot be read, or has a blank sentence."""
        return self.kept.texts(self.path)

    def outline(self) -> Outline:
        """Return the number of sentences and the hash of their ids; raises as `texts`."""
        return self.kept.outline(self.path)


class TextCache:
    """The texts of files, of which those that were used last are kept."""

    def __init__(self, most: int = KEPT_CHARACTERS) -> None:
        self._most = most
        self._texts: OrderedDict[epath.Path, list[str]] = OrderedDict()
        self._outlines: dict[epath.Path, Outline] = {}
        self._characters = 0

    def texts(self, path: epath.Path) -> list[str]:
        """Return the sentences of a file."""
        if path not in self._texts:
            ids, texts = _read(path)
            self._outlines[path] = Outline(len(texts), None if ids is None else hash(tuple(ids)))
            self._texts[path] = texts
            self._characters += sum(map(len, texts))
            while self._characters > self._most and len(self._texts) > 1:
                _, dropped = self._texts.popitem(last=False)
                self._characters -= sum(map(len, dropped))
        self._texts.move_to_end(path)
        return self._texts[path]

    def outline(self, path: epath.Path) -> Outline:
        """Return the outline of a file, which is read for it once."""
        if path not in self._outlines:
            self.texts(path)
        return self._outlines[path]


@dataclass(frozen=True)
class AlignedFiles:
    """The pairs of a direction: a file of sources, and one or more of references, with as many sentences each."""

    source: LanguageFile
    references: tuple[LanguageFile, ...]

    def __str__(self) -> str:
        return " and ".join(map(str, (self.source, *self.references)))

    def is_empty(self) -> bool:
        """Return whether a file is empty."""
        return any(one.size == 0 for one in (self.source, *self.references))

    def check(self) -> None:
        """Check that the files have as many sentences each. Raises UserError: they do not, or cannot be read."""
        first = self.source.outline()
        for other in self.references:
            if (found := other.outline()) == first:
                continue
            if found.sentences != first.sentences:
                raise UserError(
                    f"{self.source} and {other} are of one test set, and have unequal numbers of sentences: "
                    f"{first.sentences:,} and {found.sentences:,}; remove one, or get it again"
                )
            raise UserError(
                f"{self.source} and {other} are of one test set, and have other ids; remove one, or get it again"
            )

    def read(self) -> list[Pair]:
        """Return the pairs; raises as `check`."""
        self.check()
        columns = (one.texts() for one in (self.source, *self.references))
        return [Pair(source, target, tuple(others)) for source, target, *others in zip(*columns, strict=True)]


def _read(path: epath.Path) -> tuple[list[str] | None, list[str]]:
    """Return the ids and the sentences of a file, by ascending id; None where they have none."""
    with open_plain(path) as file:
        head = file.read(_HEAD)
    try:
        form = text_form(path.name, head)
    except ValueError as error:
        raise UserError(f"cannot read {path}: {error}") from None
    if form in _RECORDS and not (form == "tsv" and b"\t" not in head):
        return _read_records(path, form)
    texts = read_lines(path)
    if form != "tsv" and form != "lines":
        raise UserError(f"{path} is no text of one language: give lines, or .jsonl, .parquet, .csv or .tsv with ids")
    for number, text in enumerate(texts, start=1):
        if not text.strip():
            raise UserError(f"{path}:{number}: the line is blank, but every line is to be a sentence")
    return None, texts


def _read_records(path: epath.Path, form: str) -> tuple[list[str] | None, list[str]]:
    found: dict[str, str] = {}
    numbered = False
    with open_plain(path) as file:
        for number, record in enumerate(_RECORDS[form](file), start=1):
            text = next((record[name] for name in _TEXT if name in record), None)
            if not isinstance(text, str) or not text.strip():
                raise UserError(f"{path}: record {number:,} has no text in a column {' or '.join(_TEXT)}")
            if _SURROGATE.search(text):
                raise UserError(f"{path}: record {number:,} has half a surrogate pair, which is no text")
            numbered = record.get("id") is not None
            name = str(record["id"] if numbered else number)
            if name in found:
                raise UserError(f"{path}: two records have the id {name}")
            found[name] = text
    names = sorted(found, key=lambda name: (len(name), name))  # numbers are in their order so
    return names if numbered else None, [found[name] for name in names]


def _json_lines(file: IO[bytes]) -> Iterator[Mapping[str, Any]]:
    for number, line in enumerate(file, start=1):
        try:
            record = json.loads(line.removeprefix(b"\xef\xbb\xbf") if number == 1 else line)
        except ValueError:
            record = None
        if not isinstance(record, dict):
            raise ValueError(f"line {number:,} is no JSON object")
        yield record


def _delimited(file: IO[bytes], *, quoted: bool) -> Iterator[Mapping[str, Any]]:
    lines = io.TextIOWrapper(file, encoding="utf-8-sig", newline="" if quoted else "\n")
    rows = csv.reader(lines, strict=True) if quoted else (line.rstrip("\r\n").split("\t") for line in lines)
    number, names = 0, next(rows, [])
    try:
        for number, cells in enumerate(filter(None, rows), start=1):
            if len(cells) > len(names):
                raise ValueError(f"row {number:,} has more cells than there are names of columns")
            yield dict(zip(names, cells, strict=False))
    except csv.Error as error:
        raise ValueError(f"row {number + 1:,}: {error}") from None


def _parquet_rows(file: IO[bytes]) -> Iterator[Mapping[str, Any]]:
    try:
        import pyarrow.parquet
    except ImportError:
        raise UserError("Parquet needs pyarrow: pip install 'nmt-moe[parquet]'") from None
    table = pyarrow.parquet.ParquetFile(io.BytesIO(file.read()))
    wanted = [name for name in ("id", *_TEXT) if name in table.schema_arrow.names]
    for batch in table.iter_batches(columns=wanted):
        yield from batch.to_pylist()


_RECORDS: dict[str, Callable[[IO[bytes]], Iterator[Mapping[str, Any]]]] = {
    "jsonl": _json_lines,
    "csv": functools.partial(_delimited, quoted=True),
    "tsv": functools.partial(_delimited, quoted=False),
    "parquet": _parquet_rows,
}
