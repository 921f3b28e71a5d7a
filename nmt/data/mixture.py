"""The mixture: how often each direction is drawn, and what that means in examples and epochs."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from nmt.config import DataConfig
from nmt.data.store import SOURCE_EXTRA, TARGET_EXTRA, Stats
from nmt.errors import UserError
from nmt.languages import Direction

# Share of the slots that first-fit packing fills on the side that fills first (measured on short sentences).
_FILL = 0.96


@dataclass(frozen=True)
class MixtureRow:
    """One direction of the mixing table.

    Attributes:
      pairs: training pairs.
      share: probability of being drawn.
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


def mixing_table(
    stats: Stats, directions: Sequence[Direction], data: DataConfig, rows: int, steps: int
) -> list[MixtureRow]:
    """Return what a run of `steps` batches of `rows` rows draws from every direction.

    Pairs in a batch are estimated from the mean number of tokens of a pair and the usual fill of packed rows.
    """
    train = {direction: stats.direction(direction).splits["train"] for direction in directions}
    shares = probabilities({direction: split.pairs for direction, split in train.items()}, data.temperature)
    source = sum(share * (train[d].source_tokens / train[d].pairs + SOURCE_EXTRA) for d, share in shares.items())
    target = sum(share * (train[d].target_tokens / train[d].pairs + TARGET_EXTRA) for d, share in shares.items())
    drawn = steps * rows * max(1.0, _FILL * min(data.source_length / source, data.target_length / target))
    table = []
    for direction, split in train.items():
        examples = shares.get(direction, 0.0) * drawn
        epochs = examples / split.pairs if split.pairs else 0.0
        table.append(MixtureRow(direction, split.pairs, shares.get(direction, 0.0), examples, epochs))
    return table
