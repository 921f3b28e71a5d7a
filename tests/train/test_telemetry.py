"""Telemetry: numbers of a window of steps and of every layer, who uses which expert, files that survive a resume."""

import io
import json
import math
from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import toy_model as toy
from flax import nnx
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.console import Console

from nmt.errors import UserError
from nmt.models.moe.statistics import RoutingStats
from nmt.models.tokens import Phase
from nmt.recipes.display import TrainingDisplay
from nmt.train.checkpoints import Progress
from nmt.train.expert_load import UsageCounter, step_numbers, summarise_layers
from nmt.train.objective import LossSetting, Metrics, objective, source_direction
from nmt.train.telemetry import Recorder, StepWindow, flatten
from nmt.train.usage import LISTED, Usage, drop_usage_after, read_usage, usage_steps, write_usage

# A window of steps, and the files that it is written to


def metrics_of(loss, nll, tokens, load):
    stats = RoutingStats(
        balance_loss=np.array([1.5, 0.5]),
        z_loss=np.array([2.0, 1.0]),
        budget_loss=np.zeros(2),
        load=np.asarray(load, np.float32),
        dropped=np.array([[0.25, 0.5], [0.0, 0.25]]),
        confidence=np.array([0.5, 0.25]),
        by_direction=np.zeros((2, 0, 4)),
    )
    return Metrics(np.float32(loss), np.asarray(nll), np.asarray(tokens), np.float32(30), {"encoder": stats})


def test_a_window_of_steps():
    window = StepWindow(("de-en", "en-de"), {"encoder": (1, 3)})
    scalars = {"learning_rate": np.float64(0.1), "gradient_norm": np.float64(2.0)}
    window.add(metrics_of(3.0, [8.0, 0.0], [4.0, 0.0], [[0.5, 0.5], [1.0, 0.0]]), scalars, seconds=2.0)
    window.add(metrics_of(1.0, [4.0, 0.0], [4.0, 0.0], [[0.5, 0.5], [0.0, 1.0]]), scalars, seconds=3.0)
    report = window.report(Progress(step=10), total_steps=30)
    assert (report.steps, report.loss, report.gradient_norm) == (2, 2.0, 2.0)
    assert report.nll["de-en"] == 12 / 8
    assert math.isnan(report.nll["en-de"])
    assert report.tokens_per_second == (60 + 8) / 5
    assert report.eta_seconds == 20 * 2.5
    experts = report.experts["encoder"]
    # In every step one expert of the second layer had everything; over both steps all had the same.
    layers = report.layers["encoder"]
    assert [(layer.busiest, layer.idlest, layer.entropy) for layer in layers.values()] == [
        (1.0, 1.0, 1.0),
        (2.0, 1.0, 0.0),
    ]
    assert (experts.busiest, experts.idlest, experts.entropy) == (2.0, 1.0, 0.5)
    assert (experts.dropped, experts.balance_loss) == ((0.125, 0.375), 1.0)
    assert (experts.confidence, experts.z) == (0.375, 1.5)
    flat = flatten(report)
    assert "nll/en-de" not in flat
    assert flat["experts/encoder/dropped_second"] == 0.375
    names = {"busiest", "idlest", "entropy", "dropped_first", "dropped_second", "confidence", "z", "balance_loss"}
    assert {name for name in flat if name.startswith("experts/")} == {
        f"experts/encoder/{layer}{name}" for layer in ("", "1/", "3/") for name in names
    }
    each = [(flat[f"experts/encoder/{layer}/{name}"]) for layer in (1, 3) for name in ("z", "dropped_first")]
    assert each == [2.0, 0.25, 1.0, 0.0]


def lines(run):
    return [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]


def test_a_recorder_drops_what_no_checkpoint_kept(tmp_path):
    with Recorder(tmp_path, 0) as recorder:
        for step in (1, 2, 3):
            recorder.write(Progress(step=step), {"loss": 1.0}, "train")
        recorder.write(Progress(step=2), {"nll": 1.0}, "dev")
    path = tmp_path / "metrics.jsonl"
    path.write_text(path.read_text() + '{"kind": "tr')
    with Recorder(tmp_path, 2) as recorder:
        assert recorder.has("dev", 2)
        assert not recorder.has("train", 3)
        recorder.write(Progress(step=3), {"loss": 2.0}, "train")
    assert [(line["kind"], line["step"]) for line in lines(tmp_path)] == [
        ("train", 1),
        ("train", 2),
        ("dev", 2),
        ("train", 3),
    ]
    path.write_text(path.read_text().rstrip("\n"))  # all but the end of the last line was written
    with Recorder(tmp_path, 3) as recorder:
        recorder.write(Progress(step=4), {"loss": 3.0}, "train")
    assert [line["step"] for line in lines(tmp_path)] == [1, 2, 2, 3, 4]


