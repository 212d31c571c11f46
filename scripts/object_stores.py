"""Servers of gs:// and s3:// on this machine, behind a proxy that counts and makes faults.

For the tests, for `scripts/fault_runs.py --object_store=gs`, and to try what a bucket is like:

    python scripts/object_stores.py gs          # prints what to export; serves until ctrl-C
    python scripts/object_stores.py s3 --faults=0.05

The servers are gcp-storage-emulator and moto, which speak the real HTTP; buckets are in memory and
gone at the end.
"""

import argparse
import contextlib
import http.client
import json
import os
import random
import re
import shlex
import socket
import threading
import time
import urllib.parse
import uuid
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

BUCKET = "a-bucket"
ERRORS = (429, 500, 503)
KINDS = (*ERRORS, "reset", "cut", "lost")
_HOP = {"connection", "keep-alive", "transfer-encoding", "content-length", "date", "server"}
Choose = Callable[[str, str], "int | float | str | None"]


@dataclass
class ObjectStore:
    """One server behind its proxy.

    Attributes:
      root: the URL of its bucket, as "gs://a-bucket".
      environment: variables by which every client of this machine finds it.
      requests: how often each method was called, and each (method, object's name).
      choose: says what becomes of a request, from its method and path: None to pass it on, a status
        to answer with, "reset", "cut" (half the body), "lost" (done, but never answered), or
        seconds to wait before it is passed on.
    """

    root: str
    environment: dict[str, str]
    requests: Counter = field(default_factory=Counter)
    choose: Choose = lambda method, path: None

    def folder(self) -> str:
        """The URL of a folder in which nothing is yet."""
        return f"{self.root}/{uuid.uuid4().hex[:8]}"

    def reset(self) -> None:
        """No faults, and counting anew."""
        self.choose = lambda method, path: None
        self.requests.clear()


def at_random(share: float, seed: int = 0) -> Choose:
    """Faults of every kind for a share of the requests."""
    drawn, lock = random.Random(seed), threading.Lock()

    def choose(method: str, path: str) -> int | str | None:
        with lock:
            return drawn.choice(KINDS) if drawn.random() < share else None

    return choose


@contextlib.contextmanager
def gs() -> Iterator[ObjectStore]:
    """A Google Cloud Storage with one empty bucket."""
    from gcp_storage_emulator.server import create_server

    server = create_server("127.0.0.1", _free_port(), in_memory=True, default_bucket=BUCKET)
    # Its index of all objects, written anew at each change, is read by nobody: it is in memory too.
    server._storage._write_config_to_file = lambda: None
    with server, _proxy(server._api._port, _GsHandler) as (proxy, store):
        store.root = f"gs://{BUCKET}"
        store.environment = {
            "STORAGE_EMULATOR_HOST": f"http://127.0.0.1:{proxy.server_port}",
            "TENSORSTORE_GCS_HTTP_URL": f"http://127.0.0.1:{proxy.server_port}",
            "GOOGLE_AUTH_TOKEN_FOR_TESTING": "token",
            "NO_GCE_CHECK": "true",
        }
        yield store


@contextlib.contextmanager
def s3() -> Iterator[ObjectStore]:
    """An S3 with one empty bucket."""
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer("127.0.0.1", _free_port(), verbose=False)
    server.start()
    try:
        with _proxy(server.get_host_and_port()[1], _Handler) as (proxy, store):
            store.root = f"s3://{BUCKET}"
            store.environment = {
                "AWS_ENDPOINT_URL": f"http://127.0.0.1:{proxy.server_port}",
                "AWS_ACCESS_KEY_ID": "testing",
                "AWS_SECRET_ACCESS_KEY": "testing",
                "AWS_DEFAULT_REGION": "us-east-1",
                "AWS_MAX_ATTEMPTS": "1",  # s3fs and we try again anyway
            }
            _ask(proxy.server_port, "PUT", f"/{BUCKET}")
            store.reset()
            yield store
    finally:
        server.stop()


STORES = {"gs": gs, "s3": s3}


