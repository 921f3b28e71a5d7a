"""Corpora of tab-separated text (`read.kind: tsv`)."""

from collections.abc import Iterator, Sequence

from nmt.corpora.declare.spec import CorpusSpec
from nmt.corpora.declare.spec_read_columns import Tsv
from nmt.corpora.readers.cells import Column, NamedCells, Record
from nmt.corpora.readers.columns import ColumnsReader
from nmt.corpora.readers.reader import EMPTY
from nmt.corpora.readers.tree import Tree
from nmt.errors import UserError


class TsvReader(ColumnsReader):
    """An open corpus of tab-separated text."""

    numbered = True

    def __init__(self, spec: CorpusSpec, read: Tsv, tree: Tree, patterns: tuple[str, ...]) -> None:
        self._header = read.header
        super().__init__(spec, read, tree, patterns)

    def _names(self, name: str) -> Sequence[str]:
        if not self._header:
            raise UserError(
                f"corpus {self.spec.name}: say under read: which columns have which language (columns: "
                "{de: 0, en: 1}), or that the first line names them (header: true)"
            )
        return next(self._cells(name), (0, []))[1]

    def _cells(self, name: str) -> Iterator[tuple[int, list[str]]]:
        return ((number, line.split("\t")) for number, line in self._lines(name))

    def _records(self, name: str, columns: Sequence[Column]) -> Iterator[tuple[int, Record]]:
        lines = self._cells(name)
        if not self._header:
            yield from self._checked(name, columns, lines)
            return
        number, names = next(lines, (0, []))
        if names:
            self._require(name, (one for one in columns if one not in {*names, *range(len(names))}), names)
        header = number
        for number, cells in lines:
            yield number, NamedCells(names, cells)
        if names and number == header:
            self._skip(EMPTY, name)
