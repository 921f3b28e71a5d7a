"""A line of a document: the text that is translated, and its white space and entities, which the translation gets."""

import re
from typing import NamedTuple, Self

from nmt.corpora.clean.text import without_invisible

# The five escapes of XML and HTML: the character, and how it is written.
_ESCAPES = {"&": "&amp;", "<": "&lt;", ">": "&gt;", '"': "&quot;", "'": "&apos;"}
_ENTITY = re.compile(r"&(?:[A-Za-z][A-Za-z0-9]*|#[0-9]+|#[xX][0-9A-Fa-f]+);")


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
