"""Options of layers, stacks and positions: against the slow model, in training, in decoding, and one by one."""

import functools
import math
import re
from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import oracles
import pytest
import toy_model as toy
from flax import nnx
from hypothesis import given
from hypothesis import strategies as st

from nmt.config import DataConfig, ModelConfig, Recipe
from nmt.errors import UserError
from nmt.models import incremental, remat
from nmt.models.attention import attend, attention_bias
from nmt.models.building import abstract_model
from nmt.models.layers import Init, parameter
from nmt.models.moe.dispatch import scatter_dispatch
from nmt.models.moe.layer import TO_SLOTS
from nmt.models.norms import LayerNorm, RMSNorm
from nmt.models.positions import interleaved_sinusoids, relative_buckets, rotate
from nmt.models.stack import Stack
from nmt.models.tokens import PackedTokens, Phase, TokenInfo
from nmt.sharding import LOGICAL_AXES

# Every option is in one of them; the numbers of layers are multiples of `moe.every` or not, and above or below it.
OPTIONS = {
    "fairseq": toy.model_config(
        norm="layernorm",
        norm_epsilon=0.05,
        activation="gelu",
        bias=True,
        positions="sinusoidal_interleaved",
        attention_dropout=0.2,
        encoder_layers=2,
        decoder_layers=1,
        moe=None,
    ),
    "t5": toy.model_config(
        activation="geglu",
        positions="relative",
        relative_buckets=8,
        relative_distance=6,
        encoder_layers=3,
        decoder_layers=1,
        moe=toy.moe_config(every=2, offset=0, extra_dense=True),
    ),
    "llama": toy.model_config(
        activation="swiglu", positions="rotary", bias=True, encoder_layers=3, decoder_layers=1, moe=None
    ),
    "learned": toy.model_config(
        norm="layernorm",
        positions="learned",
        max_positions=toy.LENGTH,
        encoder_layers=4,
        decoder_layers=2,
        moe=toy.moe_config(every=3, offset=1),
    ),
}

each = pytest.mark.parametrize("name", OPTIONS)


@functools.cache
def oracle(name):
    return oracles.Model(toy.flat(toy.weights(OPTIONS[name])[1]), OPTIONS[name])


def logits_of(model, batch):
    source = PackedTokens(batch.src, batch.src_segment, batch.src_position)
    target = PackedTokens(batch.tgt_in, batch.tgt_segment, batch.tgt_position)
    memory, _ = model.encode(source)
    hidden, _ = model.decode(target, memory, batch.src_segment)
    return model.logits(hidden)


@each
def test_packed_pairs_are_translated_as_by_the_slow_model(name):
    pairs_of_rows = toy.pairs_of(np.random.default_rng(0), 4)
    batch = toy.pack(pairs_of_rows)
    graph, parameters = toy.weights(OPTIONS[name])
    logits = np.asarray(jax.jit(lambda p, batch: logits_of(nnx.merge(graph, p), batch))(parameters, batch))
    assert max(len(pairs) for pairs in pairs_of_rows) > 1
    for row, pairs in enumerate(pairs_of_rows):
        for segment, (source, target, _) in enumerate(pairs, start=1):
            expected = oracle(name).logits(source, [1, *target[:-1]])
            np.testing.assert_allclose(logits[row, batch.tgt_segment[row] == segment], expected, rtol=1e-3, atol=1e-3)
            assert expected.std() > 0.1


def log_softmax(x):
    return np.log(oracles.softmax(x))


@each
def test_decoding_gives_what_the_slow_model_gives(name):
    model = jax.jit(incremental.inference_model)(nnx.merge(*toy.weights(OPTIONS[name])))
    rng = np.random.default_rng(1)
    rows, width, steps = 2, 3, 6
    source, length = rng.integers(5, toy.VOCABULARY, (rows, 9)), np.array([9, 4])
    encoded = jax.jit(incremental.encode)(model, source, length)

    memory, cache = incremental.project_sources(model, encoded), incremental.empty_cache(model, rows, width, steps)
    ancestor, history = np.zeros((rows, width, steps), np.int32), np.zeros((rows, width, 0), int)
    live, advance = np.ones((rows, width), bool), jax.jit(incremental.decode_step)
    for step in range(steps):
        token = rng.integers(5, toy.VOCABULARY, (rows, width))
        history = np.concatenate([history, token[..., None]], axis=2)
        ancestor[..., step] = np.arange(width)
        logits, cache, _ = advance(model, token, np.full(rows, step), live, ancestor.copy(), memory, cache)
        if step < steps - 1:  # exchange hypotheses, some of them twice
            parent = rng.integers(0, width, (rows, width))
            ancestor, history = (np.take_along_axis(x, parent[..., None], axis=1) for x in (ancestor, history))

    expected = {
        (row, k): log_softmax(oracle(name).logits(source[row, : length[row]], history[row, k]))
        for row, k in np.ndindex(rows, width)
    }
    for (row, k), table in expected.items():
        np.testing.assert_allclose(jax.nn.log_softmax(logits[row, k]), table[-1], atol=1e-3)
    scores = jax.jit(incremental.log_probabilities)(model, encoded, history[:, 0], np.full(rows, steps))
    for row in range(rows):
        read = [expected[row, 0][t - 1, history[row, 0, t]] for t in range(1, steps)]
        np.testing.assert_allclose(scores[row], read, atol=1e-3)


