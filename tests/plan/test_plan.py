"""nmt-plan: topologies, real steps compiled for eight CPU devices and, where libtpu is, for a small TPU slice."""

import json
import math
import os
from dataclasses import replace
from types import SimpleNamespace

import pytest
from small_plan import (
    ATTENTION,
    DENSE,
    EXPERTS,
    FEED_FORWARD,
    GIB,
    LENGTH,
    MODEL,
    RECIPE,
    ROWS,
    TABLE,
    VOCABULARY,
    command,
    needs_libtpu,
    planned,
)

from nmt.cli.plan import parse_plan
from nmt.config import load_recipe
from nmt.errors import UserError
from nmt.models.weight_matrix import FEWEST_SUMS
from nmt.plan import topology
from nmt.plan.advice import knobs
from nmt.plan.chips import find_chip
from nmt.plan.compile import MemoryUse, Overflow, parse_overflow, read_memory
from nmt.plan.decoding import Decoding
from nmt.plan.memory import Parameters
from nmt.plan.planning import Plan
from nmt.plan.topology import Topology, parse_topology
from nmt.recipes.plan_report import misfit


@pytest.fixture(scope="module")
def recipe_file(tmp_path_factory):
    path = tmp_path_factory.mktemp("plan") / "small.yaml"
    path.write_text(RECIPE)
    return path


@pytest.mark.parametrize(
    ("text", "devices", "expected"),
    [
        ("v3:32x32", 2048, Topology("v3", (32, 32))),
        ("v4:8x16x16", 2048, Topology("v4", (8, 16, 16))),
        ("V5P:2x2x1", 4, Topology("v5p", (2, 2, 1))),
        ("v5e:16x16*4", 1024, Topology("v5e", (16, 16), 4)),
        ("tpu7x:2x2x1", 8, Topology("tpu7x", (2, 2, 1))),
        ("cpu:8", 8, Topology("cpu", (8,))),
    ],
)
def test_a_topology_is_a_kind_and_chips_in_each_dimension(text, devices, expected):
    assert parse_topology(text) == expected
    assert parse_topology(str(expected)) == expected
    assert expected.devices == devices


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("v3", "write one of v3:XxY, v4:XxYxZ, .*cpu:N"),
        ("v9:2x2", "unknown kind v9"),
        ("v5:4x4x4", "unknown kind v5.*did you mean"),
        ("v3:2x2x2", r"has 3 dimension\(s\) and this kind 2: up to 32x32"),
        ("v4:3x4x4", "are to be even"),
        ("v5e:16x32", "larger than the largest slice, 16x16: use several slices"),
        ("v3:0x2", "no devices"),
        ("v5e:4x4*0", "no devices"),
        ("cpu:2x4", "only a number"),
        ("cpu:8*2", "only a number"),
        ("cpu:-1", "write one of"),
    ],
)
def test_what_is_no_topology_is_explained(text, message):
    with pytest.raises(UserError, match=message):
        parse_topology(text)


def test_without_the_compiler_a_tpu_topology_says_what_to_install(monkeypatch):
    monkeypatch.setattr(topology.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"topology=v3:2x2 .*pip install -e '\.\[tpu\]'.*cpu:8 works"):
        topology.prepare_environment(parse_topology("v3:2x2"))


def test_the_process_stays_on_the_cpu_and_counts_its_devices_itself(monkeypatch):
    monkeypatch.setattr(
        os, "environ", {"JAX_PLATFORMS": "cuda", "XLA_FLAGS": "--a=1 --xla_force_host_platform_device_count=8"}
    )
    topology.prepare_environment(parse_topology("cpu:2"))
    assert os.environ["JAX_PLATFORMS"] == "cpu"
    assert os.environ["XLA_FLAGS"] == "--a=1"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "which recipe"),
        (["recipe=quickstart", "topology=v3:32"], "dimension"),
        (["recipe=quickstart", "--decod"], "unknown option --decod.*--decode"),
        (["recipe=quickstart", "--decode=1"], "takes no value"),
        (["recipe=quickstart", "--json"], "needs a file"),
        (["recipe=quickstart", "--json="], "needs a file"),
        (["recipe=quickstart", "topology=cpu:1", "topology=cpu:2"], "given twice"),
        (["recipe=quickstart", "search"], "not of the form key=value"),
        (["recipe=quickstart", "--search", "--decode"], "--search is for the train step"),
    ],
)
def test_mistakes_in_arguments_are_explained(arguments, message):
    with pytest.raises(UserError, match=message):
        parse_plan(arguments)


