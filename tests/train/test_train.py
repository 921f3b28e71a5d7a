"""The objective, the step and the loop; run as a script, this file is a training run to be killed."""

import dataclasses
import functools
import itertools
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import grain
import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp
import pytest
import toy_model as toy
from flax import nnx

from nmt.config import OptimizerConfig, ScheduleConfig, VocabularySizes
from nmt.errors import UserError
from nmt.models.building import split_model
from nmt.models.tokens import Phase
from nmt.models.weights import checkpoint_steps, load_model
from nmt.sharding import make_mesh
from nmt.train import loop
from nmt.train.accumulation import accumulated_gradients
from nmt.train.checkpoints import Checkpoints
from nmt.train.cross_entropy import OutputLoss
from nmt.train.loop import Data, Machines, Outcome, train
from nmt.train.objective import LossSetting, Metrics, objective
from nmt.train.preemption import Preemption
from nmt.train.step import make_trainer
from nmt.train.usage import Usage, read_usage, usage_steps, write_usage

# All runs of this file share what is compiled, those in other processes too.
pytestmark = pytest.mark.usefixtures("compiled_once", "traced_once")


# The objective


def eval_loss(config, key=None, train=False, smoothing=0.0, gradient=False):
    """The objective as a compiled function of parameters and a batch."""
    graph, parameters = toy.weights(config)
    phase = Phase.TRAIN if train else Phase.EVALUATE
    setting = LossSetting(len(toy.DIRECTIONS), phase, OutputLoss(smoothing))

    def loss(parameters, batch):
        return objective(nnx.merge(graph, parameters), batch, setting, key)

    run = jax.jit(jax.value_and_grad(loss, has_aux=True) if gradient else loss)
    return functools.partial(run, parameters)


def assert_same_metrics(one, other):
    (names, mine), (its_names, its) = (
        zip(*jax.tree_util.tree_leaves_with_path(metrics), strict=True) for metrics in (one, other)
    )
    assert names == its_names
    for name, left, right in zip(names, mine, its, strict=True):
        np.testing.assert_allclose(left, right, rtol=1e-4, atol=1e-5, err_msg=jax.tree_util.keystr(name))


PLAIN = toy.model_config(
    encoder_layers=2, decoder_layers=2, dropout=0.0, moe=toy.moe_config(second_expert="all", every=1, group_size=None)
)


@pytest.mark.parametrize("train", [False, True])
def test_appended_padding_changes_nothing(train):
    # In training every group has its capacity, tight enough here to drop tokens: padding may come as whole groups.
    moe = PLAIN.moe.model_copy(update={"group_size": toy.LENGTH, "capacity_factor": 1.0})
    loss = eval_loss(PLAIN.model_copy(update={"moe": moe}), jax.random.key(0) if train else None, train)
    rows = toy.pairs_of(np.random.default_rng(1), 3)
    _, expected = loss(toy.pack(rows))
    assert (float(expected.routing["encoder"].dropped[:, 0].sum()) > 0) == train
    assert_same_metrics(loss(toy.pack([*rows, [], []]))[1], expected)


@pytest.mark.parametrize("train", [False, True])
def test_longer_rows_change_nothing(train):
    moe = PLAIN.moe.model_copy(update={"capacity_factor": float(PLAIN.moe.experts)})  # room for everybody
    loss = eval_loss(PLAIN.model_copy(update={"moe": moe}), None, train)
    rows = toy.pairs_of(np.random.default_rng(1), 3)
    expected = loss(toy.pack(rows))[1]
    assert float(expected.tokens.sum()) > 20
    assert_same_metrics(loss(toy.pack(rows, toy.LENGTH + 5, toy.LENGTH + 3))[1], expected)


@pytest.fixture(scope="module")
def balanced():
    """Loss, metrics and gradients of a sparse model whose balance loss weighs a lot."""
    moe = PLAIN.moe.model_copy(update={"balance_weight": 0.5, "group_size": 8})
    return eval_loss(PLAIN.model_copy(update={"moe": moe}), jax.random.key(2), True, smoothing=0.1, gradient=True)


