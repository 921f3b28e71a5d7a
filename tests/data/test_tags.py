"""What tells a model the languages: tags before sources, and as the decoder's first input (data.tags)."""

import random
from dataclasses import replace

import jax
import numpy as np
import optax
import orbax.checkpoint as ocp
import pytest
import toy_model as toy
from flax import nnx
from synthetic import lexicon, sentence
from test_pipeline import DATA, DIRECTIONS, TAGS, Numbers, same, take

from nmt.cli import translate as command
from nmt.cli.translate_arguments.model import ModelArguments
from nmt.config import DataConfig, DecodeConfig, ModelConfig, Recipe, VocabConfig, read_run_recipe, save_recipe
from nmt.config.runs import resume_conflicts
from nmt.data.batch import Batch
from nmt.data.pipeline import dev_batches, train_batches
from nmt.data.store import RowLengths, load_stats, prepare
from nmt.data.vocab import BEGIN, END, learn
from nmt.data.vocabularies import SOURCE, TARGET, Vocabularies
from nmt.decode.requests import SpecialTokens
from nmt.decode.search import Searcher
from nmt.decode.translator import Translator
from nmt.errors import UserError
from nmt.languages import Direction
from nmt.models.building import initialise
from nmt.models.tokens import Phase
from nmt.models.weights import to_arrays
from nmt.sharding import make_layout, make_mesh
from nmt.train.objective import LossSetting, objective

NLLB = DATA.model_copy(update={"tags": "nllb"})
DENSE = toy.model_config(encoder_layers=1, decoder_layers=1, dropout=0.0, moe=None)


# Batches.


def stored(folder, pairs, vocabulary=None):
    return prepare(pairs, Vocabularies.shared(vocabulary or Numbers()), folder, lengths=RowLengths(64, 64))


def test_a_batch_by_hand(tmp_path):
    es_en = Direction("es", "en")
    stored(tmp_path, {es_en: {split: [("50 51 52", "60 61")] for split in ("train", "dev")}})
    rows = {}
    for tags in ("target", "nllb"):
        data = DATA.model_copy(update={"tags": tags})
        training = train_batches(tmp_path, [es_en], data, rows=256, seed=1)
        batches = next(training), next(dev_batches(tmp_path, [es_en], data, 1))
        training.close()
        for batch in batches:
            first = int(np.argmax(batch.src_segment[:, 0]))
            row = [getattr(batch, name)[first] for name in ("src", "tgt_in", "tgt_out")]
            found = [array[:size].tolist() for array, size in zip(row, (5, 3, 3), strict=True)]
            rows.setdefault(tags, []).append(found)
    english, spanish = TAGS["en"], TAGS["es"]
    assert rows["target"] == [[[english, 50, 51, 52, END], [BEGIN, 60, 61], [60, 61, END]]] * 2
    assert rows["nllb"] == [[[spanish, 50, 51, 52, END], [english, 60, 61], [60, 61, END]]] * 2


def test_nothing_else_of_a_batch_depends_on_the_tags(tmp_path):
    rng = np.random.default_rng(1)

    def text():
        return " ".join(map(str, rng.integers(10, 99, rng.integers(1, 20))))

    stored(tmp_path, {one: {"train": [(text(), text()) for _ in range(40)]} for one in DIRECTIONS})
    source = np.array([TAGS[one.source] for one in DIRECTIONS])
    target = np.array([TAGS[one.target] for one in DIRECTIONS])
    streams = [train_batches(tmp_path, DIRECTIONS, data, rows=8, seed=3) for data in (DATA, NLLB)]
    for plain, nllb in zip(*(take(stream, 3) for stream in streams), strict=True):
        begins = (plain.tgt_position == 0) & (plain.tgt_segment > 0)
        src, tgt_in = plain.src.copy(), np.where(begins, target[plain.direction], plain.tgt_in)
        for row in range(8):
            of_pair = plain.direction[row][begins[row]]
            src[row][(plain.src_position[row] == 0) & (plain.src_segment[row] > 0)] = source[of_pair]
        assert same(nllb, Batch(**{**vars(plain), "src": src, "tgt_in": tgt_in}))
    for stream in streams:
        stream.close()


