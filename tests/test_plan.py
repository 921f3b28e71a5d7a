"""nmt-plan: topologies, real steps compiled for eight CPU devices and, where libtpu is, for a small TPU slice."""

import importlib.util
import json
import math
import os
import subprocess
import sys
from pathlib import Path

import pytest

from nmt.cli.plan import parse
from nmt.config import load_recipe
from nmt.errors import UserError
from nmt.plan import search, topology
from nmt.plan.advice import knobs
from nmt.plan.compile import Overflow, overflow_of
from nmt.plan.planning import Plan
from nmt.plan.search import Choice, Found
from nmt.plan.topology import Topology, parse_topology

GIB = 2**30
MODEL = {"width": 16, "hidden": 32, "heads": 2, "head_width": 8, "layers": 2}
EXPERTS, ROWS, LENGTH, VOCABULARY = 8, 16, 16, 512
# Weights of tables, of attention (once in the encoder, twice in the decoder), of a dense layer, of an expert.
TABLE = VOCABULARY * MODEL["width"]
ATTENTION = 4 * MODEL["width"] * MODEL["heads"] * MODEL["head_width"]
FEED_FORWARD = 2 * MODEL["width"] * MODEL["hidden"]
NORMS = MODEL["width"] * (2 * 2 + 1 + 2 * 3 + 1)
DENSE = TABLE + 2 * ATTENTION * (1 + 2) + 2 * FEED_FORWARD + NORMS + 2 * MODEL["width"] * EXPERTS

RECIPE = f"""\
name: small
data: {{corpora: [homeassistant], directions: [de-en], source_length: {LENGTH}, target_length: {LENGTH}}}
vocab: {{size: {VOCABULARY}}}
model:
  width: 16
  hidden: 32
  heads: 2
  head_width: 8
  encoder_layers: 2
  decoder_layers: 2
  remat: local
  dtype: bfloat16
  moe: {{experts: {EXPERTS}, group_size: {LENGTH * ROWS // 8}}}
train:
  tokens_per_batch: {ROWS * LENGTH}
  optimizer: {{name: adafactor, beta1: 0.0, clip_norm: null}}
decode: {{batch_tokens: {ROWS * LENGTH}}}
"""

needs_libtpu = pytest.mark.skipif(
    importlib.util.find_spec("libtpu") is None,
    reason="compiling for TPUs needs libtpu: pip install -e '.[tpu]'",
)


@pytest.fixture(scope="module")
def recipe_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("plan") / "small.yaml"
    path.write_text(RECIPE)
    return path


def command(*arguments: str) -> subprocess.CompletedProcess[str]:
    ours = ("XLA_FLAGS", "JAX_DISABLE_MOST_OPTIMIZATIONS")  # set for tests that compute; a plan is of what people run
    environment = {name: value for name, value in os.environ.items() if name not in ours}
    line = [sys.executable, "-m", "nmt.cli.plan", *arguments]
    return subprocess.run(line, capture_output=True, text=True, env=environment, check=False, timeout=900)


def planned(recipe: Path, *arguments: str) -> dict:
    done = command(f"recipe={recipe}", *arguments, "--json", "-")
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


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
        parse(arguments)


def test_arguments_in_any_order():
    request = parse(["quickstart", "--json", "x.json", "model.moe=null", "--collectives", "topology=cpu:4"])
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


def test_decoding_moves_tokens_and_no_weights(recipe_file):
    plan = planned(recipe_file, "topology=cpu:8", "--decode")
    found = [one for one in plan["collective_list"] if "moe" in one["op_name"]]
    assert "all-to-all" in {one["kind"] for one in found}
    gathered = [one["payload_bytes"] for one in found if one["kind"] == "all-gather"]
    assert max(gathered, default=0) < EXPERTS * FEED_FORWARD
    assert plan["program"] == "decode"


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


def test_errors_of_xla_about_memory_are_understood():
    used = (
        "RESOURCE_EXHAUSTED: E1000: Ran out of memory in memory space hbm. Used 15.51G of 15.48G hbm. Exceeded by 31M"
    )
    found = overflow_of(used, 1.0)
    assert found == Overflow(int(15.51 * GIB), int(15.48 * GIB), False, 1.0)
    only = "RESOURCE_EXHAUSTED: the total memory required for HLO temporaries (29.92G) exceeds available HBM (15.48G)."
    assert overflow_of(only, 1.0) == Overflow(int(29.92 * GIB), int(15.48 * GIB), True, 1.0)
    assert overflow_of("INTERNAL: something else", 1.0) is None


def fake(choice: Choice, needed: float) -> Found:
    plan = {"mesh": list(choice.mesh), "fits": needed <= 1.0, "hbm_bytes": GIB, "memory_by_class": {"weights": 1}}
    return Found(choice, plan | {"roofline": {"step_seconds_at_most": 2.0 - needed}})


def test_a_search_keeps_less_and_less_until_it_fits_and_ranks_by_time(recipe_file, monkeypatch):
    sizes = {"none": 4.0, "moe": 3.0, "local": 1.5, "full": 0.9}
    monkeypatch.setattr(
        search, "meshes", lambda recipe, devices: [("mesh.model=1",), ("mesh.model=2",), ("mesh.model=9",)]
    )

    def attempt(choice, arguments):
        if choice.mesh == ("mesh.model=9",):
            return Found(choice, None, "does not divide")
        return fake(choice, sizes[choice.remat] / (2 if choice.mesh == ("mesh.model=2",) else 1))

    monkeypatch.setattr(search, "attempt", attempt)
    tried: list[Found] = []
    ranked = search.search(load_recipe(str(recipe_file)), parse_topology("cpu:8"), (), tried.append)
    assert [found.choice.remat for found in tried] == ["none", "moe", "local", "full", "none", "moe", "local", "none"]
    assert [(found.choice.mesh, found.choice.remat) for found in ranked] == [
        (("mesh.model=1",), "full"),
        (("mesh.model=2",), "local"),
    ]


def test_a_search_is_over_meshes_that_fit_the_devices(recipe_file):
    for mesh in search.meshes(load_recipe(str(recipe_file)), 16)[1:]:
        sizes = [int(argument.split("=")[1]) for argument in mesh if argument.rsplit("=", 1)[1].isdigit()]
        if "mesh.preset=expert" in mesh:
            assert math.prod(sizes) == 16


@pytest.mark.parametrize(
    ("arguments", "memory", "first"),
    [
        (("model.remat=none",), {}, "model.remat=full (now none)"),
        (("model.remat=full",), {"optimizer": 5 * GIB}, "train.optimizer.name=adafactor with train.optimizer.beta1=0"),
        (("model.remat=full",), {}, "train.accumulate=2"),
        (("model.remat=full",), {"weights": 12 * GIB}, "more devices"),
    ],
)
def test_what_helps_most_comes_first(recipe_file, arguments, memory, first):
    from nmt.plan.chips import chip_for
    from nmt.plan.memory import Parameters

    recipe = load_recipe(str(recipe_file), arguments)
    plan = Plan(
        recipe="small",
        topology=parse_topology("v3:2x2"),
        decode=False,
        mesh={"data": 1, "expert": 8, "model": 1},
        parameters=Parameters(100, 100, 100),
        tokens=1,
        sparse_layers=2,
        chip=chip_for("v3"),
        memory={"weights": GIB, "average": 0, "optimizer": 0} | memory,
        outcome=Overflow(2 * GIB, GIB, False, 1.0),
    )
    assert knobs(plan, recipe)[0] == first