def test_the_router_learns_from_the_balance_loss_alone(balanced):
    batch = toy.batch()
    nothing_to_say = replace(batch, tgt_segment=np.zeros_like(batch.tgt_segment))
    (loss, metrics), gradients = balanced(nothing_to_say)
    # Nothing to predict, and no tokens in the decoder: half the mean over the encoder's and the decoder's layers.
    assert float(metrics.tokens.sum()) == 0.0
    assert not np.asarray(metrics.routing["decoder"].balance_loss).any()
    balance = np.asarray(metrics.routing["encoder"].balance_loss)
    assert balance.shape == (2,)
    assert balance.min() >= 0.5
    np.testing.assert_allclose(loss, 0.5 * balance.sum() / 4, rtol=1e-5)
    encoder, decoder = (np.asarray(side.blocks[0].moe.router[...]) for side in (gradients.encoder, gradients.decoder))
    assert np.abs(encoder).max(axis=(1, 2)).min() > 1e-5  # every layer's router
    assert not decoder.any()


def test_metrics_count_by_direction(balanced):
    batch = toy.batch()
    (loss, metrics), _ = balanced(batch)
    real = batch.tgt_segment > 0
    counts = [int(((batch.direction == d) & real).sum()) for d in range(2)]
    assert min(counts) > 0
    np.testing.assert_allclose(metrics.tokens, counts)
    assert float(metrics.source_tokens) == (batch.src_segment > 0).sum()
    assert float(loss) == float(metrics.loss)
    only = replace(batch, direction=np.zeros_like(batch.direction))
    (_, together), _ = balanced(only)
    np.testing.assert_allclose(together.nll, [np.asarray(metrics.nll).sum(), 0.0], rtol=1e-5)


def test_loss_is_per_token_and_without_smoothing_the_mean_nll():
    config = PLAIN.model_copy(update={"moe": None})
    loss, metrics = eval_loss(config)(toy.batch())
    np.testing.assert_allclose(loss, metrics.nll.sum() / metrics.tokens.sum(), rtol=1e-5)
    assert metrics.routing == {}


# Runs

# Layers of one kind, so that little has to be compiled.
MODEL = toy.model_config(
    encoder_layers=2, decoder_layers=2, moe=toy.moe_config(every=1, experts=2), width=8, hidden=8, heads=2, head_width=4
)


def recipe(**changes):
    return toy.recipe(model=MODEL, **changes)


def toy_data():
    stream = grain.MapDataset.range(1000).seed(1).shuffle().repeat().map(toy.batch).to_iter_dataset()
    return Data(iter(stream), lambda: (toy.batch(5000 + i) for i in range(3)))


class Watcher:
    """A display that remembers what it was shown and does something at a step."""

    def __init__(self, at=None, do=None):
        self.reports, self.said, self.at, self.do = [], [], at, do

    def report(self, report, full):
        self.reports.append(report)
        if report.progress.step == self.at:
            self.do()

    def say(self, text):
        self.said.append(text)


def tell_to_stop():
    signal.raise_signal(signal.SIGTERM)


def start(run, watcher=None, data=None, **changes):
    mesh = make_mesh(devices=jax.devices()[:1])
    with jax.set_mesh(mesh):
        return train(recipe(**changes), run, toy.SIZES, data or toy_data(), Machines(mesh), watcher or Watcher())


def checkpoint(run, step=None):
    """Everything in a run's newest checkpoint, by name."""
    folder = Path(run) / "checkpoints" / str(checkpoint_steps(run)[-1] if step is None else step)
    arrays = {"data": (folder / "data").glob("metadata")}
    (state,) = arrays.pop("data")
    contents = {"data": state.read_text()}
    with ocp.StandardCheckpointer() as reader:
        for item in ("model", "average", "optimizer"):
            for path, leaf in jax.tree_util.tree_leaves_with_path(reader.restore(folder / item)):
                contents[f"{item}{jax.tree_util.keystr(path)}"] = np.asarray(leaf)
    return contents


def assert_same_checkpoint(one, other):
    assert one.keys() == other.keys()
    assert len(one) > 50
    for name, value in one.items():
        np.testing.assert_array_equal(value, other[name], err_msg=name)


