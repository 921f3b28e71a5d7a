"""Corpora of comma-separated values (`read.kind: csv`), with any delimiter: RFC 4180."""

import re
from collections.abc import Iterator

from nmt.corpora.declare.spec import CorpusSpec
from nmt.corpora.declare.spec_read_columns import Csv
from nmt.corpora.readers.delimited import DelimitedReader
from nmt.corpora.readers.quoting import NumberedCells
from nmt.corpora.readers.tree import Tree
from nmt.errors import UserError

_DELIMITER_LINE = re.compile(r"sep=(.)")  # Excel's, before the row of names


class CsvReader(DelimitedReader):
    """An open corpus of comma-separated values."""

    def __init__(self, spec: CorpusSpec, read: Csv, tree: Tree, patterns: tuple[str, ...]) -> None:
        self.delimiter, self._escape = read.delimiter, read.escape
        super().__init__(spec, read, tree, patterns)

    def _cells(self, name: str) -> Iterator[NumberedCells]:
        for number, cells in self._quoted_cells(name, self.delimiter, self._escape):
            if number == 1 and (said := _DELIMITER_LINE.fullmatch(self.delimiter.join(cells))):
                if said[1] != self.delimiter:
                    raise UserError(
                        f'corpus {self.spec.name}: {name} says sep={said[1]}: say under read: delimiter: "{said[1]}"'
                    )
            else:
                yield number, cells

    def _advise(self, delimiter: str) -> str:
        written = "\\t" if delimiter == "\t" else delimiter
        return f'say under read: delimiter: "{written}"'
