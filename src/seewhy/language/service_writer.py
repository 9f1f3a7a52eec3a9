"""A writer behind an OpenAI-compatible endpoint: OpenAI, Azure, vLLM, Ollama, llama.cpp, transformers and others.

Each request runs in its own thread with a time limit, because a service that sends one byte at a time never reaches the
client's timeout.
"""

from __future__ import annotations

import base64
import os
import re
import sys
import threading
import time
import weakref
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cached_property
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import quote, quote_plus, urlsplit

from ..errors import InputError, MissingExtraError
from .writers import CutOffError, NoWriterError, Prompt, Writer, WriterError

if TYPE_CHECKING:
    from openai import OpenAI, OpenAIError

T = TypeVar("T")
PARAMETERS = ("max_tokens", "temperature", "seed", "response_format")
"""Optional parameters of a request."""
BUSY = (408, 409, 429, 502, 503, 504, 529)
"""HTTP status codes of a temporarily unavailable service."""
MOST_BYTES = 8_000_000
"""Largest size of an answer in bytes."""
LONGEST_WAIT_S = 60.0
"""Longest ``retry-after`` time in seconds that SeeWhy accepts."""
_KEYS = re.compile(r"\b(?:sk|pk|key|Bearer|Basic)[-_ ][\w\-*.+/=%]{6,}", re.IGNORECASE)
_PIECE = 6


