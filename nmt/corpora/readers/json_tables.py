"""Corpora of JSON tables (`read.kind: json_tables`), whose strings are aligned by their keys."""

import json
from collections.abc import Iterator, Sequence

from nmt.corpora.declare.spec import CorpusSpec
from nmt.corpora.declare.spec_read import JsonTables
from nmt.corpora.readers.reader import KeyPath
from nmt.corpora.readers.tables import Table, TableReader
from nmt.corpora.readers.tree import Tree


class JsonTablesReader(TableReader):
    """An open corpus of JSON tables; one that is not a JSON object is unreadable."""

    def __init__(self, spec: CorpusSpec, read: JsonTables, tree: Tree, patterns: tuple[str, ...]) -> None:
        self._keys = [tuple(pattern.split("/")) for pattern in read.keys]
        super().__init__(spec, tree, patterns)

    def _parse(self, content: bytes, _: str) -> Table:
        table = json.loads(content.removeprefix(b"\xef\xbb\xbf"))
        if not isinstance(table, dict):
            raise ValueError("not an object")
        return {path: text for pattern in reversed(self._keys) for path, text in _select(table, pattern, ())}


def _select(value: object, pattern: Sequence[str], path: KeyPath) -> Iterator[tuple[KeyPath, str]]:
    """Yield the strings below a JSON value whose keys fit a pattern; the path of a string is that of all keys."""
    if not pattern:
        if isinstance(value, str):
            yield path, value
        return
    head, rest = pattern[0], pattern[1:]
    if head == "**":
        if isinstance(value, dict):
            for key, below in value.items():
                yield from _select(below, pattern, (*path, key))
        yield from _select(value, rest, path)
    elif isinstance(value, dict):
        for key in value if head == "*" else [head] if head in value else []:
            yield from _select(value[key], rest, (*path, key))
    elif isinstance(value, list) and (head == "*" or head.isdecimal()):
        for place in range(len(value)) if head == "*" else [int(head)]:
            if place < len(value):
                yield from _select(value[place], rest, (*path, str(place)))
