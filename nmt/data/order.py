"""The global order of training examples: a function of the seed and the position, the same on every host.

The order is divided into windows. The number of examples that a window has of each stream is its share in the mixture,
to within one example; inside a window they come in random order. The k-th example of a stream is record P(k mod n) of
its n records, where P is another permutation in every epoch. A window is computed at once, and no order is stored.
"""

import zlib
from typing import Any, NamedTuple

import numpy as np

from nmt.data.mixture import Shares

Ints = np.ndarray[Any, np.dtype[np.int64]]
Words = np.ndarray[Any, np.dtype[np.uint64]]

# Rounds of the shuffle: the probability that an element is still in its place after r rounds is 2^-r.
_ROUNDS = 32
GOLDEN = 0x9E3779B97F4A7C15
_WORD = (1 << 64) - 1


class DrawnExamples(NamedTuple):
    """The U examples of a window.

    Attributes:
      stream: index of the stream [U].
      record: record of that stream [U].
      occurrence: number of the example among all that the run draws from that stream, over all epochs, from 0 [U].
    """

    stream: Ints
    record: Ints
    occurrence: Ints

    def select(self, places: Any) -> "DrawnExamples":
        """Return the examples at some places: indices, a mask or a slice."""
        return DrawnExamples(*(column[places] for column in self))


def derive_seed(seed: int, purpose: str) -> int:
    """Derive a seed of 32 bits for one purpose from the seed of a recipe."""
    return int(np.random.SeedSequence([seed, zlib.crc32(purpose.encode())]).generate_state(1)[0])


def draw_window(shares: Shares, counts: Ints, sizes: Ints, keys: Words, size: int, seed: list[int]) -> DrawnExamples:
    """Draw the examples of a window from Z streams.

    Args:
      shares: probability of every stream [Z].
      counts: examples of every stream in the windows before [Z].
      sizes: records of every stream [Z].
      keys: seed of the permutations of every stream [Z].
      size: examples of the window (U).
      seed: seed of the window.
    """
    rng = np.random.default_rng(seed)
    # Systematic sampling: every stream gets its expected number, rounded up or down, and that number on average.
    ends = np.floor(np.cumsum(shares) * size + rng.random()).astype(np.int64)
    ends[np.flatnonzero(shares)[-1] :] = size
    starts = np.concatenate([[0], ends[:-1]])
    stream = rng.permutation(np.repeat(np.arange(len(shares)), ends - starts))
    occurrence = np.empty(size, np.int64)
    by_stream = np.argsort(stream, kind="stable")
    occurrence[by_stream] = np.arange(size) + (counts - starts)[stream[by_stream]]
    epoch, place = np.divmod(occurrence, sizes[stream])
    return DrawnExamples(
        stream, permute(place, sizes[stream], mix_bits(keys[stream] + epoch.astype(np.uint64))), occurrence
    )


def permute(index: Ints, size: Ints, key: Words) -> Ints:
    """Apply a random permutation of [0, size) to each index [U]; equal keys [U] give equal permutations.

    The swap-or-not shuffle (Hoang, Morris, Rogaway, CRYPTO 2012, figure 1): in every round x is paired with
    pivot - x (mod size), and one random bit of the pair decides whether the two swap. It works for any size, without
    tables and without cycle walking.
    """
    x, n = index.astype(np.uint64), size.astype(np.uint64)
    for number in range(_ROUNDS):
        word = mix_bits(key + np.uint64(((2 * number + 1) * GOLDEN) & _WORD))
        pivot = word % n
        partner = np.where(pivot >= x, pivot - x, pivot + n - x)
        swap = mix_bits(np.maximum(x, partner) ^ (word + np.uint64(GOLDEN))) >> np.uint64(63)
        x = np.where(swap.astype(bool), partner, x)
    return x.astype(np.int64)


def mix_bits(word: Words) -> Words:
    """Mix the bits of every word: the finaliser of SplitMix64 (Steele, Lea, Flood, OOPSLA 2014)."""
    word = (word ^ (word >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    word = (word ^ (word >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return word ^ (word >> np.uint64(31))
