"""Repacking downloaded archives into one zip archive of the files that `read` asks for, which gives random access."""

import gzip
import lzma
import os
import tarfile
import zipfile
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import IO

from nmt.corpora.declare.patterns import compile_pattern
from nmt.corpora.readers.compressed import decompressed
from nmt.errors import UserError

# The earliest time that a zip archive can hold, so that the same files give the same archive.
_EPOCH = (1980, 1, 1, 0, 0, 0)
_DAMAGED = (OSError, EOFError, ValueError, lzma.LZMAError, zlib.error, gzip.BadGzipFile, tarfile.TarError)
# Half the time of zlib's default, for a tenth more bytes.
_LEVEL = 3
_AR_MAGIC = b"!<arch>\n"


def repack(archives: Sequence[Path], patterns: Sequence[str], target: Path, what: str, some: bool = True) -> int:
    """Write the members of archives or Debian packages that a pattern fits to a zip archive.

    Args:
      archives: the archives, the first of which counts where several have a name.
      patterns: as in `read.files`.
      target: the zip archive.
      what: begins messages, as `corpus NAME`.
      some: whether it is an error if no member fits.

    Returns:
      The number of members written.

    Raises:
      UserError: an archive is damaged, or no member fits.
    """
    wanted = [compile_pattern(pattern) for pattern in patterns]
    written: set[str] = set()
    with zipfile.ZipFile(target, "w") as zipped:
        for archive in archives:
            try:
                for name, file in _members(archive):
                    if name not in written and any(pattern.fits(name) for pattern in wanted):
                        add_member(zipped, name, file.read())
                        written.add(name)
            except _DAMAGED as error:
                raise UserError(f"{what}: cannot unpack {archive.name}: {error}") from None
        if some and not written:
            names = ", ".join(archive.name for archive in archives)
            raise UserError(f"{what}: {names} has no file like {' or '.join(patterns)}")
    return len(written)


def add_member(zipped: zipfile.ZipFile, name: str, content: bytes) -> None:
    """Add a member to a zip archive; the bytes written depend on its name and content only."""
    entry = zipfile.ZipInfo(name, _EPOCH)
    zipped.writestr(entry, content, zipfile.ZIP_DEFLATED, _LEVEL)


def _members(path: Path) -> Iterator[tuple[str, IO[bytes]]]:
    """Yield names and contents of the files of a tar archive or Debian package, one after the other."""
    if zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as zipped:
            for name in zipped.namelist():
                with zipped.open(name) as content:
                    yield name, content
        return
    with path.open("rb") as raw:
        name, stream = _data_member(raw) if path.suffix == ".deb" else (path.name, raw)
        with decompressed(stream, name) as plain, tarfile.open(fileobj=plain, mode="r|") as tar:
            for member in tar:
                if member.isfile() and (file := tar.extractfile(member)):
                    yield member.name.removeprefix("./"), file


def _data_member(raw: IO[bytes]) -> tuple[str, IO[bytes]]:
    """Return name and content of the member data.tar.* of a Debian package (deb(5): an ar archive)."""
    if raw.read(len(_AR_MAGIC)) != _AR_MAGIC:
        raise ValueError("not a Debian package")
    while len(header := raw.read(60)) == 60:
        name, size = header[:16].decode("ascii", "replace").strip().rstrip("/"), int(header[48:58])
        if name.startswith("data.tar"):
            return name, _Part(raw, size)  # type: ignore[return-value]
        raw.seek(size + size % 2, os.SEEK_CUR)
    raise ValueError("not a Debian package: it has no data")


class _Part:
    """The next `size` bytes of a file, as a file of their own that is read once."""

    def __init__(self, raw: IO[bytes], size: int) -> None:
        self._raw, self._left = raw, size

    def read(self, size: int = -1) -> bytes:
        """Return the next bytes, at most `size` of them."""
        take = self._left if size < 0 else min(size, self._left)
        content = self._raw.read(take)
        self._left -= len(content)
        return content

    def close(self) -> None:
        """Nothing is to be closed: the file belongs to who opened it."""
