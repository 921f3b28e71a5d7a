"""Text in, text out: the translator, splitting and joining, and nmt-translate down to the last byte."""

import gzip
import io
import itertools
import os
import re
import subprocess
import sys
import tracemalloc
import unicodedata
from dataclasses import fields
from pathlib import Path
from types import SimpleNamespace

import jax
import numpy as np
import orbax.checkpoint as ocp
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from nmt.cli import translate as command
from nmt.cli.translate_arguments.steering import SteeringArguments
from nmt.config import (
    DataConfig,
    DecodeConfig,
    ModelConfig,
    MoEConfig,
    Recipe,
    VocabConfig,
    VocabularySizes,
    save_recipe,
)
from nmt.corpora.clean.text import without_invisible
from nmt.data.vocab import Vocabulary, learn
from nmt.decode import stream
from nmt.decode.chunks import ChunkSizes
from nmt.decode.documents.plain import PlainLines
from nmt.decode.documents.units import decoded_lines
from nmt.decode.lines import LineForm, paragraphs
from nmt.decode.long_text import TextPart, join_translations, split_text
from nmt.decode.mbr import MinimumBayesRisk
from nmt.decode.steering.arrays import SteeringCompiler
from nmt.decode.steering.glossary import Glossary
from nmt.decode.steering.request import Steering
from nmt.decode.stream import StreamReport, translate_units
from nmt.decode.translator import Translation, Translator
from nmt.errors import UserError
from nmt.languages import Direction, get
from nmt.models.building import initialise
from nmt.models.weights import to_arrays
from nmt.sharding import make_mesh

SENTENCES = {
    "de": ["Das Haus ist alt.", "Wir gehen heute nach Hause.", "Der Hund schläft.", "Das Licht ist aus."],
    "en": ["The house is old.", "We are going home today.", "The dog sleeps.", "The light is off."],
    "zh-Hans": ["房子很旧。", "我们今天回家。", "狗在睡觉。", "灯关了。"],
}
TEXT = ["The house is old.", "The dog sleeps.", "We go home, the light is off."]


@pytest.fixture(scope="module")
def run_dir(tmp_path_factory):
    """A run whose model was never trained, with two checkpoints."""
    folder = tmp_path_factory.mktemp("runs") / "ünïcode run"
    recipe = Recipe(
        name="toy",
        data=DataConfig(corpora=("x",), directions=("de-en", "en-de", "zh-Hans-en"), source_length=16),
        vocab=VocabConfig(size=320),
        model=ModelConfig(
            width=16,
            hidden=16,
            heads=2,
            head_width=8,
            encoder_layers=1,
            decoder_layers=1,
            dtype="float32",
            moe=MoEConfig(experts=2, every=1),
        ),
        decode=DecodeConfig(beam=2, max_length_ratio=0.5, max_length_extra=3, batch_tokens=256),
    )
    save_recipe(recipe, folder)
    vocabulary = learn(SENTENCES, list(SENTENCES), recipe.vocab, folder / "vocab" / "vocab.model", seed=1)
    mesh = make_mesh()
    with jax.set_mesh(mesh), ocp.CheckpointManager(folder / "checkpoints") as manager:
        for step in (3, 7):
            _, parameters = initialise(recipe.model, VocabularySizes.shared(vocabulary.size), step, mesh)
            arrays = jax.tree.map(lambda x: 3 * x, to_arrays(parameters))
            manager.save(step, args=ocp.args.Composite(model=ocp.args.StandardSave(arrays)))
    return folder


@pytest.fixture(scope="module")
def translator(run_dir):
    return Translator(run_dir)


# The translator.


def test_every_line_has_its_translation(translator):
    alone = [translator.translate([line], "en", "de")[0] for line in TEXT]
    assert translator.translate(TEXT, "en", "de") == alone
    assert translator.translate(TEXT[::-1], "en", "de") == alone[::-1]
    assert len(set(alone)) > 1
    assert all(alone)


def test_several_hypotheses_of_a_line_are_ranked(translator):
    options = translator.options(num_hypotheses=2)
    first, copied, long = translator.translate_scored(
        [TEXT[0], "...", f"{TEXT[0]}\n{TEXT[1]}"], "en", "de", options=options
    )
    assert len(first.hypotheses) == 2
    assert first.hypotheses[0] == (first.text, first.score)
    assert first.hypotheses[1].score < first.score
    assert copied.hypotheses == ()
    assert [one.text.count("\n") for one in long.hypotheses] == [1, 1]


def test_texts_are_suppressed_at_the_beginning_of_words_and_within(translator):
    vocabulary = translator.vocabularies.target
    ways = tuple(vocabulary.encode(["Haus"])[0]), tuple(vocabulary.encode_inside("Haus"))
    assert translator._search_options(translator.options(suppress=("Haus", (7, 8)))).suppress == (*ways, (7, 8))


