"""The cross-entropy of the output and its derivatives."""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from nmt.train.cross_entropy import OutputLoss, cross_entropy

FLOAT32, BFLOAT16 = jnp.dtype("float32"), jnp.dtype("bfloat16")


@functools.partial(jax.jit, static_argnames=("smoothing", "dtype", "z_weight"))
def ours(hidden, table, target, weight, scale, smoothing, dtype, z_weight=0.0):
    def total(hidden, table):
        loss, nll = cross_entropy(hidden, table, target, weight, OutputLoss(smoothing, z_weight), dtype)
        return scale * loss, nll

    (loss, nll), gradients = jax.value_and_grad(total, argnums=(0, 1), has_aux=True)(hidden, table)
    return loss, nll, *gradients


def formula(hidden, table, target, weight, scale, smoothing, z_weight=0.0):
    """The same by the textbook, in float64."""
    hidden, table = (np.asarray(x, np.float64) for x in (hidden, table))
    logits = hidden @ table.T
    normaliser = np.log(np.exp(logits).sum(axis=-1, keepdims=True))
    log_probability = logits - normaliser
    wanted = (1 - smoothing) * np.eye(len(table))[target] + smoothing / len(table)
    loss = (
        scale * (weight[:, None] * (z_weight * normaliser**2 - (wanted * log_probability).sum(1, keepdims=True))).sum()
    )
    of_z = 2 * z_weight * normaliser * np.exp(log_probability)
    of_logits = scale * weight[:, None] * (np.exp(log_probability) - wanted + of_z)
    nll = -log_probability[np.arange(len(target)), target]
    return loss, nll, of_logits @ table, of_logits.T @ hidden


def entropy_case(rows, vocabulary):
    rng = np.random.default_rng([rows, vocabulary])
    hidden, table = (rng.normal(size=(n, 6)).astype(np.float32) for n in (rows, vocabulary))
    weight = (rng.random(rows) > 0.3).astype(np.float32)
    assert set(weight) == {0.0, 1.0}
    return hidden, table, rng.integers(0, vocabulary, rows), weight, 0.37


@pytest.mark.parametrize(("smoothing", "z_weight"), [(0.0, 0.0), (0.1, 0.0), (0.1, 0.3)])
@pytest.mark.parametrize(("rows", "vocabulary"), [(12, 10), (9, 11)])
def test_cross_entropy_and_its_gradients(rows, vocabulary, smoothing, z_weight):
    case = entropy_case(rows, vocabulary)
    expected = formula(*case, smoothing, z_weight)
    for got, wanted in zip(ours(*case, smoothing, FLOAT32, z_weight), expected, strict=True):
        np.testing.assert_allclose(got, wanted, rtol=1e-4, atol=1e-5)


def test_cross_entropy_of_rounded_inputs():
    hidden, table, *rest = entropy_case(12, 10)
    rounded = [np.asarray(jnp.asarray(x).astype(BFLOAT16).astype(FLOAT32)) for x in (hidden, table)]
    loss, nll, *gradients = ours(hidden, table, *rest, 0.1, BFLOAT16)
    expected_loss, expected_nll, *expected = formula(*rounded, *rest, 0.1)
    np.testing.assert_allclose(loss, expected_loss, rtol=1e-4)
    np.testing.assert_allclose(nll, expected_nll, rtol=1e-4, atol=1e-4)
    for got, wanted in zip(gradients, expected, strict=True):  # the gradient of the logits is rounded to 8 bits
        np.testing.assert_allclose(got, wanted, atol=0.02 * np.abs(wanted).max())


def test_cross_entropy_of_the_ignorant_and_of_the_sure():
    ignorant, table = np.zeros((4, 6), np.float32), entropy_case(4, 10)[1]
    loss, nll, *_ = ours(ignorant, table, np.arange(4), np.array([1, 1, 0, 1], np.float32), 1.0, 0.1, FLOAT32)
    np.testing.assert_allclose(loss, 3 * math.log(10), rtol=1e-5)
    np.testing.assert_allclose(nll, math.log(10), rtol=1e-5)
    sure = 1e4 * np.eye(6, dtype=np.float32)
    loss, nll, *gradients = ours(sure, np.eye(6, dtype=np.float32), np.arange(6), np.ones(6), 1.0, 0.0, FLOAT32)
    assert float(loss) == 0.0
    assert all(np.isfinite(gradient).all() for gradient in gradients)


def test_the_z_loss_pulls_logits_to_zero_and_leaves_the_likelihood_alone():
    # One word of logit x: no other loss than z x^2, whose derivative is 2 z x.
    x = np.array([[3.0], [-2.0], [5.0]], np.float32)
    weight = np.array([1, 1, 0], np.float32)
    loss, nll, of_hidden, _ = ours(x, np.ones((1, 1), np.float32), np.zeros(3, int), weight, 1.0, 0.0, FLOAT32, 0.01)
    np.testing.assert_allclose(loss, 0.01 * (9 + 4), rtol=1e-5)
    np.testing.assert_allclose(of_hidden[:, 0], 0.02 * np.array([3, -2, 0]), rtol=1e-5)
    assert not np.asarray(nll).any()
