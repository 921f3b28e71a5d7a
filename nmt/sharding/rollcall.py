"""How the processes of one run find each other before JAX connects them, and hear from each other afterwards.

JAX's own service ends a process from within, with a stack trace, whenever something is wrong: nobody answers, a port is
taken, two processes have one number, a host has died. So process 0 calls the roll first, on the same port and in plain
TCP; who is missing or does not belong is said in a sentence. The connections stay open: a process that dies closes its
own, and all others know at once. Process 0 speaks to all; the others speak to process 0, which passes news on.

A message is one line of JSON. Nothing here knows of JAX.
"""

import contextlib
import json
import queue
import selectors
import socket
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from nmt.errors import UserError

_TRY_EVERY = 0.5  # seconds between two attempts to reach process 0
_SAY_EVERY = 10.0  # seconds between two lines of progress
_SPEAK_WITHIN = 5.0  # seconds for a stranger to say who it is
GRACE = 1.0  # seconds in which a process may still end in words of its own when another one has
_PART_WITHIN = 30.0  # seconds to wait for others at the end
# A machine without power closes nothing: TCP asks after 20 s of silence, every 10 s, and gives up after four questions.
_KEEPALIVE = {"TCP_KEEPIDLE": 20, "TCP_KEEPINTVL": 10, "TCP_KEEPCNT": 4}

_BARRIER = "barrier"

Message = dict[str, Any]


@dataclass(frozen=True)
class Place:
    """The number of this process, the number of all, and the address of process 0."""

    coordinator: str  # HOST:PORT of process 0
    process: int
    processes: int

    @property
    def address(self) -> tuple[str, int]:
        """Host and port of process 0; an IPv6 address without its brackets."""
        host, _, port = self.coordinator.rpartition(":")
        return host.strip("[]"), int(port)


class Connection:
    """A socket that speaks in lines of JSON."""

    def __init__(self, plain: socket.socket):
        plain.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        for name, value in _KEEPALIVE.items():
            if hasattr(socket, name):
                plain.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)
        self.socket = plain
        self._waiting = b""
        self._speaking = threading.Lock()

    def send(self, **message: Any) -> None:
        """Send a message. One that cannot be sent is dropped: `receive` reports that the other end has gone."""
        with contextlib.suppress(OSError), self._speaking:
            self.socket.sendall(json.dumps(message).encode() + b"\n")

    def receive(self) -> list[Message]:
        """Wait for data, and return the messages that are complete, perhaps none.

        Raises:
          EOFError: the other end has gone.
          ValueError: a line is not a message.
          TimeoutError: the socket has a timeout, and nothing came.
        """
        try:
            new = self.socket.recv(1 << 16)
        except TimeoutError:
            raise
        except OSError:
            new = b""
        if not new:
            raise EOFError
        *lines, self._waiting = (self._waiting + new).split(b"\n")
        messages = [json.loads(line) for line in lines]
        if not all(isinstance(message, dict) for message in messages):
            raise ValueError("not a message")
        return messages

    def first(self, seconds: float) -> Message:
        """Return the first message that comes in time; errors as `receive`."""
        self.socket.settimeout(seconds)
        while not (messages := self.receive()):
            pass
        self.socket.settimeout(None)
        return messages[0]

    def close(self) -> None:
        """Close the socket."""
        self.socket.close()


def call_roll(
    place: Place, greeting: Mapping[str, str], patience: float, say: Callable[[str], None]
) -> dict[int, Connection]:
    """Wait until all processes are there; return the connections to them, for others than process 0 the one to it.

    Args:
      place: the place of this process.
      greeting: values that must be equal in all processes, by name.
      patience: seconds to wait for the last process.
      say: called every 10 s with a line that names the missing processes.

    Raises:
      UserError: somebody did not come in time or does not belong, or the port is taken.
    """
    call = _call if place.process == 0 else _answer
    return call(place, greeting, time.monotonic() + patience, patience, say)


