"""Lines of text and of its translation, read side by side, by the rules of `nmt-translate`: only "\\n" ends a line."""

import itertools
from collections.abc import Iterable, Iterator
from typing import NamedTuple

from nmt.decode.documents.units import LineNumbers, decoded_lines
from nmt.errors import UserError


class LinePair(NamedTuple):
    """A line of a text and its translation, without their ends."""

    number: int  # from 1
    source: str
    target: str

    @property
    def is_half_blank(self) -> bool:
        """Whether one side is blank and the other is not."""
        return bool(self.source.strip()) != bool(self.target.strip())


def pair_lines(
    sources: Iterable[bytes], targets: Iterable[bytes], names: tuple[str, str], wrong: LineNumbers
) -> Iterator[LinePair]:
    """Yield the pairs of two files of lines.

    Args:
      sources: lines with their ends, such as a binary file.
      targets: the lines of the translation.
      names: of both, for the error.
      wrong: gets the numbers of lines that are not UTF-8, one for each side.

    Raises:
      UserError: one has more lines than the other; both numbers are told.
    """
    left, right = decoded_lines(sources, wrong), decoded_lines(targets, wrong)
    number = 0
    for source, target in itertools.zip_longest(left, right):
        if source is None or target is None:
            rest = 1 + sum(1 for _ in (right if source is None else left))
            raise UserError(unequal_lines(names, (number + rest * (target is None), number + rest * (source is None))))
        number = source.number
        yield LinePair(number, source.text, target.text)


def split_columns(lines: Iterable[bytes], name: str, wrong: LineNumbers) -> Iterator[LinePair]:
    """Yield the pairs of lines of two columns, source and translation with a tab between; a blank line has neither.

    Raises:
      UserError: a line has another number of columns.
    """
    for line in decoded_lines(lines, wrong):
        source, *others = line.text.split("\t")
        if not others and not source.strip():
            others = [""]
        if len(others) != 1:
            raise UserError(
                f"{name}:{line.number} has {1 + len(others)} column{'s' * bool(others)}, not 2 "
                "(a text, a tab, its translation)"
            )
        yield LinePair(line.number, source, others[0])


def unequal_lines(names: tuple[str, str], counts: tuple[int, int]) -> str:
    """Return the message that two files have different numbers of lines."""
    return (
        f"{names[0]} has {counts[0]:,} lines, but {names[1]} has {counts[1]:,}: "
        "a text and its translation must have equally many"
    )
