"""Text of single languages by lines (`read.kind: text`).

A text of language de is an example of the direction de-de, which is no translation: nmt/data/denoising.py masks some of
the source when it is drawn.
"""

from collections.abc import Iterator

from nmt.corpora.declare.spec import CorpusSpec
from nmt.corpora.declare.spec_read import PlainText
from nmt.corpora.readers.files import FilesReader
from nmt.corpora.readers.reader import Row, match_codes
from nmt.corpora.readers.tree import Tree


class TextReader(FilesReader):
    """An open corpus of text by lines, each file for itself; holds a line at a time."""

    def __init__(self, spec: CorpusSpec, read: PlainText, tree: Tree, patterns: tuple[str, ...]) -> None:
        super().__init__(spec, tree)
        found = tree.find(patterns)
        self._check(patterns, len(found))
        codes = match_codes(spec, (one.language or read.key_language for one in found))
        self.unregistered = codes.unregistered
        named = [(codes.languages.get(one.language or read.key_language), one) for one in found]
        self._files = [(language, one) for language, one in named if language is not None]
        self._note(frozenset(language for language, _ in self._files))

    def _rows(self, wanted: frozenset[str]) -> Iterator[Row]:
        for language, found in self._files:
            if language in wanted:
                for number, text in self._lines(found.name):
                    yield Row(language, found.component, (found.name, f"{number:012d}"), text, {})

    def _single_rows(self, wanted: frozenset[str]) -> Iterator[Row]:
        return self._rows(wanted)
