"""Corpora of units: files whose units hold the texts of two or more languages that translate each other."""

from abc import abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

from nmt.corpora.declare.patterns import MatchedPath
from nmt.corpora.declare.spec import CorpusSpec
from nmt.corpora.readers.files import FilesReader
from nmt.corpora.readers.reader import EMPTY, Row, match_codes
from nmt.corpora.readers.tree import UNREADABLE, Tree
from nmt.errors import UserError

NO_LANGUAGE = "text without a language"
NO_SIDE = "unit without text on a side"
ONE_LANGUAGE = "unit whose texts are all of one language"
OTHER_LANGUAGE = "unit in another language than its path says"


class Unit(NamedTuple):
    """A unit of a file: texts that translate each other.

    Attributes:
      place: its number in the file, from 1.
      source: the file's code of the language that was translated from; empty if the file does not give it.
      variants: codes of languages, as the file writes them, and texts; a language may have several.
      left_out: the reason to leave it out; empty: it is used.
    """

    place: int
    source: str
    variants: Sequence[tuple[str, str]]
    left_out: str = ""


class UnitsReader(FilesReader):
    """An open corpus of units; holds one at a time.

    Codes of one language, such as en-US and en-GB, are all this language. Where a unit has several texts of a language,
    each text of the key language stands beside each of the others; texts of two other languages stand side by side.
    """

    def __init__(self, spec: CorpusSpec, tree: Tree, patterns: tuple[str, ...]) -> None:
        super().__init__(spec, tree)
        self._found = tree.find(patterns)
        self._check(patterns, len(self._found))
        self._key_language = self.key_language  # looked up once, not for every unit
        self._canonical: dict[str, str] = {"": ""}  # codes that the registry knows by codes of headers and paths
        groups = [group for one in self._found for group in self._groups(one)]
        codes = match_codes(spec, {code for group in groups for code in group})
        self._language_of, self.unregistered = codes.languages, codes.unregistered
        known = self._language_of.keys()
        self._note(*(frozenset(self._language_of[code] for code in group & known) for group in groups))

    def _groups(self, found: MatchedPath) -> set[frozenset[str]]:
        """Return the file's codes of languages that stand side by side; a file without any is read for its damage."""
        groups = set()
        try:
            for group in self._find_groups(found):
                groups.add(group)
        except UNREADABLE as error:
            self._unread(found.name, error)
        if not groups:
            for unit in self._units(found):
                if unit.left_out:
                    self._skip(unit.left_out, f"{found.name} unit {unit.place}")
        return groups

    def _without_languages(self) -> UserError:
        left_out = "".join(f"; left out: {kind} ({count} times)" for kind, count in self.skipped.items())
        return UserError(f"{super()._without_languages()}{left_out}")

    def _units(self, found: MatchedPath) -> Iterator[Unit]:
        """Yield the units of a file as far as it can be read."""
        done = 0
        try:
            for unit in self._read_units(found):
                done = unit.place
                yield unit
        except UNREADABLE as error:
            self._unread(found.name, error, done, "unit")
            return
        if not done:
            self._skip(EMPTY, found.name)

    def _rows(self, wanted: frozenset[str]) -> Iterator[Row]:
        for found in self._found:
            for unit in self._units(found):
                texts = self._texts(unit)
                if why := unit.left_out or _one_sided(texts):
                    self._skip(why, f"{found.name} unit {unit.place}")
                    continue
                key_language = self._choose_key(unit, texts)
                used = {one: variants for one, variants in texts.items() if one in wanted and one != key_language}
                yield from _paired(found, unit, key_language, texts[key_language], used)

    def _single_rows(self, wanted: frozenset[str]) -> Iterator[Row]:
        for found in self._found:
            for unit in self._units(found):
                for language, texts in self._texts(unit).items():
                    for number, text in enumerate(texts):
                        if language in wanted:
                            yield Row(language, found.component, _key(found, unit, number), text, {})

    def _texts(self, unit: Unit) -> dict[str, list[str]]:
        """Return the texts of a unit by their languages."""
        texts: dict[str, list[str]] = {}
        for code, text in unit.variants:
            if text and not text.isspace() and (language := self._language_of.get(code)):
                texts.setdefault(language, []).append(text)
        return texts

    def _choose_key(self, unit: Unit, texts: Mapping[str, Sequence[str]]) -> str:
        """Return the key language, or else the one that was translated from, or else the first."""
        if self._key_language in texts:
            return self._key_language
        source = self._known(unit.source)
        return source if source in texts else next(iter(texts))

    def _known(self, code: str) -> str:
        """Return the canonical code of a language, empty if it is unknown or not used."""
        if code not in self._canonical:
            self._canonical[code] = match_codes(self.spec, [code]).languages.get(code, "")
        return self._canonical[code]

    def _contradicts(self, code: str, path: str) -> bool:
        """Return whether a file gives one language, and its path another."""
        return bool(self._known(code) and self._known(path)) and self._known(code) != self._known(path)

    @abstractmethod
    def _find_groups(self, found: MatchedPath) -> Iterator[frozenset[str]]:
        """Yield the file's codes of languages that stand side by side; an error of `UNREADABLE` ends them."""

    @abstractmethod
    def _read_units(self, found: MatchedPath) -> Iterator[Unit]:
        """Yield the units of a file; an error of `UNREADABLE` ends them where it is damaged."""


def _one_sided(texts: Mapping[str, Sequence[str]]) -> str:
    """Return why the texts of a unit are no pair; empty: they are one."""
    if len(texts) > 1:
        return ""
    return ONE_LANGUAGE if any(len(variants) > 1 for variants in texts.values()) else NO_SIDE


def _paired(
    found: MatchedPath, unit: Unit, key_language: str, texts: Sequence[str], others: Mapping[str, Sequence[str]]
) -> Iterator[Row]:
    """Yield a row for every text of the key language beside every text of the others."""
    most = max(map(len, others.values()), default=0)
    for first, text in enumerate(texts):
        for number in range(most):
            translations = {one: variants[number] for one, variants in others.items() if number < len(variants)}
            yield Row(key_language, found.component, _key(found, unit, first * most + number), text, translations)


def _key(found: MatchedPath, unit: Unit, number: int) -> tuple[str, ...]:
    return found.name, f"{unit.place:012d}", f"{number:03d}"
