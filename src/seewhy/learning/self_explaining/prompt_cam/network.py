"""Class prompts inside a frozen vision transformer (Prompt-CAM): where they enter, and what is read from them."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, ClassVar, Self

import torch
from jaxtyping import Float
from torch import Tensor, nn

from ....classifiers.network import Network
from ....encoders.base import Encoder, Layout
from ....encoders.split import LastBlock, example_pixels, freeze, replaced, weights_digest
from ....errors import ModelError
from ...encoders.token_blocks import image_stack, inside, with_more_prefix

NORMS = ("model.norm", "model.fc_norm", "visual.ln_post", "norm")
"""Where they keep the norm behind the last one; the first that does something is it."""


class Prompts(nn.Module):
    """All that is trained: the prompts, and the vector that scores them.

    Prompts start uniform in ``±√(6 / (3 · patch area + width))`` and the vector in ``±1/√width``, as in the authors'
    code; a prompt has no position.
    """

    def __init__(
        self, n_early: int, n_classes: int, width: int, area: float = 256.0, shared: bool = True, dropout: float = 0.0
    ) -> None:
        super().__init__()
        bound = math.sqrt(6 / (3 * area + width))

        def drawn() -> nn.Parameter:
            return nn.Parameter(torch.empty(n_classes, width).uniform_(-bound, bound))

        self.early = nn.ParameterList(drawn() for _ in range(n_early))
        self.own = drawn()
        self.weight = nn.Parameter(torch.empty(1 if shared else n_classes, width).uniform_(-(width**-0.5), width**-0.5))
        self.dropout = nn.Dropout(dropout)

    def put(self, tokens: Float[Tensor, "b t d"], early: int | None = None) -> Float[Tensor, "b s d"]:
        """Prompts before tokens: those of an early layer, or the classes' own."""
        prompts = self.dropout(self.own if early is None else self.early[early])
        return torch.cat([prompts.expand(len(tokens), -1, -1), tokens], 1)


class Prompted(nn.Module):
    """A block that sees prompts before its tokens."""

    def __init__(self, block: nn.Module, prompts: Prompts, early: int | None) -> None:
        super().__init__()
        self.block = block
        self.prompts = prompts
        self.early = early

    def forward(self, tokens: Float[Tensor, "b t d"], *args: Any, **keywords: Any) -> Any:
        out = self.block(self.prompts.put(tokens, self.early), *args, **keywords)
        if self.early is None:
            return out
        n = len(self.prompts.own)
        return (out[0][:, n:], *out[1:]) if isinstance(out, tuple) else out[:, n:]


class Scores(nn.Module):
    """What follows the last block: ``s_c = w · norm(z_c)``, ``z_c`` what has become of the class's prompt.

    Behind the scores stands what the network itself pools there, its class token, or the mean over patches where it has
    none: nothing is decided by it, but pictures that only score alike are told apart by it from near-duplicates.
    """

    def __init__(self, norm: nn.Module, prompts: Prompts, has_prefix: bool) -> None:
        super().__init__()
        self.norm = norm
        self.prompts = prompts
        self.has_prefix = has_prefix

    def forward(self, tokens: Float[Tensor, "b s d"]) -> Float[Tensor, "b p"]:
        n = len(self.prompts.own)
        tokens = self.norm(tokens[:, : n + 1] if self.has_prefix else tokens)
        scores = (tokens[:, :n] * self.prompts.weight).sum(2)
        return torch.cat([scores, tokens[:, n] if self.has_prefix else tokens[:, n:].mean(1)], 1)


class PromptHead(nn.Module):
    """Tokens before the last block → class scores, and the network's own pooled vector behind them."""

    def __init__(self, last: LastBlock, prompts: Prompts, inside: bool, first: int) -> None:
        super().__init__()
        self.last = last
        self.prompts = prompts
        self.inside = inside
        self.first = first

    def forward(self, tokens: Float[Tensor, "b t d"]) -> Float[Tensor, "b p"]:
        return self.last(tokens if self.inside else self.prompts.put(tokens))

    @property
    def n_added(self) -> int:
        """Prompts among the tokens."""
        return len(self.prompts.own)

    def entering(self, n_tokens: int, n_layers: int) -> list[int]:
        """Tokens that come into each layer from the one before, of ``n_tokens`` that come into the last."""
        n = len(self.prompts.own)
        plain = n_tokens - n if self.inside else n_tokens
        return [plain + (n if layer > self.first else 0) for layer in range(n_layers)]

    def scores(self, tokens: Float[Tensor, "b t d"]) -> Float[Tensor, "b k"]:
        """The scores alone."""
        return self(tokens)[:, : len(self.prompts.own)]


@dataclass(frozen=True)
class Parts:
    """Where prompts can enter a network."""

    last: LastBlock
    norm: nn.Module
    stack: str
    n_layers: int
    width: int
    area: float


