"""Chips, the roofline, the paper's tables and a model's FLOPs, against closed forms, simulation and compiled steps."""

import itertools
import math
from dataclasses import replace

import jax
import pytest
import toy_model as toy
from hypothesis import given, settings
from hypothesis import strategies as st

from nmt.config import VocabularySizes
from nmt.data.batch import Batch
from nmt.errors import UserError
from nmt.plan.chips import CHIPS, find_chip
from nmt.plan.flops import model_flops
from nmt.plan.hlo import Collective, Program, analyse
from nmt.plan.hlo_text import Array
from nmt.plan.paper import PAPER, published
from nmt.plan.roofline import assumptions, collective_seconds, estimate, group_shape
from nmt.sharding import make_mesh
from nmt.train.step import make_trainer

V3, V5P = CHIPS["v3"], CHIPS["v5p"]


def collective(kind, payload, group, executions=1.0, across=False):
    return Collective(kind, executions, payload, group, "", "", (), (Array("u8", (payload,)),), across)


# Chips


@pytest.mark.parametrize(
    ("name", "kind"), [("TPU v3", "v3"), ("v5", "v5p"), ("TPU v5 lite", "v5e"), ("TPU7x", "tpu7x"), (" V6E ", "v6e")]
)
def test_chips_are_known_by_topology_and_by_device_kind(name, kind):
    assert find_chip(name).kind == kind


def test_an_unknown_chip_and_an_unpublished_figure_are_mistakes_with_a_way_out():
    with pytest.raises(UserError, match=r"unknown chip 'v9'.*known are v2, v3"):
        find_chip("v9")
    with pytest.raises(UserError, match="peak_flops of cpu is not published"):
        find_chip("cpu").known("peak_flops")


def test_figures_agree_with_the_pods_that_the_documentation_describes():
    # Peak compute and bisection bandwidth of a pod, TB/s: independent figures of the same documents.
    pods = {"v3": (126e15, 6.4e12, (32, 32)), "v4": (1.1e18, 24e12, (16, 16, 16)), "v5e": (50.63e15, 1.6e12, (16, 16))}
    for kind, (peak, bisection, torus) in (pods | {"v6e": (234.9e15, 3.2e12, (16, 16))}).items():
        chip, chips = CHIPS[kind], math.prod(torus)
        assert chip.peak_flops * chip.devices_per_chip * chips == pytest.approx(peak, rel=0.03)
        assert 2 * chips / max(torus) * chip.link_bandwidth == pytest.approx(bisection, rel=0.05)


def test_ici_figures_agree_with_bidirectional_bandwidth_of_a_chip():
    for kind, both_ways in {"v5e": 400e9, "v5p": 1200e9, "v6e": 800e9, "tpu7x": 1200e9}.items():
        chip = CHIPS[kind]
        assert 2 * chip.link_bandwidth * 2 * chip.torus_dimensions == both_ways


# Interconnect


def busiest(torus, rings, held):
    """Bytes on the busiest link of an all-to-all, one way: every pair's message is routed, dimension by dimension."""
    chips = list(itertools.product(*(range(size) for size in torus)))
    load = {}
    for source, target in itertools.product(chips, chips):
        at = list(source)
        for axis, (size, ring) in enumerate(zip(torus, rings, strict=True)):
            forward = (target[axis] - at[axis]) % size
            straight = target[axis] - at[axis]
            steps = [(straight, 1.0)]
            if ring and forward:
                steps = [(forward, 1.0)] if 2 * forward < size else [(forward - size, 1.0)]
                steps = [(forward, 0.5), (forward - size, 0.5)] if 2 * forward == size else steps
            for hops, share in steps:
                for hop in range(abs(hops)):
                    place = list(at)
                    place[axis] = (at[axis] + (hop if hops > 0 else -hop)) % size
                    link = (tuple(place), axis, hops > 0)
                    load[link] = load.get(link, 0.0) + share * held / len(chips)
            at[axis] = target[axis]
    return max(load.values())


@pytest.mark.parametrize("torus", [(4, 4), (4, 8), (2, 4), (2, 2), (4, 4, 4), (2, 4, 4), (8,)])
def test_all_to_all_takes_as_long_as_its_busiest_link(torus):
    chips = math.prod(torus)
    _, rings = group_shape(chips, V5P, torus)
    ordered = tuple(sorted(torus, reverse=True))
    one = collective("all-to-all", 4096, chips)
    assert collective_seconds(one, V5P, torus) * V5P.link_bandwidth == pytest.approx(busiest(ordered, rings, 4096))


