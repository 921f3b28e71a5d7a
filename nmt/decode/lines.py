"""A line of a document: its paragraphs, the text that is translated, and white space and entities, which are kept."""

import re
import unicodedata
from collections.abc import Iterator
from typing import NamedTuple, Self

from nmt.corpora.clean.text import without_invisible

# The five escapes of XML and HTML: the character, and how it is written.
_ESCAPES = {"&": "&amp;", "<": "&lt;", ">": "&gt;", '"': "&quot;", "'": "&apos;"}
_ENTITY = re.compile(r"&(?:[A-Za-z][A-Za-z0-9]*|#[0-9]+|#[xX][0-9A-Fa-f]+);")
# Tabs, and all that Unicode or Python take for the end of a line, with the white space around.
_BREAK = re.compile(r"\s*[\t\n\v\f\r\x1c-\x1f\x85\u2028\u2029]\s*")


class LineForm(NamedTuple):
    """White space before and after a line's text, and the characters that the line writes as entities only."""

    before: str
    after: str
    escaped: str

    @classmethod
    def read(cls, line: str) -> Self:
        """Return the form of a line; one without text has none."""
        visible = without_invisible(line)
        text = visible.strip()
        if not text:
            return cls("", "", "")
        start = len(visible) - len(visible.lstrip())
        bare = _ENTITY.sub("", text)
        escaped = "".join(one for one, entity in _ESCAPES.items() if entity in text and one not in bare)
        return cls(visible[:start], visible[start + len(text) :], escaped)

    def apply(self, translation: str) -> str:
        """Return a translation with this form; an empty one stays empty."""
        if not translation:
            return ""
        for one in self.escaped:  # "&" comes first, so that no entity is escaped again
            translation = translation.replace(one, _ESCAPES[one])
        return f"{self.before}{translation}{self.after}"


def paragraphs(text: str) -> Iterator[tuple[str, str]]:
    """Yield the paragraphs of a text, each with the white space that follows it; together they are the text.

    Line breaks of any kind and tabs separate paragraphs. A text without one is one paragraph.
    """
    start = 0
    for found in _BREAK.finditer(text):
        yield text[start : found.start()], found[0]
        start = found.end()
    yield text[start:], ""


def has_words(text: str) -> bool:
    """Return whether a text has a letter of any script; one of figures, punctuation and signs alone is copied."""
    return any(unicodedata.category(character)[0] == "L" for character in text)
