"""Sample translations out of an evaluation: source, reference and hypothesis side by side."""

from typing import NamedTuple

from etils import epath

from nmt.evaluate.sets import EvaluationSet
from nmt.languages import Direction


class SampleTranslation(NamedTuple):
    """One sentence of a test set and its translation."""

    direction: Direction
    source: str
    reference: str
    hypothesis: str


def hypotheses_file(folder: epath.Path, direction: Direction) -> epath.Path:
    """Return the file of a direction's translations, one a line, in an evaluation's folder."""
    return folder / "hypotheses" / f"{direction}.txt"


def read_samples(
    folder: epath.Path, chosen: EvaluationSet, direction: Direction, count: int
) -> list[SampleTranslation]:
    """Return `count` sentences (or all, if there are fewer) that stand at even distances in the test set.

    They are neither picked nor drawn: the same ones at every step, so that two reports can be compared.

    Args:
      folder: of the evaluation, `Matrix.folder`.
      chosen: the test set that was evaluated.
      direction: one that was evaluated.
      count: how many.

    Raises:
      UserError: the test set cannot be read.
    """
    pairs = chosen.read(direction)
    hypotheses = hypotheses_file(folder, direction).read_bytes().decode().split("\n")
    count = min(count, len(pairs))
    places = [(2 * i + 1) * len(pairs) // (2 * count) for i in range(count)]
    return [SampleTranslation(direction, *pairs[place][:2], hypotheses[place]) for place in places]
