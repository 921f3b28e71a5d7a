"""Elements of XML files of any size, one at a time, by the parser of Python's standard library (Expat).

Nothing outside a file is ever fetched, so that a `<!DOCTYPE tmx SYSTEM "tmx14.dtd">` without the DTD does no harm. A
DOCTYPE that declares entities is refused: no file of text needs them, and they can stand for more than memory holds.
"""

import codecs
import html
import re
from collections.abc import Callable, Collection, Iterator, Mapping
from typing import IO, Any, NamedTuple
from xml.etree.ElementTree import Element, TreeBuilder
from xml.parsers import expat

_CHUNK_BYTES = 1 << 16
_PARSED_BYTES = (
    1 << 13
)  # elements of as much text stay in the processor's cache: twice as fast as with eight times that
_LONGEST_TAG = 1 << 16  # of a start tag in `scan_attributes`
_BOMS = {codecs.BOM_UTF8: "utf-8-sig", codecs.BOM_UTF16_LE: "utf-16", codecs.BOM_UTF16_BE: "utf-16"}
_DECLARED = re.compile(rb"""\s*<\?xml[^>]*?\sencoding\s*=\s*["']([^"']*)""")
_ENDS_EARLY = ("no element found", "unclosed token")

# Inline elements of TMX, XLIFF and TBX whose content is the markup of a document; <sub> is within these only.
_CODES = frozenset(("bpt", "ept", "ph", "it", "ut"))
_BREAKS = frozenset(("lb", "x-lb", "xlf:lb"))  # types of inline elements that are line breaks

StartTag = tuple[str, Mapping[str, str]]  # name and attributes


class XmlElement(NamedTuple):
    """An element with all that is in it, and the start tags of the elements around it, outermost first."""

    element: Element
    around: tuple[StartTag, ...]


def stream_elements(file: IO[bytes], roots: Collection[str], wanted: Collection[str]) -> Iterator[XmlElement]:
    """Yield the elements of some names, which hold none of each other, one at a time; none of an empty file.

    Args:
      file: the content, in UTF-8, UTF-16 or any encoding that its first line declares and Python knows.
      roots: names that the outermost element may have; none: any. Where it has the prefix of a namespace, such as
        `xlf:`, all elements are without it; other names stay as they are written.
      wanted: names of the elements.

    Raises:
      ValueError: the file is no XML, ends early, has another root, or declares entities; what comes before is yielded.
    """
    collector, empty = _Collector(roots, wanted), True
    try:
        for chunk in utf8_chunks(file, _PARSED_BYTES):
            empty, error = False, collector.feed(chunk)
            yield from collector.take()
            if error is not None:
                raise error
        if not empty and (error := collector.feed(b"", final=True)) is not None:
            raise error
    finally:
        collector.close()


class _Collector:
    """Builds the wanted elements of what a parser is fed.

    Within an element that is wanted, and without a prefix to remove from names, the parser calls the builder directly,
    which is twice as fast as a method between them.
    """

    def __init__(self, roots: Collection[str], wanted: Collection[str]) -> None:
        self._roots, self._wanted = roots, wanted
        self._prefix = ""
        self._around: list[StartTag] = []
        self._done: list[XmlElement] = []
        self._builder: TreeBuilder | None = None  # while an element is open that is wanted
        self._parser = expat.ParserCreate("utf-8")
        self._parser.buffer_text = True
        self._parser.EntityDeclHandler = _refuse_entities
        self._parser.SkippedEntityHandler = self._skip_entity
        self._parser.StartElementHandler = self._open_root

    def feed(self, content: bytes, *, final: bool = False) -> ValueError | None:
        """Parse a piece of the file; return what is wrong with it, if anything."""
        try:
            self._parser.Parse(content, final)
        except expat.ExpatError as error:
            ended = any(reason in str(error) for reason in _ENDS_EARLY)
            return ValueError(f"the file ends within an element: {error}" if ended else f"no valid XML: {error}")
        except ValueError as error:
            return error
        return None

    def take(self) -> list[XmlElement]:
        """Return the elements that are complete since the last call."""
        done, self._done = self._done, []
        return done

    def close(self) -> None:
        """Part from the parser: the two refer to each other, and would stay in memory until the next collection."""
        del self._parser

    def _open_root(self, name: str, attributes: dict[str, str]) -> None:
        prefix, colon, local = name.rpartition(":")
        if self._roots and local not in self._roots:
            raise ValueError(f"its outermost element is <{name}>, not {' or '.join(f'<{one}>' for one in self._roots)}")
        self._prefix = prefix + colon
        self._parser.StartElementHandler, self._parser.EndElementHandler = self._start, self._end
        self._start(name, attributes)

    def _start(self, name: str, attributes: dict[str, str]) -> None:
        name = name.removeprefix(self._prefix)
        if name not in self._wanted:
            self._around.append((name, attributes))
            return
        builder = self._builder = TreeBuilder()
        builder.start(name, attributes)
        self._parser.StartElementHandler, end = builder.start, builder.end
        if prefix := self._prefix:
            self._parser.StartElementHandler = lambda inner, told: builder.start(inner.removeprefix(prefix), told)
            end = lambda inner: builder.end(inner.removeprefix(prefix))  # noqa: E731
        self._parser.EndElementHandler = self._ending(prefix + name, end)
        self._parser.CharacterDataHandler = builder.data

    def _ending(self, name: str, end: Callable[[str], Any]) -> Callable[[str], None]:
        """Return the handler of the ends of elements within one of a name, and of its own end."""

        def close(inner: str) -> None:
            end(inner)
            if inner == name:
                self._finish()

        return close

    def _finish(self) -> None:
        assert self._builder is not None
        self._done.append(XmlElement(self._builder.close(), tuple(self._around)))
        self._builder = None
        self._parser.StartElementHandler, self._parser.EndElementHandler = self._start, self._end
        self._parser.CharacterDataHandler = None

    def _end(self, _: str) -> None:
        self._around.pop()

    def _skip_entity(self, name: str, is_parameter: bool) -> None:
        """Keep an entity of a DTD that is not there: as its character if HTML has one of this name, else as it is."""
        if self._builder is not None and not is_parameter:
            self._builder.data(html.unescape(f"&{name};"))


