"""Keeping protected spans: translations are checked, repaired, and where that does not do, searched for again."""

from collections.abc import Callable, Sequence
from typing import Generic, NamedTuple, TypeVar

from nmt.decode.steering.protected import Repair, repair_spans
from nmt.decode.steering.request import SentenceSteering, SteeringPlanner

_Found = TypeVar("_Found")


class KeptTranslation(NamedTuple, Generic[_Found]):
    """A translation whose spans were compared with those of its source."""

    found: _Found  # as the search returned it
    repair: Repair


def keep_protected(
    planner: SteeringPlanner,
    plans: Sequence[SentenceSteering],
    translations: Sequence[tuple[_Found, str]],
    search: Callable[[Sequence[int], Sequence[SentenceSteering]], Sequence[tuple[_Found, str]]],
) -> list[KeptTranslation[_Found]]:
    """Return translations that have the spans of their sources as far as possible.

    A translation that lacks a span, and in which none is recognised, is searched for once more with its spans forced,
    and the better of the two is taken.

    Args:
      planner: the request.
      plans: the steering of every source.
      translations: what was found for every source, and its text.
      search: translates the sources of some places with another steering.
    """
    find = planner.steering.protected.find
    results = [
        KeptTranslation(found, repair_spans(plan.spans, text, find))
        for plan, (found, text) in zip(plans, translations, strict=True)
    ]
    places = [place for place, result in enumerate(results) if result.repair.missing]
    if not places:
        return results
    forced = [planner.keep_spans(plans[place]) for place in places]
    for place, (found, text) in zip(places, search(places, forced), strict=True):
        again = KeptTranslation(found, repair_spans(plans[place].spans, text, find))
        results[place] = min(results[place], again, key=lambda one: (len(one.repair.missing), len(one.repair.surplus)))
    return results
