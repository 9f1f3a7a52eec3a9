"""A writer behind an OpenAI-compatible endpoint: OpenAI, Azure, vLLM, Ollama, llama.cpp, transformers and others."""

from __future__ import annotations

import base64
import os
import re
import threading
import time
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from ..errors import InputError, MissingExtraError
from .llm import CutOffError, NoWriterError, Prompt, Writer, WriterError

if TYPE_CHECKING:
    from openai import OpenAI, OpenAIError

PARAMETERS = ("max_tokens", "temperature", "seed", "response_format")
"""Of a request, beside model and messages; not every service takes all."""
BUSY = (408, 409, 429, 502, 503, 504, 529)
"""What a service answers that will soon be there again."""
_KEYS = re.compile(r"\b(?:sk|pk|key|Bearer)[-_ ][\w\-*.]{6,}", re.IGNORECASE)


class Pace:
    """Lets at most so many requests through a minute.

    Args:
        per_minute: how many; 0 lets all through.
    """

    def __init__(self, per_minute: float) -> None:
        self.gap = 60 / per_minute if per_minute else 0.0
        self._next = 0.0
        self._lock = threading.Lock()

    def wait(self) -> None:
        """Return when the next request may go."""
        with self._lock:
            now = time.monotonic()
            start = max(now, self._next)
            self._next = start + self.gap
        time.sleep(max(0.0, start - now))


