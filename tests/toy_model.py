"""A tiny model and packed batches for tests: weights drawn by NumPy, so that nothing has to be compiled for them."""

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from nmt.config import (
    DataConfig,
    ModelConfig,
    MoEConfig,
    OptimizerConfig,
    Recipe,
    ScheduleConfig,
    TrainConfig,
    VocabularySizes,
)
from nmt.data.batch import Batch
from nmt.models.building import abstract_model

VOCABULARY = 42
SIZES = VocabularySizes.shared(VOCABULARY)
DIRECTIONS = ("de-en", "en-de")
LENGTH = 16  # S and T


def moe_config(**changes):
    return MoEConfig(**({"experts": 4, "every": 2, "group_size": LENGTH, "min_capacity": 2} | changes))


def model_config(**changes):
    values = {
        "width": 16,
        "hidden": 24,
        "heads": 2,
        "head_width": 6,
        "encoder_layers": 4,
        "decoder_layers": 4,
        "dropout": 0.1,
        "dtype": "float32",
        "moe": moe_config(),
    }
    return ModelConfig(**(values | changes))


def recipe(model=None, rows=4, **train):
    values = {
        "steps": 12,
        "tokens_per_batch": rows * LENGTH,
        "ema_decay": 0.9,
        "optimizer": OptimizerConfig(beta2=0.9),
        "schedule": ScheduleConfig(learning_rate=1e-2, warmup_steps=4),
        "log_every": 1,
        "checkpoint_every": 4,
        "dev_batches": 2,
    }
    return Recipe(
        name="toy",
        seed=3,
        data=DataConfig(corpora=("x",), directions=DIRECTIONS, source_length=LENGTH, target_length=LENGTH),
        model=model_config() if model is None else model,
        train=TrainConfig(**(values | train)),
    )


def weights(config, vocabulary=SIZES, seed=0):
    """The structure of a model, and parameters of it, all different."""
    rng = np.random.default_rng(seed)
    graph, abstract = abstract_model(config, vocabulary)

    def draw(path, leaf):
        centre = 1.0 if "scale" in jax.tree_util.keystr(path) else 0.0
        return jnp.asarray(centre + 0.3 * rng.normal(size=leaf.shape), jnp.float32)

    return graph, jax.tree_util.tree_map_with_path(draw, abstract)


def pairs_of(rng, rows, length=LENGTH):
    """Rows of pairs (source, target, direction), as many as fit; the last row is shorter than it could be."""
    filled = []
    for row in range(rows):
        pairs, room = [], [length - 1 - 3 * (row == rows - 1)] * 2
        while min(room) >= 3:
            sizes = [int(rng.integers(3, r + 1)) for r in room]
            source, target = (rng.integers(5, VOCABULARY, size) for size in sizes)
            pairs.append((source, target, int(rng.integers(len(DIRECTIONS)))))
            room = [r - size for r, size in zip(room, sizes, strict=True)]
        filled.append(pairs)
    return filled


def pack(rows, source_length=LENGTH, target_length=LENGTH):
    """A batch of rows of pairs, written out slot by slot."""
    shapes = {"src": source_length, "tgt": target_length}
    arrays = {
        name: np.zeros((len(rows), target_length if name == "direction" else shapes[name[:3]]), np.int32)
        for name in Batch.__dataclass_fields__
    }
    for r, pairs in enumerate(rows):
        at_source = at_target = 0
        for segment, (source, target, direction) in enumerate(pairs, start=1):
            for i, token in enumerate(source):
                arrays["src"][r, at_source] = token
                arrays["src_segment"][r, at_source] = segment
                arrays["src_position"][r, at_source] = i
                at_source += 1
            for i, token in enumerate(target):
                arrays["tgt_in"][r, at_target] = 1 if i == 0 else target[i - 1]
                arrays["tgt_out"][r, at_target] = token
                arrays["tgt_segment"][r, at_target] = segment
                arrays["tgt_position"][r, at_target] = i
                arrays["direction"][r, at_target] = direction
                at_target += 1
    return Batch(**arrays)


def batch(seed=0, rows=4):
    return pack(pairs_of(np.random.default_rng(seed), rows))


def flat(parameters):
    """Parameters as NumPy arrays by dotted path."""
    return {".".join(map(str, path)): np.asarray(leaf[...]) for path, leaf in nnx.to_flat_state(parameters)}
