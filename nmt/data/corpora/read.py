"""Reading a corpus: aligned rows, straight from the archive."""

import json
import re
import zipfile
import zlib
from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from nmt import languages
from nmt.data.corpora.spec import CorpusSpec
from nmt.errors import UserError

KeyPath = tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Row:
    """One text of the key language and its translations, as they stand in the corpus."""

    language: str  # the key language's canonical code
    component: str
    key: KeyPath
    text: str
    translations: Mapping[str, str]  # by the language's canonical code; languages without a translation are absent


@dataclass(frozen=True)
class Provenance:
    """Which text was used."""

    name: str
    version: str
    licence: str
    sha256: str


@dataclass
class Archive:
    """An open corpus: which tables it holds, and which of them turned out to be unreadable.

    Raises:
      UserError: the file is no zip archive, two of its codes denote one language, or none the key language.
    """

    spec: CorpusSpec
    path: Path
    unreadable: list[str] = field(default_factory=list)  # filled while rows are read

    def __post_init__(self) -> None:
        try:
            self._zip = zipfile.ZipFile(self.path)
        except (OSError, zipfile.BadZipFile) as error:
            raise UserError(f"corpus {self.spec.name}: cannot read {self.path}: {error}") from None
        self._files = self._tables()
        self._code_of = _codes(self.spec, {code for _, code in self._files})
        if self.key_language not in self._code_of:
            pattern = self.spec.read.files
            raise UserError(f"corpus {self.spec.name}: {self.path} has no {self.key_language} table among {pattern}")

    def _tables(self) -> dict[tuple[str, str], str]:
        """Return the path of the table of every (component, code of the corpus)."""
        pattern = re.escape(self.spec.read.files)
        for name in ("component", "language"):
            pattern = pattern.replace(re.escape(f"{{{name}}}"), f"(?P<{name}>[^/]+)")
        matches = map(re.compile(pattern).fullmatch, self._zip.namelist())
        return {(match["component"], match["language"]): match[0] for match in matches if match}

    @property
    def key_language(self) -> str:
        """The canonical code of the language that all others are translated from."""
        return languages.get(self.spec.read.key_language).code

    @property
    def languages(self) -> list[str]:
        """The canonical codes of the languages that the registry knows, sorted."""
        return sorted(self._code_of)

    @property
    def provenance(self) -> tuple[Provenance, ...]:
        """Which text this is."""
        spec = self.spec
        return (Provenance(spec.name, spec.obtain.version, spec.licence, spec.obtain.sha256),)

    def has(self, source: str, target: str) -> bool:
        """Return whether there may be text of a direction (canonical codes)."""
        return source in self._code_of and target in self._code_of

    def rows(self, wanted: Collection[str]) -> Iterator[Row]:
        """Yield the rows in the order of (component, key path), whatever the order of the archive.

        Args:
          wanted: canonical codes; only the tables of these and of the key language are read. A table that is
            not a JSON object is noted in `unreadable` and otherwise passed over.
        """
        key_code = self._code_of[self.key_language]
        codes = {code: self._code_of[code] for code in sorted(wanted) if code in self._code_of}
        codes.pop(self.key_language, None)
        for component in sorted(component for component, code in self._files if code == key_code):
            texts = self._strings(component, key_code)
            tables = {language: self._strings(component, code) for language, code in codes.items()}
            for key in sorted(texts):
                translations = {language: table[key] for language, table in tables.items() if key in table}
                yield Row(self.key_language, component, key, texts[key], translations)

    def _strings(self, component: str, code: str) -> dict[KeyPath, str]:
        if (component, code) not in self._files:
            return {}
        path = self._files[component, code]
        try:
            if isinstance(table := json.loads(self._zip.read(path)), dict):
                return dict(_flat(table))
        except (ValueError, RecursionError, zipfile.BadZipFile, zlib.error):
            pass
        self.unreadable.append(path)
        return {}

    def __enter__(self) -> "Archive":
        return self

    def __exit__(self, *_: object) -> None:
        self._zip.close()


Source = Archive


def _flat(table: object, path: KeyPath = ()) -> Iterator[tuple[KeyPath, str]]:
    if isinstance(table, dict):
        for key, value in table.items():
            yield from _flat(value, (*path, key))
    elif isinstance(table, str):
        yield path, table


def _codes(spec: CorpusSpec, found: Iterable[str]) -> dict[str, str]:
    """Return the code that the corpus uses for every language that the registry knows."""
    known: dict[str, list[str]] = defaultdict(list)
    for code in sorted(found):
        if (name := spec.languages.get(code, code)) is None:
            continue
        try:
            known[languages.get(name).code].append(code)
        except UserError as error:
            if code in spec.languages:
                raise UserError(f"corpus {spec.name}: languages.{code}: {error}") from None
    for language, codes in known.items():
        if len(codes) > 1:
            raise UserError(
                f"corpus {spec.name}: {' and '.join(codes)} are all {language}; "
                f"say under languages: which to use, such as `{codes[-1]}: null`"
            )
    return {language: codes[0] for language, codes in known.items()}
