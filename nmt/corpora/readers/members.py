"""The files in an archive that a person has, .zip or .tar (compressed or not), by their names in it.

Names are only names: nothing is unpacked under them, so that one with `..` or a leading `/` reaches nothing. What macOS
adds to archives (`__MACOSX/`, `._NAME`) is no file of the corpus.
"""

import contextlib
import io
import lzma
import posixpath
import tarfile
import tempfile
import threading
import zipfile
import zlib
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from typing import IO, Any, cast

from nmt.corpora.readers.compressed import decompressed

_BLOCK = 1 << 20  # bytes that are unpacked at once
_BUFFER = 1 << 16
_ENCRYPTED = 0x1  # bit of a member's flags

# What opening or unpacking a damaged archive can raise.
_DAMAGED = (
    *(OSError, EOFError, ValueError, NotImplementedError),
    *(zipfile.BadZipFile, tarfile.TarError, zlib.error, lzma.LZMAError),
)


class ArchiveMembers(ABC):
    """The members of an open archive.

    Attributes:
      damage: why not all members could be found; None: they were.
      random_access: whether members can be read at any place as quickly as from front to back.
    """

    damage: Exception | None = None
    random_access = True

    @abstractmethod
    def names(self) -> Iterator[str]:
        """Yield the names of all files in the archive."""

    @abstractmethod
    def open(self, name: str) -> IO[bytes]:
        """Open a member.

        Raises:
          ValueError: it is encrypted, or stored in a way that cannot be read.
        """

    @abstractmethod
    def close(self) -> None:
        """Close the archive."""


def open_members(raw: IO[bytes], name: str) -> ArchiveMembers:
    """Return the members of an archive; damage is noted in `damage`, and raises nothing.

    Args:
      raw: the open archive, which is closed with its members.
      name: its name, whose ending says what it is.
    """
    return ZipMembers(raw) if name.lower().endswith(".zip") else TarMembers(raw, name)


class ZipMembers(ArchiveMembers):
    """The members of a zip archive."""

    random_access = False

    def __init__(self, raw: IO[bytes]) -> None:
        self._raw = raw
        self._members: dict[str, zipfile.ZipInfo] = {}
        try:
            self._zip = zipfile.ZipFile(raw)
        except _DAMAGED as error:
            self.damage = error
            return
        self._members = {_plain_name(one.filename): one for one in self._zip.infolist() if not one.is_dir()}

    def names(self) -> Iterator[str]:
        """Yield the names of all files in the archive."""
        return filter(_is_corpus_file, self._members)

    def open(self, name: str) -> IO[bytes]:
        """Open a member, to be read from front to back."""
        member = self._members[name]
        if member.flag_bits & _ENCRYPTED:
            raise ValueError("it is encrypted: unpack the archive with its password first")
        return self._zip.open(member)

    def close(self) -> None:
        """Close the archive."""
        self._raw.close()


class TarMembers(ArchiveMembers):
    """The members of a tar archive; a compressed one is unpacked into a temporary file while it is open.

    A compressed tar can only be read from front to back. Its members are wanted side by side and more than once, so
    that it is decompressed once instead, which takes as much room in the temporary folder as its contents.
    """

    def __init__(self, raw: IO[bytes], name: str) -> None:
        self._file, self._lock = raw, threading.Lock()
        self._places: dict[str, tuple[int, int]] = {}  # where the content of a member begins, and its size
        self._links: dict[str, str] = {}
        try:
            if not name.lower().endswith(".tar"):
                self._file = self._unpacked(raw, name)
            self._index()
        except _DAMAGED as error:
            self.damage = self.damage or error

    def _unpacked(self, raw: IO[bytes], name: str) -> IO[bytes]:
        """Return a temporary file with the plain archive, as far as it can be decompressed."""
        copy = cast(IO[bytes], tempfile.TemporaryFile(prefix="nmt-"))  # noqa: SIM115 - closed with the archive
        with raw, contextlib.ExitStack() as stack:
            try:
                plain = cast(io.BufferedIOBase, stack.enter_context(decompressed(raw, _compressed_name(name))))
                while block := plain.read1(_BLOCK):  # what stands before damage, where read would raise alone
                    copy.write(block)
            except _DAMAGED as error:
                self.damage = error
        copy.seek(0)
        return copy

    def _index(self) -> None:
        """Note where every member is; what stands before damage can be used."""
        with tarfile.open(fileobj=self._file, mode="r:") as opened:
            archive: Any = opened
            while (member := archive.next()) is not None:
                name = _plain_name(member.name)
                if member.islnk():
                    self._links[name] = _plain_name(member.linkname)
                elif member.issym():
                    folder = posixpath.dirname(name)
                    self._links[name] = posixpath.normpath(posixpath.join(folder, member.linkname))
                elif member.isfile() and not member.issparse():
                    self._places[name] = (member.offset_data, member.size)
                archive.members = []  # which would grow with the archive, and hold more than is needed

    def names(self) -> Iterator[str]:
        """Yield the names of all files in the archive, links to such files among them."""
        links = (name for name in self._links if name not in self._places and self._target(name) in self._places)
        return filter(_is_corpus_file, (*self._places, *links))

    def open(self, name: str) -> IO[bytes]:
        """Open a member, to be read at any place."""
        start, size = self._places[self._target(name)]
        return io.BufferedReader(_Slice(self._read_at, start, size), _BUFFER)

    def _target(self, name: str) -> str:
        """Return the member that a link leads to; links to links end after a few steps."""
        for _ in range(8):
            if name in self._places:
                break
            name = self._links.get(name, name)
        return name

    def _read_at(self, place: int, count: int) -> bytes:
        with self._lock:
            self._file.seek(place)
            return self._file.read(count)

    def close(self) -> None:
        """Close the archive; a temporary file is gone with it."""
        self._file.close()


class _Slice(io.RawIOBase):
    """A part of a file."""

    def __init__(self, read_at: Callable[[int, int], bytes], start: int, size: int) -> None:
        self._read_at, self._start, self._size, self._place = read_at, start, size, 0

    def readable(self) -> bool:
        """Return True: it can be read."""
        return True

    def seekable(self) -> bool:
        """Return True: it can be read at any place."""
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """Go to a place, and return it."""
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self._place, io.SEEK_END: self._size}[whence]
        self._place = max(0, base + offset)
        return self._place

    def readinto(self, buffer: Any) -> int:
        """Read into a buffer; return how many bytes there were."""
        wanted = max(0, min(len(buffer), self._size - self._place))
        content = self._read_at(self._start + self._place, wanted) if wanted else b""
        if wanted and not content:
            raise EOFError("the archive ends within this file")
        buffer[: len(content)] = content
        self._place += len(content)
        return len(content)


def _plain_name(name: str) -> str:
    """Return the name of a member without `/` at its head, as unpacking drops it, and the `./` of a packed `.`."""
    while (name := name.lstrip("/")).startswith("./"):
        name = name[2:]
    return name


def _is_corpus_file(name: str) -> bool:
    *folders, last = name.split("/")
    return "__MACOSX" not in folders and not last.startswith("._")


def _compressed_name(name: str) -> str:
    """Return the name of a compressed tar with an ending that says how it is compressed."""
    name = name.lower()
    for short, suffix in ((".tgz", ".gz"), (".txz", ".xz"), (".tbz2", ".bz2"), (".tbz", ".bz2"), (".tzst", ".zst")):
        if name.endswith(short):
            return name.removesuffix(short) + suffix
    return name
