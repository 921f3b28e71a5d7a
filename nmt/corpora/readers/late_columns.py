"""Columns of languages that appear only after the first records of a file, in which columns are looked for."""

from collections.abc import Callable, Iterator, Mapping
from typing import Any

from nmt.corpora.readers.cells import NESTED, Record

LATE = "text in a column of a language that the first 100 records do not have (say columns:)"


class LateColumns:
    """Notices texts in columns that the first records do not have.

    Args:
      canonical: returns the canonical code of a column's language, None where it is none.
    """

    def __init__(self, canonical: Callable[[str], str | None]) -> None:
        self._canonical = canonical
        self._seen: dict[str, bool] = {}  # whether a column is one of a language that came late

    def learn(self, record: Record) -> None:
        """Take the columns of one of the first records for known."""
        self._seen |= dict.fromkeys((name for name, _ in _named_values(record)), False)

    def has_late_text(self, record: Record) -> bool:
        """Return whether a later record has text in a column of a language that the first ones do not have."""
        return any(
            isinstance(value, str) and value != "" and self._is_late(name) for name, value in _named_values(record)
        )

    def _is_late(self, name: str) -> bool:
        if name not in self._seen:
            self._seen[name] = self._canonical(name.rpartition(".")[2]) is not None
        return self._seen[name]


def _named_values(record: Record) -> Iterator[tuple[str, Any]]:
    """Yield the columns of a mapping by name, those of a translation within it with a dot; none of another record."""
    if not isinstance(record, Mapping):
        return
    for name, value in record.items():
        if name in NESTED and isinstance(value, Mapping):
            yield from ((f"{name}.{inner}", one) for inner, one in value.items())
        else:
            yield name, value