def test_a_store_without_the_tags_is_a_mistake(tmp_path):
    class Untagged(Numbers):
        languages = ()

    vocabularies = Vocabularies(Numbers(), Untagged())
    pairs = {DIRECTIONS[0]: {"train": [("50", "60")]}}
    prepare(pairs, vocabularies, tmp_path / "data", lengths=RowLengths(64, 64))
    with pytest.raises(UserError, match=r"data was prepared without the tags that data\.tags=nllb needs"):
        train_batches(tmp_path / "data", DIRECTIONS[:1], NLLB, 8, 1)


def test_a_store_of_an_older_version_is_read(tmp_path):
    stored(tmp_path, {DIRECTIONS[0]: {"train": [("50", "60")]}})
    stats = tmp_path / "stats.json"
    lines = [line for line in stats.read_text().splitlines() if "source_tag" not in line and "target_tag" not in line]
    stats.write_text("\n".join(lines).replace("},\n    }", "}\n    }").replace("},\n      }", "}\n      }"))
    assert load_stats(tmp_path).directions["de-en"].source_tag is None
    train_batches(tmp_path, DIRECTIONS[:1], DATA, 8, 1).close()
    with pytest.raises(UserError, match="was prepared without the tags"):
        train_batches(tmp_path, DIRECTIONS[:1], NLLB, 8, 1)


# Translation.

