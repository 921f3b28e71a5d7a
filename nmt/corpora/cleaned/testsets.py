"""Test sets in files (`data.clean.decontaminate`), the text of which is kept out of training."""

import glob
import hashlib
import os
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

from etils import epath

from nmt.corpora.readers.compressed import decompressed
from nmt.corpora.readers.file_texts import file_texts, text_form
from nmt.corpora.readers.tree import UNREADABLE, error_reason
from nmt.corpora.wording import count_phrase
from nmt.errors import UserError
from nmt.files import is_remote

_KEY = "data.clean.decontaminate"
_WILD = "*?["
_HEAD = 4096
_SAME_AS_EVER = ("lines", "tsv", "jsonl")  # forms whose digest is that of the file alone, as it was before the others


class KeptOutFile(NamedTuple):
    """A file of a test set that was kept out of training.

    Attributes:
      file: its path.
      texts: texts that came of it.
      removed: training pairs with a side that overlaps with one of them, counted once in each direction; a pair that
        overlaps with several files counts for each.
    """

    file: str
    texts: int
    removed: int

    def __str__(self) -> str:
        texts, pairs = count_phrase(self.texts, "text"), count_phrase(self.removed, "pair")
        return f"kept out of training: {texts} of {self.file}, which removed {pairs}"


def find_test_sets(names: Sequence[str]) -> list[str]:
    """Return the files of test sets, each once: files, those below folders, and those that patterns fit.

    Args:
      names: paths; in patterns `*` is any part of a name and `**` any number of folders. Hidden files do not count.

    Raises:
      UserError: a folder or pattern has no file.
    """
    found = dict.fromkeys(file for name in names for file in _files(name))
    return list(found)


def _files(name: str) -> list[str]:
    path = epath.Path(name)
    if any(mark in name for mark in _WILD) and not path.exists():
        files = _remote(name) if is_remote(name) else glob.glob(os.path.expanduser(name), recursive=True)
        files = sorted(one for one in files if not epath.Path(one).is_dir())
        what = "no file is like"
    elif path.is_dir():
        below = (
            _remote(f"{name.rstrip('/')}/*")
            if is_remote(name)
            else glob.glob(f"{glob.escape(name)}/**", recursive=True)
        )
        files = sorted(one for one in below if not epath.Path(one).is_dir())
        what = "there is no file in the folder"
    else:
        return [name]
    if not files:
        raise UserError(f"{_KEY}: {what} {name}")
    return files


def _remote(pattern: str) -> list[str]:
    fixed, _, wild = pattern.partition("*")
    folder, _, begin = fixed.rpartition("/")
    return [os.fspath(path) for path in epath.Path(folder).glob(f"{begin}*{wild}")]


def test_set_digest(name: str) -> str:
    """Return the hash of a file and of how it is read. Raises UserError if it cannot be read."""
    with _opened(name) as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    try:
        with _opened(name) as raw, decompressed(raw, name) as file:
            form = text_form(name, file.read(_HEAD))
    except UNREADABLE as error:
        raise _unread(name, error) from None
    return digest if form in _SAME_AS_EVER else f"{form} {digest}"


class KeptOutTexts:
    """The texts of a file, and their number once they are read."""

    def __init__(self, name: str) -> None:
        self.name, self.count = name, 0

    def __iter__(self) -> Iterator[str]:
        """Yield the texts. Raises UserError: the file cannot be read, or has none."""
        self.count = 0
        try:
            with _opened(self.name) as raw:
                for text in file_texts(raw, self.name):
                    self.count += 1
                    yield text
        except UNREADABLE as error:
            raise _unread(self.name, error) from None
        if not self.count:
            raise UserError(f"{_KEY}: {self.name} has no text: leave it out")


def _unread(name: str, error: Exception) -> UserError:
    return UserError(f"{_KEY}: {name} cannot be read: {error_reason(error)}")


def _opened(name: str) -> Any:
    try:
        return epath.Path(name).open("rb")
    except OSError as error:
        raise UserError(f"{_KEY}: cannot read {name}: {error.strerror or error}") from None
