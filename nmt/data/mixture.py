"""The mixture: the probability with which each direction is drawn, and the examples and epochs that follow from it.

    n^(1/T)  x  weights  ->  shares of groups  ->  floors and caps within each group

Directions that are held out, and those outside the stage, have weight 0. Denoising has a fixed share of all examples,
divided among its languages; the rules above divide the rest.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from nmt.config import DataConfig
from nmt.config.schema_mixture import StageConfig
from nmt.data.store import SOURCE_EXTRA, TARGET_EXTRA, SplitStats, Stats
from nmt.errors import UserError
from nmt.languages import Direction, fits_pattern, get

# Share of the slots that packing fills, on the side that fills first (measured on short sentences).
_FILL = 0.96
_POINTS = 200  # steps at which the table samples the shares of a schedule

Shares = np.ndarray[Any, np.dtype[np.float64]]


@dataclass(frozen=True)
class MixtureRow:
    """One direction of the mixing table.

    Attributes:
      pairs: training pairs.
      share: probability of being drawn, mean over the steps.
      examples: pairs drawn until the last step, estimated.
      epochs: how often each of its pairs is drawn until then, estimated; 0 without pairs.
    """

    direction: Direction
    pairs: int
    share: float
    examples: float
    epochs: float


def probabilities(pairs: Mapping[Direction, int], temperature: float) -> dict[Direction, float]:
    """Return p(d) = n_d^(1/T) / sum of n^(1/T) over the directions with pairs (Arivazhagan et al., arXiv:1907.05019).

    Raises:
      UserError: no direction has a pair.
    """
    weights = {direction: count ** (1 / temperature) for direction, count in pairs.items() if count > 0}
    if not weights:
        raise UserError(f"no training pairs in any of the directions {', '.join(map(str, pairs))}")
    total = sum(weights.values())
    return {direction: weight / total for direction, weight in weights.items()}


def denoising_directions(data: DataConfig) -> tuple[Direction, ...]:
    """Return the denoising directions of a recipe, such as de-de, in its order.

    Raises:
      UserError: a language is unknown or given twice.
    """
    codes = [get(language).code for language in data.denoise.languages]
    if twice := [code for place, code in enumerate(codes) if code in codes[:place]]:
        raise UserError(f"data.denoise.languages: {twice[0]} is given twice")
    return tuple(Direction(code, code) for code in codes)


class Mixture:
    """The share of every direction at every step of every stage.

    Args:
      pairs: training pairs by direction.
      data: temperature, `data.mixture` and `data.denoise`.
      texts: number of training texts of each denoising language.

    Raises:
      UserError: a pattern fits no direction, no shares keep the bounds, or a stage has no training pairs.
    """

    def __init__(self, pairs: Mapping[Direction, int], data: DataConfig, texts: Sequence[int] = ()):
        self.directions = tuple(pairs)
        self._denoised = _denoising_shares(np.array(texts, np.float64), data) if len(texts) else np.zeros(0)
        self.stages: tuple[StageConfig, ...] = data.mixture.stages or (StageConfig(),)
        self._data = data
        self._counts = np.array(list(pairs.values()), np.float64)
        mixture = data.mixture
        self._trained = ~self._fit(mixture.held_out, "data.mixture.held_out", missing=False) & (self._counts > 0)
        self._groups = self._grouped(mixture.groups)
        # The weights of the mixture are parsed alone first, so that a mistake in them is not blamed on a stage.
        self._weights(mixture.weights, "data.mixture.weights")
        self._factors = [
            self._weights((*mixture.weights, *stage.weights), f"weights of stage {number}")
            * self._fit(stage.directions, f"directions of stage {number}", missing=True)
            for number, stage in enumerate(self.stages, 1)
        ]
        self._cache: dict[tuple[float, int], Shares] = {}
        for stage in range(len(self.stages)):
            self.shares(0, stage)

    def temperature(self, step: int, stage: int = 0) -> float:
        """Return T at a step of a stage; steps count from 0 over the whole run."""
        if (own := self.stages[stage].temperature) is not None:
            return own
        if not (points := self._data.mixture.points):
            return self._data.temperature
        steps, values = zip(*points, strict=True)
        return float(np.interp(step, steps, values))

    def shares(self, step: int, stage: int = 0) -> Shares:
        """Return the probability of every direction [L], 0 for those that are not drawn."""
        key = self.temperature(step, stage), stage
        if key not in self._cache:
            self._cache = {key: self._shares(*key)}
        return self._cache[key]

    def all_shares(self, step: int, stage: int = 0) -> Shares:
        """Return the probability of every direction and of every denoising language [L + denoising languages]."""
        own = self.stages[stage].denoise
        share = (self._data.denoise.share if own is None else own) * self._denoised.any()
        return np.concatenate([(1 - share) * self.shares(step, stage), share * self._denoised])

    def members(self, stage: int) -> list[Direction]:
        """Return the directions that are drawn in a stage."""
        return [d for d, share in zip(self.directions, self.shares(0, stage), strict=True) if share > 0]

    def find_stage(self, step: int) -> int:
        """Return the stage that a step is in if every stage lasts as long as its `steps` allow."""
        ends = np.cumsum([np.inf if stage.steps is None else stage.steps for stage in self.stages[:-1]])
        return int(np.searchsorted(ends, step, side="right"))

    def mean(self, steps: int) -> Shares:
        """Return the mean shares over the steps of a run [L + denoising languages]."""
        points = np.linspace(0, steps, min(steps, _POINTS), endpoint=False).astype(int)
        return np.mean([self.all_shares(int(step), self.find_stage(int(step))) for step in points], axis=0)

    def _shares(self, temperature: float, stage: int) -> Shares:
        drawn = self._trained & (self._factors[stage] > 0)
        if not drawn.any():
            where = f" of stage {stage + 1}" if len(self.stages) > 1 else ""
            raise UserError(f"no training pairs in any of the directions{where} {', '.join(map(str, self.directions))}")
        weights = np.zeros(len(drawn))
        weights[drawn] = self._counts[drawn] ** (1 / temperature) * self._factors[stage][drawn]
        present = [(members & drawn, share) for members, share in self._groups if (members & drawn).any()]
        total = sum(share for _, share in present)
        if total <= 0:
            raise UserError("data.mixture.groups leaves nothing for the directions that have training pairs")
        shares = np.zeros(len(drawn))
        for members, share in present:
            shares[members] = self._bounded(weights[members], share / total)
        return shares

    def _bounded(self, weights: Shares, total: float) -> Shares:
        """Return shares that sum to `total`, proportional to the weights wherever no floor or cap holds."""
        least, most = self._data.mixture.min_share, self._data.mixture.max_share
        if not least * len(weights) <= total * (1 + 1e-9) or not most * len(weights) >= total * (1 - 1e-9):
            raise UserError(
                f"data.mixture.min_share={least:g} and max_share={most:g}: {len(weights)} directions "
                f"cannot have shares within them that sum to {total:.3g}"
            )
        # The sum of clip(factor * weight) rises with the factor, so bisection (of its logarithm) finds it.
        low, high = np.log(1e-12 / weights.max()), np.log(1e12 / weights.min())
        for _ in range(200):
            middle = (low + high) / 2
            below = np.clip(np.exp(middle) * weights, least, most).sum() < total
            low, high = (middle, high) if below else (low, middle)
        shares = np.clip(np.exp(high) * weights, least, most)
        return np.asarray(shares * (total / shares.sum()))

    def _grouped(self, groups: Sequence[str]) -> list[tuple[np.ndarray, float]]:
        free = np.ones(len(self.directions), bool)
        found, left = [], 1.0
        for group in groups:
            pattern, _, share = group.rpartition("=")
            members = self._fit((pattern,), "data.mixture.groups", missing=False) & free
            found.append((members, float(share)))
            free &= ~members
            left -= float(share)
        return [*found, (free, max(0.0, left) if groups else 1.0)]

    def _weights(self, weights: Sequence[str], key: str) -> Shares:
        factors = np.ones(len(self.directions))
        for weight in weights:
            pattern, _, factor = weight.rpartition("=")
            factors[self._fit((pattern,), key, missing=False)] = float(factor)
        return factors

    def _fit(self, patterns: Sequence[str], key: str, *, missing: bool) -> np.ndarray:
        """Return a mask of the directions that fit any of the patterns [L]; `missing` everywhere if there are none."""
        if not patterns:
            return np.full(len(self.directions), missing)
        every = [np.array([fits_pattern(pattern, direction) for direction in self.directions]) for pattern in patterns]
        for pattern, fit in zip(patterns, every, strict=True):
            if not fit.any():
                raise UserError(f"{key}: {pattern} fits none of the directions {', '.join(map(str, self.directions))}")
        return np.logical_or.reduce(every)


def mixing_table(
    stats: Stats, directions: Sequence[Direction], data: DataConfig, rows: int, steps: int
) -> list[MixtureRow]:
    """Return the rows of the mixing table for a run of `steps` batches of `rows` rows; denoising directions come last.

    The number of pairs in a batch is estimated from the mean number of tokens of a pair and the usual fill of packed
    rows. A stage of a curriculum is assumed to last as long as its `steps` allow.

    Raises:
      UserError: as `Mixture`.
    """
    streams = (*directions, *denoising_directions(data))
    train = [stats.direction(direction).splits["train"] for direction in streams]
    pairs = [split.pairs for split in train]
    texts = pairs[len(directions) :]
    shares = Mixture(dict(zip(directions, pairs[: len(directions)], strict=True)), data, texts).mean(steps)
    drawn = [
        (share, *_tokens(direction, split, data))
        for share, direction, split in zip(shares, streams, train, strict=True)
        if share > 0
    ]
    source = sum(share * tokens for share, tokens, _ in drawn)
    target = sum(share * tokens for share, _, tokens in drawn)
    examples = steps * rows * max(1.0, _FILL * min(data.source_length / source, data.target_length / target))
    return [
        MixtureRow(direction, count, float(share), share * examples, share * examples / count if count else 0.0)
        for direction, count, share in zip(streams, pairs, shares, strict=True)
    ]


def _denoising_shares(texts: Shares, data: DataConfig) -> Shares:
    """Return the share of each denoising language from its number of texts: n^(1/T) times weights, or 0.

    Raises:
      UserError: a weight names a language that is not among data.denoise.languages.
    """
    config, languages = data.denoise, [direction.source for direction in denoising_directions(data)]
    weights = np.zeros(len(texts))
    there = texts > 0
    weights[there] = texts[there] ** (1 / (config.temperature or data.temperature))
    for weight in config.weights:
        language, _, factor = weight.rpartition("=")
        if (code := get(language).code) not in languages:
            raise UserError(f"data.denoise.weights: {language} is none of data.denoise.languages {','.join(languages)}")
        weights[languages.index(code)] *= float(factor)
    return weights / weights.sum() if weights.any() else weights


def _tokens(direction: Direction, split: SplitStats, data: DataConfig) -> tuple[float, float]:
    """Return the mean numbers of tokens of an example, source and target."""
    source, target = split.source_tokens / split.pairs, split.target_tokens / split.pairs
    if direction.denoises:
        # Statistics of a corpus that is not prepared yet count the text on one side only.
        target = target or source
        source = 1 + target * (1 - data.denoise.mask * (1 - min(1.0, 1 / data.denoise.span)))
    return source + SOURCE_EXTRA, target + TARGET_EXTRA
