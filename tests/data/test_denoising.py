"""Monolingual text: from its declaration to masked examples among the others."""

import gzip
import json
import lzma
import random
from collections import Counter
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from synthetic import lexicon, sentence, translation
from toy_corpus import write_spec
from toy_run import EN_ES, ES_EN, declared, drawn, prepared, recipe_of, segments

from nmt.config import DataConfig
from nmt.config.directions import expand_languages
from nmt.config.schema_denoise import DenoiseConfig
from nmt.config.schema_mixture import MixtureConfig, StageConfig
from nmt.corpora import load_spec
from nmt.corpora.counts import count_corpus
from nmt.corpora.opening import open_corpus
from nmt.data.denoising import Denoiser
from nmt.data.mixture import Mixture, denoising_directions, mixing_table
from nmt.data.order import DrawnExamples
from nmt.data.pipeline import dev_batches, enter_stage, train_batches
from nmt.errors import UserError
from nmt.languages import Direction, parse_stream
from nmt.recipes.stages import recipe_languages
from nmt.sharding.hosts import HostShard

ES_ES = Direction("es", "es")
MASK, MARK = 7, 9
CONFIG = DenoiseConfig(languages=("es",))


# The noise.


def window(count, stream=3, begin=0):
    numbers = np.arange(begin, begin + count)
    return DrawnExamples(np.full(count, stream), numbers, numbers)


def masked(denoiser, window, texts):
    """The sources of texts, each without its mark, and the lengths that were foretold."""
    lengths = np.array([len(text) + 1 for text in texts])
    flat = np.array([piece for text in texts for piece in (MARK, *text)], np.int32)
    found, now = denoiser.mask_sources(window, flat, lengths)
    assert len(found) == now.sum()
    parts = np.split(found, np.cumsum(now)[:-1])
    mine = window.stream >= 3
    assert all(part[0] == MARK for part in parts)
    assert np.array_equal(now, denoiser.lengths(window, lengths))
    assert np.array_equal(now[~mine], lengths[~mine])
    return [part[1:].tolist() for part in parts]


@settings(max_examples=80)
@given(
    st.lists(st.integers(1, 60), min_size=1, max_size=8),
    st.floats(0.01, 0.99),
    st.floats(0.1, 20),
    st.integers(0, 10**9),
)
def test_what_is_not_masked_stays_in_order(sizes, share, span, begin):
    texts = [[100 + 61 * number + place for place in range(size)] for number, size in enumerate(sizes)]
    denoiser = Denoiser(3, MASK, DenoiseConfig(mask=share, span=span), seed=5)
    for text, found in zip(texts, masked(denoiser, window(len(sizes), begin=begin), texts), strict=True):
        kept = [piece for piece in found if piece != MASK]
        gone = len(text) - len(kept)
        assert kept == sorted(set(kept) & set(text))
        assert len(found) <= len(text)
        if len(text) == 1:
            assert found == text
            continue
        assert max(1, int(share * len(text))) - 1 <= gone <= share * len(text) + 1
        assert 1 <= gone < len(text)
        # A piece that is gone stands in a span: there is a mask between its neighbours.
        ends = [text[0] - 1, *kept, text[-1] + 1]
        holes = [right - left > 1 for left, right in pairwise(ends)]
        between = "".join("m" if piece == MASK else "k" for piece in found).split("k")
        assert all(masks for hole, masks in zip(holes, between, strict=True) if hole)


def test_share_and_spans_are_as_asked_for():
    pieces, count = 400, 300
    texts = [list(range(100, 100 + pieces))] * count
    found = masked(Denoiser(3, MASK, CONFIG, seed=2), window(count), texts)
    gone = np.array([pieces - sum(piece != MASK for piece in text) for text in found])
    assert gone.mean() / pieces == pytest.approx(0.35, abs=1e-3)
    masks = np.array([text.count(MASK) for text in found])
    assert (gone / masks).mean() == pytest.approx(3.5, rel=0.03)
    # Away from the ends, where fewer spans reach, all pieces are masked as often.
    times = np.zeros(pieces)
    for text in found:
        times[[piece - 100 for piece in text if piece != MASK]] += 1
    assert np.abs(times / count - 0.65)[10:-10].max() < 5 * np.sqrt(0.35 * 0.65 / count)