# The direction of source tokens


@settings(deadline=None, max_examples=30)
@given(st.integers(0, 10_000), st.integers(0, 3), st.sampled_from([(0, 0), (5, 0), (0, 3)]))
def test_source_tokens_have_the_direction_of_their_pair(seed, rows, more):
    rng = np.random.default_rng(seed)
    pairs = [*toy.pairs_of(rng, rows), [], []][: rows + 1]  # the last row is all padding
    pairs = [[(source, target, int(rng.integers(0, 7))) for source, target, _ in row] for row in pairs]
    batch = toy.pack(pairs, toy.LENGTH + more[0], toy.LENGTH + more[1])
    with jax.disable_jit():
        found = np.asarray(source_direction(jax.tree.map(jnp.asarray, batch)))
    for row, of_row in zip(found, pairs, strict=True):
        spelt = [direction for source, _, direction in of_row for _ in source]
        assert row.tolist() == spelt + [0] * (batch.src.shape[1] - len(spelt))


def test_the_model_counts_tokens_by_direction():
    moe = toy.moe_config(every=1, group_size=None, capacity_factor=0.5, min_capacity=0)
    config = toy.model_config(encoder_layers=2, decoder_layers=2, dropout=0.0, moe=moe, width=8, hidden=8)
    graph, parameters = toy.weights(config)

    @jax.jit
    def metrics(parameters, batch):
        return objective(nnx.merge(graph, parameters), batch, LossSetting(3, Phase.TRAIN), jax.random.key(0))[1]

    rows = toy.pairs_of(np.random.default_rng(1), 4)
    routing = jax.device_get(metrics(parameters, toy.pack(rows)).routing)
    everything = [pair for row in rows for pair in row]
    for side, stack in enumerate(("encoder", "decoder")):
        counts, load = routing[stack].by_direction, routing[stack].load
        assert counts.shape == (2, 3, 4)
        tokens = [sum(len(pair[side]) for pair in everything if pair[2] == d) for d in range(3)]
        assert min(tokens[:2]) > 0
        np.testing.assert_array_equal(counts.sum(axis=-1), [tokens, tokens])
        # Choices are counted before capacity, which is tight here, as loads are.
        assert routing[stack].dropped[:, 0].min() > 0
        np.testing.assert_allclose(counts.sum(axis=1) / sum(tokens), load, rtol=1e-5)


# Numbers of layers


@pytest.mark.parametrize(("every", "offset"), [(1, None), (2, None), (2, 0), (4, 1)])
def test_sparse_layers_are_those_of_the_model(every, offset):
    config = toy.model_config(encoder_layers=8, moe=toy.moe_config(every=every, offset=offset))
    place = every - 1 if offset is None else offset
    expected = {
        stack: tuple(i for i in range(count) if i % every == place) for stack, count in (("encoder", 8), ("decoder", 4))
    }
    assert config.sparse_layers == expected
    if offset is None:
        model = nnx.merge(*toy.weights(config))
        for stack, count in (("encoder", 8), ("decoder", 4)):
            layers = getattr(model, stack)
            assert tuple(i for i in range(count) if layers.layer(i).sparse) == expected[stack]


def test_a_dense_model_has_no_sparse_layers():
    assert toy.model_config(moe=None).sparse_layers == {}


def sums_of(load, steps=1, choices=2):
    layers = len(load)
    one = {name: np.arange(1.0, layers + 1) for name in ("confidence", "z_loss", "balance_loss")}
    one |= {"load": np.asarray(load, np.float32), "dropped": np.full((layers, choices), 0.25)}
    return {name: sum([array] * steps) for name, array in step_numbers(one).items()}