def lines(run):
    """The lines of metrics.jsonl without what depends on the clock."""
    parsed = [json.loads(line) for line in (Path(run) / "metrics.jsonl").read_text().splitlines()]
    return [
        {key: value for key, value in line.items() if key not in ("seconds", "tokens_per_second")} for line in parsed
    ]


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory):
    """A run of twelve steps without any accident."""
    run = tmp_path_factory.mktemp("uninterrupted")
    watcher = Watcher()
    result = start(run, watcher)
    assert result.outcome is Outcome.FINISHED
    return run, result, watcher


def test_a_run(uninterrupted):
    run, result, watcher = uninterrupted
    assert [report.progress.step for report in watcher.reports] == list(range(1, 13))
    assert checkpoint_steps(run) == [4, 8, 12]
    metrics = lines(run)
    assert [(line["kind"], line["step"]) for line in metrics] == [
        (kind, step) for step in range(1, 13) for kind in (("train", "dev") if step % 4 == 0 else ("train",))
    ]
    seen = [toy.batch(int(i)) for i in itertools.islice(iter(grain.MapDataset.range(1000).seed(1).shuffle()), 12)]
    assert result.progress.source_tokens == sum((batch.src_segment > 0).sum() for batch in seen)
    assert result.progress.target_tokens == sum((batch.tgt_segment > 0).sum() for batch in seen)
    dev = [line["nll"] for line in metrics if line["kind"] == "dev"]
    assert dev[-1] < dev[0]
    assert {"loss", "gradient_norm", "learning_rate", "nll/de-en", "experts/encoder/busiest"} <= metrics[0].keys()
    assert [line["learning_rate"] for line in metrics[:4]] == pytest.approx([0.0025, 0.005, 0.0075, 0.01])
    assert list((run / "tensorboard").iterdir())


def test_a_run_counts_which_directions_use_which_experts(uninterrupted):
    run, _, _ = uninterrupted
    assert usage_steps(run) == [4, 8, 12]
    stream = iter(grain.MapDataset.range(1000).seed(1).shuffle())
    for last in (4, 8, 12):
        usage = read_usage(run, last)
        assert (usage.first, usage.last, usage.directions) == (last - 3, last, toy.DIRECTIONS)
        assert usage.layers == {"encoder": (0, 1), "decoder": (0, 1)}
        of_source, of_target = np.zeros(2, int), np.zeros(2, int)
        for number in itertools.islice(stream, 4):
            for pairs in toy.pairs_of(np.random.default_rng(int(number)), 4):
                for source, target, direction in pairs:
                    of_source[direction] += len(source)
                    of_target[direction] += len(target)
        for stack, tokens in (("encoder", of_source), ("decoder", of_target)):
            np.testing.assert_array_equal(usage.counts[stack].sum(axis=-1), [tokens, tokens])
            assert (usage.counts[stack] > 0).any(axis=(0, 1)).all()  # both experts


def test_a_finished_run_is_left_alone(uninterrupted):
    run, result, _ = uninterrupted
    before = (run / "metrics.jsonl").read_bytes()
    watcher = Watcher()
    again = start(run, watcher)
    assert again == result
    assert not watcher.reports
    assert not watcher.said
    assert (run / "metrics.jsonl").read_bytes() == before


@pytest.mark.parametrize("step", [6, 8])
def test_a_run_that_was_told_to_stop_goes_on_as_if_it_had_not_been(uninterrupted, tmp_path, step):
    result = start(tmp_path, Watcher(step, tell_to_stop))
    assert result.outcome is Outcome.PREEMPTED
    # The step after it was already under way.
    assert step <= result.progress.step <= step + 1
    assert checkpoint_steps(tmp_path)[-1] == usage_steps(tmp_path)[-1] == result.progress.step
    again = start(tmp_path)
    assert again.outcome is Outcome.FINISHED
    assert replace(again.progress, seconds=0.0) == replace(uninterrupted[1].progress, seconds=0.0)
    assert_same_checkpoint(checkpoint(tmp_path), checkpoint(uninterrupted[0]))
    assert lines(tmp_path) == lines(uninterrupted[0])
    # What it counted before it was stopped has a table of its own; together they count every step once.
    tables = [read_usage(tmp_path, table) for table in usage_steps(tmp_path)]
    assert [table.first for table in tables] == [1, *(table.last + 1 for table in tables[:-1])]
    whole = [read_usage(uninterrupted[0], table) for table in (4, 8, 12)]
    for stack in ("encoder", "decoder"):
        mine, theirs = (sum(table.counts[stack] for table in side) for side in (tables, whole))
        np.testing.assert_array_equal(mine, theirs)


