"""Readers of rows of cells between delimiters, with or without a row of names: what TSV and CSV share."""

from abc import abstractmethod
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from itertools import chain, islice

from nmt.corpora.declare.patterns import MatchedPath
from nmt.corpora.declare.spec import CorpusSpec
from nmt.corpora.declare.spec_read_columns import Csv, Tsv
from nmt.corpora.readers.cells import NESTED, Column, NamedCells, Record
from nmt.corpora.readers.column_rules import TEXT_AS_NAMES, reads_as_text
from nmt.corpora.readers.column_search import FirstRecords
from nmt.corpora.readers.columns import LOOKED_AT, ColumnsReader
from nmt.corpora.readers.files import NOT_UTF8
from nmt.corpora.readers.quoting import NumberedCells, NumberedLine, quoted_rows
from nmt.corpora.readers.reader import EMPTY
from nmt.corpora.readers.tree import Tree
from nmt.errors import UserError

TOO_MANY = "line with too many columns"

_DELIMITERS = {"\t": "a tab", ",": "a comma", ";": "a semicolon", "|": "a |"}


class DelimitedReader(ColumnsReader):
    """An open corpus of rows of cells.

    A row with more cells than there are names is left out, since it is not known which cell is which; without names,
    one with more than most of the first rows have.
    """

    ordered = True
    delimiter: str

    def __init__(self, spec: CorpusSpec, read: Tsv | Csv, tree: Tree, patterns: tuple[str, ...]) -> None:
        self._header = read.header
        self.numbered = not read.header
        super().__init__(spec, read, tree, patterns)

    @abstractmethod
    def _cells(self, name: str) -> Iterator[NumberedCells]:
        """Yield the rows of a file, that of names included, as far as it can be read."""

    def _first_records(self, name: str) -> FirstRecords:
        if not self._header:
            raise UserError(
                f"corpus {self.spec.name}: say under read: which columns have which language (columns: "
                "{de: 0, en: 1}), or that the first line names them (header: true)"
            )
        rows = self._cells(name)
        names = _stripped(next(rows, (0, []))[1])
        return FirstRecords(names, [NamedCells(names, cells) for _, cells in islice(rows, LOOKED_AT)])

    def _columns_there(self, records: Sequence[Record]) -> Sequence[Column]:
        return list(range(max(map(len, records), default=0)))

    def _records(self, name: str, columns: Sequence[Column]) -> Iterator[tuple[int, Record]]:
        rows = self._cells(name)
        if not self._header:
            first = list(islice(rows, LOOKED_AT))
            yield from self._checked(name, columns, self._narrow(name, usual_width(first), chain(first, rows)))
            return
        number, cells = next(rows, (0, []))
        if not cells:
            return
        names = _stripped(cells)
        self._check_header(f"{name}:{number}", names, columns, FirstRecords(names, []))
        self._require(
            name, (one for one in columns if one not in {*names, *range(len(names))}), FirstRecords(names, [])
        )
        header, before = number, self.skipped.total()
        for number, cells in self._narrow(name, len(names), rows):
            yield number, NamedCells(names, cells)
        if number == header and self.skipped.total() == before:
            self._skip(EMPTY, name)

    def _quoted_cells(self, name: str, delimiter: str, escape: str = "") -> Iterator[NumberedCells]:
        """Yield the rows of a file in which cells may stand in double quotes; those that cannot be read are counted."""
        for row in quoted_rows(self._all_lines(name), delimiter, escape):
            if not row.problem:
                yield row.number, row.cells
            elif row.problem != NOT_UTF8:  # which is counted line by line
                self._skip(row.problem, f"{name}:{row.number}")

    def _all_lines(self, name: str) -> Iterator[NumberedLine]:
        for number, text, line in self._decoded_lines(name):
            kept = line.decode("utf-8", "surrogateescape").rstrip("\r\n") if text is None else text
            yield NumberedLine(number, kept, text is None)

    def _narrow(self, name: str, width: int, rows: Iterator[NumberedCells]) -> Iterator[NumberedCells]:
        """Yield the rows that have no more cells than a width."""
        for number, cells in rows:
            if len(cells) > width:
                self._skip(TOO_MANY, f"{name}:{number}")
            else:
                yield number, cells

    def _check_header(self, place: str, names: Sequence[str], columns: Sequence[Column], first: FirstRecords) -> None:
        """Raise UserError where a name that is used comes twice; count a first line that reads as text."""
        for column in columns:
            if names.count(str(column)) > 1:
                places = " and ".join(str(at) for at, one in enumerate(names) if one == column)
                raise UserError(
                    f"corpus {self.spec.name}: {place}: columns {places} are called {column}; give their numbers "
                    "under read: columns"
                )
        used = [names[column] for column in columns if isinstance(column, int) and column < len(names)]
        if any(map(reads_as_text, used)):
            self._skip(TEXT_AS_NAMES, place)

    def _is_heading(self, found: MatchedPath, columns: Mapping[str, Column], number: int, record: Record) -> bool:
        if isinstance(record, NamedCells):
            # Who gives the names of columns has read them; numbers are checked against the names.
            if all(isinstance(column, int) for column in columns.values()):
                names = [record.name(column) for column in columns.values()]
                self._search.check_names(found, columns, names, f"the first line of {found.name}")
            return False
        return super()._is_heading(found, columns, number, record)

    def _hint(self, first: FirstRecords) -> str:
        """Return which delimiter a file has whose lines are one cell each, or that it has no names."""
        names = first.names
        line = names[0] if self._header else "".join(first.records[0])
        other = next((one for one in _DELIMITERS if one != self.delimiter and len(names) == 1 and one in line), "")
        if other:
            return f"its lines have no {_DELIMITERS.get(self.delimiter, self.delimiter)[2:]}: {self._advise(other)}"
        if nested := [name for name in names if name in NESTED]:
            return f"if cells of {nested[0]} are mappings, as datasets writes them: write JSON lines or Parquet instead"
        if self._header and any(map(reads_as_text, names)):
            return "if the first line is text, say under read: header: false"
        return ""

    def _advise(self, delimiter: str) -> str:
        written = "\\t" if delimiter == "\t" else delimiter
        return f'say under read: kind: csv and delimiter: "{written}"'


def _stripped(cells: Sequence[str]) -> list[str]:
    return [cell.strip() for cell in cells]


def usual_width(rows: Sequence[NumberedCells]) -> int:
    """Return how many cells most rows have, the larger number of two that are as frequent."""
    counts = Counter(len(cells) for _, cells in rows)
    return max(counts, key=lambda width: (counts[width], width), default=0)
