"""The text of test sets as WMT and IWSLT publish them: .sgm files, and the .xml files of 2021 and later.

An .sgm file has the sources (srcset) or references (refset) of a test set; a reference is a document with its own
`sysid`. The files are hardly ever SGML: `&` stands bare, elements are not closed, and the language of a source is
`any`. They are read by the tags that matter, and everything between those is text. An .xml file (dataset) has the
source, the references (one a translator) and translations of each document.

The format: https://www.statmt.org/wmt21/translation-task.html and NIST's mteval-v13a.
"""

import html
import re
import xml.parsers.expat
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import IO, Literal

Kind = Literal["source", "reference", "translation"]

_SETS: Mapping[str, Kind] = {"srcset": "source", "refset": "reference", "tstset": "translation"}
_SIDES: Mapping[str, Kind] = {"src": "source", "ref": "reference", "hyp": "translation"}
_ELEMENTS = {*_SETS, *_SIDES, "mteval", "dataset", "collection", "doc", "seg", "hl", "p"}
_UNKNOWN = ("", "any", "und", "unknown")  # languages of files that do not say theirs
_TAG = re.compile(rb"<(/?)(srcset|refset|tstset|mteval|dataset|collection|doc|seg|hl|p)(\s[^<>]*?)?/?>", re.IGNORECASE)
_ATTRIBUTE = re.compile(r"""([\w:.-]+)\s*=\s*(?:"([^"]*)"|'([^']*)'|([^\s"'>]+))""")
# Only references that end in a semicolon: text such as AT&T or R&D is what it says.
_REFERENCE = re.compile(r"&(?:amp|lt|gt|quot|apos|#[0-9]+|#[xX][0-9a-fA-F]+);")
_BREAK = re.compile(r"[ \t]*[\r\n]+[ \t\r\n]*")
_HEAD = 4096  # bytes in which the root of a file is looked for
_ROOT = re.compile(rb"<(dataset|srcset|refset|tstset|mteval)[\s>]", re.IGNORECASE)
_BOM = b"\xef\xbb\xbf"


@dataclass
class WmtSide:
    """A document in one language: its source, one of its references, or a translation of it.

    Attributes:
      kind: source, reference or translation, as in the type.
      language: as it is written there, such as `de` or `German`; empty where the file does not say it.
      author: the `sysid` or `translator` of a reference or translation; empty where there is none.
      document: name of the document, after that of its collection where it is in one.
      segments: the text of each segment, by its number, in order.
    """

    kind: Kind
    language: str
    author: str
    document: str
    segments: dict[str, str] = field(default_factory=dict)


def is_wmt(head: bytes) -> bool:
    """Return whether a file that begins so is a test set of WMT."""
    return _ROOT.search(head[:_HEAD]) is not None


def read_wmt(file: IO[bytes]) -> list[WmtSide]:
    """Return the documents of an .sgm or .xml file, in order.

    Raises:
      ValueError: it is neither, or damaged; a document has a segment twice; or its XML declares entities.
    """
    content = file.read().removeprefix(_BOM)
    if (root := _ROOT.search(content[:_HEAD])) is None:
        raise ValueError("it is no test set of WMT: it has neither srcset, refset nor dataset at its beginning")
    collected = _Sides()
    if root[1].lower() == b"dataset":
        _parse_xml(content, collected)
    else:
        _parse_sgm(content, collected)
    if not collected.sides:
        raise ValueError("it has no document")
    return collected.sides


