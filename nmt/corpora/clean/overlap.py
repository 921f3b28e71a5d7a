"""Fuzzy overlap with held-out text: which texts share most of their word n-grams with one that is held out.

A text is its set of word n-grams, after `fold`; in scripts without spaces letters are words, and a text of fewer than
n words is one gram. A text overlaps with a held-out one if it has at least the share `least` of that one's grams. A
held-out text of fewer than 8 grams must make up that share of the text's own grams, too: else a short one would take
every sentence that contains it ("Enter the code").

Grams that stand in more than 1,000 held-out texts say nothing and are left out; of more than 2^25 grams, a random
sample is kept, by their hash. So the index never takes more than half a gigabyte, and its making never 1.5.
"""

import functools
import hashlib
import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple, Self

import numpy as np

from nmt.corpora.clean.text import tokens

FEW_GRAMS = 8
MOST_TEXTS_OF_A_GRAM = 1000
MOST_GRAMS = 1 << 25
_AT_ONCE = 4096
_FACTOR = 0x9E3779B97F4A7C15  # 2^64 / golden ratio: odd, and its bits are even
_MASK = (1 << 64) - 1


class Grams(NamedTuple):
    """The distinct n-grams of some texts: hash [K] (uint64), and the text [K] (int64) that each is of, ascending."""

    hashes: np.ndarray
    texts: np.ndarray


def grams(texts: Sequence[str], n: int) -> Grams:
    """Return the distinct n-grams of each text; none of a text without letters and digits."""
    hashed = [[_hash(token) for token in tokens(text)] for text in texts]
    short = [(i, _whole(words)) for i, words in enumerate(hashed) if 0 < len(words) < n]
    flat = np.array([word for words in hashed for word in words], np.uint64)
    owner = np.repeat(np.arange(len(texts)), [len(words) for words in hashed])
    starts = max(0, len(flat) - n + 1)
    combined = np.zeros(starts, np.uint64)
    for k in range(n):
        combined = combined * np.uint64(_FACTOR) + flat[k : k + starts]
    within = owner[:starts] == owner[n - 1 :] if starts else np.zeros(0, bool)
    hashes = np.concatenate([combined[within], np.array([value for _, value in short], np.uint64)])
    of = np.concatenate([owner[:starts][within], np.array([i for i, _ in short], np.int64)])
    order = np.lexsort((hashes, of))
    hashes, of = hashes[order], of[order]
    first = np.ones(len(of), bool)
    first[1:] = (hashes[1:] != hashes[:-1]) | (of[1:] != of[:-1])
    return Grams(hashes[first], of[first])


