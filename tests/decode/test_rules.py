"""Rules on logits and samples against plain Python, row by row: no models."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from nmt.decode.options import SearchOptions
from nmt.decode.rules import StepContext, adjust_logits, logit_rules, suppression_table
from nmt.decode.sampling import filter_logits, gumbel_noise, sampling_key, sampling_rules

ROWS, BEAM, STEPS, COLUMNS = 3, 4, 9, 8


@pytest.fixture(scope="module")
def context():
    """Rows at positions 0, 5 and 9, of four tokens that come again and again; what comes after them is arbitrary."""
    rng = np.random.default_rng(0)
    return StepContext(jnp.array([0, 5, 9]), jnp.asarray(rng.integers(0, 4, (ROWS, BEAM, STEPS)), jnp.int32))


@pytest.fixture(scope="module")
def logits():
    return jnp.asarray(np.random.default_rng(1).normal(size=(ROWS, BEAM, COLUMNS)), jnp.float32)


def histories(context):
    for row, position in enumerate(np.asarray(context.position)):
        for hypothesis in range(BEAM):
            yield row, hypothesis, np.asarray(context.tokens)[row, hypothesis, :position].tolist()


def expected(context, logits, rule):
    """Logits after a rule, a function of the tokens so far, a token and its logit."""
    result = np.array(logits)
    for row, hypothesis, history in histories(context):
        for token in range(COLUMNS):
            result[row, hypothesis, token] = rule(history, token, result[row, hypothesis, token])
    return result


def adjusted(context, logits, **given):
    return np.asarray(jax.jit(adjust_logits)(logit_rules(SearchOptions(**given)), context, logits))


def ngrams(tokens, size):
    return [tuple(tokens[i : i + size]) for i in range(len(tokens) - size + 1)]


@pytest.mark.parametrize("size", [1, 2, 3])
def test_no_ngram_comes_twice(context, logits, size):
    def rule(history, token, logit):
        added = ngrams([*history, token], size)
        return -np.inf if added and added[-1] in ngrams(history, size) else logit

    found = adjusted(context, logits, no_repeat_ngram=size)
    np.testing.assert_array_equal(found, expected(context, logits, rule))
    assert np.isinf(found[1:]).any()
    assert np.isfinite(found[0]).all()


def test_no_suppressed_sequence_is_completed(context, logits):
    sequences = ((5,), (1, 2), (3, 3, 0), tuple(range(12)))

    def rule(history, token, logit):
        ends = [tuple([*history, token][-len(sequence) :]) == sequence for sequence in sequences]
        return -np.inf if any(ends) else logit

    found = adjusted(context, logits, suppress=sequences)
    np.testing.assert_array_equal(found, expected(context, logits, rule))
    assert np.isinf(found[0]).sum() == BEAM  # of a row without tokens the single one alone
    assert np.isinf(found).sum() > ROWS * BEAM


def test_a_sequence_that_reaches_before_the_first_token_is_not_completed(logits):
    context = StepContext(jnp.array([1]), jnp.full((1, 1, STEPS), 2, jnp.int32))
    found = adjusted(context, logits[:1, :1], suppress=((2, 2, 3), (2, 4)))
    assert np.flatnonzero(np.isinf(found)).tolist() == [4]


def test_tables_of_suppressed_sequences_have_few_shapes():
    assert suppression_table([[1], [2, 3, 4], [5]]).shape == (4, 4)
    assert suppression_table([[7]]).tolist() == [[7]]
    with pytest.raises(ValueError, match="must be token ids"):
        logit_rules(SearchOptions(suppress=("word",)))


@pytest.mark.parametrize("penalty", [1.3, 0.8])
def test_repeated_tokens_are_penalised_once(context, logits, penalty):
    def rule(history, token, logit):
        factor = np.float32(1 / penalty if logit > 0 else penalty)
        return logit * factor if token in history else logit

    found = adjusted(context, logits, repetition_penalty=penalty)
    np.testing.assert_allclose(found, expected(context, logits, rule), rtol=1e-6)
    assert not np.array_equal(found, logits)


def test_default_options_have_no_rules(context, logits):
    rules = logit_rules(SearchOptions())
    assert rules.empty
    assert jax.tree.leaves(rules) == []
    assert adjust_logits(rules, context, logits) is logits
    assert sampling_rules(SearchOptions()) is None


def kept(logits, **given):
    return np.isfinite(filter_logits(sampling_rules(SearchOptions(sampling=True, **given)), jnp.asarray(logits)))


def log_of(*probabilities):
    return np.log(np.array([[probabilities]], np.float32))


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({}, [1, 1, 1, 1]),
        ({"top_k": 2}, [0, 1, 1, 0]),
        ({"top_k": 9}, [1, 1, 1, 1]),
        ({"top_p": 0.3}, [0, 1, 0, 0]),
        ({"top_p": 0.6}, [0, 1, 1, 0]),
        ({"top_p": 0.96}, [1, 1, 1, 1]),
        ({"top_p": 1e-6}, [0, 1, 0, 0]),
        ({"epsilon": 0.06}, [1, 1, 1, 0]),
        ({"epsilon": 0.9}, [0, 1, 0, 0]),
        ({"top_k": 2, "top_p": 0.6}, [0, 1, 0, 0]),  # 0.5 of the 0.8 that are left are more than 0.6
        ({"temperature": 0.1, "epsilon": 0.06}, [0, 1, 0, 0]),
        ({"temperature": 10.0, "epsilon": 0.06}, [1, 1, 1, 1]),
    ],
)
def test_filters_keep_the_tokens_that_they_are_defined_by(given, expected):
    np.testing.assert_array_equal(kept(log_of(0.15, 0.5, 0.3, 0.05), **given)[0, 0], np.array(expected, bool))


def test_equal_tokens_stay_or_go_together_and_forbidden_ones_stay_out():
    assert kept(log_of(0.25, 0.25, 0.25, 0.25), top_k=1).sum() == 4
    assert kept(log_of(0.25, 0.25, 0.25, 0.25), top_p=0.3).sum() == 4
    forbidden = np.array([[[0.0, -np.inf, 0.0]]], np.float32)
    assert not kept(forbidden, top_p=0.999, epsilon=0.001)[0, 0, 1]


@pytest.mark.parametrize("seed", range(3))
def test_a_nucleus_is_the_smallest_that_suffices(seed):
    logits = np.random.default_rng(seed).normal(size=(2, 3, 500)).astype(np.float32) * 3
    found = kept(logits, top_p=0.8)
    probability = np.exp(logits) / np.exp(logits).sum(axis=-1, keepdims=True)
    for row in np.ndindex(2, 3):
        chosen = np.sort(probability[row][found[row]])
        assert chosen.sum() >= 0.8 - 1e-5
        assert chosen[1:].sum() < 0.8 + 1e-5
        assert chosen[0] > probability[row][~found[row]].max()


def test_noise_depends_on_seed_sentence_sample_and_position_alone():
    keys = np.stack([sampling_key(0, [4, 5]), sampling_key(0, [5, 4]), sampling_key(1, [4, 5])])
    noise = np.asarray(gumbel_noise(keys, jnp.array([0, 0, 0]), 3, COLUMNS))
    assert len({row.tobytes() for row in noise.reshape(-1, COLUMNS)}) == 9
    moved = np.asarray(gumbel_noise(keys[::-1], jnp.array([0, 0, 1]), 2, COLUMNS))
    np.testing.assert_array_equal(moved[0], noise[2, :2])
    np.testing.assert_array_equal(moved[1], noise[1, :2])
    assert not np.array_equal(moved[2], noise[0, :2])


def test_noise_draws_tokens_as_often_as_is_probable():
    logits = log_of(0.1, 0.6, 0.3)
    noise = gumbel_noise(np.tile(sampling_key(7, [1, 2]), (1000, 1)), jnp.arange(1000), 4, 3)
    share = np.bincount(np.asarray(logits + noise).argmax(axis=-1).ravel(), minlength=3) / 4000
    np.testing.assert_allclose(share, [0.1, 0.6, 0.3], atol=0.03)
