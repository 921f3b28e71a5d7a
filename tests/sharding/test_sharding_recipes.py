"""Every shipped recipe on the mesh that it is for: its train step type-checks, and its arrays live where recorded.

Nothing is compiled or allocated: the meshes have devices in name only.
"""

import csv
import io
import math
import os
from pathlib import Path

import jax
import jax.numpy as jnp
import pytest
import toy_model as toy
from flax import nnx
from jax.sharding import PartitionSpec

import nmt.models.moe.dispatch
from nmt.config import MeshConfig, Recipe, load_recipe
from nmt.models.building import abstract_model
from nmt.sharding import make_layout, named_sharding, shard
from nmt.train.step import make_trainer

ROOT = Path(__file__).parents[2]
GOLDEN = ROOT / "tests" / "golden" / "sharding"
SHIPPED = sorted(path.stem for path in (ROOT / "recipes").glob("*.yaml"))
PRESETS = sorted(path.stem for path in (ROOT / "recipes" / "meshes").glob("*.yaml"))
# The paper's numbers of cores where a recipe has no experts to count them by (GShard, table 1).
DEVICES = {"quickstart": 8, "m4_dense": 2048}


def devices_of(recipe: Recipe) -> int:
    """One device an expert, as in the paper."""
    return DEVICES.get(recipe.name) or (recipe.model.moe.experts if recipe.model.moe else 8)


def shipped(name: str) -> Recipe:
    # The machine that tests run on has no say in what a recipe is.
    return load_recipe(name, ["model.dtype=bfloat16"])


def trace(recipe: Recipe, devices: int) -> None:
    """Trace the train step with the placement of every array in its type."""
    mesh_config = recipe.mesh.model_copy(update={"axis_types": "explicit"})
    with make_layout(mesh_config, devices).use() as mesh:
        trainer = make_trainer(recipe, recipe.vocab.sizes, mesh)
        trainer.step.trace(trainer.state, trainer.batch)


# The types of placements.


@pytest.mark.parametrize("name", SHIPPED)
def test_shipped_recipes_type_check(name: str) -> None:
    recipe = shipped(name)
    trace(recipe, devices_of(recipe))


SIZES = {"expert_fsdp": {"fsdp": 2}, "multislice": {"slices": 2}}
MODELS = {
    "expert": toy.model_config(positions="relative", moe=toy.moe_config(experts=8, dispatch="einsum", every=1)),
    "expert_fsdp": toy.model_config(norm="layernorm", bias=True, positions="learned", remat="full", moe=None),
    "expert_model": toy.model_config(
        positions="rotary", activation="swiglu", moe=toy.moe_config(experts=8, shared="gated", batch_prioritised=True)
    ),
    "data": toy.model_config(tie_output=False, remat="dots", moe=toy.moe_config(shared="add", expert_dropout=0.1)),
    "multislice": toy.model_config(moe=toy.moe_config(experts=8, normalise="after", jitter=0.1, every=3)),
}


@pytest.mark.parametrize("preset", PRESETS)
def test_presets_type_check(preset: str) -> None:
    recipe = toy.recipe(model=MODELS[preset], rows=16, accumulate=2)
    mesh = MeshConfig(preset=preset, **SIZES.get(preset, {}))
    sizes = {"size": toy.VOCABULARY}
    trace(recipe.model_copy(update={"mesh": mesh, "vocab": recipe.vocab.model_copy(update=sizes)}), 8)


def test_a_forgotten_annotation_is_a_type_error(monkeypatch: pytest.MonkeyPatch) -> None:
    recipe = toy.recipe(model=toy.model_config(moe=toy.moe_config(experts=8, every=1)), rows=16)
    recipe = recipe.model_copy(update={"vocab": recipe.vocab.model_copy(update={"size": toy.VOCABULARY})})
    trace(recipe, 8)
    monkeypatch.setattr(nmt.models.moe.dispatch, "shard", lambda x, *axes: x)
    with pytest.raises(Exception, match="expert"):
        trace(recipe, 8)


def test_explicit_annotations_are_types() -> None:
    x = jax.ShapeDtypeStruct((8, 4, 6), jnp.float32)
    seen = []

    def annotate(x: jax.Array) -> jax.Array:
        seen.append(jax.typeof(x).sharding.spec)
        seen.append(jax.typeof(shard(x, "batch", "length", "mlp")).sharding.spec)
        return x

    with make_layout(MeshConfig(preset="expert_model", axis_types="explicit"), 8).use():
        jax.jit(annotate).trace(x)
    assert seen == [PartitionSpec(None, None, None), PartitionSpec(("data", "expert"), None, "model")]


# The tables.


def table(recipe: Recipe) -> str:
    """Where the weights of a recipe live, and how much of each is on one device."""
    layout = make_layout(recipe.mesh, devices_of(recipe))
    shape = " ".join(f"{axis}={size}" for axis, size in layout.mesh.shape.items())
    out = io.StringIO()
    write = csv.writer(out, delimiter="\t", lineterminator="\n").writerow
    out.write(f"# {recipe.mesh.preset}: {shape}\n")
    write(["parameter", "shape", "logical axes", "mesh axes", "bytes per device"])
    total = 0
    with layout.use() as mesh:
        for path, variable in nnx.to_flat_state(abstract_model(recipe.model, recipe.vocab.sizes)[1]):
            value, axes = variable.get_value(), variable.get_metadata()["logical_axes"]
            place = named_sharding(mesh, axes, value.shape)
            size = math.prod(place.shard_shape(value.shape)) * value.dtype.itemsize
            total += size
            shown = ["-" if part is None else part if isinstance(part, str) else "*".join(part) for part in place.spec]
            names = [axis or "-" for axis in axes]
            write([".".join(map(str, path)), " ".join(map(str, value.shape)), " ".join(names), " ".join(shown), size])
    write(["total", "", "", "", total])
    return out.getvalue()


@pytest.mark.parametrize("name", SHIPPED)
def test_weights_live_where_recorded(name: str) -> None:
    found, golden = table(shipped(name)), GOLDEN / f"{name}.tsv"
    if os.environ.get("UPDATE_GOLDEN"):
        golden.parent.mkdir(exist_ok=True)
        golden.write_text(found)
    assert found == golden.read_text(), "UPDATE_GOLDEN=1 records what is found"


def test_recorded_tables_are_of_recipes() -> None:
    assert sorted(path.stem for path in GOLDEN.iterdir()) == SHIPPED