# The stack.


@pytest.mark.parametrize("name", ["t5", "learned"])
def test_statistics_are_in_the_order_of_layers(name):
    config = OPTIONS[name]
    graph, parameters = toy.weights(config)
    x = np.random.default_rng(2).normal(size=(2, 8, config.width)).astype(np.float32)
    segment, position = np.ones((2, 8), int), np.tile(np.arange(8), (2, 1))
    info = TokenInfo(segment, segment > 0, position=position)

    @jax.jit
    def run(parameters):
        stack = nnx.merge(graph, parameters).encoder
        bias = attention_bias(segment, segment)
        _, stats = stack(x, bias, info)
        y, found = x, []
        for i in range(config.encoder_layers):
            own = stack.positions.add(bias, position, position)
            y, one = stack.layer(i)(y, own, info, None, None, Phase.INFER)
            found.append(None if one is None else one.load)
        return stats.load, found

    load, found = run(parameters)
    sparse = [i for i, one in enumerate(found) if one is not None]
    assert sparse == [i for i in range(config.encoder_layers) if i % config.moe.every == config.moe.sparse_layer]
    assert len(sparse) == len(load)
    np.testing.assert_allclose(load, [found[i] for i in sparse], atol=1e-6)


def test_a_stack_without_sparse_layers_has_no_statistics():
    config = toy.model_config(encoder_layers=1, decoder_layers=2, moe=toy.moe_config(every=2))
    graph, parameters = abstract_model(config, toy.SIZES)
    assert not [path for path, _ in nnx.to_flat_state(parameters.encoder) if "moe" in path]
    batch = toy.batch()

    def run(parameters):
        return nnx.merge(graph, parameters).encode(PackedTokens(batch.src, batch.src_segment, batch.src_position))[1]

    assert jax.eval_shape(run, parameters) is None


def test_the_program_does_not_grow_with_depth_where_layers_are_left_over():
    def size(layers):
        config = toy.model_config(encoder_layers=layers, decoder_layers=1)
        graph, parameters = abstract_model(config, toy.SIZES)
        return str(jax.make_jaxpr(lambda p: logits_of(nnx.merge(graph, p), toy.batch()))(parameters)).count(" = ")

    assert size(3) == size(9)


def expected_parameters(config):
    """Worked out from the sizes of matrices and biases, layer by layer."""
    heads, gated, bias = config.heads * config.head_width, "glu" in config.activation, config.bias
    norm = config.width * (2 if config.norm == "layernorm" else 1)
    attention = 4 * config.width * heads + bias * (3 * heads + config.width)
    dense = (2 + gated) * config.width * config.hidden + bias * ((1 + gated) * config.hidden + config.width)
    total = toy.VOCABULARY * config.width
    total += config.max_positions * config.width if config.positions == "learned" else 0
    for layers, attentions in ((config.encoder_layers, 1), (config.decoder_layers, 2)):
        total += norm + (config.relative_buckets * config.heads if config.positions == "relative" else 0)
        for layer in range(layers):
            total += attentions * (attention + norm) + norm
            sparse = config.moe is not None and layer % config.moe.every == config.moe.sparse_layer
            total += config.moe.experts * (dense + config.width) if sparse else dense
            total += norm + dense if sparse and config.moe.extra_dense else 0
    return total


