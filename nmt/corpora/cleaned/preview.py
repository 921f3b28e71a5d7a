"""Samples of a cleaned corpus for a person to judge by, and the reasons why there are none."""

from collections import Counter
from collections.abc import Iterable
from itertools import islice

from nmt.corpora.clean import Reason
from nmt.corpora.cleaned.corpus import Corpus
from nmt.corpora.cleaned.records import TextPair
from nmt.corpora.declare.spec_split import Split
from nmt.corpora.wording import count_phrase
from nmt.errors import UserError
from nmt.languages import Direction


def largest_directions(corpus: Corpus, rejected: str | None = None, most: int = 5) -> list[Direction]:
    """Return the directions with the most kept pairs, or the most pairs rejected for a reason, of those with any."""
    counts = {
        direction: sum(size.pairs for size in sizes.values())
        if rejected is None
        else _count_rejected(corpus, direction, rejected)
        for direction, sizes in corpus.sizes.items()
    }
    return sorted((one for one in counts if counts[one]), key=lambda one: -counts[one])[:most]


def explain_nothing(corpus: Corpus, name: str, rejected: str | None) -> str:
    """Return the message that there are no samples, with the reasons for which pairs of the corpus were rejected."""
    reasons = sum(corpus.rejections.values(), Counter())
    if rejected is None:
        return f"no pair of {name} is kept: {_why_none(reasons)}"
    return f"no pair of {name} was rejected as {rejected!r}; reasons that occur: {_reasons(reasons)}"


def check_kept(corpus: Corpus, name: str) -> None:
    """Raise UserError, with the reasons, if no pair of a corpus is kept."""
    if not largest_directions(corpus):
        raise UserError(explain_nothing(corpus, name, None))


def check_split(corpus: Corpus, direction: Direction, split: Split) -> None:
    """Raise UserError if a split of a direction is empty; the message names other splits, or the reasons for it."""
    if corpus.pairs[direction][split]:
        return
    others = {other: len(pairs) for other, pairs in corpus.pairs[direction].items() if pairs}
    if not others:
        raise UserError(f"no pair of {direction} is kept: {_why_none(corpus.rejections[direction])}")
    have = ", ".join(f"{count_phrase(count, 'pair')} (--split {other})" for other, count in others.items())
    raise UserError(f"no pair of {direction} is in the {split} split; there are {have}")


def _why_none(reasons: Counter[Reason]) -> str:
    return ", ".join(f"{count:,} {reason}" for reason, count in reasons.most_common()) or "none could be read"


def _reasons(reasons: Iterable[Reason]) -> str:
    return ", ".join(reasons) or "no pair was rejected at all"


def _count_rejected(corpus: Corpus, direction: Direction, reason: str) -> int:
    return corpus.rejections[direction][Reason(reason)] if reason in set(Reason) else 0


def sample_pairs(corpus: Corpus, direction: Direction, count: int, rejected: str | None = None) -> list[TextPair]:
    """Return some pairs of a direction: spread evenly over its first split that is not empty, or rejected for a reason.

    Raises:
      UserError: there are none; the message names the reasons that occur.
    """
    if rejected is None:
        if not (pairs := next(filter(None, corpus.pairs[direction].values()), None)):
            raise UserError(f"no pair of {direction} is kept: {_why_none(corpus.rejections[direction])}")
        step = max(1, len(pairs) // max(1, count))
        return list(islice(pairs, 0, step * count, step))
    found = corpus.samples[direction]
    if rejected not in found:
        raise UserError(f"no pair of {direction} was rejected as {rejected!r}; reasons that occur: {_reasons(found)}")
    return found[Reason(rejected)][:count]
