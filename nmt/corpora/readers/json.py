"""Corpora of JSON files that are a list of objects, or have one under a key (`read.kind: json`)."""

from collections.abc import Iterator, Sequence
from itertools import islice

from nmt.corpora.declare.spec import CorpusSpec
from nmt.corpora.declare.spec_read_columns import Json
from nmt.corpora.readers.cells import Column, Record, column_paths
from nmt.corpora.readers.column_search import FirstRecords
from nmt.corpora.readers.columns import LOOKED_AT, ColumnsReader
from nmt.corpora.readers.json_stream import JsonStream, find_lists, go_to, read_values
from nmt.corpora.readers.reader import EMPTY
from nmt.corpora.readers.tree import UNREADABLE, Tree
from nmt.errors import UserError


class JsonReader(ColumnsReader):
    """An open corpus of lists of JSON objects; holds an object at a time."""

    def __init__(self, spec: CorpusSpec, read: Json, tree: Tree, patterns: tuple[str, ...]) -> None:
        self._key = read.records
        self._list_of: dict[str, str] = {}  # keys of the list of objects, by file; empty: there are none
        super().__init__(spec, read, tree, patterns)

    def _columns_there(self, records: Sequence[Record]) -> Sequence[Column]:
        return column_paths(records)

    def _first_records(self, name: str) -> FirstRecords:
        records = [record for _, record in islice(self._objects(name), LOOKED_AT)]
        return FirstRecords(column_paths(records), records)

    def _hint(self, first: FirstRecords) -> str:
        values = [value for record in first.records for value in record.values()]
        if len(first.records) == 1 and values and all(isinstance(value, dict | list) for value in values):
            return "it has an object for all columns; write an object for each row (pandas: orient='records')"
        return ""

    def _records(self, name: str, columns: Sequence[Column]) -> Iterator[tuple[int, Record]]:
        return self._checked(name, columns, self._objects(name))

    def _objects(self, name: str) -> Iterator[tuple[int, Record]]:
        number = 0
        try:
            key = self._list_keys(name)
            with self._tree.plain(name) as file:
                stream = JsonStream(file)
                if key and not go_to(stream, key):
                    raise UserError(f"corpus {self.spec.name}: {name} has no list under {key}; see read.records")
                values = (stream.value() for _ in stream.items()) if key else read_values(stream)
                for number, record in enumerate(values, start=1):
                    if isinstance(record, dict):
                        yield number, record
                    else:
                        self._skip("record that is no JSON object", f"{name}:{number}")
        except UNREADABLE as error:
            self._unread(name, error, number, "record")
            return
        if not number:
            self._skip(EMPTY, name)

    def _list_keys(self, name: str) -> str:
        """Return the keys of a file's list of objects, joined by dots; empty: the file is the list, or objects.

        Raises:
          UserError: there are several lists.
        """
        if self._key is not None:
            return self._key
        if name not in self._list_of:
            with self._tree.plain(name) as file:
                found = [".".join(keys) for keys in find_lists(JsonStream(file)) or []]
            if len(found) > 1:
                raise UserError(
                    f"corpus {self.spec.name}: {name} has {len(found)} lists of objects: {', '.join(found)}; say "
                    f"under read: which, as in records: {found[0]}"
                )
            self._list_of[name] = found[0] if found else ""
        return self._list_of[name]
