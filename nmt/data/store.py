"""The prepared store: token ids in flat shards, the held-out text, and stats.json.

    RUN/data/stats.json                             written last: a folder without it is not prepared
    RUN/data/train/de-en/00000.tokens.npy           token ids, pair after pair; also dev/
    RUN/data/train/de-en/00000.bounds.npy           index of the beginning of each source and target
    RUN/data/test/de-en.jsonl                       {"source": ..., "target": ...} a line; also dev.jsonl beside dev/

The shards are described in nmt/data/records.py.
"""

import contextlib
import itertools
import json
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from etils import epath
from pydantic import TypeAdapter, ValidationError

from nmt.corpora.clean import Reason
from nmt.corpora.cleaned.records import TextPair
from nmt.corpora.declare.spec_split import SPLITS, Split
from nmt.data.records import ShardWriter, TokenPairs
from nmt.data.vocab import BACK_TRANSLATED
from nmt.data.vocabularies import Vocabularies
from nmt.errors import UserError
from nmt.files import atomic_write
from nmt.languages import Direction

MarkedPair = tuple[str, ...]  # source, target, and control symbols that the source begins with
TOKENISED: tuple[Split, ...] = ("train", "dev")
AS_TEXT: tuple[Split, ...] = ("dev", "test")
TOO_MANY_TOKENS = "too_many_tokens"
# Tokens that a packed row has around the pieces: tag and end of a source, end (or begin) of a target.
SOURCE_EXTRA, TARGET_EXTRA = 2, 1

_FORMAT = 2
_STATS = "stats.json"
_ENCODED_AT_ONCE = 8192
# Shards of about a gigabyte: each takes two open files, and 25 billion pairs are then in 2,500.
_SHARD_PAIRS = 10_000_000
_TWO_BYTES = 1 << 16


class RowLengths(NamedTuple):
    """Tokens in a packed row: source (S) and target (T)."""

    source: int
    target: int

    def fit(self, source_pieces: int, target_pieces: int) -> bool:
        """Return whether a pair of so many pieces fits a row, with tag, begin and end."""
        return source_pieces + SOURCE_EXTRA <= self.source and target_pieces + TARGET_EXTRA <= self.target


@dataclass(frozen=True)
class SplitStats:
    """Counts of a split of a direction.

    Attributes:
      pairs: pairs that are stored, as tokens if the split is tokenised, else as text.
      source_tokens: pieces on the source side of these pairs.
      target_tokens: pieces on the target side of these pairs.
      shards: number of pairs in each shard.
    """

    pairs: int
    source_tokens: int
    target_tokens: int
    shards: list[int]


@dataclass(frozen=True)
class DirectionStats:
    """Counts and tags of a direction.

    Attributes:
      tag: id of the target language's tag in the vocabulary of sources.
      rejected: pairs that were rejected, by reason: the cleaning's reasons, and too_many_tokens.
      splits: counts of each split.
      source_tag: id of the source language's tag in the vocabulary of sources; None in stores of older versions.
      target_tag: id of the target language's tag in the vocabulary of targets, if it has tags.
      back_translated: number of back-translated training pairs; they come last.
    """

    tag: int
    rejected: dict[str, int]
    splits: dict[Split, SplitStats]
    source_tag: int | None = None
    target_tag: int | None = None
    back_translated: int = 0


@dataclass(frozen=True)
class Stats:
    """The contents of stats.json.

    Attributes:
      digests: digests of the inputs of the store, see `digests`.
      lengths: the row lengths (S, T) beyond which pairs were rejected.
      directions: entries by name of the direction, such as "de-en".
      corpora: origin of the text, one entry a corpus.
      format: version of the layout of the store.
      test_sets: files of data.clean.decontaminate, with the texts of each and the pairs that it removed; empty in
        stores of older versions.
    """

    digests: dict[str, str]
    lengths: RowLengths
    directions: dict[str, DirectionStats]
    corpora: list[dict[str, Any]]
    format: int = _FORMAT
    test_sets: list[dict[str, Any]] = field(default_factory=list)

    def direction(self, direction: Direction) -> DirectionStats:
        """Return a direction's entry. Raises UserError when the store does not have it."""
        if str(direction) not in self.directions:
            raise UserError(f"no prepared data for {direction}; there is {', '.join(self.directions) or 'none at all'}")
        return self.directions[str(direction)]

    def describe_too_long(self) -> str:
        """Return the end of a message about the store: how many pairs do not fit a row; empty where all do."""
        directions = self.directions.values()
        long = sum(direction.rejected.get(TOO_MANY_TOKENS, 0) for direction in directions)
        if not long:
            return ""
        kept = sum(direction.splits[split].pairs for direction in directions for split in TOKENISED)
        return (
            f"; {long:,} of {long + kept:,} pairs are left out, since they are longer than "
            f"data.source_length={self.lengths.source} or data.target_length={self.lengths.target} tokens"
        )


