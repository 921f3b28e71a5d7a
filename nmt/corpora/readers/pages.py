"""Corpora of HTML pages, and of descriptions of Debian packages: tables whose texts are divided further."""

import html
import re
from collections.abc import Iterator
from dataclasses import replace

from nmt.corpora.declare.spec import CorpusSpec
from nmt.corpora.declare.spec_read import Descriptions, HtmlTables
from nmt.corpora.readers.read import Row
from nmt.corpora.readers.segments import PARAGRAPH, Fallback, divide
from nmt.corpora.readers.tables import Table, TableSource
from nmt.corpora.readers.tree import Tree

_WITH_ID = re.compile(r'<(p|li|h[1-6])\b[^>]*\bid="([^"]+)"[^>]*>(.*?)</\1>', re.DOTALL)
_SECTION = re.compile(r"<(header|article)\b([^>]*)>(.*?)</\1>", re.DOTALL)
_NUMBER = re.compile(r'\bdata-number="([^"]+)"')
_PARAGRAPH = re.compile(r"<(p|li)\b[^>]*>(.*?)</\1>", re.DOTALL)
_TAG = re.compile(r"<[^>]*>")
_FIELD = re.compile(r"^Description-(?!md5)[\w@]+: ?(.*(?:\n .*)*)", re.MULTILINE)
_PACKAGE = re.compile(r"^Package: (\S+)", re.MULTILINE)
_MD5 = re.compile(r"^Description-md5: (\S+)", re.MULTILINE)
_ITEM = re.compile(r"\s*[-*+•] +")


class _DividedSource(TableSource):
    """Tables whose texts are paragraphs, to be divided."""

    fallback: Fallback
    sentences: bool

    def _rows(self, wanted: frozenset[str]) -> Iterator[Row]:
        for row in super()._rows(wanted):
            yield from divide(row, self.fallback, self.sentences)


class HtmlSource(_DividedSource):
    """An open corpus of HTML pages, aligned by ids or by sections."""

    fallback = "all"

    def __init__(self, spec: CorpusSpec, read: HtmlTables, tree: Tree) -> None:
        self._by_id = read.align == "id"
        self.sentences = read.sentences
        super().__init__(spec, tree, read.patterns)

    def _parse(self, content: bytes) -> Table:
        page = content.decode("utf-8-sig", "replace")
        if self._by_id:
            texts = ((identity, _plain(inner)) for _, identity, inner in _WITH_ID.findall(page))
            return {(identity,): text for identity, text in texts if text}
        table: Table = {}
        for place, (_, attributes, inner) in enumerate(_SECTION.findall(page)):
            number = _NUMBER.search(attributes)
            paragraphs = [text for _, part in _PARAGRAPH.findall(inner) if (text := _plain(part))]
            table[(f"{number[1] if number else place:>4}",)] = PARAGRAPH.join(paragraphs)
        return table


class DescriptionsSource(_DividedSource):
    """An open corpus of package descriptions; a component is a package."""

    fallback = "first"

    def __init__(self, spec: CorpusSpec, read: Descriptions, tree: Tree) -> None:
        self.sentences = read.sentences
        super().__init__(spec, tree, read.patterns)

    def _rows(self, wanted: frozenset[str]) -> Iterator[Row]:
        for row in super()._rows(wanted):
            yield replace(row, component=row.key[0])

    def _parse(self, content: bytes) -> Table:
        table: Table = {}
        for stanza in content.decode("utf-8", "replace").split("\n\n"):
            package, digest, text = _PACKAGE.search(stanza), _MD5.search(stanza), _FIELD.search(stanza)
            if package and digest and text:
                table[package[1], digest[1]] = PARAGRAPH.join(_paragraphs(text[1]))
        return table


def _plain(inner: str) -> str:
    """Return the text of a piece of HTML on one line."""
    return " ".join(html.unescape(_TAG.sub("", inner)).split())


def _paragraphs(field: str) -> list[str]:
    """Return the title and the paragraphs of a description (Debian Policy, 5.6.13): a list's items are each one."""
    title, *lines = field.split("\n")
    paragraphs, current = [title.strip()], list[str]()
    for line in lines:
        text = line[1:]
        if ends := text.strip() == "." or _ITEM.match(text) is not None:
            paragraphs += [" ".join(current)] if current else []
            current = []
        if text.strip() != ".":
            current.append((_ITEM.sub("", text, count=1) if ends else text).strip())
    return [part for part in [*paragraphs, " ".join(current)] if part]