class _Sides:
    """Collects the sides of documents from the beginnings and ends of elements."""

    def __init__(self) -> None:
        self.sides: list[WmtSide] = []
        self.text: list[str] | None = None  # of the segment that has begun, and not ended
        self._set: tuple[Kind, str] | None = None  # kind and language of an .sgm file
        self._collection = self._document = self._number = ""
        self._side: WmtSide | None = None

    def begin(self, tag: str, attributes: Mapping[str, str]) -> None:
        """Take the beginning of an element; others than those of the format are part of the text around them."""
        if tag not in _ELEMENTS:
            return
        self.end_segment()
        if tag in _SETS:
            language = attributes.get("srclang" if tag == "srcset" else "trglang", "")
            self._set = _SETS[tag], language
        elif tag == "collection":
            self._collection = attributes.get("id", "")
        elif tag == "doc":
            own = attributes.get("docid") or attributes.get("id", "")
            self._document = "/".join(filter(None, (self._collection, own)))
            if self._set:
                self._begin_side(*self._set, attributes.get("sysid", ""))
        elif tag in _SIDES and not self._set:
            author = attributes.get("translator") or attributes.get("system", "")
            self._begin_side(_SIDES[tag], attributes.get("lang", ""), author)
        elif tag == "seg" and self._side is not None:
            self._number = attributes.get("id") or str(len(self._side.segments) + 1)
            self.text = []

    def _begin_side(self, kind: Kind, language: str, author: str) -> None:
        known = "" if language.lower() in _UNKNOWN else language
        self._side = WmtSide(kind, known, "" if kind == "source" else author, self._document)
        self.sides.append(self._side)

    def end(self, tag: str) -> None:
        """Take the end of an element."""
        if tag not in _ELEMENTS:
            return
        self.end_segment()
        if tag in _SIDES or tag == "doc":
            self._side = None
        elif tag == "collection":
            self._collection = ""

    def take(self, text: str) -> None:
        """Take text, which counts within a segment only."""
        if self.text is not None:
            self.text.append(text)

    def end_segment(self) -> None:
        """End the segment that has begun, if there is one. Raises ValueError: its document has it already."""
        if self.text is None or self._side is None:
            return
        if self._number in self._side.segments:
            raise ValueError(f"document {self._side.document!r} has the segment {self._number} twice")
        self._side.segments[self._number] = _BREAK.sub(" ", "".join(self.text)).strip(" \t\r\n")
        self.text = None


def _parse_sgm(content: bytes, collected: _Sides) -> None:
    closed = False  # whether segments are closed in this file
    for tag in _tags(content, lambda text: collected.take(_unescape(text))):
        name = tag[2].decode().lower()
        if tag[1]:
            closed = closed or name == "seg"
            collected.end(name)
        else:
            collected.begin(name, _attributes(_decode(tag[3] or b"", content, tag.start())))
    if collected.text is not None and closed:
        raise ValueError("it ends within a segment")
    collected.end_segment()


def _tags(content: bytes, take: Callable[[str], object]) -> Iterator[re.Match[bytes]]:
    """Yield the tags that matter; the text before each, and after the last, is given to `take` first."""
    end = 0
    for tag in _TAG.finditer(content):
        take(_decode(content[end : tag.start()], content, end))
        yield tag
        end = tag.end()
    take(_decode(content[end:], content, end))


def _decode(part: bytes, content: bytes, place: int) -> str:
    try:
        return part.decode()
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, place + error.start) + 1
        raise ValueError(f"line {line:,} is not UTF-8") from None


def _attributes(text: str) -> dict[str, str]:
    """Return the attributes of a tag; a value may have double quotes, single ones or none."""
    return {one[1].lower(): _unescape(one[2] or one[3] or one[4] or "") for one in _ATTRIBUTE.finditer(text)}


def _unescape(text: str) -> str:
    return _REFERENCE.sub(lambda reference: html.unescape(reference[0]), text)


def _parse_xml(content: bytes, collected: _Sides) -> None:
    parser = xml.parsers.expat.ParserCreate()
    parser.buffer_text = True
    parser.StartElementHandler = collected.begin
    parser.EndElementHandler = collected.end
    parser.CharacterDataHandler = collected.take
    parser.EntityDeclHandler = _refuse_entity
    try:
        parser.Parse(content, True)
    except xml.parsers.expat.ExpatError as error:
        raise ValueError(f"it is no well-formed XML: {error}") from None


def _refuse_entity(name: str, *_: object) -> None:
    raise ValueError(f"its DOCTYPE declares the entity {name!r}, which is not read")
