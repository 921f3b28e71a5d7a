"""One system of `train_throughput.py`, in a process of its own: a model of ours, or of Hugging Face `transformers`.

python benchmarks/train_worker.py '{"system": "nmt-dense", "precision": "fp32", "warmup": 3, "shape": {}}'
"""

import json
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import cycle
from typing import Any

import numpy as np
from harness import cores, serve

# A step, and how many parameters the model has.
Built = tuple[Callable[[], None], int]

BETAS, EPSILON, LEARNING_RATE = (0.9, 0.98), 1e-9, 1e-4
FIRST_PIECE = 4  # the ids below are padding and other special symbols
BATCHES = 4


@dataclass(frozen=True)
class Shape:
    """The shape that all models have, and the batch."""

    width: int = 256
    hidden: int = 1024
    heads: int = 4
    layers: int = 4  # of the encoder, and of the decoder
    vocabulary: int = 8000
    rows: int = 64
    source_length: int = 32
    target_length: int = 32
    dropout: float = 0.1
    label_smoothing: float = 0.1

    @property
    def tokens(self) -> int:
        """Source and target tokens of a batch."""
        return self.rows * (self.source_length + self.target_length)


@dataclass(frozen=True)
class System:
    """A model of one side.

    Every second layer of a sparse model has experts. A `wide` dense model has feed-forward layers 1.5 times as wide: it
    does the arithmetic of a sparse model whose tokens go to two experts each.
    """

    architecture: str  # "nmt" is ours
    experts: int = 0
    wide: bool = False

    def hidden(self, shape: Shape) -> int:
        """Return the width of feed-forward layers and of experts."""
        return shape.hidden * 3 // 2 if self.wide else shape.hidden


SYSTEMS = {
    "nmt-dense": System("nmt"),
    "nmt-dense-wide": System("nmt", wide=True),
    "nmt-moe8": System("nmt", experts=8),
    "nmt-moe32": System("nmt", experts=32),
    "hf-m2m100": System("m2m100"),
    "hf-m2m100-wide": System("m2m100", wide=True),
    "hf-marian": System("marian"),
    "hf-marian-wide": System("marian", wide=True),
    "hf-nllb-moe8": System("nllb-moe", experts=8),
    "hf-nllb-moe32": System("nllb-moe", experts=32),
    "hf-switch8": System("switch", experts=8),
    "hf-switch32": System("switch", experts=32),
}


def batches(shape: Shape) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """Yield source tokens [B,S], target input and target output [B,T], int32: random, without padding."""
    draw = np.random.default_rng(0)

    def tokens(length: int) -> np.ndarray:
        return draw.integers(FIRST_PIECE, shape.vocabulary, (shape.rows, length)).astype(np.int32)

    for _ in range(BATCHES):
        yield tokens(shape.source_length), tokens(shape.target_length), tokens(shape.target_length)


