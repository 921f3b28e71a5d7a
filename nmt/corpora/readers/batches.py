"""Readers of record batches of Arrow: what Parquet and Arrow files share."""

from abc import abstractmethod
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from itertools import islice
from typing import Any, NamedTuple

from nmt.corpora.readers.cells import NESTED, Column, Record, find_path
from nmt.corpora.readers.column_search import FirstRecords
from nmt.corpora.readers.columns import LOOKED_AT, ColumnsReader
from nmt.corpora.readers.reader import EMPTY
from nmt.corpora.readers.tree import UNREADABLE

BATCH = 1024  # rows that are decoded at once


class OpenBatches(NamedTuple):
    """An open file: its schema, and its batches of at most `BATCH` rows with the columns of some names."""

    schema: Any
    batches: Callable[[Sequence[str]], Iterator[Any]]


class BatchesReader(ColumnsReader):
    """An open corpus of record batches; holds one at a time, of the columns that are used."""

    @abstractmethod
    def _opened(self, name: str) -> AbstractContextManager[OpenBatches]:
        """Open a file."""

    def _columns_there(self, records: Sequence[Record]) -> Sequence[Column]:
        return []  # the schema says which there are

    def _first_records(self, name: str) -> FirstRecords:
        try:
            with self._opened(name) as file:
                names = _column_names(file.schema)
                rows = (row for batch in file.batches(names) for row in batch.to_pylist())
                return FirstRecords(_paths(file.schema), list(islice(rows, LOOKED_AT)))
        except UNREADABLE as error:
            self._unread(name, error)
            return FirstRecords([], [])

    def _records(self, name: str, columns: Sequence[Column]) -> Iterator[tuple[int, Record]]:
        number = 0
        try:
            with self._opened(name) as file:
                _column_names(file.schema)
                tree = _tree(file.schema)
                found = {
                    column: column if isinstance(column, tuple) else find_path(tree, str(column)) for column in columns
                }
                missing = (column for column, path in found.items() if path is None)
                self._require(name, missing, FirstRecords(_paths(file.schema, NESTED), []))
                used = {path[0] for path in found.values() if path} or {*tree}
                rows = (row for batch in file.batches(sorted(used)) for row in batch.to_pylist())
                for number, row in enumerate(rows, start=1):
                    yield number, row
        except UNREADABLE as error:
            self._unread(name, error, number, "row")
            return
        if not number:
            self._skip(EMPTY, name)


def _column_names(schema: Any) -> list[str]:
    """Return the names of the columns. Raises ValueError: two have one name, and it is not known which is meant."""
    names = [str(field.name) for field in schema]
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise ValueError(f"several columns are called {', '.join(twice)}: give them names of their own")
    return names


def _tree(fields: Any) -> dict[str, Any]:
    """Return the names of the columns of a schema, with those of structures below them."""
    return {field.name: _tree(field.type) if _is_structure(field.type) else None for field in fields}


def _is_structure(kind: Any) -> bool:
    import pyarrow

    return bool(pyarrow.types.is_struct(kind))


def _paths(fields: Any, above: Sequence[str] = ()) -> list[Column]:
    """Return the columns of a schema, and those of structures in which translations stand."""
    paths: list[Column] = []
    for field in fields:
        paths.append((field.name,))
        if field.name in NESTED and _is_structure(field.type):
            paths += [(field.name, inner.name) for inner in field.type]
    return paths
