"""Drawing tokens at random: filters of their probabilities, and a choice that depends on the sentence alone.

The noise of a draw derives from the seed, the sentence's own tokens, the number of the sample and the position, so that
a sentence has the same samples whatever is translated beside it, and whatever the number of samples.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Float32, Int, UInt32

from nmt.decode.options import SearchOptions

_BITS = 31  # of the positive float32 numbers, in which a threshold is looked for


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class SamplingRules:
    """How tokens are drawn; a filter that is None or 0 is not compiled. They apply one after the other."""

    temperature: Float[Array, ""]
    top_p: Float[Array, ""] | None = None
    epsilon: Float[Array, ""] | None = None
    top_k: int = field(default=0, metadata={"static": True})


def sampling_rules(options: SearchOptions) -> SamplingRules | None:
    """Return how the tokens of a request are drawn; None: they are searched for."""
    if not options.sampling:
        return None
    return SamplingRules(
        temperature=jnp.float32(options.temperature),
        top_p=jnp.float32(options.top_p) if options.top_p < 1.0 else None,
        epsilon=jnp.float32(options.epsilon) if options.epsilon > 0.0 else None,
        top_k=options.top_k,
    )


def sampling_key(seed: int, tokens: Sequence[int]) -> np.ndarray:
    """Return the key of a sentence's samples, uint32 [2], from the tokens that the model reads."""
    content = np.asarray([seed, *tokens], "<i8").tobytes()
    return np.frombuffer(hashlib.blake2b(content, digest_size=8).digest(), "<u4").astype(np.uint32)


def filter_logits(rules: SamplingRules, logits: Float32[Array, "B W Q"]) -> Float32[Array, "B W Q"]:
    """Return logits over the temperature, -inf where a filter forbids a token.

    In this order: the temperature; the `top_k` greatest; the fewest greatest whose probabilities sum to `top_p`; those
    of a probability of at least `epsilon` (Hewitt et al. 2022, arXiv:2210.15191). Each filter sees the probabilities
    that the one before it left, summing to 1. The greatest always stays; tokens of equal logits stay or go together.
    """
    logits = logits / rules.temperature
    if 0 < rules.top_k < logits.shape[-1]:
        least = jax.lax.top_k(logits, rules.top_k)[0][..., -1:]
        logits = jnp.where(logits >= least, logits, -jnp.inf)
    if rules.top_p is not None:
        probability = jax.nn.softmax(logits, axis=-1)
        logits = jnp.where(probability >= _nucleus_threshold(probability, rules.top_p), logits, -jnp.inf)
    if rules.epsilon is not None:
        probability = jax.nn.softmax(logits, axis=-1)
        least = jnp.minimum(rules.epsilon, probability.max(axis=-1, keepdims=True))
        logits = jnp.where(probability >= least, logits, -jnp.inf)
    return logits


def _nucleus_threshold(probability: Float32[Array, "B W Q"], share: Float[Array, ""]) -> Float32[Array, "B W 1"]:
    """Return the greatest threshold whose tokens, those of at least its probability, sum to a share.

    It is looked for bit by bit, since the bits of positive numbers are in their order: no vocabulary is sorted.
    """

    def add_bit(bit: Int[Array, ""], found: Int[Array, "B W 1"]) -> Int[Array, "B W 1"]:
        tried = found | (1 << (_BITS - 1 - bit))
        threshold = jax.lax.bitcast_convert_type(tried, jnp.float32)
        total = jnp.where(probability >= threshold, probability, 0.0).sum(axis=-1, keepdims=True)
        return jnp.where(total >= share, tried, found)

    found = jax.lax.fori_loop(0, _BITS, add_bit, jnp.zeros((*probability.shape[:2], 1), jnp.int32))
    # Rounding may leave even the greatest below the share, or all of them: then the greatest stays, or all do.
    return jnp.minimum(jax.lax.bitcast_convert_type(found, jnp.float32), probability.max(axis=-1, keepdims=True))


def gumbel_noise(
    key: UInt32[Array, "B 2"], position: Int[Array, " B"], beam: int, columns: int
) -> Float32[Array, "B W Q"]:
    """Return Gumbel noise for every token of every sample; adding it to logits and taking the greatest draws a token.

    Args:
      key: uint32 [B,2], the key of each sentence, see `sampling_key`.
      position: int32 [B], the position of the token that is drawn.
      beam: W, samples of a sentence.
      columns: Q.
    """

    def draw(key: UInt32[Array, " 2"], position: Int[Array, ""], sample: Int[Array, ""]) -> Float32[Array, " Q"]:
        base = jax.random.wrap_key_data(key, impl="threefry2x32")
        return jax.random.gumbel(jax.random.fold_in(jax.random.fold_in(base, sample), position), (columns,))

    samples = jnp.arange(beam)
    return jax.vmap(lambda key, position: jax.vmap(lambda sample: draw(key, position, sample))(samples))(key, position)