def test_lengths_of_spans_are_poisson():
    denoiser = Denoiser(3, MASK, DenoiseConfig(mask=0.5, span=3.5), seed=2)
    noise = denoiser._noise(np.full(40, 4000), denoiser._keys(window(40)))
    ends = np.cumsum(noise.spans) - 1
    lengths = np.delete(noise.lengths, ends)  # the last of a text is cut
    found = np.bincount(np.minimum(lengths, 10), minlength=11)
    terms = np.cumprod([np.exp(-3.5), *(3.5 / k for k in range(1, 10))])
    wanted = len(lengths) * np.array([*terms, 1 - terms.sum()])
    assert ((found - wanted) ** 2 / wanted).sum() < 35.6  # 10 degrees of freedom, probability 0.0001


def test_noise_depends_on_seed_stream_and_occurrence_alone():
    text = list(range(100, 160))

    def of(seed, stream, occurrence):
        return masked(Denoiser(3, MASK, CONFIG, seed), window(1, stream, occurrence), [text])[0]

    many = masked(Denoiser(3, MASK, CONFIG, 1), window(20), [text] * 20)
    assert many == [of(1, 3, occurrence) for occurrence in range(20)]
    assert len({json.dumps(one) for one in (*many, of(2, 3, 0), of(1, 4, 0))}) == 22


def test_other_streams_are_left_alone():
    mixed = DrawnExamples(np.array([0, 3, 2, 4]), np.arange(4), np.arange(4))
    texts = [list(range(100, 100 + size)) for size in (5, 30, 1, 20)]
    found = masked(Denoiser(3, MASK, CONFIG, 1), mixed, texts)
    assert [found[0], found[2]] == [texts[0], texts[2]]
    assert MASK in found[1]
    assert MASK in found[3]


# The mixture.


def data_of(languages=("es", "de"), directions=("es-en", "en-es"), mixture=None, **denoise):
    section = DenoiseConfig(languages=languages, **denoise)
    return DataConfig(
        corpora=("x",), directions=directions, temperature=1.0, denoise=section, mixture=mixture or MixtureConfig()
    )


def test_denoising_has_a_share_a_temperature_and_weights_of_its_own():
    pairs = {ES_EN: 300, EN_ES: 100}
    found = Mixture(pairs, data_of(share=0.2, temperature=2.0, weights=("German=3",)), (400, 100)).all_shares(0)
    assert found == pytest.approx([0.8 * 0.75, 0.8 * 0.25, 0.2 * 20 / 50, 0.2 * 30 / 50])
    found = Mixture(pairs, data_of(share=0.5), (400, 0)).all_shares(0)
    assert found == pytest.approx([0.375, 0.125, 0.5, 0])
    assert Mixture(pairs, data_of(), (0, 0)).all_shares(0) == pytest.approx([0.75, 0.25, 0, 0])
    assert Mixture(pairs, data_of()).all_shares(0) == pytest.approx([0.75, 0.25])


def test_a_stage_may_have_another_share():
    stages = (StageConfig(denoise=0.9, steps=100), StageConfig(denoise=0.0, directions=("*-en",)))
    mixture = Mixture({ES_EN: 1, EN_ES: 1}, data_of(mixture=MixtureConfig(stages=stages)), (1, 1))
    assert mixture.all_shares(0, 0) == pytest.approx([0.05, 0.05, 0.45, 0.45])
    assert mixture.all_shares(0, 1) == pytest.approx([1, 0, 0, 0])
    assert mixture.mean(200) == pytest.approx([0.525, 0.025, 0.225, 0.225])
    assert mixture.members(0) == [ES_EN, EN_ES]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"weights": ("fr=2",)}, "data.denoise.weights: fr is none of data.denoise.languages es,de"),
        ({"languages": ("es", "Spanish")}, "data.denoise.languages: es is given twice"),
        ({"languages": ("es", "xqx")}, "unknown language 'xqx'"),
    ],
)
def test_a_mistake_in_the_keys_is_said(change, message):
    with pytest.raises(UserError, match=message):
        Mixture({ES_EN: 1}, data_of(**change), (1, 1))


def test_a_stream_is_written_like_a_direction():
    assert parse_stream("zh-Hans-zh-Hans") == Direction("zh-Hans", "zh-Hans")
    assert parse_stream("deu-deu") == Direction("de", "de")
    assert parse_stream("de-en") == Direction("de", "en")
    with pytest.raises(UserError, match="unknown language"):
        parse_stream("xqx-xqx")


# Declarations and forms.

TEXTS = {"es": ["cinco seis siete ocho", "uno dos tres cuatro"], "de": ["eins zwei drei vier"]}