def test_a_run_with_adafactor_in_parts_goes_on_too(tmp_path):
    changes = {"steps": 6, "accumulate": 2, "optimizer": OptimizerConfig(name="adafactor", beta1=0.9)}
    assert start(tmp_path / "one", **changes).outcome is Outcome.FINISHED
    assert start(tmp_path / "two", Watcher(2, tell_to_stop), **changes).outcome is Outcome.PREEMPTED
    assert start(tmp_path / "two", **changes).outcome is Outcome.FINISHED
    one, two = (checkpoint(tmp_path / name) for name in ("one", "two"))
    assert any("rows" in name for name in one)
    assert_same_checkpoint(one, two)
    assert lines(tmp_path / "one") == [
        line for line in lines(tmp_path / "two") if line["kind"] == "train" or line["step"] in (4, 6)
    ]


def test_a_run_of_fewer_steps_goes_on_to_more(uninterrupted, tmp_path):
    assert start(tmp_path, steps=5).outcome is Outcome.FINISHED
    assert checkpoint_steps(tmp_path) == [4, 5]
    assert start(tmp_path).outcome is Outcome.FINISHED
    assert_same_checkpoint(checkpoint(tmp_path), checkpoint(uninterrupted[0]))
    mine = [line for line in lines(tmp_path) if (line["kind"], line["step"]) != ("dev", 5)]
    assert mine == lines(uninterrupted[0])


def test_what_was_done_after_the_last_checkpoint_is_done_again(uninterrupted, tmp_path):
    class Killed(BaseException):
        pass

    def kill():
        raise Killed

    with pytest.raises(Killed):
        start(tmp_path, Watcher(7, kill))
    assert checkpoint_steps(tmp_path) == usage_steps(tmp_path) == [4]
    write_usage(tmp_path, Usage(5, 7, toy.DIRECTIONS, {}, {}))  # as one that was killed before its checkpoint leaves it
    assert lines(tmp_path)[-1]["step"] == 6
    with (tmp_path / "metrics.jsonl").open("a") as file:
        file.write('{"kind": "train", "st')  # as a killed process leaves it
    # Orbax writes under another name first: what a killed process left of it is no checkpoint.
    half = tmp_path / "checkpoints" / "8.orbax-checkpoint-tmp-0"
    half.mkdir()
    (half / "model").mkdir()
    assert checkpoint_steps(tmp_path) == [4]
    assert start(tmp_path).outcome is Outcome.FINISHED
    assert_same_checkpoint(checkpoint(tmp_path), checkpoint(uninterrupted[0]))
    assert lines(tmp_path) == lines(uninterrupted[0])
    assert_same_tables(tmp_path, uninterrupted[0])


def assert_same_tables(run, other):
    assert usage_steps(run) == usage_steps(other)
    names = sorted(path.name for path in (Path(run) / "experts").iterdir())
    assert names == sorted(path.name for path in (Path(other) / "experts").iterdir())
    for name in names:
        assert (Path(run) / "experts" / name).read_bytes() == (Path(other) / "experts" / name).read_bytes()


def test_a_run_that_is_killed_again_and_again_ends_the_same(uninterrupted, tmp_path, compiled_once):
    run = tmp_path / "run"
    rng = np.random.default_rng(int(time.time()))
    kills = 0
    for attempt in itertools.count():
        assert attempt < 20
        process = subprocess.Popen(
            [sys.executable, __file__, str(run)],
            env=os.environ | {"JAX_PLATFORMS": "cpu", "JAX_COMPILATION_CACHE_DIR": str(compiled_once)},
            stdout=subprocess.PIPE,
            text=True,
        )
        assert process.stdout is not None
        if kills < 2:
            # Steps 3 to 6 of this start, at any moment of them: while computing, reporting or writing a checkpoint.
            for _ in itertools.takewhile(bool, (process.stdout.readline() for _ in range(int(rng.integers(3, 7))))):
                pass
            time.sleep(rng.random() * 0.2)
            process.kill()
            kills += process.wait() == -signal.SIGKILL
        else:
            process.communicate(timeout=120)
        if process.returncode == 0:
            break
        assert process.returncode == -signal.SIGKILL
    assert kills > 0
    assert_same_checkpoint(checkpoint(run), checkpoint(uninterrupted[0]))
    assert lines(run) == lines(uninterrupted[0])
    assert_same_tables(run, uninterrupted[0])


