"""Datasets that TensorFlow Datasets downloads from their publishers and prepares, without TensorFlow.

It runs as a program of its own (nmt/corpora/obtain/prepare_tfds.py), so that an interruption ends it, and that nothing
of it is imported where no dataset is prepared.
"""

import hashlib
import json
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from nmt.corpora.declare.patterns import expand_variables
from nmt.corpora.declare.spec import CorpusSpec
from nmt.corpora.declare.spec_obtain import TfdsData
from nmt.corpora.obtain import client
from nmt.corpora.obtain.cache import Download, Obtained, Watch
from nmt.corpora.obtain.contents import known_sha256s
from nmt.corpora.obtain.kind import FetchedKind, Scratch
from nmt.corpora.readers.tfds import find_prepared
from nmt.corpora.readers.tree import Files, Tree
from nmt.errors import UserError
from nmt.files import cache_dir

PROGRAM = (sys.executable, "-m", "nmt.corpora.obtain.prepare_tfds")
# No look for credentials of a cloud, whose answer takes seconds where there is none; no messages but errors.
_ENVIRONMENT = {"NO_GCE_CHECK": "true", "TF_CPP_MIN_LOG_LEVEL": "3"}


@dataclass(frozen=True)
class DatasetRequest:
    """A dataset that is to be prepared: the arguments of the program."""

    name: str
    config: str
    version: str
    data_dir: str
    download_dir: str


@dataclass(frozen=True)
class TfdsDownload(Download):
    """One dataset, prepared into the folder of its version."""

    obtain: TfdsData

    def _fetch(self, temporary: Path, watch: Watch) -> Obtained:
        obtain, folder = self.obtain, self.path.parent
        request = DatasetRequest(obtain.name, obtain.config, obtain.version, str(folder), str(temporary))
        status, answer, messages = client.run_client(
            [*PROGRAM, json.dumps(asdict(request))],
            _ENVIRONMENT,
            poll=lambda: watch(client.largest_file_bytes(temporary)),
        )
        if status:
            self.check_room()
            last = [line for line in (answer or messages).splitlines() if line.strip()][-1:] or [f"status {status}"]
            raise UserError(f"cannot prepare {obtain.dataset} of corpus {self.corpus}: {last[0]}")
        if (found := _obtained(obtain, folder)) is None:
            raise UserError(f"corpus {self.corpus}: TensorFlow Datasets left nothing of {obtain.dataset} in {folder}")
        return found


class TfdsKind(FetchedKind):
    """Datasets of TensorFlow Datasets: those named are prepared here, others the person has."""

    section = TfdsData

    def has_own_files(self, spec: CorpusSpec) -> bool:
        """Return whether the datasets are prepared already, and the declaration says where."""
        return not _data(spec).name

    def origin(self, spec: CorpusSpec) -> str:
        """Return the dataset, or the patterns of those that the person has, with their folder."""
        obtain = _data(spec)
        if obtain.name:
            return f"TFDS {obtain.dataset}"
        return f"{', '.join(spec.read.patterns)}{f' in {obtain.folder}' if obtain.folder else ''}"

    def plan(self, spec: CorpusSpec, scratch: Scratch) -> list[TfdsDownload]:
        """Return the one download."""
        obtain = _data(spec)
        folder = _data_dir(spec)
        folder.mkdir(parents=True, exist_ok=True)
        return [TfdsDownload(spec.name, obtain.dataset, folder / obtain.name, obtain.bytes, obtain)]

    def cached(self, spec: CorpusSpec) -> tuple[Obtained, ...] | None:
        """Return the dataset's folder, or None where it is not prepared."""
        found = _obtained(_data(spec), _data_dir(spec))
        return None if found is None else (found,)

    def note_fetched(self, spec: CorpusSpec, files: Sequence[Obtained]) -> None:
        """Note nothing: TensorFlow Datasets gives a folder its name when all of it is there."""

    def open_tree(self, spec: CorpusSpec, files: Sequence[Obtained]) -> Tree:
        """Return the folder of the dataset's data."""
        return Files(str(_data_dir(spec)))


def _data(spec: CorpusSpec) -> TfdsData:
    assert isinstance(spec.obtain, TfdsData)
    return spec.obtain


def _data_dir(spec: CorpusSpec) -> Path:
    given = _data(spec).data_dir
    return Path(expand_variables(given, f"corpus {spec.name}")) if given else cache_dir("tfds")


def _obtained(obtain: TfdsData, folder: Path) -> Obtained | None:
    """Return the newest prepared version of a dataset as one file, whose SHA-256 is that of the list of its files'."""
    if not (found := find_prepared(str(folder), obtain.dataset)):
        return None
    place = folder / Path(found[0].name).parent
    paths = sorted(path for path in place.iterdir() if path.is_file())
    listed = "".join(f"{digest}  {path.name}\n" for digest, path in zip(known_sha256s(paths), paths, strict=True))
    digest = hashlib.sha256(listed.encode()).hexdigest()
    size = sum(path.stat().st_size for path in paths)
    return Obtained(place, f"TFDS {obtain.dataset}", place.name, digest, size)
