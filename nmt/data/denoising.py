"""Denoising: examples made of text in one language. The source is the text with some spans masked.

This is done as in mBART (Liu et al. 2020, arXiv:2001.08210, section 2.2), which masks 35% of a text by spans of
Poisson(3.5) lengths, and in BART's text infilling (Lewis et al. 2020, arXiv:1910.13461, section 2.2): one mask replaces
a whole span, a span may be empty, and the decoder writes the whole text. NLLB (arXiv:2207.04672) trains it beside
translation. Spans are counted in pieces, not words: not every language has spaces between words.

    source  >>de<< <denoise> pieces <mask> pieces <mask> end        target  all pieces

Masks are drawn from seed, stream and occurrence: new ones in every epoch, and the same after resuming and on any number
of hosts. The number of pieces and masks of a source depends only on these and its length, so packing, which needs
lengths, reads no text.
"""

import math
from typing import Any, NamedTuple

import numpy as np

from nmt.config.schema_denoise import DenoiseConfig
from nmt.data.order import GOLDEN, DrawnExamples, Ints, Words, mix_bits

_MARKS = 1  # <denoise>, which is stored before the pieces
_SLOTS = 1 << 32  # draws from this number on place spans; those below decide the lengths of spans


class Noise(NamedTuple):
    """The masked spans of U texts.

    Attributes:
      masked: number of masked pieces of each text [U].
      spans: number of spans of each text [U], at most `masked`.
      lengths: number of pieces of each span, text after text [sum of spans].
    """

    masked: Ints
    spans: Ints
    lengths: Ints


class Denoiser:
    """Masks the sources of denoising streams.

    Args:
      first: number of the first denoising stream; all streams from it on are denoising.
      mask: id of <mask> in the vocabulary of sources.
      config: share of masked pieces and mean length of spans.
      seed: seed of all masks.
    """

    def __init__(self, first: int, mask: int, config: DenoiseConfig, seed: int):
        self._first, self._mask, self._share = first, mask, config.mask
        self._seed = np.uint64(seed)
        self._lengths = _poisson(config.span)

    def selects(self, window: DrawnExamples) -> np.ndarray:
        """Return a mask of the examples that are denoising [U]."""
        return window.stream >= self._first

    def lengths(self, window: DrawnExamples, sources: np.ndarray) -> np.ndarray:
        """Return the pieces of each source after masking [U], from those before it [U]; marks count in both."""
        chosen = self.selects(window)
        found = sources.astype(np.int64)
        noise = self._noise(found[chosen] - _MARKS, self._keys(window.select(chosen)))
        found[chosen] += noise.spans - noise.masked
        return found

    def mask_sources(
        self, window: DrawnExamples, source: np.ndarray, lengths: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """Mask the denoising sources among U sources; return the pieces of all, concatenated, and their lengths [U].

        Args:
          window: the U examples.
          source: pieces of their sources, concatenated, marks included [sum of lengths].
          lengths: pieces of each source [U].
        """
        chosen = self.selects(window)
        if not chosen.any():
            return source, lengths
        mine, keys = np.repeat(chosen, lengths), self._keys(window.select(chosen))
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
        streams = mix_bits(self._seed + window.stream.astype(np.uint64) * np.uint64(GOLDEN))
        return mix_bits(streams + window.occurrence.astype(np.uint64))

    def _noise(self, pieces: Ints, keys: Words) -> Noise:
        """Draw the spans of U texts from their numbers of pieces [U]; at least one piece is masked, and one is not."""
        masked = np.floor(self._share * pieces + _uniform(keys, 0)).astype(np.int64)
        masked = np.where(pieces > 1, np.clip(masked, 1, np.maximum(pieces - 1, 1)), 0)
        # Lengths are drawn until their sum is the number to be masked; the last one is cut to what is left.
        owner, place = _number_items(masked)
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
        """Return the pieces with spans replaced by masks; every choice of slots for the spans is equally likely."""
        owner, place = _number_items(slots)
        order = np.lexsort((mix_bits(keys[owner] + _number(place + _SLOTS)), owner))
        spans = order[place < noise.spans[owner]]
        taken = np.ones(len(owner), np.int64)
        taken[spans] = noise.lengths
        kept = np.ones(len(owner), bool)
        kept[spans] = False
        result = np.full(len(owner), self._mask, pieces.dtype)
        result[kept] = pieces[(np.cumsum(taken) - taken)[kept]]
        return result


def _number_items(counts: Ints) -> tuple[Ints, Ints]:
    """Number the items of U owners: return the owner of each item, and its number among those of that owner.

    Args:
      counts: number of items of each owner [U].
    """
    owner = np.repeat(np.arange(len(counts)), counts)
    return owner, np.arange(len(owner)) - np.repeat(np.cumsum(counts) - counts, counts)


def _number(place: Any) -> Words:
    return np.asarray(place, np.uint64) * np.uint64(GOLDEN)


def _uniform(keys: Words, place: Any) -> np.ndarray:
    """Return random numbers in [0, 1) [U]: draw number `place` of the sequence that each key begins [U]."""
    return (mix_bits(keys + _number(place)) >> np.uint64(11)) * 2.0**-53


def _poisson(mean: float) -> np.ndarray:
    """Return the cumulative Poisson probabilities P(X <= 0), P(X <= 1), ...: the index of a uniform draw is a value."""
    terms = [math.exp(-mean)]
    while len(terms) <= mean or terms[-1] > 2.0**-53:
        terms.append(terms[-1] * mean / len(terms))
    return np.cumsum(terms)[:-1]
