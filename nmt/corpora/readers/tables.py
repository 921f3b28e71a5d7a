"""Corpora of tables: a file for each component and language, whose texts are aligned by their keys."""

from abc import abstractmethod
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence

from nmt.corpora.declare.patterns import MatchedPath
from nmt.corpora.declare.spec import CorpusSpec
from nmt.corpora.readers.reader import EMPTY, CorpusReader, KeyPath, Row, check_codes, match_codes
from nmt.corpora.readers.tree import UNREADABLE, Tree
from nmt.errors import UserError

Table = dict[KeyPath, str]


class TableReader(CorpusReader):
    """An open corpus of tables; holds the tables of one component at a time.

    Raises:
      UserError: two codes of a component denote one language, or there is no table of the key language.
    """

    def __init__(self, spec: CorpusSpec, tree: Tree, patterns: Sequence[str]) -> None:
        super().__init__(spec)
        self._tree = tree
        self._names: dict[tuple[str, str], list[str]] = defaultdict(list)  # by (component, code of the corpus)
        for found in tree.find(patterns):
            self._names[found.component, self._code(found)].append(found.name)
        codes = match_codes(spec, self._used(sorted({code for _, code in self._names})))
        together: dict[str, list[str]] = defaultdict(list)
        for component, code in self._names:
            together[component].append(code)
        check_codes(spec, codes, together.values())
        self._codes_of: dict[str, list[str]] = defaultdict(list)
        for code, language in sorted(codes.languages.items()):
            self._codes_of[language].append(code)
        self.unregistered = codes.unregistered
        self.languages = sorted(self._codes_of)
        self._check(patterns)

    def _code(self, found: MatchedPath) -> str:
        """Return the corpus's code of the language of a file."""
        return found.language

    def _used(self, codes: Iterable[str]) -> Iterable[str]:
        """Return those of the corpus's codes that are looked at."""
        return codes

    def _check(self, patterns: Sequence[str]) -> None:
        if self.key_language not in self._codes_of:
            shown = self._tree.missing(patterns)
            raise UserError(
                f"corpus {self.spec.name}: there is no {self.key_language} table among {shown}{self._unknown()}"
            )

    def _rows(self, wanted: frozenset[str]) -> Iterator[Row]:
        key_codes = self._codes_of[self.key_language]
        codes = self._other_codes(wanted)
        for component in sorted({component for component, code in self._names if code in key_codes}):
            texts = self._table(component, key_codes)
            tables = {language: self._table(component, several) for language, several in codes.items()}
            for key in sorted(texts):
                translations = {language: table[key] for language, table in tables.items() if key in table}
                yield Row(self.key_language, component, key, texts[key], translations)

    def _other_codes(self, wanted: frozenset[str]) -> dict[str, list[str]]:
        """Return the corpus's codes of the wanted languages other than the key language."""
        return {
            language: self._codes_of[language]
            for language in sorted(wanted)
            if language in self._codes_of and language != self.key_language
        }

    def _table(self, component: str, codes: Sequence[str]) -> Table:
        """Return the texts of a component in a language, which has one of these codes there."""
        table: Table = {}
        for name in (name for code in codes for name in self._names.get((component, code), ())):
            try:
                content = self._tree.read(name)
                table = (self._parse(content, name) if content else {}) | table
            except UNREADABLE as error:
                self._unread(name, error)
                continue
            if not content:
                self._skip(EMPTY, name)
        return table

    @abstractmethod
    def _parse(self, content: bytes, name: str) -> Table:
        """Return the texts of a table by their keys; an error of `UNREADABLE` says that it is none.

        Args:
          content: of the file, which is not empty.
          name: of the file, for what is left out of it.
        """

    def close(self) -> None:
        """Close the corpus's files."""
        self._tree.close()