def build_ours(shape: Shape, system: System, precision: str) -> Built:
    """Return the train step of `nmt-train` with Adam and without clipping."""
    import jax

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
    from nmt.sharding import make_mesh
    from nmt.train.step import make_trainer

    recipe = Recipe(
        name="benchmark",
        data=DataConfig(
            corpora=("random",),
            directions=("de-en",),
            source_length=shape.source_length,
            target_length=shape.target_length,
        ),
        model=ModelConfig(
            width=shape.width,
            hidden=system.hidden(shape),
            heads=shape.heads,
            head_width=shape.width // shape.heads,
            encoder_layers=shape.layers,
            decoder_layers=shape.layers,
            dropout=shape.dropout,
            dtype={"fp32": "float32", "bf16": "bfloat16"}[precision],
            moe=MoEConfig(experts=system.experts) if system.experts else None,
        ),
        train=TrainConfig(
            tokens_per_batch=shape.rows * shape.target_length,
            label_smoothing=shape.label_smoothing,
            optimizer=OptimizerConfig(beta1=BETAS[0], beta2=BETAS[1], epsilon=EPSILON, clip_norm=None),
            schedule=ScheduleConfig(learning_rate=LEARNING_RATE, warmup_steps=0),
        ),
    )
    mesh = make_mesh()
    jax.set_mesh(mesh)
    trainer = make_trainer(recipe, VocabularySizes.shared(shape.vocabulary), mesh)
    state = trainer.initial()

    def full(tokens: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Return tokens, segments and positions of rows that hold one pair each."""
        positions = np.arange(tokens.shape[1], dtype=np.int32)
        return tokens, np.ones_like(tokens), np.broadcast_to(positions, tokens.shape)

    def batch(source: np.ndarray, given: np.ndarray, wanted: np.ndarray) -> Batch:
        given, segment, position = full(given)
        return Batch(*full(source), given, wanted, segment, position, np.zeros_like(wanted))

    data = cycle([trainer.place(batch(*arrays)) for arrays in batches(shape)])

    def step() -> None:
        nonlocal state
        state, *_ = jax.block_until_ready(trainer.step(state, next(data)))

    return step, sum(leaf.size for leaf in jax.tree.leaves(state.parameters))


def build_theirs(shape: Shape, system: System, precision: str) -> Built:
    """Return a plain PyTorch train step of a model of `transformers`, with fused Adam."""
    import torch

    torch.set_num_threads(cores())
    torch.manual_seed(0)
    model = _model_of_transformers(shape, system).train()
    optimizer = torch.optim.Adam(model.parameters(), LEARNING_RATE, BETAS, EPSILON, fused=True)
    data = cycle([[torch.from_numpy(array).long() for array in arrays] for arrays in batches(shape)])

    def step() -> None:
        source, given, wanted = next(data)
        with torch.autocast("cpu", torch.bfloat16, enabled=precision == "bf16"):
            logits = model(input_ids=source, decoder_input_ids=given, use_cache=False).logits
        loss = torch.nn.functional.cross_entropy(
            logits.flatten(0, 1).float(), wanted.flatten(), label_smoothing=shape.label_smoothing
        )
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()

    return step, sum(parameter.numel() for parameter in model.parameters())


def _model_of_transformers(shape: Shape, system: System) -> Any:
    import transformers

    hidden = system.hidden(shape)
    if system.architecture == "switch":
        return transformers.SwitchTransformersForConditionalGeneration(
            transformers.SwitchTransformersConfig(
                vocab_size=shape.vocabulary,
                d_model=shape.width,
                d_kv=shape.width // shape.heads,
                d_ff=hidden,
                num_layers=shape.layers,
                num_decoder_layers=shape.layers,
                num_sparse_encoder_layers=shape.layers // 2,
                num_sparse_decoder_layers=shape.layers // 2,
                num_heads=shape.heads,
                num_experts=system.experts,
                dropout_rate=shape.dropout,
            )
        )
    common = {
        "vocab_size": shape.vocabulary,
        "d_model": shape.width,
        "encoder_layers": shape.layers,
        "decoder_layers": shape.layers,
        "encoder_ffn_dim": hidden,
        "decoder_ffn_dim": hidden,
        "encoder_attention_heads": shape.heads,
        "decoder_attention_heads": shape.heads,
        "activation_function": "relu",
        "dropout": shape.dropout,
        "activation_dropout": shape.dropout,
        "attention_dropout": 0.0,
        "encoder_layerdrop": 0.0,
        "decoder_layerdrop": 0.0,
        "max_position_embeddings": max(shape.source_length, shape.target_length),
        "pad_token_id": 1,
        "decoder_start_token_id": 2,
    }
    if system.architecture == "m2m100":
        return transformers.M2M100ForConditionalGeneration(transformers.M2M100Config(**common))
    if system.architecture == "marian":
        return transformers.MarianMTModel(transformers.MarianConfig(**common))
    # No capacity given: 2N/E slots an expert, as ours.
    sparse = {
        "num_experts": system.experts,
        "encoder_sparse_step": 2,
        "decoder_sparse_step": 2,
        "expert_capacity": None,
    }
    config = transformers.NllbMoeConfig(**common, **sparse, moe_token_dropout=0.0)
    return transformers.NllbMoeForConditionalGeneration(config)


def main() -> None:
    job = json.loads(sys.argv[1])
    shape, system = Shape(**job["shape"]), SYSTEMS[job["system"]]
    build = build_ours if system.architecture == "nmt" else build_theirs
    step, parameters = build(shape, system, job["precision"])
    serve(step, job["warmup"], {"parameters": parameters})


if __name__ == "__main__":
    main()
