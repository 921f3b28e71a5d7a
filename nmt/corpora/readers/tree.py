"""The files of a corpus under their names: members of archives in the cache, or files that a person has.

A person's files may lie in archives of theirs: the member NAME of `de-en.zip` is the file `de-en.zip/NAME`.
"""

import contextlib
import lzma
import os
import shutil
import tarfile
import tempfile
import zipfile
import zlib
from abc import ABC, abstractmethod
from collections.abc import Collection, Iterable, Iterator, Sequence
from pathlib import Path
from typing import IO, cast

from etils import epath

from nmt.corpora.declare.patterns import MatchedPath, compile_pattern, match_path, split_archive, split_glob
from nmt.corpora.readers.compressed import decompressed, stem
from nmt.corpora.readers.members import ArchiveMembers, open_members
from nmt.errors import UserError

# What reading a damaged file, a member of a damaged archive or a file that has gone can raise.
UNREADABLE = (
    OSError,
    ValueError,
    EOFError,
    RecursionError,
    zipfile.BadZipFile,
    tarfile.TarError,
    zlib.error,
    lzma.LZMAError,
    NotImplementedError,
)

_LISTED = 5  # members of an archive in an error


def error_reason(error: BaseException) -> str:
    """Return why a file could not be read, on one line."""
    text = (isinstance(error, OSError) and error.strerror) or str(error) or type(error).__name__
    return " ".join(text.split())


class Tree(ABC):
    """Files by name; names have no order of their own.

    Attributes:
      damaged: archives in which not all files could be found, as `NAME: REASON`.
      declared: codes that the declaration of the corpus says the language of; they help to divide names.
    """

    damaged: Sequence[str] = ()
    declared: Collection[str] = ()

    @abstractmethod
    def find(self, patterns: Sequence[str]) -> list[MatchedPath]:
        """Return the files that a pattern fits, the first one that does, sorted by name.

        Raises:
          UserError: the codes of languages in a name can be read in several ways.
        """

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
            if stem(name) == name and self._has_random_access(name):
                yield file
                return
            with tempfile.TemporaryFile(prefix="nmt-") as copy:
                shutil.copyfileobj(file, copy, 1 << 20)
                copy.seek(0)
                yield cast(IO[bytes], copy)

    def _has_random_access(self, name: str) -> bool:
        """Return whether the content of a file, as it is, can be read at any place as quickly as in order."""
        return True

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
        return _fitting(sorted(self._member), patterns, self.declared)

    def open(self, name: str) -> IO[bytes]:
        """Open a member."""
        return self._member[name].open(name)

    def _has_random_access(self, name: str) -> bool:
        return False

    def close(self) -> None:
        """Close the archives."""
        for archive in self._zips:
            archive.close()


