"""Message catalogues of gettext, .mo and .po files; their plural rules are not evaluated.

Source: the GNU gettext manual, "The Format of GNU MO Files" and "The Format of PO Files". Python's own reader refuses a
catalogue whose Plural-Forms header it cannot evaluate, such as a template's untouched `plural=EXPRESSION`.
"""

import re
import struct
from collections.abc import Iterator
from dataclasses import dataclass, field

_MAGIC = {b"\xde\x12\x04\x95": "<", b"\x95\x04\x12\xde": ">"}
_CONTEXT, _PLURAL = "\x04", "\x00"
_CHARSET = re.compile(rb"charset=([\w-]+)")
_KEYWORD = re.compile(r'(msgctxt|msgid_plural|msgid|msgstr)(?:\[(\d+)\])?\s*(".*)$')
_STRINGS = re.compile(r'(?:"(?:[^"\\]|\\.)*"\s*)+')
_STRING = re.compile(r'"((?:[^"\\]|\\.)*)"')
_ESCAPE = re.compile(r"((?:\\(?:[0-7]{1,3}|x[0-9A-Fa-f]{1,2}))+)|\\(.)")
_BYTE = re.compile(r"\\(?:x([0-9A-Fa-f]+)|([0-7]+))")
_ESCAPED = {"a": "\a", "b": "\b", "f": "\f", "n": "\n", "r": "\r", "t": "\t", "v": "\v"} | {
    one: one for one in "\\\"'?"
}


@dataclass
class Message:
    """A message and its translations."""

    context: str = ""
    singular: str = ""
    plural: str = ""
    forms: dict[int, str] = field(default_factory=dict)  # translations by the number of the plural form

    def pairs(self) -> Iterator[tuple[str, str]]:
        """Yield the texts and their translations: the singular's is the first form, the plural's the last."""
        if self.singular and (first := self.forms.get(0)):
            yield self.singular, first
        if self.plural and self.forms and (last := self.forms[max(self.forms)]):
            yield self.plural, last

    def keyed(self) -> Iterator[tuple[str, str]]:
        """Yield keys and texts of a catalogue whose messages are keys: of a plural, `one` is first and `other` last."""
        if not self.plural:
            yield self.singular, self.forms.get(0, "")
            return
        for name, number in (("one", min(self.forms)), ("other", max(self.forms))):
            if name == "other" or len(self.forms) > 1:
                yield f"{self.singular} {name}", self.forms[number]


def read_catalogue(content: bytes) -> list[Message]:
    """Return the messages of a .mo or .po file, without its header and without fuzzy and obsolete ones.

    Raises:
      ValueError: it is neither.
    """
    if content[:4] in _MAGIC:
        return list(_compiled(content))
    return list(_portable(content))


def count_fuzzy(content: bytes) -> int:
    """Return how many messages of a .po file are fuzzy, its header aside, and so left out."""
    if content[:4] in _MAGIC:
        return 0
    text = content.removeprefix(b"\xef\xbb\xbf").decode(_charset(content[:20_000]), "replace")
    fuzzy = [block for block in _blocks(text) if _is_fuzzy(block)]
    return sum(any(line.startswith("msgid") for line in block) and 'msgid ""' not in block for block in fuzzy)


def _is_fuzzy(lines: list[str]) -> bool:
    return any(line.startswith("#,") and "fuzzy" in line for line in lines)


def _compiled(content: bytes) -> Iterator[Message]:
    order = _MAGIC[content[:4]]
    try:
        count, originals, translations = struct.unpack_from(f"{order}3I", content, 8)
        entries = [
            (_string(content, order, originals, number), _string(content, order, translations, number))
            for number in range(count)
        ]
    except struct.error as error:
        raise ValueError(f"a damaged catalogue: {error}") from None
    charset = next((_charset(text) for key, text in entries if not key), "utf-8")
    for key, text in entries:
        if key:
            context, _, identity = key.decode(charset, "replace").rpartition(_CONTEXT)
            singular, _, plural = identity.partition(_PLURAL)
            forms = dict(enumerate(text.decode(charset, "replace").split(_PLURAL)))
            yield Message(context, singular, plural.split(_PLURAL)[0], forms)


def _string(content: bytes, order: str, table: int, number: int) -> bytes:
    size, place = struct.unpack_from(f"{order}2I", content, table + 8 * number)
    if place + size > len(content):
        raise ValueError("a damaged catalogue: a string lies behind its end")
    return content[place : place + size]


def _charset(header: bytes) -> str:
    """Return the encoding that a header names; that of a template, or an unknown one, is UTF-8."""
    found = _CHARSET.search(header)
    try:
        return "utf-8" if found is None else _known(found[1].decode("ascii"))
    except LookupError:
        return "utf-8"


def _known(encoding: str) -> str:
    "".encode(encoding)
    return encoding


def _portable(content: bytes) -> Iterator[Message]:
    charset = _charset(content[:20_000])
    text = content.removeprefix(b"\xef\xbb\xbf").decode(charset, "replace")
    if "msgid" not in text:
        raise ValueError("no catalogue")
    for block in _blocks(text):
        message = _message(block, charset)
        if message and message.singular:
            yield message


def _blocks(text: str) -> Iterator[list[str]]:
    """Yield the lines of each entry: it begins with its comments, or with msgctxt or msgid after a translation."""
    block: list[str] = []
    translated = False
    for line in map(str.strip, text.split("\n")):
        begins = line.startswith("#") or line.startswith(("msgctxt", "msgid ", 'msgid"'))
        if begins and translated:
            yield block
            block, translated = [], False
        translated = translated or line.startswith("msgstr")
        if line:
            block.append(line)
    yield block


def _message(lines: list[str], charset: str) -> Message | None:
    """Return an entry's message; None: fuzzy, obsolete, or not one."""
    if _is_fuzzy(lines):
        return None
    parts: dict[tuple[str, int], str] = {}
    current: tuple[str, int] | None = None
    for line in lines:
        if line.startswith("#"):
            continue
        if keyword := _KEYWORD.match(line):
            current = (keyword[1], int(keyword[2] or 0))
            parts[current] = _unquoted(keyword[3], charset)
        elif line.startswith('"') and current is not None:
            parts[current] += _unquoted(line, charset)
    forms = {number: text for (keyword_, number), text in parts.items() if keyword_ == "msgstr"}
    if not forms:
        return None
    return Message(
        parts.get(("msgctxt", 0), ""), parts.get(("msgid", 0), ""), parts.get(("msgid_plural", 0), ""), forms
    )


def _unquoted(text: str, charset: str) -> str:
    """Return the text of strings of C; malformed text, such as a quotation mark inside, is kept."""
    if _STRINGS.fullmatch(text):
        return "".join(_unescaped(part, charset) for part in _STRING.findall(text))
    return _unescaped(text.removeprefix('"').removesuffix('"'), charset)


def _unescaped(text: str, charset: str) -> str:
    """Return a text without the escapes of C: numbers are bytes of the catalogue, and what C does not know stays."""

    def meant(escape: re.Match[str]) -> str:
        if escape[1]:
            numbers = [
                int(hexadecimal, 16) if hexadecimal else int(octal, 8)
                for hexadecimal, octal in _BYTE.findall(escape[1])
            ]
            return bytes(number & 0xFF for number in numbers).decode(charset, "replace")
        return _ESCAPED.get(escape[2], escape[0])

    return _ESCAPE.sub(meant, text)
