"""Reading the weights of a model from the checkpoints of a run."""

import contextlib
import os
from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
import orbax.checkpoint as ocp
from etils import epath
from flax import nnx
from jax.sharding import Mesh

from nmt.config import ModelConfig, VocabularySizes
from nmt.errors import UserError
from nmt.models.building import abstract_buffers, abstract_model, shardings
from nmt.models.transformer import Transformer

WEIGHTS = "model"  # the item of a checkpoint that holds the trained weights
AVERAGE = "average"  # the item that holds their moving average, where a recipe keeps one
BUFFERS = "buffers"  # the item that holds the buffers, where a model has some

Arrays = dict[str, Any]  # nested dictionaries of arrays


def to_arrays(parameters: nnx.State) -> Arrays:
    """Return parameters as nested dictionaries with string keys: the form in which checkpoints hold them."""
    return _string_keys(nnx.to_pure_dict(parameters))


def _string_keys(tree: Any) -> Any:
    return {str(key): _string_keys(value) for key, value in tree.items()} if isinstance(tree, dict) else tree


def from_arrays(like: nnx.State, arrays: Arrays) -> nnx.State:
    """Return `like` with its leaves taken from nested dictionaries made by `to_arrays`."""
    flat = {".".join(map(str, path)): leaf for path, leaf in nnx.to_flat_state(like)}
    values = {
        ".".join(key.key for key in path): value for path, value in jax.tree_util.tree_flatten_with_path(arrays)[0]
    }
    assert flat.keys() == values.keys()
    return nnx.from_flat_state(
        [(path, leaf.replace(values[".".join(map(str, path))])) for path, leaf in nnx.to_flat_state(like)]
    )


def checkpoint_folder(run: epath.PathLike) -> epath.Path:
    """Return the folder of a run's checkpoints, absolute as Orbax wants it."""
    folder = os.fspath(epath.Path(run) / "checkpoints")
    return epath.Path(folder if "://" in folder else os.path.abspath(folder))


def checkpoint_steps(run: epath.PathLike) -> list[int]:
    """Return the steps of which a run has complete checkpoints, oldest first."""
    folder = checkpoint_folder(run)
    return sorted(ocp.utils.checkpoint_steps(folder)) if folder.exists() else []


def load_model(
    run: epath.PathLike, config: ModelConfig, vocabulary: VocabularySizes, mesh: Mesh, step: int | None = None
) -> tuple[Transformer, int]:
    """Read a model from a run: the average of its weights where the run keeps one.

    Args:
      run: the run's folder.
      config: the model's configuration.
      vocabulary: V of sources and of targets.
      mesh: where the parameters will live; need not be the mesh that wrote them.
      step: the checkpoint to read; None: the newest.

    Returns:
      The model and the step of its checkpoint.

    Raises:
      UserError: there is no such checkpoint, or it holds another model.
    """
    steps = checkpoint_steps(run)
    if not steps:
        raise UserError(
            f"{run} has no checkpoint yet: train it first (nmt-train recipe={epath.Path(run) / 'recipe.yaml'})"
        )
    if step is not None and step not in steps:
        raise UserError(f"{run} has no checkpoint of step {step} (it has {', '.join(map(str, steps))})")
    step = steps[-1] if step is None else step
    folder = checkpoint_folder(run) / str(step)
    item = AVERAGE if (folder / AVERAGE).exists() else WEIGHTS
    graph, abstract = abstract_model(config, vocabulary)
    dtype = jnp.dtype(config.parameter_dtype if item == WEIGHTS else jnp.float32)
    target = jax.tree.map(
        lambda leaf, sharding: jax.ShapeDtypeStruct(leaf.shape, dtype, sharding=sharding),
        to_arrays(abstract),
        to_arrays(shardings(abstract, mesh)),
    )
    weights = from_arrays(abstract, _read(folder / item, target))
    return nnx.merge(graph, weights, _read_buffers(folder, config, vocabulary, mesh)), step


def _read_buffers(folder: epath.Path, config: ModelConfig, vocabulary: VocabularySizes, mesh: Mesh) -> nnx.State:
    """Read a model's buffers from a checkpoint; there is nothing to read if it has none."""
    abstract = abstract_buffers(config, vocabulary)
    if not jax.tree.leaves(abstract):
        return abstract
    target = jax.tree.map(
        lambda leaf, sharding: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding),
        to_arrays(abstract),
        to_arrays(shardings(abstract, mesh)),
    )
    return from_arrays(abstract, _read(folder / BUFFERS, target))


def _read(folder: epath.Path, target: Arrays) -> Arrays:
    """Read the arrays of an item of a checkpoint."""
    # Orbax would find a difference too, but only in the middle of reading, and not without noise.
    check_stored(folder, target)
    with damage_explained(folder), ocp.StandardCheckpointer(multiprocessing_options=_without_other_hosts()) as reader:
        return reader.restore(folder, target)


def check_stored(folder: epath.Path, target: Arrays) -> None:
    """Check that an item of a checkpoint holds arrays of these names and shapes.

    Raises:
      UserError: it does not, or cannot be read.
    """
    wanted = _shapes(target)
    with damage_explained(folder):
        stored = _shapes(ocp.StandardCheckpointHandler().metadata(folder).tree)
    if name := next((name for name in sorted(wanted | stored) if wanted.get(name) != stored.get(name)), None):
        raise UserError(
            f"{folder} holds another model than recipe.yaml says: "
            f"{name} is {stored.get(name, 'missing')}, not {wanted.get(name, 'missing')}"
        )


@contextlib.contextmanager
def damage_explained(folder: epath.Path) -> Iterator[None]:
    """Turn the errors that reading a damaged checkpoint raises into a UserError."""
    try:
        yield
    except (ValueError, KeyError, FileNotFoundError) as error:
        raise UserError(f"cannot read {folder}, it is damaged: {str(error).strip().splitlines()[0][:200]}") from None


def _without_other_hosts() -> ocp.options.MultiprocessingOptions:
    """Return options for reading without waiting for the other hosts of a run."""
    if jax.process_count() == 1:
        return ocp.options.MultiprocessingOptions()
    here = jax.process_index()
    return ocp.options.MultiprocessingOptions(
        primary_host=here, active_processes={here}, barrier_sync_key_prefix=f"host{here}"
    )


def _shapes(arrays: Any) -> dict[str, tuple[int, ...]]:
    return {
        jax.tree_util.keystr(path, simple=True, separator="."): tuple(leaf.shape)
        for path, leaf in jax.tree_util.tree_leaves_with_path(arrays)
    }