@each
def test_parameters_are_counted_and_name_their_axes(name):
    _, parameters = abstract_model(OPTIONS[name], toy.SIZES)
    leaves = nnx.to_flat_state(parameters)
    assert sum(math.prod(leaf.get_value().shape) for _, leaf in leaves) == expected_parameters(OPTIONS[name])
    for path, leaf in leaves:
        axes = leaf.get_metadata()["logical_axes"]
        assert len(axes) == len(leaf.get_value().shape), path
        assert all(axis is None or axis in LOGICAL_AXES for axis in axes), path
        assert ("layers" in axes) == ("blocks" in path), path


# Norms, first weights.


def test_layer_norm():
    x = np.random.default_rng(0).normal(3.0, 100.0, size=(3, 5, 8)).astype(np.float32)
    norm = LayerNorm(8, 0.0)
    y = np.asarray(norm(x))
    np.testing.assert_allclose(y.mean(axis=-1), 0.0, atol=1e-6)
    np.testing.assert_allclose(y.std(axis=-1), 1.0, rtol=1e-5)
    norm.scale[...], norm.bias[...] = np.arange(8.0, dtype=np.float32), np.full(8, 2.0, np.float32)
    np.testing.assert_allclose(norm(x), y * np.arange(8) + 2, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("kind", [RMSNorm, LayerNorm])
def test_norms_are_float32_inside(kind):
    x = jnp.asarray(np.random.default_rng(0).normal(size=(4, 64)), jnp.bfloat16)
    exact = kind(64)(x.astype(jnp.float32))
    assert kind(64)(x).dtype == jnp.bfloat16
    np.testing.assert_array_equal(kind(64)(x), exact.astype(jnp.bfloat16))
    np.testing.assert_allclose(kind(4, 1.0)(jnp.full((4,), 0.0)), 0.0)


def test_first_weights_have_the_variance_of_their_kind():
    fan_in, fan_out, scale = 300, 500, 0.25

    def draw(kind):
        return np.asarray(parameter(nnx.Rngs(0), (fan_in, fan_out), (None, None), fan_in, init=Init(kind, scale))[...])

    deviation = (scale / fan_in) ** 0.5
    assert draw("uniform").std() == pytest.approx(deviation, rel=0.01)
    assert draw("xavier").std() == pytest.approx((2 * scale / (fan_in + fan_out)) ** 0.5, rel=0.01)
    normal = draw("truncated_normal")
    assert 1.99 * deviation < np.abs(normal).max() <= 2 * deviation
    # The variance of a normal cut off at a is 1 - 2 a phi(a) / (2 Phi(a) - 1).
    cut = 1 - 4 * math.exp(-2) / (2 * math.pi) ** 0.5 / math.erf(2**0.5)
    assert normal.std() == pytest.approx(deviation * cut**0.5, rel=0.01)


@pytest.mark.parametrize("kind", ["truncated_normal", "xavier"])
def test_all_weights_of_attention_and_dense_layers_are_drawn_so(kind):
    config = toy.model_config(
        init=kind, init_scale=0.1, activation="geglu", width=32, hidden=96, moe=None, encoder_layers=1, decoder_layers=1
    )
    inner = config.heads * config.head_width
    fans = {"wq": (32, 3 * inner), "wkv": (32, 3 * inner), "wi": (32, 96), "wg": (32, 96)}
    stack = Stack(config, jnp.dtype(jnp.float32), kind == "xavier", nnx.Rngs(0))
    for path, leaf in nnx.to_flat_state(nnx.state(stack)):
        if path[-1] == "scale":
            continue
        fan_in, fan_out = fans.get(path[-1], (96 if "ff" in path else inner, 32))
        bound = 2 * (0.1 / fan_in) ** 0.5 if kind == "truncated_normal" else (0.6 / (fan_in + fan_out)) ** 0.5
        assert 0.95 * bound < np.abs(leaf[...]).max() <= bound, path


# Positions.


@given(
    half=st.integers(2, 20),
    beyond=st.integers(1, 200),
    bidirectional=st.booleans(),
)
def test_buckets_are_those_of_t5(half, beyond, bidirectional):
    buckets, distance = 2 * half, half + beyond
    table = relative_buckets(buckets, distance, bidirectional)
    expected = [oracles.t5_bucket(n, bidirectional, buckets, distance) for n in range(-distance, distance + 1)]
    np.testing.assert_array_equal(table, expected)
    for far in (2, 10):
        assert oracles.t5_bucket(far * distance, bidirectional, buckets, distance) == table[-1]
        assert oracles.t5_bucket(-far * distance, bidirectional, buckets, distance) == table[0]


def test_turned_heads_know_their_distance_only():
    q, k = np.random.default_rng(0).normal(size=(2, 1, 1, 1, 8)).astype(np.float32)

    def product(at, other):
        return float((rotate(q, jnp.array([[at]])) * rotate(k, jnp.array([[other]]))).sum())

    assert product(7, 4) == pytest.approx(product(103, 100), abs=1e-4)
    assert abs(product(7, 4) - product(4, 7)) > 1e-2
    np.testing.assert_allclose(rotate(q, jnp.zeros((1, 1))), q, rtol=1e-6)


@pytest.mark.parametrize("width", [7, 8])
def test_interleaved_sinusoids(width):
    table = interleaved_sinusoids(9, width)
    assert table.shape == (9, width)
    for position, j in np.ndindex(table.shape):
        angle = position / 10_000 ** (2 * (j // 2) / width)
        assert table[position, j] == pytest.approx(math.cos(angle) if j % 2 else math.sin(angle), abs=1e-6)


def test_learnt_positions_end():
    model = OPTIONS["learned"]
    data = {"corpora": ("x",), "directions": toy.DIRECTIONS, "source_length": 32, "target_length": 16}
    with pytest.raises(ValueError, match="16 learnt positions are too few for rows of 32 tokens: raise"):
        Recipe(name="toy", data=DataConfig(**data), model=model)
    graph, parameters = abstract_model(model, toy.SIZES)
    longer = np.zeros((1, 17), int)
    with pytest.raises(UserError, match="16 is the end of the learnt positions, and 17 are asked"):
        jax.eval_shape(lambda p: nnx.merge(graph, p).encode(PackedTokens(longer, longer, longer)), parameters)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"relative_distance": 16}, r"relative_distance=16 is to be more than half of model\.relative_buckets=32"),
        ({"relative_buckets": 7}, "multiple of 2"),
    ],
)
def test_impossible_buckets_are_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        ModelConfig(**changes)


