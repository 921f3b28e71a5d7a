"""Corpora of columns: tab-separated text, JSON lines and Parquet, with a language in each column."""

import contextlib
import json
from abc import abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from nmt.data.corpora.compressed import decompressed
from nmt.data.corpora.lines import NOT_UTF8, FilesSource, canonical
from nmt.data.corpora.patterns import Found
from nmt.data.corpora.read import Row, alone, codes_of
from nmt.data.corpora.spec import CorpusSpec
from nmt.data.corpora.spec_read import Jsonl, Parquet, Tsv
from nmt.data.corpora.tree import UNREADABLE, Tree
from nmt.errors import UserError

_Column = int | str
_Record = Any  # a list of cells, or a mapping
SIDES = ("source", "target")
_NESTED = "translation"  # where the Hugging Face hub's translation sets have their languages


class _File(NamedTuple):
    found: Found
    columns: dict[str, _Column]  # by canonical code, the key language first


class ColumnsSource(FilesSource):
    """An open corpus of columns; holds a row at a time."""

    numbered = False  # whether columns have numbers instead of names

    def __init__(self, spec: CorpusSpec, read: Tsv | Jsonl | Parquet, tree: Tree, patterns: tuple[str, ...]) -> None:
        super().__init__(spec, tree)
        self._read = read
        found = tree.find(patterns)
        self._check(patterns, len(found))
        raw = [(one, self._columns(one)) for one in found]
        codes = codes_of(spec, (code for _, columns in raw for code in columns))
        self.unregistered = codes.unregistered
        self._files = [
            _File(
                one,
                self._ordered({codes.languages[code]: columns[code] for code in columns if code in codes.languages}),
            )
            for one, columns in raw
        ]
        self._note(*(frozenset(file.columns) for file in self._files))

    def _columns(self, found: Found) -> dict[str, _Column]:
        """Return the columns of a file by the corpus's codes of their languages."""
        if columns := self._read.columns:
            pair = dict(zip((*SIDES, "language"), (found.source, found.target, found.language), strict=True))
            return {pair.get(code) or code: column for code, column in columns.items()}
        if found.source:
            return dict(zip((found.source, found.target), (0, 1) if self.numbered else SIDES, strict=True))
        names = self._names(found)
        used = {name.rpartition(".")[2]: name for name in names if name != self._read.component}
        return {code: name for code, name in used.items() if code in self.spec.languages or canonical(code)}

    def _ordered(self, columns: dict[str, _Column]) -> dict[str, _Column]:
        """Return the columns with the key language first, if it is there."""
        return {code: columns[code] for code in sorted(columns, key=self.key_language.__ne__)}

    def _rows(self, wanted: frozenset[str]) -> Iterator[Row]:
        for file in self._files:
            if not file.columns:
                continue
            key_language, *others = file.columns
            used = [language for language in others if language in wanted]
            if used or self.spec.monolingual:
                yield from self._file_rows(file, key_language, used)

    def _alone(self, wanted: frozenset[str]) -> Iterator[Row]:
        return alone(self._rows(wanted), wanted)

    def _file_rows(self, file: _File, key_language: str, used: Sequence[str]) -> Iterator[Row]:
        name, component = file.found.name, self._read.component
        for number, record in enumerate(self._guarded(name), start=1):
            try:
                text = _cell(record, file.columns[key_language])
                texts = {language: _cell(record, file.columns[language]) for language in used}
                part = file.found.component if component is None else str(_cell(record, component) or "")
            except IndexError:
                self.skipped["line with too few columns"] += 1
                continue
            translations = {language: found for language, found in texts.items() if isinstance(found, str)}
            if self.spec.monolingual:
                # What the columns have is no translation of each other: one may be empty where another is not.
                yield Row(
                    key_language, part, (name, f"{number:012d}"), text if isinstance(text, str) else "", translations
                )
            elif isinstance(text, str) and translations:
                yield Row(key_language, part, (name, f"{number:012d}"), text, translations)

    def _guarded(self, name: str) -> Iterator[_Record]:
        """Yield the records of a file as far as it can be read."""
        try:
            yield from self._records(name)
        except UNREADABLE:
            self.unreadable.append(name)

    @abstractmethod
    def _names(self, found: Found) -> Sequence[str]:
        """Return the names of a file's columns."""

    @abstractmethod
    def _records(self, name: str) -> Iterator[_Record]:
        """Yield the records of a file; an error of `UNREADABLE` says that the rest cannot be read."""

    def _lines(self, name: str) -> Iterator[str]:
        with self._tree.open(name) as raw, decompressed(raw, name) as file:
            for number, line in enumerate(file):
                try:
                    yield (line.removeprefix(b"\xef\xbb\xbf") if number == 0 else line).decode("utf-8").rstrip("\r\n")
                except UnicodeDecodeError:
                    self.skipped[NOT_UTF8] += 1


