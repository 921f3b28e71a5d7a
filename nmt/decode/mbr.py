"""Minimum Bayes risk decoding: of many samples, the one that is most like all of them.

The likeness is chrF, not to each sample in turn but to the mean of their n-gram counts, so that the work grows with the
number of samples, not with its square (Vamvas and Sennrich 2024, arXiv:2402.04251).
"""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Float, Int

from nmt.decode.options import SearchOptions
from nmt.decode.ranking import first_indices, widen_search
from nmt.errors import UserError

ORDER = 6  # of the longest n-grams of characters
BETA = 2.0  # weight of recall
EPSILON = 0.02  # least probability of a token that is sampled (Freitag, Ghorbani and Fernandes 2023, arXiv:2305.09860)


@dataclass(frozen=True)
class MinimumBayesRisk:
    """Ranks samples by their chrF against the mean n-gram counts of all of them.

    Args:
      samples: samples of each source.

    Raises:
      UserError: there are fewer than two.
    """

    samples: int

    def __post_init__(self) -> None:
        if self.samples < 2:
            raise UserError(f"minimum Bayes risk needs two samples at least (not {self.samples})")

    def candidate_options(self, options: SearchOptions) -> SearchOptions:
        """Return the options of the samples: epsilon sampling, unless `options` say already how to sample."""
        if not options.sampling:
            options = replace(options, sampling=True, epsilon=EPSILON, beam_groups=1)
        return widen_search(options, self.samples)

    def rank(self, sources: Sequence[str], candidates: Sequence[Sequence[str]]) -> list[list[int]]:
        """Return the indices of the samples of each source, best first, each text once; of equals the first is first.

        The sources themselves do not matter.
        """
        del sources
        return [_rank_samples(texts) for texts in candidates]


def _rank_samples(texts: Sequence[str]) -> list[int]:
    times = Counter(texts)  # in the order in which they first come
    scores = aggregate_chrf(list(times), list(times.values()))
    first = list(first_indices(texts).values())
    return [first[rank] for rank in np.argsort(-scores, kind="stable")]


def aggregate_chrf(texts: Sequence[str], times: Sequence[int]) -> Float[np.ndarray, " U"]:
    """Return the chrF of each text against the mean n-gram counts of all, as sacreBLEU defines it, from 0 to 100.

    Args:
      texts: the texts; white space does not count.
      times: how often each text counts in the mean.
    """
    precision, recall, orders = np.zeros((3, len(texts)))
    weights = np.asarray(times) / sum(times)
    for owners, ngrams, counts in _ngram_counts(texts):
        mean = np.bincount(ngrams, counts * weights[owners])
        matches = np.bincount(owners, np.minimum(counts, mean[ngrams]), len(texts))
        total = np.bincount(owners, counts, len(texts))
        if there := mean.sum():
            precision += matches / np.maximum(total, 1)
            recall += matches / there * (total > 0)
            orders += total > 0
    precision, recall = precision / np.maximum(orders, 1), recall / np.maximum(orders, 1)
    below = BETA**2 * precision + recall
    return 100 * (1 + BETA**2) * precision * recall / np.where(below > 0, below, 1)


def _ngram_counts(
    texts: Sequence[str],
) -> Iterator[tuple[Int[np.ndarray, " R"], Int[np.ndarray, " R"], Int[np.ndarray, " R"]]]:
    """Yield for each order, as long as there are n-grams, the text, the n-gram and its count; n-grams are numbers."""
    bare = ["".join(text.split()) for text in texts]
    characters = np.frombuffer("".join(bare).encode("utf-32-le", "surrogatepass"), np.uint32).astype(np.int64)
    owners = np.repeat(np.arange(len(bare)), [len(text) for text in bare])
    size = int(characters.max(initial=0)) + 1
    ngrams = characters
    for order in range(1, ORDER + 1):
        if order > 1:
            inside = owners[: 1 - order] == owners[order - 1 :] if len(owners) >= order else np.zeros(0, bool)
            # The n-gram before, and one character more; those across two texts get a number that is not used.
            ngrams = ngrams[: len(inside)] * size + characters[order - 1 :][: len(inside)]
        else:
            inside = np.ones(len(owners), bool)
        if not inside.any():
            return
        _, ngrams = np.unique(ngrams, return_inverse=True)
        keys, counts = np.unique(owners[: len(inside)][inside] * len(ngrams) + ngrams[inside], return_counts=True)
        yield keys // len(ngrams), keys % len(ngrams), counts
