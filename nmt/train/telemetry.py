"""Telemetry of a run: metrics.jsonl, files for TensorBoard, and the reports that a watcher shows."""

import json
import math
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from types import TracebackType
from typing import Any, Protocol, Self

import jax
import numpy as np
from etils import epath
from jaxtyping import Array, Float
from tensorboardX import SummaryWriter

from nmt.files import atomic_write, is_remote
from nmt.train.checkpoints import Progress
from nmt.train.expert_load import Experts, fetched_fields, step_numbers, summarise_layers, summarise_stack
from nmt.train.objective import Metrics


@dataclass(frozen=True)
class WindowReport:
    """The numbers of a window of steps, as watchers show them and files hold them."""

    progress: Progress
    steps: int
    loss: float
    nll: dict[str, float]  # per direction: nats per target token, NaN for a direction that was not seen
    tokens_per_second: float  # source and target tokens, padding aside
    eta_seconds: float
    learning_rate: float
    gradient_norm: float
    experts: dict[str, Experts]  # per stack
    layers: dict[str, dict[int, Experts]]  # per stack, by the number of the layer in it


class TrainingWatcher(Protocol):
    """A watcher of a run, told of every window of steps, and of everything else in words."""

    def report(self, report: WindowReport, full: bool) -> None:
        """Show the steps since the last full window; called after every step, `full` when a window ends."""

    def say(self, text: str) -> None:
        """Show a line of text."""


@dataclass
class StepWindow:
    """Sums over the steps since the last line of metrics.jsonl.

    Args:
      directions: names of the directions.
      layers: per stack, the numbers of its sparse layers.
    """

    directions: Sequence[str]
    layers: Mapping[str, Sequence[int]]
    steps: int = 0
    seconds: float = 0.0
    loss: float = 0.0
    gradient_norm: float = 0.0
    learning_rate: float = 0.0
    source_tokens: float = 0.0
    nll: Float[np.ndarray, " L"] = field(default_factory=lambda: np.zeros(0))
    tokens: Float[np.ndarray, " L"] = field(default_factory=lambda: np.zeros(0))
    routing: dict[str, dict[str, np.ndarray]] = field(default_factory=dict)

    def add(self, metrics: Metrics, scalars: dict[str, Float[Array, ""]], seconds: float) -> None:
        """Add one step."""
        routing = {stack: fetched_fields(stats) for stack, stats in metrics.routing.items()}
        host, routing, small = jax.device_get((replace(metrics, routing={}), routing, scalars))
        self.steps += 1
        self.seconds += seconds
        self.loss += float(host.loss)
        self.gradient_norm += float(small["gradient_norm"])
        self.learning_rate = float(small["learning_rate"])
        self.source_tokens += float(host.source_tokens)
        self.nll = host.nll + (self.nll if self.nll.size else 0)
        self.tokens = host.tokens + (self.tokens if self.tokens.size else 0)
        for stack, fetched in routing.items():
            before, sums = self.routing.get(stack), step_numbers(fetched)
            self.routing[stack] = sums if before is None else {name: before[name] + sums[name] for name in sums}

    def report(self, progress: Progress, total_steps: int) -> WindowReport:
        """Summarise the window."""
        per_step = self.seconds / self.steps
        with np.errstate(invalid="ignore", divide="ignore"):
            nll = self.nll / self.tokens
        layers = {
            stack: dict(zip(self.layers[stack], summarise_layers(sums, self.steps), strict=True))
            for stack, sums in sorted(self.routing.items(), reverse=True)
        }
        return WindowReport(
            progress=progress,
            steps=self.steps,
            loss=self.loss / self.steps,
            nll=dict(zip(self.directions, map(float, nll), strict=True)),
            tokens_per_second=(self.source_tokens + float(self.tokens.sum())) / max(self.seconds, 1e-9),
            eta_seconds=(total_steps - progress.step) * per_step,
            learning_rate=self.learning_rate,
            gradient_norm=self.gradient_norm / self.steps,
            experts={stack: summarise_stack(list(numbers.values())) for stack, numbers in layers.items()},
            layers=layers,
        )