def test_time_is_up_once_and_for_all(tmp_path, monkeypatch):
    clock = itertools.count(step=25.0)
    monkeypatch.setattr(loop, "time", SimpleNamespace(monotonic=lambda: next(clock)))
    result = start(tmp_path, max_minutes=2.0)
    assert result.outcome is Outcome.OUT_OF_TIME
    assert 120 <= result.progress.seconds < 200
    assert result.progress.step < 12
    assert checkpoint_steps(tmp_path)[-1] == result.progress.step
    watcher = Watcher()
    assert start(tmp_path, watcher, max_minutes=2.0) == result
    assert not watcher.reports
    assert start(tmp_path, max_minutes=1e9).outcome is Outcome.FINISHED


@pytest.mark.parametrize(("what", "log_every"), [("loss", 1), ("loss", 5), ("gradient_norm", 1)])
def test_a_diverged_run_is_a_mistake_and_is_not_checkpointed(tmp_path, monkeypatch, what, log_every):
    make = loop.make_trainer

    def trainer_with_accident(*arguments):
        trainer = make(*arguments)

        def step(state, batch):
            number = int(state.step) + 1
            state, metrics, scalars = trainer.step(state, batch)
            if number == 8:
                metrics = replace(metrics, loss=jnp.float32(jnp.nan)) if what == "loss" else metrics
                scalars = scalars | {what: jnp.float32(jnp.inf)}
            return state, metrics, scalars

        return replace(trainer, step=step)

    monkeypatch.setattr(loop, "make_trainer", trainer_with_accident)
    with pytest.raises(UserError, match=r"at step 8: training has diverged; lower train\.schedule") as caught:
        start(tmp_path, log_every=log_every)
    assert "\n" not in str(caught.value)
    assert checkpoint_steps(tmp_path) == [4]


@pytest.mark.parametrize("place", ["initial", "step"])
def test_what_does_not_fit_the_devices_is_told_in_one_line(tmp_path, monkeypatch, place):
    def exhausted(*_):
        raise jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: Out of memory allocating 2400000000000 bytes.\nBy: ...")

    make = loop.make_trainer
    monkeypatch.setattr(loop, "make_trainer", lambda *arguments: replace(make(*arguments), **{place: exhausted}))
    with pytest.raises(
        UserError, match=r"^this does not fit .*allocating 2400000000000 bytes\.\): nmt-plan .*"
    ) as told:
        start(tmp_path)
    assert "\n" not in str(told.value)
    assert not checkpoint_steps(tmp_path)


def test_only_the_newest_checkpoints_are_kept(tmp_path):
    start(tmp_path, steps=8, checkpoint_every=2, keep_checkpoints=2)
    assert checkpoint_steps(tmp_path) == [6, 8]
    assert usage_steps(tmp_path) == [2, 4, 6, 8]  # tables stay


def test_a_signal_is_a_flag_first_and_the_end_next():
    # A process that is started in the background ignores the signal from birth.
    signal.signal(signal.SIGINT, signal.default_int_handler)

    def told_twice():
        with Preemption() as preemption:
            assert not preemption
            signal.raise_signal(signal.SIGINT)
            assert preemption
            assert preemption.signal is signal.SIGINT
            signal.raise_signal(signal.SIGINT)

    with pytest.raises(KeyboardInterrupt):
        told_twice()
    before = signal.getsignal(signal.SIGTERM)
    with Preemption():
        assert signal.getsignal(signal.SIGTERM) is not before
    assert signal.getsignal(signal.SIGTERM) is before


# The step


@pytest.fixture(scope="module")
def stepped():
    """A function of a state and a batch's seed, and the states before and after two steps; all on the host."""
    mesh = make_mesh(devices=jax.devices()[:1])
    with jax.set_mesh(mesh):
        trainer = make_trainer(recipe(), toy.SIZES, mesh)
        state = trainer.initial()
        place = jax.tree.map(lambda leaf: leaf.sharding, state)

        def step(state, seed):
            given = jax.device_put(state, place)
            state, _, scalars = trainer.step(given, trainer.place(toy.batch(seed)))
            return jax.tree.map(np.array, state), float(scalars["gradient_norm"]), given

        states = [jax.tree.map(np.array, state)]
        for seed in range(2):
            states.append(step(states[-1], seed)[0])
        yield step, states