def test_numbers_of_layers():
    load = [[0.25, 0.25, 0.25, 0.25], [1.0, 0.0, 0.0, 0.0], [0.5, 0.5, 0.0, 0.0], [0.7, 0.1, 0.1, 0.1]]
    layers = summarise_layers(sums_of(load, steps=3), steps=3)
    assert [layer.entropy for layer in layers[:3]] == pytest.approx([1.0, 0.0, 0.5])
    surprise = -(0.7 * math.log(0.7) + 0.3 * math.log(0.1)) / math.log(4)
    assert layers[3].entropy == pytest.approx(surprise, abs=1e-6)
    assert [layer.busiest for layer in layers] == pytest.approx([1.0, 4.0, 2.0, 2.8])
    assert [layer.idlest for layer in layers] == pytest.approx([1.0, 0.0, 0.0, 0.4])
    assert [layer.z for layer in layers] == pytest.approx([1.0, 2.0, 3.0, 4.0])
    assert layers[0].dropped == pytest.approx((0.25, 0.25))


def test_a_single_expert_is_even():
    (layer,) = summarise_layers(sums_of([[1.0]]), steps=1)
    assert (layer.busiest, layer.idlest, layer.entropy) == (1.0, 1.0, 1.0)


@pytest.mark.parametrize("choices", [1, 2, 5])
def test_dropped_tokens_are_named_by_choice(choices):
    (layer,) = summarise_layers(sums_of([[0.5, 0.5]], choices=choices), steps=1)
    names = ["dropped_first", "dropped_second", "dropped_third", "dropped_4th", "dropped_5th"][:choices]
    assert [name for name in layer.numbers() if name.startswith("dropped")] == names
    assert all(isinstance(value, float) for value in layer.numbers().values())


# Counting over steps


def stats_with(counts):
    fields = dict.fromkeys(RoutingStats.__dataclass_fields__, np.zeros(1)) | {"assigned": None, "bias": None}
    return RoutingStats(**fields | {"by_direction": jnp.asarray(counts, jnp.float32)})


@pytest.mark.parametrize("steps", [1, 49, 50, 51, 130])
def test_counts_are_exact_over_many_steps(steps):
    counter = UsageCounter()
    rng = np.random.default_rng(steps)
    for _ in range(2):  # the second time from nothing
        expected = {"encoder": np.zeros((1, 2, 3), np.int64), "decoder": np.zeros((2, 2, 3), np.int64)}
        for _ in range(steps):
            new = {stack: rng.integers(0, 2**24, sums.shape) for stack, sums in expected.items()}
            counter.add({stack: stats_with(counts) for stack, counts in new.items()})
            expected = {stack: sums + new[stack] for stack, sums in expected.items()}
        assert steps < 130 or expected["encoder"].max() > 2**29  # float32 would have rounded
        taken = counter.take()
        assert taken.keys() == expected.keys()
        for stack, counts in taken.items():
            assert counts.dtype == np.int64
            np.testing.assert_array_equal(counts, expected[stack])


def test_without_steps_or_experts_there_are_no_counts():
    counter = UsageCounter()
    assert counter.take() == {}
    for _ in range(120):
        counter.add({})
    assert counter.take() == {}


def test_metrics_can_still_be_read_after_they_were_counted():
    counter, stats = UsageCounter(), stats_with(np.ones((1, 2, 3)))
    for _ in range(3):
        counter.add({"encoder": stats})
    assert float(stats.by_direction.sum()) == 6
    assert counter.take()["encoder"].sum() == 18


# Tables


def usage_of(experts=3, last=20, biggest=1000, seed=0):
    rng = np.random.default_rng(seed)
    counts = {
        stack: rng.integers(0, biggest, (layers, 2, experts)) for stack, layers in (("encoder", 2), ("decoder", 1))
    }
    counts["decoder"][:, 1] = 0
    return Usage(11, last, ("de-en", "en-zh-Hans"), {"encoder": (1, 3), "decoder": (0,)}, counts)


@pytest.mark.parametrize("biggest", [1, 200, 60_000, 2**31, 2**40])
def test_tables_are_read_as_they_were_written(tmp_path, biggest):
    usage = usage_of(biggest=biggest)
    write_usage(tmp_path, usage)
    again = read_usage(tmp_path)
    assert replace(again, counts={}) == replace(usage, counts={})
    assert again.counts.keys() == usage.counts.keys()
    for stack, counts in usage.counts.items():
        assert again.counts[stack].dtype == np.int64
        np.testing.assert_array_equal(again.counts[stack], counts)


