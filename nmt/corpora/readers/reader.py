"""Reading a corpus: what every open corpus gives, whatever its form."""

import re
from abc import ABC, abstractmethod
from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Self

from nmt import languages
from nmt.corpora.declare.patterns import SIDES
from nmt.corpora.declare.spec import CorpusSpec
from nmt.corpora.readers.tree import error_reason
from nmt.errors import UserError

KeyPath = tuple[str, ...]
# Kinds of what is left out.
EMPTY = "empty file"
NO_TEXT = "row without text on a side"
NOT_TEXT = "row with a value that is no text"

_NAMED = 3  # damaged files in an error


@dataclass(frozen=True, slots=True)
class Row:
    """One text of the key language and its translations, as they stand in the corpus."""

    language: str  # the key language's canonical code; of files of pairs without the key language, the source's
    component: str  # what is never divided among splits; the text itself where the declaration says so
    key: KeyPath
    text: str
    translations: Mapping[str, str]  # by the language's canonical code; languages without a translation are absent


@dataclass(frozen=True)
class FileProvenance:
    """Which text was used: one file that was obtained for a corpus."""

    name: str  # of the corpus
    version: str
    licence: str
    sha256: str
    source: str = ""  # where it is from: `PyPI homeassistant`
    homepage: str = ""