def test_blank_lines_among_others_stay_blank(translator):
    first, second, _ = translator.translate(TEXT, "en", "de")
    lines = ["", TEXT[0], " \t", "\u3000\u2028", TEXT[1], ""]
    assert translator.translate(lines, "en", "de") == ["", first, " \t", "\u3000\u2028", second, ""]
    assert [t.parts for t in translator.translate_scored(lines, "en", "de")] == [0, 1, 0, 0, 1, 0]


def test_blank_lines_do_not_touch_the_model(translator, monkeypatch):
    monkeypatch.setattr("nmt.decode.search.Searcher._advance", None)
    for lines in (["", "  ", "\u00a0"], ["\u200b\ufeff", "&#32;"], []):
        assert translator.translate(lines, "en", "de") == lines


COPIED = [
    "-",
    "...",
    "( )",
    "\U0001f600",
    "👩\u200d👩\u200d👧 ❤️",
    "♪",
    "—",
    "«»",
    "？！",
    "।",
    "&amp; &hellip;",
    "5",
    "№ 7",
    "10:30 – 12",
    "٣",
]


def test_lines_without_a_letter_are_copied(translator, monkeypatch):
    first, second = translator.translate(TEXT[:2], "en", "de")
    lines = [f"{TEXT[0]}\n\n - \n{TEXT[1]}", f"5\t{TEXT[1]}\t♪"]
    assert translator.translate(lines, "en", "de") == [f"{first}\n\n - \n{second}", f"5\t{second}\t♪"]
    monkeypatch.setattr("nmt.decode.search.Searcher._advance", None)
    given_ = [*COPIED, *(f"  {line} \u200b" for line in COPIED)]
    assert translator.translate(given_, "en", "de") == given_
    assert {t.parts for t in translator.translate_scored(given_, "en", "de")} == {0}


def test_letters_that_the_vocabulary_lacks_are_counted(translator):
    lines = ["The dog sleeps.", "Собака спит.", "The dog спит", "Ελλάδα 7", "12"]
    shares = [t.unknown for t in translator.translate_scored(lines, "en", "de")]
    assert shares == [0.0, 1.0, pytest.approx(4 / 10), 1.0, 0.0]


def test_the_target_language_matters_and_has_many_names(translator):
    german = translator.translate(TEXT, "en", "de")
    assert translator.translate(TEXT, "English", "deu_Latn") == german
    assert translator.translate(TEXT, "eng", "de-DE") == german
    assert translator.translate(TEXT, "en", "zh-CN") != german


def test_directions(translator):
    assert translator.languages == ("de", "en", "zh-Hans")
    assert translator.is_trained(translator.direction("German", "eng"))
    assert not translator.is_trained(translator.direction("en", "zh"))
    assert translator.direction("de_DE", "zh-CN") == Direction("de", "zh-Hans")


@pytest.mark.parametrize(
    ("source", "target", "message"),
    [
        ("en", "germn", "unknown language 'germn'; did you mean de"),
        ("en", "fr", "the model does not know fr.*it knows de, en, zh-Hans"),
        ("pt", "en", "the model does not know pt"),
        ("en", "eng_Latn", "the same: en"),
    ],
)
def test_languages_that_cannot_be(source, target, message, translator):
    with pytest.raises(UserError, match=message):
        translator.translate(["x"], source, target)


def test_options_of_the_search(translator):
    wide = translator.translate_scored(TEXT, "en", "de", beam=16)
    narrow = translator.translate_scored(TEXT, "en", "de", beam=1, length_penalty=0.6)
    assert sum(t.score for t in wide) > sum(t.score for t in narrow)
    plain = translator.translate_scored(TEXT, "en", "de", beam=1, length_penalty=0.0)
    assert [t.text for t in plain] == [t.text for t in narrow]
    assert all(a.score < b.score < 0 for a, b in zip(plain, narrow, strict=True))
    with pytest.raises(UserError, match=r"beam must be a whole number, at least 1 \(not 0\)"):
        translator.translate(TEXT, "en", "de", beam=0)
    with pytest.raises(UserError, match="length_penalty must be a number, at least 0"):
        translator.translate_scored(TEXT, "en", "de", length_penalty=-1)


def test_one_text_is_not_a_sequence_of_lines(translator):
    with pytest.raises(TypeError, match="not one text"):
        translator.translate("The house", "en", "de")


def test_progress_counts_lines(translator):
    told = []
    translator.translate([*TEXT, "", "The dog sleeps. " * 30], "en", "de", progress=told.append)
    assert told == sorted(told)
    assert told[-1] == 5


