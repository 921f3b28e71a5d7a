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


class Scratch:
    """What the downloads of one call share.

    Args:
      stack: that of the call; temporary folders go with it.

    Attributes:
      shared: objects by the name of their kind, such as apt's lists, which are fetched once for all corpora.
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
      section: what a declaration says under `obtain`.
      has_versions: whether the declaration pins a version; else the files that were fetched tell which text it was.
    """

    section: ClassVar[type[Section]]
    has_versions: ClassVar[bool] = True

    @abstractmethod
    def origin(self, spec: CorpusSpec) -> str:
        """Return where a corpus is from, in a few words for a list."""


class FetchedKind(ObtainKind):
    """A kind that downloads files into the cache."""

    @abstractmethod
    def plan(self, spec: CorpusSpec, scratch: Scratch) -> Sequence[Download]:
        """Return the downloads of a corpus.

        Raises:
          UserError: no client, or the corpus names something that is not there.
        """

    def cached(self, spec: CorpusSpec) -> tuple[Obtained, ...] | None:
        """Return a corpus's files in the cache, or None where they are not all there, whole.

        Raises:
          UserError: a file is not the one that the declaration pins.
        """
        return read_index(spec)

    def note_fetched(self, spec: CorpusSpec, files: Sequence[Obtained]) -> None:
        """Note which files were fetched for a corpus, now that all of them are there."""
        write_index(spec, files)


class LocalKind(ObtainKind):
    """A kind whose files a person has: nothing is fetched."""

    def origin(self, spec: CorpusSpec) -> str:
        """Return the patterns of the files, with their folder."""
        folder: str = getattr(spec.obtain, "folder", "")
        return f"{', '.join(spec.read.patterns)}{f' in {folder}' if folder else ''}"
