"""Building a model on a mesh, and reading its weights from the checkpoints of a run."""

import contextlib
import math
import os
import platform as machine
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import orbax.checkpoint as ocp
from etils import epath
from flax import nnx
from jax.sharding import Mesh

from nmt.config import ModelConfig, VocabularySizes
from nmt.errors import UserError
from nmt.models.buffers import Buffer
from nmt.models.moe.routers import make_router
from nmt.models.transformer import Transformer
from nmt.sharding import named_sharding, platform

WEIGHTS = "model"  # the item of a checkpoint that holds the trained weights
AVERAGE = "average"  # the item that holds their moving average, where a recipe keeps one
BUFFERS = "buffers"  # the item that holds the buffers, where a model has some

Arrays = dict[str, Any]  # nested dictionaries of arrays


def resolve_dtype(name: str) -> str:
    """Return what `auto` is on the devices of the mesh: bfloat16 where it is multiplied natively, else float32."""
    if name != "auto":
        return name
    if platform() != "cpu":
        return "bfloat16"
    return "bfloat16" if _cpu_has_bfloat16() else "float32"


def _cpu_has_bfloat16() -> bool:
    if machine.system() != "Linux":
        return False
    flags = (
        line for line in Path("/proc/cpuinfo").read_text(errors="replace").splitlines() if line.startswith("flags")
    )
    return not {"avx512_bf16", "amx_bf16"}.isdisjoint(next(flags, "").split())


def resolve(config: ModelConfig) -> ModelConfig:
    """Return the configuration with its dtype resolved for the devices of the mesh."""
    return config.model_copy(update={"dtype": resolve_dtype(config.dtype)})


def split_model(model: Transformer) -> tuple[nnx.GraphDef[Transformer], nnx.State]:
    """Return the structure of a model and its parameters; `nnx.merge` puts them and its buffers together again."""
    graph, parameters, _ = nnx.split(model, nnx.Param, Buffer)
    return graph, parameters


def split_buffers(model: Transformer) -> nnx.State:
    """Return the buffers of a model, empty if it has none."""
    return nnx.state(model, Buffer)


def abstract_model(config: ModelConfig, vocabulary: VocabularySizes) -> tuple[nnx.GraphDef[Transformer], nnx.State]:
    """Return the structure of a model and the shapes of its parameters, with nothing allocated."""
    graph, parameters = split_model(_abstract_transformer(config, vocabulary))
    dtype = jnp.dtype(config.parameter_dtype)
    return graph, jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, dtype), parameters)


def abstract_buffers(config: ModelConfig, vocabulary: VocabularySizes) -> nnx.State:
    """Return the shapes of a model's buffers, with nothing allocated."""
    buffers = split_buffers(_abstract_transformer(config, vocabulary))
    return jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype), buffers)


def _abstract_transformer(config: ModelConfig, vocabulary: VocabularySizes) -> Transformer:
    return nnx.eval_shape(lambda: Transformer(resolve(config), vocabulary, nnx.Rngs(0)))


def count_parameters(config: ModelConfig, parameters: nnx.State) -> tuple[int, int]:
    """Return how many parameters there are, and how many of them one token uses."""
    total = active = 0
    for path, variable in nnx.to_flat_state(parameters):
        count = math.prod(variable.get_value().shape)
        total += count
        if config.moe is not None and "expert" in variable.get_metadata()["logical_axes"]:
            router = make_router(config.moe, decoder=path[0] == "decoder")
            count = count * router.experts_per_token // config.moe.experts
        active += count
    return total, active


def shardings(parameters: nnx.State, mesh: Mesh) -> nnx.State:
    """Return where each parameter lives, from the logical axes that it carries.

    Raises:
      UserError: the mesh does not divide the model.
    """

    def place(variable: nnx.Variable[Any]) -> nnx.Variable[Any]:
        axes, shape = variable.get_metadata()["logical_axes"], variable.get_value().shape
        return variable.replace(named_sharding(mesh, axes, shape))

    return jax.tree.map(place, parameters, is_leaf=lambda x: isinstance(x, nnx.Variable))


def initialise(
    config: ModelConfig, vocabulary: VocabularySizes, seed: int, mesh: Mesh
) -> tuple[nnx.GraphDef[Transformer], nnx.State]:
    """Draw a model's parameters, born where they live."""
    graph, abstract = abstract_model(config, vocabulary)

    def draw() -> nnx.State:
        parameters = split_model(Transformer(resolve(config), vocabulary, nnx.Rngs(seed)))[1]
        return jax.tree.map(lambda weight: weight.astype(config.parameter_dtype), parameters)

    return graph, jax.jit(draw, out_shardings=shardings(abstract, mesh))()


def initial_buffers(config: ModelConfig, vocabulary: VocabularySizes, mesh: Mesh) -> nnx.State:
    """Return a model's buffers with their first values, born where they live."""
    abstract = abstract_buffers(config, vocabulary)
    if not jax.tree.leaves(abstract):
        return abstract

    def draw() -> nnx.State:
        return split_buffers(Transformer(resolve(config), vocabulary, nnx.Rngs(0)))

    return jax.jit(draw, out_shardings=shardings(abstract, mesh))()


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
    with damage_told(folder), ocp.StandardCheckpointer(multiprocessing_options=_by_itself()) as reader:
        return reader.restore(folder, target)


def check_stored(folder: epath.Path, target: Arrays) -> None:
    """Check that an item of a checkpoint holds arrays of these names and shapes.

    Raises:
      UserError: it does not, or cannot be read.
    """
    wanted = _shapes(target)
    with damage_told(folder):
        stored = _shapes(ocp.StandardCheckpointHandler().metadata(folder).tree)
    if name := next((name for name in sorted(wanted | stored) if wanted.get(name) != stored.get(name)), None):
        raise UserError(
            f"{folder} holds another model than recipe.yaml says: "
            f"{name} is {stored.get(name, 'missing')}, not {wanted.get(name, 'missing')}"
        )


@contextlib.contextmanager
def damage_told(folder: epath.Path) -> Iterator[None]:
    """Raise as UserError what reading a damaged checkpoint raises."""
    try:
        yield
    except (ValueError, KeyError, FileNotFoundError) as error:
        raise UserError(f"cannot read {folder}, it is damaged: {str(error).strip().splitlines()[0][:200]}") from None


def _by_itself() -> ocp.options.MultiprocessingOptions:
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
