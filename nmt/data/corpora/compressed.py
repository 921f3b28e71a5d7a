"""Files that may be compressed, by the ending of their name."""

import bz2
import contextlib
import gzip
import lzma
from collections.abc import Iterator
from typing import IO, Any, cast

from nmt.errors import UserError

SUFFIXES = (".gz", ".xz", ".zst", ".bz2")


def stem(name: str) -> str:
    """Return a name without the ending of its compression."""
    return next((name.removesuffix(suffix) for suffix in SUFFIXES if name.endswith(suffix)), name)


@contextlib.contextmanager
def decompressed(raw: IO[bytes], name: str) -> Iterator[IO[bytes]]:
    """Give the plain content of an open file, whose name says how it is compressed.

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
        import zstandard

        return zstandard.ZstdDecompressor().stream_reader(raw, read_across_frames=True)
    with contextlib.suppress(ImportError):
        import pyarrow

        return pyarrow.CompressedInputStream(pyarrow.PythonFile(raw, mode="r"), "zstd")
    raise UserError(f"{name} is compressed with Zstandard: pip install zstandard, or compress it with xz or gzip")
