"""Terminologies (`read.kind: tbx`): TermBase eXchange 2 and 3, of any size, whose terms are short texts.

Sources: ISO 30042:2008 and ISO 30042:2019; status values are those of the data category administrativeStatus.
"""

from collections.abc import Iterator
from xml.etree.ElementTree import Element

from nmt.corpora.declare.patterns import MatchedPath
from nmt.corpora.declare.spec import CorpusSpec
from nmt.corpora.declare.spec_read_units import Tbx
from nmt.corpora.readers.tree import Tree
from nmt.corpora.readers.units import NO_LANGUAGE, Unit, UnitsReader
from nmt.corpora.readers.xml_stream import inline_text, language_attribute, scan_languages, stream_elements

NOT_TO_USE = "term that is deprecated, superseded or forbidden"

_ENTRIES = ("termEntry", "conceptEntry")
_LANGUAGES = ("langSet", "langSec")
_TERMS = ("tig", "ntig", "termSec")
_STATUSES = ("administrativeStatus", "normativeAuthorization")
_AVOIDED = ("deprecated", "superseded", "forbidden", "obsolete", "notrecommended", "prohibited")


class TbxReader(UnitsReader):
    """An open corpus of terminologies; an entry is a unit."""

    def __init__(self, spec: CorpusSpec, _: Tbx, tree: Tree, patterns: tuple[str, ...]) -> None:
        super().__init__(spec, tree, patterns)

    def _find_groups(self, found: MatchedPath) -> Iterator[frozenset[str]]:
        codes = frozenset[str]()
        with self._tree.plain(found.name) as file:
            for code in scan_languages(file, _LANGUAGES):
                codes |= {code}
                yield codes

    def _read_units(self, found: MatchedPath) -> Iterator[Unit]:
        with self._tree.plain(found.name) as file:
            for place, (entry, around) in enumerate(stream_elements(file, ("martif", "tbx"), _ENTRIES), start=1):
                source = around[0][1].get("xml:lang", "")
                yield Unit(place, source, list(self._terms(entry, f"{found.name} unit {place}")))

    def _terms(self, entry: Element, place: str) -> Iterator[tuple[str, str]]:
        """Yield the terms of an entry that are to be used, with the codes of their languages."""
        for languages in entry:
            for group in languages if languages.tag in _LANGUAGES else ():
                if group.tag not in _TERMS or (term := group.find(".//term")) is None:
                    continue
                if not (code := language_attribute(languages)):
                    self._skip(NO_LANGUAGE, place)
                elif any(map(_is_avoided, group.iter())):
                    self._skip(NOT_TO_USE, place)
                else:
                    yield code, inline_text(term)


def _is_avoided(note: Element) -> bool:
    """Return whether a note on a term, in the style of attributes or of elements, says that it is not to be used."""
    kind = note.get("type") or note.tag.rpartition(":")[2]
    value = "".join((note.text or "").casefold().split()).replace("-", "")
    return kind in _STATUSES and value.startswith(_AVOIDED)
