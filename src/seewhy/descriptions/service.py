"""A writer behind an OpenAI-compatible endpoint: OpenAI, Azure, vLLM, Ollama, llama.cpp and others."""

from __future__ import annotations

import base64
import os
import re
import threading
import time
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any

from ..errors import MissingExtraError
from .llm import Prompt, Writer, WriterError

if TYPE_CHECKING:
    from openai import OpenAI

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

    The client waits and tries again when the service says it is busy (429, 5xx), as long as the service asks for.
    Nothing is sent before the first prompt, and nowhere else than to ``base_url``.

    Args:
        name: the model, as the service calls it.
        base_url: of the service; left out, ``OPENAI_BASE_URL`` or OpenAI itself.
        key_variable: environment variable that holds the key; a local server needs none. The key is in no log, error,
            card or file.
        sees_pictures: whether the model reads pictures.
        structured: whether the service keeps to a JSON schema; otherwise the schema is part of the question.
        per_minute: requests a minute at most; 0 does not hold back.
        timeout_s: for one answer.
        n_retries: when the service is busy.
    """

    name: str
    base_url: str | None = None
    key_variable: str = "OPENAI_API_KEY"
    sees_pictures: bool = True
    structured: bool = True
    per_minute: float = 0.0
    timeout_s: float = 120.0
    n_retries: int = 6
    _pace: Pace = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "_pace", Pace(self.per_minute))

    @property
    def sees(self) -> bool:
        return self.sees_pictures

    @property
    def follows_schema(self) -> bool:
        return self.structured

    @property
    def model(self) -> str:
        return f"{self.name} at {self.base_url or 'OpenAI'}"

    @cached_property
    def _client(self) -> OpenAI:
        try:
            from openai import OpenAI
        except ImportError as error:
            raise MissingExtraError("writers", "A writer behind an endpoint") from error
        key = os.environ.get(self.key_variable)
        if not key and self.base_url is None and not os.environ.get("OPENAI_BASE_URL"):
            raise WriterError(
                f"The service needs a key and {self.key_variable} is not set. A key in the environment was expected. "
                f"Set it, or name your own server with --base-url."
            )
        return OpenAI(api_key=key or "none", base_url=self.base_url, timeout=self.timeout_s, max_retries=self.n_retries)

    def write(self, prompt: Prompt) -> str:
        from openai import OpenAIError

        self._pace.wait()
        try:
            done = self._client.chat.completions.create(model=self.name, **self._asked(prompt))
        except OpenAIError as error:
            raise WriterError(
                f"{self.model} did not answer: {self._without_key(str(error))}. A running service and a model it has "
                "were expected. Check --base-url, --writer and the key."
            ) from None
        if not done.choices or not (said := done.choices[0].message.content):
            raise WriterError(f"{self.model} gave an empty answer. Text was expected. Ask again or raise --max-tokens.")
        return prompt.start + str(said)

    def _asked(self, prompt: Prompt) -> dict[str, Any]:
        """The request, but for the model."""
        parts: list[dict[str, Any]] = [{"type": "text", "text": prompt.user}]
        for image in prompt.images:
            url = f"data:image/jpeg;base64,{base64.b64encode(image).decode()}"
            parts.append({"type": "image_url", "image_url": {"url": url}})
        messages: list[dict[str, Any]] = [{"role": "system", "content": prompt.system}] if prompt.system else []
        messages.append({"role": "user", "content": parts if prompt.images else prompt.user})
        if prompt.start:
            messages.append({"role": "assistant", "content": prompt.start})
        request: dict[str, Any] = {
            "messages": messages,
            "max_tokens": prompt.max_tokens,
            "temperature": prompt.temperature,
            "seed": prompt.seed,
        }
        if prompt.schema is not None and self.structured:
            shape = {"name": "answer", "schema": prompt.schema, "strict": True}
            request["response_format"] = {"type": "json_schema", "json_schema": shape}
        return request

    def _without_key(self, text: str) -> str:
        """A service may repeat the key it refused."""
        key = os.environ.get(self.key_variable, "")
        return _KEYS.sub("(a key)", text.replace(key, "(the key)") if key else text)[:300]
