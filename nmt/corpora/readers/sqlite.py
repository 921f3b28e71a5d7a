"""SQLite databases (`read.kind: sqlite`): one query gives every text with its language, component and key."""

import contextlib
import itertools
import shutil
import sqlite3
import tempfile
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

from nmt.corpora.declare.spec import CorpusSpec
from nmt.corpora.declare.spec_read import Sqlite
from nmt.corpora.readers.reader import EMPTY, CorpusReader, Row, check_codes, match_codes
from nmt.corpora.readers.tree import UNREADABLE, Tree, error_reason
from nmt.errors import UserError


class SqliteReader(CorpusReader):
    """An open corpus in a database, which is unpacked while it is open; SQLite sorts the rows, on the disk.

    Raises:
      UserError: there are several databases or none, the file is no database, the query fails, or it gives no text of
        the key language.
    """

    def __init__(self, spec: CorpusSpec, read: Sqlite, tree: Tree, patterns: tuple[str, ...]) -> None:
        super().__init__(spec)
        self._tree, self._query = tree, read.query.rstrip("; \n")
        self._stack = contextlib.ExitStack()
        with contextlib.ExitStack() as stack:
            self._database = self._connect(stack, patterns)
            found = self._select(f"SELECT DISTINCT language FROM ({self._query})")
            codes = match_codes(spec, (str(code) for (code,) in found))
            self._language_of, self.unregistered = codes.languages, codes.unregistered
            self.languages = sorted({*codes.languages.values()})
            if self.key_language not in self.languages:
                raise UserError(f"corpus {spec.name}: the query gives no {self.key_language} text{self._unknown()}")
            check_codes(spec, codes, self._together())
            self._stack = stack.pop_all()

    def _connect(self, stack: contextlib.ExitStack, patterns: tuple[str, ...]) -> sqlite3.Connection:
        found = self._tree.find(patterns)
        if len(found) != 1:
            shown = self._tree.missing(patterns)
            raise UserError(f"corpus {self.spec.name}: {len(found)} databases instead of one like {shown}; name one")
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="nmt-", ignore_cleanup_errors=True)))
        path, self._name = folder / "corpus.db", found[0].name
        try:
            with self._tree.plain(self._name) as plain, path.open("wb") as file:
                shutil.copyfileobj(plain, file, 1 << 20)
            database = sqlite3.connect(f"file:{quote(str(path))}?mode=ro", uri=True)
        except (*UNREADABLE, sqlite3.Error) as error:
            raise self._damaged(error) from None
        if not path.stat().st_size:
            raise self._damaged(ValueError(EMPTY))
        stack.callback(database.close)
        database.text_factory = lambda content: content.decode("utf-8", "replace")
        return database

    def _together(self) -> Iterator[list[str]]:
        """Yield codes of one language, each two that some text has in common."""
        by_language: dict[str, list[str]] = defaultdict(list)
        for code, language in self._language_of.items():
            by_language[language].append(code)
        for two in (two for codes in by_language.values() for two in itertools.combinations(codes, 2)):
            query = (
                f"SELECT 1 FROM ({self._query}) WHERE language IN (?, ?) "
                "GROUP BY component, key HAVING COUNT(DISTINCT language) > 1 LIMIT 1"
            )
            if any(True for _ in self._select(query, two)):
                yield list(two)

    def _select(self, query: str, values: tuple[str, ...] = ()) -> Iterator[tuple[Any, ...]]:
        try:
            yield from self._database.execute(query, values)
        except (sqlite3.OperationalError, sqlite3.ProgrammingError, sqlite3.Warning) as error:
            raise UserError(f"corpus {self.spec.name}: read.query: {error}") from None
        except sqlite3.Error as error:
            raise self._damaged(error) from None

    def _damaged(self, error: Exception) -> UserError:
        return UserError(f"corpus {self.spec.name}: cannot read {self._name}: {error_reason(error)}")

    def _rows(self, wanted: frozenset[str]) -> Iterator[Row]:
        used = {self.key_language, *wanted}
        codes = [code for code, language in sorted(self._language_of.items()) if language in used]
        marks = ", ".join("?" * len(codes))
        query = (
            f"SELECT language, component, key, text FROM ({self._query}) WHERE language IN ({marks}) "
            "ORDER BY component, key, language"
        )
        for (component, key), rows in itertools.groupby(self._select(query, tuple(codes)), lambda row: row[1:3]):
            texts: dict[str, str] = {}
            for code, _, _, text in rows:
                if isinstance(text, str | int | float):
                    language = self._language_of[str(code)]
                    if language in texts:
                        self._skip("earlier text of the same language and key", f"{code} {component} {key}")
                    texts[language] = str(text)
                else:
                    self._skip("text that is NULL or a BLOB", f"{code} {component} {key}")
            if (text := texts.pop(self.key_language, None)) is not None:
                yield Row(self.key_language, str(component), (str(component), str(key)), text, texts)

    def close(self) -> None:
        """Close the database, and remove what was unpacked."""
        self._stack.close()
        self._tree.close()
