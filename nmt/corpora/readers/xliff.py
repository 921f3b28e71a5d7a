"""Localisation files of XLIFF (`read.kind: xliff`): versions 1.0 to 1.2 and 2.0 to 2.1, of any size.

Sources: XLIFF 1.2 (OASIS, 2008) and 2.1 (OASIS, 2018). Of 1.2, segments that tools mark within a unit
(`<mrk mtype="seg">`) are taken one by one, with the states that SDL's files (.sdlxliff) give them.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from xml.etree.ElementTree import Element

from nmt.corpora.declare.patterns import MatchedPath
from nmt.corpora.declare.spec import CorpusSpec
from nmt.corpora.declare.spec_read_units import Xliff
from nmt.corpora.readers.tree import Tree
from nmt.corpora.readers.units import OTHER_LANGUAGE, Unit, UnitsReader
from nmt.corpora.readers.xml_stream import StartTag, XmlElement, inline_text, language_attribute, stream_elements
from nmt.errors import UserError

NO_TARGET_LANGUAGE = "unit without a target language"
UNTRANSLATED = "untranslated unit"
NOT_TO_TRANSLATE = "unit that is not to be translated"

_DRAFTS = frozenset(("new", "initial", "Draft", "Unspecified", "RejectedTranslation", "RejectedSignOff"))


@dataclass(frozen=True)
class _Segment:
    """A part of a unit that is translated as a whole; `draft`: its state, where that says that it is not done."""

    source: Element | None
    target: Element | None
    draft: str


class XliffReader(UnitsReader):
    """An open corpus of XLIFF files."""

    def __init__(self, spec: CorpusSpec, read: Xliff, tree: Tree, patterns: tuple[str, ...]) -> None:
        self._drafts = read.drafts
        super().__init__(spec, tree, patterns)

    def _find_groups(self, found: MatchedPath) -> Iterator[frozenset[str]]:
        for unit in self._read_units(found):
            codes = frozenset(code for code, _ in unit.variants if code)
            if len(codes) > 1 or self.spec.monolingual:
                yield codes

    def _without_languages(self) -> UserError:
        more = "; say it by the path, as in files: messages.{language}.xlf"
        return UserError(f"{super()._without_languages()}{more if NO_TARGET_LANGUAGE in self._first else ''}")

    def _read_units(self, found: MatchedPath) -> Iterator[Unit]:
        with self._tree.plain(found.name) as file:
            for place, unit in enumerate(stream_elements(file, ("xliff",), ("trans-unit", "unit")), start=1):
                source, target = _languages(unit.around)
                for segment in _segments(unit.element):
                    variants = [
                        (_code(segment.source) or source or found.source, _text(segment.source)),
                        (_code(segment.target) or target or _target(found), _text(segment.target)),
                    ]
                    left_out = self._left_out(segment, variants, found) if _is_translated(unit) else NOT_TO_TRANSLATE
                    yield Unit(place, variants[0][0], variants, left_out)

    def _left_out(self, segment: _Segment, variants: Sequence[tuple[str, str]], found: MatchedPath) -> str:
        """Return why a segment is left out; empty: it is not."""
        (source, _), (target, translation) = variants
        if not translation:
            return UNTRANSLATED
        if segment.draft and not self._drafts:
            return f"draft unit ({segment.draft})"
        if not target:
            return NO_TARGET_LANGUAGE
        contradicts = self._contradicts(source, found.source) or self._contradicts(target, _target(found))
        return OTHER_LANGUAGE if contradicts else ""


def _target(found: MatchedPath) -> str:
    """Return the code of the language of translations in a path, or nothing."""
    return found.target or found.language


def _code(element: Element | None) -> str:
    return "" if element is None else language_attribute(element)


def _text(element: Element | None) -> str:
    text = "" if element is None else inline_text(element)
    return "" if text.isspace() else text


def _languages(around: Sequence[StartTag]) -> tuple[str, str]:
    """Return the codes of the languages of source and target that the file gives, empty where it does not."""
    told = {key: value for _, attributes in around for key, value in attributes.items()}
    names = (("source-language", "srcLang"), ("target-language", "trgLang"))
    source, target = (next((told[name] for name in either if told.get(name)), "") for either in names)
    return source, target


def _is_translated(unit: XmlElement) -> bool:
    """Return whether a unit may be translated: what stands nearest to it decides."""
    around = [attributes for _, attributes in unit.around]
    told = [attributes["translate"] for attributes in (*around, unit.element.attrib) if "translate" in attributes]
    return not told or told[-1] != "no"


def _segments(unit: Element) -> Iterator[_Segment]:
    """Yield the segments of a unit; its `<alt-trans>` and `<mtc:matches>` are no translations of it."""
    if unit.tag == "unit":
        for segment in unit.iterfind("segment"):
            yield _Segment(segment.find("source"), segment.find("target"), _draft(segment.get("state", "")))
        return
    source, target, divided = unit.find("source"), unit.find("target"), unit.find("seg-source")
    state = "" if target is None else target.get("state", "")
    draft = "approved no" if not state and unit.get("approved") == "no" else _draft(state)
    sources, targets = _marked(divided), _marked(target)
    if not sources or not targets:
        yield _Segment(source, target, draft)
        return
    told = [one for definitions in unit if definitions.tag == "sdl:seg-defs" for one in definitions]
    states = {one.get("id"): one.get("conf", "Unspecified") for one in told}
    for mark in dict.fromkeys((*sources, *targets)):
        yield _Segment(sources.get(mark), targets.get(mark), _draft(states.get(mark, "")) or draft)


def _marked(element: Element | None) -> dict[str, Element]:
    """Return the segments that are marked within an element, by their ids."""
    marks = [] if element is None else element.iter("mrk")
    return {mark.get("mid", ""): mark for mark in marks if mark.get("mtype") == "seg"}


def _draft(state: str) -> str:
    return f"state {state}" if state in _DRAFTS or state.startswith("needs-") else ""
