"""Catalogues of gettext (`read.kind: gettext`): the messages are the key language, each catalogue a language."""

import re
from collections.abc import Iterable, Iterator, Sequence

from nmt import languages
from nmt.corpora.declare.spec import CorpusSpec
from nmt.corpora.declare.spec_read import Gettext
from nmt.corpora.readers.catalogues import read_catalogue
from nmt.corpora.readers.reader import KeyPath, Row
from nmt.corpora.readers.tables import Table, TableReader
from nmt.corpora.readers.tree import Tree
from nmt.errors import UserError

_LONGEST_CONTEXT = 40


class GettextReader(TableReader):
    """An open corpus of catalogues; those of the key language itself (its regions, say) are not read."""

    def __init__(self, spec: CorpusSpec, read: Gettext, tree: Tree, patterns: tuple[str, ...]) -> None:
        self._context = _context_pattern(read.context_mark)
        self._accelerators = _accelerator_pattern(read.accelerators)
        super().__init__(spec, tree, patterns)

    def _used(self, codes: Iterable[str]) -> Iterator[str]:
        return (code for code in codes if not self._is_key_language(code))

    def _is_key_language(self, code: str) -> bool:
        try:
            return languages.get(self.spec.languages.get(code) or code).code == self.key_language
        except UserError:
            return False

    def _check(self, patterns: Sequence[str]) -> None:
        if not self._codes_of:
            shown = self._tree.missing(patterns)
            raise UserError(f"corpus {self.spec.name}: there is no catalogue among {shown}{self._unknown()}")
        self.languages = sorted({*self.languages, self.key_language})

    def _rows(self, wanted: frozenset[str]) -> Iterator[Row]:
        codes = self._other_codes(wanted)
        for component in sorted({component for component, _ in self._names}):
            tables = {language: self._table(component, several) for language, several in codes.items()}
            for key in sorted({key for table in tables.values() for key in table}):
                translations = {language: table[key] for language, table in tables.items() if key in table}
                yield Row(self.key_language, component, key, key[1], translations)

    def _parse(self, content: bytes) -> Table:
        table: Table = {}
        for message in read_catalogue(content):
            for text, translation in message.pairs():
                key: KeyPath = (message.context, self._shown(self._context.sub("", text)))
                table.setdefault(key, self._shown(translation))
        return table

    def _shown(self, text: str) -> str:
        """Return a text as a person sees it, without the marks of accelerator keys."""
        return self._accelerators.sub("", text)


def _context_pattern(mark: str) -> re.Pattern[str]:
    if not mark:
        return re.compile(r"(?!)")
    return re.compile(rf"^[^{re.escape(mark)}]{{1,{_LONGEST_CONTEXT}}}{re.escape(mark)}(?=\S)")


def _accelerator_pattern(marks: str) -> re.Pattern[str]:
    """Match an ending such as `(&O)`, or a mark before a letter, but those of AT&T, &amp; and snake_case."""
    if not marks:
        return re.compile(r"(?!)")
    mark = f"[{re.escape(marks)}]"
    return re.compile(rf"\s?\({mark}\w\)|(?<![A-Z0-9]){mark}(?=\w)(?!\w+;)|(?<=[A-Z]){mark}(?=[a-z])(?!\w+;)")
