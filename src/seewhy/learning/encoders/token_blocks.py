"""The blocks of transformers, in trunks and text halves: where to find them, and how to add vectors."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from ...encoders.base import Encoder
from ...encoders.split import LastBlock, replaced

IMAGE_STACKS = (
    "module.blocks",
    "visual.transformer.resblocks",
    "tower.encoder.layer",
    "tower.encoder.layers",
    "tower.model.layer",
    "tower.layers",
    "tower.layer",
)
"""Where timm, open_clip and transformers store the blocks of a picture tower, in the trunks that SeeWhy cuts."""
TEXT_STACKS = ("model.transformer.resblocks", "model.text.transformer.resblocks", "model.text_model.encoder.layers")
"""Where open_clip and transformers store the blocks of a text half."""
FIRST_NORMS = ("visual.ln_pre", "tower.pre_layrnorm", "tower.pre_layernorm", "module.norm_pre")
"""Where they store the norm before a picture tower's first block, if there is one."""


def inside(module: nn.Module, path: str) -> nn.Module | None:
    """Return a submodule, if it exists."""
    try:
        return module.get_submodule(path)
    except AttributeError:
        return None


def image_stack(encoder: Encoder) -> str | None:
    """Return the path of a vision transformer's blocks, except the last, in the trunk; ``None`` for any other
    network.
    """
    if not isinstance(encoder.head, LastBlock) or encoder.layout.grid is None:
        return None
    return _stack(encoder.trunk, IMAGE_STACKS)


def text_stack(words: nn.Module) -> str | None:
    """Return the path of a text encoder's blocks; ``None`` if no known ones are found."""
    return _stack(words, TEXT_STACKS)


def _stack(module: nn.Module, paths: tuple[str, ...]) -> str | None:
    path = next((path for path in paths if inside(module, path) is not None), None)
    around = path and inside(module, path.rpartition(".")[0])
    return path if path and getattr(around, "batch_first", True) else None


def first_norm(trunk: nn.Module) -> nn.Module:
    """Return the norm before the first block, or the identity."""
    found = (inside(trunk, path) for path in FIRST_NORMS)
    return next((norm for norm in found if norm is not None), nn.Identity())


def with_more_prefix(block: nn.Module, n: int) -> nn.Module:
    """Return a second view of a block with ``n`` more leading tokens that get no rotary position."""
    changes = {}
    for name, part in block.named_modules():
        if name and isinstance(count := getattr(part, "num_prefix_tokens", None), int):
            twin = copy.copy(part)
            twin.num_prefix_tokens = count + n
            changes[name] = twin
    return replaced(block, changes) if changes else block


class Placed(nn.Module):
    """A block with learnt vectors among its tokens."""

    def __init__(
        self, block: nn.Module, vectors: Callable[[], Float[Tensor, "p d"]], at: int, *, replaces: bool
    ) -> None:
        super().__init__()
        self.block, self.vectors, self.at, self.replaces = block, vectors, at, replaces

    def forward(self, tokens: Float[Tensor, "b t d"], *args: Any, **keywords: Any) -> Any:
        own = self.vectors().to(tokens).expand(tokens.shape[0], -1, -1)
        behind = self.at + (own.shape[1] if self.replaces else 0)
        return self.block(torch.cat([tokens[:, : self.at], own, tokens[:, behind:]], 1), *args, **keywords)


class Without(nn.Module):
    """The layers after the blocks, without some of the tokens."""

    def __init__(self, tail: nn.Module, at: int, n: int) -> None:
        super().__init__()
        self.tail, self.at, self.n = tail, at, n

    def forward(self, tokens: Float[Tensor, "b t d"]) -> Tensor:
        pooled: Tensor = self.tail(torch.cat([tokens[:, : self.at], tokens[:, self.at + self.n :]], 1))
        return pooled