def test_the_table_for_people_lists_the_experts_of_a_direction_by_use(tmp_path):
    counts = np.array([[[1, 5, 2], [0, 0, 0]]])
    write_usage(tmp_path, Usage(1, 9, ("de-en", "en-de"), {"decoder": (3,)}, {"decoder": counts}))
    rows = [line.split("\t") for line in (tmp_path / "experts" / "9.tsv").read_text().splitlines()]
    assert rows == [
        ["stack", "layer", "direction", "expert", "tokens", "share"],
        ["decoder", "3", "de-en", "1", "5", "0.6250"],
        ["decoder", "3", "de-en", "2", "2", "0.2500"],
        ["decoder", "3", "de-en", "0", "1", "0.1250"],
        *(["decoder", "3", "en-de", str(expert), "0", ""] for expert in range(3)),
    ]


def test_the_table_for_people_stays_short(tmp_path):
    write_usage(tmp_path, usage_of(experts=500))
    lines = (tmp_path / "experts" / "20.tsv").read_text().splitlines()
    assert len(lines) == 1 + 3 * 2 * LISTED


def test_tables_of_steps_that_will_be_done_again_are_dropped(tmp_path):
    drop_usage_after(tmp_path, 0)  # nothing there
    for last in (5, 20, 100):
        write_usage(tmp_path, usage_of(last=last))
    (tmp_path / "experts" / "notes.tsv").write_text("")
    assert usage_steps(tmp_path) == [5, 20, 100]
    drop_usage_after(tmp_path, 20)
    assert usage_steps(tmp_path) == [5, 20]
    assert {path.name for path in (tmp_path / "experts").iterdir()} == {
        "5.npz", "5.tsv", "20.npz", "20.tsv", "notes.tsv"
    }  # fmt: skip


def test_tables_that_are_not_there(tmp_path):
    with pytest.raises(UserError, match=r"experts holds no table of experts yet: nmt-train writes one with every"):
        read_usage(tmp_path)
    write_usage(tmp_path, usage_of())
    with pytest.raises(UserError, match=r"no table of step 7 \(there are: 20\)"):
        read_usage(tmp_path, 7)


def damage(path, how):
    if how == "cut":
        path.write_bytes(path.read_bytes()[:100])
    elif how == "empty":
        path.write_bytes(b"")
    elif how == "text":
        path.write_text("counts")
    else:
        with np.load(path) as arrays:
            contents = dict(arrays)
        if how == "lacking":
            del contents["directions"]
        elif how == "other shape":
            contents["encoder_counts"] = contents["encoder_counts"][:, :1]
        elif how == "other type":
            contents["encoder_counts"] = contents["encoder_counts"].astype(float)
        elif how == "no stacks":
            contents = {name: contents[name] for name in ("steps", "directions")}
        np.savez(path, **contents)


@pytest.mark.parametrize("how", ["cut", "empty", "text", "lacking", "other shape", "other type", "no stacks"])
def test_a_damaged_table_is_a_mistake(tmp_path, how):
    write_usage(tmp_path, usage_of())
    damage(tmp_path / "experts" / "20.npz", how)
    with pytest.raises(UserError, match=r"20\.npz is damaged \(.+\): choose another step, or delete it") as caught:
        read_usage(tmp_path)
    assert "\n" not in str(caught.value)


# What is shown


def test_what_people_see_of_experts():
    window = StepWindow(("de-en", "en-de"), {"encoder": (1, 3)})
    metrics = metrics_of(3.0, [8.0, 0.0], [4.0, 0.0], [[0.5, 0.5], [0.75, 0.25]])
    window.add(metrics, {"learning_rate": np.float64(0.1), "gradient_norm": np.float64(2.0)}, seconds=2.0)
    report = window.report(Progress(step=10), total_steps=30)
    console = Console(width=200, color_system=None, record=True, file=io.StringIO())
    display = TrainingDisplay(console, 30, None)
    assert "encoder experts 0.50-1.50, dropped 12.5%" in display.line(report)
    console.print(display._panel(report))
    text = console.export_text()
    for words in ("busiest 1.50 x fair share (layer 3)", "idlest 0.50 x", "dropped 12.5% (later choices 37.5%)"):
        assert words in text
    assert "router 38% sure" in text  # 0.375