def test_a_step_takes_the_buffers_of_the_state_before(stepped):
    step, states = stepped
    _, _, given = step(states[0], 0)
    assert all(leaf.is_deleted() for leaf in jax.tree.leaves((given.parameters, given.optimizer, given.average)))


def test_the_average_of_the_weights(stepped):
    _, states = stepped
    first = toy.flat(states[0].parameters)
    mean = toy.flat(states[0].average)
    for path in first:
        np.testing.assert_array_equal(mean[path], first[path])
    for t, state in enumerate(states[1:]):
        decay = min(0.9, (1 + t) / (10 + t))
        new, average = toy.flat(state.parameters), toy.flat(state.average)
        mean = {path: decay * mean[path] + (1 - decay) * new[path] for path in mean}
        for path in mean:
            np.testing.assert_allclose(average[path], mean[path], rtol=1e-5, atol=1e-7)
            assert np.abs(new[path] - first[path]).max() > 0, path
    assert [int(state.step) for state in states] == [0, 1, 2]


def test_the_first_weights(stepped):
    _, states = stepped
    parameters = toy.flat(states[0].parameters)
    for path, value in parameters.items():
        if "scale" in path:
            assert (value == 1.0).all(), path
        elif "blocks" in path:  # layers are drawn one by one
            assert np.abs(value[0] - value[1]).min() > 0, path
    np.testing.assert_allclose(parameters["embedding"].std(), MODEL.width**-0.5, rtol=0.2)
    width, hidden = MODEL.width, MODEL.hidden
    for path, fan_in in {"moe.wi": width, "moe.wo": hidden, "moe.router": width, "cross_attention.wkv": width}.items():
        value = parameters[f"decoder.blocks.0.{path}"]
        assert np.abs(value).max() <= (3 / fan_in) ** 0.5
        np.testing.assert_allclose(value.std(), (1 / fan_in) ** 0.5, rtol=0.25)


def test_a_step_is_determined_by_the_state_and_its_number(stepped):
    step, states = stepped
    again, norm, _ = step(states[1], 1)
    for one, two in zip(jax.tree.leaves(again), jax.tree.leaves(states[2]), strict=True):
        np.testing.assert_array_equal(one, two)
    # Another number: other dropout, other second experts.
    assert step(replace(states[1], step=np.int32(7)), 1)[1] != norm


@pytest.fixture(scope="module")
def accumulated():
    """Metrics, gradients, their norm and development metrics of a batch that is computed in 1 and in 4 parts."""
    moe = toy.moe_config(
        every=1,
        experts=2,
        second_expert="all",
        capacity_factor=2.0,  # no drops
        balance_weight=0.5,
        z_weight=0.1,
    )
    model = MODEL.model_copy(update={"moe": moe, "dropout": 0.0})
    # With a huge epsilon Adam's first update is the gradient.
    plain = OptimizerConfig(epsilon=1e4, clip_norm=None)
    schedule = ScheduleConfig(name="constant", learning_rate=1e4)
    rows = toy.pairs_of(np.random.default_rng(1), 8)
    # Micro-batches of different sizes: one is half of short rows, one has an empty group, one nothing at all.
    rows[1::4] = [row[:1] for row in rows[1::4]]
    rows[2], rows[3::4] = [], [[], []]
    mesh, results = make_mesh(devices=jax.devices()[:1]), {}
    with jax.set_mesh(mesh):
        for parts in (1, 4):
            changes = {"accumulate": parts, "optimizer": plain, "schedule": schedule, "ema_decay": None}
            trainer = make_trainer(toy.recipe(model, 8, logits_z_weight=0.1, **changes), toy.SIZES, mesh)
            state, batch = trainer.initial(), trainer.place(toy.pack(rows))
            before, dev = toy.flat(state.parameters), jax.device_get(trainer.evaluate(state, batch))
            state, metrics, scalars = jax.device_get(trainer.step(state, batch))
            after = toy.flat(state.parameters)
            gradients = {path: before[path] - after[path] for path in before}
            results[parts] = metrics, gradients, float(scalars["gradient_norm"]), dev
    return results


