"""The columns of a file that hold languages, found by their names and by what its first records have in them."""

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from nmt.corpora.declare.patterns import MatchedPath
from nmt.corpora.declare.spec import CorpusSpec
from nmt.corpora.declare.spec_read_columns import Columns
from nmt.corpora.readers.cells import Column, Record, read_cell, shown_column
from nmt.corpora.readers.column_rules import SIDE_NAMES, SIDES, Side, are_identifiers, is_column_of_text, match_heading
from nmt.corpora.readers.files import canonical_code
from nmt.corpora.readers.variable_languages import find_variable, unfolded_name
from nmt.errors import UserError

_SHOWN = 20  # names in an error
_NAME_LENGTH = 40  # characters of a name in an error


@dataclass(frozen=True)
class FirstRecords:
    """The beginning of a file: all its columns, and some records."""

    columns: Sequence[Column]
    records: Sequence[Record]

    @property
    def names(self) -> list[str]:
        """The columns as messages write them."""
        return [shown_column(column) for column in self.columns]

    def values(self, column: Column) -> list[Any]:
        """Return the values of a column, None where a record has none."""
        found = []
        for record in self.records:
            try:
                found.append(read_cell(record, column))
            except IndexError:
                found.append(None)
        return found


def _last_part(column: Column) -> str:
    return shown_column(column).rpartition(".")[2].strip()


class ColumnSearch:
    """The search for columns in the files of one corpus.

    Args:
      spec: the declaration.
      read: its section.
      leave_out: called with every column, as FILE: COLUMN, that is named like a language and has no text.
    """

    def __init__(self, spec: CorpusSpec, read: Columns, leave_out: Callable[[str], None]) -> None:
        self._spec, self._read, self._leave_out = spec, read, leave_out
        self._canonical: dict[str, str | None] = {}

    def canonical(self, code: str) -> str | None:
        """Return the canonical code of one of the corpus, None where it is unknown or not used."""
        if code not in self._canonical:
            name = self._spec.languages.get(code, code)
            self._canonical[code] = None if name is None else canonical_code(name)
        return self._canonical[code]

    def find_languages(self, name: str, first: FirstRecords) -> dict[str, Column]:
        """Return the columns of a file that are named like languages and have text, by these names.

        Raises:
          UserError: two have one name, such as title.de and text.de.
        """
        values = {column: first.values(column) for column in self._candidates(first)}
        texts = {
            column: found
            for column, found in values.items()
            if is_column_of_text(_last_part(column), found, first.names)
        }
        named: dict[str, list[Column]] = defaultdict(list)
        for column in values:
            others = [found for other, found in texts.items() if other != column]
            if column in texts and not are_identifiers(texts[column], others):
                named[_last_part(column)].append(column)
            else:
                self._leave_out(f"{name}: {shown_column(column)}")
        for code, columns in named.items():
            if len(columns) > 1:
                self._refuse_both(name, f"columns of {code}", columns, f"{code}: {shown_column(columns[0])}")
        return {code: columns[0] for code, columns in named.items()}

    def _candidates(self, first: FirstRecords) -> list[Column]:
        """Return the columns that are named like languages; where a translation has several within, only these."""
        found: list[Column] = [
            column
            for column in first.columns
            if (_last_part(column) in self._spec.languages or canonical_code(_last_part(column)))
            and shown_column(column) not in (self._read.component, self._read.id)
        ]
        within: list[Column] = [column for column in found if isinstance(column, tuple) and len(column) > 1]
        return within if len(within) > 1 else found

    def find_sides(self, found: MatchedPath, first: FirstRecords, *, by_order: bool) -> dict[Side, Column] | None:
        """Return the columns of both sides of a file of one direction; None: it has none.

        They are called source and target (or src, tgt, trg), or by the two languages, or they are the only ones.

        Args:
          found: the file.
          first: its beginning.
          by_order: whether two columns whose names say nothing are source and target.

        Raises:
          UserError: there are two of a side.
        """
        languages = dict(zip(SIDES, map(self.canonical, (found.source, found.target)), strict=True))
        called: dict[Side, Column] = {}
        for column, name in zip(first.columns, first.names, strict=True):
            side = next((side for side in SIDES if name.strip().casefold() in SIDE_NAMES[side]), None)
            if side is not None and called.setdefault(side, column) is not column:
                self._refuse_both(found.name, f"columns of the {side}", [called[side], column], f"{side}: {name}")
        coded = self._sides_by_language(found.name, first, languages)
        if len(called) == len(coded) == len(SIDES):
            both = f"source: {shown_column(coded['source'])}, target: {shown_column(coded['target'])}"
            self._refuse_both(found.name, "columns for both sides", [*called.values(), *coded.values()], both)
        if len(first.columns) == len(SIDES) and by_order and not called and not coded:
            return dict(zip(SIDES, first.columns, strict=True))
        return next((one for one in (called, coded) if len(one) == len(SIDES)), None)

    def _sides_by_language(
        self, name: str, first: FirstRecords, languages: Mapping[Side, str | None]
    ) -> dict[Side, Column]:
        if (variable := find_variable(first.records)) is not None:
            return {side: (unfolded_name(variable), code) for side, code in languages.items() if code}
        found = {self.canonical(code): column for code, column in self.find_languages(name, first).items()}
        return {side: found[code] for side, code in languages.items() if code and code in found}

    def _refuse_both(self, name: str, what: str, columns: Sequence[Column], example: str) -> None:
        both = " and ".join(map(shown_column, columns))
        raise UserError(
            f"corpus {self._spec.name}: {name} has {len(columns)} {what}: {both}; say under read: which to use, as in "
            f"columns: {{{example}}}"
        )

    def no_column(self, name: str, which: str, names: Sequence[str], hint: str = "") -> UserError:
        """Return the error of a file that has not the columns that are needed.

        Args:
          name: of the file.
          which: the columns that it has not.
          names: those that it has.
          hint: what to do; empty: to say under `read` which columns to use.
        """
        names = names or ["none"]
        short = [one if len(one) <= _NAME_LENGTH else f"{one[:_NAME_LENGTH]}..." for one in names]
        shown = ", ".join(short[:_SHOWN]) + (", ..." if len(names) > _SHOWN else "")
        advice = hint or (
            f"say under read: which have which language, as in columns: {{de: {short[0]}, en: {short[-1]}}}"
        )
        return UserError(f"corpus {self._spec.name}: {name} has no column {which}; its columns are {shown}; {advice}")

    def check_names(
        self, found: MatchedPath, languages: Mapping[str, Column], names: Sequence[str], place: str
    ) -> bool:
        """Return whether names are those of the columns that are read; False: they say nothing.

        Args:
          found: the file.
          languages: its columns by canonical codes.
          names: their names, or what may be names.
          place: where these stand.

        Raises:
          UserError: they say that other columns have these languages.
        """
        side_of = {self.canonical(code): side for side, code in zip(SIDES, (found.source, found.target), strict=True)}
        fits = match_heading(names, [*languages], [side_of.get(code, "") for code in languages])
        if fits is False:
            said = ", ".join(f"{code} is column {shown_column(column)}" for code, column in languages.items())
            raise UserError(
                f"corpus {self._spec.name}: {place} names these columns {', '.join(names)}, but by the declaration "
                f"{said}; say under read: header: true, and the names of the columns"
            )
        return bool(fits)