class Files(Tree):
    """Files below a folder, here or on gs://; names are relative to it, or whole where the pattern is.

    Archives that a pattern reaches into are opened when files are looked for. Those on gs:// are copied into a
    temporary file first.

    Attributes:
      folder: the folder; empty: the working directory.
    """

    def __init__(self, folder: str) -> None:
        self.folder = folder.rstrip("/")
        self.damaged: list[str] = []
        self._archives: dict[str, ArchiveMembers] = {}

    def find(self, patterns: Sequence[str]) -> list[MatchedPath]:
        """Return the files that a pattern fits, the first one that does, sorted by name."""
        names = {name for pattern in patterns for name in (*self._list_files(pattern), *self._list_archived(pattern))}
        return _fitting(sorted(names), patterns, self.declared)

    def sources(self, patterns: Sequence[str]) -> list[str]:
        """Return the files on the disk that a pattern fits, sorted; for files in archives, the archives."""
        plain = (name for pattern in patterns for name in self._list_files(pattern))
        archives = (name for pattern in patterns for name in self._find_archives(pattern))
        return sorted({*(one.name for one in _fitting(plain, patterns, self.declared)), *archives})

    def _list_files(self, pattern: str) -> Iterator[str]:
        """Yield files that may fit a pattern."""
        base, glob = split_glob(self.full_path(pattern))
        return (self._shown(str(path)) for path in _glob(base or ".", glob))

    def _find_archives(self, pattern: str) -> list[str]:
        """Return the archives that a pattern reaches into."""
        if (parts := split_archive(pattern)) is None:
            return []
        return [one.name for one in _fitting(sorted(self._list_files(parts[0])), parts[:1], self.declared)]

    def _list_archived(self, pattern: str) -> Iterator[str]:
        """Yield all files in the archives that a pattern reaches into."""
        for archive in self._find_archives(pattern):
            yield from (f"{archive}/{member}" for member in self._members(archive).names())

    def _members(self, archive: str) -> ArchiveMembers:
        if archive not in self._archives:
            raw: IO[bytes] = epath.Path(path := self.full_path(archive)).open("rb")
            members = self._archives[archive] = open_members(_copied(raw) if "://" in path else raw, archive)
            if members.damage is not None:
                self.damaged.append(f"{archive}: {error_reason(members.damage)}")
        return self._archives[archive]

    def open(self, name: str) -> IO[bytes]:
        """Open a file."""
        if archive := self._containing_archive(name):
            return self._archives[archive].open(name.removeprefix(f"{archive}/"))
        file: IO[bytes] = epath.Path(self.full_path(name)).open("rb")
        return file

    def _has_random_access(self, name: str) -> bool:
        archive = self._containing_archive(name)
        return archive is None or self._archives[archive].random_access

    def _containing_archive(self, name: str) -> str | None:
        """Return the open archive that a file lies in, None if it lies in none."""
        ends = (place for place, letter in enumerate(name) if letter == "/")
        return next((name[:end] for end in ends if name[:end] in self._archives), None) if self._archives else None

    def close(self) -> None:
        """Close the archives."""
        for archive in self._archives.values():
            archive.close()
        self._archives.clear()

    def size(self, name: str) -> int:
        """Return how many bytes a file has."""
        return int(epath.Path(self.full_path(name)).stat().length)

    def full_path(self, name: str) -> str:
        """Return the path of a file."""
        return name if _is_absolute(name) or not self.folder else f"{self.folder}/{name}"

    def missing(self, patterns: Sequence[str]) -> str:
        """Return patterns that no file fits, with their folder, whether there is one, and what archives have."""
        shown = " or ".join(patterns)
        contents = "".join(
            f"; {self.contents(one)}" for pattern in patterns for one in self._find_archives(pattern)[:1]
        )
        if all(map(_is_absolute, patterns)):
            return shown + contents
        folder = self.folder or os.getcwd()
        gone = "" if "://" in folder or os.path.isdir(folder) else ", which is no folder"
        return f"{shown} in {folder}{gone}{contents}"

    def contents(self, archive: str) -> str:
        """Return the contents of an archive, as messages say it: `de-en.zip has README, x.de, ... (12 files)`."""
        names = sorted(self._members(archive).names())
        listed = ", ".join(names[:_LISTED]) or "no files"
        return f"{archive} has {listed}" + (f", ... ({len(names):,} files)" if len(names) > _LISTED else "")

    def _shown(self, path: str) -> str:
        return path.removeprefix(f"{self.folder}/") if self.folder else path


def _copied(raw: IO[bytes]) -> IO[bytes]:
    """Return a temporary file with the content of another one, which is closed."""
    copy = cast(IO[bytes], tempfile.TemporaryFile(prefix="nmt-"))  # noqa: SIM115 - closed with the archive
    with raw:
        shutil.copyfileobj(raw, copy, 1 << 20)
    copy.seek(0)
    return copy


def _is_absolute(name: str) -> bool:
    return name.startswith("/") or "://" in name


def _glob(base: str, glob: str) -> list[Path]:
    """Return the files that a glob finds; none where there is no such folder, which the caller reports."""
    if "://" in base and "**" in glob:
        raise UserError(
            f"{base}/{glob}: ** and {{path}} cannot be looked for on remote storage; use * and {{component}}"
        )
    with contextlib.suppress(OSError):
        folder = epath.Path(base) if "://" in base else Path(base)
        return [path for path in folder.glob(glob) if "://" in base or path.is_file()]
    return []


def _fitting(names: Iterable[str], patterns: Sequence[str], declared: Collection[str]) -> list[MatchedPath]:
    compiled = [compile_pattern(pattern) for pattern in patterns]
    fits = (next((fit for one in compiled if (fit := match_path(one, name, declared))), None) for name in names)
    return [fit for fit in fits if fit]
