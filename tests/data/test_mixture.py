import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nmt.config import DataConfig
from nmt.config.schema_mixture import MixtureConfig, StageConfig
from nmt.data.mixture import Mixture
from nmt.errors import UserError
from nmt.languages import Direction
from nmt.train.curriculum import Curriculum, since_best

NAMES = ("de-en", "es-en", "fr-en", "en-de", "en-es", "de-es")
SIZES = (1000, 100, 10, 1000, 100, 50)
PAIRS = {Direction(*name.split("-")): size for name, size in zip(NAMES, SIZES, strict=True)}


def shares(temperature=1.0, step=0, stage=0, pairs=PAIRS, **mixture):
    data = DataConfig(corpora=("x",), directions=NAMES, temperature=temperature, mixture=MixtureConfig(**mixture))
    return Mixture(pairs, data).shares(step, stage)


def test_weights_multiply_and_the_last_that_fits_counts():
    found = shares(weights=("*-en=2", "fr-en=10"))
    wanted = np.array([2000, 200, 100, 1000, 100, 50])
    assert found == pytest.approx(wanted / wanted.sum())


def test_groups_have_their_shares_and_the_rest_what_is_left():
    found = shares(temperature=5.0, groups=("*-en=0.5", "en-*=0.3"))
    assert found[:3].sum() == pytest.approx(0.5)
    assert found[3:5].sum() == pytest.approx(0.3)
    assert found[5] == pytest.approx(0.2)
    assert found[0] / found[1] == pytest.approx(10**0.2)


def test_a_group_without_pairs_leaves_its_share_to_the_others():
    pairs = {**PAIRS, Direction("de", "es"): 0}
    found = shares(groups=("*-en=0.6", "en-*=0.2"), pairs=pairs)
    assert found[5] == 0
    assert found[:3].sum() == pytest.approx(0.75)


def test_held_out_directions_are_never_drawn():
    found = shares(held_out=("de-es", "fr-*"))
    assert found[2] == found[5] == 0
    assert found.sum() == pytest.approx(1)


@settings(max_examples=60)
@given(
    st.lists(st.integers(1, 10**8), min_size=6, max_size=6),
    st.floats(0, 1 / 6),
    st.floats(1 / 6, 1),
    st.floats(0.5, 20),
)
def test_floors_and_caps(sizes, least, most, temperature):
    pairs = dict(zip(PAIRS, sizes, strict=True))
    found = shares(temperature, pairs=pairs, min_share=least, max_share=most)
    assert found.sum() == pytest.approx(1)
    assert np.all(found >= least - 1e-9)
    assert np.all(found <= most + 1e-9)
    weights = np.array(sizes) ** (1 / temperature)
    inside = (found > least * (1 + 1e-6)) & (found < most * (1 - 1e-6))
    if inside.any():  # in proportion to the weights, and those at a bound are on the right side of it
        factor = (found[inside] / weights[inside]).mean()
        assert found[inside] == pytest.approx(factor * weights[inside], rel=1e-4)
        assert np.all(found >= np.minimum(factor * weights, most) * (1 - 1e-4))
        assert np.all(found <= np.maximum(factor * weights, least) * (1 + 1e-4) + 1e-12)


def test_a_schedule_is_linear_between_its_points():
    data = DataConfig(corpora=("x",), directions=NAMES, mixture=MixtureConfig(temperatures=("100:1", "200:5")))
    mixture = Mixture(PAIRS, data)
    assert [mixture.temperature(step) for step in (0, 100, 150, 200, 900)] == [1, 1, 3, 5, 5]
    assert mixture.mean(400) == pytest.approx(np.mean([mixture.shares(step) for step in range(400)], axis=0), rel=0.02)


def test_stages_have_directions_weights_and_temperatures_of_their_own():
    stages = (
        StageConfig(directions=("*-en",), weights=("fr-en=100",), steps=30),
        StageConfig(temperature=100.0),
    )
    found = shares(stage=0, stages=stages)
    assert found == pytest.approx(np.array([1000, 100, 1000, 0, 0, 0]) / 2100)
    assert shares(stage=1, stages=stages) == pytest.approx(np.full(6, 1 / 6), rel=0.05)


@pytest.mark.parametrize(
    ("mixture", "message"),
    [
        ({"weights": ("it-en=2",)}, r"data\.mixture\.weights.*: it-en fits none of the directions de-en"),
        ({"held_out": ("*-en", "en-*", "de-es")}, "no training pairs in any of the directions"),
        ({"min_share": 0.3}, "6 directions cannot have shares within them that sum to 1"),
        ({"max_share": 0.1}, "6 directions cannot have shares within them"),
        ({"groups": ("*-en=0.5", "en-*=0.5")}, None),
        ({"stages": (StageConfig(directions=("zz-en",)),)}, "unknown language 'zz'"),
    ],
)
def test_mixtures_that_cannot_be(mixture, message):
    if message is None:
        assert shares(**mixture)[5] == 0
        return
    with pytest.raises(UserError, match=message):
        shares(**mixture)


# The curriculum


@given(st.lists(st.floats(0, 10), max_size=12))
def test_since_best(losses):
    found = since_best(losses)
    assert found == (
        0 if not losses else max(i for i in range(len(losses)) if min(losses) in losses[: len(losses) - i])
    )


def curriculum(*stages):
    data = DataConfig(corpora=("x",), directions=NAMES, mixture=MixtureConfig(stages=stages))
    return Curriculum(data, (("de-en", "es-en"), ("en-de",))[: max(1, len(stages))])


def lines(*losses, every=10):
    return [
        {"step": every * (i + 1), "nll/de-en": loss, "nll/es-en": 1.0, "nll/en-de": 9.0 - i}
        for i, loss in enumerate(losses)
    ]


def test_a_stage_ends_by_its_own_losses_and_steps():
    first = curriculum(StageConfig(patience=2), StageConfig(patience=1))
    dev = lines(3, 2, 2.5, 2.5, 2.6)
    assert [first.ends(0, 0, 10 * n, dev[:n]) for n in range(1, 6)] == [False, False, False, True, True]
    assert not first.ends(0, 30, 50, dev)  # 2.5, then 2.6: only one since the best
    assert not first.ends(1, 0, 50, dev)  # its direction still learns
    timed = curriculum(StageConfig(steps=25), StageConfig())
    assert [timed.ends(0, 5, step, []) for step in (20, 29, 30)] == [False, False, True]
    assert not timed.ends(1, 5, 10**9, dev)
    assert not curriculum().ends(0, 0, 10**9, dev)


def test_a_stage_without_losses_waits():
    assert not curriculum(StageConfig(patience=1), StageConfig()).ends(0, 0, 30, [])
    assert math.isinf(curriculum()._loss(0, {"step": 1}))
