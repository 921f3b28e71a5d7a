"""Beam search against slow searches that read every hypothesis whole, and the promise that neighbours do not matter."""

import itertools
import os
import subprocess
import sys
from functools import cache
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from toy_model import model_config, moe_config, weights

from nmt.config import DecodeConfig, VocabularySizes
from nmt.decode import beam, search, shapes, slots
from nmt.decode.choices import ChoiceRules, RowChoice
from nmt.decode.options import SearchOptions
from nmt.decode.requests import SpecialTokens
from nmt.decode.search import Searcher
from nmt.decode.selection import COLUMNS, best_extensions, top_k
from nmt.errors import UserError
from nmt.models import incremental
from nmt.models.tokens import PackedTokens
from nmt.sharding import make_layout

BEGIN, END, TAG = 1, 2, 4
FORBIDDEN = frozenset({0, 3, TAG})
FEW_LAYERS = {"encoder_layers": 2, "decoder_layers": 2}


@cache
def toy(vocabulary=41, dtype="float32", sparse=True, seed=0):
    config = model_config(**FEW_LAYERS, dtype=dtype, moe=moe_config() if sparse else None)
    return nnx.merge(*weights(config, VocabularySizes.shared(vocabulary), seed))


@cache
def searcher(vocabulary=41, **config):
    decode = DecodeConfig(**({"max_length_ratio": 1.0, "max_length_extra": 4, "batch_tokens": 64 * 16} | config))
    return Searcher(toy(vocabulary), SpecialTokens(BEGIN, END, FORBIDDEN), 16, decode, make_layout())


def options_of(searcher, **changes):
    return SearchOptions.from_config(searcher.config, **changes)


def limit_of(source):
    return len(source) - 2 + 4


def sources_of(number, vocabulary=41, seed=0):
    rng = np.random.default_rng(seed)
    return [[TAG, *rng.integers(5, vocabulary, length).tolist(), END] for length in rng.integers(1, 15, number)]


def tokens_of(found):
    return [[hypothesis.tokens for hypothesis in hypotheses] for hypotheses in found]


@jax.jit
def read(model, source, length, targets):
    """log p of every next token, [n,T,V], after targets [n,T] of one source [1,S]: the model as it is trained."""
    position = jnp.arange(source.shape[1])[None]
    segment = (position < length).astype(int)
    memory, _ = model.encode(PackedTokens(source, segment, position))
    memory, segment = (jnp.repeat(x, len(targets), axis=0) for x in (memory, segment))
    places = jnp.broadcast_to(jnp.arange(targets.shape[1]), targets.shape)
    hidden, _ = model.decode(PackedTokens(targets, jnp.ones_like(targets), places), memory, segment)
    return jax.nn.log_softmax(model.logits(hidden))


class Oracle:
    """Probabilities of one source's translations, without caches."""

    def __init__(self, source, vocabulary=41):
        self.model, self.length = toy(vocabulary), len(source)
        self.source = np.array([source + [0] * (16 - len(source))])

    def next(self, prefixes):
        """log p of every next token after every prefix, [n,V]."""
        targets = np.zeros((64, 20), int)
        for row, prefix in enumerate(prefixes):
            targets[row, : len(prefix) + 1] = [BEGIN, *prefix]
        table = np.asarray(read(self.model, self.source, self.length, targets), np.float64)
        return np.array([table[row, len(prefix)] for row, prefix in enumerate(prefixes)])

    def log_probability(self, target):
        table = self.next([target[:n] for n in range(len(target) + 1)])
        return sum(row[token] for row, token in zip(table, [*target, END], strict=True))


def beam_oracle(oracle, width, limit, penalty, vocabulary=41):
    """Textbook beam search without any early end; finished hypotheses as (score, tokens), best first."""
    live, finished = [(0.0, [])], []
    for step in range(limit + 1):
        table = oracle.next([tokens for _, tokens in live])
        extensions = [
            (score + table[row, token], [*tokens, token])
            for row, (score, tokens) in enumerate(live)
            for token in range(vocabulary)
            if token not in FORBIDDEN | {BEGIN} and (step > 0 if token == END else step < limit)
        ]
        best = sorted(extensions, key=lambda pair: -pair[0])[:width]
        finished += [(score / ((6 + step) / 6) ** penalty, tokens[:-1]) for score, tokens in best if tokens[-1] == END]
        live = [(score, tokens) for score, tokens in best if tokens[-1] != END]
        if not live:
            break
    return sorted(finished, key=lambda pair: -pair[0])


