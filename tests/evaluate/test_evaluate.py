"""Evaluation: metrics against sacreBLEU itself and against arithmetic, test sets, the matrix and its resumption."""

import json
import math
from dataclasses import replace
from pathlib import Path

import pytest
import sacrebleu
from hypothesis import given
from hypothesis import strategies as st
from recorded_progress import RecordedProgress
from sacrebleu.metrics import BLEU, CHRF
from toy_evaluation import RECIPE, TEXT, FakeTranslator, write_set

from nmt.config import DecodeConfig, EvaluateConfig
from nmt.config.schema import CleanConfig
from nmt.errors import UserError
from nmt.evaluate import metrics
from nmt.evaluate.matrix import evaluate
from nmt.evaluate.metrics import score
from nmt.evaluate.pairs import Pair, content_hash
from nmt.evaluate.results import DirectionResult, Matrix
from nmt.evaluate.samples import read_samples
from nmt.evaluate.sets import open_set, select, stored_set
from nmt.languages import Direction, parse_direction

DE_EN, EN_DE, ES_EN = (parse_direction(text) for text in ("de-en", "en-de", "es-en"))


@pytest.fixture
def run(tmp_path):
    for split in ("test", "dev"):
        write_set(tmp_path / "data" / split, TEXT)
    return tmp_path


def results_folder(run: Path) -> Path:
    return run / "evaluation" / "7" / "test"


# Metrics


def test_bleu_and_the_shares_by_hand():
    cell = score(DE_EN, ["x", " ", "y"], ["a b c d e", "", " y "], ["a b c d f", "", "z z"])
    # 6 tokens against 7; unigrams 4 of 6, bigrams 3 of 4, trigrams 2 of 3, 4-grams 1 of 2
    expected = 100 * math.exp(1 - 7 / 6) * (4 / 6 * 3 / 4 * 2 / 3 * 1 / 2) ** 0.25
    assert cell.bleu == pytest.approx(expected)
    assert (cell.direction, cell.sentences, cell.length_ratio) == (DE_EN, 3, pytest.approx(6 / 7))
    assert (cell.empty, cell.copied) == (pytest.approx(1 / 3), pytest.approx(1 / 3))


def test_loops_and_changed_digits_are_counted():
    sources = ["Aus 12", "hahaha", "zwei", "Nr. 5"]
    cell = score(DE_EN, sources, ["Offffffft 13", "hahaha", "two two two two", "No. 5"], ["x"] * 4)
    assert (cell.loops, cell.changed_digits) == (0.5, 0.25)


@pytest.mark.parametrize(
    ("target", "tokenizer", "hypothesis", "reference"),
    [
        ("en", "13a", "The house, isn't red.", "The house isn't very red, is it?"),
        ("zh-Hans", "zh", "我喜欢红色的房子。", "我很喜欢那个红色的房子。"),
        ("ja", "char", "赤い家が好きです。", "私は赤い家がとても好きです。"),
    ],
)
def test_scores_are_those_of_sacrebleu_with_the_target_languages_tokenizer(target, tokenizer, hypothesis, reference):
    hypotheses, references = [hypothesis, reference], [reference, hypothesis]
    cell = score(Direction("de", target), ["quelle"] * 2, hypotheses, references)
    assert cell.bleu == pytest.approx(sacrebleu.corpus_bleu(hypotheses, [references], tokenize=tokenizer).score)
    assert cell.chrf == pytest.approx(sacrebleu.corpus_chrf(hypotheses, [references], word_order=2).score)
    assert f"|tok:{tokenizer}|" in cell.bleu_signature
    assert cell.bleu_signature == signature(BLEU(tokenize=tokenizer))
    assert cell.chrf_signature == signature(CHRF(word_order=2))
    assert "|nw:2|" in cell.chrf_signature
    assert cell.bleu_signature.endswith(f"version:{sacrebleu.__version__}")


def signature(metric):
    metric.corpus_score(["a"], [["a"]])
    return str(metric.get_signature())


def test_chinese_would_be_scored_wrongly_by_the_default_tokenizer():
    hypotheses, references = ["我喜欢红色的房子。"], ["我很喜欢红色的房子。"]
    assert (
        sacrebleu.corpus_bleu(hypotheses, [references]).score
        < 0.5 * score(Direction("en", "zh-Hans"), ["x"], hypotheses, references).bleu
    )


