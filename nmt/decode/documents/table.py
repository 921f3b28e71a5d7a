"""Tables of columns that tabs separate: some columns are translated, all others are kept."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

from nmt.decode.documents.units import DocumentLine, DocumentUnit
from nmt.decode.translator import Translation
from nmt.errors import UserError, did_you_mean

TITLE = "translation"


@dataclass(frozen=True)
class Table:
    """A table.

    Attributes:
      columns: the columns to translate: numbers from 1, or titles of the first line.
      header: whether the first line has titles, as it must where a column is named by one.
      replace: whether a translation takes the place of its text, instead of a further column at the end.
      render: makes the cell of a translation.
    """

    columns: tuple[str, ...]
    header: bool
    replace: bool
    render: Callable[[Translation], str]

    @property
    def has_titles(self) -> bool:
        """Whether the first line has titles."""
        return self.header or not all(map(str.isdecimal, self.columns))

    def units(self, lines: Iterable[DocumentLine]) -> Iterator[DocumentUnit]:
        """Yield every line; blank ones are copied.

        Raises:
          UserError: a line has fewer columns, or no column has such a title.
        """
        places = [] if self.has_titles else self._places([])
        for line in lines:
            if not line.text.strip(" "):
                yield DocumentUnit.copied(line)
            elif not places:
                cells = line.text.split("\t")
                places = self._places(cells)
                yield self._titles(line, cells, places)
            else:
                yield self._row(line, places)

    def _places(self, titles: Sequence[str]) -> list[int]:
        return [self._place(column, titles) for column in self.columns]

    def _place(self, column: str, titles: Sequence[str]) -> int:
        if column.isdecimal():
            if int(column) < 1:
                raise UserError("columns are counted from 1 (--column)")
            return int(column) - 1
        if column not in titles:
            known = ", ".join(map(repr, titles[:10]))
            raise UserError(f"no column has the title {column!r}{did_you_mean(column, titles)}; there are {known}")
        return list(titles).index(column)

    def _titles(self, line: DocumentLine, cells: list[str], places: Sequence[int]) -> DocumentUnit:
        one = len(places) == 1
        added = [] if self.replace else [TITLE if one else f"{TITLE} {column}" for column in self.columns]
        row = (line.mark + "\t".join([*cells, *added])).encode() + line.end
        return DocumentUnit(line.number, line.size, 1, (), lambda _: row)

    def _row(self, line: DocumentLine, places: Sequence[int]) -> DocumentUnit:
        cells = line.text.split("\t")
        if max(places) >= len(cells):
            have = "1 column" if len(cells) == 1 else f"{len(cells)} columns"
            raise UserError(f"line {line.number} has {have}, no column {max(places) + 1} (--column)")

        def compose(translations: Sequence[Translation]) -> bytes:
            row = list(cells)
            rendered = [self.render(translation) for translation in translations]
            if self.replace:
                for place, text in zip(places, rendered, strict=True):
                    row[place] = text
            else:
                row += rendered
            return (line.mark + "\t".join(row)).encode() + line.end

        return DocumentUnit(line.number, line.size, 1, tuple(cells[place] for place in places), compose)
