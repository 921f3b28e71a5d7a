"""Specialisation of experts by direction: one number a layer, with the direction that stands out most."""

import math
from dataclasses import dataclass

import numpy as np

from nmt.train.usage import Usage


@dataclass(frozen=True)
class Specialisation:
    """Mutual information of direction and expert in one layer, with the direction that stands out most."""

    stack: str
    layer: int
    information: float  # bits, see `mutual_information`
    possible: float  # bits, the most that there could be: the lesser of the entropies of directions and of experts
    direction: str  # its use of experts differs most from that of all together; "" if there are no tokens
    expert: int  # the one that makes the most of that difference
    share: float  # of the direction's tokens that go to this expert
    overall: float  # of all tokens that go to it


def mutual_information(counts: np.ndarray) -> float:
    """Return the mutual information of row and column in bits, corrected for its bias in a finite sample.

    I = sum_de p_de log2 (p_de / (p_d p_e)), which is also the mean over tokens of the divergence of their direction's
    use of experts from that of all. From N tokens it comes out too high by (L-1)(E-1) / (2 N ln 2) bits on average
    (Miller 1955), with L directions and E experts that have tokens; this is subtracted, and the result is not below 0.

    Args:
      counts: [L,E], tokens of each direction sent to each expert.
    """
    total = counts.sum()
    if not total:
        return 0.0
    information = float(_divergences(counts) @ (counts.sum(axis=1) / total))
    rows, columns = ((counts.sum(axis=axis) > 0).sum() for axis in (1, 0))
    return max(0.0, information - (rows - 1) * (columns - 1) / (2 * total * math.log(2)))


def specialisations(usage: Usage) -> list[Specialisation]:
    """Return one entry a sparse layer, in the order of the stacks."""
    return [
        _specialisation(stack, layer, table, usage.directions)
        for stack, counts in usage.counts.items()
        for layer, table in zip(usage.layers[stack], counts, strict=True)
    ]


def _specialisation(stack: str, layer: int, counts: np.ndarray, directions: tuple[str, ...]) -> Specialisation:
    overall = _shares(counts.sum(axis=0))
    possible = min(_entropy(overall), _entropy(_shares(counts.sum(axis=1))))
    information = mutual_information(counts)
    if not counts.any():
        return Specialisation(stack, layer, information, possible, "", 0, 0.0, 0.0)
    row = int(_divergences(counts).argmax())
    own = _shares(counts[row])
    expert = int(_terms(own, overall).argmax())
    return Specialisation(
        stack, layer, information, possible, directions[row], expert, float(own[expert]), float(overall[expert])
    )


def _shares(counts: np.ndarray) -> np.ndarray:
    return counts / max(counts.sum(), 1)


def _entropy(shares: np.ndarray) -> float:
    return float(-(shares * np.log2(shares, out=np.zeros_like(shares), where=shares > 0)).sum())


def _terms(own: np.ndarray, overall: np.ndarray) -> np.ndarray:
    """Return p log2 (p / q) of two distributions [E], 0 where p is 0."""
    return own * np.log2(np.divide(own, overall, out=np.ones_like(own), where=own > 0))


def _divergences(counts: np.ndarray) -> np.ndarray:
    """Return the divergence [L] in bits of each row of counts [L,E] from all rows together; 0 without tokens."""
    overall = _shares(counts.sum(axis=0))
    return np.array([_terms(_shares(row), overall).sum() for row in counts])
