"""Qt's translation files (.ts): messages with their translations, in files of any size.

Source: the Qt Linguist manual, "TS file format". Of the forms of a plural the last one is the translation.
"""

from collections.abc import Iterator, Mapping
from xml.etree.ElementTree import Element

from nmt.corpora.declare.patterns import MatchedPath
from nmt.corpora.readers.units import OTHER_LANGUAGE, Unit, UnitsReader
from nmt.corpora.readers.xml_stream import stream_elements

_LEFT_OUT = {
    "unfinished": "unfinished translation",
    "obsolete": "obsolete translation",
    "vanished": "obsolete translation",
}
_UNTRANSLATED = "untranslated message"


class QtReader(UnitsReader):
    """An open corpus of Qt's translation files; a message is a unit.

    Languages are those that the file gives, or else the key language of messages and the path's of translations.
    """

    def _find_groups(self, found: MatchedPath) -> Iterator[frozenset[str]]:
        for unit in self._read_units(found):
            yield frozenset(code for code, _ in unit.variants if code)
            if not self.spec.monolingual:
                return  # all units of a file are of these languages

    def _read_units(self, found: MatchedPath) -> Iterator[Unit]:
        with self._tree.plain(found.name) as file:
            for place, (message, around) in enumerate(stream_elements(file, ("TS",), ("message",)), start=1):
                yield self._unit(place, message, around[0][1], found)

    def _unit(self, place: int, message: Element, told: Mapping[str, str], found: MatchedPath) -> Unit:
        source = told.get("sourcelanguage") or self.spec.read.key_language
        target = told.get("language") or found.language
        translation = message.find("translation")
        forms = [] if translation is None else list(translation.iterfind("numerusform")) or [translation]
        variants = [(source, _text(message.find("source"))), (target, _text(forms[-1] if forms else None))]
        if not variants[1][1].strip():
            return Unit(place, source, variants, _UNTRANSLATED)
        kind = "" if translation is None else translation.get("type", "")
        contradicts = self._contradicts(target, found.language)
        return Unit(place, source, variants, _LEFT_OUT.get(kind, OTHER_LANGUAGE if contradicts else ""))


def _text(element: Element | None) -> str:
    """Return the text of an element: of variants in length the first, and bytes as the characters that they are."""
    if element is None:
        return ""
    element = element.find("lengthvariant") if element.find("lengthvariant") is not None else element
    assert element is not None
    parts = [element.text or ""]
    for inner in element:
        if inner.tag == "byte":
            parts.append(_character(inner.get("value", "")))
        parts.append(inner.tail or "")
    return "".join(parts)


def _character(value: str) -> str:
    """Return the character that `<byte value="x41"/>` or `value="65"` stands for, or nothing."""
    digits, base = (value[1:], 16) if value.startswith("x") else (value, 10)
    try:
        return chr(int(digits, base))
    except (ValueError, OverflowError):
        return ""
