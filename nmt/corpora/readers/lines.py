"""Corpora of parallel text: line n of one file translates line n of the others."""

import contextlib
from collections import defaultdict
from collections.abc import Iterator, Mapping
from typing import IO

from nmt import languages
from nmt.corpora.declare.patterns import Found
from nmt.corpora.declare.spec import CorpusSpec
from nmt.corpora.declare.spec_read import ParallelText
from nmt.corpora.readers.read import EMPTY, Row, Source, codes_of
from nmt.corpora.readers.tree import UNREADABLE, Tree, reason_of
from nmt.errors import UserError

NOT_UTF8 = "line that is not UTF-8"

_BOM = b"\xef\xbb\xbf"
_BOMS_UTF16 = (b"\xff\xfe", b"\xfe\xff")


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
        if not self.languages:
            raise self._without_languages()

    def _without_languages(self) -> UserError:
        """Return why there is nothing to read."""
        if self._damages():
            return self._nothing_read()
        what = "text of a language" if self.spec.monolingual else "text of two languages that belongs together"
        return UserError(f"corpus {self.spec.name}: no file has {what}{self._unknown()}")

    def _check(self, patterns: tuple[str, ...], found: int) -> None:
        if not found:
            raise UserError(f"corpus {self.spec.name}: there is no file like {self._tree.missing(patterns)}")

    def _lines(self, name: str) -> Iterator[tuple[int, str]]:
        """Yield the lines of a file, with their numbers from 1, as far as it can be read."""
        done = 0
        try:
            with self._tree.plain(name) as file:
                for number, line in enumerate(file, start=1):
                    if (text := self._decoded(line, name, number)) is not None:
                        yield number, text
                    done = number
        except UNREADABLE as error:
            self._unread(name, error, done)
            return
        if not done:
            self._skip(EMPTY, name)

    def _decoded(self, line: bytes, name: str, number: int) -> str | None:
        """Return the text of a line, None where it is none.

        Raises:
          ValueError: it is the first line of a file in another encoding.
        """
        if number == 1:
            if line.startswith(_BOMS_UTF16):
                raise ValueError("it is UTF-16, and must be converted to UTF-8")
            line = line.removeprefix(_BOM)
        try:
            return line.decode("utf-8").rstrip("\r\n")
        except UnicodeDecodeError:
            self._skip(NOT_UTF8, f"{name}:{number}")
            return None

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
                yield from self._side_by_side(key_language, used)

    def _key_of(self, group: Mapping[str, Found]) -> str:
        """Return the key language, or else the source, or else the first language."""
        first = next(iter(group.values()))
        source = self._language_of.get(first.source, "")
        return next((one for one in (self.key_language, source) if one in group), min(group))

    def _side_by_side(self, key_language: str, used: Mapping[str, Found]) -> Iterator[Row]:
        names = {language: one.name for language, one in used.items()}
        others = [language for language in names if language != key_language]
        component = used[key_language].component
        with contextlib.ExitStack() as stack:
            files: dict[str, IO[bytes]] = {}
            for language, name in names.items():
                try:
                    files[language] = stack.enter_context(self._tree.plain(name))
                except UNREADABLE as error:
                    self._unread(name, error)
                    return
            number = 0
            while texts := self._next(files, names, number):
                number += 1
                if (text := texts[key_language]) is not None:
                    translations = {one: found for one in others if (found := texts[one]) is not None}
                    yield Row(key_language, component, (names[key_language], f"{number:012d}"), text, translations)

    def _next(self, files: Mapping[str, IO[bytes]], names: Mapping[str, str], done: int) -> dict[str, str | None]:
        """Return the next line of every file, after as many that are done; none at the end, or where one is damaged.

        Raises:
          UserError: some file ends before another.
        """
        lines: dict[str, bytes] = {}
        texts: dict[str, str | None] = {}
        for language, file in files.items():
            try:
                lines[language] = file.readline()
                texts[language] = self._decoded(lines[language], names[language], done + 1)
            except UNREADABLE as error:
                self._unread(names[language], error, done)
                return {}
        if all(lines.values()):
            return texts
        if any(lines.values()):
            raise self._unequal(files, names, {language: done + bool(line) for language, line in lines.items()})
        if not done:
            for name in names.values():
                self._skip(EMPTY, name)
        return {}

    def _unequal(self, files: Mapping[str, IO[bytes]], names: Mapping[str, str], read: Mapping[str, int]) -> UserError:
        """Return the error of files of which some end before others, after the lines that are read."""
        counts = []
        for language, file in files.items():
            try:
                counts.append(f"{names[language]} has {read[language] + sum(1 for _ in file):,}")
            except UNREADABLE as error:
                counts.append(f"{names[language]} is damaged ({reason_of(error)})")
        shown = ", ".join(counts)
        return UserError(f"corpus {self.spec.name}: files of parallel text have unequal counts of lines: {shown}")


def canonical(code: str) -> str | None:
    """Return the canonical code of a language that the registry knows, or None."""
    try:
        return languages.get(code).code
    except UserError:
        return None
