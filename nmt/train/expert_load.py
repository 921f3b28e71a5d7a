"""The load of experts: numbers of every sparse layer over a window of steps, and tokens by direction and expert."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float32, Int32, Int64, Shaped

from nmt.models.moe.statistics import RoutingStats

# The statistics that are fetched of every step; `by_direction` stays on the devices, see `UsageCounter`.
FETCHED = ("load", "dropped", "confidence", "z_loss", "balance_loss", "bias")
_ORDINALS = ("first", "second", "third")
_FETCHED_EVERY = 50  # steps: int32 counts on the devices then last for batches of 40 million tokens


@dataclass(frozen=True)
class Experts:
    """The experts of one layer, or of a stack, over a window of steps; shares are of real tokens."""

    # Of a step, mean over steps: an expert that has too much in one step loses tokens, however idle it is in the next.
    busiest: float  # load of the busiest expert (of a stack: of any layer), 1.0 = fair share
    # Of the whole window: in a single step some of many experts may well have nothing.
    idlest: float  # load of the idlest expert (of a stack: of any layer), 1.0 = fair share
    entropy: float  # of the load of a step, 1.0 = all experts alike, 0.0 = one has it all; mean over steps and layers
    dropped: tuple[float, ...]  # share of tokens whose k-th choice was wanted and found no slot; mean over layers
    confidence: float  # router probability of the first choice, mean over tokens; mean over layers
    z: float  # log(sum of exp of the router's logits)^2, mean over tokens (ST-MoE, equation 5); mean over layers
    balance_loss: float  # 1.0 = balanced; mean over layers
    # Lowest and highest bias of an expert (of a stack: of any layer), mean over steps; None: there are no biases.
    bias: tuple[float, float] | None = None

    def numbers(self) -> dict[str, float]:
        """Return all numbers by name, tuples taken apart: `dropped_first`, `dropped_second`, ..., `bias_lowest`, ..."""
        numbers = dict(vars(self))
        dropped = {f"dropped_{_ordinal(k)}": share for k, share in enumerate(numbers.pop("dropped"))}
        bias = numbers.pop("bias") or ()
        return numbers | dropped | dict(zip(("bias_lowest", "bias_highest"), bias, strict=False))


def _ordinal(choice: int) -> str:
    return _ORDINALS[choice] if choice < len(_ORDINALS) else f"{choice + 1}th"


def fetched_fields(stats: RoutingStats) -> dict[str, Float32[Array, "Y ..."]]:
    """Return the statistics of a step that are fetched, by name, without those that the router does not have."""
    return {name: value for name in FETCHED if (value := getattr(stats, name)) is not None}


def step_numbers(fetched: dict[str, Shaped[np.ndarray, "Y ..."]]) -> dict[str, Shaped[np.ndarray, "Y ..."]]:
    """Return the numbers of a step that a window adds up, of the sparse layers of a stack.

    Args:
      fetched: the fields `FETCHED` of `RoutingStats` of a step, with a leading axis over layers (Y).
    """
    load = np.asarray(fetched["load"], np.float64)  # [Y,E]
    experts = load.shape[-1]
    surprise = np.log(load, out=np.zeros_like(load), where=load > 0)
    entropy = -(load * surprise).sum(axis=-1) / np.log(experts) if experts > 1 else np.ones(len(load))
    extremes = {}
    if "bias" in fetched:
        extremes = {"bias_lowest": fetched["bias"].min(axis=-1), "bias_highest": fetched["bias"].max(axis=-1)}
    return {**fetched, **extremes, "load": load, "busiest": load.max(axis=-1) * experts, "entropy": entropy}


def summarise_layers(sums: dict[str, Shaped[np.ndarray, "Y ..."]], steps: int) -> list[Experts]:
    """Return the numbers of every sparse layer of a stack.

    Args:
      sums: the numbers of `step_numbers`, summed over steps.
      steps: how many steps.
    """
    means = {name: total / steps for name, total in sums.items()}
    idlest = means["load"].min(axis=-1) * means["load"].shape[-1]
    columns = [means["busiest"], idlest, *(means[name] for name in ("entropy", "confidence", "z_loss", "balance_loss"))]
    biases: list[tuple[float, float] | None] = [None] * len(idlest)
    if "bias" in means:
        biases = list(zip(means["bias_lowest"].tolist(), means["bias_highest"].tolist(), strict=True))
    return [
        Experts(busiest, idlest, even, tuple(dropped), confidence, z, balance, bias)
        for busiest, idlest, even, confidence, z, balance, dropped, bias in zip(
            *(column.tolist() for column in columns), means["dropped"].tolist(), biases, strict=True
        )
    ]


def summarise_stack(layers: Sequence[Experts]) -> Experts:
    """Summarise the layers of a stack: the extremes of the load, the means of the rest."""

    def mean(name: str) -> Any:
        return sum(getattr(layer, name) for layer in layers) / len(layers)

    biases = [layer.bias for layer in layers if layer.bias is not None]
    return Experts(
        busiest=max(layer.busiest for layer in layers),
        idlest=min(layer.idlest for layer in layers),
        entropy=mean("entropy"),
        dropped=tuple(sum(choice) / len(layers) for choice in zip(*(layer.dropped for layer in layers), strict=True)),
        confidence=mean("confidence"),
        z=mean("z"),
        balance_loss=mean("balance_loss"),
        bias=(min(lowest for lowest, _ in biases), max(highest for _, highest in biases)) if biases else None,
    )


class UsageCounter:
    """Counts, by stack and sparse layer, the tokens of every direction that chose every expert.

    The counts of a large model take tens of megabytes. They are summed on the devices and fetched every so many steps,
    long after they were computed, so that neither a step nor the host waits for them.
    """

    def __init__(self) -> None:
        self._running: dict[str, Int32[Array, "Y L E"]] = {}  # of `_steps` steps
        self._waiting: dict[str, Int32[Array, "Y L E"]] = {}  # of the `_FETCHED_EVERY` steps before
        self._fetched: dict[str, Int64[np.ndarray, "Y L E"]] = {}  # of all steps before those
        self._steps = 0

    def add(self, routing: Mapping[str, RoutingStats]) -> None:
        """Add a step, which may still be under way."""
        if self._steps == _FETCHED_EVERY:
            self._fetch(self._waiting)
            self._waiting, self._running, self._steps = self._running, {}, 0
        counts = {stack: stats.by_direction for stack, stats in routing.items()}
        self._running = _add(self._running, counts) if self._running else _as_counts(counts)
        self._steps += 1

    def take(self) -> dict[str, Int64[np.ndarray, "_ L _"]]:
        """Return the counts since the last call, and begin anew; empty if there were no steps, or no experts."""
        self._fetch(self._waiting)
        self._fetch(self._running)
        counts = self._fetched
        self._running, self._waiting, self._fetched, self._steps = {}, {}, {}, 0
        return counts

    def _fetch(self, counts: dict[str, Int32[Array, "_ L _"]]) -> None:
        for stack, array in jax.device_get(counts).items():
            before = self._fetched.get(stack)
            self._fetched[stack] = array.astype(np.int64) if before is None else before + array


def _as_counts(counts: dict[str, Float32[Array, "_ L _"]]) -> dict[str, Int32[Array, "_ L _"]]:
    return {stack: array.astype(jnp.int32) for stack, array in counts.items()}


@partial(jax.jit, donate_argnums=0)
def _add(
    total: dict[str, Int32[Array, "_ L _"]], counts: dict[str, Float32[Array, "_ L _"]]
) -> dict[str, Int32[Array, "_ L _"]]:
    return {stack: total[stack] + array.astype(jnp.int32) for stack, array in counts.items()}
