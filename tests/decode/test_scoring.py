"""Scores and alignments of given translations, against the model read whole; nmt-score, and its report."""

import io
import json
import math
import sys
from types import SimpleNamespace

import jax.numpy as jnp
import numpy as np
import pytest
import test_translate
from test_decode import BEGIN, END, FORBIDDEN, TAG, Oracle, searcher, sources_of, toy
from test_translate import TEXT

from nmt.cli import score as command
from nmt.cli.score import ScoreRequest, run_scoring
from nmt.cli.translate_arguments.scores import ScoreArguments
from nmt.config import DecodeConfig
from nmt.decode.alignment import Alignment, link_words, number_words
from nmt.decode.documents.plain import PlainLines
from nmt.decode.documents.units import LineNumbers, decoded_lines
from nmt.decode.line_pairs import pair_lines, split_columns
from nmt.decode.requests import SpecialTokens
from nmt.decode.scoring import PairScore, ScoreTotals, TokenScore
from nmt.decode.search import Searcher
from nmt.decode.stream import StreamReport, translate_units
from nmt.decode.suspicion import SuspicionThresholds, find_suspicions
from nmt.decode.translator import Translation
from nmt.errors import UserError
from nmt.languages import Direction
from nmt.models import incremental
from nmt.models.incremental import encode, log_probabilities
from nmt.sharding import make_layout

run_dir, translator = test_translate.run_dir, test_translate.translator
# As many pairs as give eight rows, so that few programs are compiled.
PAIRS = [
    ("The house is old.", "Das Haus ist alt."),
    ("", ""),
    ("The dog sleeps.", "Der Hund schläft."),
    ("The light is off.", "Das Licht ist aus."),
    ("The dog", "Das Haus"),
    ("The house", "Der Hund"),
]
SOURCES, TARGETS = [source for source, _ in PAIRS], [target for _, target in PAIRS]


# Reading targets.


def test_tokens_have_the_probabilities_of_the_trained_model():
    sources, targets = sources_of(5), [[7, 8, 9], [], [5], [30, 30, 30, 12], [6, 7]]
    found = searcher().reader.log_probabilities(sources, targets, BEGIN)
    for source, target, logarithms in zip(sources, targets, found, strict=True):
        table = Oracle(source).next([target[:n] for n in range(len(target) + 1)])
        expected = [row[token] for row, token in zip(table, [*target, END], strict=True)]
        np.testing.assert_allclose(logarithms, expected, rtol=1e-4)
    sums = searcher().score(sources, targets, begin=BEGIN)
    np.testing.assert_allclose(sums, [logarithms.sum() for logarithms in found], rtol=1e-5)


def test_scores_do_not_depend_on_neighbours_or_order():
    sources, targets = sources_of(7), [list(range(6, 6 + n)) for n in (1, 2, 3, 4, 9, 3, 7)]
    reader, told = searcher().reader, []
    whole = reader.log_probabilities(sources, targets, BEGIN, told.append)
    assert sorted(i for batch in told for i in batch) == list(range(7))
    for i in (0, 4):
        (alone,) = reader.log_probabilities(sources[i : i + 1], targets[i : i + 1], BEGIN)
        np.testing.assert_allclose(alone, whole[i], rtol=1e-5)
    turned = reader.log_probabilities(sources[::-1], targets[::-1], BEGIN)
    for one, other in zip(whole, turned[::-1], strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-5)


def test_attention_is_that_of_the_layer(monkeypatch):
    """The weights that the layer itself computes while the whole target is read, recorded."""
    reader = Searcher(toy(sparse=False), SpecialTokens(BEGIN, END, FORBIDDEN), 16, DecodeConfig(), make_layout()).reader
    source, target = [TAG, 20, 7, 8, END], [BEGIN, 9, 8, 7, END]
    seen, inner = [], incremental.attend_cells

    def attend(q, keys, values, bias):
        eye = jnp.broadcast_to(jnp.eye(*values.shape[2:]), values.shape)  # values that show the weights
        seen.append(np.asarray(inner(q, keys, eye, bias)).reshape(q.shape)[..., : values.shape[2]])  # [B,T,A,S]
        return inner(q, keys, values, bias)

    arrays = np.array([source]), np.array([len(source)]), np.array([target]), np.array([len(target)])
    encoded = encode(reader.model, *arrays[:2])
    with monkeypatch.context() as patch:
        patch.setattr(incremental, "attend_cells", attend)
        log_probabilities(reader.model, encoded, *arrays[2:])
    expected = seen[3].mean(axis=2)[0]  # self-attention and cross-attention of each layer in turn
    (read,) = reader.attention([source], [target[1:-1]], BEGIN, layer=1)
    np.testing.assert_allclose(read, expected, atol=1e-5)
    np.testing.assert_allclose(read.sum(axis=1), 1, rtol=1e-5)


