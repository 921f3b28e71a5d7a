"""Corpora of Arrow files, and of folders that Hugging Face's datasets saved (`read.kind: arrow`).

`save_to_disk` writes data-*.arrow in Arrow's stream format beside state.json, which lists them in order, and, of
several splits, a folder for each beside dataset_dict.json. Feather's files, in Arrow's file format, are read as well.
Source: arrow.apache.org/docs/format/Columnar.html, and save_to_disk of datasets 4.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

from nmt.corpora.declare.patterns import MatchedPath
from nmt.corpora.declare.spec import CorpusSpec
from nmt.corpora.declare.spec_read_columns import Arrow
from nmt.corpora.readers.batches import BATCH, BatchesReader, OpenBatches
from nmt.corpora.readers.compressed import stem
from nmt.corpora.readers.tree import UNREADABLE
from nmt.errors import UserError

_ENDING = ".arrow"
_FILE_FORMAT = b"ARROW1"
_STATE = "state.json"


def resolve_folders(spec: CorpusSpec, read: Arrow, patterns: tuple[str, ...]) -> tuple[Arrow, tuple[str, ...]]:
    """Return the section, and patterns of files in place of folders, whose parts are the splits of the dataset."""
    del spec
    return read, tuple(file for pattern in patterns for file in _file_patterns(pattern))


def _file_patterns(pattern: str) -> list[str]:
    if stem(pattern).endswith((_ENDING, ".feather")):
        return [pattern]
    folder = pattern.rstrip("/")
    files = [f"{folder}/*{_ENDING}"]
    return files if "{component}" in folder or "{path}" in folder else [f"{folder}/{{component}}/*{_ENDING}", *files]


class ArrowReader(BatchesReader):
    """An open corpus of Arrow files; the component of a saved dataset is its split."""

    def _found(self, patterns: tuple[str, ...]) -> list[MatchedPath]:
        found = self._tree.find([file for pattern in patterns for file in _file_patterns(pattern)])
        states: dict[str, Mapping[str, Any]] = {}
        listed = []
        for one in found:
            folder = one.name.rpartition("/")[0]
            if folder not in states:
                states[folder] = self._state(folder)
            state = states[folder]
            files = [str(file.get("filename")) for file in state.get("_data_files", ())]
            if not state:
                listed.append(one)
            elif one.name.rpartition("/")[2] in files:  # others are what datasets keeps of computations
                listed.append(replace(one, component=one.component or str(state.get("_split") or "")))
        return listed

    def _state(self, folder: str) -> Mapping[str, Any]:
        """Return the state of the dataset that is saved in a folder; empty: none is.

        Raises:
          UserError: the files have rows that the dataset does not have.
        """
        name = f"{folder}/{_STATE}" if folder else _STATE
        try:
            state = json.loads(self._tree.read(name))
        except (*UNREADABLE, KeyError):
            return {}
        if not isinstance(state, dict):
            return {}
        if state.get("_indices_data_files") or state.get("_indices_files"):
            raise UserError(
                f"corpus {self.spec.name}: {name}: the dataset is a choice of the rows of its files, as old "
                "versions of datasets save it; load and save it with a newer version"
            )
        return state

    @contextmanager
    def _opened(self, name: str) -> Iterator[OpenBatches]:
        try:
            import pyarrow
            import pyarrow.feather
        except ImportError:
            raise UserError(
                f"corpus {self.spec.name}: {name} is an Arrow file: pip install 'nmt-moe[parquet]'"
            ) from None
        with self._tree.seekable(name) as content:
            try:
                start = content.read(len(_FILE_FORMAT))
                content.seek(0)
                if start == _FILE_FORMAT:
                    file = pyarrow.ipc.open_file(content)
                    parts = (file.get_batch(place) for place in range(file.num_record_batches))
                else:
                    file = pyarrow.ipc.open_stream(content)
                    parts = iter(file)
                yield OpenBatches(file.schema, lambda names: _slices(parts, names))
            except pyarrow.ArrowException as error:
                raise ValueError(str(error)) from None


def _slices(batches: Iterator[Any], names: Sequence[str]) -> Iterator[Any]:
    for batch in batches:
        chosen = batch.select(list(names))
        for start in range(0, len(chosen), BATCH):
            yield chosen.slice(start, BATCH)