@dataclass(frozen=True)
class ServiceWriter(Writer):
    """A chat model behind an HTTP endpoint, called with the official OpenAI client.

    Nothing is sent before the first prompt, and only to ``base_url``. A busy service (429, 503) is asked again after
    the time that it states. The key appears in no log, error, card or file.

    Args:
        name: name of the model.
        base_url: URL of the service; default: ``OPENAI_BASE_URL`` or OpenAI.
        key_variable: environment variable with the key.
        left_out: request parameters, from :data:`PARAMETERS`, that the service does not support.
        timeout_s: longest time in seconds for an answer, without the waits for a busy service.
        n_retries: largest number of repeated requests.
    """

    sees = True

    name: str
    base_url: str | None = None
    key_variable: str = "OPENAI_API_KEY"
    left_out: tuple[str, ...] = ()
    timeout_s: float = 120.0
    n_retries: int = 6
    _answered: threading.Event = field(default_factory=threading.Event, init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        url = urlsplit("https://openai" if self.base_url is None else self.base_url)
        if url.scheme not in ("http", "https") or not url.hostname:
            raise InputError(f"--base-url must be a URL like http://localhost:11434/v1, got {self.base_url!r}.")
        if url.username or url.password or url.query:  # it is shown in messages and kept beside answers
            raise InputError(
                "--base-url must have no user name and no query, because SeeWhy shows and stores it. Put the key into "
                "an environment variable, and name the variable: --set key_variable=NAME."
            )
        if unknown := [name for name in self.left_out if name not in PARAMETERS]:
            raise InputError(f"--set leave_out must name parameters from {', '.join(PARAMETERS)}, got {unknown[0]!r}.")

    @property
    def follows_schema(self) -> bool:
        return "response_format" not in self.left_out

    @property
    def model(self) -> str:
        without = f" without {', '.join(self.left_out)}" if self.left_out else ""
        return f"{self.name} at {self.base_url or os.environ.get('OPENAI_BASE_URL') or 'OpenAI'}{without}"

    @property
    def _key(self) -> str:
        return os.environ.get(self.key_variable, "")

    @cached_property
    def _client(self) -> OpenAI:
        if find_spec("openai") is None:
            raise MissingExtraError("writers", "A writer behind an endpoint")
        if not self._key and self.base_url is None and not os.environ.get("OPENAI_BASE_URL"):
            raise NoWriterError(
                f"The service needs a key. Set the environment variable {self.key_variable}, or name your own server "
                "with --base-url."
            )
        client = make_client(self._key or "none", self.base_url, self.timeout_s)
        weakref.finalize(self, client.close)
        return client

    def write(self, prompt: Prompt) -> str:
        client = self._client
        from openai import OpenAIError

        choice: Any = None
        text: Any = None
        try:
            choice = self._send(client, self._request(prompt)).choices[0]
            text = "" if choice.message.content is None else choice.message.content
            text.encode()
        except TimeoutError:
            kind = WriterError if self._answered.is_set() else NoWriterError
            raise kind(
                f"{self.model} gave no complete answer within {self.timeout_s:g} seconds. Raise --set timeout, or use "
                "a faster service."
            ) from None
        except (OpenAIError, BrokenRuleError) as error:
            raise self._refusal(error) from None
        except (ValueError, TypeError, AttributeError, KeyError, IndexError, RecursionError):
            text = None  # no JSON, or none that the client could make anything of
        if not isinstance(text, str):
            raise WriterError(
                f"The answer of {self.model} must be a chat completion with text in choices[0].message.content. Check "
                "--base-url, or use another service."
            )
        if not text:
            raise WriterError(f"{self.model} gave an empty answer. Try again, or raise --set max_tokens.")
        if self._key:
            text = text.replace(self._key, "(the key)")
        if getattr(choice, "finish_reason", "") == "length":
            raise CutOffError(self.model, prompt.max_tokens, text)
        return text

    def _send(self, client: OpenAI, request: dict[str, Any]) -> Any:
        """Send a request and repeat it if the service is busy."""
        from openai import APIConnectionError, APIStatusError, APITimeoutError

        left = self.timeout_s
        for attempt in range(self.n_retries + 1):
            start = time.monotonic()
            try:
                completion = within(left, lambda: client.chat.completions.create(**request))
                self._answered.set()
                return completion
            except APITimeoutError:
                raise TimeoutError from None
            except (APIStatusError, APIConnectionError) as error:
                status = getattr(error, "status_code", None)
                broke = self._answered.is_set() and (status is None or status >= 500)
                if attempt == self.n_retries or isinstance(error.__cause__, BrokenRuleError):
                    raise
                if status not in BUSY and not broke:
                    raise
                left -= time.monotonic() - start
                headers: Any = error.response.headers if isinstance(error, APIStatusError) else {}
                pause = min(8.0, 0.5 * 2**attempt)
                with suppress(TypeError, ValueError):
                    asked = float(headers.get("retry-after", ""))
                    pause = asked if 0 <= asked <= LONGEST_WAIT_S else pause
                time.sleep(pause)
        raise AssertionError

    def _refusal(self, error: OpenAIError | BrokenRuleError) -> WriterError:
        """Return the error for a failed request: ``NoWriterError`` if all other requests would fail, too."""
        rule = error if isinstance(error, BrokenRuleError) else error.__cause__
        status, own = getattr(error, "status_code", None), rule if isinstance(rule, BrokenRuleError) else error
        # In one line; a service may repeat the key it refused.
        clean = " ".join("".join(c if c.isprintable() or c.isspace() else "?" for c in str(own)).split())
        message = mask_key(clean, self._key)[:300].rstrip(".")
        if isinstance(rule, BrokenRuleError):
            return NoWriterError(f"SeeWhy stopped asking {self.model}: {message}. Correct --base-url.")
        if status in (400, 422):
            # Some services name the value, not the parameter it was given for.
            named = [p for p in PARAMETERS if p in message or (p == "response_format" and "json_schema" in message)]
            if named := [p for p in named if p not in self.left_out]:
                return NoWriterError(
                    f"{self.model} does not accept {', '.join(named)}: {message}. Add --set "
                    f"leave_out={','.join(named)}, or change the value."
                )
            return WriterError(
                f"{self.model} does not accept the prompt: {message}. Lower --set max_tokens, or use another model."
            )
        hopeless = status in (None, 401, 403, 404) or not self._answered.is_set()
        kind = NoWriterError if hopeless else WriterError
        return kind(f"{self.model} did not answer: {message}. Check --base-url, --writer and the key.")

    def _request(self, prompt: Prompt) -> dict[str, Any]:
        parts: list[dict[str, Any]] = [{"type": "text", "text": prompt.user}]
        for image in prompt.images:
            url = f"data:image/jpeg;base64,{base64.b64encode(image).decode()}"
            parts.append({"type": "image_url", "image_url": {"url": url}})
        messages: list[dict[str, Any]] = [{"role": "system", "content": prompt.system}] if prompt.system else []
        messages.append({"role": "user", "content": parts if prompt.images else prompt.user})
        request: dict[str, Any] = {"model": self.name, "messages": messages}
        request |= {name: getattr(prompt, name) for name in ("max_tokens", "temperature", "seed")}
        if prompt.schema is not None:
            shape = {"name": "answer", "schema": prompt.schema, "strict": True}
            request["response_format"] = {"type": "json_schema", "json_schema": shape}
        return {name: value for name, value in request.items() if name not in self.left_out}


class BrokenRuleError(Exception):
    """A service redirected a request or exceeded the limits on an answer."""


def within(seconds: float, call: Callable[[], T]) -> T:
    """Return the result of a call in a thread of its own, or raise ``TimeoutError`` after ``seconds``."""
    outcome: Future[T] = Future()

    def run() -> None:
        try:
            outcome.set_result(call())
        except BaseException as error:
            outcome.set_exception(error)

    threading.Thread(target=run, name="seewhy-writer", daemon=True).start()
    return outcome.result(max(0.0, seconds))


def make_client(key: str, base_url: str | None, timeout_s: float) -> OpenAI:
    """Return the official client without retries or redirects, with limits on the size and time of an answer."""
    from openai import DefaultHttpxClient, OpenAI

    def before_reading(response: Any) -> None:
        if response.has_redirect_location:
            raise BrokenRuleError(f"it redirects the request to {response.headers['location']}")
        if response.headers.get("content-encoding", "identity").lower() not in ("", "identity"):
            raise BrokenRuleError("its answer is compressed, although the request forbids it")
        response.stream = _bounded(response.stream, time.monotonic() + timeout_s + 1)  # left to itself by then

    return OpenAI(
        api_key=key,
        base_url=base_url,
        timeout=timeout_s,
        max_retries=0,
        http_client=DefaultHttpxClient(follow_redirects=False, event_hooks={"response": [before_reading]}),
        default_headers={"Accept-Encoding": "identity"},
    )


def _bounded(stream: Any, until: float) -> Any:
    """Return the stream with limits on its bytes and time."""
    package = sys.modules[type(stream).__module__.partition(".")[0]]

    class Bounded(package.SyncByteStream):  # type: ignore[name-defined]
        def __iter__(self) -> Iterator[bytes]:
            n_bytes = 0
            for chunk in stream:
                n_bytes += len(chunk)
                if n_bytes > MOST_BYTES:
                    raise BrokenRuleError(f"its answer has more than {MOST_BYTES:,} bytes")
                if time.monotonic() > until:
                    raise BrokenRuleError("its answer comes too slowly")
                yield chunk

        def close(self) -> None:
            stream.close()

    return Bounded()


def mask_key(text: str, key: str) -> str:
    """Replace the key in a text, including its URL and header encodings and its fragments."""
    if key:
        forms = {key, quote(key, safe=""), quote_plus(key), base64.b64encode(key.encode()).decode()}
        forms |= {base64.b64encode(f":{key}".encode()).decode(), repr(key)[1:-1]}
        for form in sorted(forms, key=len, reverse=True):
            text = text.replace(form, "(the key)")
        # Runs of six signs or more of the key, in either case of letters.
        pieces = {key[i : i + _PIECE].lower() for i in range(len(key) - _PIECE + 1)}
        low, hidden = text.lower(), [False] * len(text)
        if len(low) == len(text):
            for i in range(len(text) - _PIECE + 1):
                if low[i : i + _PIECE] in pieces:
                    hidden[i : i + _PIECE] = [True] * _PIECE
        shown = "".join("\0" if hide else sign for sign, hide in zip(text, hidden, strict=True))
        text = re.sub("\0+", "(the key)", shown)
    return _KEYS.sub("(a key)", text)
