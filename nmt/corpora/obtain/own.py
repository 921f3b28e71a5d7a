"""Corpora whose files the person has: finding these files, and the way to read them."""

import contextlib
import os
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from etils import epath

from nmt.corpora.declare.patterns import ARCHIVES, expand_variables, split_archive
from nmt.corpora.declare.spec import CorpusSpec
from nmt.corpora.declare.spec_obtain import LocalFiles
from nmt.corpora.declare.spec_read import Read
from nmt.corpora.obtain.contents import known_sha256s
from nmt.corpora.obtain.kind import LocalKind
from nmt.corpora.readers.kinds import READER_KINDS, resolve_reading
from nmt.corpora.readers.tree import Files
from nmt.errors import UserError
from nmt.files import is_remote
from nmt.progress import SILENT, Reporter


class FilesKind(LocalKind):
    """Files below a folder, here or on gs://."""

    section = LocalFiles


@dataclass(frozen=True)
class OwnFile:
    """A file of the person's own."""

    name: str  # below the folder of the declaration, or whole where the pattern is
    size: int
    sha256: str  # empty for one in an object store, or one that cannot be read
    modified: str  # of one in an object store: when


@dataclass(frozen=True)
class OwnCorpus:
    """How to read a corpus of the person's own files; variables are replaced."""

    read: Read
    patterns: tuple[str, ...]
    companions: tuple[str, ...]  # patterns of further files, which those of the patterns go with
    folder: str

    @property
    def shown(self) -> str:
        """The patterns, for messages."""
        return ", ".join(self.patterns)


def own_files(spec: CorpusSpec, progress: Reporter = SILENT) -> list[OwnFile]:
    """Return the files of a corpus of the person's own, sorted by name; archives stand for the files in them.

    Args:
      spec: the declaration.
      progress: shows the hashing of large files, which happens once.

    Raises:
      UserError: the declaration's path has a variable that is not set in the environment.
    """
    own = find_own(spec)
    files, main = Files(own.folder), map(READER_KINDS[own.read.kind].files, own.patterns)
    files.declared = frozenset(spec.languages)
    names = files.sources([*main, *own.companions])
    here = [Path(path) for name in names if not is_remote(path := files.full_path(name))]
    digests = dict(zip(map(str, here), known_sha256s(here, progress), strict=True))
    return list(_described(files, names, digests))


def _described(files: Files, names: list[str], digests: dict[str, str]) -> Iterator[OwnFile]:
    for name in names:
        path = files.full_path(name)
        if is_remote(path):
            modified = datetime.fromtimestamp(epath.Path(path).stat().mtime, UTC).isoformat()
            yield OwnFile(name, files.size(name), "", modified)
        else:
            yield OwnFile(name, os.path.getsize(path), digests[str(Path(path))], "")


def find_own(spec: CorpusSpec) -> OwnCorpus:
    """Return how to read a corpus of the person's own files.

    Raises:
      UserError: a variable is not set, the patterns of `read.kind: any` are not those of pairs, or one ends in an
        archive.
    """
    what = f"corpus {spec.name}"
    patterns = tuple(expand_variables(pattern, what) for pattern in spec.read.patterns)
    folder = expand_variables(getattr(spec.obtain, "folder", ""), what)
    read, patterns = resolve_reading(spec, patterns)
    companions = tuple(expand_variables(pattern, what) for pattern in read.companions)
    own = OwnCorpus(read, patterns, companions, folder or READER_KINDS[read.kind].default_folder())
    for pattern in (*own.patterns, *own.companions):
        _check_archive(what, pattern, own.folder)
    return own


def _check_archive(what: str, pattern: str, folder: str) -> None:
    """Check that a pattern that leads to an archive goes on to the files in it, and not to another archive there.

    Raises:
      UserError: it does not; the message says what the archive has.
    """
    if not pattern.lower().endswith(ARCHIVES):
        return
    if split_archive(pattern) is not None:
        raise UserError(f"{what}: {pattern} is an archive within an archive: unpack the outer one")
    with contextlib.closing(Files(folder)) as files:
        found = files.sources([pattern])
        contents = f"; {files.contents(found[0])}" if found else ""
    raise UserError(f"{what}: {pattern} is an archive: name the files in it, as in {pattern}/NAME{contents}")
