"""Corpora of JSON lines (`read.kind: jsonl`)."""

import json
from collections.abc import Iterator, Sequence
from itertools import islice

from nmt.corpora.readers.cells import Column, Record, column_names
from nmt.corpora.readers.columns import LOOKED_AT, ColumnsReader


class JsonlReader(ColumnsReader):
    """An open corpus of JSON lines."""

    def _names(self, name: str) -> Sequence[str]:
        return column_names(record for _, record in islice(self._objects(name), LOOKED_AT))

    def _records(self, name: str, columns: Sequence[Column]) -> Iterator[tuple[int, Record]]:
        return self._checked(name, columns, self._objects(name))

    def _objects(self, name: str) -> Iterator[tuple[int, Record]]:
        for number, line in self._lines(name):
            try:
                record = json.loads(line) if line.strip() else None
            except (ValueError, RecursionError):
                record = None
            if isinstance(record, dict):
                yield number, record
            else:
                self._skip("line that is no JSON object", f"{name}:{number}")