def test_long_lines_are_translated_in_parts(translator):
    long = " ".join(SENTENCES["en"] * 3)
    translation = translator.translate_scored([TEXT[0], long], "en", "de")[1]
    longest = translator.recipe.data.source_length - 2
    parts = split_text(long, longest, translator.vocabularies.source.encode, "en")
    assert translation.parts == len(parts) > 2
    assert translation.split
    whole = [word for ids in parts for word in translator.vocabularies.source.decode([ids.pieces])[0].split()]
    assert whole == long.split()
    alone = translator.translate_scored(translator.vocabularies.source.decode([p.pieces for p in parts]), "en", "de")
    assert translation.text == " ".join(t.text for t in alone)
    assert translation.score == pytest.approx(np.mean([t.score for t in alone]), rel=1e-4)


def test_a_stream_of_lines_is_translated_lazily(translator, monkeypatch):
    monkeypatch.setattr(type(translator), "translate_scored", lambda self, texts, *_, **__: in_capitals(texts))
    taken = []

    def endless():
        for number in itertools.count():
            taken.append(number)
            yield TEXT[number % 3] if number % 4 else "  "

    expected = [text.upper() for text in ["  ", *TEXT[1:], TEXT[0], "  ", TEXT[2]]]
    found = translator.translate_stream(endless(), "en", "de")
    assert taken == []
    assert [next(found) for _ in range(3)] == expected[:3]
    assert len(taken) <= 3
    one_by_one = translator.translate_stream(endless(), "en", "de", chunk_lines=1, beam=2)
    for number in range(6):
        assert (
            next(one_by_one) == translator.translate([next(itertools.islice(endless(), number, None))], "en", "de")[0]
        )
    assert list(translator.translate_scored_stream([], "en", "de")) == []
    for wrong, error, message in (
        (lambda: translator.translate_stream([], "en", "fr"), UserError, "does not know fr"),
        (lambda: translator.translate_stream([], "en", "de", chunk_lines=0), UserError, "at least 1"),
        (lambda: translator.translate_stream("text", "en", "de"), TypeError, "not one text"),
    ):
        with pytest.raises(error, match=message):
            wrong()


def test_checkpoints_differ_and_the_newest_is_taken(run_dir, translator):
    older = Translator(run_dir, step=3)
    assert (older.step, translator.step) == (3, 7)
    assert older.translate(TEXT, "en", "de") != translator.translate(TEXT, "en", "de")
    with pytest.raises(UserError, match=r"no checkpoint of step 5 \(it has 3, 7\)"):
        Translator(run_dir, step=5)


def test_a_translator_is_closed_at_the_end_of_a_block(run_dir):
    with Translator(run_dir) as translator:
        assert translator.languages
    for use in (lambda: translator.translate(["a b"], "en", "de"), lambda: translator.score(["a"], ["b"], "en", "de")):
        with pytest.raises(ValueError, match="the translator is closed"):
            use()
    translator.close()  # once more does no harm


def test_fewer_tokens_at_once_change_no_translation(translator):
    lines = ["a b c", "d e", "f"]
    few = translator.options(batch_tokens=16)
    assert translator.translate(lines, "en", "de", options=few) == translator.translate(lines, "en", "de")


def test_a_mesh_that_does_not_fit_here_does_not_matter(run_dir, translator, tmp_path):
    other = tmp_path / "run"
    other.mkdir()
    for name in ("vocab", "checkpoints"):
        (other / name).symlink_to(run_dir / name)
    recipe = translator.recipe
    mesh = recipe.mesh.model_copy(update={"data": 64, "expert": 8})
    save_recipe(recipe.model_copy(update={"mesh": mesh}), other)
    assert Translator(other).translate(TEXT, "en", "de") == translator.translate(TEXT, "en", "de")


def test_runs_that_are_none(run_dir, translator, tmp_path):
    with pytest.raises(UserError, match="is not a run directory"):
        Translator(tmp_path / "none")
    save_recipe(translator.recipe, tmp_path / "unborn")
    with pytest.raises(UserError, match="unborn has no checkpoint yet"):
        Translator(tmp_path / "unborn")
    (tmp_path / "unborn" / "vocab").symlink_to(run_dir / "vocab")
    with pytest.raises(UserError, match="unborn has no checkpoint yet"):
        Translator(tmp_path / "unborn")
    (tmp_path / "unborn" / "vocab").unlink()
    (tmp_path / "unborn" / "checkpoints").symlink_to(run_dir / "checkpoints")
    with pytest.raises(UserError, match=r"cannot read the vocabulary .*unborn/vocab/vocab\.model"):
        Translator(tmp_path / "unborn")


# Splitting and joining.


