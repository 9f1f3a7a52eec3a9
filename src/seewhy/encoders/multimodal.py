"""Multimodal language models as encoders that take instructions: ``mllm:/folder``, with a LLaVA in it."""

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
from .split import Part, Split, example_pixels, fingerprint, freeze, in_single, prove, replaced, weights_digest
from .weights import local_folder

PROMPT = "USER: {picture}\n{instruction} ASSISTANT:"
"""LLaVA-1.5's. A template in the model's folder is a program, and is not run."""


def load(name: str, *, engine: str = "auto", prompt: str = PROMPT, **options: Any) -> Encoder:
    """A language model that reads pictures; a picture under an instruction is the state of the last token
    (FocalLens-MLLM).

    The trunk is the picture's half, pixels → tokens among those of words; the head reads them between the words of the
    prompt. So each picture is encoded once, and each instruction costs one pass of the language model.

    FocalLens (Zhang et al. 2025, arXiv:2504.08368) maps this state into the space of a text encoder and tunes all of it
    by contrastive learning; the authors published neither code nor weights. Here the model is used as it was saved,
    without a text half, from a folder written by ``save_pretrained`` with processor and tokenizer. SeeWhy has run it
    only with tiny random weights.
    """
    with needs("huggingface", "transformers"):
        import transformers
    if prompt.count("{picture}") != 1 or prompt.count("{instruction}") != 1:
        raise InputError(
            f"The prompt {prompt!r} was given. Expected {{picture}} and {{instruction}}, once each. Add them."
        )
    whole = f"mllm:{name}"
    check_saved(whole, folder := local_folder(whole, Path(name).expanduser()))
    with loading(
        lambda why: ModelError(
            f"{whole!r} cannot be loaded: {why} Expected a LLaVA, or a model that reads pictures of one size as LLaVA "
            "does. SeeWhy never runs code from a repository. Choose another model."
        )
    ):
        auto = transformers.AutoModelForImageTextToText
        model, missing = from_saved(auto, whole, folder, **{"dtype": torch.float32, **options})
        tokenizer = transformers.AutoTokenizer.from_pretrained(folder, **OWN)
        transform = transform_of(processor_of(folder, whole), whole)
        reader = Reader(in_single(freeze(model)), tokenizer, prompt)
        with missing.unread():
            return _encoder(reader, transform, whole, "torch" if engine == "auto" else engine)


def _pictures(core: Any, pixels: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b t d"]:
    """Pixels → the picture's tokens, as wide as those of words."""
    found = core.get_image_features(pixel_values=pixels, return_dict=True).pooler_output
    return found if isinstance(found, Tensor) else torch.stack(list(found))


class LastToken(nn.Module):
    """Put the picture's tokens between the vectors of words, and return the last layer's state of the last token."""

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
        state: Tensor = read.last_hidden_state[:, -1]
        return state


class Reader:
    """A frozen model with its tokenizer and prompt; it makes one head per instruction."""

    def __init__(self, model: Any, tokenizer: Any, prompt: str) -> None:
        self.model, self.tokenizer, self.prompt = model, tokenizer, prompt
        self.core, self.mark = model.model, int(model.config.image_token_id)
        self.longest = int(getattr(model.config.text_config, "max_position_embeddings", 1 << 30))

    def ids(self, instruction: str) -> tuple[Int[Tensor, " p"], Int[Tensor, " q"]]:
        """Ids of the tokens before the picture and after it."""
        mark = str(self.tokenizer.convert_ids_to_tokens(self.mark))
        if mark in instruction:
            raise InputError(
                f"The instruction {instruction!r} holds {mark}, which stands for the picture. Expected only words. "
                "Leave it out."
            )
        said = self.prompt.replace("{picture}", mark).replace("{instruction}", instruction)
        found = list(self.tokenizer(said)["input_ids"])
        if found.count(self.mark) != 1:
            raise ModelError(
                f"The tokenizer reads {mark!r} as {found.count(self.mark)} marks of a picture's place. Expected one. "
                "Save the model's processor into its folder."
            )
        place = found.index(self.mark)
        return torch.tensor(found[:place], dtype=torch.long), torch.tensor(found[place + 1 :], dtype=torch.long)

    @torch.no_grad()
    def head(self, instruction: str, n_tokens: int) -> tuple[LastToken, Tensor]:
        """The head that reads pictures of this many tokens under an instruction, and the ids of all its words."""
        before, behind = self.ids(instruction)
        n = len(before) + n_tokens + len(behind)
        if n > self.longest:
            raise InputError(
                f"The instruction makes {n:,} tokens with the prompt and the picture, and the model reads "
                f"{self.longest:,}. Expected a shorter one. Cut it."
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
        # As transformers puts picture and words together.
        whole = reader.core(input_ids=ids, pixel_values=pixels, attention_mask=torch.ones_like(ids), use_cache=False)
    head = reader.head("", n_tokens)[0]
    patch = int(reader.model.config.vision_config.patch_size)
    height, width = (side // patch for side in transform.input_size)
    layout = Layout("tokens", (height, width), max(0, n_tokens - height * width))  # what is left over stands before
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
