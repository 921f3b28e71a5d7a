"""Everything that needs several devices runs in one process of its own, on eight devices that the CPU pretends to be.

That process is this file, run as a script; it computes, and the tests compare.
"""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import grain
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import toy_model as toy
from flax import nnx
from jax.sharding import PartitionSpec

import nmt.train.step
from nmt.config import MeshConfig, OptimizerConfig
from nmt.errors import UserError
from nmt.files import MESHES as MESH_FOLDER
from nmt.files import declarations
from nmt.models import remat
from nmt.models.building import shardings, split_model
from nmt.models.layers import FeedForward, parameter
from nmt.models.moe.layer import MoE
from nmt.models.numerics import dropout
from nmt.models.tokens import Phase, TokenInfo
from nmt.models.weights import load_model
from nmt.sharding import (
    LOGICAL_AXES,
    active_rules,
    load_mesh_preset,
    make_layout,
    make_mesh,
    named_sharding,
    replicate,
    shard,
    split,
    store,
)
from nmt.train.checkpoints import Checkpoints, Progress
from nmt.train.step import make_trainer

# The presets on eight devices, and what of a mesh is not by itself.
MESHES = {
    "one": {},
    "data": {"preset": "data"},
    "expert": {"preset": "expert"},
    "expert_model": {"preset": "expert_model"},
    "expert_fsdp": {"preset": "expert_fsdp", "fsdp": 2},
    "multislice": {"preset": "multislice", "slices": 2},
}
STEPS = 3
# A layer of each kind would take twice as long to compile: dense layers are tried by themselves.
MODEL = toy.model_config(encoder_layers=2, decoder_layers=2, moe=toy.moe_config(experts=8, every=1))
RECIPE = toy.recipe(model=MODEL, rows=8)
# Factored moments live with their parameters, and the rows of a part with those of the batch.
FACTORED = toy.recipe(
    model=MODEL,
    rows=8,
    accumulate=2,
    ema_decay=None,
    optimizer=OptimizerConfig(name="adafactor"),
)
# What is gathered for a layer is gathered again for its derivatives.
AGAIN = toy.recipe(model=MODEL.model_copy(update={"remat": "dots"}), rows=8)
# Biases go by the load of the whole batch, and the loss of sequences by its rows, however the tokens are spread.
BIASED = toy.recipe(
    model=MODEL.model_copy(
        update={"moe": toy.moe_config(preset="deepseek_v3", shared="none", experts=8, sequence_balance_weight=0.1)}
    ),
    rows=8,
)
RECIPES = {
    "one_factored": FACTORED,
    "expert_model_factored": FACTORED,
    "expert_fsdp": AGAIN,
    "one_biased": BIASED,
    "expert_biased": BIASED,
}


# What is computed on eight devices


def collectives(text):
    """How often each collective occurs in a compiled program, and the shapes that are gathered."""
    kinds = ("all-to-all", "all-reduce", "all-gather", "reduce-scatter", "collective-permute")
    counts = {kind: len(re.findall(rf" {kind}(?:-start)?\(", text)) for kind in kinds}
    gathered = re.findall(r"\w+\[([\d,]*)\]\S* all-gather\(", text)
    return counts | {"gathered": sorted(set(gathered))}


def layout_of(name):
    name = name.removesuffix("_factored").removesuffix("_biased")
    return make_layout(MeshConfig(**MESHES[name]), jax.devices()[: 1 if name == "one" else 8])