def _call(
    place: Place, greeting: Mapping[str, str], deadline: float, patience: float, say: Callable[[str], None]
) -> dict[int, Connection]:
    present: dict[int, Connection] = {}
    said = time.monotonic()
    with _server(place) as server:
        while len(present) < place.processes - 1:
            server.settimeout(0.2)
            with contextlib.suppress(TimeoutError):
                _admit(Connection(server.accept()[0]), place, greeting, present)
            now = time.monotonic()
            missing = ", ".join(str(n) for n in range(1, place.processes) if n not in present)
            if now > deadline:
                reason = (
                    f"only {len(present) + 1} of {place.processes} processes came within {patience:g} s "
                    f"(missing: {missing}); start nmt-train on all hosts, or raise distributed.join_timeout"
                )
                for connection in present.values():
                    connection.send(refused=reason)
                raise UserError(reason)
            if now - said > _SAY_EVERY:
                said = now
                say(f"waiting for {len(missing.split(', '))} of {place.processes} processes (missing: {missing})")
    for connection in present.values():
        connection.send(go=True)
    return present


@contextlib.contextmanager
def _server(place: Place) -> Iterator[socket.socket]:
    port = place.address[1]
    dual = socket.has_dualstack_ipv6()
    family = socket.AF_INET6 if dual else socket.AF_INET
    try:
        server = socket.create_server(("", port), family=family, dualstack_ipv6=dual, backlog=1024)
    except OSError as error:
        raise UserError(
            f"cannot listen on port {port} for the other processes ({error.strerror}): "
            "choose another port in distributed.coordinator=HOST:PORT (with SLURM, MPI or a TPU: JAX_COORDINATOR_PORT)"
        ) from None
    with server:
        yield server


def _admit(connection: Connection, place: Place, greeting: Mapping[str, str], present: dict[int, Connection]) -> None:
    """Take a process in, or tell it why not; anything else that found the port is ignored."""
    try:
        hello = connection.first(_SPEAK_WITHIN)
        process, processes, theirs = int(hello["process"]), int(hello["processes"]), dict(hello["greeting"])
    except (EOFError, ValueError, KeyError, TypeError, TimeoutError):
        connection.close()
        return
    differing = [name for name in greeting if theirs.get(name) != greeting[name]]
    if processes != place.processes:
        reason = f"process {process} counts {processes} processes, but process 0 counts {place.processes}"
    elif process in present or process == 0:
        reason = f"there is a process {process} already: every process needs a number of its own"
    elif differing:
        name = differing[0]
        reason = f"process {process} has {name}={theirs.get(name)}, but process 0 has {name}={greeting[name]}"
    else:
        present[process] = connection
        return
    connection.send(refused=reason)
    connection.close()


def _answer(
    place: Place, greeting: Mapping[str, str], deadline: float, patience: float, say: Callable[[str], None]
) -> dict[int, Connection]:
    said, problem = time.monotonic(), "nobody answers"
    while (now := time.monotonic()) < deadline:
        if now - said > _SAY_EVERY:
            said = now
            say(f"waiting for process 0 at {place.coordinator} ({problem})")
        try:
            connection = Connection(socket.create_connection(place.address, timeout=5.0))
            connection.send(process=place.process, processes=place.processes, greeting=dict(greeting))
            # Process 0 answers last, when all are there or its patience ends.
            answer = connection.first(max(0.1, deadline + _SPEAK_WITHIN - now))
        except (OSError, EOFError) as error:
            problem = getattr(error, "strerror", None) or str(error) or "the connection is closed"
            time.sleep(_TRY_EVERY)
            continue
        except ValueError:
            problem = "something else answers there"
            time.sleep(_TRY_EVERY)
            continue
        if "refused" in answer:
            raise UserError(str(answer["refused"]))
        return {0: connection}
    raise UserError(
        f"process 0 cannot be reached at {place.coordinator} within {patience:g} s ({problem}): is nmt-train running "
        "there as process 0, and is the port open between the hosts?"
    )


