"""Access to transformer blocks, and insertion of tokens."""

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
"""Paths of the image encoder's blocks in timm, open_clip and transformers."""
TEXT_STACKS = ("model.transformer.resblocks", "model.text.transformer.resblocks", "model.text_model.encoder.layers")
"""Paths of the text encoder's blocks in open_clip and transformers."""
FIRST_NORMS = ("visual.ln_pre", "tower.pre_layrnorm", "tower.pre_layernorm", "module.norm_pre")
"""Paths of the norm before the image encoder's first block."""


def inside(module: nn.Module, path: str) -> nn.Module | None:
    try:
        return module.get_submodule(path)
    except AttributeError:
        return None


def image_stack(encoder: Encoder) -> str | None:
    """Return the path of a vision transformer's blocks in the trunk, or ``None``."""
    if not isinstance(encoder.head, LastBlock) or encoder.layout.grid is None:
        return None
    return _stack(encoder.trunk, IMAGE_STACKS)


def text_stack(words: nn.Module) -> str | None:
    """Return the path of a text encoder's blocks, or ``None``."""
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
    """Return a view of a block with ``n`` more prefix tokens, which get no rotary position."""
    changes = {}
    for name, part in block.named_modules():
        if name and isinstance(count := getattr(part, "num_prefix_tokens", None), int):
            twin = copy.copy(part)
            twin.num_prefix_tokens = count + n
            changes[name] = twin
    return replaced(block, changes) if changes else block


class Placed(nn.Module):
    """A block that inserts learnt vectors among its tokens."""

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
    """A module that removes ``n`` tokens from position ``at`` and applies ``tail`` to the rest."""

    def __init__(self, tail: nn.Module, at: int, n: int) -> None:
        super().__init__()
        self.tail, self.at, self.n = tail, at, n

    def forward(self, tokens: Float[Tensor, "b t d"]) -> Tensor:
        return self.tail(torch.cat([tokens[:, : self.at], tokens[:, self.at + self.n :]], 1))
