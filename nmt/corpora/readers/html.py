"""Corpora of HTML pages (`read.kind: html`), aligned by the ids of paragraphs or by sections."""

import contextlib
import html
import re

from nmt.corpora.declare.spec import CorpusSpec
from nmt.corpora.declare.spec_read import HtmlTables
from nmt.corpora.readers.segments import PARAGRAPH, DividedReader
from nmt.corpora.readers.tables import Table
from nmt.corpora.readers.tree import Tree

_WITH_ID = re.compile(r'<(p|li|h[1-6])\b[^>]*\bid="([^"]+)"[^>]*>(.*?)</\1>', re.DOTALL)
_SECTION = re.compile(r"<(header|article)\b([^>]*)>(.*?)</\1>", re.DOTALL)
_NUMBER = re.compile(r'\bdata-number="([^"]+)"')
_PARAGRAPH = re.compile(r"<(p|li)\b[^>]*>(.*?)</\1>", re.DOTALL)
_TAG = re.compile(r"<[^>]*>")
_HEAD = 4096
_CHARSET = re.compile(rb"(?:charset|encoding)\s*=\s*[\"']?([A-Za-z0-9_.:-]+)")


class HtmlReader(DividedReader):
    """An open corpus of HTML pages, aligned by ids or by sections."""

    fallback = "all"

    def __init__(self, spec: CorpusSpec, read: HtmlTables, tree: Tree, patterns: tuple[str, ...]) -> None:
        self._by_id = read.align == "id"
        self.sentences = read.sentences
        super().__init__(spec, tree, patterns)

    def _parse(self, content: bytes, _: str) -> Table:
        page = _decoded(content)
        if self._by_id:
            texts = ((identity, _plain(inner)) for _, identity, inner in _WITH_ID.findall(page))
            return {(identity,): text for identity, text in texts if text}
        table: Table = {}
        for place, (_, attributes, inner) in enumerate(_SECTION.findall(page)):
            number = _NUMBER.search(attributes)
            paragraphs = [text for _, part in _PARAGRAPH.findall(inner) if (text := _plain(part))]
            table[(f"{number[1] if number else place:>4}",)] = PARAGRAPH.join(paragraphs)
        return table


def _decoded(content: bytes) -> str:
    """Return a page in UTF-8, or else in the encoding that it names; what is in neither is a replacement character."""
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError:
        named = _CHARSET.search(content[:_HEAD])
        with contextlib.suppress(LookupError):
            return content.decode(named[1].decode("ascii") if named else "utf-8", "replace")
        return content.decode("utf-8-sig", "replace")


def _plain(inner: str) -> str:
    """Return the text of a piece of HTML on one line."""
    return " ".join(html.unescape(_TAG.sub("", inner)).split())
