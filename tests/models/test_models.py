import functools
import re
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import oracles
import pytest
import toy_model as toy
from flax import nnx

import nmt.models.attention
import nmt.models.layers
import nmt.models.stack
import nmt.models.transformer
from nmt.config import ModelConfig, MoEConfig, VocabularySizes
from nmt.models.attention import MASKED, attention_bias
from nmt.models.building import abstract_model
from nmt.models.dtypes import resolve_dtype
from nmt.models.layers import parameter
from nmt.models.norms import RMSNorm
from nmt.models.numerics import dropout, product, split_key
from nmt.models.positions import sinusoids
from nmt.models.stack import CrossMemory
from nmt.models.tokens import PackedTokens, Phase, TokenInfo
from nmt.models.weights import from_arrays, to_arrays
from nmt.sharding import LOGICAL_AXES

# Products


def product_specs():
    """Every einsum that a model asks for."""
    sources = [path.read_text() for path in Path(nmt.models.__file__).parent.rglob("*.py")]
    return sorted({spec for source in sources for spec in re.findall(r'product\(\s*"([a-z,>-]+)"', source)})


def rounded(x, dtype):
    return np.asarray(jnp.asarray(x).astype(dtype).astype(jnp.float32), np.float64)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("odd", [False, True])
def test_products_and_their_gradients(dtype, odd):
    specs, rng = product_specs(), np.random.default_rng(0)
    assert len(specs) > 6
    cases = []
    for spec in specs:
        inputs, result = spec.split("->")
        letters = sorted(set(inputs) - {","})
        size = {letter: 2 * (i % 3) + 4 + odd for i, letter in enumerate(letters)}
        shapes = [[size[letter] for letter in indices] for indices in (*inputs.split(","), result)]
        cases.append([rng.normal(size=shape).astype(np.float32) for shape in shapes])

    @jax.jit
    def run(cases):
        results = []
        for spec, (x, w, cotangent) in zip(specs, cases, strict=True):
            y, backward = jax.vjp(lambda x, w, spec=spec: product(spec, x, w, jnp.dtype(dtype)), x, w)
            results.append((y, *backward(cotangent)))
        return results

    for spec, case, result in zip(specs, cases, run(cases), strict=True):
        inputs, output = spec.split("->")
        left, right = inputs.split(",")
        x, w, cotangent = (rounded(array, dtype) for array in case)
        expected = (
            np.einsum(spec, x, w),
            np.einsum(f"{output},{right}->{left}", cotangent, w),
            np.einsum(f"{left},{output}->{right}", x, cotangent),
        )
        for got, wanted in zip(result, expected, strict=True):
            assert got.dtype == jnp.float32
            np.testing.assert_allclose(got, wanted, rtol=1e-5, atol=1e-5, err_msg=spec)


# Dropout

ROWS, COLUMNS = 1000, 192


@functools.partial(jax.jit, static_argnames=("rate", "rows", "columns"))
def mask(key, rate, rows=ROWS, columns=COLUMNS):
    return dropout(jnp.ones((rows, columns)), rate, key) > 0


def correlation(a, b):
    return float(np.corrcoef(np.ravel(a), np.ravel(b))[0, 1])


@pytest.mark.parametrize("rate", [0.01, 0.1, 0.5, 0.9])
def test_dropout_keeps_its_share_and_the_mean(rate):
    x = jnp.full((ROWS, COLUMNS), 3.0)
    for key in jax.random.split(jax.random.key(1), 4):
        y = np.asarray(dropout(x, rate, key))
        deviation = (rate * (1 - rate) / y.size) ** 0.5
        assert abs((y > 0).mean() - (1 - rate)) < 5 * deviation
        np.testing.assert_allclose(y[y != 0], 3.0 / (1 - rate), rtol=1e-6)
        assert abs(y.mean() / 3.0 - 1) < 5 * deviation / (1 - rate)


def test_dropout_is_a_function_of_the_key():
    one, again, other = (np.asarray(mask(jax.random.key(k), 0.5)) for k in (1, 1, 2))
    np.testing.assert_array_equal(one, again)
    assert abs((one == other).mean() - 0.5) < 5 * 0.5 / one.size**0.5


