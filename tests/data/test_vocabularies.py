"""A vocabulary for both sides or one each, and what models make of them: tables, output layers, scales."""

import functools
import itertools
import random
from dataclasses import replace
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import oracles
import orbax.checkpoint as ocp
import pytest
import toy_model as toy
from flax import nnx
from synthetic import lexicon, sentence, translation

from nmt.cli import translate as command
from nmt.cli.translate_arguments.model import ModelArguments
from nmt.config import (
    CleanConfig,
    DataConfig,
    DecodeConfig,
    MeshConfig,
    ModelConfig,
    Recipe,
    VocabConfig,
    VocabularySizes,
    read_run_recipe,
    resume_conflicts,
    save_recipe,
)
from nmt.corpora.cleaned.build import CleaningJob, build
from nmt.corpora.cleaned.texts import training_texts
from nmt.corpora.declare.spec_split import HashedSplits
from nmt.corpora.readers.reader import Row
from nmt.data.store import RowLengths, load_stats, open_pairs, prepare
from nmt.data.vocab import BEGIN, END, Vocabulary, learn
from nmt.data.vocabularies import Vocabularies
from nmt.decode.requests import SpecialTokens
from nmt.decode.search import Searcher
from nmt.decode.selection import COLUMNS
from nmt.decode.translator import Translator
from nmt.errors import UserError
from nmt.languages import Direction
from nmt.models.building import abstract_model, initialise, shardings
from nmt.models.embedding import embedding_factor, embedding_table, output_factor, output_table
from nmt.models.tokens import PackedTokens, Phase
from nmt.models.weights import to_arrays
from nmt.recipes.size import measure
from nmt.sharding import make_layout, make_mesh
from nmt.train.cross_entropy import OutputLoss
from nmt.train.objective import LossSetting, objective

SIZES = VocabularySizes(61, 43)
DENSE = toy.model_config(encoder_layers=1, decoder_layers=1, dropout=0.0, moe=None)


def variant(**changes):
    return DENSE.model_copy(update=changes)


TIED = variant(embeddings="separate", embedding_scale=False, output_scale=True)
UNTIED = variant(embeddings="separate", tie_output=False, output_scale=True)
SHARED = variant(tie_output=False, embedding_scale=False)
VARIANTS = {"tied": (TIED, SIZES), "untied": (UNTIED, SIZES), "shared": (SHARED, toy.SIZES)}
variants = pytest.mark.parametrize(("config", "sizes"), VARIANTS.values(), ids=VARIANTS)


def pairs_of(sizes):
    """Rows of pairs whose tokens reach to the end of both vocabularies."""
    rows = toy.pairs_of(np.random.default_rng(0), 3)
    return [
        [
            (sizes.source - 1 - source % 30, sizes.target - 1 - target % 30, direction)
            for source, target, direction in row
        ]
        for row in rows
    ]


# The model.


