"""Building a model on a mesh: its structure, shapes, sizes and places, and the first values of its arrays."""

import math
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jax.sharding import Mesh

from nmt.config import ModelConfig, VocabularySizes
from nmt.models.axes import logical_axes, map_variables
from nmt.models.buffers import Buffer
from nmt.models.dtypes import resolve_model_dtype
from nmt.models.moe.routers import make_router
from nmt.models.transformer import Transformer
from nmt.sharding import named_sharding


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
    return nnx.eval_shape(lambda: Transformer(resolve_model_dtype(config), vocabulary, nnx.Rngs(0)))


def count_parameters(config: ModelConfig, parameters: nnx.State) -> tuple[int, int]:
    """Return how many parameters there are, and how many of them one token uses."""
    total = active = 0
    for path, variable in nnx.to_flat_state(parameters):
        count = math.prod(variable.get_value().shape)
        total += count
        if config.moe is not None and "expert" in logical_axes(variable):
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
        axes, shape = logical_axes(variable), variable.get_value().shape
        return variable.replace(named_sharding(mesh, axes, shape))

    return map_variables(place, parameters)


def initialise(
    config: ModelConfig, vocabulary: VocabularySizes, seed: int, mesh: Mesh
) -> tuple[nnx.GraphDef[Transformer], nnx.State]:
    """Draw a model's parameters, born where they live."""
    graph, abstract = abstract_model(config, vocabulary)

    def draw() -> nnx.State:
        parameters = split_model(Transformer(resolve_model_dtype(config), vocabulary, nnx.Rngs(seed)))[1]
        return jax.tree.map(lambda weight: weight.astype(config.parameter_dtype), parameters)

    return graph, jax.jit(draw, out_shardings=shardings(abstract, mesh))()


def initial_buffers(config: ModelConfig, vocabulary: VocabularySizes, mesh: Mesh) -> nnx.State:
    """Return a model's buffers with their first values, born where they live."""
    abstract = abstract_buffers(config, vocabulary)
    if not jax.tree.leaves(abstract):
        return abstract

    def draw() -> nnx.State:
        return split_buffers(Transformer(resolve_model_dtype(config), vocabulary, nnx.Rngs(0)))

    return jax.jit(draw, out_shardings=shardings(abstract, mesh))()
