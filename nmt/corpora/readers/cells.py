"""The cells of a record by number, name or dotted path, whether it is a line, a JSON object or a row of Parquet."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

Column = int | str
Record = Any  # a list of cells, NamedCells, or a mapping

NESTED = "translation"  # where the Hugging Face hub's translation sets have their languages


class NamedCells:
    """Cells by the name or the number of their column."""

    def __init__(self, names: Sequence[str], cells: Sequence[str]) -> None:
        self._names, self._cells = names, cells

    def cell(self, column: Column) -> str:
        """Return the cell of a column that has a name. Raises IndexError: there are too few cells."""
        return self._cells[column if isinstance(column, int) else self._names.index(column)]


def read_cell(record: Record, column: Column) -> Any:
    """Return the value that a record has in a column, None if it has none.

    Raises:
      IndexError: the record is too short.
    """
    if isinstance(record, NamedCells):
        return record.cell(column)
    if isinstance(record, list):
        return record[int(column)]
    for name in str(column).split("."):
        record = record.get(name) if isinstance(record, Mapping) else None
    return record


def has_column(record: Record, column: Column) -> bool:
    """Return whether a list or mapping has a column, which may be empty."""
    if isinstance(record, list):
        return isinstance(column, int) and column < len(record)
    for name in str(column).split("."):
        if not isinstance(record, Mapping) or name not in record:
            return False
        record = record[name]
    return True


def column_names(records: Iterable[Record]) -> list[str]:
    """Return the names of the columns that some records have, those of translations with a dot; numbers of lists."""
    names: dict[str, None] = {}
    for record in records:
        if isinstance(record, list):
            names |= dict.fromkeys(map(str, range(len(record))))
            continue
        nested = record.get(NESTED)
        inner = [f"{NESTED}.{name}" for name in nested] if isinstance(nested, Mapping) else []
        names |= dict.fromkeys([*record, *inner])
    return list(names)
