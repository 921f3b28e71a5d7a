"""Several systems measured in one run: each in a process of its own, asked in turn, so that drift hits all alike.

Standard library only. A benchmark starts one `Worker` per system and calls `measure`; the worker's process calls
`serve`. The two speak JSON, one object a line.
"""

import argparse
import datetime
import json
import os
import platform
import resource
import shlex
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from importlib import metadata
from pathlib import Path
from typing import Any

Facts = dict[str, Any]


class WorkerError(Exception):
    """The process of a system has ended before its time; the message is the end of what it wrote."""


class Worker:
    """The process of one system: started, warmed up and waiting.

    Args:
      name: of the system.
      command: the process to start; it calls `serve`.
      environment: its environment.

    Raises:
      WorkerError: the process ended before it was ready.
    """

    def __init__(self, name: str, command: Sequence[str], environment: Mapping[str, str]):
        self.name = name
        self.steps: list[Facts] = []
        self._errors = tempfile.TemporaryFile("w+")  # noqa: SIM115 - open as long as the process lives
        began = time.perf_counter()
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self._errors, env=environment, text=True
        )
        try:
            self._read()
            self.first_step = time.perf_counter() - began  # seconds, with imports and compilation
            self.facts = self._read()
        except BaseException:
            self.close()
            raise

    def ask(self) -> None:
        """Have one step done, and keep what `serve` tells of it."""
        assert self._process.stdin is not None
        with suppress(BrokenPipeError):
            print("step", file=self._process.stdin, flush=True)
        self.steps.append(self._read())

    @property
    def seconds(self) -> list[float]:
        """How long the steps took."""
        return [step["seconds"] for step in self.steps]

    def close(self) -> None:
        """End the process."""
        self._process.kill()
        self._process.wait()
        for stream in (self._process.stdin, self._process.stdout, self._errors):
            assert stream is not None
            with suppress(BrokenPipeError):
                stream.close()

    def _read(self) -> Facts:
        assert self._process.stdout is not None
        if line := self._process.stdout.readline():
            return dict(json.loads(line))
        status = self._process.wait()
        self._errors.seek(0)
        lines = self._errors.read().strip().splitlines()[-15:]
        raise WorkerError("\n".join([f"{self.name}: ended with status {status}", *lines]))


@contextmanager
def started(
    commands: Mapping[str, Sequence[str]], environment: Mapping[str, str]
) -> Iterator[tuple[list[Worker], dict[str, str]]]:
    """Start a worker for each named command; give those that are ready, and by name how others failed."""
    with ExitStack() as stack:
        workers, failed = [], {}
        for name, command in commands.items():
            try:
                workers.append(Worker(name, command, environment))
            except WorkerError as error:
                failed[name] = str(error)
                print(f"{name} failed:\n{error}\n", flush=True)
                continue
            stack.callback(workers[-1].close)
        yield workers, failed


def worker_environment(tunables: str | None, device: str = "cpu") -> dict[str, str]:
    """Return the environment of a worker: a kind of device, nothing compiled in advance, these settings of malloc's.

    Workers on a GPU share its memory, of which JAX else takes most at its start.
    """
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("JAX_", "GLIBC_TUNABLES"))}
    if tunables:
        environment["GLIBC_TUNABLES"] = tunables
    quiet = {"TF_CPP_MIN_LOG_LEVEL": "2", "TRANSFORMERS_VERBOSITY": "error", "HF_HUB_OFFLINE": "1", "USE_FLAX": "0"}
    if device == "gpu":
        return environment | quiet | {"JAX_PLATFORMS": "cuda", "XLA_PYTHON_CLIENT_PREALLOCATE": "false"}
    return environment | quiet | {"JAX_PLATFORMS": "cpu", "CUDA_VISIBLE_DEVICES": ""}


def measure(workers: Sequence[Worker], rounds: int) -> None:
    """Ask every worker for one step a round; who is first changes from round to round."""
    for number in range(rounds):
        first = number % len(workers)
        for worker in [*workers[first:], *workers[:first]]:
            worker.ask()


def measured(
    commands: Mapping[str, Sequence[str]], environment: Mapping[str, str], rounds: int, together: bool = True
) -> tuple[list[Worker], dict[str, str]]:
    """Start a worker for each named command and measure them; return those that were ready, and how others failed.

    Args:
      commands: how to start them.
      environment: of each of them.
      rounds: steps of each.
      together: all are there at a time, and asked in turn; or else one after the other, which gives each all memory.
    """
    parts = [commands] if together else [{name: command} for name, command in commands.items()]
    ready, failed = [], {}
    for part in parts:
        with started(part, environment) as (workers, how):
            if workers:
                measure(workers, rounds)
        ready += workers
        failed |= how
    return ready, failed


