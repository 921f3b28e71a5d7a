"""Tatoeba's exports (`read.kind: tatoeba`): sentences with numbers, and links between the numbers of translations.

Source: tatoeba.org/downloads, which describes the columns.
"""

import contextlib
from collections.abc import Iterator, Mapping
from typing import IO, NamedTuple

from nmt.corpora.declare.patterns import MatchedPath, expand_variables
from nmt.corpora.declare.spec import CorpusSpec
from nmt.corpora.declare.spec_read_links import Tatoeba
from nmt.corpora.readers.files import NOT_UTF8, FilesReader
from nmt.corpora.readers.reader import EMPTY, NO_TEXT, Row, match_codes
from nmt.corpora.readers.sentence_index import MOST, SentenceIndex, parse_links
from nmt.corpora.readers.tree import UNREADABLE, Tree

NO_NUMBER = "line without the number, language and text of a sentence"
NO_LANGUAGE = "sentence whose language is not known"
REPEATED = "sentence with the number of another one"
NO_LINK = "line without two numbers of sentences"
ABSENT = "link to a sentence that is not there"
SAME_LANGUAGE = "link between two sentences of one language"

_UNKNOWN = (b"\\N", b"", b"unknown")  # instead of a code
_LONGEST_CODE = 16
_LINES = 2_000  # of links, at once


class _Sentence(NamedTuple):
    line: int
    number: int
    code: bytes
    text: bytes


class TatoebaReader(FilesReader):
    """An open export of Tatoeba; texts of the wanted languages are kept in a temporary file while rows are read."""

    def __init__(self, spec: CorpusSpec, read: Tatoeba, tree: Tree, patterns: tuple[str, ...]) -> None:
        super().__init__(spec, tree)
        self._sentences = tree.find(patterns)
        self._check(patterns, len(self._sentences))
        companions = tuple(expand_variables(pattern, f"corpus {spec.name}") for pattern in read.companions)
        self._links = tree.find(companions)
        if not spec.monolingual:
            self._check(companions, len(self._links))
        found = {code for one in self._sentences for code in ([one.language] if one.language else self._scan(one))}
        codes = match_codes(spec, found)
        self._language_of, self.unregistered = codes.languages, codes.unregistered
        self._note(frozenset(self._language_of.values()))

    def _scan(self, found: MatchedPath) -> Iterator[str]:
        """Yield the codes of a file's languages; damage is noted when its rows are read."""
        told = set(_UNKNOWN)
        with contextlib.suppress(*UNREADABLE), self._tree.plain(found.name) as file:
            for line in file:
                cells = line.split(b"\t", 2)
                if len(cells) == 3 and cells[1] not in told:
                    told.add(cells[1])
                    if len(cells[1]) <= _LONGEST_CODE and cells[0].strip().isdigit():
                        yield cells[1].decode("utf-8", "replace")

    def _read_sentences(self, found: MatchedPath) -> Iterator[_Sentence]:
        """Yield the sentences of a file, as far as it can be read."""
        done = 0
        try:
            with self._tree.plain(found.name) as file:
                for done, line in enumerate(file, start=1):
                    cells = line.removeprefix(b"\xef\xbb\xbf").rstrip(b"\r\n").split(b"\t", 3)
                    if len(cells) < 3 or not cells[0].isdigit() or (number := int(cells[0])) >= MOST:
                        self._skip(NO_NUMBER, f"{found.name}:{done}")
                    else:
                        yield _Sentence(done, number, cells[1], cells[2])
        except UNREADABLE as error:
            self._unread(found.name, error, done)
            return
        if not done:
            self._skip(EMPTY, found.name)

    def _is_usable(self, found: MatchedPath, sentence: _Sentence) -> bool:
        """Return whether a sentence has text; what has none is counted."""
        place = f"{found.name}:{sentence.line}"
        try:
            if sentence.text.decode("utf-8").strip():
                return True
            self._skip(NO_TEXT, place)
        except UnicodeDecodeError:
            self._skip(NOT_UTF8, place)
        return False

    def _single_rows(self, wanted: frozenset[str]) -> Iterator[Row]:
        languages = {code.encode(): language for code, language in self._language_of.items() if language in wanted}
        for found in self._sentences:
            for one in self._read_sentences(found):
                if one.code in _UNKNOWN:
                    self._skip(NO_LANGUAGE, f"{found.name}:{one.line}")
                elif (language := languages.get(one.code)) and self._is_usable(found, one):
                    key = found.name, f"{one.line:012d}"
                    yield Row(language, str(one.number), key, one.text.decode("utf-8"), {})

    def _rows(self, wanted: frozenset[str]) -> Iterator[Row]:
        key_language = self.key_language
        there = {key_language, *wanted} & {*self.languages}
        used = sorted(there, key=lambda language: (language != key_language, language))
        with contextlib.closing(SentenceIndex()) as index:
            self._fill(index, {language: place for place, language in enumerate(used)})
            for found in self._links:
                self._follow(index, found)
            for kind, count in zip((ABSENT, SAME_LANGUAGE), index.left_out(), strict=True):
                self._skip(kind, "", count)
            for link in index.pairs():
                one = 0 if link.languages[0] < link.languages[1] else 1
                number, translated = link.numbers[one], link.numbers[1 - one]
                translations = {used[link.languages[1 - one]]: link.texts[1 - one]}
                key = f"{number:012d}", f"{translated:012d}"
                yield Row(used[link.languages[one]], str(number), key, link.texts[one], translations)

    def _fill(self, index: SentenceIndex, used: Mapping[str, int]) -> None:
        """Add the sentences of some languages, which have numbers, to an index."""
        wanted = {code.encode(): used[language] for code, language in self._language_of.items() if language in used}
        for found in self._sentences:
            for one in self._read_sentences(found):
                index.note(one.number)
                if one.code in wanted:
                    if self._is_usable(found, one):
                        index.add(one.number, wanted[one.code], one.text)
                elif one.code in _UNKNOWN:
                    self._skip(NO_LANGUAGE, f"{found.name}:{one.line}")
        for number in index.sort():
            self._skip(REPEATED, f"sentence {number}")

    def _follow(self, index: SentenceIndex, found: MatchedPath) -> None:
        """Add the links of a file to an index, as far as it can be read."""
        done = 0
        try:
            with self._tree.plain(found.name) as file:
                for lines in _batches(file):
                    first, second, wrong = parse_links(lines)
                    for place in wrong:
                        self._skip(NO_LINK, f"{found.name}:{done + place + 1}")
                    places = index.link(first, second)
                    for kind, place in ((ABSENT, places.absent), (SAME_LANGUAGE, places.same)):
                        if place >= 0:
                            self._skip(kind, f"{found.name}:{done + place + 1}", 0)
                    done += len(lines)
        except UNREADABLE as error:
            self._unread(found.name, error, done)
            return
        if not done:
            self._skip(EMPTY, found.name)


def _batches(file: IO[bytes]) -> Iterator[list[bytes]]:
    """Yield lines of a file, many at once; what stands before damage too."""
    lines: list[bytes] = []
    try:
        for line in file:
            lines.append(line)
            if len(lines) == _LINES:
                yield lines
                lines = []
    except UNREADABLE:
        yield lines
        raise
    if lines:
        yield lines
