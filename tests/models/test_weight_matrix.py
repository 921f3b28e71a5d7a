"""Matrices of weights for inference: their products are right, and each row's is the same whatever rows are with it."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from nmt.models.weight_matrix import WeightMatrix, look_up_weights, multiply, sum_last, weight_matrix

PRECISIONS = ("float32", "bfloat16", "int8")
ROWS = (1, 2, 3, 8, 33, 128)

quick = jax.jit(multiply)


def drawn(*shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


@pytest.mark.parametrize(("precision", "error"), [("float32", 1e-5), ("bfloat16", 0.01), ("int8", 0.02)])
def test_product_is_that_of_float64(precision, error):
    weights, x = drawn(40, 64), drawn(5, 2, 64, seed=1)
    exact = x.astype(np.float64) @ weights.T
    found = quick(jnp.asarray(x), weight_matrix(jnp.asarray(weights), precision))
    assert found.dtype == jnp.float32
    assert np.abs(np.asarray(found) - exact).max() < error * np.linalg.norm(exact) / 10


def test_int8_is_round_to_nearest_with_a_scale_for_every_output_and_row():
    weights = np.array([[1.0, -2.0, 0.5], [0.0, 0.0, 0.0], [1000.0, 3.9, -4.1]], np.float32)
    matrix = weight_matrix(jnp.asarray(weights), "int8")
    assert np.asarray(matrix.weight).tolist() == [[64, -127, 32], [0, 0, 0], [127, 0, -1]]
    np.testing.assert_allclose(matrix.scale, [2 / 127, 0, 1000 / 127], rtol=1e-6)
    rows = np.array([[127.0, 1.4, -127.0], [0.0, 0.0, 0.0]], np.float32)
    expected = (np.array([[127, 1, -127], [0, 0, 0]]) @ np.asarray(matrix.weight, np.int64).T) * np.asarray(
        matrix.scale
    )
    np.testing.assert_allclose(quick(jnp.asarray(rows), matrix), expected, rtol=1e-6)


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_int8_keeps_rows_and_outputs_that_are_not_finite_from_looking_well(value):
    weights, x = drawn(4, 8), drawn(3, 8)
    x[1, 2] = value
    found = np.asarray(quick(jnp.asarray(x), weight_matrix(jnp.asarray(weights), "int8")))
    assert not np.isfinite(found[1]).any()
    assert np.isfinite(found[[0, 2]]).all()
    weights[2, 5] = value
    assert not np.isfinite(np.asarray(quick(jnp.asarray(x[:1]), weight_matrix(jnp.asarray(weights), "int8")))[0, 2])


@pytest.mark.parametrize(("inputs", "outputs"), [(512, 256), (192, 1000), (100, 37)])
@pytest.mark.parametrize("precision", PRECISIONS)
def test_a_row_is_the_same_bit_for_bit_among_any_number_of_rows(precision, inputs, outputs):
    matrix = weight_matrix(jnp.asarray(drawn(outputs, inputs)), precision)
    x = jnp.asarray(drawn(max(ROWS), inputs, seed=1))
    whole = np.asarray(quick(x, matrix))
    for rows in ROWS:
        np.testing.assert_array_equal(np.asarray(quick(x[-rows:], matrix)), whole[-rows:], err_msg=str(rows))


@pytest.mark.parametrize("size", [37, 192])
def test_a_sum_is_the_same_bit_for_bit_among_any_number_of_sums(size):
    x, summed = jnp.asarray(drawn(max(ROWS), size)), jax.jit(sum_last)
    whole = np.asarray(summed(x))
    np.testing.assert_allclose(whole, np.asarray(x, np.float64).sum(axis=1), atol=1e-4)
    for rows in ROWS:
        np.testing.assert_array_equal(np.asarray(summed(x[-rows:])), whole[-rows:], err_msg=str(rows))


def test_int8_products_run_in_the_kernel_for_integers():
    """XLA:CPU has one, and without it a product takes several times as long: as a loop, or converted to int32."""
    matrix = weight_matrix(jnp.asarray(drawn(64, 128)), "int8")
    for rows in (1, 8):
        text = quick.lower(jnp.ones((rows, 128)), matrix).compile().as_text()
        kernels = [line for line in text.splitlines() if "__ynn_fusion" in line and "s32[" in line]
        assert kernels, text
        assert "s32[64,128]" not in text  # weights that were widened


def test_int8_takes_a_quarter_of_the_memory_of_float32_and_half_of_that_of_bfloat16():
    weights = jnp.asarray(drawn(6, 128, 512))
    size = {
        precision: sum(leaf.nbytes for leaf in jax.tree.leaves(weight_matrix(weights, precision)))
        for precision in PRECISIONS
    }
    assert size["float32"] == 2 * size["bfloat16"]
    assert size["bfloat16"] / size["int8"] > 1.95


def test_matrices_with_leading_axes_are_taken_apart_as_a_tree():
    weights, x = drawn(3, 16, 8), jnp.asarray(drawn(2, 8))
    several = weight_matrix(jnp.asarray(weights), "int8")
    taken = jax.tree.map(lambda leaf: leaf[1], several)
    assert isinstance(taken, WeightMatrix)
    np.testing.assert_array_equal(quick(x, taken), quick(x, weight_matrix(jnp.asarray(weights[1]), "int8")))


@pytest.mark.parametrize("precision", PRECISIONS)
def test_embeddings_are_the_weights_of_outputs(precision):
    weights, index = drawn(10, 16), np.array([[3, 3], [9, 0]])
    found = look_up_weights(weight_matrix(jnp.asarray(weights), precision), jnp.asarray(index))
    assert found.dtype == jnp.float32
    bound = {"float32": 0.0, "bfloat16": 2**-8, "int8": 0.5 / 127}[precision]
    largest = np.abs(weights).max(axis=1)[index][..., None]
    assert (np.abs(np.asarray(found) - weights[index]) <= bound * largest * 1.001).all()
