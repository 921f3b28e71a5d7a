"""Router logits, padding and layers for tests of mixtures of experts."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from nmt.config import MoEConfig
from nmt.models.moe.layer import ExpertOptions, MoE
from nmt.models.moe.routers import make_router
from nmt.models.moe.statistics import statistics
from nmt.models.tokens import Phase, TokenInfo

WIDTH, HIDDEN = 6, 10
ALL = MoEConfig(second_expert="all")
HALF = MoEConfig(second_expert="random", second_threshold=0.5)


def draw_logits(rng, shape, kind):
    """Router logits on a coarse grid: equal ones are equal, different ones are further apart than any rounding."""
    if kind == "ties":
        return rng.integers(0, 2, shape).astype(np.float32)
    if kind == "collapse":  # all other probabilities underflow
        return np.where(np.arange(shape[-1]) == rng.integers(shape[-1]), 200.0, 0.0) * np.ones(shape, np.float32)
    return (rng.integers(-24, 25, shape) / 8).astype(np.float32)


def draw_real(rng, shape, padding):
    if padding == "everywhere":
        return np.zeros(shape[:2], bool)
    real = rng.random(shape[:2]) > {"none": 0.0, "some": 0.4}[padding]
    if padding == "some":
        real[0] = False  # a group without tokens
    return real


def decide(logits, real, config, slots, key=None, decoder=False, balanced_groups=None):
    """The moves of a router that goes by logits, and their statistics; biases of experts are zero."""
    router = make_router(config, decoder)
    arrays = {"router_bias": jnp.zeros(logits.shape[-1])}
    decision = router.choose(logits, real, arrays, slots, key)
    info = TokenInfo(jnp.zeros(real.shape, jnp.int32), real)
    return decision.moves, statistics(decision, info, logits.shape[-1], balanced_groups)


@functools.partial(jax.jit, static_argnames=("config", "decoder"))
def routed(logits, real, slots, key, config, decoder=False):
    return decide(logits, real, config, slots, key, decoder)


def make_layer(seed=0, decoder=False, options=None, **changes):
    """A layer's structure, and parameters drawn by NumPy."""
    config = MoEConfig(**({"experts": 4, "second_expert": "all", "min_capacity": 1} | changes))
    options = ExpertOptions() if options is None else options
    dtype = jnp.dtype(jnp.float32)
    layer = nnx.eval_shape(lambda: MoE(WIDTH, HIDDEN, config, dtype, nnx.Rngs(0), decoder, options))
    rng = np.random.default_rng(seed)
    graph, state = nnx.split(layer)
    return graph, jax.tree.map(lambda leaf: jnp.asarray(rng.normal(size=leaf.shape), jnp.float32), state)


@functools.partial(jax.jit, static_argnames=("graph", "phase"))
def run_layer(graph, state, x, real, key=None, phase=Phase.INFER, token=None, passed_by=None):
    token = np.zeros(real.shape, np.int32) if token is None else token
    return nnx.merge(graph, state)(x, TokenInfo(token, real, passed_by=passed_by), key, phase)


def tokens_of(seed, rows, length):
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(rows, length, WIDTH)).astype(np.float32)
    return x, rng.random((rows, length)) > 0.25
