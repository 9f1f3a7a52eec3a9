"""An encoder whose words half reads every name behind a learnt prompt: for its own classes, and for any others."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Self

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import normalize

from ...classifiers.base import Classifier
from ...classifiers.network import Network
from ...classifiers.zero_shot import ZeroShot
from ...encoders.base import Encoder, TrainableText
from ...encoders.delta import seeing_the_same
from ...encoders.split import freeze, weights_digest
from .prompts import CommonPrompt, Names, Prompt, SharedPrompt, as_it_was, mixed, opened

BATCH = 64
"""Names read at once."""


class PromptedText:
    """The words half of an encoder, every text behind the prompt.

    Args:
        tower: the encoder's own.
        prompt: what was learnt.
        keep: how much it counts beside the encoder's own templates.
        fingerprint: of all of these.
    """

    templates: tuple[str, ...] = ("{}",)

    def __init__(self, tower: TrainableText, prompt: CommonPrompt, keep: float, fingerprint: str) -> None:
        self.tower, self.prompt, self.keep = tower, prompt, keep
        self.fingerprint = fingerprint
        self.logit_scale = tower.logit_scale

    @torch.no_grad()
    def encode_text(self, texts: Sequence[str]) -> Float[Tensor, "n d"]:
        if not len(texts):
            return self.tower.encode_text(texts)
        before = as_it_was(self.tower, texts) if self.keep < 1 else None
        if not self.keep and before is not None:
            return before
        parts = [Names(self.tower, texts[i : i + BATCH]) for i in range(0, len(texts), BATCH)]
        now = torch.cat([self.prompt.read(names) for names in parts])
        return now if before is None else mixed(now, before, self.keep)

    def project(self, pooled: Float[Tensor, "b p"]) -> Float[Tensor, "b d"]:
        return self.tower.project(pooled)


@dataclass(frozen=True, eq=False)
class PromptNetwork(Network):
    """An encoder and a prompt that was learnt for it.

    Attributes:
        on: the encoder.
        prompt: what was learnt, frozen.
        keep: how much of it is kept, 0 to 1.
        recipe: registered name of what learnt it.
        parameters: its fields.
    """

    where: ClassVar[str] = "grad_cam"

    on: Encoder
    prompt: Prompt
    keep: float
    recipe: str
    parameters: Mapping[str, Any]

    @property
    def base(self) -> Encoder:
        return self.on

    def untrained(self) -> Self:
        return replace(self, keep=0.0)

    def tensors(self) -> dict[str, Tensor]:
        return {name: t.detach().cpu() for name, t in self.prompt.state_dict().items()}


@dataclass(frozen=True, eq=False)
class PromptedNetwork(PromptNetwork):
    """A learnt prompt before every name that the encoder's words half reads; pictures are seen as before."""

    prompt: SharedPrompt

    def encoder(self) -> Encoder:
        on, digest = self.on, weights_digest(self.tensors(), f"{self.on.fingerprint}|{self.keep!r}")
        text = PromptedText(opened(on), self.prompt, self.keep, digest)
        return seeing_the_same(on, on.name, digest, lambda: text, None)

    def classifier(self, classes: Sequence[str]) -> Classifier:
        """A classifier for classes by their names, whichever they are."""
        return named(self, classes, "nothing but the names of the classes, read behind a learnt prompt")

    def facts(self) -> dict[str, Any]:
        return {"keep": self.keep, "recipe": self.recipe, "parameters": dict(self.parameters)}

    @classmethod
    def restore(cls, base: Encoder, facts: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> Self:
        keep = float(facts["keep"])
        if not 0 <= keep <= 1:
            raise ValueError(f"it keeps {keep}")
        prompt = SharedPrompt.restored(tensors)
        width = opened(base).embed(opened(base).tokens(["a"])).vectors.shape[2]
        if prompt.vectors.ndim != 2 or prompt.vectors.shape[1] != width:
            raise ValueError(f"its prompt has the shape {tuple(prompt.vectors.shape)}")
        freeze(prompt)
        return cls(base, prompt, keep, str(facts["recipe"]), dict(facts["parameters"]))


def named(network: Any, classes: Sequence[str], told: str) -> Classifier:
    """A classifier of these names, by the encoder of a network.

    Args:
        network: which it is of.
        classes: their names.
        told: what it was made of, in words.
    """
    made = ZeroShot().build(network.encoder(), classes)
    own = dict(network.parameters)
    return replace(made, recipe=network.recipe, parameters=own, network=network, trained_on=told)


@torch.no_grad()
def image_vectors(on: Encoder, pooled: Float[Tensor, "n p"]) -> Float[Tensor, "n d"]:
    """Pictures as unit vectors among the texts."""
    return normalize(on.text.project(pooled), dim=1)
