"""Datasets that TensorFlow Datasets prepared as ArrayRecord, read without TensorFlow and without TensorFlow Datasets.

A prepared dataset is a folder NAME[/CONFIG]/VERSION with features.json, dataset_info.json and shards, whose records are
serialised tf.train.Example messages. Of that protocol buffer only maps of names to lists of bytes are read here.
Source: the protocol buffers encoding (protobuf.dev), and feature.proto and example.proto of TensorFlow.
"""

import json
import os
import re
from collections import defaultdict
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

from etils import epath

from nmt.corpora.declare.patterns import MatchedPath
from nmt.corpora.declare.spec import CorpusSpec
from nmt.corpora.declare.spec_read import TfdsDataset
from nmt.corpora.readers.files import FilesReader
from nmt.corpora.readers.reader import EMPTY, NO_TEXT, Row, check_codes, match_codes
from nmt.corpora.readers.tree import UNREADABLE, Files, Tree
from nmt.errors import UserError

Example = dict[str, list[bytes]]

_FORMAT = "array_record"
_TRANSLATION = ("translation_feature.Translation", "translation_feature.TranslationVariableLanguages")
_BATCH = 1024
_VARINT, _BYTES = 0, 2
_FIXED = {1: 8, 5: 4}  # bytes of the other wire types


class _Shard(NamedTuple):
    path: epath.Path
    records: int


@dataclass(frozen=True)
class _Dataset:
    folder: epath.Path
    feature: str  # the prefix of its names in an Example, such as `translations/`
    variable: bool  # whether every example has languages of its own
    codes: tuple[str, ...]
    splits: dict[str, tuple[_Shard, ...]]


class TfdsReader(FilesReader):
    """Open datasets; a row's component is the name of its split.

    Raises:
      UserError: a dataset is not prepared, or not as ArrayRecord, or has no translations.
    """

    def __init__(self, spec: CorpusSpec, read: TfdsDataset, tree: Tree, patterns: tuple[str, ...]) -> None:
        super().__init__(spec, tree)
        if not isinstance(tree, Files):
            raise UserError(
                f"corpus {spec.name}: read.kind: {read.kind} does not go with obtain.kind: {spec.obtain.kind}"
            )
        folder = tree.folder
        self._datasets = [
            _describe(spec, folder, pattern, found)
            for pattern in patterns
            for found in find_prepared(folder, pattern, tree.declared)
        ]
        if not self._datasets:
            names = " and ".join(patterns)
            raise UserError(f"corpus {spec.name}: {names} is not prepared in {folder}; {_how(patterns[0])}")
        codes = match_codes(spec, (code for dataset in self._datasets for code in dataset.codes))
        check_codes(spec, codes, (dataset.codes for dataset in self._datasets if not dataset.variable))
        self._language_of, self.unregistered = codes.languages, codes.unregistered
        self._note(*(frozenset(self._known(dataset)) for dataset in self._datasets))

    def _known(self, dataset: _Dataset) -> list[str]:
        known = (self._language_of[code] for code in dataset.codes if code in self._language_of)
        return list(dict.fromkeys(known))

    def _rows(self, wanted: frozenset[str]) -> Iterator[Row]:
        for dataset in self._datasets:
            languages = self._known(dataset)
            key_language = self.key_language if self.key_language in languages else languages[0] if languages else ""
            if any(language in wanted for language in languages if language != key_language):
                for split, shards in dataset.splits.items():
                    for shard in shards:
                        yield from self._shard(dataset, split, shard, key_language, wanted)

    def _shard(
        self, dataset: _Dataset, split: str, shard: _Shard, key_language: str, wanted: frozenset[str]
    ) -> Iterator[Row]:
        for number, record in enumerate(self._records(shard), start=1):
            place = f"{shard.path}:{number}"
            try:
                texts = self._texts(dataset, parse_example(record), place)
            except ValueError:
                self._skip("damaged record", place)
                continue
            text = texts.pop(key_language, None)
            if text is None or not texts:
                self._skip(NO_TEXT, place)
                continue
            translations = {language: texts[language] for language in sorted(texts) if language in wanted}
            if translations:
                yield Row(key_language, split, (str(shard.path), f"{number:012d}"), text, translations)

    def _records(self, shard: _Shard) -> Iterator[bytes]:
        from array_record.python.array_record_module import ArrayRecordReader

        done = 0
        try:
            reader = ArrayRecordReader(str(shard.path))
            count = reader.num_records()
            if not count and shard.records:  # what it says of a file that is cut
                raise ValueError(f"none of {shard.records:,} records can be found")
            for done in range(0, count, _BATCH):
                yield from reader.read(done, min(done + _BATCH, count))
        except (RuntimeError, OSError, ValueError) as error:
            self._unread(str(shard.path), error, done, "record")
            return
        if not count:
            self._skip(EMPTY, str(shard.path))

    def _texts(self, dataset: _Dataset, example: Example, place: str) -> dict[str, str]:
        """Return the texts of an example by canonical code; of several in a language the first, others are counted."""
        prefix = dataset.feature
        if dataset.variable:
            codes, values = example.get(f"{prefix}language", []), example.get(f"{prefix}translation", [])
            pairs = [(code.decode("utf-8", "replace"), value) for code, value in zip(codes, values, strict=False)]
        else:
            pairs = [(code, example[prefix + code][0]) for code in dataset.codes if example.get(prefix + code)]
        texts: dict[str, str] = {}
        for code, value in pairs:
            if (language := self._language_of.get(code)) is None:
                continue
            if language in texts:
                self._skip("further text of a language in a record", place)
            texts.setdefault(language, value.decode("utf-8", "replace"))
        return texts


