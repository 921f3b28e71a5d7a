"""Readers of files with a column a language: the part that delimited text, JSON, Parquet and Arrow share."""

from abc import abstractmethod
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from nmt.corpora.declare.patterns import MatchedPath
from nmt.corpora.declare.spec import CorpusSpec
from nmt.corpora.declare.spec_read_columns import Columns
from nmt.corpora.readers.cells import AmbiguousColumnError, Column, Path, Record, has_column, read_cell, shown_column
from nmt.corpora.readers.column_rules import HAS_NO_TEXT, HEADING
from nmt.corpora.readers.column_search import ColumnSearch, FirstRecords
from nmt.corpora.readers.files import FilesReader
from nmt.corpora.readers.id_join import IdJoin, KeyedText
from nmt.corpora.readers.late_columns import LATE, LateColumns
from nmt.corpora.readers.reader import NO_TEXT, NOT_TEXT, Row, check_codes, match_codes, single_rows
from nmt.corpora.readers.tree import Tree
from nmt.corpora.readers.variable_languages import find_variable, texts_with_languages, unfold, unfolded_name
from nmt.errors import UserError

LOOKED_AT = 100  # records in which names are looked for
TOO_FEW = "line with too few columns"


@dataclass(frozen=True)
class _File:
    found: MatchedPath
    columns: dict[str, Column] | None  # by canonical code, the key language first; None: looked for when it is read
    languages: tuple[str, ...]


