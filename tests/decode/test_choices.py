"""Extensions under rules, of diverse groups, of samples and of alternatives, against plain loops: no models."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from nmt.decode.choices import Hypotheses, Permission, RowChoice, choice_rules, choose_extensions
from nmt.decode.options import SearchOptions
from nmt.decode.rules import StepContext
from nmt.decode.sampling import gumbel_noise, sampling_key
from nmt.decode.selection import COLUMNS, best_extensions

ROWS, BEAM, STEPS, VOCABULARY, END = 3, 4, 5, 9, 2
ALLOWED = np.arange(VOCABULARY) != 1
choose = jax.jit(choose_extensions)


@pytest.fixture(scope="module")
def logits():
    rng = np.random.default_rng(0)
    logits = rng.normal(size=(ROWS, BEAM, COLUMNS)).astype(np.float32)
    logits[..., VOCABULARY:] = 50  # meaningless, so it must not matter
    return logits


def log_softmax(logits):
    known = logits[..., :VOCABULARY].astype(np.float64)
    return known - np.log(np.exp(known).sum(axis=-1, keepdims=True))


def live(position=(1, 2, 3)):
    rng = np.random.default_rng(1)
    score = -rng.random((ROWS, BEAM)).astype(np.float32) * 3
    score[0, 1] = -np.inf
    tokens = rng.integers(3, VOCABULARY, (ROWS, BEAM, STEPS)).astype(np.int32)
    context = StepContext(jnp.array(position), jnp.asarray(tokens))
    return Hypotheses(context, jnp.asarray(score), jnp.asarray(score - 1))


def beginning():
    """Hypotheses without a token, which are all the same."""
    hypotheses = live((0, 0, 0))
    return replace(hypotheses, score=jnp.zeros((ROWS, BEAM)), log_probability=jnp.zeros((ROWS, BEAM)))


def permission(may_end=True, may_go_on=True):
    ends, goes_on = (jnp.full(ROWS, value) for value in (may_end, may_go_on))
    return Permission(jnp.asarray(ALLOWED), jnp.int32(END), ends, goes_on)


def found(options, hypotheses, logits, row=None, allowed=None):
    rules = choice_rules(SearchOptions(**options))
    result = choose(rules, row or RowChoice(), hypotheses, jnp.asarray(logits), allowed or permission())
    return tuple(np.asarray(part) for part in (result.score, result.log_probability, result.parent, result.token))


def assert_log_probabilities(result, hypotheses, logits):
    """The log probability is the model's own, whatever was chosen by."""
    score, own, parent, token = result
    rows = np.arange(ROWS)[:, None]
    expected = np.asarray(hypotheses.log_probability)[rows, parent] + log_softmax(logits)[rows, parent, token]
    np.testing.assert_allclose(own, np.where(score > -np.inf, expected, -np.inf), rtol=1e-5)


def test_without_rules_the_best_are_chosen(logits):
    hypotheses = live()
    may = jnp.ones(ROWS, bool)
    best = best_extensions(logits, hypotheses.score, jnp.asarray(ALLOWED), jnp.int32(END), may, may)
    for one, other in zip(found({}, hypotheses, logits), (best[0], *best), strict=True):
        np.testing.assert_array_equal(one, other)


def test_a_rule_forbids_tokens_at_no_cost_of_the_others(logits):
    hypotheses = live()
    result = found({"suppress": ((4,), (5,), (END,))}, hypotheses, logits)
    assert not {4, 5} & set(result[3].ravel())
    # Probabilities are those of all tokens: what is forbidden is not shared among the rest; an end is not forbidden.
    np.testing.assert_allclose(result[0], result[1] + 1, rtol=1e-5)
    assert_log_probabilities(result, hypotheses, logits)


def test_penalties_lower_the_score_and_not_the_log_probability(logits):
    hypotheses = live()
    result = found({"repetition_penalty": 3.0}, hypotheses, logits)
    assert_log_probabilities(result, hypotheses, logits)
    score, own, parent, token = result
    tokens = np.asarray(hypotheses.context.tokens)
    for row, hypothesis in np.ndindex(ROWS, BEAM):
        logit = logits[row, parent[row, hypothesis], token[row, hypothesis]]
        seen = token[row, hypothesis] in tokens[row, parent[row, hypothesis], : row + 1]
        loss = (logit - logit / 3 if logit > 0 else -2 * logit) if seen else 0
        np.testing.assert_allclose(own[row, hypothesis] + 1 - score[row, hypothesis], loss, atol=1e-5)


