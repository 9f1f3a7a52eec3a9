"""What writes: one small interface, and a session that keeps answers and asks again where one is not as asked for."""

from __future__ import annotations

import hashlib
import json
import sqlite3
import threading
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, TypeVar

from ..errors import DataError, ForeignFileError, InputError, SeeWhyError
from ..progress import Progress
from ..storage.cache import cache_dir
from ..storage.database import DatabaseKind, connect, memory

_SCHEMA = """
CREATE TABLE IF NOT EXISTS answers (
    key TEXT PRIMARY KEY, model TEXT NOT NULL, prompt TEXT NOT NULL, answer TEXT NOT NULL
) WITHOUT ROWID;
"""
ANSWERS = DatabaseKind("a file of writers' answers", 0x53577772, _SCHEMA, earlier=(_SCHEMA,))


class Written:
    """A database of answers; several processes may use it at once."""

    def __init__(self, path: str | Path | None = None) -> None:
        self.path = str(path) if path else str(cache_dir() / "written.sqlite")
        self._lock = threading.Lock()
        try:
            self._db = memory(ANSWERS) if self.path == ":memory:" else connect(Path(self.path), ANSWERS, timeout=60)
        except ForeignFileError as error:
            raise self._trouble("it is damaged, or not of SeeWhy's") from error
        except (OSError, sqlite3.Error) as error:
            raise self._trouble(error) from error

    def get(self, key: str) -> str | None:
        """What was answered, if anything was."""
        try:
            with self._lock:
                row = self._db.execute("SELECT answer FROM answers WHERE key = ?", (key,)).fetchone()
        except sqlite3.Error as error:
            raise self._trouble(error) from error
        return None if row is None else str(row[0])

    def put(self, key: str, model: str, prompt: str, answer: str) -> None:
        """Keep an answer; it is on disk when this returns."""
        row = (key, model, *(text.encode("utf-8", "replace").decode() for text in (prompt, answer)))
        try:
            with self._lock, self._db:
                self._db.execute("INSERT OR REPLACE INTO answers VALUES (?, ?, ?, ?)", row)
        except sqlite3.Error as error:
            raise self._trouble(error) from error

    def _trouble(self, error: Exception | str) -> DataError:
        return DataError(
            f"Answers cannot be kept in {self.path}: {error}. A place that can be written to was expected. "
            "Free some space, or set SEEWHY_CACHE to another folder."
        )


T = TypeVar("T")


@dataclass(frozen=True)
class Prompt:
    """What a writer is asked."""

    user: str
    system: str = ""
    images: tuple[bytes, ...] = field(default=(), repr=False)
    max_tokens: int = 300
    temperature: float = 0.0
    seed: int = 0
    schema: dict[str, Any] | None = field(default=None, hash=False)

    def key(self, model: str) -> str:
        """Names this prompt to this model; 64 hexadecimal digits."""
        said = {**asdict(self), "images": [hashlib.sha256(image).hexdigest() for image in self.images]}
        return hashlib.sha256(json.dumps([model, said], sort_keys=True).encode("utf-8", "surrogatepass")).hexdigest()

    @property
    def n_tokens(self) -> int:
        """Tokens of the question, guessed: four characters each, 765 a picture, which is OpenAI's for 1,024 pixels."""
        return len(self.system + self.user) // 4 + 765 * len(self.images)


class WriterError(SeeWhyError):
    """A writer did not answer, or not with what was asked for."""


class NoWriterError(WriterError):
    """There is nobody to ask: no key, no service, no such model. The next question would fail in the same way."""


class CutOffError(WriterError):
    """An answer ended at its limit."""

    def __init__(self, model: str, max_tokens: int, answer: str) -> None:
        self.answer = answer
        super().__init__(
            f"The answer of {model} was cut off after {max_tokens} tokens. A whole one was expected. "
            "Raise --max-tokens."
        )


class Writer(ABC):
    """Answers prompts."""

    @property
    @abstractmethod
    def sees(self) -> bool:
        """Whether it can be shown pictures."""

    @property
    @abstractmethod
    def follows_schema(self) -> bool:
        """Whether it keeps to a JSON schema by itself; where it does not, the schema is part of the question."""

    @property
    @abstractmethod
    def model(self) -> str:
        """Names the model and whatever else decides an answer; part of the key an answer is kept under."""

    @abstractmethod
    def write(self, prompt: Prompt) -> str:
        """The answer."""


@dataclass(frozen=True)
class Estimate:
    """What a run would ask for."""

    n_prompts: int
    n_known: int
    tokens_in: int
    tokens_out: int

    def cost(self, price_in: float, price_out: float) -> float:
        """At these prices for a million tokens, at most."""
        return (self.tokens_in * price_in + self.tokens_out * price_out) / 1e6