def test_dropout_without_rate_or_key_is_no_operation():
    x = jnp.arange(4.0)
    assert dropout(x, 0.0, jax.random.key(0)) is x
    assert dropout(x, 0.5, None) is x
    assert split_key(None, 3) == [None] * 3


def test_dropout_has_one_mask_forward_and_backward():
    key = jax.random.key(3)
    x = jnp.linspace(1.0, 2.0, 3000).reshape(30, 100)
    y, backward = jax.vjp(lambda x: dropout(x, 0.3, key), x)
    (gradient,) = backward(jnp.full_like(x, 2.0))
    np.testing.assert_allclose(gradient, 2.0 * np.asarray(y / x), rtol=1e-6)
    assert 0.6 < float((y > 0).mean()) < 0.8


def test_dropout_of_neighbours_is_unrelated():
    kept = np.asarray(mask(jax.random.key(4), 0.5), np.float64)
    line, bound = kept.ravel(), 5 / kept.size**0.5
    for lag in (1, 2, 3, 4, 8, 16, 64, 128, COLUMNS - 1, COLUMNS, COLUMNS + 1, 2 * COLUMNS, 4096):
        assert abs(correlation(line[lag:], line[:-lag])) < bound, lag
    # Sums along rows and columns spread as those of independent draws do.
    for axis, others in ((0, COLUMNS), (1, ROWS)):
        spread = kept.mean(axis=axis).var() * kept.shape[axis] / 0.25
        assert abs(spread - 1) < 5 * (2 / others) ** 0.5


def test_dropout_at_different_places_and_steps_is_unrelated():
    steps = [jax.random.fold_in(jax.random.key(1), step) for step in range(4)]
    keys = [key for step in steps for key in jax.random.split(step, 4)]
    kept = np.array([np.ravel(mask(key, 0.1)) for key in keys], np.float64)
    related = np.corrcoef(kept) - np.eye(len(keys))
    assert np.abs(related).max() < 5.5 / kept.shape[1] ** 0.5


# Layers


def test_parameters_are_uniform_with_the_variance_of_their_fan_in():
    value = np.asarray(parameter(nnx.Rngs(0), (300, 400), ("embed", "mlp"), 300)[...])
    bound = (3 / 300) ** 0.5
    assert value.min() >= -bound
    assert value.max() <= bound
    assert value.max() > 0.999 * bound
    np.testing.assert_allclose(value.std(), (1 / 300) ** 0.5, rtol=0.01)


def test_rms_norm():
    x = np.random.default_rng(0).normal(size=(3, 5, 8)).astype(np.float32) * 100
    norm = RMSNorm(8)
    np.testing.assert_allclose(np.square(norm(jnp.asarray(x))).mean(axis=-1), 1.0, rtol=1e-5)
    np.testing.assert_allclose(norm(jnp.asarray(x * 7)), norm(jnp.asarray(x)), rtol=1e-5)
    norm.scale[...] = jnp.arange(8.0)
    np.testing.assert_allclose(norm(jnp.asarray(x)), RMSNorm(8)(jnp.asarray(x)) * np.arange(8), rtol=1e-5)
    assert not np.asarray(norm(jnp.zeros((2, 8)))).any()


@pytest.mark.parametrize("width", [2, 7, 8])
def test_sinusoids(width):
    table, half = sinusoids(50, width), width // 2
    assert table.shape == (50, width)
    np.testing.assert_allclose(table[0, :half], 0.0)
    np.testing.assert_allclose(table[0, half : 2 * half], 1.0)
    np.testing.assert_allclose(table[:, 0], np.sin(np.arange(50)), atol=1e-6)
    if half > 1:
        np.testing.assert_allclose(table[:, half - 1], np.sin(np.arange(50) / 10_000), atol=1e-6)
    np.testing.assert_allclose(table[:, :half] ** 2 + table[:, half : 2 * half] ** 2, 1.0, rtol=1e-5)