def alone(folder, name, read, **more):
    values = {
        "name": name,
        "licence": "CC0-1.0",
        "obtain": {"kind": "files", "folder": str(folder)},
        "read": read,
        "monolingual": True,
    }
    return write_spec(folder, values | more, f"{name}.yaml")


def found_in(path, wanted=("es", "de")):
    with open_corpus(path) as corpus:
        rows = list(corpus.rows(wanted))
        assert all(not row.translations and row.component == row.text for row in rows)
        return {language: sorted(row.text for row in rows if row.language == language) for language in wanted}, corpus


def test_lines_plain_and_compressed(tmp_path):
    (tmp_path / "news.es.txt").write_bytes(b"\xef\xbb\xbf" + b"\n".join([*map(str.encode, TEXTS["es"]), b"\xff\xfe"]))
    (tmp_path / "news.deu.txt.gz").write_bytes(gzip.compress("\n".join(TEXTS["de"]).encode() + b"\n"))
    files = ["news.{language}.txt", "news.{language}.txt.gz"]
    path = alone(tmp_path, "news", {"kind": "text", "files": files})
    found, corpus = found_in(path)
    assert found == TEXTS
    assert corpus.skipped == {"line that is not UTF-8, first at news.es.txt:3": 1}
    assert corpus.has("es", "es")
    assert not corpus.has("es", "de")
    assert found_in(path, ("de",))[0] == {"de": TEXTS["de"]}
    counted = count_corpus(load_spec(path))
    assert (counted.rows, counted.pairs) == (3, {"es": 2, "de": 1})
    single = alone(tmp_path, "one", {"kind": "text", "files": "news.es.txt", "key_language": "Spanish"})
    assert found_in(single, ("es",))[0] == {"es": TEXTS["es"]}


def test_columns_and_tables(tmp_path):
    for language, texts in TEXTS.items():
        lines = [json.dumps({"doc": {"text": text}, "id": 1}) + "\n" for text in texts]
        (tmp_path / f"web.{language}.jsonl.xz").write_bytes(lzma.compress("".join(lines).encode()))
    read = {"kind": "jsonl", "files": "web.{language}.jsonl.xz", "columns": {"language": "doc.text"}}
    assert found_in(alone(tmp_path, "web", read))[0] == TEXTS
    # Columns of two languages, one of them empty in a row: no translations of each other.
    (tmp_path / "both.tsv").write_text(f"de\tes\n{TEXTS['de'][0]}\t{TEXTS['es'][0]}\n\t{TEXTS['es'][1]}\n")
    read = {"kind": "tsv", "files": "both.tsv", "header": True, "key_language": "de"}
    assert found_in(alone(tmp_path, "both", read))[0] == TEXTS
    for language, texts in TEXTS.items():
        (tmp_path / f"{language}.json").write_text(json.dumps(dict(enumerate(texts))))
    read = {"kind": "json_tables", "files": "{language}.json", "key_language": "de"}
    assert found_in(alone(tmp_path, "tables", read), ("es",))[0]["es"] == TEXTS["es"][:1]
    assert found_in(alone(tmp_path, "tables", read), ("de",))[0] == {"de": TEXTS["de"]}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"monolingual": False, "split": {"by": "text", "test": 1, "dev": 2}}, "text has no translations: say mono"),
        ({"read": {"kind": "parallel_text", "files": "{language}"}}, "is of pairs: .* lines is read.kind: text"),
        ({"synthetic": True}, "no translations that could be synthetic"),
        ({"split": {"by": "text", "test": 1, "dev": 2}}, "leave split out"),
    ],
)
def test_a_declaration_that_contradicts_itself(tmp_path, change, message):
    with pytest.raises(UserError, match=message):
        load_spec(alone(tmp_path, "news", **{"read": {"kind": "text", "files": "{language}.txt"}} | change))


def test_a_star_is_what_monolingual_corpora_cover(tmp_path):
    read = {"kind": "text", "files": "{language}.txt"}
    news = alone(tmp_path, "news", read, covers=["es", "de"])
    silent = alone(tmp_path, "silent", read)
    assert expand_languages(("fr", "*"), [news]) == ("fr", "es", "de")
    assert expand_languages(("fr",), [silent]) == ("fr",)
    with pytest.raises(UserError, match=r"no declaration of a monolingual corpus among .* has a list covers"):
        expand_languages(("*",), [silent])


# From text to batches.

HELD_OUT = 3


