"""Choosing among candidates: chrF against mean counts beside its definition and sacreBLEU, and commands that rerank."""

import sys
from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sacrebleu.metrics import CHRF

from nmt.cli.translate_arguments.ranking import RankingArguments
from nmt.decode.mbr import MinimumBayesRisk, aggregate_chrf
from nmt.decode.options import SearchOptions
from nmt.decode.rerank import CommandRanking
from nmt.errors import UserError

TEXTS = ["the dog sleeps .", "the dog is asleep .", "a dog sleeps", "the cat sleeps .", "狗在睡觉。", "dog", ""]
OPTIONS = SearchOptions()


def expected_chrf(hypothesis, references):
    """chrF by its definition, against n-gram counts that are the means of those of the references."""

    def ngrams(text, order):
        text = "".join(text.split())
        return Counter(text[i : i + order] for i in range(len(text) - order + 1))

    precisions, recalls = [], []
    for order in range(1, 7):
        own, mean = ngrams(hypothesis, order), Counter()
        for reference in references:
            mean.update({ngram: count / len(references) for ngram, count in ngrams(reference, order).items()})
        if own and mean:
            same = sum(min(count, mean[ngram]) for ngram, count in own.items())
            precisions.append(same / own.total())
            recalls.append(same / mean.total())
    if not any(precisions):
        return 0.0
    precision, recall = np.mean(precisions), np.mean(recalls)
    return 100 * 5 * precision * recall / (4 * precision + recall)


@settings(max_examples=30, deadline=None)
@given(st.lists(st.text("ab 狗\U0001f600", max_size=9), min_size=1, max_size=5))
def test_chrf_against_mean_counts_is_its_definition(texts):
    found = aggregate_chrf(texts, [1] * len(texts))
    np.testing.assert_allclose(found, [expected_chrf(text, texts) for text in texts], atol=1e-9)


def test_chrf_against_one_text_is_that_of_sacrebleu():
    metric = CHRF()
    for hypothesis in TEXTS:
        for reference in TEXTS:
            found, _ = aggregate_chrf([hypothesis, reference], [0, 1])
            assert found == pytest.approx(metric.sentence_score(hypothesis, [reference]).score, abs=1e-6)


def test_a_text_that_comes_several_times_counts_as_often():
    repeated = [TEXTS[0], TEXTS[3], TEXTS[3], TEXTS[2], TEXTS[3]]
    found = aggregate_chrf([TEXTS[0], TEXTS[3], TEXTS[2]], [1, 3, 1])
    np.testing.assert_allclose(found, [expected_chrf(text, repeated) for text in (TEXTS[0], TEXTS[3], TEXTS[2])])
    assert MinimumBayesRisk(5).rank([""], [repeated]) == [[1, 0, 3]]  # each text once


def test_samples_are_ranked_by_their_likeness_to_all_and_ties_stay_in_order():
    outlier = ["xyz", "the dog sleeps", "the dog sleeps .", "the dogs sleep ."]
    ((first, *_, last),) = MinimumBayesRisk(4).rank(["?"], [outlier])
    assert (first, last) == (2, 0)
    assert MinimumBayesRisk(2).rank(["", ""], [["ab", "ba"], ["", ""]]) == [[0, 1], [0]]


def test_samples_have_no_improbable_tokens_unless_asked_for_otherwise():
    ours = MinimumBayesRisk(32).candidate_options(SearchOptions(seed=7, beam=4, beam_groups=2))
    assert (ours.sampling, ours.epsilon, ours.hypotheses, ours.seed) == (True, 0.02, 32, 7)
    theirs = MinimumBayesRisk(32).candidate_options(SearchOptions(sampling=True, top_k=5))
    assert (theirs.epsilon, theirs.top_k) == (0.0, 5)
    with pytest.raises(UserError, match="two samples at least"):
        MinimumBayesRisk(1)


def command(program):
    return f'"{sys.executable}" -S -E -u -c "{program}"'


LENGTHS = "import sys\nfor line in sys.stdin: print(len(line.split(chr(9))[1]))"


def test_one_process_ranks_all_by_its_numbers():
    # A number of its own for each process, and for each text of it: whether a process were started anew shows.
    counting = "import sys\nfor number, line in enumerate(sys.stdin): print(number)"
    with CommandRanking(command(counting)) as ranking:
        assert ranking.rank(["a", "b"], [["x", "y", "x"], ["z"]]) == [[1, 0], [0]]
        assert ranking.rank([], []) == []
        assert ranking.rank(["c"], [["p", "q", "r"]]) == [[2, 1, 0]]
    with CommandRanking(command(LENGTHS)) as ranking:
        assert ranking.rank(["a\tb"], [["one\ttwo", "long er\ntext", "short", "eighteen"]]) == [[1, 3, 0, 2]]


def test_more_candidates_than_a_pipe_holds():
    texts = [[f"{number} " + "x" * 1000 for number in range(300)]]
    with CommandRanking(command("import sys\nfor line in sys.stdin: print(line.split()[1])")) as ranking:
        assert ranking.rank(["source"], texts) == [list(reversed(range(300)))]


@pytest.mark.parametrize(
    ("program", "message"),
    [
        ("import sys\nfor line in sys.stdin: print('good')", r"one number \(not 'good'\)"),
        ("import sys\nfor line in sys.stdin: print('nan')", r"one number \(not 'nan'\)"),
        ("import sys\nsys.exit(3)", "ended with status 3 after 0 answers to 2 lines"),
        ("print(input() and 1)", "ended with status 0 after 1 answers to 2 lines"),
        ("import sys\nfor line in sys.stdin: print(1)\nprint(2)", "more lines than it was given: '2'"),
        ("import sys\nfor line in sys.stdin: print(1)\nsys.exit(4)", "ended with status 4$"),
    ],
)
def test_wrong_answers_are_one_clear_line(program, message):
    with pytest.raises(UserError, match=message) as caught, CommandRanking(command(program)) as ranking:
        ranking.rank(["source"], [["one", "two"]])
    assert "\n" not in str(caught.value)


def test_commands_that_are_not_there():
    for wrong, message in (
        ("no-such-program x", "No such file"),
        ("", "cannot run the reranker ''"),
        ("'", "quotation"),
    ):
        with pytest.raises(UserError, match=message):
            CommandRanking(wrong)


def test_a_reranker_is_given_the_beam_or_as_many_as_asked_for():
    with CommandRanking(command(LENGTHS)) as ranking:
        assert ranking.candidate_options(OPTIONS).hypotheses == OPTIONS.beam == 4
    with CommandRanking(command(LENGTHS), candidates=10) as ranking:
        options = ranking.candidate_options(OPTIONS)
        assert (options.hypotheses, options.beam) == (10, 10)


def test_options_of_the_command_that_exclude_each_other():
    for values, given_, message in (
        ({"mbr": 4, "rerank": "x"}, {}, "exclude each other"),
        ({"mbr": 1}, {}, "two samples at least"),
        ({"candidates": 4}, {}, "--rerank only"),
        ({"mbr": 4}, {"sampling": False}, "leave --no-sampling out"),
    ):
        with pytest.raises(UserError, match=message):
            RankingArguments(**values).search_options(given_)
    assert RankingArguments(mbr=4).search_options({"epsilon": 0.1}) == {"epsilon": 0.1, "sampling": True}
    assert RankingArguments(mbr=4).search_options({"seed": 2}) == {"seed": 2}