def train_on(name):
    """Take a few steps on a mesh; return the facts of them, arrays, and the last state."""
    with layout_of(name).use() as mesh:
        trainer = make_trainer(RECIPES.get(name, RECIPE), toy.SIZES, mesh)
        state = trainer.initial()
        batches = [trainer.place(toy.batch(seed, rows=8)) for seed in range(STEPS + 1)]
        step = trainer.step.lower(state, batches[0]).compile()
        facts = {"steps": [], "program": collectives(step.as_text())}
        for batch in batches[:STEPS]:
            state, metrics, scalars = step(state, batch)
            dropped = [float(stats.dropped[:, 0].sum()) for stats in metrics.routing.values()]
            facts["steps"].append([float(metrics.loss), float(scalars["gradient_norm"]), *dropped])
        if name in ("one", "expert"):
            facts["evaluation"] = float(trainer.evaluate(state, batches[STEPS]).loss)
    facts["parts"] = {path: list(array.addressable_shards[0].data.shape) for path, array in placed(state).items()}
    # The first moment of Adam is a sum of gradients.
    moments = optax.tree.get(state.optimizer, "mu")
    trees = {
        "parameters": state.parameters,
        "average": state.average,
        "gradients": moments,
        "buffers": state.buffers,
    }
    arrays = {
        f"{kind}/{path}": array
        for kind, tree in trees.items()
        if tree is not None
        for path, array in toy.flat(tree).items()
    }
    return facts, arrays, state


def placed(state):
    """The arrays of a state by path, where they are."""
    return {
        jax.tree_util.keystr(path, simple=True, separator="."): array
        for path, array in jax.tree_util.tree_leaves_with_path(state)
    }


def annotated():
    """The shape of one device's part of an array [8,16] under each annotation, on a mesh of 4 by 2."""
    x = jnp.zeros((8, 16))
    annotations = {
        "shard": lambda x: shard(x, "batch", "mlp"),
        "store": lambda x: store(x, "embed", "mlp"),
        "split": lambda x: split(x, 1, "mlp"),
        "replicate": lambda x: replicate(shard(x, "batch", "mlp")),
        "partitions": lambda x: split(x, -1, 2),
        "all": lambda x: split(x, 0, 8),
        "mesh": lambda x: shard(x, PartitionSpec("expert")),
        "assigned": lambda x: shard(x, np.arange(8).reshape(4, 2)),
        "turned": lambda x: shard(x, np.arange(8).reshape(4, 2).T),
    }
    parts = {name: jax.jit(annotate)(x).addressable_shards for name, annotate in annotations.items()}
    return {name: [list(part[0].data.shape), [one.index[0].start or 0 for one in part]] for name, part in parts.items()}


def masks(mesh):
    """A dropout mask computed in one place, and over the devices."""
    drop = jax.jit(lambda x: dropout(x, 0.4, jax.random.key(5)))
    x = np.ones((16, 6, 10), np.float32)
    axes = {"rows": ("batch", None, None), "units": (None, None, "mlp"), "both": ("batch", None, "mlp")}
    return {"mask/one": drop(x)} | {
        f"mask/{name}": drop(jax.device_put(x, named_sharding(mesh, names, x.shape))) for name, names in axes.items()
    }


def drawn(mesh):
    """A parameter drawn in one place, and over the devices."""

    def draw():
        return parameter(nnx.Rngs(3), (8, 16, 24), ("expert", "embed", "mlp"), 16)[...]

    place = named_sharding(mesh, ("expert", "embed", "mlp"), (8, 16, 24))
    return {"drawn/one": jax.jit(draw)(), "drawn/parts": jax.jit(draw, out_shardings=place)()}