# Alignments.


def test_pieces_are_numbered_by_their_words():
    assert number_words(["▁The", "▁ho", "use", "▁", "<0xD9>", "."], 3) == [0, 1, 1, 2, 2, 2]
    assert number_words(["a", "▁b"], 2) == [0, 1]  # the first begins a word in any case
    assert number_words(["▁a", "▁b", "▁c"], 2) == [0, 1, 1]  # a rule of normalisation has made a word more
    assert number_words([], 0) == []


def test_words_are_linked_where_their_pieces_attend():
    weights = np.array([[0.1, 0.2, 0.25], [0.1, 0.5, 0.1], [0.9, 0.0, 0.0]])
    assert link_words(weights, [0, 1, 2], [0, 0, 1]) == ((1, 0), (0, 1))
    assert link_words(weights, [0, 1, 1], [0, 1, 2]) == ((1, 0), (1, 1), (0, 2))
    assert link_words(weights[:0], [0, 1, 2], []) == ()
    assert Alignment(("a",), ("b",), ((1, 0), (0, 1))).pharaoh() == "1-0 0-1"


# The translator.


@pytest.fixture(scope="module")
def detailed(translator):
    """Lines and their translations, with scores of tokens and alignments; one line is translated in parts."""
    lines = [TEXT[0], "", "12 %", "The dog\tThe house is old. " + "We are going home today. " * 3]
    return lines, translator.translate_scored(lines, "en", "de", token_scores=True, align=True)


def test_translations_have_the_scores_of_their_tokens_and_alignments(translator, detailed):
    lines, found = detailed
    assert [one.text for one in found] == translator.translate(lines, "en", "de")
    total = sum(token.log_probability for token in found[0].tokens)
    assert translator.options().normalised(total, len(found[0].tokens) - 1) == pytest.approx(found[0].score, rel=1e-4)
    assert [one.tokens for one in found[1:3]] == [(), ()]
    assert found[2].alignment == Alignment(("12", "%"), ("12", "%"), ((0, 0), (1, 1)))  # copied
    for line, one in zip(lines, found, strict=True):
        assert one.alignment.source == tuple(line.split())
        assert one.alignment.target == tuple(one.text.split())
        assert {target for _, target in one.alignment.links} <= set(range(len(one.alignment.target)))
        assert all(0 <= source < len(one.alignment.source) for source, _ in one.alignment.links)
    assert sum(token.piece == "</s>" for token in found[3].tokens) == found[3].parts > 2
    before = max(source for source, target in found[3].alignment.links if target == 0)
    assert before < 2  # the first word is of the first paragraph


def test_output_of_scores_and_alignments(detailed):
    one = detailed[1][0]
    links = one.alignment.pharaoh()
    assert ScoreArguments(align=True).render(one) == f"{links}\t{one.text}"
    assert ScoreArguments(align=True, scores=True).render(one) == f"{one.score:.4f}\t{links}\t{one.text}"
    values = json.loads(ScoreArguments(token_scores=True, align=True).render(one))
    assert values["translation"] == one.text
    assert [TokenScore(**token) for token in values["tokens"]] == list(one.tokens)
    assert [tuple(link) for link in values["alignment"]] == list(one.alignment.links)
    assert ScoreArguments().render(one) == one.text
    assert ScoreArguments().json_fields(one) == {}


def test_loops_and_changed_digits_of_a_stream_are_counted():
    report, answers = StreamReport(), ["Offffffft", "ok 12", "ok", "13"]
    lines = decoded_lines([b"Off\n", b"ok 12\n", b"x 5\n", b"x 14\n"], LineNumbers())
    units = PlainLines(lambda one: one.text).units(lines)
    translate_units(units, lambda *_: None, lambda texts: [Translation(a, 0.0, 1) for a in answers], report)
    assert (str(report.loops), str(report.digits)) == ("line 1", "line 4")


