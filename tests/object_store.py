"""A bucket of Google Cloud Storage on this machine: as much of its JSON API as gcsfs and TensorStore use.

Unlike the emulators that can be installed, it numbers the generations of an object and honours conditions on them,
which TensorStore relies on when several writers share a database. `python object_store.py PORT` serves gs://bucket.
"""

import itertools
import json
import re
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from email.parser import BytesParser
from email.policy import HTTP
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

BUCKET = "bucket"
_TIME = "2026-01-01T00:00:00.000Z"
_OBJECT = re.compile(
    r"(?:/upload|/download)?/storage/v1/b/([^/]+)(?:/o(?:/([^/]+))?)?(?:/(\w+To)(?:/b/([^/]+))?/o/([^/]+))?"
)


@dataclass
class Store:
    """The objects of the one bucket, and uploads that are under way."""

    objects: dict[str, tuple[bytes, int]] = field(default_factory=dict)  # by name: contents, generation
    uploads: dict[str, tuple[str, bytes]] = field(default_factory=dict)  # by id: name, contents so far
    lock: threading.RLock = field(default_factory=threading.RLock)
    numbers: Iterator[int] = field(default_factory=lambda: itertools.count(1))

    def put(self, name: str, contents: bytes) -> dict[str, Any]:
        self.objects[name] = (contents, next(self.numbers))
        return self.describe(name)

    def describe(self, name: str) -> dict[str, Any]:
        contents, generation = self.objects[name]
        return {
            "kind": "storage#object",
            "bucket": BUCKET,
            "name": name,
            "size": str(len(contents)),
            "generation": str(generation),
            "metageneration": "1",
            "timeCreated": _TIME,
            "updated": _TIME,
            "contentType": "application/octet-stream",
        }

    def listing(self, query: dict[str, str]) -> dict[str, Any]:
        prefix, delimiter = query.get("prefix", ""), query.get("delimiter", "")
        names, prefixes = [], set()
        for name in sorted(self.objects):
            if not name.startswith(prefix) or name < query.get("startOffset", ""):
                continue
            if query.get("endOffset") and name >= query["endOffset"]:
                continue
            head, cut, _ = name[len(prefix) :].partition(delimiter) if delimiter else (name, "", "")
            if cut:
                prefixes.add(prefix + head + cut)
            else:
                names.append(name)
        most = int(query.get("maxResults", 1000))
        first = int(query.get("pageToken", 0))
        page = {"kind": "storage#objects", "items": [self.describe(name) for name in names[first : first + most]]}
        if first + most < len(names):
            page["nextPageToken"] = str(first + most)
        return page | ({"prefixes": sorted(prefixes)} if prefixes else {})


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    store: Store

    def log_message(self, format: str, *args: object) -> None:
        pass

    def do_GET(self) -> None:
        self._serve()

    do_POST = do_PUT = do_DELETE = do_GET  # noqa: N815

    def _serve(self) -> None:
        address = urlsplit(self.path)
        query = {key: values[0] for key, values in parse_qs(address.query).items()}
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        with self.store.lock:
            if address.path.startswith("/batch/"):
                status, contents, headers = self._batch(body)
            else:
                status, contents, headers = self.answer(self.command, address.path, query, body)
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(contents)))
        self.end_headers()
        self.wfile.write(contents)

    def answer(self, method: str, path: str, query: dict[str, str], body: bytes) -> tuple[int, bytes, dict[str, str]]:
        if (match := _OBJECT.fullmatch(path)) is None:
            return _json(501, {"error": {"code": 501, "message": f"{method} {path}"}})
        bucket, name, verb, _, target = (unquote(part) if part else part for part in match.groups())
        if bucket != BUCKET:
            return _json(404, {"error": {"code": 404, "message": "The specified bucket does not exist."}})
        if path.startswith("/upload/"):
            return self._upload(query, body)
        if name is None:
            bucket_itself = {"kind": "storage#bucket", "name": BUCKET, "location": "US", "timeCreated": _TIME}
            return _json(200, self.store.listing(query) if "/o" in path else bucket_itself)
        if name not in self.store.objects:
            return _json(404, {"error": {"code": 404, "message": f"No such object: {bucket}/{name}"}})
        if refused := self._refused(name, query):
            return refused
        if verb and target:
            return self._copy(name, target, verb)
        if method == "DELETE":
            del self.store.objects[name]
            return 204, b"", {}
        return self._read(name) if query.get("alt") == "media" else _json(200, self.store.describe(name))

    def _refused(self, name: str, query: dict[str, str]) -> tuple[int, bytes, dict[str, str]] | None:
        """Return the answer where a condition on the generation does not hold."""
        generation = str(self.store.objects[name][1]) if name in self.store.objects else "0"
        if query.get("ifGenerationMatch", generation) != generation:
            return _json(412, {"error": {"code": 412, "message": "At least one condition did not hold."}})
        if query.get("ifGenerationNotMatch") == generation:
            return 304, b"", {}
        return None

    def _copy(self, name: str, target: str, verb: str) -> tuple[int, bytes, dict[str, str]]:
        found = self.store.put(target, self.store.objects[name][0])
        if verb == "moveTo" and target != name:
            del self.store.objects[name]
        if verb == "rewriteTo":
            size = found["size"]
            found = {"done": True, "totalBytesRewritten": size, "objectSize": size, "resource": found}
        return _json(200, found)

    def _read(self, name: str) -> tuple[int, bytes, dict[str, str]]:
        contents, generation = self.store.objects[name]
        headers = {"x-goog-generation": str(generation), "x-goog-stored-content-length": str(len(contents))}
        headers["Content-Type"] = "application/octet-stream"
        span = re.fullmatch(r"bytes=(\d*)-(\d*)", self.headers.get("Range") or "")
        if span is None:
            return 200, contents, headers
        first, last = span.groups()
        start = int(first) if first else max(0, len(contents) - int(last))
        stop = min(len(contents), int(last) + 1) if first and last else len(contents)
        if start >= len(contents):
            return 416, b"", headers
        return 206, contents[start:stop], headers | {"Content-Range": f"bytes {start}-{stop - 1}/{len(contents)}"}

    def _upload(self, query: dict[str, str], body: bytes) -> tuple[int, bytes, dict[str, str]]:
        name = query.get("name", "")
        match query["uploadType"]:
            case "multipart":
                head = f"Content-Type: {self.headers['Content-Type']}\r\n\r\n".encode()
                about, contents = BytesParser(policy=HTTP).parsebytes(head + body).iter_parts()
                name = json.loads(about.get_payload(decode=True))["name"]
                body = contents.get_payload(decode=True)
            case "resumable" if "upload_id" not in query:
                number = str(next(self.store.numbers))
                self.store.uploads[number] = (name or json.loads(body)["name"], b"")
                place = f"http://{self.headers['Host']}{self.path}&upload_id={number}"
                return 200, b"", {"Location": place}
            case "resumable":
                name, before = self.store.uploads[query["upload_id"]]
                body = before + body
                if self.headers.get("Content-Range", "/0").endswith("/*"):
                    self.store.uploads[query["upload_id"]] = (name, body)
                    return 308, b"", {"Range": f"bytes=0-{len(body) - 1}"}
        return self._refused(name, query) or _json(200, self.store.put(name, body))

    def _batch(self, body: bytes) -> tuple[int, bytes, dict[str, str]]:
        head = f"Content-Type: {self.headers['Content-Type']}\r\n\r\n".encode()
        parts = []
        for number, part in enumerate(BytesParser(policy=HTTP).parsebytes(head + body).iter_parts()):
            method, path, _ = part.get_payload(decode=True).decode().split("\n")[0].split()
            status, contents, _ = self.answer(method, urlsplit(path).path, {}, b"")
            inner = f"HTTP/1.1 {status} OK\r\nContent-Type: application/json\r\n\r\n{contents.decode()}"
            parts.append(f"--b\r\nContent-Type: application/http\r\nContent-ID: <response-{number}>\r\n\r\n{inner}\r\n")
        return 200, ("".join(parts) + "--b--\r\n").encode(), {"Content-Type": "multipart/mixed; boundary=b"}


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Say nothing of clients that have been killed."""
        if not isinstance(sys.exception(), ConnectionError):
            super().handle_error(request, client_address)


def _json(status: int, value: Any) -> tuple[int, bytes, dict[str, str]]:
    return status, json.dumps(value).encode(), {"Content-Type": "application/json"}


@contextmanager
def serving(port: int = 0) -> Iterator[tuple[str, Store]]:
    """Yield the address of a server and the objects that it serves."""
    store = Store()
    server = _Server(("127.0.0.1", port), type("Handler", (_Handler,), {"store": store}))
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}", store
    finally:
        server.shutdown()
        server.server_close()


if __name__ == "__main__":
    with serving(int(sys.argv[1])) as (address, _):
        print(address, flush=True)
        threading.Event().wait()
