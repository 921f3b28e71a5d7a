"""Rows whose cells may stand in double quotes (RFC 4180), and the search for lines that look like such rows."""

import csv
import re
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

from nmt.corpora.readers.files import NOT_UTF8

NumberedCells = tuple[int, list[str]]  # the number of a row's first line, and its cells

UNCLOSED = "row with a quote that is never closed"
BEHIND_QUOTE = "row with text behind a closing quote"
NO_ROW = "row that cannot be divided into cells"

_MOST_CHARACTERS = 1 << 17  # of a row; a quote that is not closed within them never is
_MOST_HELD = 100  # lines of a row that looks quoted
_BREAK = re.compile(r"\s*[\r\n]\s*")


class NumberedLine(NamedTuple):
    """A line of a file without its end."""

    number: int  # from 1
    text: str
    broken: bool  # whether it is not UTF-8; its text then has surrogates in place of such bytes


class QuotedRow(NamedTuple):
    """A row, or why there is none.

    Line breaks within cells are spaces.
    """

    number: int  # of its first line
    cells: list[str]
    problem: str  # empty: there is none


class _Lines:
    """Lines that can be given back: of a row that failed, all but the first are read again."""

    def __init__(self, lines: Iterator[NumberedLine]) -> None:
        self._lines, self._waiting = lines, deque[NumberedLine]()
        self.taken: list[NumberedLine] = []

    def __iter__(self) -> "_Lines":
        return self

    def __next__(self) -> str:
        if sum(len(line.text) for line in self.taken) > _MOST_CHARACTERS:
            raise csv.Error("unexpected end of data")
        line = self._waiting.popleft() if self._waiting else next(self._lines)
        self.taken.append(line)
        return f"{line.text}\n"

    def give_back(self) -> None:
        self._waiting.extendleft(reversed(self.taken[1:]))


def quoted_rows(lines: Iterator[NumberedLine], delimiter: str, escape: str = "") -> Iterator[QuotedRow]:
    """Yield the rows of lines, in bounded memory.

    Where a row cannot be read, such as one whose quote is never closed, its first line alone is lost.

    Args:
      lines: the lines of a file.
      delimiter: one character.
      escape: a character before a quote that does not end a cell; empty: such quotes are doubled.
    """
    source = _Lines(lines)
    rows = csv.reader(source, delimiter=delimiter, escapechar=escape or None, skipinitialspace=True, strict=True)
    while True:
        source.taken = []
        try:
            cells = next(rows)
        except StopIteration:
            return
        except csv.Error as error:
            number, problem = source.taken[0].number, _problem(str(error))
            source.give_back()
            yield QuotedRow(number, [], problem)
            continue
        problem = NOT_UTF8 if any(line.broken for line in source.taken) else ""
        yield QuotedRow(source.taken[0].number, [_BREAK.sub(" ", cell) for cell in cells], problem)


def _problem(message: str) -> str:
    if "unexpected end" in message:
        return UNCLOSED
    return BEHIND_QUOTE if "expected after" in message else NO_ROW


def mark_quoted(rows: Iterable[NumberedCells], width: int) -> Iterator[tuple[NumberedCells, bool]]:
    """Yield rows that are read as if there were no quoting, and whether each looks like a part of a quoted row.

    A text that begins with a quotation mark is no sign of quoting, since sentences do. These are: doubled quotes within
    a cell in quotes, and a cell whose quote is closed at the end of a later line's first cell, where one of these lines
    has not all its cells.

    Args:
      rows: numbers and cells of lines.
      width: how many cells a row has.
    """
    held: list[tuple[NumberedCells, bool]] = []  # a line whose last cell has an open quote, and those behind it
    for row in rows:
        cells, sign = row[1], any(map(_has_doubled_quotes, row[1]))
        if held:
            short = len(cells) < width
            if _closes(cells[0]) and (short or any(len(one[1]) < width for one, _ in held)):
                yield from ((one, True) for one, _ in held)
                sign = True
            elif short and len(held) < _MOST_HELD and not any('"' in cell for cell in cells):
                held.append((row, sign))
                continue
            else:
                yield from held
            held = []
        if _is_open(cells[-1]):
            held.append((row, sign))
        else:
            yield row, sign
    yield from held


def are_all_quoted(rows: Sequence[NumberedCells]) -> bool:
    """Return whether every cell of two or more rows stands in double quotes, empty ones aside."""
    cells = [cell for _, row in rows for cell in row if cell]
    return len(rows) > 1 and bool(cells) and all(len(cell) > 1 and cell[0] == cell[-1] == '"' for cell in cells)


def _is_open(cell: str) -> bool:
    return cell.startswith('"') and cell.count('"') % 2 == 1


def _closes(cell: str) -> bool:
    return cell.endswith('"') and not cell.startswith('"') and cell.count('"') % 2 == 1


def _has_doubled_quotes(cell: str) -> bool:
    if len(cell) < 4 or not (cell.startswith('"') and cell.endswith('"')):
        return False
    inner = cell[1:-1]
    return '""' in inner and '"' not in inner.replace('""', "")