def test_attention_bias():
    query, key = np.array([[1, 1, 2, 0], [1, 0, 0, 0]]), np.array([[1, 2, 2, 0], [1, 1, 1, 2]])
    for causal in (False, True):
        bias = np.asarray(attention_bias(jnp.asarray(query), jnp.asarray(key), causal))
        assert bias.shape == (2, 1, 4, 4)
        for b, t, s in np.ndindex(2, 4, 4):
            allowed = query[b, t] == key[b, s] and key[b, s] > 0 and (s <= t or not causal)
            assert bias[b, 0, t, s] == (0.0 if allowed else np.float32(MASKED))


# The model

DENSE = toy.model_config(moe=None, encoder_layers=1, decoder_layers=2, heads=3, head_width=4)
SPARSE = toy.model_config()
FIELDS = ("src", "src_segment", "src_position", "tgt_in", "tgt_segment", "tgt_position")


def sides(batch):
    source = PackedTokens(batch["src"], batch["src_segment"], batch["src_position"])
    return source, PackedTokens(batch["tgt_in"], batch["tgt_segment"], batch["tgt_position"])


def forward(model, batch):
    source, target = sides(batch)
    memory, _ = model.encode(source)
    hidden, _ = model.decode(target, memory, batch["src_segment"])
    return model.logits(hidden)


@functools.cache
def compiled(config):
    """Logits of a batch, as a function compiled once."""
    graph, parameters = toy.weights(config)
    run = jax.jit(lambda parameters, batch: forward(nnx.merge(graph, parameters), batch))
    return lambda batch: np.asarray(run(parameters, batch))


def inputs(batch):
    return {field: getattr(batch, field) for field in FIELDS}


@pytest.fixture(scope="module")
def rows():
    return toy.pairs_of(np.random.default_rng(0), 4)


@pytest.mark.parametrize("config", [DENSE, SPARSE], ids=["dense", "sparse"])
def test_packed_pairs_are_translated_as_if_each_were_alone(config, rows):
    batch = toy.pack(rows)
    logits = compiled(config)(inputs(batch))
    oracle = oracles.Model(toy.flat(toy.weights(config)[1]), config)
    checked = 0
    for r, pairs in enumerate(rows):
        for segment, (source, target, _) in enumerate(pairs, start=1):
            at = batch.tgt_segment[r] == segment
            expected = oracle.logits(source, [1, *target[:-1]])
            np.testing.assert_allclose(logits[r, at], expected, rtol=1e-3, atol=1e-3)
            assert expected.std() > 0.1
            checked += 1
    assert checked > len(rows)


@pytest.mark.parametrize("config", [DENSE, SPARSE], ids=["dense", "sparse"])
def test_a_target_token_is_read_by_nothing_before_it(config, rows):
    batch = inputs(toy.pack(rows))
    before = compiled(config)(batch)
    for token in (0, 3, 5):
        changed = batch["tgt_in"].copy()
        changed[0, token] = 7 if changed[0, token] != 7 else 8
        after = compiled(config)(batch | {"tgt_in": changed})
        np.testing.assert_allclose(after[0, :token], before[0, :token], rtol=1e-4, atol=1e-5)
        np.testing.assert_allclose(after[1:], before[1:], rtol=1e-4, atol=1e-5)
        assert np.abs(after[0, token] - before[0, token]).max() > 1e-3


@pytest.mark.parametrize("field", ["src", "tgt_in"])
def test_pairs_of_a_row_do_not_see_each_other(field, rows):
    batch = inputs(toy.pack(rows))
    side = f"{field[:3]}_segment"
    row = next(r for r, pairs in enumerate(rows) if len(pairs) > 1)
    before = compiled(SPARSE)(batch)
    changed = batch[field].copy()
    changed[row, batch[side][row] == 2] = 9
    after = compiled(SPARSE)(batch | {field: changed})
    one, two = (batch["tgt_segment"][row] == segment for segment in (1, 2))
    np.testing.assert_allclose(after[row, one], before[row, one], rtol=1e-4, atol=1e-5)
    assert np.abs(after[row, two] - before[row, two]).max() > 1e-3


