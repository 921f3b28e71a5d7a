"""Descriptions of Debian packages and their translations (`read.kind: ddtp`)."""

import re
from collections.abc import Iterator
from dataclasses import replace

from nmt.corpora.declare.spec import CorpusSpec
from nmt.corpora.declare.spec_read import Descriptions
from nmt.corpora.readers.reader import Row
from nmt.corpora.readers.segments import PARAGRAPH, DividedReader
from nmt.corpora.readers.tables import Table
from nmt.corpora.readers.tree import Tree

_FIELD = re.compile(r"^Description-(?!md5)[\w@]+: ?(.*(?:\n .*)*)", re.MULTILINE)
_PACKAGE = re.compile(r"^Package: (\S+)", re.MULTILINE)
_MD5 = re.compile(r"^Description-md5: (\S+)", re.MULTILINE)
_ITEM = re.compile(r"\s*[-*+•] +")


class DdtpReader(DividedReader):
    """An open corpus of package descriptions; a component is a package."""

    fallback = "first"

    def __init__(self, spec: CorpusSpec, read: Descriptions, tree: Tree, patterns: tuple[str, ...]) -> None:
        self.sentences = read.sentences
        super().__init__(spec, tree, patterns)

    def _rows(self, wanted: frozenset[str]) -> Iterator[Row]:
        for row in super()._rows(wanted):
            yield replace(row, component=row.key[0])

    def _parse(self, content: bytes, _: str) -> Table:
        table: Table = {}
        for stanza in content.decode("utf-8", "replace").split("\n\n"):
            package, digest, text = _PACKAGE.search(stanza), _MD5.search(stanza), _FIELD.search(stanza)
            if package and digest and text:
                table[package[1], digest[1]] = PARAGRAPH.join(_paragraphs(text[1]))
        return table


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