def test_scores_are_sums_over_the_pieces_of_the_vocabulary(translator):
    scores = translator.score(SOURCES, TARGETS, "en", "de")
    vocabulary = translator.vocabularies.target
    for (source, target), score in zip(PAIRS, scores, strict=True):
        pieces = [*vocabulary.pieces(vocabulary.encode([target])[0]), "</s>"] if source else []
        assert [token.piece for token in score.tokens] == pieces
        assert score.log_probability == pytest.approx(sum(token.log_probability for token in score.tokens), rel=1e-5)
        assert score.score == translator.options().normalised(score.log_probability, max(0, len(pieces) - 1))


def test_pairs_that_are_blank_or_too_long(translator):
    told = []
    sources, targets = (
        [*SOURCES, "The dog. " * 20, "The dog.", "", "The dog."],
        [*TARGETS, "Hund", "Hund " * 40, "Hund", ""],
    )
    scores = translator.score(sources, targets, "en", "de", align=True, progress=told.append)
    assert [number for number, score in enumerate(scores) if score.is_too_long] == [6, 7]
    assert scores[1] == PairScore(0.0, 0.0, ())
    assert [len(score.tokens) for score in scores[-2:]] == [len(scores[-2].tokens), 1]
    assert scores[-1].alignment == Alignment(("The", "dog."), (), ())
    assert told[-1] == len(sources)
    totals = ScoreTotals()
    totals.add(scores)
    assert totals.pairs == 7
    mean = sum(token.log_probability for score in scores for token in score.tokens) / totals.tokens
    assert totals.perplexity == pytest.approx(math.exp(-mean))
    assert math.isnan(ScoreTotals().perplexity)


def test_alignments_have_a_link_for_every_word_of_the_translation(translator):
    score, *_ = translator.score(["The  house is\told."] * 5, ["Das Haus ist alt."] * 5, "en", "de", align=True)
    assert score.alignment.source == ("The", "house", "is", "old.")
    assert [target for _, target in score.alignment.links] == [0, 1, 2, 3]
    assert {source for source, _ in score.alignment.links} <= {0, 1, 2, 3}


def test_mistakes_of_a_caller(translator):
    with pytest.raises(UserError, match="2 sources, but 1 translations"):
        translator.score(["a", "b"], ["c"], "en", "de")
    with pytest.raises(UserError, match="the decoder has no layer 1: its layers are 0 to 0"):
        translator.score(["a"], ["c"], "en", "de", align=True, alignment_layer=1)
    with pytest.raises(TypeError, match="not one text"):
        translator.score("a", "c", "en", "de")


# Pairs of lines.


def test_lines_end_where_those_of_a_translation_do():
    wrong = LineNumbers()
    files = [b"\xef\xbb\xbfa\x0b\r\n", b"\xff\n", b"c"], [b"x\n", b"\xe2\x80\xa8\n", b"z"]
    pairs = list(pair_lines(*files, ("s", "t"), wrong))
    assert pairs == [(1, "a\x0b", "x"), (2, "\ufffd", "\u2028"), (3, "c", "z")]
    assert str(wrong) == "line 2"


@pytest.mark.parametrize(("left", "right"), [(3, 5), (4, 1), (0, 1)])
def test_files_of_different_numbers_of_lines(left, right):
    with pytest.raises(UserError, match=rf"^s has {left} lines, but t has {right}: .* equally many$"):
        list(pair_lines([b"a\n"] * left, [b"b\n"] * right, ("s", "t"), LineNumbers()))


def test_columns():
    assert list(split_columns([b"a\tb\r\n", b"\n", b"\tc"], "x", LineNumbers())) == [
        (1, "a", "b"),
        (2, "", ""),
        (3, "", "c"),
    ]
    for line, columns in ((b"a\n", "1 column,"), (b"a\tb\tc\n", "3 columns,")):
        with pytest.raises(UserError, match=f"x.tsv:2 has {columns} not 2"):
            list(split_columns([b"a\tb\n", line], "x.tsv", LineNumbers()))


# Suspicious lines.


@pytest.mark.parametrize(
    ("source", "target", "found"),
    [
        ("The house is old", "Das Haus ist alt", []),
        ("", "", []),
        ("The house", " ", [("blank", "translation")]),
        ("", "Das Haus", [("blank", "source")]),
        ("The house is old", "Alt", [("length_ratio", "0.19")]),
        ("The house", "Das Haus Haus Haus Haus Haus", [("repetition", "shau x 5"), ("length_ratio", "3.11")]),
        ("The house is old", "Дом очень старый", [("script", "de 0%")]),
        ("The house is old today", "The house is old heute", [("copied", "80%")]),
        ("Room 12 is old", "Raum 13 ist alt", [("digits", "-12 +13")]),
        ("OK", "OK", []),  # too short to say anything
    ],
)
def test_signs_of_a_wrong_translation(source, target, found):
    signs = find_suspicions(source, target, Direction("en", "de"), SuspicionThresholds())
    assert sorted(signs) == sorted(found)


