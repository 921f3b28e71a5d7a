"""The load-balancing loss, and how those of other implementations are made of it (docs/moe.md, "Conversion").

A is our loss: E * sum_e f_e P_e per group, f from first choices, mean over groups that hold a token.
"""

import jax
import jax.numpy as jnp
import numpy as np
import oracles
import pytest
from toy_routing import ALL, decide, routed

from nmt.config import MoEConfig
from nmt.models.moe.losses import auxiliary_loss
from nmt.models.moe.statistics import RoutingStats

GROUPS, TOKENS, EXPERTS = 3, 40, 8


def ours(logits, real=None, choices=2, counted="first"):
    real = np.ones(logits.shape[:2], bool) if real is None else real
    config = MoEConfig(top_k=choices, second_expert="all", balance_choices=counted)
    return float(routed(logits.astype(np.float32), real, TOKENS, None, config)[1].balance_loss)


@pytest.fixture
def logits():
    rng = np.random.default_rng(4)
    return rng.normal(size=(GROUPS, TOKENS, EXPERTS)) + 2 * np.eye(EXPERTS)[3]


def balanced():
    """Logits of which every set of neighbouring experts is chosen equally often: token n prefers n, n + 1, ..."""
    tokens = np.arange(TOKENS)[:, None]
    return np.broadcast_to(-1.0 * ((np.arange(EXPERTS) - tokens) % EXPERTS), (GROUPS, TOKENS, EXPERTS)).copy()


def chosen(gates, choices):
    """One-hot masks of the choices, [K,G,S,E]."""
    order = np.argsort(-gates, axis=-1, kind="stable")[..., :choices]
    return np.stack([np.eye(EXPERTS)[order[..., k]] for k in range(choices)])


def test_balance_loss_is_one_when_balanced_and_e_when_collapsed():
    one_hot = 200.0 * np.eye(EXPERTS)
    shape = (GROUPS, TOKENS, EXPERTS)
    assert ours(np.broadcast_to(one_hot[np.arange(TOKENS) % EXPERTS], shape)) == pytest.approx(1.0)
    assert ours(np.zeros(shape)) == pytest.approx(1.0)  # f is collapsed, but P is uniform
    assert ours(np.broadcast_to(one_hot[2], shape)) == pytest.approx(EXPERTS)
    # Half of the tokens are sure of expert 0, the others are sure of expert 1: E (1/4 + 1/4).
    assert ours(np.broadcast_to(one_hot[np.arange(TOKENS) % 2], shape)) == pytest.approx(EXPERTS / 2)
    assert ours(balanced()) == pytest.approx(1.0)


def test_balance_loss_moves_the_router_towards_balance():
    rng = np.random.default_rng(0)
    logits = jnp.asarray(rng.normal(size=(1, 40, 4)) + np.eye(4)[0], jnp.float32)
    real = np.ones((1, 40), bool)
    loss = jax.jit(lambda x: decide(x, real, ALL, 40)[1].balance_loss)
    gradient = jax.grad(loss)(logits)
    # f is constant almost everywhere, so the derivative is that of E sum_e f_e P_e by P alone.
    probability = oracles.softmax(np.asarray(logits, np.float64))
    f = np.bincount(probability[0].argmax(axis=-1), minlength=4) / 40
    expected = 4 / 40 * probability * (f - (probability * f).sum(axis=-1, keepdims=True))
    np.testing.assert_allclose(gradient, expected, rtol=1e-4, atol=1e-7)
    assert float(loss(logits - 5 * gradient)) < float(loss(logits))


# Other implementations. Each function takes gates [G,S,E] and says what the loss there is, before its coefficient.


def gshard_paper(gates):
    """Algorithm 1: (1/E) sum_e (c_e / S) m_e of each group; the mean over groups."""
    return np.mean([oracles.algorithm_1(of_group, TOKENS, np.zeros(TOKENS))[1] for of_group in gates])


def lingvo(gates):
    """`mean(density_1 * density_1_proxy) * E * E` over groups and experts; Mesh TensorFlow has the same."""
    density = chosen(gates, 1)[0].mean(axis=1)
    return (density * gates.mean(axis=1)).mean() * EXPERTS * EXPERTS


def switch(gates):
    """Equation 4: N sum_i f_i P_i, of each group."""
    return np.mean(
        [EXPERTS * sum((g.argmax(axis=-1) == i).mean() * g[:, i].mean() for i in range(EXPERTS)) for g in gates]
    )


def flaxformer(gates, choices):
    """A token counts for every one of its choices (the maximum of their one-hot masks)."""
    mask = chosen(gates, choices).max(axis=0)
    return (mask.mean(axis=1) * gates.mean(axis=1)).mean() * EXPERTS * EXPERTS


def maxtext(gates, choices):
    """Masks of all choices added up: density = mean of the sum; loss = mean(density * mean gate) * E * E."""
    density = chosen(gates, choices).sum(axis=0).mean(axis=1)
    return (density * gates.mean(axis=1)).mean() * EXPERTS * EXPERTS


