"""The processes of one run, on one host or on many: how they begin and end together, and agree.

One process a host is the rule, so messages and documents say host. Host 0 writes everything that exists once, such as
the run's folder, and tells the others when it is there. Decisions about the next program (to stop, to write a
checkpoint) are made together, since a program over all devices runs only if all hosts start it.
"""

import contextlib
import functools
import json
import os
import sys
import time
import traceback
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, NamedTuple, NoReturn

import jax
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from nmt.errors import UserError
from nmt.sharding.clusters import known_clusters
from nmt.sharding.rollcall import GRACE, Line, Place, call_roll
from nmt.sharding.tunnel import Tunnel

LOST = 75  # exit status when another host has ended before its time: EX_TEMPFAIL, to be tried again
_WAIT_HOURS = 24  # for what host 0 does alone, such as preparing the data
_COMPILE_HOURS = 2
_SHUTDOWN_WITHIN = 30  # seconds
# Of Open MPI 5, whose coordinator JAX does not find, and of MPICH and Intel MPI: the number of a process, and how many.
_MPI_VARIABLES = (("OMPI_COMM_WORLD_RANK", "OMPI_COMM_WORLD_SIZE"), ("PMI_RANK", "PMI_SIZE"))


@dataclass(frozen=True)
class Launch:
    """The arguments of the command about the other processes of a run."""

    coordinator: str | None = None  # HOST:PORT of process 0; None: JAX detects a TPU pod, SLURM or Open MPI
    process: int | None = None
    processes: int | None = None  # 1: ask nobody
    join_timeout: float = 300.0  # seconds to wait for the last process
    heartbeat_timeout: float = 100.0  # seconds of silence after which JAX gives a host up


class _Found(NamedTuple):
    place: Place
    local_devices: list[int] | None  # the devices of this process among those of its machine; None: all


@dataclass(frozen=True)
class Hosts:
    """The hosts of a run, and the number of this one; `ALONE` where there is one."""

    index: int = 0
    count: int = 1
    line: Line | None = field(default=None, repr=False)

    @property
    def first(self) -> bool:
        """Whether this is host 0."""
        return self.index == 0

    def broadcast(self, name: str, value: Callable[[], Any]) -> Any:
        """Compute a value on host 0 and return it on all hosts; the others wait for up to a day.

        Args:
          name: a few words about the value, for errors.
          value: computes it; called on host 0 alone. The value must be representable in JSON.

        Raises:
          UserError: host 0 took too long.
        """
        if self.line is None:
            return value()
        if self.first:
            result = value()
            self.line.broadcast(name, json.dumps(result))
            return result
        try:
            return json.loads(self.line.receive(name, 3600 * _WAIT_HOURS))
        except TimeoutError:
            raise UserError(f"host 0 took more than {_WAIT_HOURS} h for {name}: start the run again") from None

    def compile(self, function: Any, *arguments: Any) -> Callable[..., Any]:
        """Compile a jitted function for arguments, and return it after a barrier of all hosts.

        A running program waits for its counterparts on other hosts, on CPUs for half a minute only (Gloo), but
        compiling takes one host longer than another.

        Raises:
          UserError: a host took too long.
        """
        if self.line is None:
            return function
        program = function.lower(*arguments).compile()
        try:
            self.line.barrier(3600 * _COMPILE_HOURS)
        except TimeoutError:
            raise UserError(f"some hosts are not ready after {_COMPILE_HOURS} h: look at what they say") from None
        return program


ALONE = Hosts()


class HostShard(NamedTuple):
    """The rows of a batch that a host feeds: of H hosts, host h has rows h * B / H to (h + 1) * B / H."""

    host: int = 0
    hosts: int = 1


ALL_ROWS = HostShard()


