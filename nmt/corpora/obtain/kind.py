"""A kind of obtaining: how corpora with one `obtain.kind` are fetched, or found where a person has them.

Each kind is a module of this folder with a subclass of `ObtainKind`, and a line in the table of
nmt/corpora/obtain/kinds.py.
"""

import contextlib
import tempfile
from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar

from nmt.config import Section
from nmt.corpora.declare.spec import CorpusSpec
from nmt.corpora.obtain.cache import Download, Obtained, read_index, write_index
from nmt.corpora.readers.tree import Archives, Tree


class Scratch:
    """Objects and temporary folders that the downloads of one call share.

    Args:
      stack: removes the temporary folders when the call ends.

    Attributes:
      shared: objects by name, such as `apt`, whose lists are fetched once for all corpora.
    """

    def __init__(self, stack: contextlib.ExitStack) -> None:
        self._stack = stack
        self.shared: dict[str, object] = {}

    def folder(self, name: str) -> Path:
        """Return a new, empty folder."""
        temporary = tempfile.TemporaryDirectory(prefix=f"nmt-{name}-", ignore_cleanup_errors=True)
        return Path(self._stack.enter_context(temporary))


class ObtainKind(ABC):
    """A kind of obtaining.

    Attributes:
      section: schema of `obtain` in a declaration.
      has_versions: whether the declaration pins a version; where it does not, the hashes of the fetched files identify
        the text.
    """

    section: ClassVar[type[Section]]
    has_versions: ClassVar[bool] = True

    @abstractmethod
    def origin(self, spec: CorpusSpec) -> str:
        """Return the origin of a corpus in a few words, for a list."""

    @abstractmethod
    def has_own_files(self, spec: CorpusSpec) -> bool:
        """Return whether the person has the files of a corpus, so that nothing is fetched."""


class FetchedKind(ObtainKind):
    """A kind that downloads files into the cache."""

    @abstractmethod
    def plan(self, spec: CorpusSpec, scratch: Scratch) -> Sequence[Download]:
        """Return the downloads of a corpus.

        Raises:
          UserError: the client is not installed, or does not know a package of the corpus.
        """

    def cached(self, spec: CorpusSpec) -> tuple[Obtained, ...] | None:
        """Return a corpus's files in the cache, or None if any is missing or damaged.

        Raises:
          UserError: a file is not the one that the declaration pins.
        """
        return read_index(spec)

    def note_fetched(self, spec: CorpusSpec, files: Sequence[Obtained]) -> None:
        """Record the files of a corpus, once all of them are in the cache."""
        write_index(spec, files)

    def has_own_files(self, spec: CorpusSpec) -> bool:
        """Return False: the files are fetched."""
        return False

    def open_tree(self, spec: CorpusSpec, files: Sequence[Obtained]) -> Tree:
        """Return the contents of a corpus's files in the cache, by name.

        Raises:
          UserError: one of them cannot be opened.
        """
        return Archives([one.path for one in files], f"corpus {spec.name}")


class LocalKind(ObtainKind):
    """A kind that fetches nothing: the person has the files."""

    def origin(self, spec: CorpusSpec) -> str:
        """Return the patterns of the files, with their folder."""
        folder: str = getattr(spec.obtain, "folder", "")
        return f"{', '.join(spec.read.patterns)}{f' in {folder}' if folder else ''}"

    def has_own_files(self, spec: CorpusSpec) -> bool:
        """Return True."""
        return True