def test_nothing_to_score_and_unequal_numbers():
    with pytest.raises(UserError, match=r"de-en.*no sentences"):
        score(DE_EN, [], [], [])
    with pytest.raises(ValueError, match="2 sources, 1 hypotheses, 2 references"):
        score(DE_EN, ["a", "b"], ["a"], ["a", "b"])


def test_a_missing_tokenizer_is_told_in_one_line(monkeypatch):
    def unavailable(tokenize):
        raise RuntimeError("\nJapanese needs more.\n\n  pip install sacrebleu[ja]\n")

    monkeypatch.setattr(metrics, "BLEU", unavailable)
    metrics._bleu.cache_clear()
    with pytest.raises(UserError, match=r"'13a' is not available: Japanese needs more. pip install sacrebleu\[ja\]$"):
        score(DE_EN, ["a"], ["a"], ["a"])


# Test sets

printable = st.text(st.characters(exclude_categories=["Cs"]), min_size=1).filter(str.strip)


@given(pairs=st.lists(st.tuples(printable, printable), min_size=1))
def test_a_stored_set_is_read_back_exactly(tmp_path_factory, pairs):
    run = tmp_path_factory.mktemp("run")
    write_set(run / "data" / "dev", {"deu-eng": pairs})
    assert stored_set(run, "dev").read(DE_EN) == [Pair(*pair) for pair in pairs]


def test_a_tsv_file_needs_one_direction_and_keeps_its_lines(tmp_path):
    path = tmp_path / "extra.tsv"
    path.write_bytes("\ufeffeins\u2028zwei\tone two\r\ndrei\tthree".encode())
    assert open_set(tmp_path, str(path), ["deu-eng"]).read(DE_EN) == [
        Pair("eins\u2028zwei", "one two"),
        Pair("drei", "three"),
    ]
    for directions in (None, [], ["de-en", "en-de"]):
        with pytest.raises(UserError, match="exactly one pair, such as --pairs de-en"):
            open_set(tmp_path, str(path), directions)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.tsv", b"eins\tone\nzwei\n", r"a\.tsv:2: expected source<TAB>target"),
        ("a.tsv", b"eins\tone\tuno\n", r"a\.tsv:1: expected"),
        ("a.tsv", b"eins\t \n", r"a\.tsv:1: .* neither of them blank"),
        ("a.tsv", b"eins\tone\n\nzwei\ttwo\n", r"a\.tsv:2: expected"),
        ("a.tsv", b"\xff\xfe\tone\n", r"a\.tsv is not UTF-8 \(byte 0\)"),
        ("a.tsv", b"", r"a\.tsv has no sentences"),
        ("a.jsonl", b'{"source": "eins"}\n', r'a\.jsonl:1: expected {"source": \.\.\., "target": \.\.\.}'),
        ("a.jsonl", b'{"source": "eins", "target": 1}\n', r"a\.jsonl:1: expected"),
        ("a.jsonl", b'["eins", "one"]\n', r"a\.jsonl:1: expected"),
        ("a.jsonl", b'{"source": "\\ud800", "target": "one"}\n', r"a\.jsonl:1: expected"),
        ("a.jsonl", b"eins\n", r"a\.jsonl:1: expected"),
    ],
)
def test_malformed_files_are_named_with_their_line(tmp_path, name, content, message):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(UserError, match=message):
        open_set(tmp_path, str(tmp_path / name), ["de-en"]).read(DE_EN)


def test_test_sets_that_are_not_there(run):
    (run / "notes.yaml").write_text("a: 1")
    (run / "empty").mkdir()
    (run / "odd").mkdir()
    (run / "odd" / "xx-qq.tsv").write_text("a\tb\n")
    write_set(run / "twice", {"de-en": [("a", "b")], "deu-eng": [("a", "b")]})
    for testset, message in [
        ("tset", "no test set tset: .*did you mean test"),
        ("some/where", "no test set some/where: there is no such file or folder"),
        (str(run / "notes.yaml"), "not a test set that can be read: give test, dev, a folder"),
        (str(run / "empty"), "holds no test set: expected files such as"),
        (str(run / "odd"), r"xx-qq\.tsv is not named after a direction: .*unknown language"),
        (str(run / "twice"), "are both for de-en: remove one"),
    ]:
        with pytest.raises(UserError, match=message):
            open_set(run, testset)
    with pytest.raises(UserError, match=r"no stored test set in .*none/data/test: `nmt-train recipe=.*recipe\.yaml`"):
        stored_set(run / "none", "test")
    with pytest.raises(UserError, match="unknown test set 'trian'"):
        stored_set(run, "trian")