def serve(step: Callable[[], Facts | None], warmup: int, facts: Facts, again: bool = True) -> None:
    """Be a worker: a first step and `warmup` more, then one for every line of standard input; tell of it.

    Of a step are told its `seconds`, the seconds of processors that it took (`busy`) and that all other processes took
    meanwhile (`others`), the most memory in bytes that the process has had so far (`peak`), and what it returns.

    Args:
      step: does one step and returns when its results are there.
      warmup: untimed steps after the first.
      facts: what is to be known of the system.
      again: an untimed step goes before each timed one: a process that others have run in between comes back to cold
        caches, a training loop does not.
    """
    answers = os.fdopen(os.dup(sys.stdout.fileno()), "w")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())  # what libraries print is no answer

    def answer(content: Facts) -> None:
        print(json.dumps(content), file=answers, flush=True)

    step()
    answer({})
    for _ in range(warmup):
        step()
    answer(facts)
    for _ in sys.stdin:
        if again:
            step()
        began, busy, machine = time.perf_counter(), time.process_time(), _machine_busy()
        told = step() or {}
        seconds, busy = time.perf_counter() - began, time.process_time() - busy
        others = max(_machine_busy() - machine - busy, 0.0)
        answer({"seconds": seconds, "busy": busy, "others": others, "peak": _peak_memory(), **told})


def _machine_busy() -> float:
    """Return the seconds that all processors have worked since the machine's start; 0 where Linux does not tell."""
    try:
        user, nice, system, _, _, interrupt, soft_interrupt, *_ = Path("/proc/stat").read_text().split()[1:]
    except OSError:
        return 0.0
    return sum(map(int, (user, nice, system, interrupt, soft_interrupt))) / os.sysconf("SC_CLK_TCK")


def _peak_memory() -> int:
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def cores() -> int:
    """Return how many processors this process may use; `taskset` narrows it."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def circumstances(packages: Sequence[str], device: str = "cpu") -> dict[str, str]:
    """Return what is to be known of a run besides its figures: command, date, machine, load, versions."""
    load = " ".join(f"{value:.2f}" for value in os.getloadavg())
    versions = " ".join(f"{package} {version(package)}" for package in packages)
    return {
        "command": shlex.join(["python", *sys.orig_argv[1:]]),
        "date": datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%d %H:%M UTC"),
        "commit": _commit(),
        "machine": f"{_processor()}, {cores()} cores used, {_memory_gib():.0f} GiB, {platform.platform()}",
        **({"accelerator": _accelerator()} if device == "gpu" else {}),
        "load before": f"{load} (1, 5, 15 minutes)",
        "versions": f"Python {platform.python_version()} {versions}",
    }


def version(package: str) -> str:
    """Return the version of an installed package."""
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return "not installed"


def _commit() -> str:
    command = ["git", "describe", "--always", "--dirty"]
    try:
        done = subprocess.run(command, cwd=Path(__file__).parent, capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
    return done.stdout.strip()


def _processor() -> str:
    """Return the processor's name, and by which instructions it multiplies bfloat16."""
    try:
        text = Path("/proc/cpuinfo").read_text()
    except OSError:
        return platform.processor() or platform.machine()
    fields = {name.strip(): value.strip() for name, _, value in (line.partition(":") for line in text.splitlines())}
    native = [flag for flag in ("avx512_bf16", "amx_bf16", "bf16") if flag in fields.get("flags", "").split()]
    name = fields.get("model name", platform.machine())
    family = f"family {fields['cpu family']} model {fields['model']}" if "cpu family" in fields else ""
    return ", ".join(part for part in (name, family, *native) if part)


def _accelerator() -> str:
    """Return what `nvidia-smi` tells of the GPUs: name, memory, driver; without one, end the benchmark."""
    command = ["nvidia-smi", "--query-gpu=name,memory.total,driver_version", "--format=csv,noheader"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError) as error:
        sys.exit(f"--device gpu: there is no GPU that nvidia-smi knows of ({error})")
    return "; ".join(done.stdout.strip().splitlines())


def _memory_gib() -> float:
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30


def quartiles(values: Sequence[float]) -> tuple[float, float, float]:
    """Return the lower quartile, the median and the upper quartile."""
    if len(values) == 1:
        return values[0], values[0], values[0]
    low, middle, high = statistics.quantiles(values, n=4, method="inclusive")
    return low, middle, high


def ratios(these: Sequence[float], those: Sequence[float]) -> tuple[float, float, float]:
    """Return the quartiles, over rounds, of these : those."""
    return quartiles([one / other for one, other in zip(these, those, strict=True)])


DISTURBED = 0.05  # share of the processors that other programs may take during the timed steps


def disturbance(workers: Sequence[Worker]) -> str:
    """Return a warning if other programs took more than `DISTURBED` of the processors meanwhile, else nothing."""
    others, seconds = (sum(step[key] for worker in workers for step in worker.steps) for key in ("others", "seconds"))
    share = min(others / (seconds * (os.cpu_count() or 1)), 1.0) if seconds else 0.0
    if share <= DISTURBED:
        return ""
    return f"- not to be relied on: other programs took {share:.0%} of the processors during the timed steps"


def positive(text: str) -> int:
    """Return a number from a command line that is at least 1."""
    if (number := int(text)) < 1:
        raise argparse.ArgumentTypeError(f"{text} is not at least 1")
    return number


def print_table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Print a Markdown table, the first column flush left and the others flush right."""
    widths = [max(len(row[column]) for row in [header, *rows]) for column in range(len(header))]

    def line(cells: Sequence[str]) -> str:
        rest = (cell.rjust(width) for cell, width in zip(cells[1:], widths[1:], strict=True))
        return "| " + " | ".join([cells[0].ljust(widths[0]), *rest]) + " |"

    rule = "|".join(["-" * (widths[0] + 2), *("-" * (width + 1) + ":" for width in widths[1:])])
    print(line(header), f"|{rule}|", *map(line, rows), sep="\n", flush=True)