@pytest.mark.parametrize("number", [1, 2, 4, 8])
def test_accumulated_gradients_are_those_of_the_batch(number):
    rng = np.random.default_rng(0)
    table = rng.normal(size=(2, toy.VOCABULARY))
    batch = toy.pack([[], *toy.pairs_of(rng, 2), *(row[:1] for row in toy.pairs_of(rng, 5))])
    assert len({*(batch.tgt_segment > 0).sum(axis=1)}) > 4

    def loss(parameters, rows, key, share):
        real = rows.tgt_segment > 0
        nll = real * jnp.square(parameters["w"][...][rows.direction, rows.tgt_out])
        total = nll.sum() / (real.sum() if share is None else share.target_tokens)
        sums = {"nll": nll.sum()[None], "tokens": real.sum()[None], "source_tokens": (rows.src_segment > 0).sum()}
        return total / number, Metrics(loss=total, routing={}, **sums)

    parameters = {"w": nnx.Param(jnp.asarray(table), logical_axes=("embed", "vocab"))}
    sizes = {"encoder": None, "decoder": None}
    gradients, metrics = accumulated_gradients(loss, parameters, batch, jax.random.key(0), number, sizes)
    real = batch.tgt_segment > 0
    wanted = np.zeros_like(table)
    np.add.at(wanted, (batch.direction[real], batch.tgt_out[real]), 1 / real.sum())
    np.testing.assert_allclose(gradients["w"][...], 2 * table * wanted, rtol=1e-5)
    nll = np.square(table[batch.direction[real], batch.tgt_out[real]]).sum()
    np.testing.assert_allclose([metrics.loss, metrics.nll[0]], [nll / real.sum(), nll], rtol=1e-5)
    assert (metrics.tokens, metrics.source_tokens) == (real.sum(), (batch.src_segment > 0).sum())


def test_a_batch_in_micro_batches_is_the_batch(accumulated):
    whole, mine = accumulated[1], accumulated[4]
    np.testing.assert_allclose(mine[0].loss, whole[0].loss, rtol=1e-5)
    for name, stats in whole[0].routing.items():
        np.testing.assert_allclose(stats.load.sum(axis=-1), 1.0, rtol=1e-5)
        assert stats.z_loss.min() > 0.1
        for field in dataclasses.fields(stats):
            one, other = (getattr(of_run.routing[name], field.name) for of_run in (whole[0], mine[0]))
            assert (other is None) == (one is None)
            if one is not None:
                np.testing.assert_allclose(other, one, rtol=1e-4, atol=1e-6, err_msg=field.name)
        assert not stats.dropped.any()
    for one, other in ((whole[0], mine[0]), (whole[3], mine[3])):
        for name in ("nll", "tokens", "source_tokens"):
            np.testing.assert_allclose(getattr(other, name), getattr(one, name), rtol=1e-5, err_msg=name)
    assert mine[2] == pytest.approx(whole[2], rel=1e-5)
    for path, gradient in whole[1].items():
        assert np.abs(gradient).max() > 1e-5, path
        np.testing.assert_allclose(mine[1][path], gradient, rtol=1e-3, atol=1e-6, err_msg=path)


def test_without_an_average_there_is_none():
    mesh = make_mesh(devices=jax.devices()[:1])
    abstract = jax.eval_shape(make_trainer(recipe(ema_decay=None), toy.SIZES, mesh).initial)
    assert abstract.average is None


# Reading weights back


def read(run, config=MODEL, vocabulary=toy.SIZES, step=None):
    return load_model(run, config, vocabulary, make_mesh(devices=jax.devices()[:1]), step)


def test_a_model_is_read_from_its_newest_checkpoint(uninterrupted):
    run, _, _ = uninterrupted
    for wanted in (None, 4, 8):
        model, step = read(run, step=wanted)
        assert step == (wanted or 12)
        contents = checkpoint(run, step)
        parameters = toy.flat(split_model(model)[1])
        assert len(parameters) > 20
        for path, value in parameters.items():
            key = "".join(f"['{part}']" for part in path.split("."))
            np.testing.assert_array_equal(value, contents[f"average{key}"], err_msg=path)
            assert not np.array_equal(value, contents[f"model{key}"]), path