def by_characters(texts):
    """A vocabulary of characters without white space."""
    return [[ord(c) for c in text if not c.isspace()] for text in texts]


def shown(parts):
    return ["".join(map(chr, part.pieces)) + part.space for part in parts]


@pytest.mark.parametrize(
    ("text", "longest", "parts"),
    [
        ("short", 9, ["short"]),
        (" \t ", 9, []),
        ("Ab cd. Ef gh! Ij", 5, ["Abcd. ", "Efgh! ", "Ij"]),
        ("Ab cd. Ef. Gh! Ij", 8, ["Abcd.Ef. ", "Gh!Ij"]),  # neighbours that fit stay together
        ("He said “No.” Then, tired", 8, ["Hesaid ", "“No.” ", "Then, ", "tired"]),
        ("one, two three", 8, ["one, ", "twothree"]),
        ("3.14159 is pi", 7, ["3.14159 ", "ispi"]),  # a full stop without a space ends nothing
        ("abcdefgh ij", 3, ["ab", "cd", "ef", "gh ", "ij"]),
        ("你好。再见。早", 4, ["你好。", "再见。早"]),
        ("一二，三四五", 3, ["一二，", "三四五"]),
    ],
)
def test_text_is_cut_where_it_hurts_least(text, longest, parts):
    assert shown(split_text(text, longest, by_characters, "en")) == parts


def test_sentences_end_as_their_language_ends_them():
    german = "Das ist z. B. am 3. Oktober so. Dann nicht."
    assert shown(split_text(german, 30, by_characters, "de")) == ["Dasistz.B.am3.Oktoberso. ", "Dannnicht."]
    assert split_text("सूरज उगता है। चाँद छिपता है।", 14, by_characters, "hi")[0].text == "सूरज उगता है।"
    assert [part.text for part in split_text("Mr. Ng went. We too.", 12, by_characters, "en")] == [
        "Mr. Ng went.",
        "We too.",
    ]


@example("0. \ud800b c", 2)  # half a surrogate pair
@given(st.text(st.one_of(st.characters(), st.sampled_from(".!? ,;\n。、\u3000")), max_size=80), st.integers(1, 12))
def test_no_part_is_too_long_and_nothing_is_lost(text, longest):
    parts = split_text(text, longest, by_characters, "en")
    assert all(0 < len(part.pieces) <= longest for part in parts)
    assert [piece for part in parts for piece in part.pieces] == by_characters([text])[0]
    assert "".join(part.text + part.space for part in parts) in (text, "")
    assert bool(parts) == bool(text.strip())


def test_a_character_that_is_a_phrase_is_cut():
    parts = split_text(
        "a ﷺ b", 5, lambda texts: by_characters([unicodedata.normalize("NFKC", one) for one in texts]), "ar"
    )
    assert "".join(part.text + part.space for part in parts) == "a ﷺ b"
    assert max(len(part.pieces) for part in parts) == 5


@given(st.text(st.one_of(st.characters(), st.sampled_from(" \t\n\r\u2028")), max_size=40))
def test_paragraphs_are_the_text(text):
    found = list(paragraphs(text))
    assert "".join(one + space for one, space in found) == text
    assert all(not set(one) & set("\t\n\r\u2028\x85\x0c") for one, _ in found)


@pytest.mark.parametrize(
    ("source", "target", "spaced", "expected"),
    [
        ("en", "de", [True, True], "A B"),
        ("en", "de", [False, False], "AB"),  # within a word
        ("en", "zh", [True, True], "AB"),
        ("zh", "ja", [False, False], "AB"),
        ("zh", "en", [False, False], "A B"),
    ],
)
def test_parts_are_joined_as_the_target_is_written(source, target, spaced, expected):
    parts = [TextPart("a", " " * each, [1]) for each in spaced]
    assert join_translations(["A", "B"], parts, get(source), get(target)) == expected


# Streams: bytes in, bytes out.


def in_capitals(lines):
    return [Translation(without_invisible(line).upper(), -1.5, len(line.split()), split=" " in line) for line in lines]


def streamed(data, translate=in_capitals, **options):
    out, report = io.BytesIO(), StreamReport()
    lines = decoded_lines(io.BytesIO(data), report.undecodable)
    translate_units(
        PlainLines(lambda t: t.text).units(lines), lambda output, _: out.write(output), translate, report, **options
    )
    return out.getvalue(), report


