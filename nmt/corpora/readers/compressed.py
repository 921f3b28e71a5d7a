"""Files that may be compressed, by the ending of their name; one that is cut or corrupt is an error, never an end."""

import bz2
import contextlib
import gzip
import io
import lzma
from collections.abc import Iterator
from typing import IO, Any, cast

from nmt.errors import UserError

SUFFIXES = (".gz", ".xz", ".zst", ".bz2")

_PACKED_BYTES = 1 << 14  # what is decompressed at once


def stem(name: str) -> str:
    """Return a name without the ending of its compression."""
    return next((name.removesuffix(suffix) for suffix in SUFFIXES if name.endswith(suffix)), name)


@contextlib.contextmanager
def decompressed(raw: IO[bytes], name: str) -> Iterator[IO[bytes]]:
    """Give the plain content of an open file, whose name says how it is compressed.

    Reading it raises an error of `tree.UNREADABLE` where the file is not what its name says, corrupt or cut.

    Raises:
      UserError: Zstandard, and neither zstandard nor pyarrow is installed.
    """
    opened: Any
    if name.endswith((".gz", ".tgz")):
        opened = gzip.GzipFile(fileobj=raw)
    elif name.endswith((".xz", ".lzma")):
        opened = lzma.LZMAFile(raw)  # noqa: SIM115 - closed below
    elif name.endswith(".bz2"):
        opened = bz2.BZ2File(raw)
    elif name.endswith(".zst"):
        opened = _zstandard(raw, name)
    else:
        yield raw
        return
    with opened:
        yield cast(IO[bytes], opened)


def _zstandard(raw: IO[bytes], name: str) -> Any:
    with contextlib.suppress(ImportError):
        return io.BufferedReader(_Frames(raw), 8 * _PACKED_BYTES)
    with contextlib.suppress(ImportError):
        import pyarrow

        return io.BufferedReader(_Reading(pyarrow.CompressedInputStream(pyarrow.PythonFile(raw, mode="r"), "zstd")))
    raise UserError(f"{name} is compressed with Zstandard: pip install 'nmt-moe[zstd]', or compress it with xz or gzip")


class _Frames(io.RawIOBase):
    """The content of frames of Zstandard; zstandard's own reader takes a frame that is cut for the end of the file."""

    def __init__(self, raw: IO[bytes]) -> None:
        import zstandard

        self._raw = raw
        self._decompressor, self._error = zstandard.ZstdDecompressor(), zstandard.ZstdError
        self._frame: Any = None  # the frame that has begun, and not ended
        self._packed = b""
        self._content = memoryview(b"")

    def readable(self) -> bool:
        """Return that it can be read."""
        return True

    def readinto(self, buffer: Any) -> int:
        """Read into a buffer; return how many bytes there were."""
        while not self._content and self._decompress():
            pass
        taken = self._content[: len(buffer)]
        buffer[: len(taken)] = taken
        self._content = self._content[len(taken) :]
        return len(taken)

    def _decompress(self) -> bool:
        """Decompress what comes next; return whether there was anything."""
        packed = self._packed or self._raw.read(_PACKED_BYTES)
        if not packed:
            if self._frame is not None:
                raise EOFError("the file ends within a frame of Zstandard")
            return False
        self._frame = self._frame or self._decompressor.decompressobj()
        try:
            self._content = memoryview(self._frame.decompress(packed))
        except self._error as error:
            raise ValueError(str(error)) from None
        self._packed = self._frame.unused_data
        if self._frame.eof:
            self._frame = None
        return True


class _Reading(io.RawIOBase):
    """An object with a `read` method, as a file that Python can buffer, and so divide into lines."""

    def __init__(self, reader: Any) -> None:
        self._reader = reader

    def readable(self) -> bool:
        """Return that it can be read."""
        return True

    def readinto(self, buffer: Any) -> int:
        """Read into a buffer; return how many bytes there were."""
        content = self._reader.read(len(buffer))
        buffer[: len(content)] = content
        return len(content)