def _refuse_entities(*_: object) -> None:
    raise ValueError("its DOCTYPE declares entities, which are not expanded: write the text itself in their place")


def utf8_chunks(file: IO[bytes], size: int = _CHUNK_BYTES) -> Iterator[bytes]:
    """Yield the content of an XML file in pieces, as UTF-8 without a byte-order mark.

    Raises:
      ValueError: its encoding is unknown, or not the one that it has.
    """
    chunk = file.read(size)
    encoding = _find_encoding(chunk)
    decoder = None if encoding in ("utf-8", "ascii") else codecs.getincrementaldecoder(encoding)()
    started = False
    while chunk:
        content = chunk if decoder is None else decoder.decode(chunk).encode("utf-8", "surrogatepass")
        if not started:
            content = content.lstrip()  # nothing may stand before <?xml, and blank lines often do
        started = started or bool(content)
        if content:
            yield content
        chunk = file.read(size)
    if decoder is not None and (rest := decoder.decode(b"", final=True)):
        yield rest.encode("utf-8", "surrogatepass")


def _find_encoding(head: bytes) -> str:
    """Return the encoding of a file that begins so; its first bytes decide, not its declaration."""
    for start, encoding in _BOMS.items():
        if head.startswith(start):
            return encoding
    if 0 in head[:2]:  # XML begins with < or white space, of which UTF-16 has one byte that is 0
        return "utf-16-le" if head[0] else "utf-16-be"
    declared = _DECLARED.match(head)
    name = declared[1].decode("ascii", "replace") if declared else "utf-8"
    try:
        encoding = codecs.lookup(name).name
    except LookupError:
        raise ValueError(f"its encoding, {name}, is unknown: convert it to UTF-8") from None
    return "utf-8" if encoding.startswith(("utf-16", "utf-32")) else encoding


def scan_languages(file: IO[bytes], names: Collection[str]) -> Iterator[str]:
    """Yield the values that `xml:lang` or `lang` has in the start tags of some elements, each once, without parsing.

    Raises:
      ValueError: its encoding is unknown, or not the one that it has.
    """
    elements = "|".join(map(re.escape, names)).encode()
    pattern = re.compile(rb"<(?:\w+:)?(?:" + elements + rb""")\s(?:[^<]*?\s)?(?:xml:)?lang\s*=\s*["']([^"'<]*)["']""")
    told, rest = {b""}, b""
    for chunk in utf8_chunks(file):
        content = rest + chunk
        found = {code.strip() for code in pattern.findall(content)} - told
        told |= found
        yield from (code.decode("utf-8", "replace") for code in sorted(found))
        rest = content[max(content.rfind(b"<"), len(content) - _LONGEST_TAG, 0) :]


def language_attribute(element: Element) -> str:
    """Return the code of an element's language, empty if it has none of its own."""
    return (element.get("xml:lang") or element.get("lang") or "").strip()


def inline_text(element: Element) -> str:
    """Return the text of an element such as `<seg>` or `<source>` without markup; a line break is a space."""
    text = element.text or ""
    for inner in element:
        if inner.tag not in _CODES:
            text += inline_text(inner)
        kinds = (inner.get("type"), inner.get("ctype"), inner.get("subType"))
        if inner.tag == "br" or not _BREAKS.isdisjoint(kinds):
            text += " "
        if inner.tail:
            text += inner.tail
    return text
