"""Runs without held-out text train like others, but nothing is measured: a note says so before training."""

from collections.abc import Sequence

from nmt.config import Recipe
from nmt.corpora.declare.spec_split import Split
from nmt.data.store import Stats
from nmt.errors import UserError
from nmt.train.curriculum import Curriculum

_HOW = "`split` in the declaration of a corpus says how much is held out"


def has_text(stats: Stats, split: Split, names: Sequence[str] | None = None) -> bool:
    """Return whether any direction has pairs in a split.

    Args:
      stats: the statistics of the prepared store.
      split: `dev` or `test`.
      names: the directions that count, such as `["de-en"]`; None: all.
    """
    chosen = [one for name, one in stats.directions.items() if names is None or name in names]
    return any(one.splits[split].pairs for one in chosen if split in one.splits)


def note_missing(recipe: Recipe, stats: Stats) -> list[str]:
    """Return a line for each measurement that a run will lack for want of held-out text."""
    notes = []
    if not has_text(stats, "dev"):
        notes.append(f"there is no development text, so there will be no development loss; {_HOW}")
    split = recipe.evaluate.split
    if not has_text(stats, split):
        other: Split = "dev" if split == "test" else "test"
        instead = f"; evaluate.split={other} takes what there is" if has_text(stats, other) else ""
        notes.append(f"there is no {split} text, so nothing will be evaluated{instead or f'; {_HOW}'}")
    return notes


def check_stages(curriculum: Curriculum, stats: Stats) -> None:
    """Check that every stage but the last can end.

    Raises:
      UserError: one ends by its patience alone, and none of its directions has development text.
    """
    stages = curriculum.data.mixture.stages
    for number, (stage, members) in enumerate(zip(stages[:-1], curriculum.members, strict=False), start=1):
        if stage.steps is None and not has_text(stats, "dev", members):
            raise UserError(
                f"stage {number} of data.mixture.stages ends by its patience, and {', '.join(members)} have no "
                "development text, so that it would never end: give it steps, or hold text out"
            )
