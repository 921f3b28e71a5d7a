"""A way to JAX's service in process 0 that does not break when process 0 dies.

JAX's client ends its process with a stack trace the moment its connection breaks. Through a tunnel it does not see
that; `rollcall.Line` does, and says in one line what has happened.
"""

import contextlib
import socket
import threading
import time
from collections.abc import Callable

_CONNECT_WITHIN = 60.0  # seconds; the service is started when the roll has been called


class Tunnel:
    """A local port that forwards requests to the service, and its answers back.

    Args:
      service: host and port of the service.
      parting: whether this process is at its end, so that a connection may be seen to close.

    Attributes:
      address: the local HOST:PORT.
    """

    def __init__(self, service: tuple[str, int], parting: Callable[[], bool]):
        self._service, self._parting = service, parting
        self._server = socket.create_server(("127.0.0.1", 0))
        self.address = f"127.0.0.1:{self._server.getsockname()[1]}"
        self._start(self._listen)

    def _start(self, function: Callable[..., None], *arguments: socket.socket) -> None:
        threading.Thread(target=function, args=arguments, name="nmt-tunnel", daemon=True).start()

    def _listen(self) -> None:
        while True:
            client, _ = self._server.accept()
            with contextlib.suppress(OSError):
                service = self._connect()
                self._start(self._forward_requests, client, service)
                self._start(self._return_answers, service, client)

    def _connect(self) -> socket.socket:
        deadline = time.monotonic() + _CONNECT_WITHIN
        while True:
            try:
                return socket.create_connection(self._service, timeout=5.0)
            except OSError:
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.1)

    def _forward_requests(self, client: socket.socket, service: socket.socket) -> None:
        service.settimeout(None)
        _copy(client, service)
        with contextlib.suppress(OSError):
            service.shutdown(socket.SHUT_WR)

    def _return_answers(self, service: socket.socket, client: socket.socket) -> None:
        _copy(service, client)
        while not self._parting():
            time.sleep(0.1)
        client.close()


def _copy(source: socket.socket, target: socket.socket) -> None:
    with contextlib.suppress(OSError):
        while some := source.recv(1 << 16):
            target.sendall(some)
