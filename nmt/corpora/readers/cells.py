"""The cells of a record by number, name or path, whether it is a line, a JSON object or a row of Parquet."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

Path = tuple[str, ...]  # keys from the outside in
Column = int | str | Path
Record = Any  # a list of cells, NamedCells, or a mapping

NESTED = ("translation", "translations")  # where the Hugging Face hub's translation sets have their languages


class AmbiguousColumnError(ValueError):
    """Raised when a dotted name fits several paths of keys in a record, and no key is the whole name."""


class NamedCells:
    """Cells by the name or the number of their column."""

    def __init__(self, names: Sequence[str], cells: Sequence[str]) -> None:
        self._names, self._cells = names, cells

    def cell(self, column: Column) -> str:
        """Return the cell of a column that has a name. Raises IndexError: there are too few cells."""
        return self._cells[column if isinstance(column, int) else self._names.index(str(column))]

    def name(self, column: Column) -> str:
        """Return the name of a column."""
        return self._names[column] if isinstance(column, int) else str(column)


def read_cell(record: Record, column: Column) -> Any:
    """Return the value that a record has in a column, None if it has none.

    Raises:
      IndexError: the record is too short.
      AmbiguousColumnError: see `find_path`.
    """
    if isinstance(record, NamedCells):
        return record.cell(column)
    if isinstance(record, list):
        return record[int(column)]  # type: ignore[arg-type]
    if isinstance(column, tuple):
        path: Path | None = column
    elif column in record or "." not in str(column):
        return record.get(str(column))
    else:
        path = find_path(record, str(column))
    for key in path or ():
        record = record.get(key) if isinstance(record, Mapping) else None
    return record if path else None


def find_path(record: Mapping[str, Any], name: str) -> Path | None:
    """Return the path that a column's name stands for in a record, None if there is none.

    A key that is the whole name wins: `text.en` is the key "text.en" where there is one, else "en" below "text".

    Raises:
      AmbiguousColumnError: several paths of keys that hold dots themselves fit, as "a.b" "c" and "a" "b.c" do.
    """
    if name in record:
        return (name,)
    if len(paths := list(_fitting_paths(record, name))) > 1:
        shown = " and ".join(" > ".join(map(repr, path)) for path in paths)
        raise AmbiguousColumnError(f"column {name} may be {shown}; rename one of them")
    return paths[0] if paths else None


def _fitting_paths(record: Any, name: str) -> Iterator[Path]:
    if not isinstance(record, Mapping):
        return
    if name in record:
        yield (name,)
    dots = [place for place, character in enumerate(name) if character == "."]
    for place in dots:
        if (head := name[:place]) in record:
            yield from ((head, *rest) for rest in _fitting_paths(record[head], name[place + 1 :]))


def has_column(record: Record, column: Column) -> bool:
    """Return whether a list or mapping has a column, which may be empty."""
    if isinstance(record, list):
        return isinstance(column, int) and column < len(record)
    if not isinstance(column, tuple):
        return isinstance(record, Mapping) and find_path(record, str(column)) is not None
    for key in column:
        if not isinstance(record, Mapping) or key not in record:
            return False
        record = record[key]
    return True


def shown_column(column: Column) -> str:
    """Return a column as messages write it: a path with dots."""
    return ".".join(column) if isinstance(column, tuple) else str(column)


def column_paths(records: Iterable[Record]) -> list[Path]:
    """Return the paths of the columns that some mappings have, with those of languages below a translation."""
    paths: dict[Path, None] = {}
    for record in records:
        paths |= dict.fromkeys((name,) for name in record)
        for outer in NESTED:
            if isinstance(inner := record.get(outer), Mapping):
                paths |= dict.fromkeys((outer, name) for name in inner)
    return list(paths)