def test_results_of_sets_with_the_same_name_do_not_share_a_folder(run):
    for place in ("a", "b"):
        write_set(run / place / "test", TEXT)
    names = {open_set(run, name).name for name in ("test", str(run / "a" / "test"), str(run / "b" / "test"))}
    assert len(names) == 3


def test_the_content_hash_does_not_depend_on_the_kind_of_file_but_on_every_character(tmp_path):
    (tmp_path / "a.tsv").write_text("eins\tone\nzwei\ttwo\n")
    (tmp_path / "b.jsonl").write_text('{"target": "one", "source": "eins"}\n{"source": "zwei", "target": "two"}')
    tsv, jsonl = (open_set(tmp_path, str(tmp_path / name), ["de-en"]).read(DE_EN) for name in ("a.tsv", "b.jsonl"))
    assert content_hash(tsv) == content_hash(jsonl)
    others = (tsv[::-1], tsv[:1], [Pair("eins", "one "), tsv[1]], [Pair("einso", "ne"), tsv[1]], [])
    assert len({content_hash(pairs) for pairs in (tsv, *others)}) == 6


# Which directions


def test_by_default_all_directions_in_the_order_of_the_recipe(run):
    assert select(stored_set(run, "test"), RECIPE, None) == ([ES_EN, DE_EN, EN_DE], {})


def test_directions_left_out_by_default_are_named(run):
    (run / "data" / "test" / "es-en.jsonl").unlink()
    (run / "data" / "test" / "en-de.jsonl").write_bytes(b"")
    write_set(run / "data" / "test", {"de-es": [("a", "b")], "fr-en": [("a", "b")]})
    directions, left_out = select(stored_set(run, "test"), RECIPE, None)
    assert directions == [DE_EN, parse_direction("de-es")]  # de-es is zero-shot: both languages are known
    assert left_out == {
        "es-en": "it has no test set",
        "en-de": "its test set has no sentences",
        "fr-en": "the model does not know fr",
    }


def test_nothing_is_left_to_evaluate(run):
    write_set(run / "own", {"fr-en": [("a", "b")], "en-fr": [("b", "a")]})
    with pytest.raises(UserError, match=r"nothing to evaluate in .*own: en-fr: the model does not know fr; fr-en: "):
        select(open_set(run, str(run / "own")), RECIPE, None)


def test_wanted_directions_that_cannot_be_had(run):
    stored = stored_set(run, "test")
    assert select(stored, RECIPE, ["deu_Latn-en", "de-en"]).directions == [DE_EN]
    with pytest.raises(UserError, match=r"fr-en: the model does not know fr.*\(it knows de, en, es\)"):
        select(stored, RECIPE, ["fr-en"])
    with pytest.raises(
        UserError, match=r"no test set for de-es in .*; did you mean .*\(there are: de-en, en-de, es-en\)"
    ):
        select(stored, RECIPE, ["de-es"])
    with pytest.raises(UserError, match=r"unknown language 'germn'.*did you mean"):
        select(stored, RECIPE, ["germn-en"])
    (run / "data" / "test" / "en-de.jsonl").write_bytes(b"")
    with pytest.raises(UserError, match=r"en-de\.jsonl has no sentences"):
        select(stored, RECIPE, ["en-de"])


# The matrix


