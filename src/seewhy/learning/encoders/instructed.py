"""A picture under an instruction: a small head behind a frozen encoder, steered by the instruction's sentence."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any, Self

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.functional import cosine_similarity

from ...encoders.base import Encoder
from ...encoders.names import own_vectors
from ...encoders.split import freeze, weights_digest
from .delta import seeing_the_same
from .paired_heads import SENTENCE_SCALE

_logger = logging.getLogger(__name__)

RANK = 64
"""Of what an instruction adds: a full matrix learns the training pictures by heart."""


class InstructedHead(nn.Module):
    """``p + keep · size · U (g(c) * (V (p - mean) / spread + b))``: what is added to a pooled picture ``p``.

    ``g(c) = G c + h`` has one factor for each of the rank's directions, made of the instruction's sentence vector
    ``c``. Under one instruction all is affine in ``p``; at first nothing is added. FocalLens-CLIP gives the instruction
    to the transformer as a token instead (Zhang et al. 2025, arXiv 2504.08368): behind a frozen trunk a picture is
    looked at once, and costs two small matrix products for each instruction.

    Args:
        width: of pooled pictures.
        sentence_width: of the instructions' vectors.
        rank: directions.

    Attributes:
        taught: the instructions it was trained with; whoever gives another is told.
    """

    form = "instructed"
    mean: Tensor
    spread: Tensor
    size: Tensor

    def __init__(self, width: int, sentence_width: int, rank: int = RANK) -> None:
        super().__init__()
        self.width, self.sentence_width, self.rank = width, sentence_width, rank
        self.taught: tuple[str, ...] = ()
        self.strange: set[str] = set()
        self.down = nn.Linear(width, rank)
        self.gate = nn.Linear(sentence_width, rank)
        self.up = nn.Linear(rank, width, bias=False)
        for name, value in (("mean", torch.zeros(width)), ("spread", torch.ones(())), ("size", torch.ones(()))):
            self.register_buffer(name, value)
        nn.init.zeros_(self.up.weight)

    @classmethod
    def before(cls, on: Encoder, pooled: Float[Tensor, "n p"], rank: int = RANK) -> Self:
        """A head that adds nothing yet; the first weights are torch's random numbers.

        Args:
            on: the encoder.
            pooled: pictures that are trained on; their mean, spread and length are taken.
            rank: directions.
        """
        head = cls(pooled.shape[1], own_vectors(on.text, ["a"]).shape[1], rank)
        head.mean = pooled.mean(0)
        head.spread = (pooled - head.mean).square().mean().sqrt().clamp(min=1e-6)
        head.size = pooled.norm(dim=1).mean()
        return head

    def forward(
        self, pooled: Float[Tensor, "b p"], instruction: Float[Tensor, "... e"], keep: float = 1.0
    ) -> Float[Tensor, "b p"]:
        """Pooled pictures under an instruction each, or all under one."""
        seen = self.down((pooled - self.mean) / self.spread) * self.gate(SENTENCE_SCALE * instruction)
        return pooled + keep * self.size * self.up(seen)

    def grown(self, on: Encoder, name: str, keep: float) -> Encoder:
        """The encoder as it was, which now takes instructions."""
        digest = weights_digest(self.delta(on), f"{on.fingerprint}|{keep!r}")

        def under(instruction: str) -> Encoder:
            self.say_untaught(on, name, instruction)
            vector = own_vectors(on.text, [instruction])[0].clone()
            under_it = UnderInstruction(self, vector, keep)
            return Encoder(
                name=f"{name}#{instruction}",
                transform=on.transform,
                trunk=lambda: on.trunk,
                head=nn.Sequential(on.head, under_it),
                layout=on.layout,
                fingerprint=weights_digest({"instruction": vector}, digest),
                text=lambda: on.text,
                module=lambda: nn.Sequential(on.trunk, on.head, under_it),
                engine=lambda: on.engine,
                base=on,
                repooled=under_it,
            )

        return seeing_the_same(on, name, digest, lambda: on.text, under)

    def say_untaught(self, on: Encoder, name: str, instruction: str) -> None:
        """Warn once of each instruction that was not taught: it is understood by its likeness to those that were."""
        if not self.taught or instruction in self.taught or instruction in self.strange:
            return
        self.strange.add(instruction)
        own, *others = own_vectors(on.text, [instruction, *self.taught])
        cosines = cosine_similarity(own[None], torch.stack(others))
        best = int(cosines.argmax())
        _logger.warning(
            "%s was not taught the instruction %r, and nothing was measured of it. It was taught %s; the likest of "
            "them is %r, with a cosine of %.2f between the sentences.",
            *(name, instruction, ", ".join(map(repr, self.taught[:8])), self.taught[best], float(cosines[best])),
        )

    def delta(self, on: Encoder) -> dict[str, Tensor]:
        """All weights."""
        return {name: tensor.detach().cpu() for name, tensor in self.state_dict().items()}

    def facts(self) -> dict[str, Any]:
        sizes = {"width": self.width, "sentence_width": self.sentence_width, "rank": self.rank}
        return {"form": self.form, **sizes, "taught": list(self.taught)}

    @classmethod
    def restored(cls, on: Encoder, facts: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> Self:
        sizes = facts["width"], facts["sentence_width"], facts["rank"]
        if not all(type(n) is int and 0 < n <= 1 << 16 for n in sizes):
            raise ValueError(f"its head has the sizes {sizes}")
        with torch.device("meta"):
            head = cls(*sizes)
        taught = facts.get("taught", [])
        if not isinstance(taught, list) or not all(isinstance(one, str) for one in taught):
            raise ValueError("its instructions are no list of texts")
        head.taught = tuple(taught)
        head.load_state_dict({name: tensor.float() for name, tensor in tensors.items()}, assign=True)
        freeze(head)
        return head


class UnderInstruction(nn.Module):
    """Pooled pictures → the same under one instruction.

    Args:
        head: what was trained.
        vector: the instruction's sentence.
        keep: how much is added.
    """

    vector: Tensor

    def __init__(self, head: InstructedHead, vector: Float[Tensor, " e"], keep: float) -> None:
        super().__init__()
        self.head, self.keep = head, keep
        self.register_buffer("vector", vector)

    def forward(self, pooled: Float[Tensor, "b p"]) -> Float[Tensor, "b p"]:
        seen: Tensor = self.head(pooled, self.vector, self.keep)
        return seen
