"""Corpora of tab-separated text (`read.kind: tsv`)."""

from collections.abc import Iterator
from itertools import chain, islice

from nmt.corpora.declare.spec import CorpusSpec
from nmt.corpora.declare.spec_read_columns import Tsv
from nmt.corpora.readers.columns import LOOKED_AT
from nmt.corpora.readers.delimited import DelimitedReader, usual_width
from nmt.corpora.readers.quoting import NumberedCells, are_all_quoted, mark_quoted
from nmt.corpora.readers.tree import Tree
from nmt.errors import UserError

LOOKS_QUOTED = "line that looks quoted (say quoted: true, or quoted: false if quotes are text)"


class TsvReader(DelimitedReader):
    """An open corpus of tab-separated text.

    Quotes are text unless the declaration says that cells are quoted. Where it says neither, a file that looks quoted
    is an error, and a later line that does is left out.
    """

    delimiter = "\t"

    def __init__(self, spec: CorpusSpec, read: Tsv, tree: Tree, patterns: tuple[str, ...]) -> None:
        # mtdata writes lines as they are.
        self._quoted = False if spec.obtain.kind == "mtdata" else read.quoted
        super().__init__(spec, read, tree, patterns)

    def _cells(self, name: str) -> Iterator[NumberedCells]:
        if self._quoted:
            return self._quoted_cells(name, self.delimiter)
        rows = ((number, line.split(self.delimiter)) for number, line in self._lines(name))
        return rows if self._quoted is False else self._unquoted(name, rows)

    def _unquoted(self, name: str, rows: Iterator[NumberedCells]) -> Iterator[NumberedCells]:
        """Yield the rows that do not look quoted.

        Raises:
          UserError: one of the first does.
        """
        first = list(islice(rows, LOOKED_AT))
        if are_all_quoted(first):
            raise self._looks_quoted(name, first[0][0])
        last = first[-1][0] if first else 0
        for row, sign in mark_quoted(chain(first, rows), usual_width(first)):
            if sign and row[0] <= last:
                raise self._looks_quoted(name, row[0])
            if sign:
                self._skip(LOOKS_QUOTED, f"{name}:{row[0]}")
            else:
                yield row

    def _looks_quoted(self, name: str, number: int) -> UserError:
        return UserError(
            f"corpus {self.spec.name}: {name}:{number} looks like a row whose cells are quoted; say under read: "
            "quoted: true if they are, or quoted: false if quotes are part of the text"
        )
