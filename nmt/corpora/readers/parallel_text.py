"""Corpora of parallel text (`read.kind: parallel_text`): line n of one file translates line n of the others."""

import contextlib
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from typing import IO

from nmt.corpora.declare.patterns import MatchedPath
from nmt.corpora.declare.spec import CorpusSpec
from nmt.corpora.declare.spec_read import ParallelText
from nmt.corpora.readers.compressed import stem
from nmt.corpora.readers.document_names import document_name
from nmt.corpora.readers.files import FilesReader
from nmt.corpora.readers.reader import EMPTY, Row, check_codes, match_codes
from nmt.corpora.readers.tree import UNREADABLE, Tree, error_reason
from nmt.errors import UserError

_IDS = "ids"  # in place of the language, in downloads of OPUS: documents and ids of sentences, line by line
_DOCUMENTS = ""  # in place of a language, among open files


class ParallelTextReader(FilesReader):
    """An open corpus of parallel text; holds a line of each language at a time."""

    def __init__(self, spec: CorpusSpec, read: ParallelText, tree: Tree, patterns: tuple[str, ...]) -> None:
        super().__init__(spec, tree)
        found, beside = self._part(tree.find(patterns), read.documents)
        self._check(patterns, len(found))
        codes = match_codes(spec, (code for one in found for code in (one.language, one.source, one.target) if code))
        self._language_of, self.unregistered = codes.languages, codes.unregistered
        groups = self._group(found)
        check_codes(spec, codes, ((one.language for one in group) for group in groups.values()))
        self._groups = [{self._language_of[one.language]: one for one in group} for group in groups.values()]
        self._documents = self._find_documents(groups, beside) if read.documents else {}
        self._note(*map(frozenset, self._groups))
        self._noted_at_opening = self.unreadable, self.skipped, self._first

    def _part(self, found: Sequence[MatchedPath], documents: str) -> tuple[list[MatchedPath], list[MatchedPath]]:
        """Return files of text, and files that name the documents of lines; what OPUS calls .ids is never text."""
        names = {documents, *({_IDS} - self.spec.languages.keys())} - {""}
        texts = [one for one in found if one.language not in names]
        return texts, [one for one in found if one.language == documents and documents]

    def _find_documents(
        self, groups: Mapping[tuple[str, ...], Sequence[MatchedPath]], beside: Sequence[MatchedPath]
    ) -> dict[str, MatchedPath]:
        """Return the file that names the documents of a file's lines, by the name of the file.

        Raises:
          UserError: there is none beside some file.
        """
        by_rest = {_unpacked_rest(one): one for one in beside}
        if missing := [group[0].name for rest, group in groups.items() if rest not in by_rest]:
            more = f" and {len(missing) - 1:,} more" if len(missing) > 1 else ""
            raise UserError(
                f"corpus {self.spec.name}: there is no file of documents beside {missing[0]}{more}: leave out "
                "read.documents, or those files"
            )
        return {one.name: by_rest[rest] for rest, group in groups.items() for one in group}

    def _group(self, found: Sequence[MatchedPath]) -> dict[tuple[str, ...], list[MatchedPath]]:
        """Return the files of known languages, those together whose paths differ in nothing else.

        Raises:
          UserError: two have one name, but for their compression.
        """
        groups: dict[tuple[str, ...], dict[str, MatchedPath]] = defaultdict(dict)
        for one in found:
            if one.language not in self._language_of:
                continue
            if one.source and self._language_of[one.language] not in map(
                self._language_of.get, (one.source, one.target)
            ):
                self._skip("file of a language that is none of its direction", one.name)
                continue
            other = groups[_unpacked_rest(one)].setdefault(one.language, one)
            if other is not one:
                raise UserError(
                    f"corpus {self.spec.name}: {other.name} and {one.name} are of the same texts; remove one"
                )
        for group in groups.values():
            if len(group) == 1 and not self.spec.monolingual:
                self._skip("file without one of another language beside it", next(iter(group.values())).name)
        return {rest: list(group.values()) for rest, group in groups.items()}

    def _rows(self, wanted: frozenset[str]) -> Iterator[Row]:
        for group in sorted(self._groups, key=lambda group: min(one.name for one in group.values())):
            key_language = self._choose_key(group)
            used = {key_language: group[key_language]}
            used |= {language: one for language, one in sorted(group.items()) if language in wanted}
            if len(used) > 1:
                yield from self._side_by_side(key_language, used)

    def _choose_key(self, group: Mapping[str, MatchedPath]) -> str:
        """Return the key language, or else the source, or else the first language."""
        first = next(iter(group.values()))
        source = self._language_of.get(first.source, "")
        return next((one for one in (self.key_language, source) if one in group), min(group))

    def _side_by_side(self, key_language: str, used: Mapping[str, MatchedPath]) -> Iterator[Row]:
        names = {language: one.name for language, one in used.items()}
        others = [language for language in names if language != key_language]
        first = used[key_language]
        if documents := self._documents.get(first.name):
            names[_DOCUMENTS] = documents.name
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
                if (text := texts[key_language]) is None or (document := texts.get(_DOCUMENTS, "")) is None:
                    continue
                translations = {one: found for one in others if (found := texts[one]) is not None}
                component = _join_document(first, document)
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
                counts.append(f"{names[language]} is damaged ({error_reason(error)})")
        shown = ", ".join(counts)
        return UserError(
            f"corpus {self.spec.name}: files of parallel text have unequal counts of lines: {shown}; get them again"
        )


def _unpacked_rest(found: MatchedPath) -> tuple[str, ...]:
    """Return the path of a file without its language, and without the ending of its compression."""
    *rest, end = found.rest
    return (*rest, stem(end))


def _join_document(found: MatchedPath, line: str) -> str:
    """Return the component of a line of text, given the line of the file of documents, which may be empty."""
    codes = {code for code in (found.language, found.source, found.target) if code}
    document = document_name(line.partition("\t")[0].strip(), codes)
    return "/".join(filter(None, (found.component, document)))