def host_shard(batches: NamedSharding, rows: int) -> HostShard:
    """Return the rows of a batch that this host feeds.

    Hosts along other axes than those of the batch feed the same rows. A host whose devices hold scattered rows feeds
    all of them.

    Args:
      batches: placement of an array of rows [B, ...].
      rows: rows of a batch of all hosts (B).
    """
    held = [index[0].indices(rows) for index in batches.addressable_devices_indices_map((rows, 1)).values() if index]
    first, size = min(start for start, _, _ in held), len({row for one in held for row in range(*one)})
    last = max(stop for _, stop, _ in held)
    whole = last - first == size and rows % size == 0 and first % size == 0
    return HostShard(first // size, rows // size) if whole else ALL_ROWS


class Vote:
    """An all-reduce of the hosts' wishes: each gives a number, and all learn the largest.

    Votes travel with the steps of training. A vote that is cast with a step is counted with it, so that no device waits
    for the hosts; all hosts learn the result at the same step.
    """

    def __init__(self, hosts: Hosts):
        self._alone = hosts.count == 1
        self._cast: deque[jax.Array] = deque()
        self._result = 0

    def cast(self, wish: int) -> None:
        """Vote together with a step."""
        if not self._alone:
            self._cast.append(_largest(wish))

    def count(self) -> None:
        """Learn the result of the oldest vote that is not counted."""
        if not self._alone:
            self._result = max(self._result, _read(self._cast.popleft()))

    def now(self, wish: int) -> int:
        """Vote and return the result at once; all hosts must call this together."""
        self.cast(wish)
        if self._alone:
            return wish
        self._result = max(self._result, _read(self._cast.pop()))
        return self._result

    def result(self, wish: int) -> int:
        """Return the largest vote counted so far; a single host gets its own wish back."""
        return wish if self._alone else self._result


@functools.cache
def _voting() -> tuple[NamedSharding, Callable[[jax.Array], jax.Array]]:
    mesh = Mesh(np.asarray(jax.devices()), ("all",), axis_types=(AxisType.Auto,))
    largest = jax.jit(lambda votes: votes.max(), out_shardings=NamedSharding(mesh, PartitionSpec()))
    return NamedSharding(mesh, PartitionSpec("all")), largest


def _largest(wish: int) -> jax.Array:
    sharding, largest = _voting()
    shape = (jax.device_count(),)
    return largest(jax.make_array_from_callback(shape, sharding, lambda index: np.full(1, wish, np.int32)))


def _read(result: jax.Array) -> int:
    return int(np.asarray(result.addressable_data(0)))


@contextlib.contextmanager
def joined(launch: Launch, greeting: Mapping[str, str], say: Callable[[str], None]) -> Iterator[Hosts]:
    """Find the other processes of this run and connect with them; on leaving, end together.

    To be entered before anything is computed. A process that belongs to others does not return to its caller at the
    end: it ends here with the status that `finish` gives, for JAX's own ending would wait for processes that have died.

    Args:
      launch: the arguments of the command about other processes.
      greeting: values that must be equal in all processes, by name.
      say: called with a line of progress while waiting.

    Raises:
      UserError: the others cannot be reached, or do not belong.
    """
    found = None if launch.processes == 1 else _found(launch)
    if found is None:
        yield ALONE
        return
    say(f"process {found.place.process} of {found.place.processes}, coordinator {found.place.coordinator}")
    line = _connect(found, launch, greeting, say)
    try:
        yield Hosts(found.place.process, found.place.processes, line)
    except KeyboardInterrupt:
        # Ctrl-C and SIGTERM end a training together; anywhere else they are a matter of this process alone.
        if not _part(line):
            line.fail("interrupted")
        raise
    except UserError as error:
        line.fail(str(error))
        raise
    except Exception as error:
        # A program that waits for a host that has died fails too: the line knows better, if given time.
        time.sleep(3 * GRACE)
        line.fail(f"{type(error).__name__}: {error}")
        raise
    _part(line)


def finish(status: int) -> NoReturn:
    """End a process as `sys.exit` does; if it belonged to others, at once, without JAX's waiting for them."""
    if sys.excepthook is not _print_bug:
        sys.exit(status)
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)


