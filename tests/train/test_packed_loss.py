"""Nothing leaks between the pairs of a packed row: losses and gradients are those of pairs in rows of their own."""

import functools
from dataclasses import replace

import jax
import numpy as np
import pytest
import toy_model as toy
from flax import nnx

from nmt.models.tokens import Phase
from nmt.train.cross_entropy import OutputLoss
from nmt.train.objective import LossSetting, objective

# What groups have in common is left out: room for all of a group's tokens, and no loss of their balance.
ROOMY = {"capacity_factor": 64.0, "balance_weight": 0.0, "z_weight": 0.0, "second_expert": "all"}
MODELS = {
    "dense": toy.model_config(encoder_layers=1, decoder_layers=1, dropout=0.0, moe=None),
    "moe": toy.model_config(encoder_layers=2, decoder_layers=2, dropout=0.0, moe=toy.moe_config(**ROOMY)),
    "dropless": toy.model_config(
        encoder_layers=2, decoder_layers=2, dropout=0.0, moe=toy.moe_config(**ROOMY, dispatch="grouped")
    ),
}


ROWS = toy.pairs_of(np.random.default_rng(5), 4)
ALONE = [[pair] for row in ROWS for pair in row]
# As many rows as pairs, the last ones empty, so that both are one compiled program.
PACKED = toy.pack([*ROWS, *[[]] * (len(ALONE) - len(ROWS))])


@functools.cache
def compiled(name):
    """The loss, metrics and gradients of a model, as a compiled function of a batch."""
    graph, parameters = toy.weights(MODELS[name])

    def loss(parameters, batch):
        return objective(nnx.merge(graph, parameters), batch, LossSetting(2, Phase.TRAIN, OutputLoss(0.1)))

    return functools.partial(jax.jit(jax.value_and_grad(loss, has_aux=True)), parameters)


def results(name, batch):
    """The loss, the metrics and the gradients by path."""
    (value, metrics), gradients = compiled(name)(batch)
    return value, metrics, toy.flat(gradients)


@pytest.mark.parametrize("name", MODELS)
def test_packed_and_unpacked_losses_and_gradients_are_equal(name):
    assert max(map(len, ROWS)) >= 2
    loss, metrics, gradients = results(name, PACKED)
    expected, others, wanted = results(name, toy.pack(ALONE))
    np.testing.assert_allclose(loss, expected, rtol=1e-5)
    np.testing.assert_allclose(metrics.nll, others.nll, rtol=1e-5)
    np.testing.assert_array_equal(metrics.tokens, others.tokens)
    for path, gradient in gradients.items():
        scale = np.abs(wanted[path]).max()
        assert scale > 0, path
        np.testing.assert_allclose(gradient, wanted[path], rtol=1e-3, atol=1e-5 * scale, err_msg=path)


def test_the_comparison_can_fail():
    """With pairs merged into one segment, attention crosses from one to the other, and the loss is another."""
    merged = {name: np.minimum(getattr(PACKED, name), 1) for name in ("src_segment", "tgt_segment")}
    loss, wrong = (results("dense", batch)[0] for batch in (PACKED, replace(PACKED, **merged)))
    assert abs(loss - wrong) > 1e-3 * loss