def test_every_direction_is_written_and_can_be_recomputed_from_its_files(run):
    progress, fake = RecordedProgress(), FakeTranslator()
    matrix = evaluate(fake, run, progress=progress)
    folder = results_folder(run)
    assert matrix.folder == folder
    assert fake.asked == [("es-en", 4), ("de-en", 4), ("en-de", 4)]
    assert [line.split()[0] for line in progress.lines] == [str(result.cell.direction) for result in matrix.results]
    assert progress.updates == [("es-en", 3, 3), ("de-en", 2, 2), ("en-de", 1, 1)]
    for direction, pairs in TEXT.items():
        stored = json.loads((folder / f"{direction}.json").read_text())
        hypotheses = (folder / "hypotheses" / f"{direction}.txt").read_text().splitlines()
        sources, references = zip(*pairs, strict=True)
        cell = score(parse_direction(direction), sources, hypotheses, references)
        assert (stored["bleu"], stored["chrf"], stored["sentences"]) == (cell.bleu, cell.chrf, len(pairs))
        assert (stored["bleu_signature"], stored["chrf_signature"]) == (
            f"{cell.bleu_signature}|norm:nfc",
            f"{cell.chrf_signature}|norm:nfc",
        )
        assert stored["decode"] == DecodeConfig().model_dump(mode="json")
        assert (stored["direction"], stored["step"]) == (direction, 7)
        assert stored["sentences_per_second"] == pytest.approx(len(pairs) / stored["seconds"])
        assert stored["test_set"] == content_hash(Pair(*pair) for pair in pairs)
    assert json.loads((folder / "matrix.json").read_text()) == matrix.to_json()
    assert not list(run.rglob("*.tmp"))


def test_averages_by_hand(run):
    matrix = evaluate(FakeTranslator(), run)
    bleu, chrf = (10.0, 20.0, 60.0), (30.0, 40.0, 80.0)
    results = [
        replace(result, cell=replace(result.cell, bleu=b, chrf=c))
        for result, b, c in zip(matrix.results, bleu, chrf, strict=True)
    ]
    averages = replace(matrix, results=tuple(results)).to_json()["averages"]
    assert averages == {
        "into_english": {"directions": 2, "bleu": 15.0, "chrf": 35.0},
        "out_of_english": {"directions": 1, "bleu": 60.0, "chrf": 80.0},
        "overall": {"directions": 3, "bleu": 30.0, "chrf": 50.0},
    }
    into_only = replace(matrix, results=tuple(results[:2]))
    assert into_only.out_of_english is None
    assert set(into_only.averages) == {"into English", "overall"}


def test_directions_are_told_apart_by_their_training_pairs(run):
    (some, *_) = evaluate(FakeTranslator(), run).results
    others = ["af", "bg", "ca", "cs", "da", "de", "el", "es", "et", "fi", "fr", "ga", "hu"]
    results = tuple(
        replace(some, cell=replace(some.cell, direction=Direction(code, "en"), bleu=float(place), chrf=2.0 * place))
        for place, code in enumerate(others)
    )
    pairs = {Direction(code, "en"): 10 * (place + 1) for place, code in enumerate(others)}
    matrix = replace(evaluate(FakeTranslator(), run), results=results, training_pairs=pairs)
    found = {name: (average.directions, average.bleu) for name, average in matrix.averages.items() if "-" in name}
    assert found == {  # the most pairs have the last ones
        "into English, high-resource": (4, 10.5),
        "into English, middle-resource": (4, 6.5),
        "into English, low-resource": (5, 2.0),
    }
    assert Matrix.from_json(matrix.folder, matrix.to_json()).averages == matrix.averages
    assert set(replace(matrix, training_pairs={}).averages) == {"into English", "overall"}


def test_a_recipe_may_ask_for_the_first_sentences_only(run):
    fake = FakeTranslator()
    fake.recipe = RECIPE.model_copy(update={"evaluate": EvaluateConfig(sentences=2)})
    matrix = evaluate(fake, run)
    assert [cell.sentences for cell in matrix.cells] == [2, 2, 1]
    chosen = stored_set(run, "test", 2)
    assert chosen.read(ES_EN) == stored_set(run, "test").read(ES_EN)[:2]
    assert [sample.reference for sample in read_samples(matrix.folder, chosen, ES_EN, 5)] == [
        pair.target for pair in chosen.read(ES_EN)
    ]


def retranslated(run, changed=lambda: None, **options) -> list[str]:
    """Evaluate, change something, evaluate again: return what the second time translated."""
    evaluate(FakeTranslator(), run)
    changed()
    fake = FakeTranslator()
    matrix = evaluate(fake, run, **options)
    assert [result.cell.direction for result in matrix.results if not result.reused] == [
        parse_direction(direction) for direction, _ in fake.asked
    ]
    return [direction for direction, _ in fake.asked]