def test_what_else_is_in_the_batch_does_not_matter(rows):
    batch = inputs(toy.pack(rows))
    before = compiled(SPARSE)(batch)
    order = [2, 0, 3, 1]
    shuffled = compiled(SPARSE)({field: array[order] for field, array in batch.items()})
    real = batch["tgt_segment"] > 0
    np.testing.assert_allclose(shuffled[real[order]], before[order][real[order]], rtol=1e-4, atol=1e-5)
    alone = compiled(SPARSE)(inputs(toy.pack([rows[0], [], [], []])))
    np.testing.assert_allclose(alone[0][real[0]], before[0][real[0]], rtol=1e-4, atol=1e-5)


def test_scanned_layers_are_the_layers_one_by_one(rows):
    batch = inputs(toy.pack(rows))
    graph, parameters = toy.weights(SPARSE)

    @jax.jit
    def unrolled(parameters, batch):
        model = nnx.merge(graph, parameters)
        source, target = batch["src_segment"], batch["tgt_segment"]
        memory = model.embed(batch["src"], batch["src_position"], toy.LENGTH)
        for i in range(SPARSE.encoder_layers):
            bias = attention_bias(source, source)
            info = TokenInfo(batch["src"], source > 0)
            memory, _ = model.encoder.layer(i)(memory, bias, info, None, None, Phase.INFER)
        memory = model.encoder.norm(memory)
        x = model.embed(batch["tgt_in"], batch["tgt_position"], toy.LENGTH)
        own = attention_bias(target, target, causal=True)
        info, cross = TokenInfo(batch["tgt_in"], target > 0), CrossMemory(memory, attention_bias(target, source))
        for i in range(SPARSE.decoder_layers):
            x, _ = model.decoder.layer(i)(x, own, info, cross, None, Phase.INFER)
        return model.logits(model.decoder.norm(x))

    np.testing.assert_allclose(unrolled(parameters, batch), compiled(SPARSE)(batch), rtol=1e-4, atol=1e-4)


def test_no_two_places_of_the_model_drop_out_by_the_same_key(rows, monkeypatch):
    keys = []

    def spied(x, rate, key):
        if key is not None and rate > 0:
            jax.debug.callback(lambda data: keys.append(tuple(data.tolist())), jax.random.key_data(key))
        return x

    for module in (nmt.models.attention, nmt.models.stack, nmt.models.transformer, nmt.models.layers):
        monkeypatch.setattr(module, "dropout", spied)
    config = toy.model_config(
        encoder_layers=3, decoder_layers=3, attention_dropout=0.1, moe=toy.moe_config(offset=0, extra_dense=True)
    )
    graph, parameters = toy.weights(config)

    @jax.jit
    def run(parameters, batch, key):
        model = nnx.merge(graph, parameters)
        source_key, target_key = jax.random.split(key)
        source, target = sides(batch)
        memory, _ = model.encode(source, source_key, Phase.TRAIN)
        return model.decode(target, memory, batch["src_segment"], target_key, Phase.TRAIN)[0]

    run(parameters, inputs(toy.pack(rows)), jax.random.key(0)).block_until_ready()
    jax.effects_barrier()
    # Embeddings. Residuals: two in an encoder's layer, three in a decoder's. Weights of attention: one, and two. Hidden
    # units of a dense layer of three in each stack, and of the two beside sparse ones, with their residuals.
    assert len(keys) == 2 + 3 * 2 + 3 * 3 + 3 + 3 * 2 + 2 * (1 + 2 * 2)
    assert len(set(keys)) == len(keys)


def program_size(layers, moe):
    """Operations of forward and backward pass, inner programs included."""
    config = toy.model_config(encoder_layers=layers, decoder_layers=layers, moe=moe)
    graph, parameters = abstract_model(config, toy.SIZES)

    def loss(parameters, batch):
        return forward(nnx.merge(graph, parameters), batch).sum()

    text = str(jax.make_jaxpr(jax.grad(loss))(parameters, inputs(toy.batch())))
    return text.count(" = "), text.count("scan[")


@pytest.mark.parametrize("moe", [None, toy.moe_config()], ids=["dense", "sparse"])
def test_the_program_does_not_grow_with_depth(moe):
    shallow, deep = program_size(4, moe), program_size(8, moe)
    assert shallow == deep
    assert shallow[1] >= 4  # two stacks, forward and backward