# The parts.


@pytest.mark.parametrize("seed", range(8))
def test_best_extensions_are_those_of_a_full_sort(seed):
    rng = np.random.default_rng(seed)
    rows, width, vocabulary = 5, int(rng.integers(1, 9)), int(rng.choice([5, 127, 128, 300]))
    padded = -(-vocabulary // COLUMNS) * COLUMNS
    logits = rng.normal(size=(rows, width, padded)).astype(np.float32)
    logits[..., vocabulary:] = 50  # meaningless, so it must not matter
    score = rng.normal(size=(rows, width)).astype(np.float32)
    score[rng.random((rows, width)) < 0.3] = -np.inf
    allowed = rng.random(vocabulary) < 0.8
    may_end, may_go_on = rng.random((2, rows)) < 0.7

    found = jax.jit(best_extensions)(logits, score, allowed, END, may_end, may_go_on)

    logits = logits[..., :vocabulary].astype(np.float64)
    total = logits - np.log(np.exp(logits).sum(axis=-1, keepdims=True)) + score[..., None]
    total[..., ~allowed] = -np.inf
    total[~may_go_on] = -np.inf
    exact = logits[..., END] - np.log(np.exp(logits).sum(axis=-1)) + score
    total[..., END] = np.where(may_end[:, None], exact, -np.inf)
    flat = total.reshape(rows, -1)
    order = np.argsort(-flat, axis=1)[:, :width]
    best = np.full((rows, width), -np.inf)
    best[:, : order.shape[1]] = np.take_along_axis(flat, order, axis=1)
    np.testing.assert_allclose(found[0], best, rtol=1e-5)
    real = np.isfinite(best)
    np.testing.assert_array_equal(np.asarray(found[1])[real], (order // vocabulary)[real])
    np.testing.assert_array_equal(np.asarray(found[2])[real], (order % vocabulary)[real])


def test_top_k_is_not_a_sort():
    """Two different slices of its results made XLA:CPU sort everything, a hundred times slower."""

    def best_and_runners_up(x):
        values, index = top_k(x, 8)
        return values[:, :4], index[:, :8]

    jax.config.update("jax_disable_most_optimizations", False)
    text = jax.jit(best_and_runners_up).lower(jnp.zeros((4, 4096))).compile().as_text()
    jax.config.update("jax_disable_most_optimizations", True)
    assert "TopK" in text
    assert " sort(" not in text


def test_normalisers_are_that_of_gnmt_and_powers_of_the_length():
    length, half = jnp.float32(7.0), jnp.float32(0.5)
    assert beam.normaliser(length, half, jnp.float32(5.0)) == pytest.approx(2**0.5)
    assert beam.normaliser(length, half, jnp.float32(0.0)) == pytest.approx(7**0.5)
    assert beam.normaliser(jnp.float32(1.0), jnp.float32(3.0), jnp.float32(5.0)) == 1
    assert beam.normaliser(jnp.float32(99.0), jnp.float32(0.0), jnp.float32(5.0)) == 1
    for options in (SearchOptions(length_penalty=0.5), SearchOptions(length_penalty=0.5, normalisation="length")):
        base, exponent = (jnp.float32(one) for one in (options.length_base, options.length_exponent))
        assert -2 / beam.normaliser(length, exponent, base) == pytest.approx(options.normalised(-2.0, 6))
    assert SearchOptions(normalisation="none").normalised(-2.0, 6) == -2.0


@pytest.mark.parametrize("where", ["cpu", "tpu"])  # which decides the type of the caches
@pytest.mark.parametrize(("dtype", "tolerance"), [("float32", 1e-4), ("bfloat16", 0.2)])
def test_steps_from_caches_give_what_reading_the_whole_target_gives(dtype, tolerance, where, monkeypatch):
    monkeypatch.setattr(incremental, "platform", lambda: where)
    model = toy(dtype=dtype, sparse=dtype == "float32")  # rounding may send a token to another expert
    # Functions of this test alone: JAX would not trace them again for another place.
    fast = jax.jit(lambda model: incremental.inference_model(model))(model)
    rng = np.random.default_rng(1)
    rows, width, steps = 3, 4, 7
    source = rng.integers(5, 41, (rows, 9))
    length = np.array([9, 4, 1])
    encoded = jax.jit(lambda *given: incremental.encode(*given))(fast, source, length)
    memory, cache = incremental.project_sources(fast, encoded), incremental.empty_cache(fast, rows, width, steps)
    kept = {"float32"} if where == "cpu" else {dtype}
    assert {str(leaf.dtype) for leaf in jax.tree.leaves((memory.keys, memory.values, cache))} == kept
    ancestor = np.zeros((rows, width, steps), np.int32)
    history = np.zeros((rows, width, 0), int)
    advance = jax.jit(lambda *given: incremental.decode_step(*given))
    for step in range(steps):
        token = rng.integers(0, 41, (rows, width))
        history = np.concatenate([history, token[..., None]], axis=2)
        ancestor[..., step] = np.arange(width)
        live = np.ones((rows, width), bool)
        logits, cache, _ = advance(fast, token, np.full(rows, step), live, ancestor.copy(), memory, cache)
        if step < steps - 1:  # exchange hypotheses, some of them twice
            parent = rng.integers(0, width, (rows, width))
            ancestor, history = (np.take_along_axis(x, parent[..., None], axis=1) for x in (ancestor, history))

    for row in range(rows):
        expected = np.asarray(read(model, source[row : row + 1], length[row], history[row]))[:, -1]
        np.testing.assert_allclose(jax.nn.log_softmax(logits[row]), expected, atol=tolerance)


def test_weights_are_cast_to_what_products_round_them_to():
    """Attention, norms and sums are float32, so that less is rounded than in the model that was trained."""
    model = toy(dtype="bfloat16")
    fast = jax.jit(incremental.inference_model)(model)
    _, experts = fast.layers[1].experts
    assert fast.layers[1].self_in.matrix.dtype == experts.separate[0].inner.dtype == jnp.bfloat16
    source = np.array([sources_of(1, seed=5)[0]])
    ones, position = np.ones_like(source), np.arange(source.shape[1])[None]
    slow, _ = jax.jit(lambda m: m.encode(PackedTokens(source, ones, position)))(model)
    quick = jax.jit(incremental.encode)(fast, source, np.array([source.shape[1]]))
    np.testing.assert_allclose(quick.hidden, slow, atol=0.05)


# The search.


@pytest.mark.parametrize("penalty", [0.0, 0.6, 2.0])
def test_a_wide_beam_finds_the_best_of_all_hypotheses(penalty):
    vocabulary, limit = 8, 4  # three pieces, so 3 + 9 + 27 + 81 hypotheses; the beam is wider than the vocabulary
    source = [TAG, 5, 7, 7, 6, END]
    oracle = Oracle(source, vocabulary)
    pieces = range(5, vocabulary)
    everything = [list(t) for n in range(1, limit + 1) for t in itertools.product(pieces, repeat=n)]
    prefixes = [[], *everything]
    table = np.concatenate([oracle.next(prefixes[i : i + 64]) for i in range(0, len(prefixes), 64)])
    after = {tuple(prefix): row for prefix, row in zip(prefixes, table, strict=True)}

    def score(target):
        total = sum(after[tuple(target[:n])][token] for n, token in enumerate([*target, END]))
        return total / ((5 + len(target) + 1) / 6) ** penalty

    best = sorted(everything, key=score, reverse=True)[:4]
    wide = searcher(vocabulary, beam=30, max_length_ratio=0.5, max_length_extra=2, batch_tokens=128)
    found = wide.search([source], options=options_of(wide, length_penalty=penalty, hypotheses=4))[0]
    assert [hypothesis.tokens for hypothesis in found] == best
    assert [hypothesis.score for hypothesis in found] == pytest.approx([score(target) for target in best], rel=1e-4)


@pytest.mark.parametrize("width", [1, 3])
def test_search_is_the_textbook_search(width):
    """Which goes on to the last step."""
    sources = sources_of(6, seed=3)
    for source, found in zip(sources, searcher(beam=width).search(sources), strict=True):
        score, tokens = beam_oracle(Oracle(source), width, limit_of(source), 0.6)[0]
        assert found[0].tokens == tokens
        assert found[0].score == pytest.approx(score, rel=1e-4)
        assert found[0].log_probability == pytest.approx(Oracle(source).log_probability(tokens), rel=1e-4)


@pytest.mark.parametrize(("stops", "best", "steps"), [(0.6, [5] * 13, 14), (0.99, [5], 2)])
def test_a_search_ends_when_nothing_can_win_any_more(stops, best, steps, monkeypatch):
    """After one token it ends with probability `stops`, or goes on for nothing until the limit, 13 tokens."""
    ran = []

    def decode_step(model, tokens, position, live, ancestor, memory, cache, with_attention):
        jax.debug.callback(lambda position: ran.append(int(position[0])), position)
        odds = jnp.full((COLUMNS,), -100.0).at[5].set(0.0)
        turning = odds.at[jnp.array([5, END])].set(jnp.log(jnp.array([1 - stops, stops])))
        odds = jnp.select([position[0] == 1, position[0] == 13], [turning, odds.at[END].set(100.0)], odds)
        return jnp.broadcast_to(odds, (*tokens.shape, COLUMNS)), cache, None

    monkeypatch.setattr(beam, "decode_step", decode_step)
    cells = jnp.zeros((1, 1, 1, 1))
    monkeypatch.setattr(beam, "encode", lambda *_: ())
    monkeypatch.setattr(beam, "project_sources", lambda *_: incremental.SourceCache([cells], [cells], jnp.ones(1, int)))
    monkeypatch.setattr(beam, "empty_cache", lambda *_: incremental.Cache([cells], [cells]))
    one = jnp.ones(1, int)
    limits = beam.RowLimits(13 * one, one, 2.0 * one, 5.0 * one, RowChoice())
    never = jnp.int32(np.iinfo(np.int32).max)
    targets = beam.TargetRules(jnp.int32(END), jnp.arange(8) != BEGIN, ChoiceRules(), never, jnp.bool_(True))
    finished, done = jax.jit(
        lambda: slots.search_batch.__wrapped__(
            None, one[None], one, BEGIN * one, limits, targets, beam=2, kept=1, steps=14
        )
    )()
    assert finished.tokens[0, 0, : finished.length[0, 0]].tolist() == best
    probability = stops if len(best) == 1 else 1 - stops
    assert finished.score[0, 0] == pytest.approx(np.log(probability) / ((6 + len(best)) / 6) ** 2, rel=1e-3)
    assert done.all()
    jax.effects_barrier()
    assert len(ran) == steps


def test_greedy_search_takes_the_likeliest_token_each_time():
    source = sources_of(1, seed=11)[0]
    oracle, tokens = Oracle(source), []
    while len(tokens) < limit_of(source):
        row = oracle.next([tokens])[0]
        row[[*FORBIDDEN, BEGIN, *([] if tokens else [END])]] = -np.inf
        if (token := int(row.argmax())) == END:
            break
        tokens.append(token)
    assert tokens_of(searcher(beam=1).search([source])) == [[tokens]]


@pytest.fixture(scope="module")
def sources():
    return sources_of(64)


@pytest.fixture(scope="module")
def alone(sources):
    """Every source translated by itself."""
    return [searcher().search([source])[0] for source in sources]


@pytest.mark.parametrize("size", [7, 64])
def test_a_translation_does_not_depend_on_its_neighbours(size, sources, alone):
    found = [h for start in range(0, 64, size) for h in searcher().search(sources[start : start + size])]
    assert tokens_of(found) == tokens_of(alone)
    np.testing.assert_allclose([h[0].score for h in found], [h[0].score for h in alone], rtol=1e-4)


def test_a_translation_does_not_depend_on_the_order(sources, alone):
    order = np.random.default_rng(4).permutation(64)
    found = searcher().search([sources[i] for i in order])
    assert tokens_of(found) == [tokens_of(alone)[i] for i in order]


def test_a_translation_does_not_depend_on_the_shape_of_batches(sources, alone, monkeypatch):
    for module in (search, shapes):
        monkeypatch.setattr(module, "SHORTEST_BUCKET", 32)
    other = Searcher(toy(), SpecialTokens(BEGIN, END, FORBIDDEN), 32, searcher().config, make_layout())
    assert (searcher().buckets, other.buckets) == ([16], [32])
    assert tokens_of(other.search(sources)) == tokens_of(alone)


def test_a_translation_does_not_depend_on_how_often_it_was_begun(sources, monkeypatch):
    options = options_of(searcher(), max_length_ratio=2.0, max_length_extra=12)
    in_two_goes = searcher().search(sources[:8], options=options)
    assert {len(hypotheses[0].tokens) > 16 + shapes.MARGIN for hypotheses in in_two_goes} == {True, False}
    monkeypatch.setattr(shapes, "MARGIN", 100)
    assert tokens_of(searcher().search(sources[:8], options=options)) == tokens_of(in_two_goes)


def test_scores_are_those_of_reading_the_translation(sources, alone):
    scores = searcher().score(sources, [hypotheses[0].tokens for hypotheses in alone])
    np.testing.assert_allclose(scores, [hypotheses[0].log_probability for hypotheses in alone], rtol=1e-4)


def test_scores_are_those_of_the_trained_model():
    source, target = sources_of(1, seed=8)[0], [9, 30, 9, 5]
    assert searcher().score([source], [target]) == pytest.approx([Oracle(source).log_probability(target)], rel=1e-4)


def test_hypotheses_obey_the_limits(sources, alone):
    limits = [limit_of(source) for source in sources]
    lengths = [len(hypotheses[0].tokens) for hypotheses in alone]
    assert all(1 <= length <= limit for length, limit in zip(lengths, limits, strict=True))
    assert any(length == limit for length, limit in zip(lengths, limits, strict=True))
    assert not {token for hypotheses in alone for token in hypotheses[0].tokens} & (FORBIDDEN | {BEGIN, END})


def test_progress_tells_every_source_once(sources):
    told = []
    searcher().search(sources, progress=told.extend)
    assert sorted(told) == list(range(64))


def test_nothing_gives_nothing():
    assert searcher().search([]) == []
    assert searcher().score([], []) == []


def test_sources_beyond_what_is_possible_are_refused():
    with pytest.raises(ValueError, match="a source of 17 tokens; at most 16"):
        searcher().search([[TAG, *[9] * 15, END]])


def test_a_model_that_diverged_is_told():
    model = jax.tree.map(lambda x: x * jnp.nan, toy(sparse=False))
    broken = Searcher(model, SpecialTokens(BEGIN, END, FORBIDDEN), 16, DecodeConfig(), make_layout())
    with pytest.raises(UserError, match="no finite probabilities"):
        broken.search([[TAG, 9, END]])


_SEVERAL_DEVICES = """
import json, sys
sys.path[:0] = ["tests", "tests/decode"]
from test_decode import *
from nmt.config import MeshConfig
layout = make_layout(MeshConfig(data=2, expert=2, model=2))
with layout.use():
    shared = Searcher(toy(), SpecialTokens(BEGIN, END, FORBIDDEN), 16, searcher.__wrapped__().config, layout)
    print(json.dumps(tokens_of(shared.search(sources_of(64)[:6]))))
"""


def test_eight_devices_translate_as_one(alone):
    done = subprocess.run(
        [sys.executable, "-c", _SEVERAL_DEVICES],
        env=os.environ
        | {
            "XLA_FLAGS": f"{os.environ.get('XLA_FLAGS', '')} --xla_force_host_platform_device_count=8",
            "JAX_PLATFORMS": "cpu",
        },
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert done.stdout.strip() == str(tokens_of(alone[:6]))
