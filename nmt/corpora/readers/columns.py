"""Readers of files with a column a language: the part that tab-separated text, JSON lines and Parquet share."""

from abc import abstractmethod
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple

from nmt.corpora.declare.patterns import MatchedPath
from nmt.corpora.declare.spec import CorpusSpec
from nmt.corpora.declare.spec_read_columns import Columns
from nmt.corpora.readers.cells import Column, Record, column_names, has_column, read_cell
from nmt.corpora.readers.files import FilesReader, canonical_code
from nmt.corpora.readers.reader import NO_TEXT, NOT_TEXT, Row, check_codes, match_codes, single_rows
from nmt.corpora.readers.tree import Tree
from nmt.errors import UserError

SIDES = ("source", "target")
LOOKED_AT = 100  # records in which names are looked for
_SHOWN = 20  # names in an error


class _File(NamedTuple):
    found: MatchedPath
    columns: dict[str, Column]  # by canonical code, the key language first


class ColumnsReader(FilesReader):
    """An open corpus of columns; holds a row at a time.

    Raises:
      UserError: no file has columns of two languages.
    """

    numbered = False  # whether columns have numbers instead of names

    def __init__(self, spec: CorpusSpec, read: Columns, tree: Tree, patterns: tuple[str, ...]) -> None:
        super().__init__(spec, tree)
        self._read = read
        self._names_there: dict[str, Sequence[str]] = {}  # by file, where they were looked for
        found = tree.find(patterns)
        self._check(patterns, len(found))
        raw = [(one, self._columns(one)) for one in found]
        codes = match_codes(spec, (code for _, columns in raw for code in columns))
        check_codes(spec, codes, (columns for _, columns in raw))
        self.unregistered = codes.unregistered
        self._files = [
            _File(
                one,
                self._ordered({codes.languages[code]: columns[code] for code in columns if code in codes.languages}),
            )
            for one, columns in raw
        ]
        self._note(*(frozenset(file.columns) for file in self._files))
        self._noted_at_opening = self.unreadable, self.skipped, self._first

    def _columns(self, found: MatchedPath) -> dict[str, Column]:
        """Return the columns of a file by the corpus's codes of their languages."""
        if columns := self._read.columns:
            pair = dict(zip((*SIDES, "language"), (found.source, found.target, found.language), strict=True))
            return {pair.get(code) or code: column for code, column in columns.items()}
        if found.source:
            return dict(zip((found.source, found.target), (0, 1) if self.numbered else SIDES, strict=True))
        names = self._names_there[found.name] = self._looked_for(found.name)
        used = {name.rpartition(".")[2]: name for name in names if name != self._read.component}
        return {code: name for code, name in used.items() if code in self.spec.languages or canonical_code(code)}

    def _looked_for(self, name: str) -> Sequence[str]:
        """Return the names of a file's columns, without counting what is counted again when all rows are read."""
        before = self.skipped.copy(), self._first.copy()
        if names := self._names(name):
            self.skipped, self._first = before
        return names

    def _without_languages(self) -> UserError:
        if self._damages() or self.unregistered or not self._names_there:
            return super()._without_languages()
        name, names = next(iter(self._names_there.items()))
        return self._no_column(name, "of a language" if self.spec.monolingual else "of two languages", names)

    def _no_column(self, name: str, which: str, names: Sequence[str]) -> UserError:
        shown = ", ".join(names[:_SHOWN]) + (", ..." if len(names) > _SHOWN else "")
        return UserError(
            f"corpus {self.spec.name}: {name} has no column {which}; its columns are {shown}; say under read: which "
            f"have which language, as in columns: {{de: {names[0]}, en: {names[-1]}}}"
        )

    def _require(self, name: str, missing: Iterable[Column], names: Sequence[str]) -> None:
        if which := " or ".join(map(str, missing)):
            raise self._no_column(name, which, names)

    def _ordered(self, columns: dict[str, Column]) -> dict[str, Column]:
        """Return the columns with the key language first, if it is there."""
        return {code: columns[code] for code in sorted(columns, key=self.key_language.__ne__)}

    def _rows(self, wanted: frozenset[str]) -> Iterator[Row]:
        for file in self._files:
            if not file.columns:
                continue
            key_language, *others = file.columns
            used = [language for language in others if language in wanted]
            if used or self.spec.monolingual:
                yield from self._file_rows(file, key_language, used)

    def _single_rows(self, wanted: frozenset[str]) -> Iterator[Row]:
        return single_rows(self._rows(wanted), wanted)

    def _file_rows(self, file: _File, key_language: str, used: Sequence[str]) -> Iterator[Row]:
        name, component = file.found.name, self._read.component
        columns = [*file.columns.values(), *([] if component is None else [component])]
        for number, record in self._records(name, columns):
            place = f"{name}:{number}"
            try:
                cells = {language: read_cell(record, file.columns[language]) for language in (key_language, *used)}
                part = file.found.component if component is None else str(read_cell(record, component) or "")
            except IndexError:
                self._skip("line with too few columns", place)
                continue
            texts = {language: text for language, text in cells.items() if isinstance(text, str)}
            if any(cells[language] is not None for language in cells.keys() - texts.keys()):
                self._skip(NOT_TEXT, place)
            elif not self._has_text(record, file, texts):
                self._skip(NO_TEXT, place)
            text = texts.pop(key_language, None)
            if self.spec.monolingual:
                # What the columns have is no translation of each other: one may be empty where another is not.
                yield Row(key_language, part, (name, f"{number:012d}"), text or "", texts)
            elif text is not None and texts:
                yield Row(key_language, part, (name, f"{number:012d}"), text, texts)

    def _has_text(self, record: Record, file: _File, texts: Mapping[str, str]) -> bool:
        """Return whether a row could be used, for the wanted languages, of which there are texts, or for others."""
        if self.spec.monolingual:
            return any(texts.values())
        key_language = next(iter(file.columns))
        if len(texts) > 1 or key_language not in texts:
            return key_language in texts
        return any(isinstance(read_cell(record, column), str) for column in list(file.columns.values())[1:])

    def _checked(
        self, name: str, columns: Iterable[Column], records: Iterator[tuple[int, Record]]
    ) -> Iterator[tuple[int, Record]]:
        """Yield numbered records; at the end, a column that none of them has is an error."""
        missing, first = list(columns), list[Record]()
        for number, record in records:
            if missing:
                missing = [column for column in missing if not has_column(record, column)]
            if len(first) < LOOKED_AT:
                first.append(record)
            yield number, record
        if first:
            self._require(name, missing, column_names(first))

    @abstractmethod
    def _names(self, name: str) -> Sequence[str]:
        """Return the names of a file's columns, as far as it can be read."""

    @abstractmethod
    def _records(self, name: str, columns: Sequence[Column]) -> Iterator[tuple[int, Record]]:
        """Yield the records of a file, with the number of their line or row, as far as it can be read.

        Raises:
          UserError: it has not all of these columns.
        """