@pytest.mark.parametrize(
    ("given_", "expected"),
    [
        (b"", b""),
        (b"\n", b"\n"),
        (b"a", b"A"),
        (b"a\nb", b"A\nB"),
        (b"a\nb\n", b"A\nB\n"),
        (b"a\r\n\r\nb\r\n", b"A\r\n\r\nB\r\n"),
        (b"a\r\r\n", b"A\r\r\n"),  # the first is white space after the text
        (b"a\n\n  \nb", b"A\n\n  \nB"),
        (b"  - a b\t \n\n\ta\r\n", b"  - A B\t \n\n\tA\r\n"),
        (b"\xef\xbb\xbfa\n\xef\xbb\xbfb\n", b"\xef\xbb\xbfA\nB\n"),
        (b"\xef\xbb\xbf\n a\n", b"\xef\xbb\xbf\n A\n"),
        (b"a\x00b\n", b"A\x00B\n"),
        ("a\u2028b\x85c\x0cd\x1ee\n".encode(), "A\u2028B\x85C\x0cD\x1eE\n".encode()),
        (b"a\xffb\nc\n", "A\ufffdB\nC\n".encode()),
    ],
)
def test_only_newlines_end_lines(given_, expected):
    assert streamed(given_)[0] == expected


def test_wrong_bytes_are_counted():
    report = streamed(b"a\n\xff\nb c\n\xe4\xb8\n")[1]
    assert (report.lines, report.texts, report.read, str(report.split)) == (4, 4, 11, "line 3")
    assert (report.undecodable.count, str(report.undecodable)) == (2, "lines 2 and 4")


def test_a_stream_is_read_in_chunks(monkeypatch):
    sizes = []

    def translate(lines):
        sizes.append(len(lines))
        return in_capitals(lines)

    data = b"".join(b"%d\n" % n for n in range(100, 200))
    assert streamed(data, translate, sizes=ChunkSizes(largest=40))[0] == data
    assert sizes == [16, 32, 40, 12]  # they grow
    assert streamed(data, translate, ready=lambda: False)[0] == data
    assert sizes[4:] == [1] * 100
    monkeypatch.setattr(stream, "CHUNK_BYTES", 7)
    assert streamed(data[:40], translate)[0] == data[:40]
    assert sizes[104:] == [2] * 5


def test_chunks_take_some_seconds():
    sizes = ChunkSizes(size=64, largest=512, seconds=8.0)
    found = []
    for texts, seconds in [(64, 1.0), (128, 0.0), (256, 5.0), (409, 32.0), (204, 4.0), (3, 1.0), (408, 1e3)]:
        sizes.adapt(texts, seconds)
        found.append(sizes.size)
    assert found == [128, 256, 409, 204, 408, 408, 204]


@pytest.mark.parametrize(
    ("line", "translation", "expected"),
    [
        ("A &amp; B", "C & D", "C &amp; D"),
        ("R&D &amp; B", "C & D", "C & D"),  # the line has both, so neither is its format's
        ("<b>A &amp; B</b>", "<b>C & D</b>", "<b>C &amp; D</b>"),
        ("1 &lt; 2 &gt; 0", "<&>", "&lt;&&gt;"),
        ("&quot;A&quot; &amp; B &apos;", "\"&lt;' &", "&quot;&amp;lt;&apos; &amp;"),
        ("&eacute; &#233; A", "é & <", "é & <"),
        ("  \u200f A\u00ad\t", "B", "   B\t"),
        ("A", "", ""),
        (" \u200b ", "", ""),
    ],
)
def test_a_translation_has_the_form_of_its_line(line, translation, expected):
    assert LineForm.read(line).apply(translation) == expected


def test_what_training_removes_translation_removes_too(translator):
    plain = translator.translate_scored(TEXT, "en", "de")
    for change in (
        lambda text: f"\ufeff{text}",
        lambda text: f"\u202a{text}\u202c\u200f",
        lambda text: "\u00ad".join(text),
        lambda text: text.replace("e", "e\u200b"),
        lambda text: text.replace("is", "&#105;s").replace("old", "&#x6F;ld"),
        lambda text: text.replace(" ", "\u00a0"),
    ):
        changed = translator.translate_scored(list(map(change, TEXT)), "en", "de")
        assert [t._replace(normalised=False) for t in changed] == plain
        assert [t.normalised for t in changed] == [change(text).split() != text.split() for text in TEXT]
    spaced = translator.translate([f" \u200b{text}\t" for text in TEXT], "en", "de")
    assert spaced == [f" {t.text}\t" for t in plain]
    composed = translator.translate(["Der Hund schläft."], "de", "en")
    assert translator.translate(["Der Hund schla\u0308ft."], "de", "en") == composed


# The command.


class Streams:
    """Standard streams of one run of the command in this process."""

    def __init__(self, monkeypatch, given_=b"", terminal=False):
        self.out, self.err = io.BytesIO(), io.StringIO()
        stdin = io.BytesIO(given_)
        monkeypatch.setattr(sys, "stdin", SimpleNamespace(buffer=stdin, isatty=lambda: terminal))
        monkeypatch.setattr(sys, "stdout", SimpleNamespace(buffer=self.out, isatty=lambda: False))
        monkeypatch.setattr(sys, "stderr", self.err)


