"""Glossaries: terms of the source, and their wordings in the target.

A glossary is UTF-8 text with two columns, separated by a tab: a term of the source and its wording in the target.
Wordings that are all right are separated by `|`, and several lines of one term add up. `*` at the end of a term stands
for any ending (`server*`: servers, serverless). A backslash makes an ordinary character of a `|`, a `*` or a backslash
after it.
"""

import os
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple, Self

from etils import epath

from nmt.corpora.clean.text import normalise
from nmt.decode.steering.words import capitalise, is_in_capitals, is_whole, lower_each
from nmt.errors import UserError

_CHARACTER = re.compile(r"\\.|.", re.DOTALL)
_ESCAPED = re.compile(r"\\([|*\\])")


class Wording(NamedTuple):
    """A phrase of one or more words."""

    text: str
    open_end: bool = False  # whether any ending may follow

    @classmethod
    def parse(cls, written: str) -> Self:
        r"""Return the phrase that is written: `*` at the end leaves the ending open, `\*` is an asterisk."""
        stem = written.strip()
        backslashes = len(stem) - 1 - len(stem[:-1].rstrip("\\")) if stem.endswith("*") else 1
        open_end = backslashes % 2 == 0
        return cls(_ESCAPED.sub(r"\1", stem[:-1] if open_end else stem).strip(), open_end)


def parse_wordings(written: str) -> tuple[Wording, ...]:
    """Return the alternatives that are written with `|` between them; an empty one has an empty text."""
    parts = [""]
    for character in _CHARACTER.findall(written):
        parts = [*parts, ""] if character == "|" else [*parts[:-1], parts[-1] + character]
    return tuple(map(Wording.parse, parts))


@dataclass(frozen=True)
class TermEntry:
    """A term of the source with its wordings in the target."""

    source: Wording
    targets: tuple[Wording, ...]
    place: str  # for errors, such as `terms.tsv line 3`

    def suits(self, text: str) -> bool:
        """Return whether a stretch of text of the same letters is this term.

        A term in lower case may be written in any case; one with capitals as it is, or in capitals throughout.
        """
        term = self.source.text
        return term == lower_each(term) or text == term or text == term.upper()

    def wordings(self, text: str) -> tuple[Wording, ...]:
        """Return the wordings for the term as a text writes it, the most fitting case first.

        A wording may always begin with a capital, since it may stand first in its sentence.
        """
        shouted = is_in_capitals(text) and not is_in_capitals(self.source.text)
        loud = [target._replace(text=target.text.upper()) for target in self.targets if shouted]
        initial = [target._replace(text=capitalise(target.text)) for target in self.targets]
        return tuple(dict.fromkeys([*loud, *self.targets, *initial]))


class TermMatch(NamedTuple):
    """A term that stands in a text."""

    start: int
    end: int
    entry: TermEntry


class Glossary:
    """Terms that are found in texts, the longest at each place.

    Args:
      entries: the terms; those of one source add up.
    """

    def __init__(self, entries: Iterable[TermEntry]):
        merged: dict[Wording, TermEntry] = {}
        for entry in entries:
            before = merged.get(entry.source)
            targets = tuple(dict.fromkeys([*(before.targets if before else ()), *entry.targets]))
            merged[entry.source] = TermEntry(entry.source, targets, before.place if before else entry.place)
        self.entries = tuple(merged.values())
        self._by_letters: dict[str, list[TermEntry]] = {}
        for entry in self.entries:
            self._by_letters.setdefault(lower_each(entry.source.text), []).append(entry)
        for found in self._by_letters.values():  # one spelt with capitals is more special than one in lower case
            found.sort(key=lambda entry: (entry.source.text == lower_each(entry.source.text), entry.source.open_end))
        self._lengths = sorted({len(letters) for letters in self._by_letters}, reverse=True)

    @classmethod
    def parse(cls, lines: Iterable[bytes], name: str) -> Self:
        """Read the lines of a glossary; `name` is its name in errors.

        Raises:
          UserError: a line is not UTF-8, has not two columns, or has an empty term.
        """
        return cls(
            entry for number, line in enumerate(lines, start=1) for entry in _read_line(line, f"{name} line {number}")
        )

    @classmethod
    def read(cls, path: os.PathLike[str] | str) -> Self:
        """Read a file.

        Raises:
          UserError: it cannot be read, or as `parse`; or it has no term.
        """
        try:
            content = epath.Path(path).read_bytes()
        except OSError as error:
            raise UserError(f"cannot read the glossary {path}: {error.strerror or error}") from None
        glossary = cls.parse(content.removeprefix(b"\xef\xbb\xbf").split(b"\n"), str(path))
        if not glossary.entries:
            raise UserError(f"{path} has no term: a glossary has lines of a source term, a tab, and a target term")
        return glossary

    def find(self, text: str, taken: Sequence[tuple[int, int]] = ()) -> list[TermMatch]:
        """Return the terms of a text from left to right, without overlaps, the longest first at each place.

        Args:
          text: text in normal form.
          taken: stretches in which no term is looked for, such as addresses.
        """
        letters = lower_each(text)
        free = [True] * len(text)
        for start, end in taken:
            free[start:end] = [False] * (end - start)
        found: list[TermMatch] = []
        for start in range(len(text)):
            if (not found or start >= found[-1].end) and (match := self._longest(text, letters, start, free)):
                found.append(match)
        return found

    def _longest(self, text: str, letters: str, start: int, free: Sequence[bool]) -> TermMatch | None:
        for length in self._lengths:
            end = start + length
            for entry in self._by_letters.get(letters[start:end], ()) if end <= len(text) else ():
                whole = is_whole(text, start, end, open_end=entry.source.open_end)
                if whole and all(free[start:end]) and entry.suits(text[start:end]):
                    return TermMatch(start, end, entry)
        return None


def _read_line(line: bytes, place: str) -> list[TermEntry]:
    try:
        text = line.decode().rstrip("\r")
    except UnicodeDecodeError:
        raise UserError(f"{place} is not UTF-8: write the glossary as UTF-8 text") from None
    if not text.strip():
        return []
    columns = text.split("\t")
    if len(columns) != 2:
        number = "1 column" if len(columns) == 1 else f"{len(columns)} columns"
        raise UserError(
            f"{place} has {number}: a glossary has two, a source term and a target term, with a tab between"
        )
    sources, targets = ([one._replace(text=normalise(one.text)) for one in parse_wordings(c)] for c in columns)
    for side, wordings in (("source", sources), ("target", targets)):
        if not all(one.text for one in wordings):
            raise UserError(f"{place} has an empty {side} term")
    return [TermEntry(source, tuple(targets), place) for source in sources]
