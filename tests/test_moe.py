import functools
from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import oracles
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from toy_routing import draw_logits, draw_real

from nmt.models.moe.dispatch import block_rows, blocked_dispatch, einsum_dispatch, scatter_dispatch
from nmt.models.moe.routing import Routing

WIDTH, HIDDEN = 6, 10


# Dispatch


def relu_experts(wi, wo):
    def apply(rows):
        hidden = jax.nn.relu(jnp.einsum("erm,emh->erh", rows, wi, precision="highest"))
        return jnp.einsum("erh,ehm->erm", hidden, wo, precision="highest")

    return apply


@functools.partial(jax.jit, static_argnames=("dispatch", "slots"))
def dispatched(dispatch, x, gate, wi, wo, routing, cotangent, slots):
    """What a dispatch returns, and its gradients times a cotangent."""

    def run(x, gate, wi, wo):
        return dispatch(x, replace(routing, gate=gate), wi.shape[0], slots, relu_experts(wi, wo))

    y, backward = jax.vjp(run, x, gate, wi, wo)
    return y, *backward(cotangent)


def draw_weights(rng, *shapes):
    return [rng.normal(size=shape).astype(np.float32) for shape in shapes]


def routing_of(expected):
    return Routing(
        expert=jnp.asarray(expected.expert, jnp.int32),
        gate=jnp.asarray(expected.gate, jnp.float32),
        slot=jnp.asarray(np.maximum(expected.slot, 0), jnp.int32),
        kept=jnp.asarray(expected.kept),
    )


@pytest.mark.parametrize("dispatch", [einsum_dispatch, scatter_dispatch])
@pytest.mark.parametrize(
    ("groups", "tokens", "experts", "slots"), [(1, 7, 1, 3), (2, 9, 4, 2), (2, 6, 3, 9), (3, 1, 2, 1)]
)
@pytest.mark.parametrize("kind", ["spread", "collapse", "padding"])
def test_dispatch_is_a_gated_sum_of_experts(dispatch, groups, tokens, experts, slots, kind):
    rng = np.random.default_rng([groups, tokens, experts])
    shape = (groups, tokens, experts)
    real = draw_real(rng, shape, "everywhere" if kind == "padding" else "none")
    plan = oracles.route(draw_logits(rng, shape, "spread" if kind == "padding" else kind), real, slots)
    x, cotangent, wi, wo = draw_weights(
        rng, (groups, tokens, WIDTH), (groups, tokens, WIDTH), (experts, WIDTH, HIDDEN), (experts, HIDDEN, WIDTH)
    )
    routing = routing_of(plan)
    y, of_x, of_gate, of_wi, of_wo = dispatched(dispatch, x, routing.gate, wi, wo, routing, cotangent, slots)
    expected = oracles.mixture(
        x.reshape(-1, WIDTH),
        plan.expert.reshape(-1, 2),
        plan.gate.reshape(-1, 2),
        wi,
        wo,
        cotangent.reshape(-1, WIDTH),
    )
    tolerance = {"rtol": 1e-4, "atol": 1e-5}
    np.testing.assert_allclose(y.reshape(-1, WIDTH), expected[0], **tolerance)
    np.testing.assert_allclose(of_x.reshape(-1, WIDTH), expected[1], **tolerance)
    # The gate of a dropped choice is the constant zero, whatever the derivative by it.
    np.testing.assert_allclose((of_gate * plan.kept).reshape(-1, 2), expected[2], **tolerance)
    np.testing.assert_allclose(of_wi, expected[3], **tolerance)
    np.testing.assert_allclose(of_wo, expected[4], **tolerance)
    assert not np.asarray(y)[~plan.kept.any(axis=-1)].any()  # the residual alone


@functools.partial(jax.jit, static_argnames=("experts",))
def blocked(x, routing, wi, wo, experts):
    def one(index, rows):
        return jnp.maximum(rows @ wi[index], 0.0) @ wo[index]

    return blocked_dispatch(x, routing, experts, one)


BLOCKED_SHAPES = [(1, 5, 3), (2, 16, 4), (1, 40, 1), (3, 70, 7), (1, 1, 1)]


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    st.integers(0, 2**20),
    st.sampled_from(BLOCKED_SHAPES),
    st.sampled_from(["any", "one expert", "few", "no token"]),
)
def test_blocked_dispatch_is_a_gated_sum_of_experts(seed, shape, load):
    (groups, tokens, experts), rng = shape, np.random.default_rng(seed)
    expert = rng.integers(0, experts, (groups, tokens, 2))
    if load == "one expert":
        expert[:] = rng.integers(experts)
    kept = rng.random(expert.shape) < {"any": 0.8, "one expert": 1.0, "few": 0.1, "no token": 0.0}[load]
    gate = np.where(kept, rng.random(expert.shape) + 0.01, 0.0).astype(np.float32)
    routing = Routing(jnp.asarray(expert, jnp.int32), jnp.asarray(gate), jnp.zeros(expert.shape, jnp.int32), kept)
    x, wi, wo = draw_weights(rng, (groups, tokens, WIDTH), (experts, WIDTH, HIDDEN), (experts, HIDDEN, WIDTH))
    rows = x.reshape(-1, WIDTH)
    expected = oracles.mixture(rows, expert.reshape(-1, 2), gate.reshape(-1, 2), wi, wo, rows)[0]
    y = np.asarray(blocked(x, routing, wi, wo, experts)).reshape(-1, WIDTH)
    np.testing.assert_allclose(y, expected, rtol=1e-4, atol=1e-4)
    assert not y[~kept.any(axis=-1).reshape(-1)].any()


@given(st.integers(1, 10**6), st.integers(1, 4096))
def test_blocks_pad_by_less_than_twice_the_work(choices, experts):
    rows = block_rows(choices, experts)
    assert 8 <= rows <= 128
    padded = rows * (choices // rows + experts)
    assert padded <= choices + experts * max(8, 1.5 * choices / experts)