# Dropout of attention.


def test_weights_of_attention_are_dropped_out():
    q = k = np.zeros((4, 50, 2, 6), np.float32)
    v = np.ones((4, 50, 2, 6), np.float32)
    whole, dropped = (
        attend(q, k, v, jnp.zeros((1, 1, 1, 1)), jnp.dtype(jnp.float32), 0.25, key) for key in (None, jax.random.key(0))
    )
    np.testing.assert_allclose(whole, 1.0, rtol=1e-5)
    kept = np.asarray(dropped[..., 0]) * 0.75 * 50  # of 50 equal weights
    np.testing.assert_allclose(kept, kept.round(), atol=1e-3)
    assert kept.mean() == pytest.approx(37.5, abs=5 * (50 * 0.25 * 0.75 / kept.size) ** 0.5)
    assert kept.std() > 1


# Rematerialisation and types.

DEEP = toy.model_config(encoder_layers=12, decoder_layers=1, moe=toy.moe_config(every=1))


def encoder_loss(config, rows=16):
    """The loss of an encoder in training, as a function of its parameters."""
    graph, _ = abstract_model(config, toy.SIZES)
    batch = toy.batch(rows=rows)

    def loss(parameters):
        source = PackedTokens(batch.src, batch.src_segment, batch.src_position)
        hidden, stats = nnx.merge(graph, parameters).encode(source, jax.random.key(0), Phase.TRAIN)
        assert hidden.dtype == jnp.float32
        return jnp.square(hidden[..., 0]).sum() + (0.0 if stats is None else stats.balance_loss.sum())

    return loss


@functools.cache
def step(kept):
    """Loss, gradients and temporary bytes of a deep encoder."""
    config = DEEP.model_copy(update={"remat": kept})
    parameters = toy.weights(config)[1]
    program = jax.jit(jax.value_and_grad(encoder_loss(config))).lower(parameters).compile()
    return program(parameters), program.memory_analysis().temp_size_in_bytes


@pytest.mark.parametrize(("kept", "share"), [("full", 0.5), ("dots", 0.8), ("moe", 0.8), ("offload_moe", 1.0)])
def test_what_is_computed_again_is_the_same_and_need_not_be_kept(kept, share):
    (loss, gradients), memory = step(kept)
    (expected_loss, expected), most = step("none")
    np.testing.assert_allclose(loss, expected_loss, rtol=1e-6)
    for a, b in zip(jax.tree.leaves(gradients), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5 * np.abs(b).max())
    assert memory < share * most


