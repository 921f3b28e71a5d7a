"""Augmentation of training pairs: other segmentations, other case, noise.

Every change is a function of seed, stream and occurrence. The store has ids of pieces: they are decoded to the
normalised text, which is changed and segmented again. The random generator of SentencePiece cannot be seeded a second
time in a process, so a resumed run could not repeat its draws. Segmentations are therefore drawn here: among the n best
(Kudo 2018, section 3.2), or merge by merge (Provilkov et al. 2020, algorithm 1).
"""

import itertools
from collections.abc import Sequence

import numpy as np

from nmt.config.schema_augment import AugmentConfig
from nmt.data.store import RowLengths
from nmt.data.vocab import Vocabulary
from nmt.data.vocabularies import Vocabularies

_BEST = 16
_KEPT = 1 << 14  # changed pairs that are remembered: the next block of rows begins with those that found no room

Pair = tuple[list[int], list[int]]


class Augmenter:
    """Changes training pairs, given and returned as ids of pieces.

    Args:
      vocabularies: vocabularies of sources and of targets.
      config: probabilities of the changes.
      seed: seed of all changes.
    """

    def __init__(self, vocabularies: Vocabularies, config: AugmentConfig, seed: int):
        self._vocabularies, self._config, self._seed = vocabularies, config, seed
        self._kept: dict[tuple[int, int], Pair] = {}

    def recall(self, stream: int, occurrence: int) -> Pair | None:
        """Return the changed pair of an occurrence if it is remembered from a recent `change`, else None."""
        return self._kept.get((stream, occurrence))

    def change(
        self, stream: int, occurrence: int, source: Sequence[int], target: Sequence[int], most: RowLengths
    ) -> Pair:
        """Return a pair with the changes that belong to the `occurrence`-th example of its stream.

        A pair that would become empty, or have more pieces on a side than `most` allows, is returned unchanged.
        """
        rng = np.random.default_rng([self._seed, stream, occurrence])
        config = self._config
        texts = [
            vocabulary.decode([ids])[0] for vocabulary, ids in zip(self._vocabularies, (source, target), strict=True)
        ]
        case, noise = rng.random(), rng.random((2, texts[0].count(" ") + 1))
        if case < config.lower:
            texts = [text.lower() for text in texts]
        elif case < config.lower + config.upper:
            texts = [text.upper() for text in texts]
        texts[0] = self._noisy(texts[0], noise)
        alphas = [config.subword * (config.sides in (side, "both")) for side in ("source", "target")]
        # Control symbols are no text: they stay in front of the changed text.
        marks = [*itertools.takewhile(lambda piece: piece < self._vocabularies.source.first_piece, source)]
        pair = tuple(
            segment(vocabulary, text, alpha, rng)
            for vocabulary, text, alpha in zip(self._vocabularies, texts, alphas, strict=True)
        )
        pair = ([*marks, *pair[0]], pair[1]) if pair[0] else pair
        fits = all(0 < len(ids) <= limit for ids, limit in zip(pair, most, strict=True))
        result = (pair[0], pair[1]) if fits else (list(source), list(target))
        if len(self._kept) >= _KEPT:
            self._kept.clear()
        self._kept[stream, occurrence] = result
        return result

    def _noisy(self, text: str, noise: np.ndarray) -> str:
        words = [word for word, chance in zip(text.split(" "), noise[0], strict=True) if chance >= self._config.drop]
        place = 0
        while place + 1 < len(words):
            if noise[1][place] < self._config.swap:
                words[place], words[place + 1] = words[place + 1], words[place]
                place += 1
            place += 1
        return " ".join(words)


def segment(vocabulary: Vocabulary, text: str, strength: float, rng: np.random.Generator) -> list[int]:
    """Return the ids of a text's pieces: the best segmentation for strength 0, else a random one."""
    if not strength:
        return vocabulary.encode([text])[0]
    if vocabulary.merges:
        return vocabulary.encode_with_dropout(text, strength, rng)
    candidates = vocabulary.best(text, _BEST)
    scores = strength * np.array([score for _, score in candidates])
    weights = np.exp(scores - scores.max())
    return candidates[int(rng.choice(len(candidates), p=weights / weights.sum()))][0]