def layers(mesh):
    """A layer by itself, and its gradients, in one place and over the devices; and what the devices exchange."""
    rngs, dtype = nnx.Rngs(0), jnp.dtype(jnp.float32)
    x = np.random.default_rng(0).normal(size=(8, 6, 16)).astype(np.float32)
    info, key = TokenInfo(np.zeros((8, 6), np.int32), np.ones((8, 6), bool)), jax.random.key(1)
    config = toy.moe_config(experts=8, group_size=6, dispatch="einsum")
    chosen = toy.moe_config(
        experts=8, group_size=6, routing="expert_choice", decoder_routing="hash", shared="gated", jitter=0.1
    )

    def sparse(layer, x):
        return layer(x, info, key, Phase.TRAIN)[0]

    grouped = toy.moe_config(experts=8, dispatch="grouped")
    kinds = {
        "dense": (FeedForward(toy.model_config(dropout=0.2), dtype, rngs), lambda layer, x: layer(x, key)),
        "einsum": (MoE(16, 24, config, dtype, rngs), sparse),
        "expert_choice": (MoE(16, 24, chosen, dtype, rngs), sparse),
        "grouped": (MoE(16, 24, grouped, dtype, rngs), sparse),
        "grouped_again": (MoE(16, 24, grouped, dtype, rngs), lambda *args: remat.wrap_experts("moe", sparse)(*args)),
    }
    arrays, programs = {}, {}
    for kind, (layer, call) in kinds.items():
        graph, state = nnx.split(layer)

        def loss(state, x, graph=graph, call=call):
            return jnp.square(call(nnx.merge(graph, state), x)).sum()

        step = jax.jit(jax.value_and_grad(loss, argnums=(0, 1)))
        place = (shardings(state, mesh), named_sharding(mesh, ("batch", None, None), x.shape))
        spread = jax.device_put((state, x), place)
        program = step.lower(*spread).compile()
        programs[kind] = collectives(program.as_text())
        for name, tree in (("one", step(state, x)), ("parts", program(*spread))):
            arrays |= {f"{kind}/{name}/{i}": leaf for i, leaf in enumerate(jax.tree.leaves(tree))}
    return programs, arrays


def compute(out):
    facts, arrays, states = {"devices": jax.device_count()}, {}, {}

    def initialise(config, vocabulary, seed, mesh):
        # Drawing the weights would mostly be waiting for a compiler.
        _, first = toy.weights(config)
        return None, jax.device_put(jax.tree.map(np.asarray, first), shardings(first, mesh))

    nmt.train.step.initialise = initialise
    for name in sorted({*MESHES, *RECIPES}):
        facts[name], mine, states[name] = train_on(name)
        arrays |= {f"{name}/{path}": array for path, array in mine.items()}
    batches = iter(grain.MapDataset.range(3).to_iter_dataset())
    with layout_of("expert_fsdp").use(), Checkpoints(out / "run", keep=1) as checkpoints:
        checkpoints.save(states["expert_fsdp"], batches, Progress(step=STEPS))
    with layout_of("expert").use(), Checkpoints(out / "run", keep=1) as checkpoints:
        moved = checkpoints.restore(states["expert"], batches)
        arrays |= {f"moved/{path}": array for path, array in toy.flat(moved.parameters).items()}
    model, facts["loaded"] = load_model(out / "run", MODEL, toy.SIZES, layout_of("one").mesh)
    arrays |= {f"loaded/{path}": array for path, array in toy.flat(split_model(model)[1]).items()}
    with layout_of("expert_model").use() as mesh:
        facts["annotated"] = annotated()
        facts["layers"], of_layers = layers(mesh)
        arrays |= masks(mesh) | drawn(mesh) | of_layers
    (out / "facts.json").write_text(json.dumps(facts))
    np.savez(out / "arrays.npz", **arrays)


@pytest.fixture(scope="module")
def eight(tmp_path_factory):
    """The facts and the arrays that eight devices computed."""
    out = tmp_path_factory.mktemp("eight")
    flags = f"{os.environ.get('XLA_FLAGS', '')} --xla_force_host_platform_device_count=8"
    subprocess.run(
        [sys.executable, __file__, str(out)],
        env=os.environ | {"XLA_FLAGS": flags, "JAX_PLATFORMS": "cpu"},
        check=True,
        timeout=900,
    )
    with np.load(out / "arrays.npz") as arrays:
        yield json.loads((out / "facts.json").read_text()), dict(arrays)


def part(arrays, prefix):
    return {name.removeprefix(prefix): array for name, array in arrays.items() if name.startswith(prefix)}


# One device and eight