@variants
def test_cross_entropy_and_its_gradients(config, sizes):
    graph, parameters = toy.weights(config, sizes)
    rows = pairs_of(sizes)
    batch = toy.pack(rows)

    def ours(parameters):
        loss, metrics = objective(nnx.merge(graph, parameters), batch, LossSetting(2, Phase.TRAIN, OutputLoss(0.1)))
        return loss, metrics.nll

    def plain(parameters):
        """The same by the logits, and left to automatic differentiation."""
        model = nnx.merge(graph, parameters)
        source = PackedTokens(batch.src, batch.src_segment, batch.src_position)
        target = PackedTokens(batch.tgt_in, batch.tgt_segment, batch.tgt_position)
        memory, _ = model.encode(source)
        hidden, _ = model.decode(target, memory, batch.src_segment)
        log_p = jax.nn.log_softmax(model.logits(hidden))
        chosen = jnp.take_along_axis(log_p, batch.tgt_out[..., None], -1)[..., 0]
        real = batch.tgt_segment > 0
        return -((0.9 * chosen + 0.1 * log_p.mean(-1)) * real).sum() / real.sum(), log_p

    (loss, nll), gradients = jax.jit(jax.value_and_grad(ours, has_aux=True))(parameters)
    (expected, log_p), its = jax.jit(jax.value_and_grad(plain, has_aux=True))(parameters)
    assert log_p.shape[-1] == sizes.target
    np.testing.assert_allclose(loss, expected, rtol=1e-5)
    for (path, mine), (_, other) in zip(nnx.to_flat_state(gradients), nnx.to_flat_state(its), strict=True):
        np.testing.assert_allclose(mine[...], other[...], rtol=1e-3, atol=1e-6, err_msg=str(path))
        assert np.abs(mine[...]).max() > 0, path
    # And the logits are those of the slow model, so that all of the above is about the right ones.
    oracle = oracles.Model(toy.flat(parameters), config)
    total = 0.0
    for r, pairs in enumerate(rows):
        for segment, (source, target, _) in enumerate(pairs, start=1):
            slow = np.log(oracles.softmax(oracle.logits(source, [BEGIN, *target[:-1]])))
            np.testing.assert_allclose(log_p[r, batch.tgt_segment[r] == segment], slow, rtol=1e-3, atol=1e-3)
            total -= slow[np.arange(len(target)), target].sum()
    np.testing.assert_allclose(nll.sum(), total, rtol=1e-4)


@functools.cache
def searcher(name):
    config, sizes = VARIANTS[name]
    model = nnx.merge(*toy.weights(config, sizes))
    decode = DecodeConfig(beam=2, max_length_ratio=1.0, max_length_extra=2)
    return Searcher(model, SpecialTokens(BEGIN, END, frozenset({0, 3})), toy.LENGTH, decode, make_layout())


@pytest.mark.parametrize("name", VARIANTS)
def test_translating_is_with_the_same_model(name):
    config, sizes = VARIANTS[name]
    oracle = oracles.Model(toy.flat(toy.weights(config, sizes)[1]), config)
    (source, target, _), *_ = pairs_of(sizes)[0]
    sources = [[4, *source[:10], END], [4, sizes.source - 1, END]]

    def log_p(source, target):
        table = np.log(oracles.softmax(oracle.logits(source, [BEGIN, *target])))
        return table[np.arange(len(target) + 1), [*target, END]].sum()

    targets = [target.tolist()[:9], [sizes.target - 1]]
    expected = [log_p(*pair) for pair in zip(sources, targets, strict=True)]
    np.testing.assert_allclose(searcher(name).score(sources, targets), expected, rtol=1e-3)
    found = [hypotheses[0] for hypotheses in searcher(name).search(sources)]
    expected = [log_p(source, best.tokens) for source, best in zip(sources, found, strict=True)]
    np.testing.assert_allclose([best.log_probability for best in found], expected, rtol=1e-3)
    assert all(5 <= token < sizes.target or token == 4 for best in found for token in best.tokens)


def test_decoding_keeps_a_shared_table_once():
    """Even where it is the output layer, too, which has rows that no token has."""
    models = [searcher(name)._model for name in VARIANTS]
    tables = [(model.source_table, model.target_table) for model in models]
    shapes = [[table and table.weight.shape[0] for table in pair] for pair in tables]
    assert shapes == [[61, None], [61, 43], [None, 42]]
    assert [model.vocabulary for model in models] == [43, 43, 42]
    assert all(model.output.weight.shape[0] == COLUMNS for model in models)


COMBINATIONS = [
    variant(embeddings=embeddings, tie_output=tied, embedding_scale=embedding_scale, output_scale=output_scale)
    for embeddings, tied, embedding_scale, output_scale in itertools.product(
        ("shared", "separate"), (True, False), (True, False), (True, False)
    )
]


