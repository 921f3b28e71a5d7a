"""A string of a localisation file, and the libraries that parse some of these files."""

import contextlib
from collections.abc import Iterator
from typing import NamedTuple

from nmt.errors import UserError


class LocalisedString(NamedTuple):
    """A string with its key; `left_out` is why it is not used, empty if it is."""

    key: tuple[str, ...]
    text: str
    left_out: str = ""


@contextlib.contextmanager
def localisation_library(files: str) -> Iterator[None]:
    """Turn the lack of a library into a person's mistake, within a `with` statement that imports it.

    Args:
      files: those that it reads, for the message.

    Raises:
      UserError: the library is not installed.
    """
    try:
        yield
    except ImportError:
        raise UserError(f"{files} files need a library: pip install 'nmt-moe[localisation]'") from None
