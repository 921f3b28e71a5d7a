"""Requests for steering: what they mean for a text, and every mistake in one line."""

import pytest
from test_constraints import TABLE, text_of

from nmt.decode.steering.glossary import Glossary
from nmt.decode.steering.request import Steering, SteeringPlanner
from nmt.errors import UserError


def glossary(*lines):
    return Glossary.parse([line.encode() for line in lines], "terms.tsv")


def phrases(constraint):
    """The texts that meet a constraint, by the shortest way to write them."""
    found = set()
    for lattice in constraint.phrases:
        place, text = 0, ""
        while place != lattice.length:
            edge = max(edge for edge in lattice.edges if edge.source == place and edge.target > place)
            place, text = edge.target, text + text_of([edge.token])
        found.add(text)
    return found


def test_terms_forced_phrases_and_a_prefix_are_planned():
    steering = Steering(
        prefix="a.b ", glossary=glossary("x\tab|ba", "y z\ta b"), force=["b|a*"], forbid=["aba"], phrase_bonus=2.0
    )
    planner = SteeringPlanner(steering, lambda: TABLE)
    plan = planner.plan("An x, x and Y z.")
    assert [phrases(one) for one in plan.constraints.wanted] == [{"b", "a"}, {"ab", "ba"}, {"a b"}]
    assert all(one.required and one.count == 1 for one in plan.constraints.wanted)
    assert (text_of(plan.prefix.tokens), plan.prefix.rest) == (" a.b", b" ")
    assert plan.constraints.bonus == 2.0
    assert len(plan.constraints.forbidden) == 1
    rest = planner.plan("An x.", first=False)
    assert [phrases(one) for one in rest.constraints.wanted] == [{"ab", "ba"}]
    assert not rest.prefix
    assert plan.room >= 6
    other = planner.plan("An x.", prefix="b")
    assert (other.prefix.tokens, other.prefix.rest) == ((), b" b")
    assert not planner.plan("An x.", prefix="").prefix


def test_terms_may_be_preferred_only():
    steering = Steering(glossary=glossary("x\tab"), glossary_mode="prefer")
    plan = SteeringPlanner(steering, lambda: TABLE).plan("x")
    assert [one.required for one in plan.constraints.wanted] == [False]
    assert plan.room == 0


def test_spans_are_kept_and_no_terms_are_found_in_them():
    steering = Steering(glossary=glossary("b\tba"), keep=["b a"], keep_pattern=r"a\.b")
    planner = SteeringPlanner(steering, lambda: TABLE)
    plan = planner.plan("b a, a.b and a.b {é}")
    assert [span.text for span in plan.spans] == ["b a", "a.b", "a.b", "{é}"]
    assert not plan.constraints
    kept = planner.keep_spans(plan).constraints.wanted
    assert [(phrases(one), one.count) for one in kept] == [({"b a"}, 1), ({"a.b"}, 2)]  # braces cannot be written


def test_what_a_span_has_is_not_forbidden():
    planner = SteeringPlanner(Steering(forbid=["b"], keep=["a b"]), lambda: TABLE)
    plan = planner.plan("a b")
    assert plan.constraints.forbidden
    assert not planner.keep_spans(plan).constraints.forbidden


def test_alternatives_with_a_forbidden_phrase_are_left_out():
    planner = SteeringPlanner(Steering(glossary=glossary("x\tab|a b"), forbid=["b"]), lambda: TABLE)
    assert [phrases(one) for one in planner.plan("x").constraints.wanted] == [{"ab"}]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"prefix_bias_beta": 1.0, "prefix": "a"}, "prefix_bias_beta must be at least 0 and below 1 (not 1.0)"),
        ({"phrase_bonus": -1.0}, "phrase_bonus must be at least 0 (not -1.0)"),
        ({"phrase_bonus": float("nan")}, "phrase_bonus must be at least 0 (not nan)"),
        ({"glossary_mode": "must"}, "glossary_mode must be force or prefer (not 'must')"),
        ({"force": ["a", " "]}, "force has an empty phrase: ' '"),
        ({"forbid": ["a|"]}, "forbid has an empty phrase: 'a|'"),
        ({"keep": [""]}, "keep has an empty term"),
        ({"keep": "ACME"}, "keep must be a sequence of phrases, not one text"),
        ({"keep_pattern": "["}, "'[' is not a regular expression"),
    ],
)
def test_mistakes_are_one_line(options, message):
    with pytest.raises(UserError) as error:
        Steering(**options)
    assert str(error.value).startswith(message)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"force": ["a", "!"]}, "the vocabulary cannot write '!'"),
        ({"prefix": "!"}, "the vocabulary cannot write '!'"),
        ({"forbid": ["?"]}, "the vocabulary cannot write '?'"),
        ({"glossary": glossary("y\ta", "x\tab!")}, "terms.tsv line 2: the vocabulary cannot write 'ab!'"),
        ({"force": ["a b"], "forbid": ["b"]}, "'a b' is wanted, but 'b' is forbidden"),
        ({"glossary": glossary("x\tab"), "forbid": ["ab"]}, "terms.tsv line 1: 'ab' is wanted, but 'ab' is forbidden"),
    ],
)
def test_phrases_that_are_impossible_are_one_line(options, message):
    with pytest.raises(UserError) as error:
        SteeringPlanner(Steering(**options), lambda: TABLE)
    assert str(error.value).startswith(message)
