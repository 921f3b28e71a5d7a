"""Rankings of candidates: translations chosen by another measure than the model's probability of them."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Protocol

from nmt.decode.options import SearchOptions
from nmt.decode.pool import Hypothesis


class Ranking(Protocol):
    """A measure by which candidates are ranked, and how they are made."""

    def candidate_options(self, options: SearchOptions) -> SearchOptions:
        """Return the options of the search for candidates."""

    def rank(self, sources: Sequence[str], candidates: Sequence[Sequence[str]]) -> list[list[int]]:
        """Return the indices of the candidates of each source, best first, each text once."""


def rank_hypotheses(
    ranking: Ranking, sources: Sequence[str], hypotheses: Sequence[Sequence[Hypothesis]], texts: Sequence[Sequence[str]]
) -> list[list[Hypothesis]]:
    """Return the hypotheses of each source as a ranking orders them; their scores stay those of the model."""
    orders = ranking.rank(sources, texts)
    return [[own[index] for index in order] for own, order in zip(hypotheses, orders, strict=True)]


def widen_search(options: SearchOptions, count: int) -> SearchOptions:
    """Return options that give so many hypotheses, by a beam that is wide enough where they are searched for."""
    beam = options.beam if options.sampling else max(options.beam, count * options.beam_groups)
    return replace(options, hypotheses=count, beam=beam)


def first_indices(texts: Sequence[str]) -> dict[str, int]:
    """Return the index at which each text first comes, in that order."""
    return {text: texts.index(text) for text in dict.fromkeys(texts)}
