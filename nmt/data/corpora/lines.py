"""Corpora of parallel text: line n of one file translates line n of the others."""

import contextlib
from collections import defaultdict
from collections.abc import Iterator, Mapping
from typing import IO

from nmt import languages
from nmt.data.corpora.compressed import decompressed
from nmt.data.corpora.patterns import Found
from nmt.data.corpora.read import Row, Source, codes_of
from nmt.data.corpora.spec import CorpusSpec
from nmt.data.corpora.spec_read import ParallelText
from nmt.data.corpora.tree import UNREADABLE, Tree
from nmt.errors import UserError

BOM = b"\xef\xbb\xbf"
NOT_UTF8 = "line that is not UTF-8"


class FilesSource(Source):
    """An open corpus of files, of which some may be of one direction.

    Attributes:
      directions: pairs of canonical codes that some file has both languages of.
    """

    def __init__(self, spec: CorpusSpec, tree: Tree) -> None:
        super().__init__(spec)
        self._tree = tree
        self.directions: set[frozenset[str]] = set()

    def _pairs(self, source: str, target: str) -> bool:
        """Return whether there is a file of a direction (canonical codes), in either order."""
        return frozenset((source, target)) in self.directions

    def _note(self, *groups: frozenset[str]) -> None:
        """Note which languages stand side by side."""
        for group in groups:
            self.directions |= {frozenset((one, other)) for one in group for other in group if one != other}
        sides = groups if self.spec.monolingual else self.directions
        self.languages = sorted({language for side in sides for language in side})

    def _check(self, patterns: tuple[str, ...], found: int) -> None:
        if not found:
            raise UserError(f"corpus {self.spec.name}: there is no file like {' or '.join(patterns)}")

    def close(self) -> None:
        """Nothing stays open but the corpus's archives."""
        self._tree.close()


class LinesSource(FilesSource):
    """An open corpus of parallel text; holds a line of each language at a time."""

    def __init__(self, spec: CorpusSpec, read: ParallelText, tree: Tree, patterns: tuple[str, ...]) -> None:
        super().__init__(spec, tree)
        found = tree.find(patterns)
        self._check(patterns, len(found))
        codes = codes_of(spec, (one.language for one in found))
        self._language_of, self.unregistered = codes.languages, codes.unregistered
        self._groups: dict[tuple[str, ...], dict[str, Found]] = defaultdict(dict)
        for one in found:
            if one.language in self._language_of and (not one.source or one.language in (one.source, one.target)):
                self._groups[one.rest][self._language_of[one.language]] = one
        self._note(*(frozenset(group) for group in self._groups.values()))

    def _rows(self, wanted: frozenset[str]) -> Iterator[Row]:
        for group in sorted(self._groups.values(), key=lambda group: min(one.name for one in group.values())):
            key_language = self._key_of(group)
            used = {key_language: group[key_language]}
            used |= {language: one for language, one in sorted(group.items()) if language in wanted}
            if len(used) > 1:
                yield from self._lines(key_language, used)

    def _key_of(self, group: Mapping[str, Found]) -> str:
        """Return the key language, or else the source, or else the first language."""
        first = next(iter(group.values()))
        source = self._language_of.get(first.source, "")
        return next((one for one in (self.key_language, source) if one in group), min(group))

    def _lines(self, key_language: str, used: Mapping[str, Found]) -> Iterator[Row]:
        names = {language: one.name for language, one in used.items()}
        others = [language for language in names if language != key_language]
        component = used[key_language].component
        with contextlib.ExitStack() as stack:
            files = {
                language: stack.enter_context(decompressed(stack.enter_context(self._tree.open(name)), name))
                for language, name in names.items()
            }
            number = 0
            while lines := self._next(files, names, number):
                texts = {language: self._text(line, number) for language, line in lines.items()}
                number += 1
                if (text := texts[key_language]) is not None:
                    translations = {one: found for one in others if (found := texts[one]) is not None}
                    yield Row(key_language, component, (names[key_language], f"{number:012d}"), text, translations)

    def _next(self, files: Mapping[str, IO[bytes]], names: Mapping[str, str], number: int) -> dict[str, bytes]:
        """Return the next line of every file; none at the end of all.

        Raises:
          UserError: some file ends before another.
        """
        lines: dict[str, bytes] = {}
        for language, file in files.items():
            try:
                lines[language] = file.readline()
            except UNREADABLE as error:
                raise UserError(f"corpus {self.spec.name}: {names[language]}, line {number + 1}: {error}") from None
        if all(lines.values()):
            return lines
        if any(lines.values()):
            counts = {
                names[language]: number + bool(line) + sum(1 for _ in files[language])
                for language, line in lines.items()
            }
            shown = ", ".join(f"{name} has {count:,}" for name, count in counts.items())
            raise UserError(f"corpus {self.spec.name}: files of parallel text have unequal counts of lines: {shown}")
        return {}

    def _text(self, line: bytes, number: int) -> str | None:
        try:
            return (line.removeprefix(BOM) if number == 0 else line).decode("utf-8").rstrip("\r\n")
        except UnicodeDecodeError:
            self.skipped[NOT_UTF8] += 1
            return None


def canonical(code: str) -> str | None:
    """Return the canonical code of a language that the registry knows, or None."""
    try:
        return languages.get(code).code
    except UserError:
        return None
