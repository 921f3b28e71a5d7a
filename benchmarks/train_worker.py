"""One system of a benchmark, in a process of its own: a model of ours, or of Hugging Face `transformers`.

python benchmarks/train_worker.py '{"system": "nmt-dense", "precision": "fp32", "warmup": 3, "shape": {}}'

What it does when asked is the job's "mode": a train step ("step"); the same in two parts that are timed apart, forward
and backward, and the optimizer ("parts", ours only); or a train step and a forward pass ("forward").
"""

import json
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from itertools import cycle
from typing import Any

import numpy as np
from harness import Facts, cores, serve

BETAS, EPSILON, LEARNING_RATE = (0.9, 0.98), 1e-9, 1e-4
FIRST_PIECE = 4  # the ids below are padding and other special symbols
BATCHES = 4
# Their code stops at a mixture of types under autocast: in bf16 their parameters are bfloat16 too, which favours them.
NO_AUTOCAST = ["switch"]


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


# As large as a GPU needs, to be busy with products: T5-large's width, a vocabulary of 32,000.
LARGE = Shape(
    width=1024, hidden=4096, heads=16, layers=4, vocabulary=32000, rows=128, source_length=128, target_length=128
)


@dataclass(frozen=True)
class System:
    """A model of one side.

    Every second layer of a sparse model has experts. A `wide` dense model has feed-forward layers 1.5 times as wide: it
    does the arithmetic of a sparse model whose tokens go to two experts each.
    """

    architecture: str  # "nmt" is ours
    experts: int = 0
    wide: bool = False
    preset: str = "gshard"
    dispatch: str = "scatter"
    all_choices: bool = False  # no second choice is left to chance

    def hidden(self, shape: Shape) -> int:
        """Return the width of feed-forward layers and of experts."""
        return shape.hidden * 3 // 2 if self.wide else shape.hidden


def ours(experts: int, kind: str = "moe", dispatch: str = "scatter") -> dict[str, System]:
    """Return a sparse model of ours under its name; nllb and switch have the conventions of those papers."""
    preset = {"moe": "gshard"}.get(kind, kind)
    suffix = "" if dispatch == "scatter" else f"-{dispatch}"
    return {f"nmt-{kind}{experts}{suffix}": System("nmt", experts=experts, preset=preset, dispatch=dispatch)}


SYSTEMS = {
    "nmt-dense": System("nmt"),
    "nmt-dense-wide": System("nmt", wide=True),
    **ours(8),
    **ours(32),
    **ours(8, "nllb"),
    **ours(32, "nllb"),
    **ours(8, "switch"),
    **ours(32, "switch"),
    "hf-m2m100": System("m2m100"),
    "hf-m2m100-wide": System("m2m100", wide=True),
    "hf-marian": System("marian"),
    "hf-marian-wide": System("marian", wide=True),
    "hf-nllb-moe8": System("nllb-moe", experts=8),
    "hf-nllb-moe32": System("nllb-moe", experts=32),
    "hf-switch8": System("switch", experts=8),
    "hf-switch32": System("switch", experts=32),
}


@dataclass(frozen=True)
class Built:
    """What a system can do. Each returns when its results are there."""

    parameters: int
    step: Callable[[], None]
    forward: Callable[[], None]  # the loss alone, without noise, and without dropping tokens
    gradient: Callable[[], None] | None = None
    update: Callable[[], None] | None = None
    flops: float = 0.0  # of a train step, what the model's mathematics asks for: the M of MFU
    peak_flops: float = 0.0  # of the device, in bfloat16; 0: not known
    peak_bytes: Callable[[], int] | None = None  # of the device's memory


def batches(shape: Shape) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """Yield source tokens [B,S], target input and target output [B,T], int32: random, without padding."""
    draw = np.random.default_rng(0)

    def tokens(length: int) -> np.ndarray:
        return draw.integers(FIRST_PIECE, shape.vocabulary, (shape.rows, length)).astype(np.int32)

    for _ in range(BATCHES):
        yield tokens(shape.source_length), tokens(shape.target_length), tokens(shape.target_length)


