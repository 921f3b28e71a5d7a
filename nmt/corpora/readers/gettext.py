"""Catalogues of gettext (`read.kind: gettext`), one a language; the messages are the key language, or keys."""

import re
from collections.abc import Iterable, Iterator, Sequence

from nmt import languages
from nmt.corpora.declare.spec import CorpusSpec
from nmt.corpora.declare.spec_read import Gettext
from nmt.corpora.readers.catalogues import count_fuzzy, read_catalogue
from nmt.corpora.readers.reader import KeyPath, Row
from nmt.corpora.readers.tables import Table, TableReader
from nmt.corpora.readers.tree import Tree
from nmt.errors import UserError

_LONGEST_CONTEXT = 40
_FEWEST_MESSAGES = 10  # of a catalogue, to tell keys from text
_KEY = re.compile(r"[\w-]+(?:[._:/][\w-]+)+")  # menu.file.open, menu_file_open


def open_gettext(spec: CorpusSpec, read: Gettext, tree: Tree, patterns: tuple[str, ...]) -> TableReader:
    """Return the open corpus of catalogues; raises a UserError as the readers do."""
    return (KeyedGettextReader if read.keyed else GettextReader)(spec, read, tree, patterns)


class KeyedGettextReader(TableReader):
    """An open corpus of catalogues whose messages are keys; the key language has catalogues as the others do."""

    def __init__(self, spec: CorpusSpec, read: Gettext, tree: Tree, patterns: tuple[str, ...]) -> None:
        self._accelerators = _accelerator_pattern(read.accelerators)
        super().__init__(spec, tree, patterns)

    def _parse(self, content: bytes, name: str) -> Table:
        table: Table = {}
        for _ in range(count_fuzzy(content)):
            self._skip("fuzzy message", name)
        for message in read_catalogue(content):
            for key, text in message.keyed():
                if text and not text.isspace():
                    table.setdefault((message.context, key), self._accelerators.sub("", text))
                else:
                    self._skip("message without text", f"{name}: {key}")
        return table


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

    def _parse(self, content: bytes, name: str) -> Table:
        table: Table = {}
        for _ in range(count_fuzzy(content)):
            self._skip("fuzzy message", name)
        for message in read_catalogue(content):
            pairs = list(message.pairs())
            if not pairs:
                self._skip("message without translation", f"{name}: {message.singular}")
            for text, translation in pairs:
                key: KeyPath = (message.context, self._shown(self._context.sub("", text)))
                table.setdefault(key, self._shown(translation))
        self._check_text(name, [text for _, text in table])
        return table

    def _check_text(self, name: str, messages: Sequence[str]) -> None:
        """Raise UserError if most messages are keys: each would be taken for a text of the key language."""
        keys = [message for message in messages if _KEY.fullmatch(message)]
        if len(messages) >= _FEWEST_MESSAGES and len(keys) > len(messages) // 2:
            raise UserError(
                f"corpus {self.spec.name}: most messages of {name} are keys and no {self.key_language} text, such as "
                f"{keys[0]}; say keyed: true under read, with a catalogue of {self.key_language}"
            )

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
