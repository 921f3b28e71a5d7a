"""The whole layer in training, in float64: every preset and dispatch, against loops over tokens and dense experts."""

import numpy as np
import oracles
import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from toy_routing import WIDTH, draw_real, make_layer, run_layer

from nmt.config import MoEConfig
from nmt.config.presets import PRESETS
from nmt.models.tokens import Phase

# Rows, their length, experts, tokens in a group, capacity factor; each combination compiled once.
SHAPES = {
    "usual": (3, 8, 5, 12, 1.0),
    "most are dropped": (2, 12, 2, 24, 0.1),
    "more slots than tokens": (2, 6, 3, 6, 50.0),
    "no slots": (2, 4, 3, 8, 0.0),
    "one expert": (2, 7, 1, 7, 0.5),
    "one token": (1, 1, 4, 1, 1.0),
}


def draw(rng, config, rows, length, kind):
    """Tokens and a router on coarse grids: logits are the same numbers in float32 as in float64."""
    x = rng.integers(-8, 9, (rows, length, WIDTH)) / 8
    router = rng.integers(-8, 9, (WIDTH, config.experts)) / 8
    if kind == "ties":
        router[:, 1::2] = router[:, : config.experts // 2 * 2 : 2]  # every other expert is like the one before
        x[:] = x[rng.integers(rows), rng.integers(length)]  # so that all tokens have the same priority
    return x, router


def expected(config, weights, x, real, slots):
    """What the layer gives for tokens [G,N,M]: its output [G,N,M], and what routing decided."""
    logits = x @ weights["router"]
    number = min(config.top_k, config.experts)
    routed = oracles.route(
        logits, real, slots, choices=number, normalise=config.normalise, prioritised=config.batch_prioritised
    )
    combine = np.zeros(logits.shape)
    np.put_along_axis(combine, routed.expert, routed.gate * (1.0 - config.output_masking), axis=-1)
    y = oracles.dense_layer(weights, x.reshape(-1, WIDTH), "relu", combine.reshape(-1, config.experts))
    return y.reshape(x.shape), routed, logits


def gates_are_clear(logits):
    """Whether first gates are equal only where tokens are: otherwise rounding decides about priority."""
    first = oracles.softmax(np.unique(logits.reshape(-1, logits.shape[-1]), axis=0)).max(axis=-1)
    return logits.shape[-1] == 1 or np.diff(np.sort(first)).min(initial=1.0) > 1e-5


@pytest.mark.parametrize("preset", [name for name, keys in PRESETS.items() if keys["routing"] == "token_choice"])
@pytest.mark.parametrize("dispatch", ["scatter", "einsum", "grouped"])
@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    seed=st.integers(0, 2**20),
    shape=st.sampled_from([*SHAPES]),
    kind=st.sampled_from(["spread", "ties"]),
    padding=st.sampled_from(["none", "some", "everywhere"]),
)
def test_a_layer_in_training_is_the_transcription(preset, dispatch, seed, shape, kind, padding):
    (rows, length, experts, group, factor), rng = SHAPES[shape], np.random.default_rng(seed)
    least = 0 if factor == 0.0 else 1
    changes = {"experts": experts, "group_size": group, "capacity_factor": factor, "min_capacity": least}
    config = MoEConfig(preset=preset, dispatch=dispatch, second_expert="all", **changes)
    graph, state = make_layer(preset=preset, dispatch=dispatch, **changes)
    x, router = draw(rng, config, rows, length, kind)
    state["router"] = state["router"].replace(router.astype(np.float32))
    real = draw_real(rng, (rows, length), padding)
    weights = {name: np.asarray(state[name][...], np.float64) for name in ("router", "wi", "wo")}
    slots = None if dispatch == "grouped" else min(group, max(least, -(-round(factor * 10) * group // (10 * experts))))
    grouped = x.reshape(-1, group, WIDTH), real.reshape(-1, group)
    y, routed, logits = expected(config, weights, *grouped, slots)
    assume(not config.batch_prioritised or gates_are_clear(logits))
    found, stats = run_layer(graph, state, x.astype(np.float32), real, None, Phase.TRAIN)
    np.testing.assert_allclose(found, y.reshape(x.shape), rtol=1e-4, atol=1e-4)
    assert not np.asarray(found)[~real].any()
    for name in ("balance_loss", "z_loss", "confidence", "load"):
        np.testing.assert_allclose(getattr(stats, name), getattr(routed, name), rtol=1e-4, atol=1e-6, err_msg=name)
    number = routed.dropped.size
    np.testing.assert_allclose(stats.dropped[:number], routed.dropped, rtol=1e-5)
    assert not np.asarray(stats.dropped[number:]).any()  # a choice past the number of experts is none
