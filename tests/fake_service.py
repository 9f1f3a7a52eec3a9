"""An OpenAI-compatible service on this machine that answers what a test tells it to."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


@dataclass(frozen=True)
class Refusal:
    """An HTTP status with a message."""

    status: int
    message: str


class Cut(str):
    """An answer that ended at its limit."""


class Raw(str):
    """What is sent as it stands, with a success."""


Answer = Callable[[dict[str, Any]], "str | int | Refusal"]
"""A request's JSON → the text of the answer, or what it is refused with."""


class Service(ThreadingHTTPServer):
    """Keeps every request it got."""

    def __init__(self, answer: Answer) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.answer = answer
        self.requests: list[dict[str, Any]] = []
        self.keys: list[str] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}/v1"


class _Handler(BaseHTTPRequestHandler):
    server: Service

    def do_POST(self) -> None:
        request = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.server.requests.append(request)
        self.server.keys.append(self.headers.get("Authorization", ""))
        said = self.server.answer(request)
        if isinstance(said, int):
            said = Refusal(said, f"Incorrect key provided: {self.server.keys[-1]}")
        if isinstance(said, Refusal):
            self._send(said.status, {"error": {"message": said.message, "type": "x"}})
            return
        if isinstance(said, Raw):
            self._send(200, said)
            return
        message = {"role": "assistant", "content": said}
        choice = {"index": 0, "finish_reason": "length" if isinstance(said, Cut) else "stop", "message": message}
        about = {"id": "1", "object": "chat.completion", "created": 0, "model": request["model"], "choices": [choice]}
        self._send(200, about)

    def _send(self, status: int, body: dict[str, Any] | Raw) -> None:
        data = (body if isinstance(body, Raw) else json.dumps(body)).encode()
        self.send_response(status)
        self.send_header("Content-Type", "text/html" if data.startswith(b"<") else "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.send_header("Retry-After", "0")
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *_: Any) -> None:
        pass


@contextmanager
def serving(answer: Answer) -> Iterator[Service]:
    """The service while the block runs."""
    service = Service(answer)
    thread = threading.Thread(target=service.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    try:
        yield service
    finally:
        service.shutdown()
        service.server_close()
        thread.join()