class ColumnsReader(FilesReader):
    """An open corpus of columns; holds a row at a time.

    Raises:
      UserError: no file has columns of two languages.
    """

    numbered = False  # whether columns have numbers instead of names
    ordered = False  # whether the order of two columns says which is the source, where their names do not

    def __init__(self, spec: CorpusSpec, read: Columns, tree: Tree, patterns: tuple[str, ...]) -> None:
        super().__init__(spec, tree)
        self._read = read
        self._search = ColumnSearch(spec, read, lambda place: self._skip(HAS_NO_TEXT, place))
        self._lacking: dict[str, FirstRecords] = {}  # files that have not the columns of two languages, for the error
        self._variable: dict[str, Path] = {}  # columns of variable languages, by file
        found = self._found(patterns)
        self._check(patterns, len(found))
        raw = [(one, self._columns(one)) for one in found]
        used = [(one.source, one.target) if columns is None else tuple(columns) for one, columns in raw]
        codes = match_codes(spec, (code for several in used for code in several))
        check_codes(spec, codes, self._together(raw))
        self.unregistered = codes.unregistered
        self._files = [self._described(one, columns, codes.languages) for one, columns in raw]
        self._groups = self._grouped()
        self._note(*(frozenset(code for file in group for code in file.languages) for group in self._groups))
        self._noted_at_opening = self.unreadable, self.skipped, self._first

    def _found(self, patterns: tuple[str, ...]) -> list[MatchedPath]:
        """Return the files that are read."""
        return self._tree.find(patterns)

    @property
    def _joins(self) -> bool:
        """Whether files have a language each, and a key in common."""
        return self._read.id is not None and not self.spec.monolingual

    def _columns(self, found: MatchedPath) -> dict[str, Column] | None:
        """Return the columns of a file by the corpus's codes of their languages; None: those of its two sides."""
        if declared := self._read.columns or ({"language": "text"} if self._read.id is not None else {}):
            pair = {"source": found.source, "target": found.target, "language": found.language}
            return {pair.get(code) or code: column for code, column in declared.items()}
        if found.source:
            return {found.source: 0, found.target: 1} if self.numbered else None
        first = self._look(found.name)
        variable = self._variable_columns(found.name, first)
        columns = self._search.find_languages(found.name, first) if variable is None else variable
        if len(columns) < 2:
            self._lacking[found.name] = first
        return columns

    def _together(self, raw: Iterable[tuple[MatchedPath, Mapping[str, Column] | None]]) -> Iterator[list[str]]:
        """Yield the codes that stand in one row each: two of one language exclude each other there."""
        groups: dict[tuple[str, ...], list[str]] = defaultdict(list)
        for one, columns in raw:
            if columns is not None and one.name not in self._variable:
                groups[one.rest if self._joins else (one.name,)] += columns
        yield from groups.values()

    def _described(self, one: MatchedPath, columns: Mapping[str, Column] | None, languages: Mapping[str, str]) -> _File:
        if columns is None:
            return _File(one, None, tuple(languages[code] for code in (one.source, one.target) if code in languages))
        known = self._ordered({languages[code]: column for code, column in columns.items() if code in languages})
        return _File(one, known, tuple(known))

    def _ordered(self, columns: Mapping[str, Column]) -> dict[str, Column]:
        """Return the columns with the key language first, if it is there."""
        return {code: columns[code] for code in sorted(columns, key=self.key_language.__ne__)}

    def _grouped(self) -> list[list[_File]]:
        """Return the files that are read together: those of one text in several languages, else each alone."""
        if not self._joins:
            return [[file] for file in self._files]
        groups: dict[tuple[str, ...], list[_File]] = defaultdict(list)
        for file in self._files:
            if file.languages:
                groups[file.found.rest].append(file)
        return list(groups.values())

    # Which columns a file has

    def _look(self, name: str) -> FirstRecords:
        """Return the first records of a file, without counting what is counted again when all of it is read."""
        before = self.skipped.copy(), self._first.copy()
        first = self._first_records(name)
        if first.columns:
            self.skipped, self._first = before
        return first

    def _variable_columns(self, name: str, first: FirstRecords) -> dict[str, Column] | None:
        """Return the columns of a file whose languages differ from record to record; all of it is read for them."""
        if (path := find_variable(first.records)) is None:
            return None
        before = self.skipped.copy(), self._first.copy()
        codes: dict[str, None] = {}
        for _, record in self._records(name, [path] if path else []):
            codes |= dict.fromkeys(code for code, _ in texts_with_languages(record, path))
        self.skipped, self._first = before
        self._variable[name] = path
        return {code: (unfolded_name(path), self._search.canonical(code) or code) for code in codes}

    def _side_columns(self, file: _File) -> dict[str, Column]:
        """Return the columns of both sides of a file of one direction, by canonical codes; none of an empty file."""
        name, first = file.found.name, self._look(file.found.name)
        if not first.columns:
            return {}
        sides = self._search.find_sides(file.found, first, by_order=self.ordered)
        if sides is None:
            which = f"source and target, nor {file.found.source} and {file.found.target}"
            raise self._search.no_column(name, which, first.names, self._hint(first))
        if (variable := find_variable(first.records)) is not None and isinstance(sides["source"], tuple):
            self._variable[name] = variable
        known = {self._search.canonical(getattr(file.found, side)): column for side, column in sides.items()}
        return self._ordered({code: column for code, column in known.items() if code})

    def _without_languages(self) -> UserError:
        error = super()._without_languages()
        if self._damages() or self.unregistered:
            return error
        if self._lacking:
            name, first = next(iter(self._lacking.items()))
            which = "of a language" if self.spec.monolingual else "of two languages"
            empty = "".join(f"; {what}" for what in self.skipped if what.startswith(HAS_NO_TEXT))
            if not first.columns:
                return UserError(f"corpus {self.spec.name}: {name} has no record that can be read{self._left_out()}")
            return self._search.no_column(name, which + empty, first.names, self._hint(first))
        if not self._joins and all(file.found.language for file in self._files):
            return UserError(f"{error}; if files of one language each have a key in common, say under read: id: NAME")
        return error

    def _left_out(self) -> str:
        """Return the end of a message: kinds of records that are left out."""
        return "".join(f"; {what}" for what in self.skipped)

    def _hint(self, first: FirstRecords) -> str:
        """Return advice where a file is of another form than the declaration says; empty: there is none."""
        return ""

    def _require(self, name: str, missing: Iterable[Column], first: FirstRecords) -> None:
        if which := " or ".join(map(shown_column, missing)):
            raise self._search.no_column(name, which, first.names, self._hint(first))

    # Rows

    def _rows(self, wanted: frozenset[str]) -> Iterator[Row]:
        if self._joins:
            for group in self._groups:
                yield from self._joined_rows({file.languages[0]: file for file in group}, wanted)
            return
        for file in self._files:
            if not (self.spec.monolingual or wanted & set(file.languages)):
                continue
            if not (columns := self._side_columns(file) if file.columns is None else file.columns):
                continue
            key_language, *others = columns
            used = [language for language in others if language in wanted]
            if used or self.spec.monolingual:
                yield from self._file_rows(file.found, columns, (key_language, *used))

    def _single_rows(self, wanted: frozenset[str]) -> Iterator[Row]:
        return single_rows(self._rows(wanted), wanted)

    def _file_rows(self, found: MatchedPath, columns: Mapping[str, Column], used: Sequence[str]) -> Iterator[Row]:
        """Yield the rows of a file, with the texts of some languages, the first of which is the key language."""
        name, key_language = found.name, used[0]
        for number, record in self._file_records(found, columns):
            place = f"{name}:{number}"
            try:
                cells = {language: read_cell(record, columns[language]) for language in used}
                part = self._part(found, record)
            except IndexError:
                self._skip(TOO_FEW, place)
                continue
            texts = {language: text for language, text in cells.items() if isinstance(text, str)}
            if any(cells[language] is not None for language in cells.keys() - texts.keys()):
                self._skip(NOT_TEXT, place)
            elif not self._has_text(record, columns, texts):
                self._skip(NO_TEXT, place)
            text = texts.pop(key_language, None)
            if self.spec.monolingual:
                # What the columns have is no translation of each other: one may be empty where another is not.
                yield Row(key_language, part, (name, f"{number:012d}"), text or "", texts)
            elif text is not None and texts:
                yield Row(key_language, part, (name, f"{number:012d}"), text, texts)

    def _part(self, found: MatchedPath, record: Record) -> str:
        component = self._read.component
        return found.component if component is None else str(read_cell(record, component) or "")

    def _has_text(self, record: Record, columns: Mapping[str, Column], texts: Mapping[str, str]) -> bool:
        """Return whether a row could be used, for the wanted languages, of which there are texts, or for others."""
        if self.spec.monolingual:
            return any(texts.values())
        key_language = next(iter(columns))
        if len(texts) > 1 or key_language not in texts:
            return key_language in texts
        return any(isinstance(read_cell(record, column), str) for column in list(columns.values())[1:])

    def _joined_rows(self, files: Mapping[str, _File], wanted: frozenset[str]) -> Iterator[Row]:
        """Yield the rows of files of one language each, in the order of the key language's."""
        key_language = self.key_language if self.key_language in files else min(files)
        others = [language for language in sorted(files) if language in wanted and language != key_language]
        if not others:
            return
        with IdJoin(self._skip) as join:
            for language in others:
                join.add(language, self._keyed_texts(files[language]))
            name = files[key_language].found.name
            for text, translations in join.align(self._keyed_texts(files[key_language])):
                yield Row(key_language, text.component, (name, f"{text.number:012d}"), text.text, translations)

    def _keyed_texts(self, file: _File) -> Iterator[KeyedText]:
        """Yield the texts of a file of one language that have a key."""
        assert file.columns is not None
        assert self._read.id is not None
        (column,) = file.columns.values()
        for number, record in self._file_records(file.found, file.columns):
            place = f"{file.found.name}:{number}"
            try:
                key, text = read_cell(record, self._read.id), read_cell(record, column)
                part = self._part(file.found, record)
            except IndexError:
                self._skip(TOO_FEW, place)
                continue
            if key is None or key == "":
                self._skip("row without a key", place)
            elif text is None or text == "":
                self._skip(NO_TEXT, place)
            elif not isinstance(text, str):
                self._skip(NOT_TEXT, place)
            else:
                yield KeyedText(str(key), text, part, number, place)

    # Records

    def _file_records(self, found: MatchedPath, columns: Mapping[str, Column]) -> Iterator[tuple[int, Record]]:
        """Yield the records of a file, with fixed columns for variable languages, without a line of names.

        Raises:
          UserError: a first line or the names of columns say that the languages stand in other columns.
        """
        name, variable = found.name, self._variable.get(found.name)
        more = [column for column in (self._read.component, self._read.id) if column is not None]
        languages = columns.values() if variable is None else [variable] if variable else []
        late = (
            None if self._read.columns or found.source or variable is not None else LateColumns(self._search.canonical)
        )
        try:
            for place, (number, record) in enumerate(self._records(name, [*languages, *more])):
                if late is not None and place < LOOKED_AT:
                    late.learn(record)
                elif late is not None and late.has_late_text(record):
                    self._skip(LATE, f"{name}:{number}")
                if variable is not None:
                    record, again = unfold(record, variable, self._search.canonical)
                    if again:
                        self._skip("further text of a language that the row has", f"{name}:{number}")
                if not place and self._is_heading(found, columns, number, record):
                    self._skip(HEADING, f"{name}:{number}")
                else:
                    yield number, record
        except AmbiguousColumnError as error:
            raise UserError(f"corpus {self.spec.name}: {name}: {error}") from None

    def _is_heading(self, found: MatchedPath, columns: Mapping[str, Column], number: int, record: Record) -> bool:
        """Return whether the first line of a file without names has the names of its columns."""
        if not isinstance(record, list):
            return False
        try:
            cells = [read_cell(record, column) for column in columns.values()]
        except IndexError:
            return False
        return self._search.check_names(found, columns, cells, f"{found.name}:{number}")

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
            self._require(name, missing, FirstRecords(self._columns_there(first), first))

    @abstractmethod
    def _columns_there(self, records: Sequence[Record]) -> Sequence[Column]:
        """Return the columns that some records have."""

    @abstractmethod
    def _first_records(self, name: str) -> FirstRecords:
        """Return the columns of a file and its first records, as far as it can be read."""

    @abstractmethod
    def _records(self, name: str, columns: Sequence[Column]) -> Iterator[tuple[int, Record]]:
        """Yield the records of a file, with the number of their line or row, as far as it can be read.

        Raises:
          UserError: it has not all of these columns.
        """