def default_folder() -> str:
    """Return the folder that TensorFlow Datasets prepares in where none is given."""
    return os.environ.get("TFDS_DATA_DIR") or os.path.expanduser("~/tensorflow_datasets")


def dataset_files(pattern: str) -> str:
    """Return the pattern of the files of a dataset, NAME, NAME/CONFIG or NAME/CONFIG:VERSION."""
    name, _, version = pattern.partition(":")
    return f"{name}/{version or '*'}/*"


def parse_example(record: bytes) -> Example:
    """Return the lists of bytes of a serialised tf.train.Example by the names of its features.

    Raises:
      ValueError: it is none.
    """
    example: Example = defaultdict(list)
    for features in _field(record, 1):
        for entry in _field(features, 1):
            (name,) = _field(entry, 1) or [b""]
            for feature in _field(entry, 2):
                for values in _field(feature, 1):
                    example[name.decode()] += _field(values, 1)
    return example


def _field(message: bytes, number: int) -> list[bytes]:
    """Return the values of a field of a protocol buffer that is of type bytes, string or message."""
    place, found = 0, []
    while place < len(message):
        tag, place = _varint(message, place)
        if tag & 7 == _VARINT:
            _, place = _varint(message, place)
            continue
        size, place = _varint(message, place) if tag & 7 == _BYTES else (_FIXED.get(tag & 7, len(message) + 1), place)
        if place + size > len(message):
            raise ValueError("a damaged protocol buffer")
        if tag == number << 3 | _BYTES:
            found.append(message[place : place + size])
        place += size
    return found


def _varint(message: bytes, place: int) -> tuple[int, int]:
    value = shift = 0
    while place < len(message):
        byte = message[place]
        place += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, place
        shift += 7
    raise ValueError("a damaged protocol buffer")


def find_prepared(folder: str, pattern: str, declared: Collection[str] = ()) -> list[MatchedPath]:
    """Return the newest version of every dataset that a pattern fits; for `declared` see `Tree`."""
    name, _, version = pattern.partition(":")
    files = Files(folder)
    files.declared = declared
    found = files.find([f"{name}/{version or '*'}/features.json"])
    newest: dict[str, MatchedPath] = {}
    for one in sorted(found, key=lambda one: _version(one.name)):
        newest[one.name.rsplit("/", 2)[0]] = one
    return sorted(newest.values(), key=lambda one: one.name)


def _version(name: str) -> list[int]:
    return [int(part) for part in re.findall(r"\d+", name.split("/")[-2])]


def _describe(spec: CorpusSpec, folder: str, pattern: str, found: MatchedPath) -> _Dataset:
    place = epath.Path(Files(folder).full_path(found.name)).parent
    try:
        features = json.loads((place / "features.json").read_text())
        info = json.loads((place / "dataset_info.json").read_text())
        splits = {split["name"]: _shards(place, info, split) for split in info["splits"]}
        translation = _translation(features)
        format_ = info.get("fileFormat", "tfrecord")
    except (*UNREADABLE, KeyError, TypeError, AttributeError) as error:
        raise UserError(f"corpus {spec.name}: {place} is no dataset of TensorFlow Datasets ({error!r})") from None
    if format_ != _FORMAT:
        raise UserError(f"corpus {spec.name}: {place} is prepared as {format_}, not {_FORMAT}; {_how(pattern)}")
    if translation is None:
        raise UserError(f"corpus {spec.name}: {place} has no feature of the kind Translation")
    prefix, feature = translation
    section = feature.get("translation", {})
    codes = tuple(section.get("languages") or (found.source, found.target))
    return _Dataset(place, prefix, "VariableLanguages" in feature["pythonClassName"], codes, splits)


def _shards(place: epath.Path, info: Mapping[str, Any], split: Mapping[str, Any]) -> tuple[_Shard, ...]:
    lengths = [int(length) for length in split["shardLengths"]]
    template = split.get("filepathTemplate") or "{DATASET}-{SPLIT}.{FILEFORMAT}-{SHARD_X_OF_Y}"
    fields = {"{DATASET}": info["name"], "{SPLIT}": split["name"], "{FILEFORMAT}": _FORMAT}
    for field, value in fields.items():
        template = template.replace(field, value)
    names = [template.replace("{SHARD_X_OF_Y}", f"{shard:05d}-of-{len(lengths):05d}") for shard in range(len(lengths))]
    return tuple(_Shard(place / name, length) for name, length in zip(names, lengths, strict=True))


def _translation(feature: Mapping[str, Any], prefix: str = "") -> tuple[str, Mapping[str, Any]] | None:
    """Return the first translation feature, and the prefix of its names in an Example."""
    if str(feature.get("pythonClassName", "")).endswith(_TRANSLATION):
        return prefix, feature
    for name, inner in (feature.get("featuresDict") or {}).get("features", {}).items():
        if found := _translation(inner, f"{prefix}{name}/"):
            return found
    return None


def _how(pattern: str) -> str:
    name, _, config = pattern.partition(":")[0].partition("/")
    given = f", config: {config}" if config else ""
    return (
        f"have it prepared with obtain: {{kind: tfds, name: {name}{given}}}, or with: "
        f"tfds build {pattern.split(':')[0]} --file_format={_FORMAT} --data_dir=FOLDER"
    )
