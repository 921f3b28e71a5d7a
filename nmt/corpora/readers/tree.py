"""The files of a corpus under their names: members of archives in the cache, or files that a person has."""

import contextlib
import lzma
import os
import shutil
import tempfile
import zipfile
import zlib
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import IO, cast

from etils import epath

from nmt.corpora.declare.patterns import MatchedPath, compile_pattern, match_path, split_glob
from nmt.corpora.readers.compressed import decompressed, stem
from nmt.errors import UserError

# What reading a damaged file, a member of a damaged archive or a file that has gone can raise.
UNREADABLE = (
    OSError,
    ValueError,
    EOFError,
    RecursionError,
    zipfile.BadZipFile,
    zlib.error,
    lzma.LZMAError,
    NotImplementedError,
)


def error_reason(error: BaseException) -> str:
    """Return why a file could not be read, on one line."""
    text = (isinstance(error, OSError) and error.strerror) or str(error) or type(error).__name__
    return " ".join(text.split())


class Tree(ABC):
    """Files by name; names have no order of their own."""

    @abstractmethod
    def find(self, patterns: Sequence[str]) -> list[MatchedPath]:
        """Return the files that a pattern fits, the first one that does, sorted by name."""

    @abstractmethod
    def open(self, name: str) -> IO[bytes]:
        """Open a file as it is."""

    @contextlib.contextmanager
    def plain(self, name: str) -> Iterator[IO[bytes]]:
        """Give the content of a file, decompressed where its name says so, to be read from front to back."""
        with self.open(name) as raw, decompressed(raw, name) as file:
            yield file

    @contextlib.contextmanager
    def seekable(self, name: str) -> Iterator[IO[bytes]]:
        """Give the content of a file, decompressed into a temporary one if need be, to be read at any place."""
        with self.plain(name) as file:
            if stem(name) == name:
                yield file
                return
            with tempfile.TemporaryFile(prefix="nmt-") as copy:
                shutil.copyfileobj(file, copy, 1 << 20)
                copy.seek(0)
                yield cast(IO[bytes], copy)

    def read(self, name: str) -> bytes:
        """Return the content of a file, decompressed."""
        with self.plain(name) as file:
            return file.read()

    def missing(self, patterns: Sequence[str]) -> str:
        """Return patterns that no file fits, and where such files were looked for, as messages say it."""
        return " or ".join(patterns)

    @abstractmethod
    def close(self) -> None:
        """Close what is open."""


class Archives(Tree):
    """The members of zip archives; where several have a name, the first one's counts.

    Raises:
      UserError: one of them is no zip archive; the message begins with `what`.
    """

    def __init__(self, paths: Iterable[Path], what: str) -> None:
        self._zips: list[zipfile.ZipFile] = []
        self._member: dict[str, zipfile.ZipFile] = {}
        for path in paths:
            try:
                archive = zipfile.ZipFile(path)
            except (OSError, zipfile.BadZipFile) as error:
                self.close()
                raise UserError(f"{what}: cannot read {path}: {error}; delete it to have it fetched again") from None
            self._zips.append(archive)
            for name in archive.namelist():
                self._member.setdefault(name, archive)

    def find(self, patterns: Sequence[str]) -> list[MatchedPath]:
        """Return the members that a pattern fits, the first one that does, sorted by name."""
        return _fitting(sorted(self._member), patterns)

    def open(self, name: str) -> IO[bytes]:
        """Open a member."""
        return self._member[name].open(name)

    def close(self) -> None:
        """Close the archives."""
        for archive in self._zips:
            archive.close()


class Files(Tree):
    """Files below a folder, here or on gs://; names are relative to it, or whole where the pattern is.

    Attributes:
      folder: the folder; empty: the working directory.
    """

    def __init__(self, folder: str) -> None:
        self.folder = folder.rstrip("/")

    def find(self, patterns: Sequence[str]) -> list[MatchedPath]:
        """Return the files that a pattern fits, the first one that does, sorted by name."""
        names: set[str] = set()
        for pattern in patterns:
            base, glob = split_glob(self.full_path(pattern))
            names.update(self._shown(str(path)) for path in _glob(base or ".", glob))
        return _fitting(sorted(names), patterns)

    def open(self, name: str) -> IO[bytes]:
        """Open a file."""
        file: IO[bytes] = epath.Path(self.full_path(name)).open("rb")
        return file

    def close(self) -> None:
        """Nothing stays open."""

    def size(self, name: str) -> int:
        """Return how many bytes a file has."""
        return int(epath.Path(self.full_path(name)).stat().length)

    def full_path(self, name: str) -> str:
        """Return the path of a file."""
        return name if _is_absolute(name) or not self.folder else f"{self.folder}/{name}"

    def missing(self, patterns: Sequence[str]) -> str:
        """Return patterns that no file fits, with their folder, and whether there is one."""
        shown = " or ".join(patterns)
        if all(map(_is_absolute, patterns)):
            return shown
        folder = self.folder or os.getcwd()
        gone = "" if "://" in folder or os.path.isdir(folder) else ", which is no folder"
        return f"{shown} in {folder}{gone}"

    def _shown(self, path: str) -> str:
        return path.removeprefix(f"{self.folder}/") if self.folder else path


def _is_absolute(name: str) -> bool:
    return name.startswith("/") or "://" in name


def _glob(base: str, glob: str) -> list[Path]:
    """Return the files that a glob finds; none where there is no such folder, which is told by who asked for them."""
    if "://" in base and "**" in glob:
        raise UserError(
            f"{base}/{glob}: ** and {{path}} cannot be looked for on remote storage; use * and {{component}}"
        )
    with contextlib.suppress(OSError):
        folder = epath.Path(base) if "://" in base else Path(base)
        return [path for path in folder.glob(glob) if "://" in base or path.is_file()]
    return []


def _fitting(names: Iterable[str], patterns: Sequence[str]) -> list[MatchedPath]:
    compiled = [compile_pattern(pattern) for pattern in patterns]
    fits = (next((fit for one in compiled if (fit := match_path(one, name))), None) for name in names)
    return [fit for fit in fits if fit]