def test_arguments_in_any_order():
    request = parse_plan(["quickstart", "--json", "x.json", "model.moe=null", "--collectives", "topology=cpu:4"])
    assert request.recipe == "quickstart"
    assert (request.topology, request.json, request.collectives) == (Topology("cpu", (4,)), "x.json", True)
    assert request.overrides == ("model.moe=null",)


def test_a_mistake_ends_the_command_with_status_2(recipe_file):
    done = command(f"recipe={recipe_file}", "topology=cpu:3")
    assert done.returncode == 2
    assert "Traceback" not in done.stderr
    assert "nmt-plan: error:" in done.stderr


@pytest.fixture(scope="module")
def on_cpus(recipe_file):
    return planned(recipe_file, "topology=cpu:8")


def check_step(plan: dict) -> None:
    """Check what holds of the small recipe's step on eight devices of any kind."""
    parameters = plan["parameters"]
    assert parameters["total"] == DENSE + 2 * EXPERTS * FEED_FORWARD
    assert parameters["active"] == DENSE + 2 * 2 * FEED_FORWARD
    assert parameters["per_device"] == DENSE + 2 * EXPERTS * FEED_FORWARD // 8
    assert plan["memory_by_class"]["weights"] == 4 * parameters["per_device"]
    assert plan["memory_by_class"]["batch"] == 8 * 4 * ROWS * LENGTH // 8
    assert plan["memory"]["arguments"] >= sum(
        plan["memory_by_class"][name] for name in ("weights", "optimizer", "batch")
    )
    memory = plan["memory"]
    reserved = sum(memory[name] for name in ("arguments", "outputs", "temporaries", "code"))
    if plan["topology"].startswith("cpu"):
        assert memory["peak"] == reserved
    # On TPUs more is reserved for temporaries than is alive at once: of 13.8 MB some 1.4 in this small program.
    assert memory["arguments"] < memory["peak"] <= reserved
    by_class = plan["memory_by_class"]
    temporaries = by_class["gradients"] + by_class["dispatch buffers"] + by_class["activations"]
    assert temporaries == plan["memory"]["temporaries"]
    # Two in the forward pass, two in the backward pass, none again: what was moved is kept.
    assert plan["all_to_all_per_sparse_layer"]["forward"] == 2
    assert plan["all_to_all_per_sparse_layer"]["backward"] == 2
    assert sum(plan["all_to_all_per_sparse_layer"].values()) == 4
    # No device ever has the weights of all experts.
    largest = max([one["payload_bytes"] for one in plan["collective_list"] if one["kind"] == "all-gather"], default=0)
    assert largest < EXPERTS * FEED_FORWARD


def test_the_step_on_eight_cpu_devices(on_cpus):
    check_step(on_cpus)
    assert on_cpus["fits"]
    assert on_cpus["devices"] == 8
    assert on_cpus["tokens_per_step"] == ROWS * LENGTH
    # What is computed again comes on top of what the model's mathematics asks for.
    assert on_cpus["flops_per_step"] > 0.9 * on_cpus["model_flops_per_step"]
    assert math.isclose(on_cpus["flops_per_token"] * ROWS * LENGTH, on_cpus["flops_per_step"])


CHOSEN = "nmt/decode/selection.py"  # where hypotheses are chosen


def elements_gathered(plan: dict) -> set[int]:
    """Return the elements of each array that an all-gather gives, whatever XLA calls it."""
    shapes = [shape for one in plan["collective_list"] if one["kind"] == "all-gather" for shape in one["shapes"]]
    return {math.prod(json.loads(shape[shape.index("[") :])) for shape in shapes}