def expected_parameters(config, vocabulary):
    heads = config.heads * config.head_width
    attention, norm = 4 * config.width * heads, config.width
    dense = 2 * config.width * config.hidden
    every = config.moe.every if config.moe else 1
    sparse = config.moe.experts * (dense + config.width) if config.moe else dense  # router: a column an expert
    total = vocabulary * config.width + 2 * norm
    for layers, attentions in ((config.encoder_layers, 1), (config.decoder_layers, 2)):
        total += layers * (attentions * (attention + norm) + norm)
        total += layers // every * ((every - 1) * dense + sparse)
    return total


@pytest.mark.parametrize(
    "config",
    [
        DENSE,
        SPARSE,
        ModelConfig(moe=None),
        ModelConfig(),
        ModelConfig(encoder_layers=6, decoder_layers=3, moe=MoEConfig(experts=16, every=3)),
        ModelConfig(encoder_layers=2, decoder_layers=1, moe=MoEConfig(experts=5, every=1)),
    ],
)
def test_parameter_count(config):
    _, parameters = abstract_model(config, VocabularySizes.shared(1000))
    assert sum(np.prod(leaf.shape) for leaf in jax.tree.leaves(parameters)) == expected_parameters(config, 1000)


def test_gshard_counts():
    # GShard, table 1: 128 experts in 6 of 12 layers are 12.9 billion parameters, 512 are 51.5.
    for experts, billions in ((128, 12.9), (512, 51.5)):
        config = ModelConfig(
            width=1024,
            hidden=8192,
            heads=16,
            head_width=128,
            encoder_layers=6,
            decoder_layers=6,
            moe=MoEConfig(experts=experts, every=2),
        )
        _, parameters = abstract_model(config, VocabularySizes.shared(64_000))
        expert = sum(
            np.prod(leaf.get_value().shape)
            for _, leaf in nnx.to_flat_state(parameters)
            if "expert" in leaf.get_metadata()["logical_axes"]
        )
        assert expert / 1e9 == pytest.approx(billions, abs=0.05)


@pytest.mark.parametrize("config", [DENSE, SPARSE], ids=["dense", "sparse"])
def test_every_parameter_names_its_axes(config):
    _, parameters = abstract_model(config, toy.SIZES)
    for path, leaf in nnx.to_flat_state(parameters):
        axes = leaf.get_metadata()["logical_axes"]
        assert len(axes) == len(leaf.get_value().shape), path
        assert all(axis is None or axis in LOGICAL_AXES for axis in axes), path
        assert leaf.get_value().dtype == jnp.float32, path
        assert ("layers" in axes) == ("blocks" in path), path


def test_bfloat16_is_for_products_only():
    config = toy.model_config(dtype="bfloat16")
    graph, parameters = abstract_model(config, toy.SIZES)
    batch = inputs(toy.batch())
    logits = jax.eval_shape(lambda p: forward(nnx.merge(graph, p), batch), parameters)
    assert logits.dtype == jnp.float32
    assert all(leaf.dtype == jnp.float32 for leaf in jax.tree.leaves(parameters))
    program = str(jax.make_jaxpr(lambda p: forward(nnx.merge(graph, p), batch))(parameters))
    assert program.count("bf16[") > 20
    assert not re.findall(r"bf16\[[\d,]*\] = dot_general", program)
    assert len(re.findall(r"f32\[[\d,]*\] = dot_general", program)) > 10


def test_dtype_is_resolved():
    assert [resolve_dtype(name) for name in ("float32", "bfloat16")] == ["float32", "bfloat16"]
    assert resolve_dtype("auto") in ("float32", "bfloat16")


def test_arrays_round_trip():
    _, parameters = toy.weights(SPARSE)
    arrays = to_arrays(parameters)
    assert all(isinstance(key, str) for path, _ in jax.tree_util.tree_leaves_with_path(arrays) for key in [path[0].key])
    _, other = toy.weights(SPARSE, seed=1)
    again = from_arrays(other, arrays)
    assert jax.tree.structure(again) == jax.tree.structure(parameters)
    for (path, mine), (_, its) in zip(nnx.to_flat_state(again), nnx.to_flat_state(parameters), strict=True):
        np.testing.assert_array_equal(mine[...], its[...])
        assert mine.get_metadata()["logical_axes"] == its.get_metadata()["logical_axes"], path
