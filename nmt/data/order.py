"""The global order of training examples: a function of the seed and the position, whoever asks for it.

Positions come in windows. What a window holds of every direction follows the mixture to within one example; the order
in it is random. The k-th example of a direction is record P(k mod n) of its n records, where P is a permutation of its
own in every epoch. All of it is computed for a whole window at once, and nothing of it is kept.
"""

import zlib
from typing import Any, NamedTuple

import numpy as np

from nmt.data.mixture import Shares

Ints = np.ndarray[Any, np.dtype[np.int64]]
Words = np.ndarray[Any, np.dtype[np.uint64]]

# Rounds of the shuffle: after r of them an element has stayed in its place with probability 2^-r.
_ROUNDS = 32
GOLDEN = 0x9E3779B97F4A7C15
_WORD = (1 << 64) - 1


class DrawnExamples(NamedTuple):
    """The examples of a window [W]: index of the stream, record in it, and its place in the endless run of that stream.

    `occurrence` counts the examples of a stream from the beginning of the run, over all its epochs.
    """

    stream: Ints
    record: Ints
    occurrence: Ints

    def at(self, places: Any) -> "DrawnExamples":
        """Return the examples at some places: indices, a mask or a slice."""
        return DrawnExamples(*(column[places] for column in self))


def derived(seed: int, purpose: str) -> int:
    """Return a seed of 32 bits for one purpose."""
    return int(np.random.SeedSequence([seed, zlib.crc32(purpose.encode())]).generate_state(1)[0])


def draw_window(shares: Shares, counts: Ints, sizes: Ints, keys: Words, size: int, seed: list[int]) -> DrawnExamples:
    """Draw a window.

    Args:
      shares: probability of every stream [D].
      counts: examples of every stream that were drawn before [D].
      sizes: records of every stream [D].
      keys: seed of the permutations of every stream [D].
      size: examples of the window (W).
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
        stream, permuted(place, sizes[stream], mixed(keys[stream] + epoch.astype(np.uint64))), occurrence
    )


def permuted(index: Ints, size: Ints, key: Words) -> Ints:
    """Return where random permutations of [0, size) send `index`, element by element; equal keys, equal permutations.

    The swap-or-not shuffle (Hoang, Morris, Rogaway, CRYPTO 2012, figure 1): in every round x may change places with
    K - x, as a bit decides that both have in common. Works for any size, without tables and without walking in cycles.
    """
    x, n = index.astype(np.uint64), size.astype(np.uint64)
    for number in range(_ROUNDS):
        word = mixed(key + np.uint64(((2 * number + 1) * GOLDEN) & _WORD))
        pivot = word % n
        partner = np.where(pivot >= x, pivot - x, pivot + n - x)
        swap = mixed(np.maximum(x, partner) ^ (word + np.uint64(GOLDEN))) >> np.uint64(63)
        x = np.where(swap.astype(bool), partner, x)
    return x.astype(np.int64)


def mixed(word: Words) -> Words:
    """Return words with all bits mixed: the finaliser of SplitMix64 (Steele, Lea, Flood, OOPSLA 2014)."""
    word = (word ^ (word >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    word = (word ^ (word >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return word ^ (word >> np.uint64(31))