def test_where_rules_leave_no_token_a_hypothesis_may_end(logits):
    everything = {"suppress": tuple((token,) for token in range(VOCABULARY))}
    score, _, _, token = found(everything, live(), logits, allowed=permission(may_end=False))
    assert (token[score > -np.inf] == END).all()
    assert (score > -np.inf).sum() == ROWS * BEAM - 1


@pytest.mark.parametrize("begins", [True, False])
def test_groups_choose_one_after_the_other(logits, begins):
    hypotheses = beginning() if begins else live()
    logits = np.repeat(logits[:, :1], BEAM, axis=1) if begins else logits
    result = found({"beam": BEAM, "beam_groups": 2, "diversity": 0.7}, hypotheses, logits)
    table, score = log_softmax(logits), np.asarray(hypotheses.score, np.float64)
    for row in range(ROWS):
        taken = np.zeros(VOCABULARY)
        for group in range(2):
            members = [2 * group] if begins else [2 * group, 2 * group + 1]
            extensions = [
                (score[row, parent] + table[row, parent, token], parent, token)
                for parent in members
                for token in np.flatnonzero(ALLOWED)
            ]
            best = sorted(extensions, key=lambda one: 0.7 * taken[one[2]] - one[0])[:2]
            for place, (expected, parent, token) in zip((2 * group, 2 * group + 1), best, strict=True):
                assert (result[2][row, place], result[3][row, place]) == (parent, token)
                np.testing.assert_allclose(result[0][row, place], expected, rtol=1e-5)
                taken[token] += 1
    assert_log_probabilities(result, hypotheses, logits)


@pytest.mark.parametrize("begins", [True, False])
def test_samples_go_on_by_themselves(logits, begins):
    hypotheses = beginning() if begins else live()
    logits = np.repeat(logits[:, :1], BEAM, axis=1) if begins else logits
    row = RowChoice(key=jnp.asarray(np.stack([sampling_key(5, [number]) for number in range(ROWS)])))
    result = found({"sampling": True, "hypotheses": BEAM, "top_k": 3}, hypotheses, logits, row)
    noise = np.asarray(gumbel_noise(row.key, hypotheses.context.position, BEAM, COLUMNS))
    table = np.where(ALLOWED, log_softmax(logits), -np.inf)
    for place in np.ndindex(ROWS, BEAM):
        chances = table[place]
        likely = np.argsort(-chances)[:3]
        assert result[2][place] == place[1]
        assert result[3][place] == likely[np.argmax(chances[likely] + noise[place][likely])]
    assert_log_probabilities(result, hypotheses, logits)
    only_end = found({"sampling": True}, hypotheses, logits, row, permission(may_go_on=False))
    assert set(only_end[3].ravel()) == {END}


def test_alternatives_differ_at_their_position_and_are_greedy_elsewhere(logits):
    hypotheses = live()
    table = np.where(ALLOWED, log_softmax(logits), -np.inf)
    row = RowChoice(alternatives=jnp.array([9, 2, 0]))
    least = {"alternatives": 0, "hypotheses": BEAM, "min_alternative_probability": 0.2}
    score, _, parent, token = result = found(least, hypotheses, logits, row)
    for at in (0, 2):
        assert parent[at].tolist() == list(range(BEAM))
        assert token[at].tolist() == table[at].argmax(axis=-1).tolist()
    best = np.asarray(hypotheses.score)[1][:, None] + table[1]
    assert score[1, 0] == pytest.approx(best.max())
    probable = score[1] > -np.inf
    assert 0 < probable.sum() < BEAM
    assert all(table[1, parent[1, i], token[1, i]] >= np.log(0.2) or i == 0 for i in np.flatnonzero(probable))
    assert_log_probabilities(result, hypotheses, logits)
    same, options = np.repeat(logits[:, :1], BEAM, axis=1), {"alternatives": 0, "hypotheses": BEAM}
    first = found(options, beginning(), same, RowChoice(alternatives=jnp.zeros(3, int)))
    np.testing.assert_array_equal(first[3], np.argsort(-table[:, 0], axis=-1)[:, :BEAM])