def test_nothing_is_translated_twice(run):
    before = evaluate(FakeTranslator(), run)
    assert retranslated(run) == []
    assert evaluate(FakeTranslator(), run) == before


def test_results_of_older_versions_are_counted_anew(run):
    before = evaluate(FakeTranslator(), run)

    def change():
        for file in results_folder(run).glob("*-*.json"):
            values = json.loads(file.read_text())
            del values["loops"], values["changed_digits"]
            file.write_text(json.dumps(values))

    assert retranslated(run, change) == []
    assert evaluate(FakeTranslator(), run) == before


def test_force_and_other_options_translate_again(run):
    everything = ["es-en", "de-en", "en-de"]
    assert retranslated(run, force=True) == everything
    assert retranslated(run, force=True, directions=["de-en"]) == ["de-en"]
    assert retranslated(run, beam=2) == everything
    assert retranslated(run, beam=4) == []
    assert retranslated(run, split="dev") == everything
    for precision, asked in (("int8", 3), ("int8", 0), ("float32", 3)):
        fake = FakeTranslator(precision=precision)
        evaluate(fake, run)
        assert len(fake.asked) == asked


def test_a_changed_test_set_is_noticed(run):
    def change():
        write_set(run / "data" / "test", {"de-en": [*TEXT["de-en"], ("Neu.", "New.")]})

    assert retranslated(run, change) == ["de-en"]
    assert json.loads((results_folder(run) / "de-en.json").read_text())["sentences"] == 3


def test_another_training_that_reached_the_same_step_is_noticed(run):
    record = run / "checkpoints" / "7" / "_CHECKPOINT_METADATA"
    record.parent.mkdir(parents=True)
    record.write_text("written at one time")
    assert retranslated(run, lambda: record.write_text("written at another")) == ["es-en", "de-en", "en-de"]
    assert retranslated(run) == []


@pytest.mark.parametrize("content", ["", "{", "[]", '{"direction": "de-en"}'])
def test_a_damaged_result_is_made_again(run, content):
    assert retranslated(run, lambda: (results_folder(run) / "de-en.json").write_text(content)) == ["de-en"]


DECOMPOSED = ("Das Ger\u00e4t ist gr\u00fcn.", "The d\u0065\u0301vice\u200b is \u00adgreen &amp; red.")


def test_references_are_scored_in_the_form_of_hypotheses(run):
    class Perfect(FakeTranslator):
        def translate(self, lines, source, target, *, beam=None, progress=None):
            self.asked.append((f"{source}-{target}", beam))
            assert lines == ["Das Ger\u00e4t ist gr\u00fcn."]
            return ["The d\u00e9vice is green & red."]

    write_set(run / "own", {"de-en": [(DECOMPOSED[0].replace("\u00e4", "a\u0308"), DECOMPOSED[1])]})
    chosen = open_set(run, str(run / "own"))
    cell = evaluate(Perfect(), run, split=chosen).cells[0]
    assert (cell.bleu, cell.chrf) == (pytest.approx(100), pytest.approx(100))
    assert cell.bleu_signature.endswith("|norm:nfc")
    raw = evaluate(Perfect(), run, split=chosen, references="raw").cells[0]
    assert raw.bleu < 50
    assert raw.bleu_signature.endswith("|norm:raw")
    folded = Perfect()
    data = RECIPE.data.model_copy(update={"clean": CleanConfig(unicode="NFKC")})
    folded.recipe = RECIPE.model_copy(update={"data": data})
    assert evaluate(folded, run, split=chosen).cells[0].chrf_signature.endswith("|norm:nfkc")


def test_results_of_equal_text_stay_valid_and_say_what_was_asked_for(run):
    stored = results_folder(run) / "de-en.json"

    def before_there_was_a_form():
        stored.write_text(stored.read_text().replace("|norm:nfc", ""))

    assert retranslated(run, before_there_was_a_form) == []
    assert retranslated(run, references="raw") == []
    again = evaluate(FakeTranslator(), run, references="raw")
    assert {cell.bleu_signature.rpartition("|")[2] for cell in again.cells} == {"norm:raw"}