WORDS = [sentence(random.Random(number), lexicon()) for number in range(40)]
CONFIG = VocabConfig(size=300, target_size=305)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A run with two vocabularies and tags as in NLLB, whose model was never trained."""
    run, mesh = tmp_path_factory.mktemp("run"), make_mesh()
    model = DENSE.model_copy(update={"embeddings": "separate"})
    recipe = Recipe(
        name="toy",
        data=DataConfig(corpora=("x",), directions=("de-en", "en-es"), source_length=16, tags="nllb"),
        vocab=CONFIG,
        model=ModelConfig(**model.model_dump()),
        decode=DecodeConfig(beam=2, max_length_ratio=0.5, max_length_extra=3, length_penalty=0.0),
    )
    save_recipe(recipe, run)
    languages = ["de", "en", "es"]
    learn({"de": WORDS}, languages, CONFIG, run / "vocab" / SOURCE, seed=1, symbols=["<domain:legal>"])
    learn({"en": WORDS}, languages[::-1], CONFIG, run / "vocab" / TARGET, 1, "target_size")
    with jax.set_mesh(mesh), ocp.CheckpointManager(run / "checkpoints") as manager:
        _, parameters = initialise(recipe.model, CONFIG.sizes, 1, mesh)
        arrays = jax.tree.map(lambda x: 3 * x, to_arrays(parameters))
        manager.save(0, args=ocp.args.Composite(model=ocp.args.StandardSave(arrays)))
    return run


def test_translations_have_the_scores_that_reading_them_gives(run):
    translator = Translator(run)
    source, target = translator.vocabularies
    assert (source.tag("de"), target.tag("de")) == (4, 6)
    lines = [" ".join(words.split()[:2]) for words in WORDS[:3]]
    searcher, encoded = translator._searcher, source.encode(lines)
    by_direction = {}
    for one in (Direction("de", "en"), Direction("en", "es"), Direction("de", "es")):
        found = translator.translate_scored(lines, *one)
        sources = [[source.tag(one.source), *pieces, END] for pieces in encoded]
        begin = target.tag(one.target)
        best = [hypotheses[0] for hypotheses in searcher.search(sources, begin=begin)]
        assert target.decode([hypothesis.tokens for hypothesis in best]) == [one.text for one in found]
        scores = searcher.score(sources, [hypothesis.tokens for hypothesis in best], begin=begin)
        assert scores == pytest.approx([one.score for one in found], rel=1e-4)
        wrong = searcher.score(sources, [hypothesis.tokens for hypothesis in best])
        assert wrong != pytest.approx(scores, rel=1e-3)
        assert not {token for hypothesis in best for token in hypothesis.tokens} & {0, 1, 2, 3, 4, 5, 6}
        by_direction[one] = [one.score for one in found]
    assert len({tuple(scores) for scores in by_direction.values()}) == 3


def test_a_domain_is_told_behind_the_tag(run):
    translator = Translator(run)
    source, target = translator.vocabularies
    line = " ".join(WORDS[0].split()[:2])
    (told,) = translator.translate_scored([line], "de", "en", domain="legal")
    (plain,) = translator.translate_scored([line], "de", "en")
    marked = [source.tag("de"), source.symbol("<domain:legal>"), *source.encode([line])[0], END]
    assert translator._searcher.search([marked], begin=target.tag("en"))[0][0].score == told.score != plain.score
    arguments = ModelArguments(run=str(run), source="de", target="en", domain="legal")
    command._check(command.TranslateArguments(model=arguments))
    for attempt in (
        lambda: command._check(command.TranslateArguments(model=replace(arguments, domain="news"))),
        lambda: translator.translate_scored([line], "de", "en", domain="news"),
    ):
        with pytest.raises(UserError, match="the model does not know <domain:news>; it knows <domain:legal>"):
            attempt()


def test_a_run_keeps_its_tags(run):
    recipe = read_run_recipe(run)
    assert recipe.data.tags == "nllb"
    changed = recipe.model_copy(update={"data": recipe.data.model_copy(update={"tags": "target"})})
    assert resume_conflicts(recipe, changed) == ["data.tags: nllb -> target"]
    old = (run / "recipe.yaml").read_text().replace("  tags: nllb\n", "")
    folder = run.parent / "old"
    folder.mkdir()
    (folder / "recipe.yaml").write_text(old)
    assert read_run_recipe(folder).data.tags == "target"


def test_a_given_vocabulary_of_targets_gets_the_tags_that_it_needs(run, tmp_path):
    learn({"en": WORDS}, (), CONFIG, tmp_path / "bare.model", 1, "target_size")
    models = {"model": str(run / "vocab" / SOURCE), "target_model": str(tmp_path / "bare.model")}
    config = CONFIG.model_copy(update=models)
    bare = Vocabularies.adopt(tmp_path / "vocab", config, ["de", "en"])
    assert bare.target.languages == ()
    size = CONFIG.target_size + 2
    with pytest.raises(UserError, match=rf"bare\.model has {size} pieces: set vocab\.target_size={size}"):
        Vocabularies.adopt(tmp_path / "vocab", config, ["de", "en"], ["de", "en"])
    larger = config.model_copy(update={"target_size": size})
    assert Vocabularies.adopt(tmp_path / "vocab", larger, ["de", "en"], ["de", "en"]).target.languages == ("de", "en")


# Learning.


def test_a_model_learns_to_obey_the_tag_that_the_decoder_begins_with(tmp_path):
    """Of Spanish, German is the same and English every number plus one; sources are the same for both."""
    rng = np.random.default_rng(2)
    texts = [rng.integers(20, 30, 3) for _ in range(300)]
    pairs = {
        Direction("es", language): {"train": [(_text(text), _text(text + shift)) for text in texts]}
        for language, shift in (("de", 0), ("en", 1))
    }
    vocabulary = Numbers()
    prepare(pairs, Vocabularies.shared(vocabulary), tmp_path, lengths=RowLengths(16, 16))
    data = NLLB.model_copy(update={"source_length": 16, "target_length": 16})
    graph, parameters = toy.weights(DENSE.model_copy(update={"width": 32, "hidden": 64}))
    optimizer = optax.adam(5e-3)

    @jax.jit
    def update(parameters, state, batch):
        def loss(parameters):
            return objective(nnx.merge(graph, parameters), batch, LossSetting(2, Phase.TRAIN))

        gradients, metrics = jax.grad(loss, has_aux=True)(parameters)
        changes, state = optimizer.update(gradients, state, parameters)
        return optax.apply_updates(parameters, changes), state, metrics.nll.sum() / metrics.tokens.sum()

    state, batches = optimizer.init(parameters), train_batches(tmp_path, list(pairs), data, rows=32, seed=1)
    for _ in range(300):
        parameters, state, nll = update(parameters, state, next(batches))
    batches.close()
    assert nll < 0.1
    model, decode = nnx.merge(graph, parameters), DecodeConfig(beam=2)
    searcher = Searcher(model, SpecialTokens(BEGIN, END, frozenset({0, 3, *TAGS.values()})), 16, decode, make_layout())
    sources = [[TAGS["es"], *text, END] for text in texts[:20]]
    for language, shift in (("de", 0), ("en", 1)):
        found = [hypotheses[0].tokens for hypotheses in searcher.search(sources, begin=TAGS[language])]
        wanted = [(text + shift).tolist() for text in texts[:20]]
        assert sum(map(list.__eq__, found, wanted)) >= 17


def _text(numbers):
    return " ".join(map(str, numbers))