_STATS_TYPE = TypeAdapter(Stats)


def digests(
    corpus: str, cleaning: str, vocabularies: Vocabularies, lengths: RowLengths, directions: Sequence[Direction]
) -> dict[str, str]:
    """Return the strings that identify the inputs of a store, by their names in errors."""
    return {
        "corpus": corpus,
        "cleaning": cleaning,
        **vocabularies.digests,
        "row lengths": f"{lengths.source} x {lengths.target}",
        "directions": " ".join(sorted(map(str, directions))),
    }


def is_stored(directory: os.PathLike[str] | str) -> bool:
    """Return whether a folder holds a complete store."""
    return (epath.Path(directory) / _STATS).exists()


def is_prepared(directory: os.PathLike[str] | str, digests: Mapping[str, str]) -> bool:
    """Return whether a folder holds a complete store made from these inputs.

    Raises:
      UserError: the folder holds a store of other inputs (the message names them) or of another format.
    """
    if not is_stored(directory):
        return False
    stats = load_stats(directory)
    _check_format(stats, directory)
    stored = stats.digests
    changed = [name for name in dict.fromkeys([*stored, *digests]) if stored.get(name) != digests.get(name)]
    if changed:
        raise UserError(
            f"{directory} was prepared from another input (changed: {', '.join(changed)}); "
            "delete that folder to prepare it again, or start afresh with another run_dir"
        )
    return True


def load_stats(directory: os.PathLike[str] | str) -> Stats:
    """Read stats.json.

    Raises:
      UserError: the folder holds no complete store, or one that this version cannot read.
    """
    path = epath.Path(directory) / _STATS
    try:
        return _STATS_TYPE.validate_json(path.read_bytes())
    except OSError:
        raise UserError(f"no prepared data in {directory}") from None
    except ValidationError:
        raise UserError(f"{path} is damaged or of another version; delete {directory} to prepare it again") from None


@dataclass(frozen=True)
class StoreOrigin:
    """The origin of a store, which its statistics tell.

    Args:
      digests: result of `digests` for the inputs of the store.
      rejected: pairs that the cleaning rejected, by direction and reason.
      corpora: origin of the text, one entry a corpus.
      test_sets: use of named test sets, one entry a file.
    """

    digests: Mapping[str, str] = field(default_factory=dict)
    rejected: Mapping[Direction, Mapping[Reason, int]] = field(default_factory=dict)
    corpora: Sequence[dict[str, Any]] = ()
    test_sets: Sequence[dict[str, Any]] = ()


_UNKNOWN = StoreOrigin()


def prepare(
    pairs: Mapping[Direction, Mapping[Split, Iterable[MarkedPair]]],
    vocabularies: Vocabularies,
    directory: os.PathLike[str] | str,
    lengths: RowLengths,
    origin: StoreOrigin = _UNKNOWN,
    *,
    shard_pairs: int = _SHARD_PAIRS,
    progress: Callable[[int], object] = lambda pairs: None,
) -> Stats:
    """Write a store and return its statistics; an earlier store in the folder is removed first.

    Training and development pairs that do not fit a row are rejected as too_many_tokens; text is never filtered.

    Args:
      pairs: (source, target, control symbols of the source ...) by direction and split.
      vocabularies: vocabularies of the run, for ids and tags.
      directory: RUN/data.
      lengths: S and T of the packed rows.
      origin: the text that the pairs come from, for the statistics.
      shard_pairs: most pairs in one shard.
      progress: called with the number of pairs done since the last call.

    Raises:
      UserError: the vocabulary lacks a target language.
    """
    root = epath.Path(directory)
    _clear(root)
    writer = _Writer(root, vocabularies, lengths, shard_pairs, progress)
    try:
        directions = {
            str(direction): writer.direction(direction, splits, origin.rejected.get(direction, {}))
            for direction, splits in pairs.items()
        }
        corpora, test_sets = map(list, (origin.corpora, origin.test_sets))
        stats = Stats(dict(origin.digests), lengths, directions, corpora, test_sets=test_sets)
        with atomic_write(root / _STATS) as temporary:
            temporary.write_bytes(_STATS_TYPE.dump_json(stats, indent=2))
    except BaseException:
        _clear(root)
        raise
    return stats


def read_text(directory: os.PathLike[str] | str, split: Split, direction: Direction) -> list[TextPair]:
    """Return the (source, target) texts of a split that is stored as text: dev or test.

    Raises:
      UserError: there is no such file.
    """
    path = epath.Path(directory) / split / f"{direction}.jsonl"
    try:
        with path.open(encoding="utf-8") as lines:
            rows = [json.loads(line) for line in lines]
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror or error}") from None
    return [(row["source"], row["target"]) for row in rows]


