"""Keeping spans: repaired, searched for again, or told of."""

from test_constraints import TABLE

from nmt.decode.steering.keeping import keep_protected
from nmt.decode.steering.request import Steering, SteeringPlanner


def kept(sources, translations, again):
    planner = SteeringPlanner(Steering(keep_pattern=r"a\.b|ba", protect=False), lambda: TABLE)
    plans = [planner.plan(source) for source in sources]
    asked = []

    def search(places, steerings):
        asked.extend(
            (place, [one.count for one in s.constraints.wanted]) for place, s in zip(places, steerings, strict=True)
        )
        return [(f"again {place}", again[place]) for place in places]

    found = [(f"first {i}", text) for i, text in enumerate(translations)]
    return keep_protected(planner, plans, found, search), asked


def test_only_translations_that_cannot_be_repaired_are_searched_for_again():
    sources = ["x a.b", "a.b", "a.b a.b ba", "ba", "none"]
    results, asked = kept(sources, ["a.b y", "A . B", "a.b", "a", "x"], {2: "ba a.b a.b", 3: "b"})
    assert asked == [(2, [2, 1]), (3, [1])]
    assert [result.found for result in results] == ["first 0", "first 1", "again 2", "first 3", "first 4"]
    assert [result.repair.text for result in results] == ["a.b y", "a.b", "ba a.b a.b", "a", "x"]
    assert [result.repair.missing for result in results] == [(), (), (), ("ba",), ()]
    assert [result.repair.changed for result in results] == [False, True, False, False, False]


def test_nothing_is_searched_for_where_nothing_is_kept():
    assert kept(["x", "y"], ["1", "2"], {})[1] == []