@dataclass(frozen=True)
class ServiceWriter(Writer):
    """Asks a chat model over HTTP, through the official client.

    The client waits and tries again when the service says it is busy (429, 503), as long as the service asks for. After
    a first answer it does so too when a connection breaks or the service fails; before it, that ends the run.
    Nothing is sent before the first prompt, and nowhere else than to ``base_url``.

    Args:
        name: the model, as the service calls it.
        base_url: of the service; left out, ``OPENAI_BASE_URL`` or OpenAI itself.
        key_variable: environment variable that holds the key; a local server needs none. The key is in no log, error,
            card or file.
        sees_pictures: whether the model reads pictures.
        left_out: parameters of :data:`PARAMETERS` that are not sent, since the service refuses them. Without
            ``response_format`` the JSON schema of an answer is part of the question.
        per_minute: requests a minute at most; 0 does not hold back.
        timeout_s: for one answer.
        n_retries: when the service is busy.

    Raises:
        InputError: the URL is none, or holds a key; a parameter to leave out is unknown.
    """

    name: str
    base_url: str | None = None
    key_variable: str = "OPENAI_API_KEY"
    sees_pictures: bool = True
    left_out: tuple[str, ...] = ()
    per_minute: float = 0.0
    timeout_s: float = 120.0
    n_retries: int = 6
    _pace: Pace = field(init=False, repr=False, compare=False)
    _answered: threading.Event = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        if self.base_url is not None:
            _check_url(self.base_url)
        unknown = [name for name in self.left_out if name not in PARAMETERS]
        if unknown:
            raise InputError(
                f"{unknown[0]!r} was to be left out of requests. One of {', '.join(PARAMETERS)} was expected. "
                "Correct --leave-out."
            )
        object.__setattr__(self, "_pace", Pace(self.per_minute))
        object.__setattr__(self, "_answered", threading.Event())

    @property
    def sees(self) -> bool:
        return self.sees_pictures

    @property
    def follows_schema(self) -> bool:
        return "response_format" not in self.left_out

    @property
    def model(self) -> str:
        without = f" without {', '.join(self.left_out)}" if self.left_out else ""
        return f"{self.name} at {self.base_url or os.environ.get('OPENAI_BASE_URL') or 'OpenAI'}{without}"

    @cached_property
    def _client(self) -> OpenAI:
        try:
            from openai import OpenAI
        except ImportError as error:
            raise MissingExtraError("writers", "A writer behind an endpoint") from error
        key = os.environ.get(self.key_variable)
        if not key and self.base_url is None and not os.environ.get("OPENAI_BASE_URL"):
            raise NoWriterError(
                f"The service needs a key and {self.key_variable} is not set. A key in the environment was expected. "
                f"Set it, or name your own server with --base-url."
            )
        return OpenAI(api_key=key or "none", base_url=self.base_url, timeout=self.timeout_s, max_retries=self.n_retries)

    def write(self, prompt: Prompt) -> str:
        from openai import OpenAIError

        self._pace.wait()
        try:
            done = self._send({"model": self.name, **self._asked(prompt)})
        except OpenAIError as error:
            raise self._refusal(error) from None
        except ValueError:
            done = None  # no JSON
        choices = getattr(done, "choices", None)
        if not choices or not (said := choices[0].message.content):
            raise WriterError(f"{self.model} gave an empty answer. Text was expected. Ask again or raise --max-tokens.")
        if choices[0].finish_reason == "length":
            raise CutOffError(self.model, prompt.max_tokens, str(said))
        return str(said)

    def _send(self, request: dict[str, Any]) -> Any:
        """What comes back. Until there was an answer, only what says that it is busy is asked again."""
        from openai import APIStatusError

        if not self._answered.is_set():
            try:
                done = self._client.with_options(max_retries=0).chat.completions.create(**request)
            except APIStatusError as error:
                if error.status_code not in BUSY:
                    raise
                done = self._client.chat.completions.create(**request)
            self._answered.set()
            return done
        return self._client.chat.completions.create(**request)

    def _refusal(self, error: OpenAIError) -> WriterError:
        """What stopped an answer; whether it would stop all others too decides what is raised."""
        said, status = self._without_key(str(error)).rstrip("."), getattr(error, "status_code", None)
        if status in (400, 422):
            # Some services name the value, not the parameter it was given for.
            named = [p for p in PARAMETERS if p in said or (p == "response_format" and "json_schema" in said)]
            if named := [p for p in named if p not in self.left_out]:
                return NoWriterError(
                    f"{self.model} refuses a parameter: {said}. A service that takes {', '.join(named)} was expected. "
                    f"Add --leave-out {','.join(named)}, or change it."
                )
            return WriterError(
                f"{self.model} refuses the question: {said}. One that it takes was expected. Lower --max-tokens, or "
                "take another model."
            )
        hopeless = status in (None, 401, 403, 404) or not self._answered.is_set()
        kind = NoWriterError if hopeless else WriterError
        return kind(
            f"{self.model} did not answer: {said}. A running service and a model it has were expected. "
            "Check --base-url, --writer and the key."
        )

    def _asked(self, prompt: Prompt) -> dict[str, Any]:
        """The request, but for the model."""
        parts: list[dict[str, Any]] = [{"type": "text", "text": prompt.user}]
        for image in prompt.images:
            url = f"data:image/jpeg;base64,{base64.b64encode(image).decode()}"
            parts.append({"type": "image_url", "image_url": {"url": url}})
        messages: list[dict[str, Any]] = [{"role": "system", "content": prompt.system}] if prompt.system else []
        messages.append({"role": "user", "content": parts if prompt.images else prompt.user})
        request: dict[str, Any] = {
            "messages": messages,
            "max_tokens": prompt.max_tokens,
            "temperature": prompt.temperature,
            "seed": prompt.seed,
        }
        if prompt.schema is not None:
            shape = {"name": "answer", "schema": prompt.schema, "strict": True}
            request["response_format"] = {"type": "json_schema", "json_schema": shape}
        return {name: value for name, value in request.items() if name not in self.left_out}

    def _without_key(self, text: str) -> str:
        """A service may repeat the key it refused."""
        key = os.environ.get(self.key_variable, "")
        return _KEYS.sub("(a key)", text.replace(key, "(the key)") if key else text)[:300]


def _check_url(url: str) -> None:
    """The place is shown in messages and kept beside answers, so no key may be in it."""
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise InputError(f"{url!r} was given as --base-url. A URL like http://localhost:11434/v1 was expected.")
    if parts.username or parts.password or parts.query:
        raise InputError(
            "--base-url was given with a user's name or a query in it. A bare URL was expected, since it is shown and "
            "kept. Put the key into the environment and name its variable with --key-variable."
        )
