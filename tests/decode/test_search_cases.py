"""Options of a search on a tiny model: the cases that CTranslate2's tests name, and what results depend on."""

from functools import cache

import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from toy_model import model_config, weights

from nmt.config import DecodeConfig, VocabularySizes
from nmt.decode.beam import coverage_score
from nmt.decode.options import SearchOptions
from nmt.decode.requests import SpecialTokens
from nmt.decode.search import Searcher
from nmt.sharding import make_layout

VOCABULARY, BEGIN, END, UNKNOWN, TAG = 12, 1, 2, 3, 4
SOURCES = [[TAG, *pieces, END] for pieces in ([5, 9, 7], [8], [11, 6, 6, 10, 5, 9], [7, 7])]
N_BEST = {"beam": 4, "hypotheses": 4}
SAMPLES = {"sampling": True, "hypotheses": 3, "temperature": 1.5, "top_p": 0.95}


@cache
def searcher():
    config = model_config(encoder_layers=1, decoder_layers=1, width=8, hidden=8, head_width=4, moe=None)
    model = nnx.merge(*weights(config, VocabularySizes.shared(VOCABULARY), seed=4))
    tokens = SpecialTokens(BEGIN, END, frozenset({0, UNKNOWN, TAG}), UNKNOWN)
    decode = DecodeConfig(max_length_ratio=1.0, max_length_extra=6, batch_tokens=64)
    return Searcher(model, tokens, 16, decode, make_layout())


def search(sources=SOURCES, **given):
    return searcher().search(sources, options=SearchOptions.from_config(searcher().config, **given))


@cache
def found(**given):
    return search(**given)


def best(**given):
    return [hypotheses[0].tokens for hypotheses in found(**given)]


def tokens_of(hypotheses):
    return [[one.tokens for one in line] for line in hypotheses]


def ngrams(tokens, size):
    return [tuple(tokens[i : i + size]) for i in range(len(tokens) - size + 1)]


def repeats(hypotheses):
    return sum(len(tokens) - len(set(tokens)) for line in tokens_of(hypotheses) for tokens in line)


def assert_reported_as_read(hypotheses):
    """The log probability that is reported is the model's own, whatever the search went by."""
    for line, source in zip(hypotheses, SOURCES, strict=True):
        read = searcher().score([source] * len(line), [one.tokens for one in line])
        assert [one.log_probability for one in line] == pytest.approx(read, rel=1e-4)


def test_set_max_decoding_length():
    assert max(map(len, best(**N_BEST))) > 3
    assert {len(tokens) for tokens in best(max_length=3, **N_BEST)} <= {1, 2, 3}
    assert max(len(tokens) for tokens in best(max_length_ratio=0.01, max_length_extra=2, **N_BEST)) <= 2


def test_set_min_decoding_length():
    assert min(map(len, best(length_penalty=0.0, **N_BEST))) < 4
    assert min(map(len, best(length_penalty=0.0, min_length=4, **N_BEST))) >= 4
    lengths = [len(tokens) for tokens in best(length_penalty=0.0, min_length_ratio=1.5, **N_BEST)]
    assert all(length >= 1.5 * (len(source) - 2) for length, source in zip(lengths, SOURCES, strict=True))


@pytest.mark.parametrize("normalisation", ["gnmt", "length", "none"])
def test_return_all_hypotheses_with_normalize_scores(normalisation):
    for hypotheses in found(normalisation=normalisation, length_penalty=1.0, **N_BEST):
        assert len(hypotheses) == 4 == len({tuple(one.tokens) for one in hypotheses})
        for one in hypotheses:
            length = len(one.tokens) + 1
            divisor = {"gnmt": (5 + length) / 6, "length": length, "none": 1}[normalisation]
            assert one.score == pytest.approx(one.log_probability / divisor, rel=1e-5)
        assert [one.score for one in hypotheses] == sorted((one.score for one in hypotheses), reverse=True)


def test_early_stopping_changes_nothing():
    for given in (N_BEST, {"length_penalty": 2.0, **N_BEST}, {"normalisation": "length", **N_BEST}):
        assert search(early_stopping=False, **given) == search(**given)


def test_patience():
    exact = found(length_penalty=2.0, **N_BEST)
    assert search(length_penalty=2.0, patience=50.0, **N_BEST) == exact
    hurried = search(length_penalty=2.0, patience=0.25, **N_BEST)
    assert hurried != exact
    assert all(one[0].score <= other[0].score for one, other in zip(hurried, exact, strict=True))


def test_same_beam_and_greedy_score():
    greedy = found(beam=1)
    assert_reported_as_read(greedy)
    assert tokens_of(search(sampling=True, temperature=1e-4)) == tokens_of(greedy)


