"""Translation memories (`read.kind: tmx`): Translation Memory eXchange 1.1 to 1.4b, of any size.

Source: the TMX 1.4b specification (Localization Industry Standards Association, 2005).
"""

from collections.abc import Iterator

from nmt.corpora.declare.patterns import MatchedPath
from nmt.corpora.declare.spec import CorpusSpec
from nmt.corpora.declare.spec_read_units import Tmx
from nmt.corpora.readers.tree import Tree
from nmt.corpora.readers.units import NO_LANGUAGE, Unit, UnitsReader
from nmt.corpora.readers.xml_stream import inline_text, language_attribute, scan_languages, stream_elements

_ANY = "*all*"  # of `srclang`: every language was translated from


class TmxReader(UnitsReader):
    """An open corpus of translation memories."""

    def __init__(self, spec: CorpusSpec, _: Tmx, tree: Tree, patterns: tuple[str, ...]) -> None:
        super().__init__(spec, tree, patterns)

    def _find_groups(self, found: MatchedPath) -> Iterator[frozenset[str]]:
        codes = frozenset[str]()
        with self._tree.plain(found.name) as file:
            for code in scan_languages(file, ("tuv",)):
                codes |= {code}
                yield codes

    def _read_units(self, found: MatchedPath) -> Iterator[Unit]:
        header = ""
        with self._tree.plain(found.name) as file:
            for place, (element, _) in enumerate(stream_elements(file, ("tmx",), ("header", "tu"))):
                if element.tag == "header":
                    header = element.get("srclang", "")
                    continue
                source = element.get("srclang") or header
                variants = []
                for variant in element.iterfind("tuv"):
                    if not (code := language_attribute(variant)):
                        self._skip(NO_LANGUAGE, f"{found.name} unit {place}")
                    elif (segment := variant.find("seg")) is not None:
                        variants.append((code, inline_text(segment)))
                yield Unit(place, "" if source == _ANY else source, variants)