def test_damaged_hypotheses_are_made_again(run):
    hypotheses = results_folder(run) / "hypotheses"
    assert retranslated(run, lambda: (hypotheses / "de-en.txt").write_text("x\n")) == ["de-en"]
    assert retranslated(run, lambda: (hypotheses / "en-de.txt").unlink()) == ["en-de"]


def test_an_interrupted_evaluation_goes_on_where_it_was(run):
    with pytest.raises(KeyboardInterrupt):
        evaluate(FakeTranslator(fail_on="en-de"), run)
    assert not (results_folder(run) / "matrix.json").exists()
    fake = FakeTranslator()
    assert len(evaluate(fake, run).results) == 3
    assert [direction for direction, _ in fake.asked] == ["en-de"]


def test_a_write_that_fails_leaves_the_old_file_whole(run, monkeypatch):
    evaluate(FakeTranslator(), run)
    before = {path: path.read_bytes() for path in results_folder(run).rglob("*") if path.is_file()}

    def disk_full(path, content):
        Path(path).write_text("half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("etils.epath.gpath.PosixGPath.write_bytes", disk_full)
    with pytest.raises(OSError, match="No space"):
        evaluate(FakeTranslator(), run, force=True)
    assert {path: path.read_bytes() for path in results_folder(run).rglob("*") if path.is_file()} == before


def test_a_run_that_cannot_be_written_to_is_told_before_anything_is_translated(run):
    (run / "evaluation").write_text("a file")
    fake = FakeTranslator()
    with pytest.raises(UserError, match=r"cannot write results to .*evaluation/7/test: "):
        evaluate(fake, run)
    assert fake.asked == []


def test_calls_for_single_directions_build_up_one_matrix(run):
    for direction in ("de-en", "es-en"):
        asked_for = evaluate(FakeTranslator(), run, directions=[direction])
        assert [str(cell.direction) for cell in asked_for.cells] == [direction]
    stored = json.loads((results_folder(run) / "matrix.json").read_text())
    assert [result["direction"] for result in stored["results"]] == ["es-en", "de-en"]
    evaluate(FakeTranslator(), run, directions=["de-en"], beam=1)  # no longer comparable with es-en
    stored = json.loads((results_folder(run) / "matrix.json").read_text())
    assert [result["direction"] for result in stored["results"]] == ["de-en"]


def test_a_translator_that_loses_a_line_is_found_out(run):
    class Lossy(FakeTranslator):
        def translate(self, lines, source, target, *, beam=None, progress=None):
            return super().translate(lines, source, target)[1:]

    with pytest.raises(ValueError, match="3 sources, 2 hypotheses"):
        evaluate(Lossy(), run)


def test_results_survive_their_json(run):
    for result in evaluate(FakeTranslator(), run).results:
        assert DirectionResult.from_json(json.loads(json.dumps(result.to_json()))) == result


@pytest.mark.parametrize(("count", "expected"), [(1, [5]), (2, [2, 7]), (5, [1, 3, 5, 7, 9]), (99, list(range(10)))])
def test_samples_stand_at_even_distances(run, count, expected):
    write_set(run / "data" / "test", {"de-en": [(f"{i}", f"ref {i}") for i in range(10)]})
    matrix: Matrix = evaluate(FakeTranslator(), run, directions=["de-en"])
    samples = read_samples(matrix.folder, stored_set(run, "test"), DE_EN, count)
    assert samples == [(DE_EN, f"{i}", f"ref {i}", f"The house is {i}") for i in expected]


def test_a_tokenised_test_set_is_told_once_for_each_language(tmp_path):
    text = {
        "de-en": [("Das Haus ist rot.", "The house is red .")],
        "es-en": [("La casa , roja .", "The house is red .")],
    }
    write_set(tmp_path / "data" / "test", text)
    progress = RecordedProgress()
    evaluate(FakeTranslator(), tmp_path, progress=progress)
    assert [line for line in progress.lines if line.startswith("warning")] == [
        f"warning: the test set, {language}: 1 of 1 texts (100%) are tokenised, such as {text!r}; "
        "scores are those of such text"
        for language, text in (("en", "The house is red ."), ("es", "La casa , roja ."))
    ]