@pytest.mark.parametrize("config", COMBINATIONS)
def test_parameters_memory_and_axes(config):
    sizes = SIZES if config.embeddings == "separate" else toy.SIZES
    _, parameters = abstract_model(config, sizes)
    tables = {
        path[0]: leaf.get_value().shape[0]
        for path, leaf in nnx.to_flat_state(parameters)
        if leaf.get_metadata()["logical_axes"] == ("vocab", "embed")
    }
    expected = {"source_embedding": sizes.source, "target_embedding": sizes.target}
    expected = expected if config.embeddings == "separate" else {"embedding": sizes.source}
    assert tables == expected | ({} if config.tie_output else {"output": sizes.target})
    wider = VocabularySizes(sizes.source, sizes.target + 9)
    if config.embeddings == "shared":
        wider = VocabularySizes.shared(sizes.target + 9)
    size, larger = (measure(toy.recipe(config), some) for some in (sizes, wider))
    rows = 9 * (1 if config.tie_output else 2)
    assert larger.parameters - size.parameters == larger.active - size.active == rows * config.width
    assert larger.activations - size.activations == 4 * 2 * 4 * toy.LENGTH * 9


@pytest.mark.parametrize("config", COMBINATIONS)
def test_embeddings_and_logits_begin_at_unit_variance(config):
    config = config.model_copy(update={"width": 64})
    rngs = nnx.Rngs(0)
    embedding = embedding_table(config, 500, rngs)[...]
    assert (embedding * embedding_factor(config)).std() == pytest.approx(1.0, rel=0.05)
    output = embedding if config.tie_output else output_table(config, 500, rngs)[...]
    hidden = np.random.default_rng(0).normal(size=(200, 64))  # as a norm leaves it
    deviation = (hidden * output_factor(config) @ output.T).std()
    expected = 1.0
    if config.tie_output and config.embedding_scale == config.output_scale:
        expected = 1 / 8 if config.output_scale else 8.0
    assert deviation == pytest.approx(expected, rel=0.05)


def test_one_table_cannot_serve_two_vocabularies():
    with pytest.raises(ValueError, match="one embedding for vocabularies of 61 and 43"):
        abstract_model(DENSE, SIZES)


@pytest.mark.parametrize("sizes", [VocabularySizes(42, 43), VocabularySizes(43, 42)])
def test_a_mesh_that_does_not_divide_a_vocabulary_is_a_mistake(sizes):
    _, parameters = abstract_model(UNTIED, sizes)
    wrong = pytest.raises(UserError, match=r"vocab.size or vocab.target_size is 43, which mesh.model=2 does not divide")
    with make_layout(MeshConfig(model=2), devices=2).use() as mesh, wrong:
        shardings(parameters, mesh)


# The text.

DE_EN = Direction("de", "en")
ENGLISH = [sentence(random.Random(number), lexicon()) for number in range(60)]
SPANISH = [translation(text, "es") for text in ENGLISH]  # other letters
GERMAN = [translation(text, "de") for text in SPANISH[:30]]  # the other way round
TRAIN = {
    DE_EN: list(zip(GERMAN, ENGLISH[:30], strict=True)),
    Direction("es", "en"): list(zip(SPANISH, ENGLISH, strict=True)),
}
CONFIG = VocabConfig(size=312, target_size=308)