def request(run_dir, **changes):
    """Arguments of the command by name, whatever their group."""
    values = {"run": str(run_dir), "source": "en", "target": "de"} | changes
    groups = {
        group.name: group.type(**{f.name: values.pop(f.name) for f in fields(group.type) if f.name in values})
        for group in fields(command.TranslateArguments)
    }
    assert not values
    return command.TranslateArguments(**groups)


@pytest.fixture
def loaded(translator, monkeypatch):
    """The command's own translator, loaded already; and its process left as it is."""
    monkeypatch.setattr("nmt.decode.translator.Translator", lambda run, step, precision: translator)
    monkeypatch.setattr(command, "prepare_process", lambda: None)


pieces_of_text = st.sampled_from([b"\n", b"\r", b"\r\n", b" ", b"\x00", b"\xff", b"The dog ", "é。\u2028\x85".encode()])


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.one_of(pieces_of_text, st.binary(max_size=8)), max_size=12).map(b"".join))
def test_as_many_lines_come_out_as_went_in(run_dir, loaded, data):
    with pytest.MonkeyPatch.context() as patch:
        streams = Streams(patch, data)
        command.run_translation(request(run_dir, beam=1))
    before, after = data.removeprefix(b"\xef\xbb\xbf").split(b"\n"), streams.out.getvalue().split(b"\n")
    assert len(before) == len(after)
    for line, translation in zip(before, after, strict=True):
        assert line.endswith(b"\r") == translation.endswith(b"\r")
        if not line.strip():
            assert translation == line
    assert ("not UTF-8" in streams.err.getvalue()) == any("\ufffd" in x.decode(errors="replace") for x in before)


def test_candidates_are_chosen_by_their_likeness_or_by_a_command(run_dir, loaded, translator, monkeypatch):
    samples = translator.options(sampling=True, epsilon=0.02, hypotheses=4, seed=5)
    (drawn,) = translator.translate_scored(TEXT[:1], "en", "de", options=samples)
    texts = [one.text for one in drawn.hypotheses]
    streams = Streams(monkeypatch, f"{TEXT[0]}\n".encode())
    command.run_translation(request(run_dir, mbr=4, seed=5, scores=True))
    score, chosen = streams.out.getvalue().decode().rstrip("\n").split("\t")
    assert chosen == texts[MinimumBayesRisk(4).rank(TEXT[:1], [texts])[0][0]]
    assert score in [f"{one.score:.4f}" for one in drawn.hypotheses if one.text == chosen]  # the model's own

    (searched,) = translator.translate_scored(TEXT[:1], "en", "de", options=translator.options(hypotheses=2))
    program = "import sys\nfor number, line in enumerate(sys.stdin): print(number)"  # prefers the last
    streams = Streams(monkeypatch, f"{TEXT[0]}\n".encode())
    command.run_translation(request(run_dir, rerank=f'"{sys.executable}" -c "{program}"'))
    assert streams.out.getvalue().decode() == searched.hypotheses[-1].text + "\n"


def test_files_scores_and_notes(run_dir, loaded, translator, tmp_path, monkeypatch):
    text, out = tmp_path / "in.txt", tmp_path / "out.txt"
    long = " ".join(SENTENCES["en"] * 3)
    text.write_bytes(f"{TEXT[0]}\n\n{long}\u200b".encode() + b"\n\xff\n")
    streams = Streams(monkeypatch)
    command.run_translation(request(run_dir, target="zh", file=str(text), output=str(out), scores=True))
    assert streams.out.getvalue() == b""
    lines = out.read_text().split("\n")
    first = translator.translate_scored([TEXT[0]], "en", "zh")[0]
    assert lines[0] == f"{first.score:.4f}\t{first.text}"
    assert lines[1] == "0.0000\t"
    assert len(lines) == 5
    notes = streams.err.getvalue().splitlines()
    assert len(notes) == 5
    assert "not trained on en-zh-Hans" in notes[0]
    assert "1 line was not UTF-8; U+FFFD stands for wrong bytes (line 4)" in notes[1]
    assert "1 line was longer than the 16 tokens" in notes[2]
    assert "1 line was brought to the form of the training text" in notes[3]
    assert "(line 3)" in notes[3]
    assert "2 lines were translated by something that repeats itself" in notes[4]  # the model was never trained
    assert "(lines 1 and 3)" in notes[4]


