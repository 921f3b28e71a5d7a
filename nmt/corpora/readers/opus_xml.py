"""OPUS's XML (`read.kind: opus_xml`): sentences in one file a document, and alignments by their ids.

Source: opus.nlpl.eu; alignments are in the form of the XML Corpus Encoding Standard, `cesAlign`.
"""

import contextlib
import sqlite3
from collections.abc import Iterator, Mapping
from typing import NamedTuple
from xml.etree.ElementTree import Element

from nmt.corpora.declare.patterns import MatchedPath, expand_variables
from nmt.corpora.declare.spec import CorpusSpec
from nmt.corpora.declare.spec_read_links import OpusXml
from nmt.corpora.readers.compressed import stem
from nmt.corpora.readers.document_names import document_name
from nmt.corpora.readers.files import FilesReader
from nmt.corpora.readers.reader import EMPTY, Row, match_codes
from nmt.corpora.readers.tree import UNREADABLE, Tree
from nmt.corpora.readers.xml_stream import stream_elements

NO_DOCUMENT = "aligned document that is not there"
OF_NO_DOCUMENT = "link of a document that is not there"
OTHER_LANGUAGE = "link of a document in another language than the path of the alignment says"
EMPTY_SIDE = "link with an empty side"
NO_SENTENCE = "link to a sentence that its document does not have"
NO_TARGETS = "link without xtargets"
UNCERTAIN = "link with too small a certainty"
NO_CERTAINTY = "link without a certainty"


class _Group(NamedTuple):
    """Links between the sentences of two documents."""

    documents: tuple[str, str]
    reason: str  # why the links are left out; empty: they are not


class OpusXmlReader(FilesReader):
    """An open corpus of OPUS's XML; the sentences of two documents at a time are in a temporary database."""

    def __init__(self, spec: CorpusSpec, read: OpusXml, tree: Tree, patterns: tuple[str, ...]) -> None:
        super().__init__(spec, tree)
        self._min_certainty = read.min_certainty
        found = tree.find(patterns)
        self._check(patterns, len(found))
        companions = tuple(expand_variables(pattern, f"corpus {spec.name}") for pattern in read.companions)
        documents = tree.find(companions)
        self._documents = {stem(one.component): one.name for one in documents}
        self._check(companions, len(self._documents))
        codes = match_codes(spec, (code for one in found for code in (one.source, one.target)))
        self._language_of, self.unregistered = codes.languages, codes.unregistered
        spoken = match_codes(spec, {one.language for one in documents if one.language}).languages
        self._spoken = {one.name: spoken.get(one.language, "") for one in documents}  # empty: the path does not tell it
        known = self._language_of
        self._alignments = [one for one in found if one.source in known and one.target in known]
        self._note(*(frozenset((known[one.source], known[one.target])) for one in self._alignments))

    def _rows(self, wanted: frozenset[str]) -> Iterator[Row]:
        for found in self._alignments:
            sides = self._language_of[found.source], self._language_of[found.target]
            key_side = 1 if sides[1] == self.key_language else 0
            if sides[0] != sides[1] and sides[1 - key_side] in wanted:
                with contextlib.closing(_Sentences()) as sentences:
                    yield from self._aligned(found, sides, key_side, sentences)

    def _aligned(
        self, found: MatchedPath, sides: tuple[str, str], key_side: int, sentences: "_Sentences"
    ) -> Iterator[Row]:
        """Yield the pairs of an alignment file, as far as it can be read."""
        group, attributes = _Group(("", ""), OF_NO_DOCUMENT), None
        for number, link, current in self._links(found):
            if current is not attributes:
                attributes = current
                group = self._open_group(found, sides, current, sentences)
            place = f"{found.name} link {number}"
            if group.reason:
                self._skip(group.reason, place)
            elif (texts := self._texts(link, sentences, place)) is not None:
                component = document_name(group.documents[key_side], (found.source, found.target))
                key = found.name, f"{number:012d}"
                translations = {sides[1 - key_side]: texts[1 - key_side]}
                yield Row(sides[key_side], component, key, texts[key_side], translations)

    def _links(self, found: MatchedPath) -> Iterator[tuple[int, Element, Mapping[str, str]]]:
        """Yield the links of an alignment file with their numbers, from 1, and the attributes of their group."""
        number = 0
        try:
            with self._tree.plain(found.name) as file:
                for number, (link, around) in enumerate(stream_elements(file, ("cesAlign",), ("link",)), start=1):
                    yield number, link, next((attributes for name, attributes in around if name == "linkGrp"), {})
        except UNREADABLE as error:
            self._unread(found.name, error, number, "link")
            return
        if not number:
            self._skip(EMPTY, found.name)

    def _open_group(
        self, found: MatchedPath, sides: tuple[str, str], attributes: Mapping[str, str], sentences: "_Sentences"
    ) -> _Group:
        """Read the two documents of a group of links."""
        documents = stem(attributes.get("fromDoc", "")), stem(attributes.get("toDoc", ""))
        missing = [document for document in documents if document not in self._documents]
        for document in missing:
            self._skip(NO_DOCUMENT, f"{found.name}: {document or 'a linkGrp without fromDoc or toDoc'}")
        if missing:
            return _Group(documents, OF_NO_DOCUMENT)
        names = [self._documents[document] for document in documents]
        if any(self._spoken[name] not in ("", language) for name, language in zip(names, sides, strict=True)):
            return _Group(documents, OTHER_LANGUAGE)
        for side, document in enumerate(documents):
            if sentences.documents[side] != document:
                sentences.put(side, document, self._read_document(names[side]))
        return _Group(documents, "")

    def _read_document(self, name: str) -> Iterator[tuple[str, str]]:
        """Yield the ids and texts of a document's sentences, as far as it can be read."""
        done = 0
        try:
            with self._tree.plain(name) as file:
                for sentence, _ in stream_elements(file, (), ("s",)):
                    yield sentence.get("id", ""), _sentence_text(sentence)
                    done += 1
        except UNREADABLE as error:
            self._unread(name, error, done, "sentence")
            return
        if not done:
            self._skip(EMPTY, name)

    def _texts(self, link: Element, sentences: "_Sentences", place: str) -> tuple[str, str] | None:
        """Return the texts on both sides of a link, None where it is left out, which is counted."""
        sides = link.get("xtargets", "").split(";")
        reason = NO_TARGETS if len(sides) != 2 else self._certainty_reason(link)
        if not reason and not all(map(str.split, sides)):
            reason = EMPTY_SIDE
        if not reason:
            texts = [[sentences.get(side, one) for one in ids.split()] for side, ids in enumerate(sides)]
            if any(text is None for side in texts for text in side):
                reason = NO_SENTENCE
            else:
                first, second = (" ".join(filter(None, side)) for side in texts)
                if first and second:
                    return first, second
                reason = EMPTY_SIDE
        self._skip(reason, place)
        return None

    def _certainty_reason(self, link: Element) -> str:
        """Return why a link is left out for its certainty; empty: it is not."""
        if self._min_certainty is None:
            return ""
        try:
            return UNCERTAIN if float(link.get("certainty", "")) < self._min_certainty else ""
        except ValueError:
            return NO_CERTAINTY


