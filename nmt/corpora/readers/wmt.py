"""Corpora of test sets of WMT and IWSLT (`read.kind: wmt`)."""

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence

from nmt.corpora.declare.patterns import MatchedPath
from nmt.corpora.declare.spec import CorpusSpec
from nmt.corpora.declare.spec_read_testsets import Wmt
from nmt.corpora.readers.file_names import divide_name
from nmt.corpora.readers.files import FilesReader
from nmt.corpora.readers.reader import EMPTY, Row, match_codes
from nmt.corpora.readers.tree import UNREADABLE, Tree
from nmt.corpora.readers.wmt_sets import SegmentName, WmtSet
from nmt.corpora.readers.wmt_text import WmtSide, read_wmt

FURTHER_REFERENCE = "further reference of a segment"
NO_LANGUAGE_NAMED = "document whose language neither its file nor the name of that says"
SYSTEM_TRANSLATION = "document that a system translated"
ONE_SIDED_SEGMENT = "segment without text on a side"

_Group = Sequence[MatchedPath]


class WmtReader(FilesReader):
    """An open corpus of test sets; holds one set at a time."""

    def __init__(self, spec: CorpusSpec, read: Wmt, tree: Tree, patterns: tuple[str, ...]) -> None:
        super().__init__(spec, tree)
        found = tree.find(patterns)
        self._check(patterns, len(found))
        groups: dict[tuple[str, str], list[MatchedPath]] = defaultdict(list)
        for one in found:
            folder, _, name = ("".join(one.rest) if one.language else one.name).rpartition("/")
            groups[folder, divide_name(name).group].append(one)
        self._groups = list(groups.values())
        raw = [{_code(one, side) for one in group for side in self._sides(one)} - {""} for group in self._groups]
        codes = match_codes(spec, (code for group in raw for code in group))
        self._language_of, self.unregistered = codes.languages, codes.unregistered
        known = self._language_of.keys()
        self._note(*(frozenset(self._language_of[code] for code in group & known) for group in raw))

    def _sides(self, found: MatchedPath) -> list[WmtSide]:
        """Return the documents of a file, none if it cannot be read; those by systems are counted."""
        try:
            with self._tree.plain(found.name) as file:
                if not file.read(1):
                    self._skip(EMPTY, found.name)
                    return []
            with self._tree.plain(found.name) as file:
                return read_wmt(file)
        except UNREADABLE as error:
            self._unread(found.name, error)
            return []

    def _gather(self, group: _Group) -> WmtSet | None:
        """Return the text of a set; None if one of its files cannot be read."""
        gathered = WmtSet()
        for found in group:
            if not (sides := self._sides(found)):
                return None
            for side in sides:
                place = f"{found.name} document {side.document}"
                if side.kind == "translation":
                    self._skip(SYSTEM_TRANSLATION, place)
                elif not (code := _code(found, side)):
                    self._skip(NO_LANGUAGE_NAMED, place)
                elif code in self._language_of:
                    try:
                        gathered.add(side, self._language_of[code], found.name)
                    except ValueError as error:
                        self._unread(found.name, error)
                        return None
        return gathered

    def _rows(self, wanted: frozenset[str]) -> Iterator[Row]:
        for group in self._groups:
            if not (gathered := self._gather(group)):
                continue
            texts = {language: found for language in self.languages if (found := gathered.texts(language))}
            if not texts:
                continue
            key_language = self.key_language if self.key_language in texts else next(iter(texts))
            used = {language: texts[language] for language in texts if language in wanted or language == key_language}
            yield from self._segments(group, key_language, used, texts)
            self._count_references(gathered, group)

    def _segments(
        self, group: _Group, key_language: str, used: Mapping[str, Mapping[SegmentName, str]],
        texts: Mapping[str, Mapping[SegmentName, str]],
    ) -> Iterator[Row]:  # fmt: skip
        component = _component(group)
        names = dict.fromkeys(name for language in texts for name in texts[language])
        for place, name in enumerate(names, start=1):
            sides = {language: found[name] for language, found in texts.items() if found.get(name, "").strip()}
            if len(sides) < 2 or key_language not in sides:
                self._skip(ONE_SIDED_SEGMENT, _shown(group, name))
                continue
            translations = {language: sides[language] for language in used if language in sides}
            text = translations.pop(key_language)
            if translations:
                yield Row(key_language, component, (group[0].name, f"{place:09d}"), text, translations)

    def _single_rows(self, wanted: frozenset[str]) -> Iterator[Row]:
        for group in self._groups:
            if not (gathered := self._gather(group)):
                continue
            for language in sorted(wanted):
                for place, text in enumerate(gathered.texts(language).values(), start=1):
                    if text.strip():
                        yield Row(language, _component(group), (group[0].name, f"{place:09d}"), text, {})
            self._count_references(gathered, group)

    def _count_references(self, gathered: WmtSet, group: _Group) -> None:
        """Count the references of each language beyond its first text."""
        for language, authors in gathered.references.items():
            first = gathered.texts(language)
            for author in authors.values():
                for name, text in author.items() if author is not first else ():
                    if text.strip() and language not in gathered.sources:
                        self._skip(FURTHER_REFERENCE, _shown(group, name))


def _code(found: MatchedPath, side: WmtSide) -> str:
    """Return the code of a document's language: of the path's {language}, else as it says, else of its file's name."""
    return found.language or side.language or divide_name(found.name.rpartition("/")[2]).language


def _component(group: _Group) -> str:
    components = {one.component for one in group}
    if len(components) == 1 and (component := components.pop()):
        return component
    return divide_name(group[0].name.rpartition("/")[2]).group.removesuffix(".sgm").removesuffix(".xml")


def _shown(group: _Group, name: SegmentName) -> str:
    document, number = name
    return f"{group[0].name} document {document} segment {number}"