def test_all_to_all_grows_with_the_square_root_of_a_2d_torus():
    small, large = (collective_seconds(collective("all-to-all", 4096, 2 * n * n), V3, (n, n)) for n in (32, 128))
    assert large == pytest.approx(4 * small)


def test_rings_take_what_each_link_has_to_carry():
    payload, n = 16 * 1024, 16
    gather = collective_seconds(collective("all-gather", payload, n), V5P, (16,))
    assert gather == pytest.approx(payload * 15 / 16 / (2 * V5P.link_bandwidth))
    assert collective_seconds(collective("reduce-scatter", payload, n), V5P, (16,)) == gather
    assert collective_seconds(collective("all-reduce", payload, n), V5P, (16,)) == 2 * gather
    # Twice as many links in two dimensions; half as many that can be used where nothing closes to a ring.
    assert collective_seconds(collective("all-gather", payload, n), V5P, (4, 4)) == pytest.approx(gather / 2)
    assert collective_seconds(collective("all-gather", payload, 2), V5P, (2,)) == pytest.approx(
        payload / 2 / V5P.link_bandwidth
    )
    permute = collective_seconds(collective("collective-permute", payload, 2), V5P, (16,))
    assert permute == pytest.approx(payload / V5P.link_bandwidth)


def test_two_devices_of_a_chip_need_no_link_and_share_what_there_is():
    assert collective_seconds(collective("all-reduce", 4096, 2), V3, (32, 32)) == 0.0
    one_a_chip = replace(V3, devices_per_chip=1)
    shared = collective_seconds(collective("all-to-all", 4096, 2048), V3, (32, 32))
    assert shared == pytest.approx(2 * collective_seconds(collective("all-to-all", 4096, 1024), one_a_chip, (32, 32)))


@given(st.lists(st.sampled_from([1, 2, 3, 4, 8, 16]), min_size=1, max_size=3), st.data())
def test_a_group_has_all_its_chips_in_the_torus(torus, data):
    chips = math.prod(torus)
    group = data.draw(st.sampled_from([n for n in range(1, chips + 1) if chips % n == 0]))
    sizes, rings = group_shape(group, V5P, torus)
    assert math.prod(sizes) == group
    assert len(rings) == len(sizes)
    if group == chips:
        assert sorted(sizes) == sorted([size for size in torus if size > 1] or [1])


# Step


def test_a_step_is_the_closed_form():
    program = Program(
        flops=1e12,
        bytes_accessed=1e9,
        collectives=(
            collective("all-to-all", 10**6, 64, executions=4),
            collective("all-reduce", 10**6, 2, executions=3, across=True),
        ),
        devices=64,
    )
    found = estimate(program, V5P, 128, (4, 4, 4), tokens=1e6, model_flops=6e13, slices=2)
    assert found.compute == pytest.approx(1e12 / 459e12)
    assert found.memory == pytest.approx(1e9 / 2765e9)
    assert found.interconnect == {
        "all-reduce across slices": pytest.approx(3 * 2 * 0.5 * 1e6 / 6.25e9),
        "all-to-all": pytest.approx(4 * 4 * 1e6 / (8 * 1e11)),
    }
    assert found.communication == pytest.approx(sum(found.interconnect.values()))
    assert found.shortest == max(found.compute, found.memory, found.communication)
    assert found.longest == pytest.approx(found.compute + found.memory + found.communication)
    assert found.bottleneck == "compute"
    assert found.mfu() == pytest.approx(6e13 / (found.longest * 128 * 459e12))
    assert found.mfu(1.0) == pytest.approx(6e13 / (128 * 459e12))
    assert found.tokens_per_second(0.5) == 2e6
    assert found.days(seconds=1.0) == pytest.approx(1e6 / 86400)


def test_there_is_no_estimate_without_figures():
    with pytest.raises(UserError, match="cpu"):
        estimate(Program(1.0, 1.0, (), 8), CHIPS["cpu"], 8, (8,), 1.0, 1.0)
    with pytest.raises(UserError, match="hbm_bandwidth of v2"):
        estimate(Program(1.0, 1.0, (), 8), CHIPS["v2"], 8, (2, 2), 1.0, 1.0)