class WriterSession:
    """Puts prompts to a writer, keeps what it answers, and asks again where an answer is not what was asked for."""

    def __init__(
        self,
        writer: Writer,
        written: Written,
        n_tries: int = 3,
        *,
        max_tokens: int | None = None,
        progress: Progress | None = None,
    ) -> None:
        self.writer = writer
        self.written = written
        self.n_tries = n_tries
        self.max_tokens = max_tokens
        self.progress = progress or Progress()

    def as_asked(self, prompt: Prompt) -> Prompt:
        """The prompt as the writer gets it: its schema in words, where it keeps to none by itself."""
        if self.max_tokens is not None:
            prompt = replace(prompt, max_tokens=self.max_tokens)
        return prompt if self.writer.follows_schema else _in_words(prompt)

    def estimate(self, prompts: Iterable[Prompt]) -> Estimate:
        """What :meth:`ask` would cost; nobody is asked."""
        by_key = {prompt.key(self.writer.model): prompt for prompt in map(self.as_asked, prompts)}
        left = [prompt for key, prompt in by_key.items() if self.written.get(key) is None]
        return Estimate(
            len(by_key), len(by_key) - len(left), sum(p.n_tokens for p in left), sum(p.max_tokens for p in left)
        )

    def ask(self, prompt: Prompt, read: Callable[[str], T]) -> T:
        """The answer, read.

        A writer that was sent a schema and answers with no JSON at all is asked again with the schema in words. Of an
        answer that was cut off, what is whole is taken, unless it was to be JSON. The progress is told of both.
        """
        if prompt.images and not self.writer.sees:
            raise InputError(
                f"{self.writer.model} was given a picture and reads words only. A writer that sees was expected. "
                "Name one with --writer, for example a vision model behind --base-url."
            )
        prompt = asked = self.as_asked(prompt)
        reason = ""
        for attempt in range(self.n_tries):
            answer = self._answer(asked)
            try:
                return read(answer)
            except ValueError as error:
                reason = str(error)
            if attempt == 0 and prompt.schema is not None and self.writer.follows_schema and not _is_json(answer):
                self._tell(
                    f"{self.writer.model} did not keep to the JSON schema it was sent; it is asked again with the "
                    "schema in words. --leave-out response_format asks so at once"
                )
                prompt = _in_words(prompt)
            asked = _again(prompt, reason, attempt + 1)
        raise WriterError(
            f"{self.writer.model} answered {self.n_tries} times and never as asked: {reason}. Another answer was "
            "expected. Take a larger model, or write these descriptions by hand."
        )

    def ask_all(self, questions: Iterable[tuple[Prompt, Callable[[str], T]]]) -> Iterator[T | WriterError]:
        """Answers as a stream, in order; one that cannot be had is its error, and the others go on."""
        for prompt, read in questions:
            try:
                yield self.ask(prompt, read)
            except NoWriterError:
                raise
            except WriterError as error:
                yield error

    def _answer(self, asked: Prompt) -> str:
        """From disk, or from the writer and then kept."""
        key = asked.key(self.writer.model)
        answer = self.written.get(key)
        if answer is None:
            try:
                answer = self.writer.write(asked)
            except CutOffError as error:
                answer = _whole(error.answer)
                if not answer or asked.schema is not None:
                    raise
                self._tell(f"{error} Until then the part that is whole is taken")
            self.written.put(key, self.writer.model, asked.user, answer)
        return answer

    def _tell(self, note: str) -> None:
        """Once a run."""
        if note not in self.progress.notes:
            self.progress.note(note)


def _in_words(prompt: Prompt) -> Prompt:
    """The question with its schema, if it has one, in words."""
    if prompt.schema is None:
        return prompt
    shape = json.dumps(prompt.schema, ensure_ascii=False)
    return replace(prompt, user=f"{prompt.user}\n\nAnswer with JSON alone, of this schema: {shape}")


def _whole(answer: str) -> str:
    """What stands before the last line break or end of a sentence; before the last comma, where there are neither.

    >>> _whole("- red beak\\n- bla"), _whole("A red bird. It si"), _whole("red, blu"), _whole("red")
    ('- red beak', 'A red bird.', 'red', '')
    """
    end = max(answer.rfind("\n"), answer.rfind(". ") + 1)
    return answer[: end if end > 0 else max(0, answer.rfind(","))].strip()


def _is_json(answer: str) -> bool:
    try:
        json.loads(answer)
    except ValueError:
        return False
    return True


def _again(prompt: Prompt, reason: str, attempt: int) -> Prompt:
    """The same question with what was wrong about the last answer, from other random numbers."""
    hint = f"{prompt.user}\n\nYour last answer could not be used: {reason}. Answer again, exactly as asked."
    return replace(prompt, user=hint, seed=prompt.seed + attempt, temperature=max(prompt.temperature, 0.3))
