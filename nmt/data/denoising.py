"""Denoising: text of one language as an example of its own, whose source is the text with spans of it masked.

As in mBART (Liu et al. 2020, arXiv:2001.08210, section 2.2), which masks 35% of a text by spans of Poisson(3.5)
lengths, and before it BART's text infilling (Lewis et al. 2020, arXiv:1910.13461, section 2.2): one mask stands for a
whole span, a span may be empty, and the decoder writes the whole text. NLLB (arXiv:2207.04672) trains it together with
translation. Here a unit is a piece of the vocabulary, whatever the script: not every language has spaces between words.

    source  >>de<< <denoise> pieces <mask> pieces <mask> end        target  all pieces

How many pieces and masks a source has follows from its length and its place in the stream alone. So packing, which
needs lengths, reads no text for it, and what is drawn is a function of seed, stream and occurrence: new in every epoch,
and the same after resuming and on any number of hosts.
"""

import math
from typing import Any, NamedTuple

import numpy as np

from nmt.config.schema_denoise import DenoiseConfig
from nmt.data.order import GOLDEN, DrawnExamples, Ints, Words, mixed

_MARKS = 1  # <denoise>, which is stored before the pieces
_SLOTS = 1 << 32  # numbers of the draws that place spans; below are those of their lengths


class Noise(NamedTuple):
    """The spans of E texts.

    Attributes:
      masked: pieces of each text that are masked [E].
      spans: spans of each text [E], at most as many as masked pieces.
      lengths: pieces of the spans, text by text [sum of spans].
    """

    masked: Ints
    spans: Ints
    lengths: Ints


class Denoiser:
    """Masks the sources of the streams of denoising.

    Args:
      first: number of the first stream of denoising; all that follow are too.
      mask: id of <mask> in the vocabulary of sources.
      config: how much is masked.
      seed: seed of all masks.
    """

    def __init__(self, first: int, mask: int, config: DenoiseConfig, seed: int):
        self._first, self._mask, self._share = first, mask, config.mask
        self._seed = np.uint64(seed)
        self._lengths = _poisson(config.span)

    def chooses(self, window: DrawnExamples) -> np.ndarray:
        """Say which examples are of denoising [N]."""
        return window.stream >= self._first

    def lengths(self, window: DrawnExamples, sources: np.ndarray) -> np.ndarray:
        """Return the pieces of sources [N], marks included, as they are after masking, from what they are before."""
        chosen = self.chooses(window)
        found = sources.astype(np.int64)
        noise = self._noise(found[chosen] - _MARKS, self._keys(window.at(chosen)))
        found[chosen] += noise.spans - noise.masked
        return found

    def masked(self, window: DrawnExamples, source: np.ndarray, lengths: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return all sources, one after the other, and their lengths [N], with those of denoising masked.

        Args:
          window: the examples [N].
          source: pieces of their sources, one after the other, marks included.
          lengths: of each [N].
        """
        chosen = self.chooses(window)
        if not chosen.any():
            return source, lengths
        mine, keys = np.repeat(chosen, lengths), self._keys(window.at(chosen))
        old, sizes = source[mine], lengths[chosen].astype(np.int64)
        heads = np.zeros(len(old), bool)
        heads[np.cumsum(sizes) - sizes] = True
        noise = self._noise(sizes - _MARKS, keys)
        slots = sizes - _MARKS - noise.masked + noise.spans
        pieces = self._filled(old[~heads], slots, noise, keys)
        now = lengths.astype(np.int64)
        now[chosen] = slots + _MARKS
        result = np.empty(now.sum(), source.dtype)
        mine_now = np.repeat(chosen, now)
        result[~mine_now] = source[~mine]
        heads_now = np.zeros(len(pieces) + len(sizes), bool)
        heads_now[np.cumsum(now[chosen]) - now[chosen]] = True
        changed = np.empty(len(heads_now), source.dtype)
        changed[heads_now], changed[~heads_now] = old[heads], pieces
        result[mine_now] = changed
        return result, now

    def _keys(self, window: DrawnExamples) -> Words:
        streams = mixed(self._seed + window.stream.astype(np.uint64) * np.uint64(GOLDEN))
        return mixed(streams + window.occurrence.astype(np.uint64))

    def _noise(self, pieces: Ints, keys: Words) -> Noise:
        """Return the spans of texts of so many pieces [E]; one piece at least is masked, and one is not."""
        masked = np.floor(self._share * pieces + _uniform(keys, 0)).astype(np.int64)
        masked = np.where(pieces > 1, np.clip(masked, 1, np.maximum(pieces - 1, 1)), 0)
        # Lengths are drawn until they make up what is to be masked; the last one is cut, or has what is left.
        owner, place = _owned(masked)
        drawn = np.searchsorted(self._lengths, _uniform(keys[owner], place + 1), side="right")
        before = np.cumsum(drawn) - drawn
        before -= before[(np.cumsum(masked) - masked)[owner]] if len(owner) else 0
        used = before < masked[owner]
        spans = np.bincount(owner[used], minlength=len(masked)).astype(np.int64)
        lengths, left = drawn[used], (masked[owner] - before)[used]
        last = np.cumsum(spans)[spans > 0] - 1
        lengths[last] = left[last]
        return Noise(masked, spans, lengths)

    def _filled(self, pieces: np.ndarray, slots: Ints, noise: Noise, keys: Words) -> np.ndarray:
        """Return the pieces with spans masked: every choice of the slots that are spans is as likely as any other."""
        owner, place = _owned(slots)
        order = np.lexsort((mixed(keys[owner] + _number(place + _SLOTS)), owner))
        spans = order[place < noise.spans[owner]]
        taken = np.ones(len(owner), np.int64)
        taken[spans] = noise.lengths
        kept = np.ones(len(owner), bool)
        kept[spans] = False
        result = np.full(len(owner), self._mask, pieces.dtype)
        result[kept] = pieces[(np.cumsum(taken) - taken)[kept]]
        return result


def _owned(counts: Ints) -> tuple[Ints, Ints]:
    """Return, for `counts` items of each of E owners, whose each is and which of its owner's, from 0."""
    owner = np.repeat(np.arange(len(counts)), counts)
    return owner, np.arange(len(owner)) - np.repeat(np.cumsum(counts) - counts, counts)


def _number(place: Any) -> Words:
    return np.asarray(place, np.uint64) * np.uint64(GOLDEN)


def _uniform(keys: Words, place: Any) -> np.ndarray:
    """Return numbers in [0, 1): the draws of some number [E] of streams [E]."""
    return (mixed(keys + _number(place)) >> np.uint64(11)) * 2.0**-53


def _poisson(mean: float) -> np.ndarray:
    """Return the probabilities that a Poisson number is at most 0, 1, 2, ...: where a draw falls is its value."""
    terms = [math.exp(-mean)]
    while len(terms) <= mean or terms[-1] > 2.0**-53:
        terms.append(terms[-1] * mean / len(terms))
    return np.cumsum(terms)[:-1]