class Line:
    """The open connections between the processes of a run.

    Args:
      place: the place of this process.
      connections: from `call_roll`.
      lost: called with a sentence, from another thread, when another process has ended before its time.
    """

    def __init__(self, place: Place, connections: dict[int, Connection], lost: Callable[[str], None]):
        self.place = place
        self.parting = False  # whether this process is about to end, and ignores the ends of others
        self._connections = connections
        self._lost = lost
        self._told: dict[str, queue.SimpleQueue[str]] = {}
        self._left: set[int] = set()
        self._here: Counter[int] = Counter()
        self._changed = threading.Condition()
        threading.Thread(target=self._listen, name="nmt-line", daemon=True).start()

    def broadcast(self, name: str, value: str) -> None:
        """On process 0: send a value to all others, under a name."""
        self._send(name=name, value=value)

    def receive(self, name: str, seconds: float) -> str:
        """On the others: return the next value that process 0 has broadcast under a name, in the order of sending.

        Raises:
          TimeoutError: nothing was broadcast in time.
        """
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            # Short waits, so that signals are handled.
            with contextlib.suppress(queue.Empty):
                return self._queue(name).get(timeout=0.5)
        raise TimeoutError

    def barrier(self, seconds: float) -> None:
        """Wait until all processes have reached this barrier.

        Raises:
          TimeoutError: some did not come in time.
        """
        if self.place.process:
            self._send(here=self.place.process)
            self.receive(_BARRIER, seconds)
            return
        with self._changed:
            if not self._changed.wait_for(lambda: all(self._here[n] > 0 for n in self._connections), seconds):
                raise TimeoutError
            self._here.subtract(self._connections.keys())
        self.broadcast(_BARRIER, "")

    def fail(self, reason: str) -> None:
        """Tell all others that this process ends before its time, and why; they have a moment to say so."""
        self.parting = True
        self._send(failed=self.place.process, reason=reason)
        if self.place.process == 0:
            time.sleep(2 * GRACE)  # JAX's service lives in this process, and the others do not survive it

    def part(self) -> bool:
        """Wait until all processes are about to end; return whether they are, or False after a timeout."""
        self.parting = True
        self._send(leaving=self.place.process)
        everyone = set(range(1, self.place.processes)) if self.place.process == 0 else {0}
        with self._changed:
            together = self._changed.wait_for(lambda: self._left >= everyone, timeout=_PART_WITHIN)
        return together

    def _send(self, **message: Any) -> None:
        for connection in self._connections.values():
            connection.send(**message)

    def _queue(self, name: str) -> "queue.SimpleQueue[str]":
        return self._told.setdefault(name, queue.SimpleQueue())

    def _listen(self) -> None:
        with selectors.DefaultSelector() as selector:
            for process, connection in self._connections.items():
                selector.register(connection.socket, selectors.EVENT_READ, (process, connection))
            while selector.get_map():
                for key, _ in selector.select():
                    process, connection = key.data
                    try:
                        for message in connection.receive():
                            self._take(process, message)
                    except (EOFError, ValueError):
                        selector.unregister(key.fileobj)
                        self._gone(process)

    def _take(self, process: int, message: Message) -> None:
        if "name" in message:
            self._queue(message["name"]).put(message["value"])
        elif "leaving" in message or "here" in message:
            with self._changed:
                if "here" in message:
                    self._here[process] += 1
                else:
                    self._left.add(process)
                self._changed.notify_all()
        elif "failed" in message:
            self._end(message, f"process {message['failed']} has ended: {message['reason']}")
        elif "lost" in message:
            self._gone(message["lost"])

    def _gone(self, process: int) -> None:
        if process not in self._left:
            self._end({"lost": process}, f"process {process} is lost: it died, or its host did")

    def _end(self, news: Message, sentence: str) -> None:
        if self.parting:
            return
        if self.place.process == 0:
            self._send(**news)
        time.sleep(GRACE)
        if not self.parting:
            self._lost(sentence)
