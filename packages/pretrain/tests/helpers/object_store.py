"""A real S3 server on loopback, and a proxy before it that counts requests and makes them fail as they are told to."""

import http.client
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import boto3
from moto.server import ThreadedMotoServer

KEY, SECRET = "test-key-id", "test-secret-of-nobody"
CREDENTIALS = {"AWS_ACCESS_KEY_ID": KEY, "AWS_SECRET_ACCESS_KEY": SECRET, "AWS_DEFAULT_REGION": "us-east-1"}
SLOW_DOWN = b'<?xml version="1.0"?><Error><Code>SlowDown</Code><Message>Reduce your request rate.</Message></Error>'
DENIED = b'<?xml version="1.0"?><Error><Code>AccessDenied</Code><Message>Access Denied</Message></Error>'
GONE = b'<?xml version="1.0"?><Error><Code>NoSuchKey</Code><Message>The key does not exist.</Message></Error>'


@contextmanager
def s3_server() -> Iterator[str]:
    """moto's server; the endpoint's URL."""
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    try:
        yield f"http://{host}:{port}"
    finally:
        server.stop()


def client(endpoint: str):
    """A client of boto3, which shares no code with s3fs."""
    return boto3.client(
        "s3", endpoint_url=endpoint, aws_access_key_id=KEY, aws_secret_access_key=SECRET, region_name="us-east-1"
    )


@dataclass(frozen=True)
class Seen:
    """One request that came by."""

    method: str
    path: str
    span: str | None
    """Range of bytes, as the header had it."""


@dataclass
class Proxy:
    """Passes requests on, unless `fault` says otherwise; counts all."""

    endpoint: str = ""
    seen: list[Seen] = field(default_factory=list)
    num_bytes: int = 0
    fault: "Callable[[Seen, int], str | None]" = lambda request, number: None
    """From a request, and how many of this method and path came before it, to a fault or None: "503", "500", "403",
    "404", "reset" and "cut" (in the middle of the body), "short" (half the body, said to be all), "hang", or "slow:S"
    (after S seconds)."""
    stopping: threading.Event = field(default_factory=threading.Event)

    def begin_anew(self, fault: "Callable[[Seen, int], str | None]" = lambda request, number: None) -> None:
        self.fault = fault
        self.seen.clear()
        self.num_bytes = 0

    def gets(self, name: str = "") -> list[Seen]:
        return [one for one in self.seen if one.method == "GET" and one.path.endswith(name)]


@contextmanager
def proxy_before(upstream: str) -> Iterator[Proxy]:
    """A proxy on loopback; all its threads end with the `with`."""
    proxy = Proxy()
    host = upstream.removeprefix("http://")

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            span = self.headers.get("Range")
            request = Seen(self.command, self.path.partition("?")[0], span)
            before = sum((one.method, one.path) == (request.method, request.path) for one in proxy.seen)
            proxy.seen.append(request)
            fault = proxy.fault(request, before)
            if fault is not None and _failed(self, fault, proxy):
                return
            connection = http.client.HTTPConnection(host, timeout=30)
            connection.request(self.command, self.path, headers=dict(self.headers))
            answer = connection.getresponse()
            body = answer.read()
            connection.close()
            proxy.num_bytes += len(body)
            _pass_on(self, answer, body, fault)

        do_HEAD = do_GET  # noqa: N815

        def log_message(self, *arguments) -> None:
            """Nothing is printed."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    server.handle_error = lambda *arguments: None  # the client hung up
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    proxy.endpoint = f"http://127.0.0.1:{server.server_address[1]}"
    try:
        yield proxy
    finally:
        proxy.stopping.set()
        server.shutdown()
        server.server_close()
        thread.join()


def _failed(handler: BaseHTTPRequestHandler, fault: str, proxy: Proxy) -> bool:
    """Act a fault that needs no answer of the server; whether it was one."""
    if fault.startswith("slow:"):
        time.sleep(float(fault.removeprefix("slow:")))
        return False
    if fault == "hang":
        proxy.stopping.wait(60)
        handler.close_connection = True
        return True
    bodies = {"503": SLOW_DOWN, "500": b"", "403": DENIED, "404": GONE}
    if fault not in bodies:
        return False
    body = b"" if handler.command == "HEAD" else bodies[fault]
    handler.send_response(int(fault))
    handler.send_header("Content-Type", "application/xml")
    handler.send_header("Content-Length", str(len(body)))
    handler.end_headers()
    handler.wfile.write(body)
    return True


def _pass_on(handler: BaseHTTPRequestHandler, answer: http.client.HTTPResponse, body: bytes, fault: str | None) -> None:
    handler.send_response(answer.status)
    left_out = {"transfer-encoding", "connection", "date", "server"}
    if fault == "short":
        body = body[: len(body) // 2]
        left_out |= {"content-length", "x-amz-checksum-crc32", "x-amz-checksum-crc64nvme", "x-amz-checksum-sha1"}
        handler.send_header("Content-Length", str(len(body)))
    for name, value in answer.getheaders():
        if name.lower() not in left_out:
            handler.send_header(name, value)
    handler.end_headers()
    if handler.command == "HEAD":
        return
    if fault in ("reset", "cut"):
        handler.wfile.write(body[: len(body) // 2])
        handler.wfile.flush()
        if fault == "reset":  # with data unsent and no time to linger, closing sends RST
            handler.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        handler.close_connection = True
        handler.connection.close() if fault == "reset" else handler.connection.shutdown(socket.SHUT_WR)
        return
    handler.wfile.write(body)