def megablocks(layers, choices):
    """Scale E / (L T k) on sum over layers of (tokens of each expert) . (mean gate), all tokens of a batch together."""
    tokens = GROUPS * TOKENS
    total = 0.0
    for gates in layers:
        tokens_per_expert = chosen(gates, choices).sum(axis=(0, 1, 2))
        total += tokens_per_expert @ gates.reshape(-1, EXPERTS).mean(axis=0)
    return EXPERTS / (len(layers) * tokens * choices) * total


def softmax(logits):
    return oracles.softmax(logits.astype(np.float64))


def test_gshard_paper_is_ours_over_the_square_of_the_experts(logits):
    assert gshard_paper(softmax(logits)) == pytest.approx(ours(logits) / EXPERTS**2, rel=1e-5)


@pytest.mark.parametrize("theirs", [lingvo, switch])
def test_lingvo_mesh_tensorflow_and_switch_are_ours(theirs, logits):
    assert theirs(softmax(logits)) == pytest.approx(ours(logits), rel=1e-5)


def test_padding_lowers_the_loss_of_lingvo(logits):
    # Padding is out of both masks but counts in both denominators (legacy_mtf_behavior).
    real = np.broadcast_to(np.arange(TOKENS) < 30, (GROUPS, TOKENS))
    gates = softmax(logits)
    density = (chosen(gates, 1)[0] * real[..., None]).mean(axis=1)
    theirs = (density * (gates * real[..., None]).mean(axis=1)).mean() * EXPERTS**2
    assert theirs == pytest.approx(ours(logits, real) * (30 / TOKENS) ** 2, rel=1e-5)


def test_flaxformer_is_ours_for_one_choice_and_k_times_ours_when_balanced(logits):
    assert flaxformer(softmax(logits), 1) == pytest.approx(ours(logits, choices=1), rel=1e-5)
    for choices in (2, 3):
        theirs = flaxformer(softmax(balanced()), choices)
        assert theirs == pytest.approx(choices * ours(balanced(), choices=choices), rel=1e-5)
        # Not so elsewhere: second choices count there, and not here.
        assert flaxformer(softmax(logits), choices) != pytest.approx(choices * ours(logits), rel=1e-2)


def test_maxtext_is_k_times_ours_when_balanced(logits):
    assert maxtext(softmax(logits), 1) == pytest.approx(ours(logits, choices=1), rel=1e-5)
    for choices in (2, 3):
        theirs = maxtext(softmax(balanced()), choices)
        assert theirs == pytest.approx(choices * ours(balanced()), rel=1e-5)


def test_megablocks_is_one_when_balanced_and_ours_for_one_choice_of_one_group(logits):
    for choices in (1, 2, 3):
        layers = [softmax(balanced())] * 4
        assert megablocks(layers, choices) == pytest.approx(ours(balanced()), rel=1e-5)
    # Its groups are whole batches: with one choice, ours on a single group.
    one_group = logits.reshape(1, -1, EXPERTS)
    config = MoEConfig(top_k=1)
    stats = routed(one_group.astype(np.float32), np.ones(one_group.shape[:2], bool), 200, None, config)[1]
    assert megablocks([softmax(logits)], 1) == pytest.approx(float(stats.balance_loss), rel=1e-5)


@pytest.mark.parametrize("choices", [1, 2, 3])
def test_with_all_choices_counted_ours_is_flaxformer_and_maxtext_over_k_and_megablocks(logits, choices):
    counted = ours(logits, choices=choices, counted="all")
    assert counted == pytest.approx(flaxformer(softmax(logits), choices) / choices, rel=1e-5)
    assert counted == pytest.approx(maxtext(softmax(logits), choices) / choices, rel=1e-5)
    one_group = ours(logits.reshape(1, -1, EXPERTS), choices=choices, counted="all")
    assert megablocks([softmax(logits)], choices) == pytest.approx(one_group, rel=1e-5)
    assert (counted == pytest.approx(ours(logits, choices=choices), rel=1e-3)) == (choices == 1)
    real = np.broadcast_to(np.arange(TOKENS) < 30, (GROUPS, TOKENS))
    without = ours(logits[:, :30], choices=choices, counted="all")
    assert ours(logits, real, choices, "all") == pytest.approx(without, rel=1e-5)


def test_choices_that_do_not_exist_are_not_counted():
    assert ours(np.zeros((GROUPS, TOKENS, 1)), counted="all") == pytest.approx(1.0)  # a second of one expert
    gates = np.where(np.arange(EXPERTS) == 3, 200.0, 0.0) * np.ones((GROUPS, TOKENS, EXPERTS))
    assert ours(gates, counted="all") == pytest.approx(EXPERTS)  # all other probabilities underflow


def test_a_sum_over_layers_is_their_number_times_our_mean(logits):
    # fairseq and Lingvo add the losses of the layers up; 0.01 there is 0.01 * L here.
    losses = np.array([lingvo(softmax(logits * scale)) for scale in (0.5, 1.0, 2.0)])
    of_layers = jnp.asarray([ours(logits * scale) for scale in (0.5, 1.0, 2.0)])
    zeros = jnp.zeros((3,))
    stats = RoutingStats(of_layers, zeros, zeros, zeros, zeros, zeros, zeros)
    for config in (MoEConfig(balance_weight=0.01 * 3), MoEConfig(preset="nllb")):
        assert float(auxiliary_loss({"encoder": stats}, config)) == pytest.approx(0.01 * losses.sum(), rel=1e-5)