def _part(line: Line) -> bool:
    together = line.part()
    if together:
        jax.distributed.shutdown()
    return together


def _found(launch: Launch) -> _Found | None:
    """Return the place given by the arguments, else the one that JAX detects; None: this process is on its own."""
    if launch.coordinator is not None and launch.process is not None and launch.processes is not None:
        return _Found(Place(launch.coordinator, launch.process, launch.processes), None)
    for cluster in known_clusters():
        try:
            if not cluster.is_env_present():
                continue
            # The shell of salloc is a step of one process in an allocation for many.
            if cluster.__name__ == "SlurmCluster" and os.environ.get("SLURM_STEP_NUM_TASKS") == "1":
                return None
            processes, process = cluster.get_process_count(), cluster.get_process_id()
            if processes == 1:
                return None
            port = os.environ.get("JAX_COORDINATOR_PORT")
            coordinator = cluster.get_coordinator_address(int(launch.join_timeout), port)
            local = cluster.get_local_process_id()
        except Exception as error:
            raise UserError(
                f"this looks like a process of {cluster.name}, but where the others are cannot be found out ({error}): "
                "say so with distributed.coordinator, distributed.process and distributed.processes; "
                "distributed.processes=1 is a process on its own"
            ) from None
        return _Found(Place(coordinator, process, processes), None if local is None else [local])
    _refuse_unknown_mpi()
    return None


def _refuse_unknown_mpi() -> None:
    """Raise UserError where an MPI that JAX does not know has started many: each would take the run for its own."""
    for rank, size in _MPI_VARIABLES:
        if (count := os.environ.get(size, "1")).isdecimal() and int(count) > 1:
            raise UserError(
                f"this is process {os.environ.get(rank, '?')} of {count} of an MPI that does not say where the others "
                f"are: start sh -c 'nmt-train ... distributed.coordinator=HOST:PORT distributed.process=${rank} "
                f"distributed.processes=${size}', or give distributed.processes=1 for a process on its own"
            )


def _connect(found: _Found, launch: Launch, greeting: Mapping[str, str], say: Callable[[str], None]) -> Line:
    place = found.place
    line = Line(place, call_roll(place, greeting, launch.join_timeout, say), _end)
    # gRPC would go through the machine's proxy for web pages.
    os.environ["no_grpc_proxy"] = "127.0.0.1"  # noqa: SIM112, its name has small letters
    jax.config.update("jax_check_proxy_envs", False)
    # SIGTERM is handled by the training loop, for all hosts; JAX's service would take the signal away from it.
    jax.config.update("jax_enable_preemption_service", False)
    jax.config.update("jax_cpu_collectives_implementation", "gloo")
    port = place.address[1]
    address = f"127.0.0.1:{port}" if place.process == 0 else Tunnel(place.address, lambda: line.parting).address
    jax.distributed.initialize(
        address,
        place.processes,
        place.process,
        found.local_devices,
        cluster_detection_method="deactivate",
        initialization_timeout=int(launch.join_timeout),
        heartbeat_timeout_seconds=int(launch.heartbeat_timeout),
        shutdown_timeout_seconds=_SHUTDOWN_WITHIN,
        coordinator_bind_address=f"[::]:{port}",
    )
    sys.excepthook = _print_bug
    return line


def _end(sentence: str) -> None:
    """End this process from whatever thread, since another one has ended and the devices wait for it."""
    print(
        f"nmt-train: error: {sentence}; start the run again on all hosts, it goes on from its newest checkpoint",
        file=sys.stderr,
        flush=True,
    )
    os._exit(LOST)


def _print_bug(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> NoReturn:
    """Print the traceback of a bug of ours, and end at once."""
    traceback.print_exception(kind, error, trace)
    finish(1)
