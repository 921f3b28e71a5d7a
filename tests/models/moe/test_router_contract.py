"""The contract of every kind of routing in the table: a new kind is held to it without a line here."""

import numpy as np
import pytest
from toy_routing import make_layer, run_layer, tokens_of

from nmt.config import MoEConfig
from nmt.config.routers import ROUTERS
from nmt.models.moe.routers import make_router
from nmt.models.tokens import Phase

AMPLE = {"capacity_factor": 8.0, "group_size": 24}  # slots for every choice


def layer_of_kind(kind, **changes):
    """A layer's structure and parameters; a kind that looks ahead leaves the decoder to token choice."""
    other = {"decoder_routing": "token_choice"} if ROUTERS[kind].looks_ahead else {}
    return make_layer(routing=kind, **other, **changes)


def draw_tokens(seed, rows=6, length=8):
    x, real = tokens_of(seed, rows, length)
    return x, real, np.random.default_rng(seed).integers(0, 1000, real.shape, dtype=np.int32)


@pytest.mark.parametrize("kind", ROUTERS)
def test_in_inference_a_token_depends_on_itself_alone(kind):
    graph, state = layer_of_kind(kind)
    x, real, token = draw_tokens(1)
    together, stats = run_layer(graph, state, x, real, token=token)
    order = np.random.default_rng(2).permutation(len(x))
    shuffled, _ = run_layer(graph, state, x[order], real[order], token=token[order])
    np.testing.assert_allclose(shuffled, np.asarray(together)[order], rtol=1e-5, atol=1e-5)
    for row in range(2):
        alone, _ = run_layer(graph, state, x[[row]], real[[row]], token=token[[row]])
        np.testing.assert_allclose(alone[0], together[row], rtol=1e-5, atol=1e-5)
    assert not np.asarray(stats.dropped).any()
    assert np.abs(np.asarray(together)[real]).min() > 0


@pytest.mark.parametrize("kind", ROUTERS)
def test_padding_goes_nowhere_and_changes_nothing(kind):
    graph, state = layer_of_kind(kind, group_size=8, capacity_factor=1.0)
    x, real, token = draw_tokens(3)
    real[4] = False
    y, stats = run_layer(graph, state, x, real, None, Phase.TRAIN, token)
    other = np.where(real[..., None], x, 100.0)
    again, stats_again = run_layer(graph, state, other, real, None, Phase.TRAIN, np.where(real, token, 7))
    np.testing.assert_array_equal(y, again)
    np.testing.assert_array_equal(stats.load, stats_again.load)
    np.testing.assert_allclose(np.asarray(stats.load).sum(), 1.0, rtol=1e-5)
    assert not np.asarray(y)[~real].any()


@pytest.mark.parametrize("kind", ROUTERS)
def test_all_dispatches_agree(kind):
    x, real, token = draw_tokens(5)
    found = []
    for dispatch in ("einsum", "scatter", "grouped"):
        graph, state = layer_of_kind(kind, dispatch=dispatch, **AMPLE)
        found.append(run_layer(graph, state, x, real, None, Phase.TRAIN, token)[0])
    for one in found[1:]:
        np.testing.assert_allclose(one, found[0], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("kind", ROUTERS)
def test_a_router_says_the_experts_of_a_token(kind):
    other = {"decoder_routing": "token_choice"} if ROUTERS[kind].looks_ahead else {}
    router = make_router(MoEConfig(experts=4, routing=kind, **other))
    assert router.kind == kind
    assert 1 <= router.experts_per_token <= 4
    assert router.training_pairs(10.0, 40.0) > 0