@pytest.mark.parametrize("name", [*sorted(MESHES.keys() - {"one"}), "expert_model_factored"])
def test_any_mesh_trains_as_one_device_does(eight, name):
    facts, arrays = eight
    factored = RECIPES.get(name) is FACTORED
    alone = "one_factored" if factored else "one"
    assert facts["devices"] == 8
    np.testing.assert_allclose(facts[name]["steps"], facts[alone]["steps"], rtol=1e-5)
    # Dropped tokens, or else capacity was not tried.
    assert all(0.0 < share < 1.0 for step in facts[alone]["steps"] for share in step[2:])
    _, first = toy.weights(MODEL)
    first = toy.flat(first)
    for kind in ("parameters",) if factored else ("parameters", "average", "gradients"):
        one, other = (part(arrays, f"{mesh}/{kind}/") for mesh in (alone, name))
        assert one.keys() == other.keys() == first.keys()
        for path in one:
            moved = np.abs(one[path] - first[path] * (kind != "gradients"))
            assert moved.max() > 1e-4, path
            if kind == "gradients":
                np.testing.assert_allclose(other[path], one[path], rtol=0, atol=1e-4 * moved.max(), err_msg=path)
            else:
                # Adam moves every weight by about the learning rate, 1e-2, however small its gradient.
                np.testing.assert_allclose(other[path], one[path], rtol=0, atol=0.02 * moved.mean(), err_msg=path)


def test_biases_are_moved_by_the_load_of_all_devices(eight):
    facts, arrays = eight
    np.testing.assert_allclose(facts["expert_biased"]["steps"], facts["one_biased"]["steps"], rtol=1e-5)
    one, other = (part(arrays, f"{mesh}_biased/buffers/") for mesh in ("one", "expert"))
    assert one.keys() == other.keys()
    assert len(one) == 2
    for path in one:
        assert np.abs(one[path]).max() > 0
        np.testing.assert_array_equal(other[path], one[path], err_msg=path)


LAYERS, EXPERTS, WIDTH, HIDDEN = 2, 8, 16, 24