def test_assumptions_have_the_figures():
    text = "\n".join(assumptions(V3, (32, 16)))
    for figure in ("61.5 TFLOP/s", "450 GB/s", "100 GB/s a link", "32x16 chips, 1 of 2 dimensions"):
        assert figure in text
    assert "unknown" in "\n".join(assumptions(CHIPS["cpu"], (8,)))


# The paper


def test_the_paper_agrees_with_itself():
    for row in PAPER:
        if row.steps_per_second is None:
            continue
        assert 1e12 / row.tokens_per_second / 86400 == pytest.approx(row.days, rel=0.05)
        assert row.cores * row.days / 365 == pytest.approx(row.core_years, rel=0.06)
    assert published(2048, 36).name == "MoE(2048E,36L)"
    assert published(None, 96).weights == 2.3e9
    assert published(3, 36) is None


# A model's FLOPs

ROWS, LENGTH, SIZES = 4, 64, VocabularySizes.shared(256)


def compiled_step(config, accumulate=1):
    """The FLOPs of a compiled train step on one device."""
    recipe = toy.recipe(model=config, rows=ROWS * LENGTH // toy.LENGTH, accumulate=accumulate)
    data = recipe.data.model_copy(update={"source_length": LENGTH, "target_length": LENGTH})
    recipe = recipe.model_copy(update={"data": data})
    mesh = make_mesh(devices=jax.devices()[:1])
    batch = Batch(**{name: jax.ShapeDtypeStruct((ROWS, LENGTH), "int32") for name in Batch.__dataclass_fields__})
    with jax.set_mesh(mesh):
        trainer = make_trainer(recipe, SIZES, mesh)
        return analyse(trainer.step.lower(jax.eval_shape(trainer.initial), batch).compile().as_text())


def wide(**changes):
    moe = {"experts": 8, "group_size": 2 * LENGTH, "capacity_factor": 1.5} | changes.pop("moe", {})
    values = {"width": 64, "hidden": 96, "heads": 4, "head_width": 24, "encoder_layers": 2, "decoder_layers": 4}
    return toy.model_config(**(values | {"moe": toy.moe_config(**moe)} | changes))


@pytest.mark.parametrize(
    ("config", "accumulate"),
    [
        (wide(), 1),
        (wide(activation="geglu", moe={"dispatch": "einsum", "shared": "add", "extra_dense": True, "top_k": 1}), 2),
    ],
)
def test_a_compiled_step_has_the_flops_of_the_formulas(config, accumulate):
    program = compiled_step(config, accumulate)
    # Left out of the formulas: sums by direction for telemetry, 2 N D E a sparse layer and 2 B T D: below one percent.
    found = model_flops(config, SIZES, ROWS, LENGTH, LENGTH, accumulate).computed.training
    assert program.flops == pytest.approx(found, rel=0.01)
    assert not program.notes


def test_terms_are_closed_forms():
    found = model_flops(wide(moe={"capacity_factor": 3.0}), SIZES, ROWS, LENGTH, LENGTH)
    tokens, inner = ROWS * LENGTH, 4 * 24
    forward = {name: term.forward for name, term in found.terms.items()}
    assert forward == {
        "attention projections": (2 + 4 + 4) * 2 * tokens * 64 * inner * 4,
        "attention scores": (2 + 4 + 4) * 2 * 2 * tokens * LENGTH * inner,
        "feed-forward": 3 * 2 * 2 * tokens * 64 * 96,
        "experts": 3 * 2 * 2 * 2 * tokens * 64 * 96,
        "router": 3 * 2 * tokens * 64 * 8,
        "dispatch": 0,
        "output layer": 2 * tokens * 64 * 256,
    }
    assert found.total.training == 3 * found.total.forward
    assert found.slots.forward == forward["experts"] / 2  # three slots for two choices
    assert found.tokens == 2 * tokens


@settings(max_examples=20)
@given(st.integers(1, 4), st.integers(1, 3))
def test_a_model_without_experts_has_none(encoder, decoder):
    config = toy.model_config(encoder_layers=encoder, decoder_layers=decoder, moe=None)
    found = model_flops(config, SIZES, ROWS, LENGTH, LENGTH)
    assert [found.terms[name].training for name in ("experts", "router", "dispatch")] == [0, 0, 0]
    assert found.computed == found.total
