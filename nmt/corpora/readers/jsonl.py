"""Corpora of JSON lines (`read.kind: jsonl`)."""

import json
from collections.abc import Iterator, Mapping, Sequence
from itertools import islice

from nmt.corpora.readers.cells import Column, Record, column_paths
from nmt.corpora.readers.column_search import FirstRecords
from nmt.corpora.readers.columns import LOOKED_AT, ColumnsReader
from nmt.errors import UserError

_BEGINNINGS = ("[", "{")  # of a list or an object over several lines


class JsonlReader(ColumnsReader):
    """An open corpus of JSON lines."""

    def _columns_there(self, records: Sequence[Record]) -> Sequence[Column]:
        return column_paths(records)

    def _first_records(self, name: str) -> FirstRecords:
        records = [record for _, record in islice(self._objects(name), LOOKED_AT)]
        return FirstRecords(column_paths(records), records)

    def _records(self, name: str, columns: Sequence[Column]) -> Iterator[tuple[int, Record]]:
        return self._checked(name, columns, self._objects(name))

    def _objects(self, name: str) -> Iterator[tuple[int, Record]]:
        start, found = "", False
        for number, line in self._lines(name):
            try:
                record = json.loads(line) if line.strip() else None
            except (ValueError, RecursionError):
                record = None
            if isinstance(record, dict):
                found = True
                yield number, record
                continue
            self._skip("line that is no JSON object", f"{name}:{number}")
            start = start or line.strip()[:1]
            if number >= LOOKED_AT and not found and start in _BEGINNINGS:
                break
        if not found and start in _BEGINNINGS:
            raise UserError(
                f"corpus {self.spec.name}: {name} begins with {start} and has no JSON object a line; if it is one JSON "
                "list or object, say under read: kind: json"
            )

    def _hint(self, first: FirstRecords) -> str:
        for record in first.records[:1]:
            for name, value in record.items():
                if isinstance(value, list) and value and isinstance(value[0], Mapping):
                    return f"it has a list of objects under {name}: say under read: kind: json"
        return ""