def products(kept, **changes):
    """Products in the program of a step of an encoder."""
    config = toy.model_config(remat=kept, decoder_layers=1, **changes)
    program = str(jax.make_jaxpr(jax.grad(encoder_loss(config)))(abstract_model(config, toy.SIZES)[1]))
    return program.count("dot_general["), program


def test_products_that_are_kept_are_not_computed_again():
    # Per layer: queries, keys and values, two of attention, output, two of the feed-forward layer; the last one's
    # result is of no use to the backward pass.
    dense = {"encoder_layers": 3, "moe": None}
    usual = 3 * 7
    again = {kept: products(kept, **dense)[0] - usual for kept in ("none", "full", "dots", "moe")}
    assert again == {"none": 0, "full": 6, "dots": 2, "moe": 0}
    sparse = {"encoder_layers": 3, "moe": toy.moe_config(every=1, dispatch="scatter")}
    usual = products("none", **sparse)[0]
    again = {kept: products(kept, **sparse)[0] - usual for kept in ("moe", "offload_moe")}
    assert again == {"moe": 3, "offload_moe": 1}  # the router's, and the two of the experts


def test_layers_that_are_left_over_are_computed_again_too():
    for kept, blocks in (("full", 2), ("moe", 2), ("none", 0)):
        _, program = products(kept, encoder_layers=3, moe=toy.moe_config(every=2, offset=0))
        assert len(re.findall(r"(?:remat2?|checkpoint)\[", program)) == blocks, kept


def test_offloading_asks_for_memory_of_the_host(monkeypatch):
    monkeypatch.setattr(remat, "HOST", "elsewhere")
    with pytest.raises(UserError, match=r"model\.remat=offload_moe .* cannot address: use model\.remat=moe"):
        products("offload_moe", encoder_layers=2)


def test_hidden_states_may_be_bfloat16(monkeypatch):
    config = toy.model_config(activation_dtype="bfloat16", dtype="bfloat16", encoder_layers=3, decoder_layers=1)
    sent = []

    def spied(x, *arguments):
        y = scatter_dispatch(x, *arguments)
        sent.append((x.dtype, y.dtype))
        return y

    monkeypatch.setitem(TO_SLOTS, "scatter", spied)
    _, parameters = abstract_model(config, toy.SIZES)
    program = str(jax.make_jaxpr(jax.value_and_grad(encoder_loss(config, 4)))(parameters))
    assert sent
    assert {x for x, _ in sent} == {jnp.dtype("bfloat16")}
    assert re.search(rf"bf16\[4,{toy.LENGTH},{config.width}\][^=]*= scan\[", program)
    assert not re.findall(r"bf16\[[\d,]*\] = (?:exp|rsqrt|log|logistic|div)\b", program)
    assert all(leaf.dtype == jnp.float32 for leaf in jax.tree.leaves(parameters))


def test_bfloat16_hidden_states_decode_to_what_is_read():
    # Two choices among two experts: rounding may change by how much a token goes where, but not where.
    moe = toy.moe_config(experts=2, every=1, second_expert="all")
    config = toy.model_config(
        activation_dtype="bfloat16", dtype="bfloat16", encoder_layers=1, decoder_layers=2, moe=moe
    )
    graph, parameters = toy.weights(config)
    rng = np.random.default_rng(3)
    rows, steps = 2, 5
    source, target = rng.integers(5, toy.VOCABULARY, (rows, 9)), rng.integers(5, toy.VOCABULARY, (rows, steps))
    pairs = [[(source[row], [*target[row, 1:], 5], 0)] for row in range(rows)]
    batch = replace(toy.pack(pairs, 9, steps), tgt_in=target)
    read = jax.jit(lambda p, batch: logits_of(nnx.merge(graph, p), batch))(parameters, batch)

    model = jax.jit(incremental.inference_model)(nnx.merge(graph, parameters))
    encoded = jax.jit(incremental.encode)(model, source, np.full(rows, 9))
    memory, cache = incremental.project_sources(model, encoded), incremental.empty_cache(model, rows, 1, steps)
    live, ancestor, advance = np.ones((rows, 1), bool), np.zeros((rows, 1, steps), np.int32), incremental.decode_step
    for step in range(steps):
        token = target[:, step : step + 1]
        logits, cache, _ = jax.jit(advance)(model, token, np.full(rows, step), live, ancestor, memory, cache)
        got, expected = (jax.nn.log_softmax(x) for x in (logits[:, 0], read[:, step]))
        np.testing.assert_allclose(got, expected, atol=0.05)
        assert np.asarray(expected).std() > 0.5