class _Sentences:
    """The sentences of a document on each side by their ids, in a database that SQLite keeps on the disk if large.

    Attributes:
      documents: the names of the two documents.
    """

    def __init__(self) -> None:
        self.documents = ["", ""]
        self._database = sqlite3.connect("", isolation_level=None)
        self._database.execute("PRAGMA journal_mode = OFF")
        for side in (0, 1):
            self._database.execute(f"CREATE TABLE side{side} (id TEXT PRIMARY KEY, text TEXT) WITHOUT ROWID")

    def put(self, side: int, document: str, sentences: Iterator[tuple[str, str]]) -> None:
        """Keep the sentences of a document in place of those of another one; the first of an id counts."""
        self._database.execute("BEGIN")
        self._database.execute(f"DELETE FROM side{side}")
        self._database.executemany(f"INSERT OR IGNORE INTO side{side} VALUES (?, ?)", sentences)
        self._database.execute("COMMIT")
        self.documents[side] = document

    def get(self, side: int, number: str) -> str | None:
        """Return the text of a sentence, None if the document does not have it."""
        found = self._database.execute(f"SELECT text FROM side{side} WHERE id = ?", (number,)).fetchone()
        return found and str(found[0])

    def close(self) -> None:
        """Remove what is on the disk."""
        self._database.close()


def _sentence_text(sentence: Element) -> str:
    """Return the text of a sentence, raw or tokenised, in which white space is one blank."""
    pieces = []
    for word in sentence.iter("w"):
        pieces.append("".join(word.itertext()).strip() + ("" if word.get("spaceafter") == "no" else " "))
    return " ".join("".join(pieces or sentence.itertext()).split())