def open_pairs(directory: os.PathLike[str] | str, split: Split, direction: Direction, stats: Stats) -> TokenPairs:
    """Return the token ids of a tokenised split: train or dev.

    Raises:
      UserError: the store does not have the direction, or is of another format.
    """
    _check_format(stats, directory)
    return TokenPairs(epath.Path(directory) / split / str(direction), stats.direction(direction).splits[split].shards)


def _check_format(stats: Stats, directory: os.PathLike[str] | str) -> None:
    """Raise UserError if this version cannot read the token ids; it reads counts and texts of any format."""
    if stats.format != _FORMAT:
        raise UserError(
            f"{directory} was prepared by another version (format {stats.format} of the store, not {_FORMAT}); "
            "delete that folder to prepare it again: the run then goes on where it was"
        )


class _Writer(NamedTuple):
    """Writes the directions of one store."""

    root: epath.Path
    vocabularies: Vocabularies
    lengths: RowLengths
    shard_pairs: int
    progress: Callable[[int], object]

    def direction(
        self,
        direction: Direction,
        splits: Mapping[Split, Iterable[MarkedPair]],
        rejected: Mapping[Reason, int],
    ) -> DirectionStats:
        counts = {str(reason): count for reason, count in rejected.items()} | {TOO_MANY_TOKENS: 0}
        written: dict[Split, SplitStats] = {}
        back_translated = 0
        # Denoising has no development or test split: it is neither evaluated nor translated.
        for split in SPLITS if not direction.denoises else ("train",):
            written[split], too_long, marked = self._split(direction, split, splits.get(split, ()))
            back_translated += marked if split == "train" else 0
            counts[TOO_MANY_TOKENS] += too_long
        source, target = self.vocabularies
        return DirectionStats(
            source.tag(direction.target),
            counts,
            written,
            source.tag(direction.source),
            target.tag(direction.target) if target.languages else None,
            back_translated,
        )

    def _split(self, direction: Direction, split: Split, pairs: Iterable[MarkedPair]) -> tuple[SplitStats, int, int]:
        """Write a split; return its counts, and the numbers of too long and of back-translated pairs."""
        token_bytes = 2 if max(self.vocabularies.sizes) <= _TWO_BYTES else 4
        kept = too_long = source_tokens = target_tokens = back_translated = 0
        symbols = self.vocabularies.source.symbols
        synthetic = self.vocabularies.source.symbol(BACK_TRANSLATED) if BACK_TRANSLATED in symbols else None
        folder = self.root / split
        folder.mkdir(parents=True, exist_ok=True)
        with contextlib.ExitStack() as stack:
            shards = text = None
            if split in TOKENISED:
                writer = ShardWriter(folder / str(direction), self.shard_pairs, token_bytes)
                shards = stack.enter_context(contextlib.closing(writer))
            if split in AS_TEXT:
                text = stack.enter_context((folder / f"{direction}.jsonl").open("w", encoding="utf-8"))
            for chunk, sources, targets in self._encoded(pairs):
                if text:
                    rows = ({"source": pair[0], "target": pair[1]} for pair in chunk)
                    text.writelines(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
                if shards:
                    fit = [self.lengths.fit(len(one), len(other)) for one, other in zip(sources, targets, strict=True)]
                    too_long += fit.count(False)
                    sources, targets = ([*itertools.compress(side, fit)] for side in (sources, targets))
                    shards.write(sources, targets)
                kept += len(sources)
                back_translated += synthetic is not None and [source[:1] for source in sources].count([synthetic])
                source_tokens += sum(map(len, sources))
                target_tokens += sum(map(len, targets))
        return (
            SplitStats(kept, source_tokens, target_tokens, shards.counts if shards else []),
            too_long,
            back_translated,
        )

    def _encoded(
        self, pairs: Iterable[MarkedPair]
    ) -> Iterator[tuple[list[MarkedPair], list[list[int]], list[list[int]]]]:
        """Yield pairs, some thousands at a time, with the ids of their sources and of their targets."""
        source, target = self.vocabularies
        remaining = iter(pairs)
        while chunk := list(itertools.islice(remaining, _ENCODED_AT_ONCE)):
            sources, targets = (side.encode([pair[n] for pair in chunk]) for n, side in enumerate((source, target)))
            if any(len(pair) > 2 for pair in chunk):
                marks = [[source.symbol(symbol) for symbol in pair[2:]] for pair in chunk]
                sources = [[*mark, *ids] for mark, ids in zip(marks, sources, strict=True)]
            yield chunk, sources, targets
            self.progress(len(chunk))


def _clear(root: epath.Path) -> None:
    """Remove a store, complete or half-written; stats.json goes first, so that it never vouches for missing files."""
    (root / _STATS).unlink(missing_ok=True)
    for split in SPLITS:
        if (root / split).exists():
            (root / split).rmtree()
