"""Dispatch in rounds, for inference with experts that are spread over devices: the result of dispatch without slots."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from nmt.config import MoEConfig
from nmt.models.moe.dispatch import grouped_dispatch, round_slots, rounds_dispatch
from nmt.models.moe.routing import Routing, fill, route

GROUPS, TOKENS, EXPERTS, WIDTH, CHOICES = 3, 40, 8, 4, 2


def routing(favourite: float) -> Routing:
    """Return routing in which a share of the tokens chooses expert 0 first."""
    draw = np.random.default_rng(5)
    first = np.where(draw.random((GROUPS, TOKENS)) < favourite, 0, draw.integers(0, EXPERTS, (GROUPS, TOKENS)))
    expert = jnp.asarray(np.stack([first, (first + 1 + draw.integers(0, EXPERTS - 1, first.shape)) % EXPERTS], -1))
    wanted = jnp.asarray(draw.random(expert.shape) < 0.9)
    slot, kept = fill(wanted, expert, EXPERTS, None)
    return Routing(expert, jnp.where(kept, jnp.asarray(draw.random(expert.shape), jnp.float32), 0.0), slot, kept)


@pytest.mark.parametrize("favourite", [0.0, 1.0])
def test_all_tokens_are_served_however_many_choose_one_expert(favourite):
    x = jax.random.normal(jax.random.key(1), (GROUPS, TOKENS, WIDTH))
    weights = jax.random.normal(jax.random.key(2), (EXPERTS, WIDTH, WIDTH))
    way = routing(favourite)

    def apply(rows, owners):
        return owners.multiply(rows, weights, jnp.dtype(jnp.float32))

    expected = sum(
        way.gate[..., k, None] * jnp.einsum("gni,gnio->gno", x, weights[way.expert[..., k]]) for k in range(CHOICES)
    )
    assert favourite == 0.0 or int(way.slot.max()) >= round_slots(TOKENS, EXPERTS, CHOICES)  # two rounds
    got = jax.jit(lambda x: rounds_dispatch(x, way, EXPERTS, apply))(x)
    np.testing.assert_allclose(got, expected, rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(got, grouped_dispatch(x, way, EXPERTS, apply), rtol=1e-4, atol=1e-4)


def test_padding_gets_nothing():
    nobody = Routing(*(jnp.zeros((1, 4, 2), dtype) for dtype in (jnp.int32, jnp.float32, jnp.int32, bool)))
    got = rounds_dispatch(jnp.ones((1, 4, WIDTH)), nobody, EXPERTS, lambda rows, owners: rows)
    np.testing.assert_array_equal(got, 0.0)


def test_statistics_do_not_depend_on_how_many_groups_share_the_work():
    logits = jax.random.normal(jax.random.key(0), (4, 8, 5))
    real = jax.random.bernoulli(jax.random.key(1), 0.7, (4, 8))
    config = MoEConfig(experts=5)
    spread = route(logits, real, config, None, None, together=True)[1]
    whole = route(logits.reshape(1, 32, 5), real.reshape(1, 32), config, None, None)[1]
    jax.tree.map(lambda one, other: np.testing.assert_allclose(one, other, rtol=1e-6), spread, whole)
    assert route(logits, real, config, None, None)[1].balance_loss > whole.balance_loss * 1.01  # groups on their own
