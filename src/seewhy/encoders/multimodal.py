"""Load multimodal language models as encoders that take instructions: ``mllm:/folder`` with a LLaVA model."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from ..errors import InputError, ModelError, needs
from ..types import Transform
from .base import Encoder, Layout
from .fence import OWN, from_saved, loading
from .huggingface import check_saved, processor_of, transform_of
from .split import Part, Split, example_pixels, fingerprint, freeze, prove, replaced, weights_digest
from .weights import local_folder

LIBRARIES = ("timm", "transformers")
PROMPT = "USER: {picture}\n{instruction} ASSISTANT:"
"""The prompt of LLaVA-1.5; a template in the model's folder is never run."""


def load(name: str, *, engine: str = "auto", prompt: str = PROMPT, **options: Any) -> Encoder:
    """Load a multimodal language model, whose pooled vector is the state of the last token (FocalLens-MLLM).

    The trunk is the image encoder. The head is the language model, which reads the picture's tokens inside the prompt.

    The code and weights of FocalLens (Zhang et al. 2025, arXiv:2504.08368) are not published. Where we differ: the
    model has no contrastive fine-tuning and no text encoder. SeeWhy was tested only with a tiny model with random
    weights.

    Args:
        name: folder written by ``save_pretrained`` with processor and tokenizer.
        engine: engine of the image encoder; ``"auto"`` means torch.
        prompt: template with ``{picture}`` and ``{instruction}``.
        **options: keyword arguments of ``from_pretrained``.
    """
    with needs("huggingface", "transformers"):
        import transformers
    if prompt.count("{picture}") != 1 or prompt.count("{instruction}") != 1:
        raise InputError(f"`prompt` must have {{picture}} and {{instruction}} once each, got {prompt!r}.")
    whole = f"mllm:{name}"
    check_saved(whole, folder := local_folder(whole, Path(name).expanduser()))
    with loading(
        lambda why: ModelError(f"{whole!r} cannot be loaded: {why} Choose a LLaVA model without code of its own.")
    ):
        auto = transformers.AutoModelForImageTextToText
        model, missing = from_saved(auto, whole, folder, **{"dtype": torch.float32, **options})
        tokenizer = transformers.AutoTokenizer.from_pretrained(folder, **OWN)
        transform = transform_of(processor_of(folder, whole), whole)
        reader = Reader(freeze(model).float(), tokenizer, prompt)
        with missing.unread():
            return _encoder(reader, transform, whole, "torch" if engine == "auto" else engine)


def _pictures(core: Any, pixels: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b t d"]:
    """Compute the picture's tokens in the space of word embeddings."""
    found = core.get_image_features(pixel_values=pixels, return_dict=True).pooler_output
    return found if isinstance(found, Tensor) else torch.stack(list(found))


class LastToken(nn.Module):
    """A language model with a fixed prompt that returns the last token's state."""

    before: Tensor
    behind: Tensor

    def __init__(self, language: nn.Module, before: Float[Tensor, "p d"], behind: Float[Tensor, "q d"]) -> None:
        super().__init__()
        self.language = language
        self.register_buffer("before", before)
        self.register_buffer("behind", behind)

    def forward(self, tokens: Float[Tensor, "b t d"]) -> Float[Tensor, "b d"]:
        around = [side.expand(tokens.shape[0], *side.shape) for side in (self.before, self.behind)]
        read = self.language(inputs_embeds=torch.cat([around[0], tokens, around[1]], 1), use_cache=False)
        return read.last_hidden_state[:, -1]


class Reader:
    """A frozen model with its tokenizer and prompt, which makes a head for each instruction."""

    def __init__(self, model: Any, tokenizer: Any, prompt: str) -> None:
        self.model, self.tokenizer, self.prompt = model, tokenizer, prompt
        self.core, self.mark = model.model, int(model.config.image_token_id)
        self.longest = int(getattr(model.config.text_config, "max_position_embeddings", 1 << 30))

    def ids(self, instruction: str) -> tuple[Int[Tensor, " p"], Int[Tensor, " q"]]:
        """Return the token ids before and after the picture."""
        mark = str(self.tokenizer.convert_ids_to_tokens(self.mark))
        if mark in instruction:
            raise InputError(f"The instruction must not contain {mark}, the token of the picture, got {instruction!r}.")
        said = self.prompt.replace("{picture}", mark).replace("{instruction}", instruction)
        found = list(self.tokenizer(said)["input_ids"])
        if found.count(self.mark) != 1:
            raise ModelError(
                f"The tokenizer must read {mark!r} as one picture token, got {found.count(self.mark)}. Save the "
                "model's processor into its folder."
            )
        place = found.index(self.mark)
        return torch.tensor(found[:place], dtype=torch.long), torch.tensor(found[place + 1 :], dtype=torch.long)

    @torch.no_grad()
    def head(self, instruction: str, n_tokens: int) -> tuple[LastToken, Tensor]:
        """Return the head for an instruction and ``n_tokens`` picture tokens, and the prompt's token ids."""
        before, behind = self.ids(instruction)
        n = len(before) + n_tokens + len(behind)
        if n > self.longest:
            raise InputError(
                f"Instruction, prompt and picture must have at most {self.longest:,} tokens, got {n:,}. Shorten the "
                "instruction."
            )
        words = self.core.get_input_embeddings()
        head = LastToken(self.core.language_model, words(before), words(behind))
        freeze(head)
        return head, torch.cat([before, torch.tensor([self.mark]), behind])


def _encoder(reader: Reader, transform: Transform, name: str, engine: str) -> Encoder:
    trunk = freeze(Part(replaced(reader.core, {"language_model": nn.Identity()}), _pictures, "core"))
    pixels = example_pixels(transform.input_size)
    with torch.no_grad():
        n_tokens = trunk(pixels).shape[1]
        before, behind = reader.ids("")
        ids = torch.cat([before, torch.full((n_tokens,), reader.mark), behind])[None]
        # Reference: the transformers library combines picture and text.
        whole = reader.core(input_ids=ids, pixel_values=pixels, attention_mask=torch.ones_like(ids), use_cache=False)
    head = reader.head("", n_tokens)[0]
    patch = int(reader.model.config.vision_config.patch_size)
    height, width = (side // patch for side in transform.input_size)
    layout = Layout("tokens", (height, width), max(0, n_tokens - height * width))  # extra tokens come first
    prove(Split(trunk, head, layout), pixels, whole.last_hidden_state[:, -1], name)
    digest = weights_digest({}, f"{fingerprint(reader.model, transform)}|{reader.prompt}")

    def made(called: str, head: LastToken, key: str, **more: Any) -> Encoder:
        halves, whole = Split(trunk, head, layout), nn.Sequential(trunk, head)
        return halves.encoder(whole, called, transform, fingerprint=key, **more)

    def under(instruction: str) -> Encoder:
        own, ids = reader.head(instruction, n_tokens)
        key = weights_digest({"instruction": ids}, digest)
        return made(f"{name}#{instruction}", own, key, engine=lambda: plain.engine, base=plain)

    plain = made(name, head, digest, engine=engine, conditioned=under)
    return plain
