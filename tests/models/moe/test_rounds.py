"""Dispatch in rounds, for inference with experts that are spread over devices: the result of dispatch without slots."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from toy_routing import decide

from nmt.config import MoEConfig
from nmt.models.moe.dispatch import grouped_dispatch, round_slots, rounds_dispatch
from nmt.models.moe.routing import Routing, fill

GROUPS, TOKENS, EXPERTS, WIDTH, CHOICES = 3, 40, 8, 4, 2


def routing(favourite: float) -> Routing:
    """Return routing in which a share of the tokens chooses expert 0 first."""
    draw = np.random.default_rng(5)
    first = np.where(draw.random((GROUPS, TOKENS)) < favourite, 0, draw.integers(0, EXPERTS, (GROUPS, TOKENS)))
    expert = jnp.asarray(np.stack([first, (first + 1 + draw.integers(0, EXPERTS - 1, first.shape)) % EXPERTS], -1))
    wanted = jnp.asarray(draw.random(expert.shape) < 0.9)
    slot, kept = fill(wanted, expert, EXPERTS, None)
    return Routing(expert, jnp.where(kept, jnp.asarray(draw.random(expert.shape), jnp.float32), 0.0), slot, kept)


def apply(rows, owners, weights, dtype):
    return owners.multiply(rows, weights, jnp.dtype(dtype))


@pytest.mark.parametrize("favourite", [0.0, 1.0])
def test_all_tokens_are_served_however_many_choose_one_expert(favourite):
    x = jax.random.normal(jax.random.key(1), (GROUPS, TOKENS, WIDTH))
    weights = jax.random.normal(jax.random.key(2), (EXPERTS, WIDTH, WIDTH))
    way = routing(favourite)

    experts = partial(apply, weights=weights, dtype=jnp.float32)
    expected = sum(
        way.gate[..., k, None] * jnp.einsum("gni,gnio->gno", x, weights[way.expert[..., k]]) for k in range(CHOICES)
    )
    assert favourite == 0.0 or int(way.slot.max()) >= round_slots(TOKENS, EXPERTS, CHOICES)  # two rounds
    got = jax.jit(lambda x: rounds_dispatch(x, way, EXPERTS, experts))(x)
    np.testing.assert_allclose(got, expected, rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(got, grouped_dispatch(x, way, EXPERTS, experts), rtol=1e-4, atol=1e-4)


def test_a_bfloat16_token_is_treated_the_same_whoever_is_beside_it():
    """Whether its choices are served in one round or in several."""
    choices, slots = 3, round_slots(TOKENS, EXPERTS, 3)
    draw = np.random.default_rng(0)
    x = jnp.asarray(draw.normal(size=(GROUPS, TOKENS, WIDTH)), jnp.bfloat16)
    weights = jnp.asarray(draw.normal(size=(EXPERTS, WIDTH, WIDTH)), jnp.float32)
    gate = jnp.asarray(draw.random((GROUPS, TOKENS, choices)), jnp.float32)
    mine = draw.permuted(np.tile(np.arange(EXPERTS), (GROUPS, TOKENS, 1)), axis=-1)[..., :choices]

    @jax.jit
    def last(x, expert):
        slot, kept = fill(jnp.ones(expert.shape, bool), expert, EXPERTS, None)
        way = Routing(expert, gate, slot, kept)
        experts = partial(apply, weights=weights, dtype=jnp.bfloat16)
        return rounds_dispatch(x, way, EXPERTS, experts)[:, -1], slot[:, -1] // slots

    alone, rounds_alone = last(x, jnp.asarray(mine))
    for crowd in range(choices):
        # All others want one of the experts of the last token, and other ones for the rest of their choices.
        others = np.broadcast_to((mine[:, -1:, [crowd]] + np.arange(choices)) % EXPERTS, mine.shape)
        expert = np.where(np.arange(TOKENS)[:, None] < TOKENS - 1, others, mine)
        crowded, rounds = last(jnp.roll(x, 1, axis=0).at[:, -1].set(x[:, -1]), jnp.asarray(expert))
        assert int(rounds.max()) > int(rounds_alone.max())
        np.testing.assert_array_equal(crowded, alone)


def test_padding_gets_nothing():
    nobody = Routing(*(jnp.zeros((1, 4, 2), dtype) for dtype in (jnp.int32, jnp.float32, jnp.int32, bool)))
    got = rounds_dispatch(jnp.ones((1, 4, WIDTH)), nobody, EXPERTS, lambda rows, owners: rows)
    np.testing.assert_array_equal(got, 0.0)


def test_statistics_do_not_depend_on_how_many_groups_share_the_work():
    logits = jax.random.normal(jax.random.key(0), (4, 8, 5))
    real = jax.random.bernoulli(jax.random.key(1), 0.7, (4, 8))
    config = MoEConfig(experts=5)
    spread = decide(logits, real, config, None, balanced_groups=1)[1]
    whole = decide(logits.reshape(1, 32, 5), real.reshape(1, 32), config, None)[1]
    jax.tree.map(lambda one, other: np.testing.assert_allclose(one, other, rtol=1e-6), spread, whole)
    assert decide(logits, real, config, None)[1].balance_loss > whole.balance_loss * 1.01  # groups on their own