def test_a_file_that_fails_keeps_what_is_done_and_is_continued(run_dir, loaded, translator, tmp_path, monkeypatch):
    text, out = tmp_path / "in.txt", tmp_path / "out.txt.gz"
    text.write_text("".join(f"{TEXT[number % 3]}\n" for number in range(40)))
    out.write_bytes(b"before")
    real, asked = type(translator).translate_scored, []

    def fail(self, texts, *rest, **options):
        asked.append(len(texts))
        if len(asked) == 2:
            raise KeyboardInterrupt
        return real(self, texts, *rest, **options)

    monkeypatch.setattr(type(translator), "translate_scored", fail)
    streams = Streams(monkeypatch)
    with pytest.raises(KeyboardInterrupt):
        command.run_translation(request(run_dir, file=str(text), output=str(out)))
    assert out.read_bytes() == b"before"
    assert "out.txt.gz.partial keeps the first 16 lines" in streams.err.getvalue()
    with pytest.raises(UserError, match="has 16 lines for another set of options"):
        command.run_translation(request(run_dir, file=str(text), output=str(out), beam=1))
    with monkeypatch.context() as patch:
        patch.setattr(type(translator), "identity", "another")
        with pytest.raises(UserError, match="has 16 lines for another model"):
            command.run_translation(request(run_dir, file=str(text), output=str(out)))
    streams = Streams(monkeypatch)
    command.run_translation(request(run_dir, file=str(text), output=str(out)))
    assert asked[0] == 16
    assert sum(asked[2:]) == 40 - 16  # nothing twice
    assert "continuing" in streams.err.getvalue()
    assert gzip.decompress(out.read_bytes()).decode().splitlines() == translator.translate(TEXT * 14, "en", "de")[:40]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in.txt", "out.txt.gz"]


def test_a_full_disk_is_one_line(run_dir, loaded, monkeypatch):
    Streams(monkeypatch, b"-\n")
    with pytest.raises(UserError, match="cannot write /dev/full: no space left on the disk"):
        command.run_translation(request(run_dir, output="/dev/full"))


def test_a_long_file_takes_little_memory(run_dir, loaded, translator, tmp_path, monkeypatch):
    text, out = tmp_path / "in.txt", tmp_path / "out.txt"
    line = "The house is old. " * 100
    text.write_text("".join(f"{number} {line}\n" for number in range(4_000)))
    monkeypatch.setattr(type(translator), "translate_scored", lambda self, texts, *_, **__: in_capitals(texts))
    monkeypatch.setattr(stream, "CHUNK_BYTES", 1 << 17)
    monkeypatch.setattr("nmt.corpora.clean.signs.find_signs", lambda *_: ())
    Streams(monkeypatch)
    tracemalloc.start()
    try:
        command.run_translation(request(run_dir, file=str(text), output=str(out)))
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert text.stat().st_size > 7_000_000
    assert peak < 3 << 20
    assert out.read_text() == text.read_text().upper()


def test_a_terminal_is_answered_line_by_line(run_dir, loaded, translator, monkeypatch):
    streams = Streams(monkeypatch, f"{TEXT[0]}\n\n{TEXT[1]}".encode(), terminal=True)
    command.run_translation(request(run_dir))
    first, second = translator.translate(TEXT[:2], "en", "de")
    assert streams.out.getvalue().decode() == f"{first}\n\n{second}"
    prompts, *notes = streams.err.getvalue().splitlines()
    assert prompts == "en-de> " * 4
    assert all("repeats itself" in note for note in notes)  # the model was never trained


def command_of(*arguments, given_=b""):
    environment = os.environ | {"NMT_COMPILATION_CACHE": "0"}
    script = [sys.executable, "-m", "nmt.cli.translate", *map(str, arguments)]
    return subprocess.run(script, input=given_, capture_output=True, env=environment, check=False)


def test_the_command_translates(run_dir, translator):
    data = f"{TEXT[0]}\r\n\n{TEXT[1]}".encode()
    done = command_of(run_dir, "--from", "eng", "--to", "German", "-", given_=data)
    first, second = translator.translate(TEXT[:2], "en", "de")
    assert done.returncode == 0
    assert re.fullmatch(r"(nmt-translate: note: .* repeats itself: .*\n)?", done.stderr.decode())  # it was not trained
    assert done.stdout.decode() == f"{first}\r\n\n{second}"