def test_beam_size_larger_than_vocab_size():
    for line in search(beam=20, hypotheses=20, max_length=2):
        assert len({tuple(one.tokens) for one in line}) == len(line) > VOCABULARY
        assert all(1 <= len(one.tokens) <= 2 for one in line)


def test_suppress_sequences_and_those_out_of_the_vocabulary():
    plain = best(**N_BEST)
    pair = next(pair for tokens in plain for pair in ngrams(tokens, 2))
    suppressed = found(suppress=(pair, (plain[1][0],), (999,), (8, 999)), **N_BEST)
    for line in suppressed:
        assert not any(pair in ngrams(one.tokens, 2) or plain[1][0] in one.tokens for one in line)
    assert_reported_as_read(suppressed)


def test_no_repeat_ngram():
    assert any(len(set(tokens)) < len(tokens) for tokens in best(min_length=6, **N_BEST))
    for hypotheses in found(no_repeat_ngram=1, min_length=6, **N_BEST):
        assert all(len(set(one.tokens)) == len(one.tokens) for one in hypotheses)


def test_repetition_penalty():
    plain, penalised = (found(min_length=6, repetition_penalty=penalty, **N_BEST) for penalty in (1.0, 50.0))
    repeats = [
        sum(len(one.tokens) - len(set(one.tokens)) for line in lines for one in line) for lines in (plain, penalised)
    ]
    assert repeats[1] < repeats[0]
    assert_reported_as_read(penalised)


def test_unknown_tokens_come_where_they_are_allowed():
    for unknown in ("never", "allowed"):
        everything = [one.tokens for line in found(**N_BEST, unknown=unknown) for one in line]
        assert any(UNKNOWN in tokens for tokens in everything) == (unknown == "allowed")


@pytest.mark.parametrize("position", [0, 2])
def test_alternatives_from_scratch_and_from_a_prefix(position):
    greedy = best(beam=1)
    for line, usual in zip(found(alternatives=position, hypotheses=3, min_length=4), greedy, strict=True):
        assert len({tuple(one.tokens[: position + 1]) for one in line}) == 3
        assert {tuple(one.tokens[:position]) for one in line} == {tuple(usual[:position])} or len(usual) < position
        assert [one.score for one in line] == sorted((one.score for one in line), reverse=True)


def test_groups_of_a_diverse_beam_differ():
    plain, diverse = (found(**N_BEST, beam_groups=groups, diversity=3.0) for groups in (1, 4))
    firsts = [sum(len({one.tokens[0] for one in line}) for line in lines) for lines in (plain, diverse)]
    assert firsts[1] > firsts[0]
    assert_reported_as_read(diverse)


def test_a_coverage_penalty_prefers_what_attends_to_the_whole_source():
    plain, covered = (found(coverage_penalty=weight, **N_BEST) for weight in (0.0, 5.0))
    assert tokens_of(plain) != tokens_of(covered)
    lengths = [sum(len(line[0].tokens) for line in lines) for lines in (plain, covered)]
    assert lengths[1] >= lengths[0]  # more tokens attend to more
    assert_reported_as_read(covered)
    assert search(coverage_penalty=5.0, early_stopping=False, **N_BEST) == covered


def test_coverage_counts_source_tokens_up_to_one_and_no_padding():
    coverage = jnp.array([[[0.5, 2.0, 0.25, 0.0], [1.0, 1.0, 1.0, 0.0]]])
    score = coverage_score(coverage, jnp.array([3]))
    np.testing.assert_allclose(score, [[np.log(0.5 * 0.25), 0.0]], rtol=1e-6)


def test_samples_depend_on_the_sentence_and_the_seed():
    drawn = found(**SAMPLES)
    assert search(**SAMPLES) == drawn
    assert search(**SAMPLES, seed=1) != drawn
    more = tokens_of(search(**SAMPLES | {"hypotheses": 6}))
    assert all(tokens in many for few, many in zip(tokens_of(drawn), more, strict=True) for tokens in few)
    assert_reported_as_read(drawn)


@pytest.mark.parametrize(
    "given",
    [
        {"no_repeat_ngram": 1, "min_length": 6, **N_BEST},
        {"alternatives": 0, "hypotheses": 3, "min_length": 4},
        {"beam_groups": 4, "diversity": 3.0, **N_BEST},
        {"coverage_penalty": 5.0, **N_BEST},
        SAMPLES,
    ],
    ids=lambda given: next(iter(given)),
)
def test_the_result_of_a_sentence_depends_on_nothing_else(given):
    order, expected = [2, 0, 3, 1], found(**given)
    assert tokens_of(search([SOURCES[i] for i in order], **given)) == [tokens_of(expected)[i] for i in order]
    alone = search([SOURCES[2]], **given)[0]
    assert [one.tokens for one in alone] == tokens_of(expected)[2]
    np.testing.assert_allclose([one.score for one in alone], [one.score for one in expected[2]], rtol=1e-5)