def check_decoding(plan: dict, cell_bytes: int) -> None:
    """Check what holds of decoding with the small recipe on eight devices of any kind, each with two rows."""
    beam, room, layers = 4, LENGTH + 8, MODEL["layers"]
    heads = MODEL["heads"] * MODEL["head_width"]
    cells, source_cells = ROWS * heads * room * beam, ROWS * heads * LENGTH  # keys of a layer, or values
    assert (plan["program"], plan["tokens_per_step"]) == ("decode", ROWS)
    assert plan["decoding"]["room"] == room

    memory = plan["memory_by_class"]
    assert memory["cache of targets"] == 2 * layers * cells * cell_bytes // 8
    assert memory["cache of sources"] == 2 * layers * source_cells * cell_bytes // 8
    assert memory["weights"] <= plan["memory"]["arguments"]
    assert sum(memory.values()) - memory["weights"] - memory["weights for scoring alone"] == pytest.approx(
        plan["memory"]["temporaries"]
    )

    # No matrix of all experts and no cache: by size, as XLA names a gather of weights after what happens to read them.
    assert not {EXPERTS * FEED_FORWARD // 2, cells, source_cells} & elements_gathered(plan)
    assert all(CHOSEN in one["source"] for one in plan["collective_list"] if one["kind"] == "all-gather")

    # What a hypothesis takes, and what experts compute: slots for each of eight groups, empty or not.
    attention = layers * 2 * (6 * MODEL["width"] * heads + 2 * heads * (room * beam + LENGTH))
    others = 2 * (FEED_FORWARD + MODEL["width"] * EXPERTS + TABLE)
    moved = next(one for one in plan["collective_list"] if (one["kind"], one["phase"]) == ("all-to-all", "decoding"))
    slots = sum(math.prod(json.loads(shape[shape.index("[") :])) for shape in moved["shapes"]) // MODEL["width"]
    assert slots >= beam * (ROWS // 8)  # a device's hypotheses can all be in one round
    # On CPUs a sum is a column of a product with ones: of norms, of attention's weights, of probabilities.
    norms, cells = MODEL["width"] * (3 * layers + 1), layers * MODEL["heads"] * (room * beam + LENGTH)
    sums = 2 * FEWEST_SUMS * (norms + cells + VOCABULARY) if plan["topology"].startswith("cpu") else 0
    assert plan["flops_per_token"] == beam * (attention + others + sums) + 2 * FEED_FORWARD * slots * 8 / ROWS
    assert plan["all_to_all_per_sparse_layer"]["other"] == 2


def test_decoding_on_eight_cpu_devices_moves_tokens_and_gathers_no_weights_or_caches(recipe_file):
    plan = planned(recipe_file, "topology=cpu:8", "--decode")
    check_decoding(plan, cell_bytes=4)
    assert "roofline" not in plan


@needs_libtpu
def test_decoding_on_a_slice_of_tpus(recipe_file, tmp_path):
    file = tmp_path / "plan.json"
    done = command(f"recipe={recipe_file}", "topology=v3:2x2", "--decode", "--collectives", "--json", str(file))
    assert done.returncode == 0, done.stderr
    plan = json.loads(file.read_text())
    check_decoding(plan, cell_bytes=2)
    assert not elements_gathered(plan)
    for words in ("cache of targets", "tokens per second", "decoder moe", "all-to-all for each", "of the decoder"):
        assert words in done.stdout
    slow, fast = plan["decoding"]["tokens_per_second"]
    assert 0 < slow < fast
    assert plan["roofline"]["tokens_per_second"] == slow


@needs_libtpu
def test_a_gather_of_weights_in_decoding_is_seen(recipe_file):
    """Dense weights are gathered where a mesh keeps them in parts; so the checks above can fail."""
    plan = planned(recipe_file, "topology=v3:2x2", "--decode", "mesh.preset=expert_fsdp", "mesh.fsdp=8")
    found = elements_gathered(plan)
    assert {ATTENTION // 2, FEED_FORWARD // 2} <= found  # keys and values; a dense layer's
    assert EXPERTS * FEED_FORWARD // 2 not in found


@needs_libtpu
def test_between_slices_only_the_data_axis_crosses(recipe_file):
    plan = planned(recipe_file, "topology=v5e:2x2*2", "mesh.preset=multislice")
    assert plan["mesh"] == {"data": 2, "expert": 4, "model": 1}
    found = {(one["kind"], one["across_slices"]) for one in plan["collective_list"]}
    assert {kind for kind, across in found if across} == {"all-reduce"}  # of gradients, over data
    assert ("all-to-all", False) in found
    assert {one["group_size"] for one in plan["collective_list"]} == {4}


@needs_libtpu
def test_the_step_on_a_slice_of_tpus(recipe_file, tmp_path):
    file = tmp_path / "plan.json"
    done = command(f"recipe={recipe_file}", "topology=v3:2x2", "--collectives", "--json", str(file))
    assert done.returncode == 0, done.stderr
    plan = json.loads(file.read_text())
    check_step(plan)
    assert plan["hbm_bytes"] == pytest.approx(15.48 * GIB)
    assert plan["roofline"]["step_seconds_at_least"] <= plan["roofline"]["step_seconds_at_most"]
    for words in ("all-to-all", "moe", "nmt/models", "days to 1e12 tokens", "compiled in"):
        assert words in done.stdout


@needs_libtpu
def test_what_does_not_fit_a_tpu_ends_with_status_1_and_says_what_helps(recipe_file):
    done = command(
        f"recipe={recipe_file}",
        "topology=v3:2x2",
        "model.remat=none",
        "model.moe=null",
        "model.encoder_layers=1",
        "model.decoder_layers=1",
        f"train.tokens_per_batch={2**23}",
        "vocab.size=32000",
    )
    assert done.returncode == 1, done.stderr
    (line,) = (line for line in done.stderr.splitlines() if "does not fit" in line)
    for words in ("GiB too much", "model.remat=full", "train.accumulate="):
        assert words in line
    assert "Traceback" not in done.stderr


def test_the_peak_is_that_of_xla_where_xla_counts_temporaries():
    analysis = SimpleNamespace(
        argument_size_in_bytes=100,
        output_size_in_bytes=90,
        alias_size_in_bytes=80,
        temp_size_in_bytes=1000,
        generated_code_size_in_bytes=1,
        peak_memory_in_bytes=1050,
    )
    assert read_memory(analysis, "tpu") == MemoryUse(100, 10, 1000, 1, 1050)
    assert read_memory(analysis, "cpu") == MemoryUse(100, 10, 1000, 1, 1111)


def test_errors_of_xla_about_memory_are_understood():
    used = (
        "RESOURCE_EXHAUSTED: E1000: Ran out of memory in memory space hbm. Used 15.51G of 15.48G hbm. Exceeded by 31M"
    )
    found = parse_overflow(used, 1.0)
    assert found == Overflow(int(15.51 * GIB), int(15.48 * GIB), False, 1.0)
    only = "RESOURCE_EXHAUSTED: the total memory required for HLO temporaries (29.92G) exceeds available HBM (15.48G)."
    assert parse_overflow(only, 1.0) == Overflow(int(29.92 * GIB), int(15.48 * GIB), True, 1.0)
    assert parse_overflow("INTERNAL: something else", 1.0) is None


@pytest.mark.parametrize(
    ("arguments", "memory", "first"),
    [
        (("model.remat=none",), {}, "model.remat=full (now none)"),
        (("model.remat=full",), {"optimizer": 5 * GIB}, "train.optimizer.name=adafactor with train.optimizer.beta1=0"),
        (("model.remat=full", "train.tokens_per_batch=512"), {}, "train.accumulate=2"),
        (("model.remat=full",), {}, "model.activation_dtype=bfloat16"),  # a device has one group, not one for each part
        (("model.remat=full",), {"weights": 12 * GIB}, "more devices"),
        (("model.remat=none",), {"weights": 8 * GIB}, "more devices"),  # with gradients, more than the 15.48 there are
    ],
)
def test_what_helps_most_comes_first(recipe_file, arguments, memory, first):
    recipe = load_recipe(str(recipe_file), arguments)
    assert knobs(too_large(memory), recipe)[0] == first


def test_nothing_is_advised_that_cannot_help(recipe_file):
    recipe = load_recipe(str(recipe_file), ["model.remat=none", "train.tokens_per_batch=512"])
    assert knobs(too_large({"weights": 8 * GIB}), recipe) == ["more devices", "model.parameter_dtype=bfloat16"]
    # Weights and gradients leave room, but not for the sum of the gradients of parts as well.
    without = knobs(too_large({"weights": 6 * GIB}), recipe)
    assert not [knob for knob in without if "accumulate" in knob]
    assert "train.accumulate=2" in knobs(too_large({"weights": GIB}), recipe)


def too_large(memory: dict[str, int]) -> Plan:
    """Return the plan of a train step that does not fit eight devices of v3."""
    return Plan(
        recipe="small",
        topology=parse_topology("v3:2x2"),
        mesh={"data": 1, "expert": 8, "model": 1},
        parameters=Parameters(100, 100, 13),
        tokens=1,
        sparse_layers=2,
        chip=find_chip("v3"),
        memory={"weights": GIB, "average": 0, "optimizer": 0} | memory,
        outcome=Overflow(2 * GIB, GIB, False, 1.0),
    )


def test_decoding_that_does_not_fit_is_given_smaller_batches(recipe_file):
    recipe = load_recipe(str(recipe_file), ["decode.batch_tokens=2048"])
    plan = replace(too_large({}), decoding=Decoding(rows=128, beam=4, source=LENGTH, room=24))
    assert knobs(plan, recipe) == ["decode.batch_tokens=1024", "decode.beam=2", "more devices"]
    assert "decoding needs 2.00 GiB" in misfit(plan, recipe, Overflow(2 * GIB, GIB, False, 1.0))
    least = replace(plan, decoding=Decoding(rows=8, beam=1, source=LENGTH, room=24))
    assert knobs(least, recipe) == ["more devices"]