def test_factored_moments_and_parts_of_a_batch_are_spread_over_the_mesh(eight):
    facts, _ = eight
    one, other = (facts[f"{mesh}_factored"]["parts"] for mesh in ("one", "expert_model"))

    def moment(parts, kind):
        return next(shape for path, shape in parts.items() if f"encoder.blocks.0.moe.wi.{kind}" in path)

    assert moment(one, "rows") == [LAYERS, EXPERTS, WIDTH]
    assert moment(one, "columns") == [LAYERS, EXPERTS, HIDDEN]
    assert moment(other, "rows") == [LAYERS, EXPERTS // 4, WIDTH]
    assert moment(other, "columns") == [LAYERS, EXPERTS // 4, HIDDEN // 2]
    assert moment(other, "momentum") == [LAYERS, EXPERTS // 4, WIDTH, HIDDEN // 2]


def test_any_mesh_evaluates_as_one_device_does(eight):
    facts, _ = eight
    assert facts["expert"]["evaluation"] == pytest.approx(facts["one"]["evaluation"], rel=1e-5)


@pytest.mark.parametrize(
    ("name", "experts", "hidden", "embedding"),
    [
        ("one", EXPERTS, HIDDEN, WIDTH),
        ("data", EXPERTS, HIDDEN, WIDTH),
        ("expert", EXPERTS // 8, HIDDEN, WIDTH),
        ("expert_model", EXPERTS // 4, HIDDEN // 2, WIDTH),
        ("expert_fsdp", EXPERTS // 8, HIDDEN, WIDTH // 2),
        ("multislice", EXPERTS // 4, HIDDEN, WIDTH),
    ],
)
def test_weights_live_where_the_preset_says(eight, name, experts, hidden, embedding):
    parts = eight[0][name]["parts"]
    of = {path: shape for path, shape in parts.items() if "encoder.blocks.0.moe.wi" in path and len(shape) == 4}
    assert len(of) >= 4  # with their moments and average
    assert all(shape == [LAYERS, experts, WIDTH, hidden] for shape in of.values())
    tables = {path: shape for path, shape in parts.items() if "embedding" in path and len(shape) == 2}
    assert {shape[1] for shape in tables.values()} == {embedding}


def test_tokens_travel_to_experts_and_nothing_else_is_gathered(eight):
    programs = {name: eight[0][name]["program"] for name in MESHES}
    for name in ("expert", "expert_model", "multislice"):
        # To the experts and back, forward and backward, in the one scanned layer of encoder and of decoder.
        assert programs[name]["all-to-all"] == 8
    assert programs["data"]["all-to-all"] == 0
    for name in ("data", "expert", "expert_model", "multislice"):
        assert programs[name]["all-gather"] == 0
        assert programs[name]["all-reduce"] > 0
    assert not any(programs["one"].values())


@pytest.mark.parametrize("kind", ["einsum", "expert_choice"])
def test_a_layer_exchanges_tokens_four_times(eight, kind):
    assert eight[0]["layers"][kind]["all-to-all"] == 4


def test_dense_weights_are_gathered_when_used_and_experts_are_not(eight):
    program = eight[0]["expert_fsdp"]["program"]
    gathered = [[int(size) for size in shape.split(",")] for shape in program["gathered"]]
    assert [42, WIDTH] in gathered  # the embedding
    assert not any(HIDDEN in shape for shape in gathered)  # experts alone have hidden units here
    # As anywhere, and to the experts and back once more, for what is computed again.
    assert program["all-to-all"] == 12


def test_dropout_has_one_mask_however_the_array_is_split(eight):
    _, arrays = eight
    assert 0.3 < (arrays["mask/one"] == 0).mean() < 0.5
    for name in ("rows", "units", "both"):
        np.testing.assert_array_equal(arrays[f"mask/{name}"], arrays["mask/one"])


def test_parameters_are_drawn_the_same_wherever_they_live(eight):
    _, arrays = eight
    assert arrays["drawn/one"].std() > 0.1
    np.testing.assert_array_equal(arrays["drawn/parts"], arrays["drawn/one"])


@pytest.mark.parametrize(
    ("kind", "leaves"), [("dense", 4), ("einsum", 5), ("expert_choice", 9), ("grouped", 5), ("grouped_again", 5)]
)
def test_a_layer_is_the_same_in_parts(eight, kind, leaves):
    _, arrays = eight
    one, parts = (part(arrays, f"{kind}/{name}/") for name in ("one", "parts"))
    assert len(one) == len(parts) == leaves  # the value, gradients of the parameters and of x
    for i in one:
        assert np.abs(one[i]).max() > 1e-3
        np.testing.assert_allclose(parts[i], one[i], rtol=1e-4, atol=1e-4)


def test_a_checkpoint_moves_between_meshes(eight):
    facts, arrays = eight
    written = part(arrays, "expert_fsdp/parameters/")
    moved, loaded = part(arrays, "moved/"), part(arrays, "loaded/")
    averages = part(arrays, "expert_fsdp/average/")
    assert facts["loaded"] == STEPS
    for path in written:
        np.testing.assert_array_equal(moved[path], written[path])
        np.testing.assert_array_equal(loaded[path], averages[path])  # what translates is the average


def test_annotations_split_and_replicate(eight):
    found = eight[0]["annotated"]
    parts = {name: shape for name, (shape, _) in found.items()}
    assert parts == {
        "shard": [8 // 4, 16 // 2],
        "store": [8, 16 // 2],
        "split": [8, 16 // 2],
        "replicate": [8, 16],
        "partitions": [8, 16 // 2],
        "all": [8 // 8, 16],
        "mesh": [8 // 4, 16],
        "assigned": [8 // 4, 16 // 2],
        "turned": [8 // 2, 16 // 4],
    }
    # Which rows device 0, 1, ... holds: as the device assignments say.
    assert found["assigned"][1] == [0, 0, 2, 2, 4, 4, 6, 6]
    assert found["turned"][1] == [0, 4, 0, 4, 0, 4, 0, 4]


# Rules, meshes and their mistakes


GSHARD = load_mesh_preset("expert").rules
EIGHT = make_layout(MeshConfig(data=2, expert=2, model=2), devices=8)


@pytest.mark.parametrize("name", sorted(declarations(MESH_FOLDER)))
def test_presets_name_mesh_axes_and_use_none_twice(name):
    preset = load_mesh_preset(name)
    assert preset.description
    for axis in LOGICAL_AXES:
        for stored in (False, True):
            names = preset.rules.mesh_axes(axis, stored)
            assert set(names) <= set(preset.axes), axis
            assert len(set(names)) == len(names), axis


def test_partition_spec():
    assert GSHARD.spec(("batch", "length", "embed")) == PartitionSpec(("data", "expert"), None, None)
    assert GSHARD.spec(("layers", "expert", "embed", "mlp")) == PartitionSpec(None, "expert", None, "model")
    assert GSHARD.spec((None, "heads")) == PartitionSpec(None, "model")
    with pytest.raises(KeyError, match="width"):
        GSHARD.spec(("width",))


def test_annotations_without_a_mesh_say_nothing():
    x = jnp.zeros((4, 6))
    assert shard(x, "batch", "mlp") is x
    assert split(x, 0, "batch") is x
    assert replicate(x) is x
    with jax.set_mesh(make_mesh(devices=jax.devices()[:1])):
        assert shard(x, "batch", "mlp") is x


@pytest.mark.parametrize(
    ("annotate", "kind", "message"),
    [
        (lambda x: split(x, 2, 2), ValueError, r"dimension 2 of an array of shape \(8, 12\)"),
        (lambda x: split(x, 0, 3), ValueError, "3 partitions over a mesh of data=2, expert=2, model=2: no axes"),
        (lambda x: split(x, 0, 2), ValueError, "2 partitions over .*: data or expert or model"),
        (lambda x: split(x, 1, 8), UserError, r"dimension 1 of an array \(8, 12\) is 12, which .* does not divide"),
        (lambda x: shard(x, np.arange(8).reshape(4, 2) ^ 3), ValueError, "4 x 2 parts, is no placement on a mesh of"),
        (lambda x: shard(x, np.arange(8)), ValueError, r"for an array of shape \(8, 12\)"),
    ],
)
def test_placements_that_a_mesh_does_not_have_are_mistakes(annotate, kind, message):
    with EIGHT.use(), pytest.raises(kind, match=message):
        jax.eval_shape(annotate, jax.ShapeDtypeStruct((8, 12), jnp.float32))


def test_a_table_that_changes_is_traced_anew():
    traced = []

    @jax.jit
    def annotate(x):
        traced.append(active_rules().preset)
        return shard(x, "batch", None)

    x = jax.ShapeDtypeStruct((8, 12), jnp.float32)
    for name in ("expert", "expert_model", "expert"):
        with make_layout(MeshConfig(preset=name, expert=4, model=2), 8).use():
            annotate.trace(x)
    assert traced == ["expert", "expert_model"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("axes: {data: -1}\n", "x.yaml:1: rules is missing"),
        ("axes: {dat: -1}\nrules: {}\n", r"x.yaml:1: unknown mesh axis dat; did you mean data\?"),
        ("axes: {data: 0}\nrules: {}\n", "axes.data must be a number of devices, -1 or slices .not 0"),
        ("axes: {data: -1}\nrules:\n  bach: data\n", "x.yaml:3: rules.bach: there is no such logical axis; did you"),
        ("axes: {data: -1}\nrules:\n  batch: expert\n", r"rules.batch must be a list of axes of this mesh \(data\)"),
        ("axes: {data: -1}\nrules: {}\nrule: {}\n", r"x.yaml:3: unknown key rule; did you mean rules\?"),
    ],
)
def test_a_wrong_preset_is_a_mistake(tmp_path, monkeypatch, text, message):
    monkeypatch.chdir(tmp_path)
    Path("x.yaml").write_text(text)
    with pytest.raises(UserError, match=message):
        make_layout(MeshConfig(preset="x.yaml"), 8)


def test_presets_are_looked_for_where_recipes_are(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match=r"unknown mesh preset 'exprt'; did you mean expert"):
        make_layout(MeshConfig(preset="exprt"), 8)
    Path("recipes/meshes").mkdir(parents=True)
    Path("recipes/meshes/mine.yaml").write_text("axes: {expert: -1}\nrules: {batch: expert}\n")
    assert dict(make_layout(MeshConfig(preset="mine"), 8).mesh.shape) == {"expert": 8}
    with pytest.raises(UserError, match=r"mesh.model=2: the preset mine has no such axis \(it has expert\)"):
        make_layout(MeshConfig(preset="mine", model=2), 8)


def test_slices_that_the_data_axis_does_not_span_are_a_mistake():
    with pytest.raises(UserError, match=r"mesh.data=4 cannot span 8 slices"):
        make_layout(MeshConfig(preset="multislice", slices=8, data=4, expert=2), 8)


def test_annotations_are_checked_even_without_a_mesh():
    with pytest.raises(ValueError, match=r"1 logical axes .* shape \(4, 6\)"):
        shard(jnp.zeros((4, 6)), "batch")
    with pytest.raises(KeyError, match="hidden"):
        split(jnp.zeros((4, 6)), 1, "hidden")


@pytest.mark.parametrize(
    ("sizes", "wanted"),
    [
        ({}, {"data": 1, "expert": 1, "model": 1}),
        ({"data": -1, "expert": 1}, {"data": 1, "expert": 1, "model": 1}),
    ],
)
def test_a_mesh_of_one_device(sizes, wanted):
    mesh = make_mesh(**sizes, devices=jax.devices()[:1])
    assert dict(mesh.shape) == wanted
    assert mesh.axis_names == ("data", "expert", "model")


@pytest.mark.parametrize(
    ("sizes", "devices", "message"),
    [
        ({"data": 3, "expert": 2}, 8, r"mesh.data=3, mesh.expert=2, mesh.model=1 does not fit 8 device"),
        ({"data": 3, "expert": -1}, 8, r"mesh.data=3, mesh.expert=-1, mesh.model=1 does not fit 8 device"),
        ({"data": 16, "expert": -1}, 8, r"mesh.data=16, .* does not fit 8 device"),
        ({"data": 2, "expert": 2, "model": 1}, 8, "does not fit 8 device"),
        ({"data": -1, "expert": -1}, 8, "only one axis may be -1"),
        ({"data": 0}, 8, "at least one device"),
    ],
)
def test_a_mesh_that_does_not_fit_is_a_mistake(sizes, devices, message):
    with pytest.raises(UserError, match=message) as caught:
        make_layout(MeshConfig(**sizes), devices=devices)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("axes", "shape", "message"),
    [
        (("expert", "embed", "mlp"), (7, 16, 24), "model.moe.experts is 7, which mesh.expert=2 does not divide"),
        (("expert", "embed", "mlp"), (8, 16, 25), "model.hidden is 25, which mesh.model=2 does not divide"),
        (("embed", "heads", None), (16, 3, 8), "model.heads is 3, which mesh.model=2 does not divide"),
        (("vocab", "embed"), (8001, 16), "vocab.size or vocab.target_size is 8001, which mesh.model=2 does not"),
        (("batch", None), (6, 64), r"tokens_per_batch .* is 6, which mesh.data=2 \* mesh.expert=2 does not divide"),
    ],
)
def test_sizes_that_devices_do_not_divide_are_a_mistake(axes, shape, message):
    with EIGHT.use() as mesh, pytest.raises(UserError, match=message):
        named_sharding(mesh, axes, shape)


def test_sizes_that_devices_divide():
    with EIGHT.use() as mesh:
        assert named_sharding(mesh, ("batch", None), (8, 3)).spec == PartitionSpec(("data", "expert"), None)
        assert named_sharding(mesh, ("layers", "embed"), (3, 5)).spec == PartitionSpec(None, None)


def test_a_trainer_says_at_once_that_its_mesh_does_not_divide_it():
    with make_layout(MeshConfig(data=8), devices=8).use() as mesh:
        with pytest.raises(UserError, match=r"accumulate\) is 4, which mesh.data=8 does not divide"):
            make_trainer(toy.recipe(rows=8, accumulate=2), toy.SIZES, mesh)
        with pytest.raises(UserError, match=r"is 4, which mesh.data=8 does not divide"):
            make_trainer(toy.recipe(rows=4), toy.SIZES, mesh)


if __name__ == "__main__":
    compute(Path(sys.argv[1]))
