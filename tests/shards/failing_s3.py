"""An S3 server on loopback that fails one request in so many, in the ways of real ones."""

import random
import threading
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import boto3
import fsspec
import pytest
from moto.server import DomainDispatcherApplication, create_backend_app
from werkzeug.serving import WSGIRequestHandler, make_server

BUCKET = "failing"


class FailingS3:
    """Moto's S3 as a WSGI application; a share of its answers is spoilt.

    Args:
        one_in: how many requests there are to each that fails, on average.
        seed: of the draws; the kinds of failure come in turn.

    Attributes:
        requests: how many came.
        failures: how many were failed, by kind.
    """

    KINDS = ("503 SlowDown", "500 InternalError", "no answer", "cut answer")

    def __init__(self, one_in: int, seed: int = 0) -> None:
        self._moto = DomainDispatcherApplication(create_backend_app)
        self._one_in, self._draw, self._lock = one_in, random.Random(seed), threading.Lock()  # noqa: S311
        self.requests, self.failures = 0, Counter[str]()

    def __call__(self, environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        with self._lock:
            self.requests += 1
            fails = self._draw.randrange(self._one_in) == 0
            kind = self.KINDS[self.failures.total() % len(self.KINDS)] if fails else ""
            if kind:
                self.failures[kind] += 1
        if kind and kind[0].isdigit():
            environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0))
            start_response(kind, [("Content-Type", "application/xml")])
            return [f"<Error><Code>{kind[4:]}</Code><Message>by intent</Message></Error>".encode()]
        if kind == "no answer":
            environ["werkzeug.socket"].shutdown(2)
            raise ConnectionAbortedError(kind)
        answer = self._moto(environ, start_response)
        return _cut(answer, environ["werkzeug.socket"]) if kind else answer


class _Quiet(WSGIRequestHandler):
    def log(self, *_: object) -> None:
        """Prints nothing for a request."""


def _cut(answer: Iterable[bytes], connection: Any) -> Iterator[bytes]:
    """Half of an answer whose header has promised all of it; then the connection ends."""
    whole = b"".join(answer)
    yield whole[: len(whole) // 2]
    connection.shutdown(2)


@contextmanager
def failing_s3(one_in: int, seed: int = 0) -> Iterator[FailingS3]:
    """The server with an empty bucket `BUCKET`; libraries find it by the environment meanwhile."""
    application = FailingS3(one_in, seed)
    server = make_server("127.0.0.1", 0, application, threaded=True, request_handler=_Quiet)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    environment = {
        "AWS_ENDPOINT_URL": f"http://127.0.0.1:{server.server_port}",
        "AWS_ACCESS_KEY_ID": "test",
        "AWS_SECRET_ACCESS_KEY": "test",
        "AWS_DEFAULT_REGION": "us-east-1",
    }
    with pytest.MonkeyPatch.context() as patch:
        for name, value in environment.items():
            patch.setenv(name, value)
        boto3.client("s3").create_bucket(Bucket=BUCKET)
        fsspec.filesystem("s3").clear_instance_cache()
        yield application
    server.shutdown()
    thread.join()
