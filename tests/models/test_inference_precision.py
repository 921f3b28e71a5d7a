"""Models for inference in float32, bfloat16 and int8: close to what was trained, and the same whatever the batch."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import toy_model as toy
from flax import nnx

from nmt.errors import UserError
from nmt.models import dtypes
from nmt.models.dtypes import inference_config, resolve_precision
from nmt.models.incremental import decode_step, empty_cache, encode, inference_model, log_probabilities, project_sources
from nmt.models.weight_matrix import WeightMatrix

PRECISIONS = ("float32", "bfloat16", "int8")
SOURCE, WIDTH, STEPS, MOST = 9, 3, 4, 5

advance = jax.jit(decode_step)
scored = jax.jit(lambda model, *given: log_probabilities(model, encode(model, *given[:2]), *given[2:]))


@jax.jit
def read_sources(model, source, length):
    return project_sources(model, encode(model, source, length))


def prepared(precision):
    """A dense model: rounding may send a token to another expert."""
    config = toy.model_config(moe=None, encoder_layers=1, decoder_layers=1, width=32, hidden=48)
    graph, parameters = toy.weights(inference_config(config, precision))
    return jax.jit(inference_model, static_argnames=("multiple", "precision"))(
        nnx.merge(graph, parameters), multiple=128, precision=precision
    )


@pytest.fixture(scope="module")
def models():
    return {precision: prepared(precision) for precision in PRECISIONS}


def logits_of(model, rows):
    """Logits [rows,W,V] after some steps of the last rows of a batch."""
    rng = np.random.default_rng(3)
    source = rng.integers(5, toy.VOCABULARY, (MOST, SOURCE))[-rows:]
    length = rng.integers(1, SOURCE + 1, MOST)[-rows:]
    tokens = rng.integers(5, toy.VOCABULARY, (STEPS, MOST, WIDTH))[:, -rows:]
    memory, cache = read_sources(model, source, length), empty_cache(model, rows, WIDTH, STEPS)
    ancestor = np.broadcast_to(np.arange(WIDTH)[:, None], (rows, WIDTH, STEPS)).astype(np.int32)
    live = np.ones((rows, WIDTH), bool)
    for step in range(STEPS):
        logits, cache, _ = advance(model, tokens[step], np.full(rows, step), live, ancestor, memory, cache)
    return np.asarray(logits)[..., : toy.VOCABULARY]


@pytest.mark.parametrize("precision", PRECISIONS)
def test_a_sentence_has_the_same_logits_bit_for_bit_alone_and_among_others(precision, models):
    among = logits_of(models[precision], MOST)
    for rows in (1, 2):
        np.testing.assert_array_equal(logits_of(models[precision], rows), among[-rows:], err_msg=f"{rows} rows")


@pytest.mark.parametrize(("precision", "error"), [("bfloat16", 0.02), ("int8", 0.04)])
def test_a_lower_precision_is_close_to_float32(precision, error, models):
    exact, found = (logits_of(models[name], MOST) for name in ("float32", precision))
    difference = (exact - found).std() / exact.std()
    assert 0 < difference < error


@pytest.mark.parametrize("precision", PRECISIONS)
def test_forced_scores_are_those_of_steps(precision, models):
    """The targets are read at once, in the same precision; what differs is the order of sums in attention."""
    model, rng = models[precision], np.random.default_rng(3)
    source, length = rng.integers(5, toy.VOCABULARY, (MOST, SOURCE)), rng.integers(1, SOURCE + 1, MOST)
    tokens = rng.integers(5, toy.VOCABULARY, (STEPS, MOST, WIDTH))
    targets = np.concatenate([tokens[:, :, 1].T, np.full((MOST, 1), 7)], axis=1)
    found = scored(model, source, length, targets, np.full(MOST, STEPS + 1))[:, -1]
    expected = jax.nn.log_softmax(logits_of(model, MOST)[:, 1])[:, 7]
    np.testing.assert_allclose(found, expected, atol=1e-4 if precision == "float32" else 0.02)


def test_int8_keeps_nothing_else_of_the_weights(models):
    """All matrices are int8, embeddings too, and there are no float32 originals beside them."""
    size = {name: sum(leaf.nbytes for leaf in jax.tree.leaves(model)) for name, model in models.items()}
    assert size["float32"] / size["bfloat16"] > 1.9
    assert size["bfloat16"] / size["int8"] > 1.7  # scales of rows of 32 weights are a ninth of them
    kept = jax.tree.leaves(models["int8"], is_leaf=lambda node: isinstance(node, WeightMatrix))
    matrices = [leaf for leaf in kept if isinstance(leaf, WeightMatrix)]
    assert len(matrices) == 1 + 4 + 7  # the table, an encoder's layer, a decoder's
    assert {matrix.weight.dtype for matrix in matrices} == {jnp.dtype(jnp.int8)}
    assert all(leaf.ndim == 1 for leaf in kept if not isinstance(leaf, WeightMatrix))  # norms


@pytest.mark.parametrize(
    ("asked", "recipe", "native", "precision"),
    [
        (None, "float32", "bfloat16", "float32"),
        (None, "bfloat16", "float32", "bfloat16"),
        (None, "auto", "bfloat16", "bfloat16"),
        ("auto", "float32", "bfloat16", "bfloat16"),
        ("auto", "bfloat16", "float32", "int8"),
        ("int8", "bfloat16", "bfloat16", "int8"),
        ("float32", "bfloat16", "bfloat16", "float32"),
    ],
)
def test_the_precision_is_what_is_asked_for_then_the_recipes(asked, recipe, native, precision, monkeypatch):
    """`auto` follows what the devices multiply natively."""
    monkeypatch.setattr(dtypes, "platform", lambda: "cpu")
    monkeypatch.setattr(dtypes, "_cpu_has_bfloat16", lambda: native == "bfloat16")
    assert resolve_precision(asked, recipe) == precision


def test_another_precision_is_a_mistake():
    with pytest.raises(UserError, match=r"^precision must be one of auto, float32, bfloat16, int8 \(not bf16\)"):
        resolve_precision("bf16", "float32")
    with pytest.raises(UserError, match="did you mean int8"):
        resolve_precision("in8", "float32")
