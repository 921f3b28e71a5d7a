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
import pytest
from jax.sharding import AbstractMesh, AxisType, PartitionSpec

import nmt.train.step
import toy_model as toy
from nmt.errors import UserError
from nmt.models.numerics import dropout
from nmt.models.weights import abstract_model, load_model, shardings, split_model
from nmt.sharding import AXES, RULES, make_mesh, named_sharding, partition_spec, replicate, shard, split
from nmt.train.checkpoints import Checkpoints, Progress
from nmt.train.step import make_trainer

MESHES = {
    "one": {"data": 1, "expert": 1, "model": 1},
    "data": {"data": 8, "expert": 1, "model": 1},
    "expert": {"data": 1, "expert": 8, "model": 1},
    "expert_model": {"data": 1, "expert": 4, "model": 2},
}
STEPS = 3
RECIPE = toy.recipe(model=toy.model_config(moe=toy.moe_config(experts=8)), rows=8)


# What is computed on eight devices


def collectives(text):
    """How often each collective occurs in a compiled program, and the shapes that are gathered."""
    kinds = ("all-to-all", "all-reduce", "all-gather", "reduce-scatter", "collective-permute")
    counts = {kind: len(re.findall(rf" {kind}(?:-start)?\(", text)) for kind in kinds}
    gathered = re.findall(r"= \(?\w+\[([\d,]*)\]\S* all-gather", text)
    return counts | {"gathered": sorted(set(gathered))}


def train_on(name, facts, arrays, first):
    """Take a few steps on a mesh; the facts and arrays of them are added to what is reported."""
    sizes = MESHES[name]
    mesh = make_mesh(**sizes, devices=jax.devices()[: np.prod(list(sizes.values()))])
    with jax.set_mesh(mesh):
        if first is not None:  # drawing the parameters once more would mostly be waiting for a compiler
            nmt.train.step.initialise = lambda config, vocabulary, seed, mesh: (
                None,
                jax.device_put(first, shardings(abstract_model(config, vocabulary)[1], mesh)),
            )
        trainer = make_trainer(RECIPE, toy.VOCABULARY, mesh)
        state = trainer.initial()
        arrays |= {f"{name}/first/{path}": array for path, array in toy.flat(state.parameters).items()}
        batches = [trainer.place(toy.batch(seed, rows=8)) for seed in range(STEPS + 1)]
        step = trainer.step.lower(state, batches[0]).compile()
        losses = []
        for batch in batches[:STEPS]:
            state, metrics, scalars = step(state, batch)
            losses.append([float(metrics.loss), float(scalars["gradient_norm"])])
            losses[-1] += [float(stats.dropped_first.sum()) for stats in metrics.routing.values()]
        facts[name] = {"losses": losses, "program": collectives(step.as_text())}
        facts[name]["shard"] = {
            path: list(leaf.addressable_shards[0].data.shape)
            for path, leaf in [("wi", state.parameters.encoder.blocks[1].moe.wi[...])]
        }
        arrays |= {f"{name}/parameters/{path}": array for path, array in toy.flat(state.parameters).items()}
        arrays |= {f"{name}/average/{path}": array for path, array in toy.flat(state.average).items()}
        if name in ("one", "expert_model"):
            facts[name]["evaluation"] = float(trainer.evaluate(state, batches[STEPS]).loss)
    return mesh, trainer, state


def annotated(mesh):
    """The shape of one device's part of an array [8,16] under each annotation."""
    x = jnp.zeros((8, 16))
    annotations = {
        "shard": lambda x: shard(x, "batch", "mlp"),
        "split": lambda x: split(x, 1, "mlp"),
        "replicate": lambda x: replicate(shard(x, "batch", "mlp")),
    }
    with jax.set_mesh(mesh):
        return {
            name: list(jax.jit(annotate)(x).addressable_shards[0].data.shape) for name, annotate in annotations.items()
        }


def masks(mesh):
    """A dropout mask computed in one place, and over the devices."""
    drop = jax.jit(lambda x: dropout(x, 0.4, jax.random.key(5)))
    x = np.ones((16, 6, 10), np.float32)
    axes = {"rows": ("batch", None, None), "units": (None, None, "mlp"), "both": ("batch", None, "mlp")}
    return {"mask/one": drop(x)} | {
        f"mask/{name}": drop(jax.device_put(x, named_sharding(mesh, names, x.shape))) for name, names in axes.items()
    }


def compute(out):
    facts, arrays = {"devices": jax.device_count()}, {}
    single, _, state = train_on("one", facts, arrays, None)
    # The parameters of this mesh are drawn on it; those of the others are the same, put in their places.
    mesh, trainer, state = train_on("expert_model", facts, arrays, None)
    run, batches = out / "run", iter(grain.MapDataset.range(3).to_iter_dataset())
    with jax.set_mesh(mesh), Checkpoints(run, keep=1) as checkpoints:
        checkpoints.save(state, batches, Progress(step=STEPS))
    _, first = abstract_model(RECIPE.model, toy.VOCABULARY)
    first = jax.tree.unflatten(
        jax.tree.structure(first),
        [arrays[f"one/first/{'.'.join(map(str, path))}"] for path, _ in nmt_flat(first)],
    )
    for name in ("data", "expert"):
        other, trainer, state = train_on(name, facts, arrays, first)
    with jax.set_mesh(other), Checkpoints(run, keep=1) as checkpoints:
        moved = checkpoints.restore(state, batches)
        arrays |= {f"moved/{path}": array for path, array in toy.flat(moved.parameters).items()}
    model, facts["loaded_step"] = load_model(run, RECIPE.model, toy.VOCABULARY, single)
    arrays |= {f"loaded/{path}": array for path, array in toy.flat(split_model(model)[1]).items()}
    facts["annotated"] = annotated(mesh)
    arrays |= masks(mesh)
    (out / "facts.json").write_text(json.dumps(facts))
    np.savez(out / "arrays.npz", **arrays)


def nmt_flat(state):
    from flax import nnx

    return nnx.to_flat_state(state)


if __name__ == "__main__":
    compute(Path(sys.argv[1]))
