"""Corpora of Parquet files (`read.kind: parquet`)."""

import contextlib
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from nmt.corpora.readers.cells import NESTED, Column, Record
from nmt.corpora.readers.columns import ColumnsReader
from nmt.corpora.readers.reader import EMPTY
from nmt.corpora.readers.tree import UNREADABLE
from nmt.errors import UserError


class ParquetReader(ColumnsReader):
    """An open corpus of Parquet files."""

    def _names(self, name: str) -> Sequence[str]:
        try:
            with self._opened(name) as file:
                names = _fields(file.schema_arrow)
                return [one for one in names if "." not in one or one.startswith(f"{NESTED}.")]
        except UNREADABLE as error:
            self._unread(name, error)
            return []

    def _records(self, name: str, columns: Sequence[Column]) -> Iterator[tuple[int, Record]]:
        number = 0
        try:
            with self._opened(name) as file:
                names = _fields(file.schema_arrow)
                self._require(name, (one for one in columns if str(one) not in names), names)
                rows = (row for batch in file.iter_batches(batch_size=1024) for row in batch.to_pylist())
                for number, row in enumerate(rows, start=1):
                    yield number, row
        except UNREADABLE as error:
            self._unread(name, error, number, "row")
            return
        if not number:
            self._skip(EMPTY, name)

    @contextlib.contextmanager
    def _opened(self, name: str) -> Iterator[Any]:
        try:
            import pyarrow
            import pyarrow.parquet
        except ImportError:
            raise UserError(
                f"corpus {self.spec.name}: {name} is a Parquet file: pip install 'nmt-moe[parquet]'"
            ) from None
        with self._tree.seekable(name) as content:
            try:
                yield pyarrow.parquet.ParquetFile(content)
            except pyarrow.ArrowException as error:
                raise ValueError(str(error)) from None


def _fields(schema: Iterable[Any]) -> list[str]:
    """Return the names of the columns of a schema, those of structures with a dot as well."""
    names = []
    for field in schema:
        names.append(field.name)
        if hasattr(field.type, "fields"):
            names += [f"{field.name}.{name}" for name in _fields(field.type.fields)]
    return names
