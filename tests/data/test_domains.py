"""Corpora that declare a kind of text: the symbols of their pairs, from declarations to batches."""

from collections import Counter

import numpy as np
import pytest
from etils import epath
from toy_run import EN_ES, ES_EN, declared, drawn, prepared, recipe_of, segments

from nmt.config.schema_augment import AugmentConfig
from nmt.data.augment import Augmenter
from nmt.data.pipeline import dev_batches, train_batches
from nmt.data.store import RowLengths, read_text
from nmt.data.vocabularies import Vocabularies
from nmt.errors import UserError
from nmt.progress import SILENT
from nmt.recipes.stages import RunPreparation


@pytest.fixture(scope="module")
def made(folder):
    """A prepared run of two corpora, of which one has a domain; and the pairs of both."""
    (laws, of_laws), (talks, of_talks) = declared(folder, "laws", 1, domain="legal"), declared(folder, "talks", 2)
    recipe = recipe_of(folder, laws, talks, domain_tags=True)
    return recipe, *prepared(recipe), of_laws, of_talks


def test_training_pairs_have_the_symbol_of_their_corpus(made):
    recipe, preparation, (vocabulary, _), of_laws, of_talks = made
    assert vocabulary.symbols == ("<domain:legal>",)
    symbol = vocabulary.symbol("<domain:legal>")
    assert symbol == 6 == vocabulary.first_piece - 1
    assert vocabulary.kind(symbol) == "control"
    batches = train_batches(preparation.store, [ES_EN, EN_ES], recipe.data, 64, 1)
    found = {(tuple(source), tuple(target)) for batch in drawn(batches, 8) for source, target in segments(batch)}
    batches.close()
    expected = set()
    for pairs, mark in ((of_laws, [symbol]), (of_talks, [])):
        for spanish, english in pairs:
            for source, target, tag in ((spanish, english, "en"), (english, spanish, "es")):
                pieces = vocabulary.encode([source, target])
                expected.add(((vocabulary.tag(tag), *mark, *pieces[0], 2), (*pieces[1], 2)))
    assert found == expected


def test_development_pairs_have_none(made):
    recipe, preparation, (vocabulary, _), *_ = made
    sources = [
        source for batch in dev_batches(preparation.store, [ES_EN], recipe.data, 4) for source, _ in segments(batch)
    ]
    assert len(sources) == 8
    assert all(min(source[1:-1]) >= vocabulary.first_piece for source in sources)


def test_augmentation_keeps_the_symbol(made):
    _, _, vocabularies, of_laws, _ = made
    source, target = vocabularies.source.encode(of_laws[0])
    symbol = vocabularies.source.symbol("<domain:legal>")
    augmenter = Augmenter(vocabularies, AugmentConfig(upper=0.999999), 1)
    changed = augmenter.change(0, 0, [symbol, *source], target, RowLengths(200, 200))
    assert changed[0] == [symbol, *vocabularies.source.encode([of_laws[0][0].upper()])[0]]
    assert augmenter.change(0, 1, [symbol, *source], target, RowLengths(9, 200))[0] == [symbol, *source]


def test_without_the_key_nothing_is_marked(made, folder):
    recipe = made[0]
    data = recipe.data.model_copy(update={"domain_tags": False})
    plain = recipe.model_copy(update={"data": data, "run_dir": str(folder / "plain")})
    _, vocabularies = prepared(plain)
    assert vocabularies.source.symbols == ()
    preparation = RunPreparation(recipe, epath.Path(folder / "plain"), SILENT)
    with pytest.raises(UserError, match=r"prepared from another input \(changed: .*domains"):
        preparation.stats(vocabularies)


def test_domains_that_cannot_be(made, folder):
    recipe, _, vocabularies, *_ = made
    talks = recipe.data.corpora[1]
    with pytest.raises(UserError, match="no declaration among talks says a domain"):
        prepared(recipe_of(folder, talks, domain_tags=True))
    with pytest.raises(UserError, match=r"back_translated is given, but no declaration among data\.corpora"):
        prepared(recipe_of(folder, talks, mixture={"back_translated": 0.2}))
    with pytest.raises(UserError, match="the model does not know <domain:news>; it knows <domain:legal>"):
        vocabularies.source.symbol("<domain:news>")
    given = recipe.vocab.model_copy(update={"model": str(folder / "plain" / "vocab" / "vocab.model")})
    with pytest.raises(UserError, match="does not know <domain:legal>; it knows no such symbol"):
        Vocabularies.adopt(folder / "x", given, ["en"], (), ["<domain:legal>"])


