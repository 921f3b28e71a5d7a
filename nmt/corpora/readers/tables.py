"""Corpora of tables: a file for each component and language, whose texts are aligned by their keys."""

import json
from abc import abstractmethod
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence

from nmt.corpora.declare.spec import CorpusSpec
from nmt.corpora.declare.spec_read import JsonTables
from nmt.corpora.readers.read import EMPTY, KeyPath, Row, Source, codes_of
from nmt.corpora.readers.tree import UNREADABLE, Tree
from nmt.errors import UserError

Table = dict[KeyPath, str]


class TableSource(Source):
    """An open corpus of tables; holds the tables of one component at a time.

    Raises:
      UserError: two of its codes denote one language, or there is no table of the key language.
    """

    def __init__(self, spec: CorpusSpec, tree: Tree, patterns: Sequence[str]) -> None:
        super().__init__(spec)
        self._tree = tree
        self._names: dict[tuple[str, str], list[str]] = defaultdict(list)  # by (component, code of the corpus)
        for found in tree.find(patterns):
            self._names[found.component, found.language].append(found.name)
        codes = codes_of(spec, self._used(sorted({code for _, code in self._names})))
        self._code_of = dict(codes.of)
        self.unregistered = codes.unregistered
        self.languages = sorted(self._code_of)
        self._check(patterns)

    def _used(self, codes: Iterable[str]) -> Iterable[str]:
        """Return those of the corpus's codes that are looked at."""
        return codes

    def _check(self, patterns: Sequence[str]) -> None:
        if self.key_language not in self._code_of:
            shown = self._tree.missing(patterns)
            raise UserError(
                f"corpus {self.spec.name}: there is no {self.key_language} table among {shown}{self._unknown()}"
            )

    def _rows(self, wanted: frozenset[str]) -> Iterator[Row]:
        key_code = self._code_of[self.key_language]
        codes = self._other_codes(wanted)
        for component in sorted(component for component, code in self._names if code == key_code):
            texts = self._table(component, key_code)
            tables = {language: self._table(component, code) for language, code in codes.items()}
            for key in sorted(texts):
                translations = {language: table[key] for language, table in tables.items() if key in table}
                yield Row(self.key_language, component, key, texts[key], translations)

    def _other_codes(self, wanted: frozenset[str]) -> dict[str, str]:
        """Return the corpus's codes of the wanted languages other than the key language."""
        return {
            language: self._code_of[language]
            for language in sorted(wanted)
            if language in self._code_of and language != self.key_language
        }

    def _table(self, component: str, code: str) -> Table:
        table: Table = {}
        for name in self._names.get((component, code), ()):
            try:
                content = self._tree.read(name)
                table = (self._parse(content) if content else {}) | table
            except UNREADABLE as error:
                self._unread(name, error)
                continue
            if not content:
                self._skip(EMPTY, name)
        return table

    @abstractmethod
    def _parse(self, content: bytes) -> Table:
        """Return the texts of a table by their keys; an error of `UNREADABLE` says that it is none."""

    def close(self) -> None:
        """Close the corpus's files."""
        self._tree.close()


class JsonSource(TableSource):
    """An open corpus of JSON tables; one that is not a JSON object is unreadable."""

    def __init__(self, spec: CorpusSpec, read: JsonTables, tree: Tree) -> None:
        self._keys = [tuple(pattern.split("/")) for pattern in read.keys]
        super().__init__(spec, tree, read.patterns)

    def _parse(self, content: bytes) -> Table:
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