class OverlapIndex(NamedTuple):
    """The n-grams of held-out texts, sorted, to be looked up.

    Attributes:
      hashes: [K] uint64, ascending; a gram of several texts stands there several times.
      texts: [K] int32: which held-out text each is of.
      sizes: [H] int32: distinct grams of each held-out text.
      n: words of a gram.
      least: least share of a held-out text's grams that counts as overlap.
      every: one gram in so many is in the index.
    """

    hashes: np.ndarray
    texts: np.ndarray
    sizes: np.ndarray
    n: int
    least: float
    every: int = 1

    @classmethod
    def build(cls, texts: Iterable[str], n: int, least: float, most_grams: int = MOST_GRAMS) -> Self:
        """Return the index of some texts, which are read once."""
        hashes, owners, count = [np.zeros(0, np.uint64)], [np.zeros(0, np.int32)], 0
        every, total = 1, 0
        for block in _blocks(texts):
            found = grams(block, n)
            kept = _sampled(found.hashes, every)
            hashes.append(found.hashes[kept])
            owners.append((found.texts[kept] + count).astype(np.int32))
            count, total = count + len(block), total + int(kept.sum())
            while total > most_grams:
                every *= 2
                keep = [_sampled(part, every) for part in hashes]
                hashes = [part[mask] for part, mask in zip(hashes, keep, strict=True)]
                owners = [part[mask] for part, mask in zip(owners, keep, strict=True)]
                total = sum(map(len, hashes))
        flat, of = np.concatenate(hashes), np.concatenate(owners)
        del hashes, owners  # hundreds of megabytes, and sorting needs as many
        order = np.argsort(flat, kind="stable")
        flat = flat[order]
        of = of[order]
        del order
        rare = _rare(flat)
        flat, of = flat[rare], of[rare]
        return cls(flat, of, np.bincount(of, minlength=count).astype(np.int32), n, least, every)

    def save(self, folder: Path) -> None:
        """Write the index to a folder."""
        for name in ("hashes", "texts", "sizes"):
            with (folder / f"{name}.npy").open("wb") as file:
                np.save(file, getattr(self, name))
        (folder / "rule.json").write_text(json.dumps([self.n, self.least, self.every]))

    @classmethod
    def load(cls, folder: Path) -> Self:
        """Return the index of a folder; its arrays are shared by all processes that load it."""
        hashes, texts, sizes = (_loaded(folder / f"{name}.npy") for name in ("hashes", "texts", "sizes"))
        n, least, every = json.loads((folder / "rule.json").read_text())
        return cls(hashes, texts, sizes, n, least, every)

    def overlapping(self, texts: Sequence[str]) -> np.ndarray:
        """Return for each text [B] whether it overlaps with a held-out one (bool)."""
        result = np.zeros(len(texts), bool)
        if not len(self.hashes) or not texts:
            return result
        found = grams(texts, self.n)
        kept = _sampled(found.hashes, self.every)
        found = Grams(found.hashes[kept], found.texts[kept])
        low = np.searchsorted(self.hashes, found.hashes, "left")
        times = np.searchsorted(self.hashes, found.hashes, "right") - low
        if not (matches := int(times.sum())):
            return result
        # Every (text, held-out text) that share a gram, once a gram.
        place = np.arange(matches) - np.repeat(np.cumsum(times) - times, times) + np.repeat(low, times)
        pairs = np.repeat(found.texts, times) * len(self.sizes) + self.texts[place]
        shared, hits = np.unique(pairs, return_counts=True)
        own, held = np.divmod(shared, len(self.sizes))
        sizes, own_sizes = self.sizes[held], np.bincount(found.texts, minlength=len(texts))[own]
        near = (hits >= self.least * sizes) & ((sizes * self.every >= FEW_GRAMS) | (hits >= self.least * own_sizes))
        result[own[near]] = True
        return result


def _loaded(path: Path) -> np.ndarray:
    loaded: np.ndarray = np.load(path, mmap_mode="r")
    return loaded


def _blocks(texts: Iterable[str]) -> Iterable[list[str]]:
    block: list[str] = []
    for text in texts:
        block.append(text)
        if len(block) == _AT_ONCE:
            yield block
            block = []
    if block:
        yield block


def _sampled(hashes: np.ndarray, every: int) -> np.ndarray:
    """Return which of the hashes are in a sample of one in `every`, a power of two."""
    return (hashes >> np.uint64(40)) % np.uint64(every) == 0


def _rare(ascending: np.ndarray) -> np.ndarray:
    """Return for each element whether it occurs at most `MOST_TEXTS_OF_A_GRAM` times."""
    begins = np.flatnonzero(np.r_[True, ascending[1:] != ascending[:-1]][: len(ascending)])
    times = np.diff(begins, append=len(ascending))
    return np.repeat(times <= MOST_TEXTS_OF_A_GRAM, times)


@functools.lru_cache(maxsize=1 << 18)
def _hash(token: str) -> int:
    return int.from_bytes(hashlib.blake2b(token.encode("utf-8", "replace"), digest_size=8).digest(), "little")


def _whole(words: Sequence[int]) -> int:
    """Return the gram of a text that is shorter than a gram; its length is part of it."""
    value = len(words)
    for word in words:
        value = (value * _FACTOR + word) & _MASK
    return value