@pytest.fixture(scope="module")
def made(folder):
    """A prepared run of pairs and of Spanish and German text, of which some must not be learnt from."""
    talks, pairs = declared(folder, "talks", 2)
    generator = random.Random(8)
    texts = {}
    for language, size in (("es", 90), ("de", 40)):
        texts[language] = list(dict.fromkeys(translation(sentence(generator, lexicon()), "es") for _ in range(size)))
        lines = [*texts[language], texts[language][0], "kurz", "<b>eins</b> zwei drei vier fünf"]
        if language == "es":
            lines += (folder / "talks.test.es").read_text().splitlines()[:HELD_OUT]
        (folder / f"news.{language}.txt").write_text("".join(f"{line}\n" for line in lines))
    news = alone(folder, "news", {"kind": "text", "files": "news.{language}.txt"}, covers=["es", "de"])
    recipe = recipe_of(folder, news, talks, denoise={"languages": ("es", "de"), "share": 0.4}, shuffle_window=128)
    preparation, vocabularies = prepared(recipe)
    return recipe, preparation, vocabularies.source, texts, pairs


def test_rejections_are_counted_and_held_out_text_is_not_learnt(made):
    recipe, preparation, vocabulary, texts, _ = made
    stats = preparation.stats(preparation.vocabularies()).directions
    assert list(stats) == ["es-en", "en-es", "es-es", "de-de"]
    assert stats["es-es"].splits.keys() == {"train"}
    assert stats["es-es"].splits["train"].pairs == len(texts["es"])
    assert stats["es-es"].rejected == {
        "placeholder": 1, "too_short": 1, "duplicate": 1, "held_out": HELD_OUT, "too_many_tokens": 0
    }  # fmt: skip
    assert vocabulary.symbols == ("<denoise>", "<mask>")
    assert recipe_languages(recipe) == ["de", "en", "es"]
    assert not (preparation.store / "test" / "es-es.jsonl").exists()
    assert preparation.corpus().samples[ES_ES]
    assert all(not target for pairs in preparation.corpus().samples[ES_ES].values() for _, target in pairs)


def test_pairs_are_as_they_are_without_the_text(folder, made):
    _, preparation, _, _, pairs = made
    corpus = preparation.corpus()
    assert sorted(corpus.pairs[ES_EN]["train"]) == sorted(pairs)
    talks = load_spec(str(folder / "talks.yaml"))
    assert {split: size.pairs for split, size in corpus.sizes[ES_EN].items()} == {
        "train": len(pairs), "dev": 4, "test": 4
    }  # fmt: skip
    assert talks.monolingual is False


def stream(made, host=0, hosts=1, **changes):
    recipe, preparation, *_ = made
    data = recipe.data.model_copy(update=changes)
    both = preparation.vocabularies()
    return train_batches(preparation.store, [ES_EN, EN_ES], data, 64, 1, HostShard(host, hosts), both)


def test_sources_are_masked_and_targets_are_whole(made):
    _, _, vocabulary, texts, _ = made
    denoise, mask = vocabulary.symbol("<denoise>"), vocabulary.symbol("<mask>")
    wanted = {
        vocabulary.tag(language): {tuple(ids) for ids in vocabulary.encode(texts[language])} for language in texts
    }
    batches = stream(made)
    found = drawn(batches, 12)
    batches.close()
    counts, sources = Counter(), Counter()
    for batch in found:
        for source, target in segments(batch):
            if source[1] != denoise:
                assert mask not in source
                counts["pair"] += 1
                continue
            counts[source[0]] += 1
            sources[tuple(source)] += 1
            assert target[-1] == source[-1] == 2
            assert tuple(target[:-1]) in wanted[source[0]]
            kept = iter(target[:-1])
            assert all(piece in kept for piece in source[2:-1] if piece != mask)
            assert mask in source
        numbers = set(np.unique(batch.direction[batch.tgt_segment > 0]))
        assert numbers == {0, 1, 2, 3}
    total = counts.total()
    assert 1 - counts["pair"] / total == pytest.approx(0.4, abs=0.02)
    # T = 5, and other masks every time.
    sizes = [len(texts[language]) ** 0.2 for language in ("es", "de")]
    assert counts[vocabulary.tag("es")] / counts[vocabulary.tag("de")] == pytest.approx(sizes[0] / sizes[1], rel=0.1)
    assert len(sources) > 5 * sum(map(len, texts.values()))