def recipe_of(shape: Shape, system: System, precision: str, narrow: bool = False) -> Any:
    """Return the recipe of a model of ours; in a narrow one hidden states are bfloat16 too, if products are."""
    from nmt.config import DataConfig, ModelConfig, MoEConfig, OptimizerConfig, Recipe, ScheduleConfig, TrainConfig

    sparse = {"experts": system.experts, "every": 2, "output_masking": 0.0, "dispatch": system.dispatch}
    if system.all_choices:
        sparse["second_expert"] = "all"
    return Recipe(
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
            activation_dtype="bfloat16" if narrow and precision == "bf16" else "float32",
            moe=MoEConfig(preset=system.preset, **sparse) if system.experts else None,
        ),
        train=TrainConfig(
            tokens_per_batch=shape.rows * shape.target_length,
            label_smoothing=shape.label_smoothing,
            optimizer=OptimizerConfig(beta1=BETAS[0], beta2=BETAS[1], epsilon=EPSILON, clip_norm=None),
            schedule=ScheduleConfig(learning_rate=LEARNING_RATE, warmup_steps=0),
        ),
    )


def build_ours(shape: Shape, system: System, precision: str) -> Built:
    """Return the train step of `nmt-train` with Adam and without clipping, and its parts."""
    import jax

    from nmt.config import VocabularySizes
    from nmt.data.batch import Batch
    from nmt.sharding import make_mesh
    from nmt.train.step import make_trainer

    device = jax.devices()[0]
    recipe = recipe_of(shape, system, precision, narrow=device.platform != "cpu")
    mesh = make_mesh()
    jax.set_mesh(mesh)
    trainer = make_trainer(recipe, sizes := VocabularySizes.shared(shape.vocabulary), mesh)
    state = trainer.initial()

    def full(tokens: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Return tokens, segments and positions of rows that hold one pair each."""
        positions = np.arange(tokens.shape[1], dtype=np.int32)
        return tokens, np.ones_like(tokens), np.broadcast_to(positions, tokens.shape)

    def batch(source: np.ndarray, given: np.ndarray, wanted: np.ndarray) -> Batch:
        given, segment, position = full(given)
        return Batch(*full(source), given, wanted, segment, position, np.zeros_like(wanted))

    data = cycle([trainer.place(batch(*arrays)) for arrays in batches(shape)])
    gradients_of, updated = parts(recipe, sizes)
    gradients: Any = None

    def step() -> None:
        nonlocal state
        state, *_ = jax.block_until_ready(trainer.step(state, next(data)))

    def gradient() -> None:
        nonlocal gradients
        gradients = jax.block_until_ready(gradients_of(state, next(data)))

    def update() -> None:
        nonlocal state, gradients
        optimizer, parameters = updated(gradients, state.optimizer, state.parameters)
        state = jax.block_until_ready(replace(state, parameters=parameters, optimizer=optimizer))
        gradients = None

    return Built(
        parameters=sum(leaf.size for leaf in jax.tree.leaves(state.parameters)),
        step=step,
        forward=lambda: jax.block_until_ready(trainer.evaluate(state, next(data)).loss),
        gradient=gradient,
        update=update,
        flops=flops_of(recipe, sizes, shape),
        peak_flops=peak_flops(device.device_kind),
        peak_bytes=(lambda: device.memory_stats()["peak_bytes_in_use"]) if device.platform != "cpu" else None,
    )


def flops_of(recipe: Any, sizes: Any, shape: Shape) -> float:
    """Return the FLOPs of a train step, each token in as many experts as it is sent to, slots aside."""
    from nmt.plan.flops import model_flops

    flops = model_flops(recipe.model, sizes, shape.rows, shape.source_length, shape.target_length)
    return flops.total.training


# Dense bfloat16 FLOP/s by NVIDIA's data sheets (H100 SXM and H200, without sparsity: half of what they print first).
PEAK_FLOPS = {"H100": 989.4e12, "H200": 989.4e12, "A100": 312e12}


def peak_flops(device: str) -> float:
    """Return the peak of a kind of device; 0 if it is not known here."""
    return next((peak for name, peak in PEAK_FLOPS.items() if name in device), 0.0)


def parts(recipe: Any, sizes: Any) -> tuple[Callable[..., Any], Callable[..., Any]]:
    """Return the two halves of a train step, jitted: gradients of a batch; new optimizer state and parameters."""
    import jax
    import optax

    from nmt.models.building import abstract_model
    from nmt.train.optimizer import make_optimizer
    from nmt.train.schedules import make_schedule
    from nmt.train.step import StepFunctions

    train = recipe.train
    functions = StepFunctions(recipe, abstract_model(recipe.model, sizes)[0])
    optimizer = make_optimizer(train.optimizer, make_schedule(train.schedule, train.steps))

    def gradient(state: Any, batch: Any) -> Any:
        key = jax.random.key(recipe.seed)
        return jax.grad(lambda weights: functions.loss(state.buffers, weights, batch, key)[0])(state.parameters)

    def update(gradients: Any, state: Any, parameters: Any) -> Any:
        updates, state = optimizer.update(gradients, state, parameters)
        # In the order in which they came: what is donated is matched by shape, and a moment would else be computed in
        # the place of a parameter and be copied to its own.
        return state, optax.apply_updates(parameters, updates)

    return jax.jit(gradient), jax.jit(update, donate_argnums=(1, 2))


def build_theirs(shape: Shape, system: System, precision: str) -> Built:
    """Return a plain PyTorch train step of a model of `transformers`, with fused Adam."""
    import torch

    torch.set_num_threads(cores())
    torch.manual_seed(0)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    model = _model_of_transformers(shape, system).to(device)
    autocast = precision == "bf16" and system.architecture not in NO_AUTOCAST
    if precision == "bf16" and not autocast:
        model = model.to(torch.bfloat16)
    optimizer = torch.optim.Adam(model.parameters(), LEARNING_RATE, BETAS, EPSILON, fused=True)
    data = cycle([[torch.from_numpy(array).long().to(device) for array in arrays] for arrays in batches(shape)])

    def loss() -> torch.Tensor:
        source, given, wanted = next(data)
        with torch.autocast(device, torch.bfloat16, enabled=autocast):
            logits = model(input_ids=source, decoder_input_ids=given, use_cache=False).logits
        return torch.nn.functional.cross_entropy(
            logits.flatten(0, 1).float(), wanted.flatten(), label_smoothing=shape.label_smoothing
        )

    def step() -> None:
        model.train()
        value = loss()
        optimizer.zero_grad(set_to_none=True)
        value.backward()
        optimizer.step()
        if device == "cuda":
            torch.cuda.synchronize()

    def forward() -> None:
        model.eval()
        with torch.no_grad():
            loss().item()

    parameters = sum(parameter.numel() for parameter in model.parameters())
    return Built(parameters, step, forward, peak_bytes=torch.cuda.max_memory_allocated if device == "cuda" else None)


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


def what_to_do(built: Built, mode: str) -> Callable[[], Facts | None]:
    """Return what the worker does when it is asked; it tells the seconds of its parts, and those of processors."""

    def timed(**tasks: Callable[[], None]) -> Facts:
        seconds: Facts = {}
        for name, task in tasks.items():
            began, busy = time.perf_counter(), time.process_time()
            task()
            seconds |= {name: time.perf_counter() - began, f"{name}_busy": time.process_time() - busy}
        return seconds if built.peak_bytes is None else seconds | {"peak": built.peak_bytes()}

    if mode == "step":
        return built.step
    if mode == "forward":
        return lambda: timed(step=built.step, forward=built.forward)
    assert built.gradient is not None
    assert built.update is not None
    return partial(timed, gradient=built.gradient, optimizer=built.update, evaluation=built.forward)


def main() -> None:
    job = json.loads(sys.argv[1])
    shape, system = Shape(**job["shape"]), SYSTEMS.get(job["system"]) or System(**job["definition"])
    build = build_ours if system.architecture == "nmt" else build_theirs
    built = build(shape, system, job["precision"])
    act = what_to_do(built, job.get("mode", "step"))
    facts = {"parameters": built.parameters, "flops": built.flops, "peak_flops": built.peak_flops}
    serve(act, job["warmup"], facts, job.get("again", True))


if __name__ == "__main__":
    main()