class CorpusReader(ABC):
    """An open corpus, to be used in a `with` statement.

    Attributes:
      spec: the declaration.
      place: where a person's own files are looked for; empty for what is fetched.
      languages: canonical codes of the languages that the registry knows, sorted.
      unregistered: codes of the corpus that the registry does not know, sorted; their text is left out.
      unreadable: files that could not be read, or only up to where they are damaged, each once, as paths in the corpus
        with the reason: `NAME: REASON` or `NAME: read as far as line N (REASON)`; noted anew whenever rows are read.
      provenance: one entry a file that was obtained.
      skipped: how often something else was left out, by kind and the place of the first:
        `line that is not UTF-8, first at NAME:LINE`; counted anew whenever rows are read.
    """

    def __init__(self, spec: CorpusSpec) -> None:
        self.spec = spec
        self.place = ""
        self._replacements = [(re.compile(pattern), text) for pattern, text in spec.replace.items()]
        self.languages: list[str] = []
        self.unregistered: list[str] = []
        self.unreadable: list[str] = []
        self.skipped: Counter[str] = Counter()
        self._first: dict[str, str] = {}  # keys of `skipped` by their kinds
        self._noted_at_opening: tuple[list[str], Counter[str], dict[str, str]] = ([], Counter(), {})
        self.provenance: tuple[FileProvenance, ...] = ()

    def rows(self, wanted: Collection[str]) -> Iterator[Row]:
        """Yield the rows in an order that depends on nothing but the corpus's text, in bounded memory.

        Args:
          wanted: canonical codes; only the text of these and of the key language is read. A part of the corpus that
            cannot be read is noted in `unreadable` or `skipped` and otherwise passed over. Of a monolingual corpus
            every text is a row of its own, without translations, and only that of these languages.

        Raises:
          UserError: files do not fit together or to the declaration, or damaged and empty ones leave no pair at all.
        """
        unreadable, skipped, first = self._noted_at_opening
        self.unreadable, self.skipped, self._first = [*unreadable], skipped.copy(), {**first}
        found = False
        by_text = self.spec.split.by == "text"
        rows = self._single_rows(frozenset(wanted)) if self.spec.monolingual else self._rows(frozenset(wanted))
        for row in rows:
            found = found or bool(row.translations) or self.spec.monolingual
            if self._replacements:
                translations = {language: self._replaced(text) for language, text in row.translations.items()}
                row = replace(row, text=self._replaced(row.text), translations=translations)
            yield replace(row, component=row.text) if by_text else row
        if not found and self._damages():
            raise self._nothing_read()

    def _replaced(self, text: str) -> str:
        for pattern, replacement in self._replacements:
            text = pattern.sub(replacement, text)
        return text

    def _unread(self, name: str, error: Exception, count: int = 0, unit: str = "line") -> None:
        """Note that a file could not be read, or only as far as a line or row (from 1)."""
        reason = error_reason(error)
        note = f"{name}: read as far as {unit} {count:,} ({reason})" if count else f"{name}: {reason}"
        if note not in self.unreadable:
            self.unreadable.append(note)

    def note_damaged(self, notes: Iterable[str]) -> None:
        """Note files that could not be opened, or only in part, whenever rows are read: `NAME: REASON`."""
        unreadable, skipped, first = self._noted_at_opening
        self._noted_at_opening = [*unreadable, *notes], skipped, first
        self.unreadable = [*self._noted_at_opening[0]]

    def _skip(self, kind: str, place: str, count: int = 1) -> None:
        """Count something that is left out; `place` is where the first is: NAME or NAME:LINE.

        With a count of 0 only the place is noted, for what is counted later.
        """
        if count or place:
            self.skipped[self._first.setdefault(kind, f"{kind}, first at {place}")] += count

    def _unknown(self) -> str:
        """Return the end of a message that there is no text: codes that could not be made use of."""
        unknown = ", ".join(self.unregistered)
        if any(code in SIDES for code in self.unregistered):
            return (
                f"; {unknown} are no languages: say which they are, as in languages: {{src: de, trg: en}}, or, where "
                "the path has the languages, {source}-{target}/train.{side}"
            )
        return f"; unknown codes of languages: {unknown}; say what they are under languages:" if unknown else ""

    def _damages(self) -> list[str]:
        """Return messages about damaged and empty files."""
        return [*self.unreadable, *([self._first[EMPTY]] if EMPTY in self._first else [])]

    def _nothing_read(self) -> UserError:
        what = "text" if self.spec.monolingual else "pair"
        damages = self._damages()
        more = f"; and {len(damages) - _NAMED} more" if len(damages) > _NAMED else ""
        return UserError(f"corpus {self.spec.name}: no {what} could be read: {'; '.join(damages[:_NAMED])}{more}")

    def has(self, source: str, target: str) -> bool:
        """Return whether there may be text of a direction (canonical codes); of one language: for denoising."""
        if self.spec.monolingual or source == target:
            return self.spec.monolingual and source == target and source in self.languages
        return self._pairs(source, target)

    def _pairs(self, source: str, target: str) -> bool:
        return source in self.languages and target in self.languages

    @property
    def key_language(self) -> str:
        """The canonical code of the language that all others are translated from."""
        return languages.get(self.spec.read.key_language).code

    def _single_rows(self, wanted: frozenset[str]) -> Iterator[Row]:
        """Yield the texts of a monolingual corpus; most forms read no row that has nothing but the key language."""
        return single_rows(self._rows(frozenset(self.languages)), wanted)

    @abstractmethod
    def _rows(self, wanted: frozenset[str]) -> Iterator[Row]: ...

    @abstractmethod
    def close(self) -> None:
        """Close the corpus's files."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def single_rows(rows: Iterable[Row], wanted: Collection[str]) -> Iterator[Row]:
    """Yield a row without translations for every text of some languages."""
    for row in rows:
        for language, text in ((row.language, row.text), *row.translations.items()):
            if text and language in wanted:
                yield replace(row, language=language, text=text, translations={})


@dataclass(frozen=True)
class Codes:
    """Codes that a corpus uses; a language may have several, in different files."""

    languages: Mapping[str, str]  # canonical codes by those of the corpus
    unregistered: list[str]


def match_codes(spec: CorpusSpec, found: Iterable[str]) -> Codes:
    """Return the languages of the codes that a corpus uses, those that the registry knows.

    The declaration's `languages` hold for a code in any capitals, with - or _, as files of one corpus differ in these.

    Raises:
      UserError: the declaration names an unknown language.
    """
    folded = {_fold_code(code): code for code in reversed(spec.languages)}
    known: dict[str, str] = {}
    unregistered = []
    for code in sorted(set(found)):
        declared = code if code in spec.languages else folded.get(_fold_code(code))
        if (name := code if declared is None else spec.languages[declared]) is None:
            continue
        try:
            known[code] = languages.get(name).code
        except UserError as error:
            if declared is not None:
                raise UserError(f"corpus {spec.name}: languages.{declared}: {error}") from None
            unregistered.append(code)
    return Codes(known, unregistered)


def _fold_code(code: str) -> str:
    return code.casefold().replace("_", "-")


def check_codes(spec: CorpusSpec, codes: Codes, together: Iterable[Iterable[str]]) -> None:
    """Raise UserError if codes that stand together, such as columns of one file, are of one language.

    The message names all such codes, and what to write in the declaration to use one of them.

    Args:
      spec: the declaration.
      codes: those of the corpus.
      together: codes of the corpus that belong to the same texts, group by group.
    """
    conflicts: dict[str, set[str]] = defaultdict(set)
    for group in together:
        by_language: dict[str, set[str]] = defaultdict(set)
        for code in group:
            if (language := codes.languages.get(code)) is not None:
                by_language[language].add(code)
        for language, several in by_language.items():
            conflicts[language] |= several if len(several) > 1 else set()
    conflicts = {language: several for language, several in sorted(conflicts.items()) if several}
    if not conflicts:
        return
    shown = ", ".join(f"{' and '.join(sorted(several))} are all {language}" for language, several in conflicts.items())
    unused = (code for language, several in conflicts.items() for code in _unused(language, several))
    mapping = ", ".join(f"{code}: null" for code in unused)
    raise UserError(
        f"corpus {spec.name}: {shown}, for the same texts; say under languages: which are not used, such as "
        f"`languages: {{{mapping}}}`"
    )


def _unused(language: str, codes: set[str]) -> list[str]:
    """Return the codes but one: the canonical one stays if it is there, else the first."""
    kept = language if language in codes else min(codes)
    return sorted(codes - {kept})