def flatten(report: WindowReport) -> dict[str, float]:
    """Return the numbers of a report by name, as metrics.jsonl and TensorBoard hold them; NaN is left out."""
    flat: dict[str, float] = {
        "loss": report.loss,
        "tokens_per_second": report.tokens_per_second,
        "learning_rate": report.learning_rate,
        "gradient_norm": report.gradient_norm,
        **{f"nll/{direction}": value for direction, value in report.nll.items()},
    }
    for stack, experts in report.experts.items():
        flat |= {f"experts/{stack}/{name}": value for name, value in experts.numbers().items()}
        for layer, numbers in report.layers[stack].items():
            flat |= {f"experts/{stack}/{layer}/{name}": value for name, value in numbers.numbers().items()}
    return {name: value for name, value in flat.items() if not math.isnan(value)}


class Recorder:
    """Appends lines to metrics.jsonl and events to TensorBoard's files.

    When a run goes on from a checkpoint, lines of later steps are dropped: these steps are done again. Nothing can be
    appended to a file in an object store: there, both are written on this machine, and copied by `keep`.

    Args:
      run: the run's folder.
      step: the step that the run starts from.
    """

    def __init__(self, run: epath.PathLike, step: int):
        self._run = epath.Path(run)
        self._spool = tempfile.TemporaryDirectory(prefix="nmt-metrics-") if is_remote(run) else None
        self._folder = self._run if self._spool is None else epath.Path(self._spool.name)
        path = self._run / "metrics.jsonl"
        before = path.read_text() if path.exists() else ""
        kept = [line for line in before.splitlines() if _parse_step(line) <= step]
        after = "".join(line + "\n" for line in kept)
        if after != before:
            with atomic_write(path) as temporary:
                temporary.write_text(after)
        lines = [json.loads(line) for line in kept]
        self.dev = [line for line in lines if line.get("kind") == "dev"]  # development losses so far
        self._kept = {(line.get("kind"), line["step"]) for line in lines}
        if self._spool is not None:
            (self._folder / path.name).write_text(after)
        self._file = (self._folder / path.name).open("a")
        self._board = SummaryWriter(str(self._folder / "tensorboard"), purge_step=step + 1, flush_secs=20)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.close()
        self._board.close()
        self.keep()
        if self._spool is not None:
            self._spool.cleanup()

    def keep(self) -> None:
        """Copy the files to an object store, if the run is in one; called at every checkpoint."""
        if self._spool is None:
            return
        if not self._file.closed:
            self._board.flush()
        for file in [self._folder / "metrics.jsonl", *(self._folder / "tensorboard").iterdir()]:
            copy = self._run / file.relative_to(self._folder)
            copy.parent.mkdir(parents=True, exist_ok=True)
            with atomic_write(copy) as temporary:
                temporary.write_bytes(file.read_bytes())

    def has(self, kind: str, step: int) -> bool:
        """Return whether there was a line of a kind for a step before the run went on."""
        return (kind, step) in self._kept

    def write(self, progress: Progress, numbers: dict[str, float], kind: str) -> None:
        """Append one line: the step, seconds and tokens so far, and numbers by name.

        Args:
          progress: how far the run has come.
          numbers: the values to record, by name.
          kind: `train` or `dev`.
        """
        line: dict[str, Any] = {"kind": kind, **vars(progress), **numbers}
        if kind == "dev":
            self.dev.append(line)
        self._file.write(json.dumps(line) + "\n")
        self._file.flush()
        for name, value in numbers.items():
            self._board.add_scalar(f"{kind}/{name}", value, progress.step)


class Silence:
    """The recorder of hosts other than host 0, which records nothing; its methods are those of `Recorder`."""

    dev: tuple[dict[str, Any], ...] = ()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        pass

    def has(self, kind: str, step: int) -> bool:
        """Return False: there are no lines."""
        return False

    def write(self, progress: Progress, numbers: dict[str, float], kind: str) -> None:
        """Do nothing."""

    def keep(self) -> None:
        """Do nothing."""


def _parse_step(line: str) -> float:
    """Return the step of a line of metrics.jsonl; infinity for one that a killed process left half-written."""
    try:
        return int(json.loads(line)["step"])
    except (ValueError, KeyError, TypeError):
        return math.inf