def test_help_is_quick_because_it_imports_little():
    code = (
        "import sys, nmt.cli.translate as t\n"
        "heavy = {'jax', 'flax', 'orbax', 'sentencepiece', 'numpy', 'rich'} & set(sys.modules)\n"
        "assert not heavy, heavy\n"
        "sys.argv = ['nmt-translate', '--help']\n"
        "try:\n    t.main()\nfinally:\n    print({'jax', 'numpy', 'sentencepiece'} & set(sys.modules))\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.endswith("set()\n")
    for option in ("--from", "--to", "--output", "--beam", "--length-penalty", "--step", "--scores"):
        assert option in done.stdout


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("none", "--from", "en", "--to", "de"), "none is not a run directory"),
        (("RUN", "--from", "en", "--to", "fr"), "the model does not know fr"),
        (("RUN", "--from", "englsh", "--to", "de"), "did you mean en"),
        (("RUN", "--from", "en", "--to", "en"), "the same"),
        (("RUN", "--from", "en", "--to", "de", "none.txt"), "cannot read none.txt: there is no such file"),
        (("RUN", "--from", "en", "--to", "de", "."), "cannot read .: it is a folder"),
        (("RUN", "--from", "en", "--to", "de", "-o", "none/out.txt"), "there is no folder none"),
        (("RUN", "--from", "en", "--to", "de", "-o", "."), "cannot write .: it is a folder"),
        (("RUN", "--from", "en"), "--to"),
        (("RUN", "--from", "en", "--to", "de", "--beam", "0"), "--beam"),
        (("RUN", "--from", "en", "--to", "de", "--align", "--hypotheses", "2"), "--format jsonl"),
        (("RUN", "--from", "en", "--to", "de", "--bean", "1"), "--bean"),
        ((), "RUN"),
    ],
)
def test_mistakes_are_one_line(arguments, message, run_dir, tmp_path, monkeypatch, capfd):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["nmt-translate", *(str(run_dir) if a == "RUN" else a for a in arguments)])
    monkeypatch.setattr(command, "prepare_process", lambda: pytest.fail("too late"))
    with pytest.raises(SystemExit) as end:
        command.main()
    assert end.value.code == 2
    out, err = capfd.readouterr()
    assert out == ""
    assert err.startswith("nmt-translate: error: ")
    assert err.count("\n") == 1
    assert message in err
    assert list(Path().iterdir()) == []


# Steering.


def steered(translator, lines):
    terms = Glossary.parse([b"dog\tHund"], "terms")
    steering = Steering(force=["Licht|ist"], forbid=["Haus"], glossary=terms, prefix="Das ")
    return translator.translate_scored(lines, "en", "de", steering=steering)


def test_translations_are_steered_and_keep_placeholders(translator):
    lines = ["The dog", "", "A {dog} %s", "The dog {a}", "dogs"]
    found = steered(translator, lines)
    for line, one in zip(lines, found, strict=True):
        words = re.findall(r"\w+", one.text)
        assert one.text.startswith("Das ") == bool(line)
        assert bool({"Licht", "ist"} & set(words)) == bool(line)
        assert "Haus" not in words
        assert ("Hund" in words) or "The dog" not in line
        assert all(span in one.text for span in re.findall(r"\{\w*\}|%s", line))  # in a second search
        assert one.lost_spans == ()
    assert steered(translator, [lines[4], lines[0]]) == [found[4], found[0]]


def test_scores_of_steered_translations_are_the_models(translator):
    compiler = SteeringCompiler(translator.vocabularies.target)
    planner = compiler.planner(Steering(force=["Licht|ist"], prefix="Das ", phrase_bonus=50.0))
    vocabulary, texts = translator.vocabularies.source, ["The dog", "A {dog} %s"]
    sources = [[vocabulary.tag("de"), *pieces, vocabulary.end] for pieces in vocabulary.encode(texts)]
    plans = compiler.sentences([planner.plan(text) for text in texts])
    found = [one[0] for one in translator._searcher.search(sources, steering=plans)]
    scores = translator._searcher.score(sources, [one.tokens for one in found])
    assert [one.log_probability for one in found] == pytest.approx(scores, abs=1e-3)
    assert all(one.score > one.log_probability for one in found)  # divided by the length, without any bonus


def test_mistakes_of_steering_come_before_the_model(run_dir, tmp_path):
    glossary = tmp_path / "terms.tsv"
    glossary.write_text("dog\n")
    for arguments, message in (
        ({"glossary": str(glossary)}, f"{glossary} line 1 has 1 column"),
        ({"glossary": str(tmp_path / "none")}, "cannot read the glossary"),
        ({"prefix_bias_beta": 0.5}, "--prefix-bias-beta has an effect on a prefix only"),
        ({"glossary_mode": "prefer"}, "--glossary-mode has an effect on a glossary only"),
        ({"force": ["Haus"], "forbid": ["Haus"]}, "'Haus' is wanted, but 'Haus' is forbidden"),
        ({"keep_pattern": "("}, "'(' is not a regular expression"),
    ):
        request = SteeringArguments(**arguments)
        with pytest.raises(UserError) as error:
            request.check(lambda: Vocabulary.load(run_dir / "vocab" / "vocab.model"))
        assert str(error.value).startswith(message)
        assert "\n" not in str(error.value)