class TsvSource(ColumnsSource):
    """An open corpus of tab-separated text."""

    numbered = True

    def __init__(self, spec: CorpusSpec, read: Tsv, tree: Tree, patterns: tuple[str, ...]) -> None:
        self._header = read.header
        super().__init__(spec, read, tree, patterns)

    def _names(self, found: Found) -> Sequence[str]:
        if not self._header:
            raise UserError(
                f"corpus {self.spec.name}: say under read: which columns have which language (columns: "
                "{de: 0, en: 1}), or that the first line names them (header: true)"
            )
        return _first(self, lambda: next(self._lines(found.name), "").split("\t"), found)

    def _records(self, name: str) -> Iterator[_Record]:
        lines = (line.split("\t") for line in self._lines(name))
        if not self._header:
            yield from lines
            return
        names = next(lines, [])
        for cells in lines:
            yield _Named(names, cells)


class JsonlSource(ColumnsSource):
    """An open corpus of JSON lines."""

    def _names(self, found: Found) -> Sequence[str]:
        return _first(self, lambda: _names_in(next(self._records(found.name), {})), found)

    def _records(self, name: str) -> Iterator[_Record]:
        for line in self._lines(name):
            try:
                record = json.loads(line) if line.strip() else None
            except (ValueError, RecursionError):
                record = None
            if isinstance(record, dict):
                yield record
            else:
                self.skipped["line that is no JSON object"] += 1


class ParquetSource(ColumnsSource):
    """An open corpus of Parquet files."""

    def _names(self, found: Found) -> Sequence[str]:
        return _first(self, lambda: _names_in(next(self._records(found.name), {})), found)

    def _records(self, name: str) -> Iterator[_Record]:
        try:
            import pyarrow
            import pyarrow.parquet
        except ImportError:
            raise UserError(f"corpus {self.spec.name}: {name} is a Parquet file: pip install pyarrow") from None
        with contextlib.ExitStack() as stack:
            try:
                file = pyarrow.parquet.ParquetFile(stack.enter_context(self._tree.open(name)))
                for batch in file.iter_batches(batch_size=1024):
                    yield from batch.to_pylist()
            except pyarrow.ArrowException as error:
                raise ValueError(str(error)) from None


class _Named:
    """Cells by the name or the number of their column."""

    def __init__(self, names: Sequence[str], cells: Sequence[str]) -> None:
        self._names, self._cells = names, cells

    def cell(self, column: _Column) -> str | None:
        """Return the cell of a column, None where there is no such column."""
        place = column if isinstance(column, int) else self._names.index(column) if column in self._names else None
        return None if place is None else self._cells[place]


def _cell(record: _Record, column: _Column) -> Any:
    """Return what a record has in a column, None where it has nothing.

    Raises:
      IndexError: the record is too short.
    """
    if isinstance(record, _Named):
        return record.cell(column)
    if isinstance(record, list):
        return record[column] if isinstance(column, int) else None
    for name in str(column).split("."):
        record = record.get(name) if isinstance(record, Mapping) else None
    return record


def _names_in(record: Mapping[str, Any]) -> list[str]:
    """Return the names of a record's columns, those of its translations with a dot."""
    nested = record.get(_NESTED)
    inner = [f"{_NESTED}.{name}" for name in nested] if isinstance(nested, Mapping) else []
    return [*record, *inner]


def _first(source: ColumnsSource, names: Callable[[], Sequence[str]], found: Found) -> Sequence[str]:
    try:
        return names()
    except UNREADABLE as error:
        raise UserError(f"corpus {source.spec.name}: cannot read {found.name}: {error}") from None
    finally:
        source.skipped.clear()