class _Handler(BaseHTTPRequestHandler):
    """Passes a request on to the server behind, or does what the store's `choose` says."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True  # else 40 ms an answer: its head waits to be acknowledged
    store: ObjectStore
    target: int
    writing: threading.Lock

    def serve(self) -> None:
        body = self._body()
        self.store.requests[self.command] += 1
        self.store.requests[self.command, urllib.parse.unquote(self.path)] += 1
        fault = self.store.choose(self.command, self.path)
        if isinstance(fault, float):
            time.sleep(fault)
        if fault == "reset":
            self._hang_up()
        elif isinstance(fault, int):
            self._answer(fault, {}, b"a fault that was asked for")
        else:
            status, headers, content = self.pass_on(body)
            if fault == "lost":
                self._hang_up()
            else:
                self._answer(status, headers, content, cut=fault == "cut")

    do_GET = do_PUT = do_POST = do_DELETE = do_HEAD = do_PATCH = serve

    def pass_on(self, body: bytes) -> tuple[int, dict[str, str], bytes]:
        headers = {k: v for k, v in self.headers.items() if k.lower() not in _HOP}
        return _ask(self.target, self.command, self.path, body, headers)

    def log_message(self, *args: object) -> None:
        pass

    def _body(self) -> bytes:
        if self.headers.get("Expect", "").lower() == "100-continue":
            self.send_response_only(100)
            self.end_headers()
        if self.headers.get("Transfer-Encoding", "").lower() != "chunked":
            return self.rfile.read(int(self.headers.get("Content-Length") or 0))
        parts = []
        while size := int(self.rfile.readline().split(b";")[0], 16):
            parts.append(self.rfile.read(size))
            self.rfile.readline()
        self.rfile.readline()
        return b"".join(parts)

    def _answer(
        self, status: int, headers: dict[str, str], content: bytes, cut: bool = False
    ) -> None:
        self.send_response(status)
        length = headers.pop("Content-Length", str(len(content)))
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", length)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content[: len(content) // 2] if cut else content)
        if cut:
            self._hang_up()

    def _hang_up(self) -> None:
        self.close_connection = True
        with contextlib.suppress(OSError):
            self.connection.shutdown(socket.SHUT_RDWR)


class _GsHandler(_Handler):
    """Adds what the emulator leaves out: an object's generation, and preconditions on it.

    gcsfs ends the lines around an object by LF alone, of which the emulator, but no Google, takes a
    CR that the object ends with for a part.
    """

    def pass_on(self, body: bytes) -> tuple[int, dict[str, str], bytes]:
        url = urllib.parse.urlsplit(self.path)
        query = dict(urllib.parse.parse_qsl(url.query))
        with self.writing:  # the emulator answers one at a time anyway
            wanted, unwanted = query.get("ifGenerationMatch"), query.get("ifGenerationNotMatch")
            if wanted is not None or unwanted is not None:
                there = self._generation(url.path, query, body)
                if wanted is not None and wanted != there:
                    return 412, {"Content-Type": "application/json"}, b'{"error": {"code": 412}}'
                if unwanted == there:
                    return 304, {}, b""
            framed = body.replace(b"\n--==0==", b"\r\n--==0==")  # the boundary is gcsfs's
            status, headers, content = super().pass_on(framed)
            if status in (200, 206) and query.get("alt") == "media":
                headers["x-goog-generation"] = self._generation(url.path, query, body)
            return status, headers, content

    def _generation(self, path: str, query: dict[str, str], body: bytes) -> str:
        bucket = re.search(r"/b/([^/]+)/o", path)
        assert bucket is not None, path
        name = query.get("name")
        if name is None and "/upload/" in path:
            found = re.search(rb'"name": *("(?:[^"\\]|\\.)*")', body)
            assert found is not None, body[:500]
            name = json.loads(found[1])
        quoted = path.split("/o/", 1)[1] if name is None else urllib.parse.quote(name, safe="")
        status, _, content = _ask(self.target, "GET", f"/storage/v1/b/{bucket[1]}/o/{quoted}")
        return json.loads(content)["generation"] if status == 200 else "0"


def _ask(
    port: int, method: str, path: str, body: bytes = b"", headers: dict[str, str] | None = None
) -> tuple[int, dict[str, str], bytes]:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    connection.request(method, path, body, {**(headers or {}), "Content-Length": str(len(body))})
    answer = connection.getresponse()
    content = answer.read()
    kept = {k: v for k, v in answer.getheaders() if k.lower() not in _HOP}
    if method == "HEAD" and answer.getheader("Content-Length"):
        kept["Content-Length"] = str(answer.getheader("Content-Length"))
    connection.close()
    return answer.status, kept, content


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 1000  # a client may make a hundred connections at once

    def handle_error(self, *_: object) -> None:
        """Says nothing: a client that was killed hangs up, as the faults here do."""


@contextlib.contextmanager
def _proxy(
    target: int, handler: type[_Handler]
) -> Iterator[tuple[ThreadingHTTPServer, ObjectStore]]:
    store = ObjectStore("", {})
    bound = type("Bound", (handler,), dict(store=store, target=target, writing=threading.Lock()))
    server = _Server(("127.0.0.1", 0), bound)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield server, store
    finally:
        server.shutdown()
        server.server_close()


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return server.getsockname()[1]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("store", choices=STORES)
    parser.add_argument("--faults", type=float, default=0.0, help="share of requests that fail")
    args = parser.parse_args()
    with STORES[args.store]() as store:
        store.choose = at_random(args.faults)
        for name, value in store.environment.items():
            print(f"export {name}={shlex.quote(value)}")
        print(f"# {store.root} is served until ctrl-C", flush=True)
        os.environ.update(store.environment)
        with contextlib.suppress(KeyboardInterrupt):
            threading.Event().wait()


if __name__ == "__main__":
    main()