def test_a_cleaned_corpus_tells_where_its_pairs_come_from(made):
    _, preparation, _, of_laws, of_talks = made
    pairs = preparation.corpus().pairs[EN_ES]["train"]
    assert [pair for pair, _ in pairs.iterate_with_corpora()] == list(pairs)
    assert Counter(name for _, name in pairs.iterate_with_corpora()) == {"laws": len(of_laws), "talks": len(of_talks)}
    assert all((pair[::-1] in of_laws) == (name == "laws") for pair, name in pairs.iterate_with_corpora())
    assert np.all([len(preparation.corpus().pairs[one]["train"]) == len(pairs) for one in (ES_EN, EN_ES)])


def test_back_translations_train_one_direction_and_are_marked(folder):
    talks, of_talks = declared(folder, "talks", 2)
    made_up, of_made_up = declared(folder, "madeup", 3, synthetic=True, domain="legal")
    for domains in (False, True):
        recipe = recipe_of(folder / f"bt{domains}", talks, made_up, domain_tags=domains)
        preparation, (vocabulary, _) = prepared(recipe)
        marks = ["<bt>"] + (["<domain:legal>"] if domains else [])
        assert set(vocabulary.symbols) == set(marks)
        batches = train_batches(preparation.store, [ES_EN, EN_ES], recipe.data, 64, 1)
        found = {(tuple(source), tuple(target)) for batch in drawn(batches, 10) for source, target in segments(batch)}
        batches.close()
        expected = set()
        for pairs, symbols in ((of_talks, []), (of_made_up, marks)):
            for spanish, english in pairs:
                source, target = vocabulary.encode([spanish, english])
                ids = map(vocabulary.symbol, symbols)
                expected.add(((vocabulary.tag("en"), *ids, *source, 2), (*target, 2)))
                if not symbols:
                    expected.add(((vocabulary.tag("es"), *target, 2), (*source, 2)))
        assert found == expected
        held_out = [pair for split in ("dev", "test") for pair in read_text(preparation.store, split, ES_EN)]
        assert len(held_out) == 8  # of the genuine corpus: the other one names as many


def test_back_translations_have_a_share_of_their_own(folder):
    talks, of_talks = declared(folder, "talks", 2)
    made_up, of_made_up = declared(folder, "madeup", 3, count=30, synthetic=True)
    recipe = recipe_of(folder / "share", made_up, talks, mixture={"back_translated": 0.25}, shuffle_window=64)
    preparation, (vocabulary, _) = prepared(recipe)
    symbol, kinds = vocabulary.symbol("<bt>"), {ES_EN: (len(of_talks), len(of_made_up)), EN_ES: (len(of_talks), 0)}
    stats = preparation.stats(preparation.vocabularies()).directions
    assert {one: stats[str(one)].back_translated for one in kinds} == {ES_EN: 22, EN_ES: 0}

    def pairs(count, batches):
        return [sorted(segments(batch)) for batch in drawn(batches, count)]

    batches = train_batches(preparation.store, [ES_EN, EN_ES], recipe.data, 64, 1)
    counts = Counter(
        (source[0] == vocabulary.tag("en"), source[1] == symbol, tuple(source))
        for batch in drawn(batches, 8)
        for source, _ in segments(batch)
    )
    state = batches.get_state()
    after = pairs(3, batches)
    batches.close()
    total, into_english = Counter(), Counter()
    for (english, made, source), count in counts.items():
        total[english, made] += count
        into_english[english, made, source] += count
    assert total[False, True] == 0
    share = total[True, True] / (total[True, True] + total[True, False])
    assert abs(share - 0.25) < 0.02
    for kind, size in (((True, True), 22), ((True, False), len(of_talks))):
        times = [count for key, count in into_english.items() if key[:2] == kind]
        assert len(times) == size
        assert max(times) - min(times) <= 1
    again = train_batches(preparation.store, [ES_EN, EN_ES], recipe.data, 64, 1)
    again.set_state(state)
    assert pairs(3, again) == after
    again.close()
