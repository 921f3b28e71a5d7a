"""Embedding tables and the output layer: their first weights, and the factors before and after them.

First weights are normal. Embeddings are N(0, 1/M) where they are multiplied by sqrt(M) (Vaswani et al. 2017, section
3.4; fairseq), else N(0, 1) (Lingvo's GShard, T5): they have unit variance where positions are added. An output layer of
its own is N(0, 1/M), or N(0, 1) with `output_scale`, so that logits begin at unit variance too. They also do where the
output layer is the target embedding again and one of `embedding_scale` and `output_scale` is set: the former as in
fairseq, the latter as in Lingvo (`_Softmax`) and T5. With both they begin smaller; with neither at variance M, which
training has to undo first.
"""

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float, Int

from nmt.config import ModelConfig
from nmt.sharding import left_to_xla


def embedding_factor(config: ModelConfig) -> float:
    """Return the factor of embeddings before positions are added."""
    return config.width**0.5 if config.embedding_scale else 1.0


def output_factor(config: ModelConfig) -> float:
    """Return the factor of the decoder's outputs before the output layer."""
    return config.width**-0.5 if config.output_scale else 1.0


def embedding_table(config: ModelConfig, vocabulary: int, rngs: nnx.Rngs) -> nnx.Param[jax.Array]:
    """Draw a table of embeddings [V,M]."""
    return _table(config, vocabulary, rngs, config.width**-0.5 if config.embedding_scale else 1.0)


def output_table(config: ModelConfig, vocabulary: int, rngs: nnx.Rngs) -> nnx.Param[jax.Array]:
    """Draw an output layer [V,M] that is no embedding."""
    return _table(config, vocabulary, rngs, 1.0 if config.output_scale else config.width**-0.5)


def look_up(table: Float[Array, "V M"], index: Int[Array, "B S"]) -> Float[Array, "B S M"]:
    """Return the rows [B,S,M] of a table [V,M] at indices [B,S]."""
    return left_to_xla(lambda table, index: table[index], ("batch", "length", "embed"))(table, index)


def _table(config: ModelConfig, vocabulary: int, rngs: nnx.Rngs, deviation: float) -> nnx.Param[jax.Array]:
    table = deviation * jax.random.normal(rngs.params(), (vocabulary, config.width), jnp.float32)
    return nnx.Param(table, logical_axes=("vocab", "embed"))
