"""Compressed output: every chunk is a member of its own, so that a file that ends after any of them is a whole one."""

import bz2
import functools
import gzip
import lzma
from collections.abc import Callable

from nmt.corpora.readers.compressed import SUFFIXES
from nmt.errors import UserError

Pack = Callable[[bytes], bytes]


def packing(name: str) -> Pack:
    """Return the compression of a file by the ending of its name: .gz, .xz, .zst, .bz2, else none.

    Raises:
      UserError: zstandard is not installed.
    """
    match next((suffix for suffix in SUFFIXES if name.lower().endswith(suffix)), ""):
        case ".gz":
            return functools.partial(gzip.compress, mtime=0)
        case ".xz":
            return lzma.compress
        case ".bz2":
            return bz2.compress
        case ".zst":
            try:
                import zstandard
            except ImportError:
                raise UserError(f"{name} needs zstandard: pip install 'nmt-moe[zstd]', or write .xz or .gz") from None
            return lambda content: bytes(zstandard.ZstdCompressor().compress(content))
    return bytes
