"""Texts of several files with a language each, aligned by a key; texts wait on the disk."""

import sqlite3
import tempfile
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, closing
from pathlib import Path
from typing import NamedTuple, Self

ALONE = "row whose key the files of other languages do not have"
AGAIN = "row whose key the file has already"


class KeyedText(NamedTuple):
    """A text of one language with the key that its translations share."""

    key: str
    text: str
    component: str
    number: int  # of its line or record
    place: str  # FILE:NUMBER


class IdJoin:
    """A temporary database of texts by language and key, to be used in a `with` statement.

    Args:
      skip: counts a text that is left out, given the reason and the place.
    """

    def __init__(self, skip: Callable[[str, str], None]) -> None:
        self._skip = skip
        self._languages: list[str] = []

    def __enter__(self) -> Self:
        with ExitStack() as stack:
            folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="nmt-", ignore_cleanup_errors=True))
            self._database = stack.enter_context(closing(sqlite3.connect(Path(folder) / "texts.db")))
            # Nothing of it outlives this process, so that nothing need survive its end.
            self._database.execute("PRAGMA journal_mode = OFF")
            self._database.execute("PRAGMA synchronous = OFF")
            columns = "language TEXT, key TEXT, text TEXT, number INTEGER, place TEXT, used INTEGER DEFAULT 0"
            self._database.execute(f"CREATE TABLE texts ({columns}, PRIMARY KEY (language, key)) WITHOUT ROWID")
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def add(self, language: str, texts: Iterable[KeyedText]) -> None:
        """Keep the texts of a language; of several with one key the first."""
        self._languages.append(language)
        for one in texts:
            self._insert(language, one, one.text)

    def _insert(self, language: str, one: KeyedText, text: str) -> bool:
        query = "INSERT OR IGNORE INTO texts (language, key, text, number, place) VALUES (?, ?, ?, ?, ?)"
        new = bool(self._database.execute(query, (language, one.key, text, one.number, one.place)).rowcount)
        if not new:
            self._skip(AGAIN, one.place)
        return new

    def align(self, texts: Iterable[KeyedText]) -> Iterator[tuple[KeyedText, dict[str, str]]]:
        """Yield the texts of the key language with their translations by language.

        At the end the texts that have no partner are counted, language by language.
        """
        with_key = f"WHERE key = ? AND language IN ({', '.join('?' * len(self._languages))})"
        for one in texts:
            if not self._insert("", one, ""):
                continue
            parameters = (one.key, *self._languages)
            known = dict(self._database.execute(f"SELECT language, text FROM texts {with_key}", parameters).fetchall())
            if not known:
                self._skip(ALONE, one.place)
                continue
            self._database.execute(f"UPDATE texts SET used = 1 {with_key}", parameters)
            yield one, known
        unused = "SELECT place FROM texts WHERE language != '' AND NOT used ORDER BY language, number"
        for (place,) in self._database.execute(unused):
            self._skip(ALONE, place)