def kept(folder, pairs):
    """Return a corpus of training pairs, as they are."""
    rows = [
        Row(direction.source, "c", (), source, {direction.target: target})
        for direction, some in pairs.items()
        for source, target in some
    ]
    source = SimpleNamespace(
        rows=lambda wanted: iter(rows),
        spec=SimpleNamespace(split=HashedSplits(test=0, dev=0), name="x", monolingual=False),
        provenance=(),
        unreadable=(),
        unregistered=[],
        skipped={},
    )
    corpora = SimpleNamespace(sources=[source], failures={})
    clean = CleanConfig(duplicates="keep", copies=False, min_words=1, max_overlap=None)
    return build(folder, corpora, CleaningJob("digest", list(pairs), clean, 1))


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Both vocabularies of TRAIN."""
    folder = tmp_path_factory.mktemp("run") / "vocab"
    corpus = kept(tmp_path_factory.mktemp("corpus"), TRAIN)
    learn(training_texts(corpus, (0,)), ["de", "en", "es"], CONFIG, folder / "source.model", seed=1)
    learn(training_texts(corpus, (1,)), (), CONFIG, folder / "target.model", seed=1, size="target_size")
    return folder


@pytest.fixture(scope="module")
def vocabularies(folder):
    return Vocabularies.load(folder, CONFIG)


def test_texts_of_sides(tmp_path):
    corpus = kept(tmp_path, TRAIN)

    def texts(sides):
        return {language: list(found) for language, found in training_texts(corpus, sides).items()}

    assert texts((0,)) == {"de": GERMAN, "es": SPANISH}
    assert texts((1,)) == {"en": ENGLISH}
    assert texts((0, 1)) == {"de": GERMAN, "es": SPANISH, "en": ENGLISH}
    assert {language: len(found) for language, found in training_texts(corpus, (0, 1)).items()} == {
        "de": 30, "es": 60, "en": 60
    }  # fmt: skip


def test_each_side_is_learnt_from_its_own_text(vocabularies):
    source, target = vocabularies
    assert vocabularies.sizes == (source.size, target.size) == (312, 308)
    assert (source.languages, target.languages) == (("de", "en", "es"), ())
    assert sum(map(len, source.encode(SPANISH))) < sum(map(len, source.encode(ENGLISH)))
    assert sum(map(len, target.encode(ENGLISH))) < sum(map(len, target.encode(SPANISH)))


def test_specials_are_the_same_on_both_sides(vocabularies):
    specials = [(v.pad, v.begin, v.end, v.unk) for v in vocabularies]
    assert specials == [(0, 1, 2, 3)] * 2
    text = "Ein Häuschen 房子 >>de<< <s>"
    for vocabulary in vocabularies:
        (ids,) = vocabulary.encode([text])
        assert min(ids) >= 4
        assert vocabulary.decode([[1, *ids, 2, 0]]) == [text]


def test_a_shared_vocabulary_is_one(folder, vocabularies, tmp_path):
    config = VocabConfig(size=312)
    (tmp_path / "vocab.model").write_bytes((folder / "source.model").read_bytes())
    shared = Vocabularies.load(tmp_path, config)
    assert shared.source is shared.target
    assert shared.is_shared
    assert config.sizes == shared.sizes == (312, 312)
    assert shared.digests == {"vocabulary": vocabularies.source.digest}
    assert not vocabularies.is_shared
    assert CONFIG.sizes == (312, 308)
    assert vocabularies.digests == shared.digests | {"target vocabulary": vocabularies.target.digest}
    assert (str(shared), str(vocabularies)) == (
        "vocabulary: 312 pieces",
        "vocabularies: 312 pieces for sources, 308 for targets",
    )


def test_a_file_that_is_missing_is_named(folder, tmp_path):
    assert Vocabularies.complete(folder, CONFIG)
    (tmp_path / "source.model").write_bytes((folder / "source.model").read_bytes())
    assert not Vocabularies.complete(tmp_path, CONFIG)
    with pytest.raises(UserError, match=r"cannot read the vocabulary .*target\.model: No such file"):
        Vocabularies.load(tmp_path, CONFIG)
    with pytest.raises(UserError, match=r"cannot read the vocabulary .*vocab\.model: No such file"):
        Vocabularies.load(tmp_path, VocabConfig(size=312))


@pytest.mark.parametrize(("size", "message"), [(9000, "too large for"), (300, "too small: ")])
def test_sizes_that_cannot_be_are_named_by_their_key(size, message, tmp_path):
    config = VocabConfig(size=312, target_size=size)
    with pytest.raises(UserError, match=f"vocab.target_size={size} is {message}"):
        learn(
            {"en": [*ENGLISH, "".join(map(chr, range(0xE0, 0x110)))]},
            (),
            config,
            tmp_path / "x.model",
            1,
            "target_size",
        )


def test_the_store_has_either_side_in_its_own_ids(vocabularies, tmp_path):
    pairs = TRAIN[DE_EN]
    stats = prepare({DE_EN: {"train": pairs}}, vocabularies, tmp_path, lengths=RowLengths(64, 64))
    assert stats.directions["de-en"].tag == vocabularies.source.tag("en")
    stored = open_pairs(tmp_path, "train", DE_EN, load_stats(tmp_path)).__getitems__(range(len(pairs)))
    for pair, (source, target) in zip(stored, pairs, strict=True):
        assert pair.source.tolist() == vocabularies.source.encode([source])[0]
        assert pair.target.tolist() == vocabularies.target.encode([target])[0]


@pytest.mark.parametrize("large", ["source", "target"])
def test_one_large_vocabulary_is_enough_for_four_bytes(large, tmp_path):
    numbers = SimpleNamespace(
        size=1000,
        languages=(),
        symbols=(),
        tag=lambda language: 4,
        encode=lambda texts: [[int(word) for word in text.split()] for text in texts],
    )
    many = SimpleNamespace(**vars(numbers) | {"size": 65537})
    pair = ("65536", "9") if large == "source" else ("9", "65536")
    sides = Vocabularies(numbers, numbers)._replace(**{large: many})
    prepare({DE_EN: {"train": [pair]}}, sides, tmp_path, lengths=RowLengths(9, 9))
    (stored,) = open_pairs(tmp_path, "train", DE_EN, load_stats(tmp_path)).__getitems__([0])
    assert (stored.source.tolist(), stored.target.tolist()) == ([int(pair[0])], [int(pair[1])])


# Text in, text out.


@pytest.fixture(scope="module")
def run(folder):
    """A run with both vocabularies, whose model was never trained."""
    recipe = Recipe(
        name="toy",
        data=DataConfig(corpora=("x",), directions=("de-en", "es-en"), source_length=16),
        vocab=CONFIG,
        model=ModelConfig(**UNTIED.model_dump()),
        decode=DecodeConfig(beam=2, max_length_ratio=0.5, max_length_extra=3),
    )
    run, mesh = folder.parent, make_mesh()
    save_recipe(recipe, run)
    with jax.set_mesh(mesh), ocp.CheckpointManager(run / "checkpoints") as manager:
        _, parameters = initialise(recipe.model, CONFIG.sizes, 1, mesh)
        manager.save(0, args=ocp.args.Composite(model=ocp.args.StandardSave(to_arrays(parameters))))
    return run


def test_text_is_read_and_written_each_in_its_own_pieces(run, vocabularies):
    translator = Translator(run)
    assert translator.languages == ("de", "en", "es")
    lines = [GERMAN[0], "", GERMAN[1]]
    first, blank, last = translator.translate_scored(lines, "de", "en")
    assert blank.text == ""
    tag = vocabularies.source.tag("en")
    sources = [[tag, *pieces, END] for pieces in vocabularies.source.encode([lines[0], lines[2]])]
    best = [hypotheses[0] for hypotheses in translator._searcher.search(sources)]
    assert vocabularies.target.decode([hypothesis.tokens for hypothesis in best]) == [first.text, last.text]
    assert [hypothesis.score for hypothesis in best] == [first.score, last.score]


def test_the_command_asks_the_vocabulary_of_sources(run, capsys):
    request = command.TranslateArguments(model=ModelArguments(run=str(run), source="de", target="zh-Hans"))
    with pytest.raises(UserError, match=r"the model does not know zh-Hans.*; it knows de, en, es"):
        command._check(request)
    command._check(command.TranslateArguments(model=replace(request.model, target="es")))


def test_a_run_that_lost_a_vocabulary(run, tmp_path):
    for name in ("recipe.yaml", "checkpoints"):
        (tmp_path / name).symlink_to(run / name)
    (tmp_path / "vocab").mkdir()
    (tmp_path / "vocab" / "source.model").symlink_to(run / "vocab" / "source.model")
    with pytest.raises(UserError, match=r"cannot read the vocabulary .*vocab/target\.model"):
        Translator(tmp_path)
    assert Vocabulary.load(tmp_path / "vocab" / "source.model").size == CONFIG.size


def test_a_run_that_has_begun_keeps_its_vocabularies(run):
    recipe = read_run_recipe(run)
    changed = recipe.model_copy(update={"vocab": CONFIG.model_copy(update={"target_size": 309})})
    assert [conflict.split(":")[0] for conflict in resume_conflicts(recipe, changed)] == ["vocab.target_size"]