def test_it_resumes_exactly_and_is_the_same_on_any_number_of_hosts(made):
    def same(left, right):
        return all(np.array_equal(getattr(left, name), getattr(right, name)) for name in vars(left))

    whole = stream(made)
    first = drawn(whole, 5)
    state = json.loads(json.dumps(whole.get_state()))
    rest = drawn(whole, 6)
    whole.close()
    again = stream(made)
    again.set_state(state)
    assert all(map(same, drawn(again, 6), rest))
    again.close()
    shares = []
    for host in range(4):
        iterator = stream(made, host, 4)
        shares.append(drawn(iterator, 5))
        iterator.close()
    for number, batch in enumerate(first):
        for name in vars(batch):
            parts = np.concatenate([getattr(share[number], name) for share in shares])
            assert np.array_equal(getattr(batch, name), parts)


def test_rows_are_full_though_sources_shrink(made):
    batches = stream(made)
    fills = [
        [np.mean(segment > 0) for segment in (batch.src_segment, batch.tgt_segment)] for batch in drawn(batches, 8)
    ]
    batches.close()
    assert np.mean(fills, axis=0).max() > 0.9


def test_it_goes_with_augmentation_and_stages(made):
    recipe, _, vocabulary, texts, _ = made
    augment = recipe.data.augment.model_copy(update={"upper": 0.999})
    stages = (StageConfig(denoise=0.9, steps=4), StageConfig(denoise=0.0))
    mixture = recipe.data.mixture.model_copy(update={"stages": stages})
    batches = stream(made, augment=augment, mixture=mixture)
    denoise = vocabulary.symbol("<denoise>")
    share = np.mean([pair[0][1] == denoise for batch in drawn(batches, 4) for pair in segments(batch)])
    assert share == pytest.approx(0.9, abs=0.03)
    targets = [target for source, target in segments(next(batches)) if source[1] == denoise]
    upper = {text.upper() for of in texts.values() for text in of}
    assert np.mean([vocabulary.decode([target])[0] in upper for target in targets]) > 0.8
    batches.set_state(enter_stage(batches.get_state(), 1, 4))
    found = [source[1] == denoise for batch in drawn(batches, 12)[-4:] for source, _ in segments(batch)]
    batches.close()
    assert not any(found)


def test_development_has_no_denoising(made):
    recipe, preparation, vocabulary, *_ = made
    for batch in dev_batches(preparation.store, [ES_EN, EN_ES], recipe.data, 8):
        assert not np.isin(batch.src, [vocabulary.symbol("<denoise>"), vocabulary.symbol("<mask>")]).any()


def test_the_mixing_table_has_it(made):
    recipe, preparation, _, texts, _ = made
    stats = preparation.stats(preparation.vocabularies())
    rows = mixing_table(stats, [ES_EN, EN_ES], recipe.data, 64, 100)
    assert [str(row.direction) for row in rows] == ["es-en", "en-es", "es-es", "de-de"]
    assert sum(row.share for row in rows[2:]) == pytest.approx(0.4)
    batches = stream(made)
    examples = sum(1 for batch in drawn(batches, 100) for _ in segments(batch))
    batches.close()
    assert sum(row.examples for row in rows) == pytest.approx(examples, rel=0.12)
    assert rows[2].epochs == pytest.approx(rows[2].examples / len(texts["es"]))


def test_keys_and_corpora_that_do_not_go_together(folder, made):
    news, talks = str(folder / "news.yaml"), str(folder / "talks.yaml")
    with pytest.raises(UserError, match=r"news among .* is monolingual: say with .* which languages"):
        prepared(recipe_of(folder / "a", news, talks))
    with pytest.raises(UserError, match=r"no declaration among data\.corpora says monolingual"):
        prepared(recipe_of(folder / "b", talks, denoise={"languages": ("es",)}))
    with pytest.raises(UserError, match="no text for the direction en-en: corpus news"):
        prepared(recipe_of(folder / "c", news, talks, denoise={"languages": ("en",)}))
    with pytest.raises(ValueError, match="denoising needs the vocabularies"):
        train_batches(made[1].store, [ES_EN, EN_ES], made[0].data, 64, 1)


def test_a_recipe_without_it_is_as_before(folder):
    talks, _ = declared(folder, "talks", 2)
    recipe = recipe_of(folder / "plain", talks)
    assert recipe.data.streams == recipe.data.directions
    assert denoising_directions(recipe.data) == ()
    _, (vocabulary, _) = prepared(recipe)
    assert vocabulary.symbols == ()
