"""A model runs unrolled and unjitted, for debugging, with the same results."""

import jax
import numpy as np
import pytest
import toy_model as toy
from flax import nnx

from nmt.models.stack import unrolled
from nmt.models.tokens import PackedTokens


def encode(parameters, graph, batch):
    source = PackedTokens(batch.src, batch.src_segment, batch.src_position)
    hidden, stats = nnx.merge(graph, parameters).encode(source)
    return hidden, stats


def test_written_out_layers_give_what_scanned_ones_give():
    config = toy.model_config(encoder_layers=5, remat="full")
    graph, parameters = toy.weights(config)
    batch = toy.batch(rows=2)
    expected = jax.jit(lambda p: encode(p, graph, batch))(parameters)
    with unrolled():
        program = jax.make_jaxpr(lambda p: encode(p, graph, batch))(parameters)
        found = jax.jit(lambda p: encode(p, graph, batch))(parameters)
    assert "scan[" not in str(program)
    assert "scan[" in str(jax.make_jaxpr(lambda p: encode(p, graph, batch))(parameters))
    jax.tree.map(lambda one, other: np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-4), found, expected)


def test_a_model_runs_without_jit():
    graph, parameters = toy.weights(toy.model_config())
    batch = toy.batch(rows=2)
    expected = jax.jit(lambda p: encode(p, graph, batch)[0])(parameters)
    with jax.disable_jit(), unrolled():
        found = encode(parameters, graph, batch)[0]
    assert not isinstance(found, jax.core.Tracer)
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-4)


def test_layers_are_scanned_again_after_an_error():
    with pytest.raises(ZeroDivisionError), unrolled():
        raise ZeroDivisionError
    graph, parameters = toy.weights(toy.model_config())
    assert "scan[" in str(jax.make_jaxpr(lambda p: encode(p, graph, toy.batch(rows=2)))(parameters))