def parts_of(encoder: Encoder) -> Parts:
    """Find the blocks and the norm of a vision transformer."""
    last, grid = encoder.head, encoder.layout.grid
    if isinstance(last, LastBlock) and grid is not None:
        norms = [n for n in (inside(last.tail, path) for path in NORMS) if getattr(n, "weight", None) is not None]
        stack = image_stack(encoder)
        if norms and stack:
            height, width = encoder.transform.input_size
            blocks: Any = encoder.trunk.get_submodule(stack)
            norm: Any = norms[0]
            area = height / grid[0] * width / grid[1]
            return Parts(last, norm, stack, len(blocks) + 1, norm.weight.shape[-1], area)
    raise ModelError(
        f"Prompt-CAM puts prompts before the blocks of a vision transformer, and {encoder.name!r} has none that SeeWhy "
        "knows. A ViT under timm:, open_clip: or hf: was expected. Choose one with --encoder."
    )


class PromptCAMNetwork(Network):
    """A frozen transformer with class prompts.

    Layers are counted from 0. In those before ``first`` there are either as many prompts a layer that are thrown away
    behind it (``n_early = first``), or none; the classes' own enter at ``first`` and travel on to the end. So the
    paper's deep form is ``first`` = the last layer with early prompts, its shallow form is ``first = 0``, and the
    last-layer form is the deep one without early prompts.
    """

    where: ClassVar[str] = "prompt_cam"

    def __init__(self, base: Encoder, first: int, prompts: Prompts) -> None:
        self._base = base
        self.first = first
        self.prompts = prompts
        self.parts = parts_of(base)
        prompts.eval()
        self._check()

    @property
    def base(self) -> Encoder:
        return self._base

    @property
    def shares_trunk(self) -> bool:
        """Whether the trunk is that of the base as it is, so that its looks can be used."""
        return self.first == self.parts.n_layers - 1 and not len(self.prompts.early)

    @cached_property
    def trunk(self) -> nn.Module:
        """Pixels → tokens before the last block; differentiable in the prompts."""
        parts, n = self.parts, len(self.prompts.own)
        stack: Any = self._base.trunk.get_submodule(parts.stack)
        changes: dict[str, nn.Module] = {}
        for i, block in enumerate(stack):
            if i < len(self.prompts.early):
                changes[f"{parts.stack}.{i}"] = Prompted(with_more_prefix(block, n), self.prompts, i)
            elif i == self.first:
                changes[f"{parts.stack}.{i}"] = Prompted(with_more_prefix(block, n), self.prompts, None)
            elif i > self.first:
                changes[f"{parts.stack}.{i}"] = with_more_prefix(block, n)
        return replaced(self._base.trunk, changes) if changes else self._base.trunk

    @cached_property
    def head(self) -> PromptHead:
        """Those tokens → class scores; differentiable in the prompts."""
        last = self.parts.last
        block = with_more_prefix(last.block, len(self.prompts.own))
        tail = Scores(self.parts.norm, self.prompts, self._base.layout.prefix > 0)
        return PromptHead(LastBlock(block, tail, last.keywords), self.prompts, self._inside, self.first)

    @property
    def _inside(self) -> bool:
        return self.first < self.parts.n_layers - 1

    def _check(self) -> None:
        base, n = self._base, len(self.prompts.own)
        try:
            with torch.no_grad():
                scores = self.head.scores(self.trunk(example_pixels(base.transform.input_size)))
        except (RuntimeError, ValueError, IndexError) as error:
            reason = " ".join(str(error).split())[:200].rstrip(".")
            raise ModelError(
                f"{base.name!r} takes no further tokens: {reason}. A vision transformer whose blocks take any number "
                "of tokens was expected. Choose another with --encoder."
            ) from error
        if scores.shape != (1, n):
            raise ModelError(
                f"{base.name!r} gives scores {tuple(scores.shape)} for {n} prompts; its blocks take tokens in another "
                "order than (b, t, d). Choose another with --encoder."
            )

    def encoder(self) -> Encoder:
        base, trunk, head = self._base, self.trunk, self.head
        freeze(self.prompts)
        own = base.layout
        facts = json.dumps(self.facts(), sort_keys=True)
        return Encoder(
            name=base.name,
            transform=base.transform,
            trunk=lambda: trunk,
            head=freeze(head),
            layout=Layout("tokens", own.grid, own.prefix + len(self.prompts.own)) if self._inside else own,
            fingerprint=weights_digest(self.tensors(), base.fingerprint + facts),
            module=lambda: nn.Sequential(trunk, head),
            engine=(lambda: base.engine) if self.shares_trunk else base.engine_asked,
        )

    def tensors(self) -> dict[str, Tensor]:
        return {name: value.detach() for name, value in self.prompts.state_dict().items()}

    def facts(self) -> dict[str, Any]:
        return {"first": self.first, "n_early": len(self.prompts.early)}

    @classmethod
    def restore(cls, base: Encoder, facts: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> Self:
        n_classes, width = tensors["own"].shape
        with torch.device("meta"):
            prompts = Prompts(int(facts["n_early"]), n_classes, width, shared=len(tensors["weight"]) == 1)
        prompts.load_state_dict(dict(tensors), assign=True)
        return cls(base, int(facts["first"]), prompts)