def test_lengths_and_scripts_are_those_of_the_language():
    thresholds = SuspicionThresholds()
    english, chinese = "We are all going home to the old house today.", "我们今天都回老房子去。"
    assert list(find_suspicions(english, chinese, Direction("en", "zh-Hans"), thresholds)) == []
    assert [one.reason for one in find_suspicions(english, english, Direction("en", "zh-Hans"), thresholds)] == [
        "length_ratio", "script", "copied",
    ]  # fmt: skip


def test_thresholds():
    pair = "The house is old", "Das Haus ist alt", Direction("en", "de")
    assert [one.value for one in find_suspicions(*pair, SuspicionThresholds(), -6.0)] == ["-6.00"]
    thresholds = SuspicionThresholds.parse(["log_probability=-7", "length_ratio=1.1"])
    assert thresholds == SuspicionThresholds(log_probability=-7.0, length_ratio=1.1)
    assert list(find_suspicions(*pair, thresholds, -6.0)) == []
    for setting, message in (
        ("lenght_ratio=2", "did you mean length_ratio"),
        ("script", "must be KEY=NUMBER"),
        ("script=x", "'x' is no number"),
        ("script=2", r"the threshold script must be at least 0 and at most 1 \(not 2\)"),
        ("length_ratio=nan", "length_ratio must be at least 1"),
    ):
        with pytest.raises(UserError, match=message):
            SuspicionThresholds.parse([setting])


# The command.


@pytest.fixture
def files(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "in.txt").write_text("".join(f"{source}\n" for source in SOURCES))
    (tmp_path / "out.txt").write_text("".join(f"{target}\n" for target in TARGETS))
    (tmp_path / "pairs.tsv").write_text("".join(f"{source}\t{target}\n" for source, target in PAIRS))
    monkeypatch.setattr(command, "prepare_process", lambda: None)
    return tmp_path


@pytest.fixture
def run(run_dir, translator, monkeypatch):
    monkeypatch.setattr("nmt.decode.translator.Translator", lambda *_, **__: translator)
    return str(run_dir)


def scored(capsysbinary, *arguments, **options):
    run_scoring(ScoreRequest([*arguments], "en", "de", **options))
    captured = capsysbinary.readouterr()
    return captured.out.decode().split("\n")[:-1], captured.err.decode()


def test_a_line_for_every_pair_and_the_perplexity(run, files, translator, capsysbinary):
    scores = translator.score(SOURCES, TARGETS, "en", "de")
    expected = [f"{score.log_probability:.4f}\t{score.score:.4f}" for score in scores]
    lines, notes = scored(capsysbinary, run, "in.txt", "out.txt")
    assert lines == expected
    assert lines[1] == "0.0000\t0.0000"
    totals = ScoreTotals()
    totals.add(scores)
    assert f"note: 5 pairs, {totals.tokens} tokens: log probability" in notes
    assert f"perplexity {totals.perplexity:.2f}" in notes
    assert scored(capsysbinary, run, "pairs.tsv")[0] == expected
    assert scored(capsysbinary, run, "pairs.tsv", output="scores.tsv")[0] == []
    assert (files / "scores.tsv").read_text().split("\n")[:-1] == expected


@pytest.mark.parametrize("arguments", [(), ("-",), ("-", "out.txt"), ("in.txt", "-")])
def test_standard_input(arguments, run, files, monkeypatch, capsysbinary):
    name = {(): "pairs.tsv", ("-",): "pairs.tsv", ("-", "out.txt"): "in.txt"}.get(arguments, "out.txt")
    stdin = SimpleNamespace(buffer=io.BytesIO((files / name).read_bytes()), isatty=lambda: False)
    monkeypatch.setattr(sys, "stdin", stdin)
    assert scored(capsysbinary, run, *arguments)[0] == scored(capsysbinary, run, "in.txt", "out.txt")[0]