def test_without_an_average_the_weights_are_read(uninterrupted, tmp_path):
    shutil.copytree(uninterrupted[0] / "checkpoints" / "8", tmp_path / "checkpoints" / "8")
    shutil.rmtree(tmp_path / "checkpoints" / "8" / "average")
    model, _ = read(tmp_path)
    np.testing.assert_array_equal(model.embedding[...], checkpoint(uninterrupted[0], 8)["model['embedding']"])


@pytest.mark.parametrize(
    ("other", "difference"),
    [
        ({"width": 16}, r"cross_attention\.wkv is \(2, 8, 2, 2, 4\), not \(2, 16, 2, 2, 4\)"),
        ({"hidden": 16}, r"moe\.wi is \(2, 2, 8, 8\), not \(2, 2, 8, 16\)"),
        ({"encoder_layers": 3}, r"encoder\.blocks.* is \(2, .* not \(3, "),
        ({"moe": None}, r"ff\.wi is missing, not \(2, 8, 8\)"),
        ({"moe": toy.moe_config(every=1, experts=4)}, r"moe.router is \(2, 8, 2\), not \(2, 8, 4\)"),
        ({"moe": toy.moe_config(every=2, experts=2)}, "is .*, not "),
    ],
)
def test_another_model_is_a_mistake(uninterrupted, other, difference):
    with pytest.raises(UserError, match=rf"holds another model than recipe\.yaml says: .*{difference}") as caught:
        read(uninterrupted[0], MODEL.model_copy(update=other))
    assert "\n" not in str(caught.value)


def test_another_vocabulary_is_a_mistake(uninterrupted):
    with pytest.raises(UserError, match=r"embedding is \(42, 8\), not \(43, 8\)"):
        read(uninterrupted[0], vocabulary=VocabularySizes.shared(toy.VOCABULARY + 1))


def resume(run, vocabulary=toy.SIZES):
    """Restore the newest checkpoint of a run, as training does."""
    mesh = make_mesh(devices=jax.devices()[:1])
    with jax.set_mesh(mesh), Checkpoints(run, keep=1) as checkpoints:
        return checkpoints.restore(make_trainer(recipe(), vocabulary, mesh).state, toy_data().batches)


def test_a_run_does_not_go_on_with_another_vocabulary(uninterrupted):
    with pytest.raises(UserError, match=r"12/model holds another model .*: embedding is \(42, 8\), not \(43, 8\)"):
        resume(uninterrupted[0], VocabularySizes.shared(toy.VOCABULARY + 1))


def test_a_run_does_not_go_on_from_a_damaged_checkpoint(uninterrupted, tmp_path):
    shutil.copytree(uninterrupted[0] / "checkpoints" / "8", tmp_path / "checkpoints" / "8")
    shutil.rmtree(tmp_path / "checkpoints" / "8" / "optimizer" / "d")
    with pytest.raises(UserError, match=r"cannot read .*/checkpoints/8, it is damaged: ") as caught:
        resume(tmp_path)
    assert "\n" not in str(caught.value)


def test_checkpoints_that_are_not_there(uninterrupted, tmp_path):
    with pytest.raises(UserError, match=r"has no checkpoint yet: train it first \(nmt-train recipe="):
        read(tmp_path)
    with pytest.raises(UserError, match=r"has no checkpoint of step 5 \(it has 4, 8, 12\)"):
        read(uninterrupted[0], step=5)


@pytest.mark.parametrize("damage", ["emptied", "gone"])
def test_a_damaged_checkpoint_is_a_mistake(uninterrupted, tmp_path, damage):
    shutil.copytree(uninterrupted[0] / "checkpoints" / "8", tmp_path / "checkpoints" / "8")
    average = tmp_path / "checkpoints" / "8" / "average"
    if damage == "gone":
        shutil.rmtree(average / "d")
    else:
        for path in average.rglob("*"):
            if path.is_file():
                path.write_bytes(b"")
    with pytest.raises(UserError, match="average, it is damaged") as caught:
        read(tmp_path)
    assert "\n" not in str(caught.value)


if __name__ == "__main__":

    class Printer(Watcher):
        def report(self, report, full):
            print(report.progress.step, flush=True)

    start(Path(sys.argv[1]), Printer())
