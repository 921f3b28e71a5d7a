"""Corpora whose files the person has: finding these files, and the way to read them."""

import os
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from etils import epath
from pydantic import ValidationError

from nmt.corpora.declare.patterns import expand_variables
from nmt.corpora.declare.spec import CorpusSpec
from nmt.corpora.declare.spec_obtain import LocalFiles, TfdsFolder
from nmt.corpora.declare.spec_read import AnyPairs, Jsonl, ParallelText, Parquet, Read, TfdsDataset, Tsv
from nmt.corpora.obtain.contents import known_sha256s
from nmt.corpora.obtain.kind import LocalKind
from nmt.corpora.readers.compressed import stem
from nmt.corpora.readers.tree import Files
from nmt.errors import UserError
from nmt.files import is_remote
from nmt.progress import SILENT, Reporter

_TFDS = "tfds:"


class FilesKind(LocalKind):
    """Files below a folder, here or on gs://."""

    section = LocalFiles


class TfdsKind(LocalKind):
    """Datasets that TensorFlow Datasets has prepared."""

    section = TfdsFolder


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
    folder: str

    @property
    def shown(self) -> str:
        """The patterns, for messages."""
        return ", ".join(self.patterns)


def own_files(spec: CorpusSpec, progress: Reporter = SILENT) -> list[OwnFile]:
    """Return the files of a corpus of the person's own, sorted by name.

    Args:
      spec: the declaration.
      progress: shows the hashing of large files, which happens once.

    Raises:
      UserError: the declaration's path has a variable that is not set in the environment.
    """
    own = find_own(spec)
    files, wanted = Files(own.folder), own.patterns
    if isinstance(own.read, TfdsDataset):
        wanted = tuple(_files_of_dataset(pattern) for pattern in own.patterns)
    names = [found.name for found in files.find(wanted)]
    here = [Path(path) for name in names if not is_remote(path := files.path_of(name))]
    digests = dict(zip(map(str, here), known_sha256s(here, progress), strict=True))
    return list(_described(files, names, digests))


def _files_of_dataset(pattern: str) -> str:
    name, _, version = pattern.partition(":")
    return f"{name}/{version or '*'}/*"


def _described(files: Files, names: list[str], digests: dict[str, str]) -> Iterator[OwnFile]:
    for name in names:
        path = files.path_of(name)
        if is_remote(path):
            modified = datetime.fromtimestamp(epath.Path(path).stat().mtime, UTC).isoformat()
            yield OwnFile(name, files.size(name), "", modified)
        else:
            yield OwnFile(name, os.path.getsize(path), digests[str(Path(path))], "")


def find_own(spec: CorpusSpec) -> OwnCorpus:
    """Return how to read a corpus of the person's own files.

    Raises:
      UserError: a variable is not set, or the patterns of `read.kind: any` are not those of pairs.
    """
    what = f"corpus {spec.name}"
    patterns = tuple(expand_variables(pattern, what) for pattern in spec.read.patterns)
    read, obtain = spec.read, spec.obtain
    folder = expand_variables(getattr(obtain, "folder", ""), what)
    if isinstance(read, AnyPairs):
        patterns = tuple(one.strip() for pattern in patterns for one in pattern.split(",") if one.strip())
        read, patterns = _resolve_pairs(spec, read, patterns)
    if isinstance(read, TfdsDataset):
        folder = folder or os.environ.get("TFDS_DATA_DIR") or os.path.expanduser("~/tensorflow_datasets")
    return OwnCorpus(read, patterns, folder)


def _resolve_pairs(spec: CorpusSpec, read: AnyPairs, patterns: tuple[str, ...]) -> tuple[Read, tuple[str, ...]]:
    """Return the section of `read` that `kind: any` stands for, by the endings of its patterns, and these patterns.

    Raises:
      UserError: the patterns have different endings, or lack {source} and {target}.
    """
    common: dict[str, Any] = {"files": patterns, "key_language": read.key_language}
    kinds = {_ending(pattern) for pattern in patterns}
    shown = ", ".join(patterns)
    if len(kinds) != 1:
        raise UserError(f"corpus {spec.name}: {shown} are files of several kinds ({', '.join(sorted(kinds))})")
    for pattern in patterns:
        if not all(field in pattern for field in ("{source}", "{target}")):
            raise UserError(
                f"corpus {spec.name}: {pattern} does not say where the languages of a direction stand, as in "
                "/corpora/{source}-{target}.tsv.gz or /corpora/{source}-{target}/train.{language}"
            )
    match kinds.pop():
        case "tfds":
            patterns = tuple(pattern.removeprefix(_TFDS) for pattern in patterns)
            return TfdsDataset(kind="tfds", **common | {"files": patterns}), patterns
        case "tsv":
            return Tsv(kind="tsv", **common), patterns
        case "jsonl":
            return Jsonl(kind="jsonl", **common), patterns
        case "parquet":
            return Parquet(kind="parquet", **common), patterns
    try:
        return ParallelText(kind="parallel_text", **common), patterns
    except ValidationError:
        raise UserError(
            f"corpus {spec.name}: {shown} is taken for parallel text, and does not have {{language}} once; other files "
            "of pairs end in .tsv, .jsonl or .parquet"
        ) from None


def _ending(pattern: str) -> str:
    if pattern.startswith(_TFDS):
        return "tfds"
    ending = stem(pattern).rpartition(".")[2]
    return ending if ending in ("tsv", "jsonl", "parquet") else "parallel text"