def test_tokens_and_alignments_as_json(run, files, translator, capsysbinary):
    scores = translator.score(SOURCES, TARGETS, "en", "de", align=True)
    lines, _ = scored(capsysbinary, run, "in.txt", "out.txt", tokens=True, align=True)
    for line, (source, target), score in zip(lines, PAIRS, scores, strict=True):
        values = json.loads(line)
        assert (values["source"], values["target"]) == (source, target)
        assert (values["log_probability"], values["score"]) == (score.log_probability, score.score)
        assert [TokenScore(**token) for token in values["tokens"]] == list(score.tokens)
        links = score.alignment.links if score.alignment else ()
        assert [tuple(link) for link in values["alignment"]] == list(links)
    plain, _ = scored(capsysbinary, run, "in.txt", "out.txt", align=True)
    assert plain == [score.alignment.pharaoh() if score.alignment else "" for score in scores]


def test_lines_without_a_score_are_told(run, files, capsysbinary):
    (files / "in.txt").write_bytes(b"The house\n" + b"The dog sleeps. " * 20 + b"\n\n" + b"The dog\n" * 3)
    (files / "out.txt").write_bytes(b"Das \xff\nHund\nHaus\n" + b"Der Hund\n" * 3)
    lines, notes = scored(capsysbinary, run, "in.txt", "out.txt")
    assert lines[1] == "nan\tnan"
    assert "note: 1 line is longer than the 16 tokens that the model was trained on" in notes
    assert "no score (line 2)" in notes
    assert "note: 1 line is not UTF-8; U+FFFD stands for wrong bytes (line 1)" in notes
    assert "note: 1 line is blank on one side only (line 3)" in notes
    (line,) = [line for line in scored(capsysbinary, run, "in.txt", "out.txt", as_json=True)[0] if "null" in line]
    assert json.loads(line)["score"] is None


def test_a_report_needs_no_run(run, files, capsysbinary):
    (files / "out.txt").write_text("Das Haus ist alt.\nx\nOffffffft 12\n" + "".join(f"{one}\n" for one in TARGETS[3:]))
    lines, notes = scored(capsysbinary, "in.txt", "out.txt", report=True)
    assert lines == [
        "2\tblank\tsource\t\tx",
        "3\trepetition\tf x 7\tThe dog sleeps.\tOffffffft 12",
        "3\tdigits\t+12\tThe dog sleeps.\tOffffffft 12",
    ]
    assert "note: 2 of 6 lines are suspicious: blank 1, repetition 1, digits 1" in notes
    lines, _ = scored(capsysbinary, "in.txt", "out.txt", report=True, as_json=True, threshold=["digits=1"])
    assert [(values["line"], values["reason"]) for values in map(json.loads, lines)] == [
        (2, "blank"),
        (3, "repetition"),
    ]
    lines, notes = scored(capsysbinary, run, "in.txt", "out.txt", report=True, threshold=["log_probability=-0.01"])
    assert [line.split("\t")[:2] for line in lines if "log_prob" in line] == [
        [str(number), "log_probability"] for number in (1, 3, 4, 5, 6)
    ]
    assert "perplexity" in notes


@pytest.mark.parametrize(
    ("arguments", "options", "message"),
    [
        (("in.txt", "none.txt"), {}, "cannot read none.txt: there is no such file"),
        (("in.txt", "."), {}, "cannot read .: it is a folder"),
        (("in.txt", "out.txt", "in.txt"), {}, "one file or two, not 3"),
        (("-", "-"), {}, "standard input cannot be both"),
        (("in.txt", "pairs.tsv"), {"threshold": ["script=1"]}, "--threshold is for --report"),
        (("in.txt", "out.txt"), {"report": True, "align": True}, "--report lists suspicious lines only"),
        (("in.txt", "out.txt"), {"alignment_layer": 0}, "--alignment-layer is for --align"),
        (("in.txt", "short.txt"), {}, "in.txt has 6 lines, but short.txt has 2"),
        (("in.txt",), {}, "in.txt:1 has 1 column, not 2"),
        (("in.txt", "out.txt"), {"target": "germn"}, "unknown language 'germn'"),
        (("in.txt", "out.txt"), {"target": "fr"}, "the model does not know fr"),
        (("in.txt", "out.txt"), {"output": "none/x"}, "there is no folder none"),
    ],
)
def test_mistakes_are_told_in_a_line(arguments, options, message, run, files):
    (files / "short.txt").write_text("a\nb")
    with pytest.raises(UserError, match=message):
        run_scoring(ScoreRequest([run, *arguments], **({"source": "en", "target": "de"} | options)))
    assert "\n" not in message
