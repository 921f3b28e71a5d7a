"""The strings of localisation files by their keys: Android, Apple, Fluent, Java and .NET.

Fluent, Java's properties and Apple's strings are parsed by the libraries of the extra `localisation`.
"""

import io
import plistlib
import re
from collections.abc import Callable, Iterator
from typing import Any
from xml.etree.ElementTree import Element

from nmt.corpora.readers.fluent import parse_fluent
from nmt.corpora.readers.localised_string import LocalisedString, localisation_library
from nmt.corpora.readers.xml_stream import inline_text, stream_elements

NOT_TO_TRANSLATE = "string that is not to be translated"
REFERENCE = "reference to another string"
NO_STRING = "resource that is no text"

_REFERENCE = re.compile(r"@(\+?[\w.]+:)?\w+/[\w.]+")
_ANDROID_ESCAPE = re.compile(r'\\u([0-9A-Fa-f]{4})|\\(.)|"')
_ANDROID_ESCAPED = {"n": "\n", "t": "\t"}
_BOMS_UTF16 = (b"\xff\xfe", b"\xfe\xff")


def parse_android(content: bytes) -> Iterator[LocalisedString]:
    """Yield the strings, plurals (by quantity) and items of arrays (by number) of an Android strings.xml."""
    names = ("string", "plurals", "string-array")
    for element, _ in stream_elements(io.BytesIO(content), ("resources",), names):
        name, product = element.get("name", ""), element.get("product", "default")
        key = (name,) if product == "default" else (name, product)
        is_translated = element.get("translatable") != "false"
        items = [((), element)] if element.tag == "string" else _items(element)
        for inner_key, item in items:
            yield _android_string((*key, *inner_key), item, is_translated)


def _items(element: Element) -> list[tuple[tuple[str, ...], Element]]:
    return [((item.get("quantity") or f"{n:06d}",), item) for n, item in enumerate(element.iterfind("item"))]


def _android_string(key: tuple[str, ...], item: Element, is_translated: bool) -> LocalisedString:
    text = _android_text(inline_text(item))
    if not is_translated:
        return LocalisedString(key, text, NOT_TO_TRANSLATE)
    return LocalisedString(key, text, REFERENCE if _REFERENCE.fullmatch(text) else "")


def _android_text(text: str) -> str:
    """Return the text that Android shows: white space is one space, quotation marks and backslashes are resolved."""

    def meant(escape: re.Match[str]) -> str:
        if escape[1]:
            return chr(int(escape[1], 16))
        return _ANDROID_ESCAPED.get(escape[2], escape[2]) if escape[2] else ""

    shown = _ANDROID_ESCAPE.sub(meant, " ".join(text.split()))
    return shown.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def parse_resx(content: bytes) -> Iterator[LocalisedString]:
    """Yield the strings of a .resx or .resw file; pictures, sizes and the designer's own entries are no text."""
    for element, _ in stream_elements(io.BytesIO(content), ("root",), ("data",)):
        name, kind = element.get("name", ""), element.get("type", "System.String")
        is_text = kind.startswith("System.String") and "mimetype" not in element.attrib and not name.startswith(">>")
        value = element.find("value")
        text = "" if value is None else inline_text(value)
        yield LocalisedString((name,), text, "" if is_text else NO_STRING)


def parse_properties(content: bytes) -> Iterator[LocalisedString]:
    """Yield the strings of Java's properties, in UTF-8 or else, as Java itself reads them, in ISO 8859-1."""
    with localisation_library("Java's .properties"):
        import javaproperties
    try:
        text = content.decode("utf-16" if content.startswith(_BOMS_UTF16) else "utf-8-sig")
    except UnicodeDecodeError:
        text = content.decode("iso-8859-1")
    for key, value in javaproperties.load(io.StringIO(text), object_pairs_hook=list):
        yield LocalisedString((key,), value)


def parse_apple(content: bytes) -> Iterator[LocalisedString]:
    """Yield the strings of an Apple .strings file, written as text or as a property list in XML or binary."""
    for key, value in _apple_table(content).items():
        is_text = isinstance(value, str)
        yield LocalisedString((key,), value if is_text else "", "" if is_text else NO_STRING)


def _apple_table(content: bytes) -> dict[str, Any]:
    if content.startswith((b"bplist", b"<?xml", b"\xef\xbb\xbf<?xml")):
        table = plistlib.loads(content)
    else:
        with localisation_library("Apple's .strings"):
            import openstep_plist
        try:
            table = openstep_plist.loads(_decode_apple(content))
        except openstep_plist.ParseError as error:
            raise ValueError(str(error)) from None
    if not isinstance(table, dict):
        raise ValueError("it is no table of strings")
    return table


def _decode_apple(content: bytes) -> str:
    if content.startswith(_BOMS_UTF16):
        return content.decode("utf-16")
    if 0 in content[:2]:
        return content.decode("utf-16-le" if content[0] else "utf-16-be")
    return content.decode("utf-8-sig")


FORMS: dict[str, Callable[[bytes], Iterator[LocalisedString]]] = {
    "xml": parse_android,
    "properties": parse_properties,
    "ftl": parse_fluent,
    "resx": parse_resx,
    "resw": parse_resx,
    "strings": parse_apple,
}
