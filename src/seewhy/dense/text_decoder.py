"""DenseCLIP's network on frozen maps: texts that look at the picture, their map of scores, and what decodes it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, Protocol

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.functional import interpolate, normalize, relu

from ..learning.adaptation.prompts import STD, Names
from .context_decoder import ContextDecoder, visual_context

GROUPS = 8
"""Of channels that are normalised together."""
Prompting = Literal["post", "pre", "none"]
"""Where a picture changes texts: behind their network, before it, or nowhere."""


class Sizes(Protocol):
    """What the network is built by; see :class:`seewhy.dense.denseclip.DenseCLIP`."""

    @property
    def width(self) -> int: ...
    @property
    def gamma(self) -> float: ...
    @property
    def prompting(self) -> Prompting: ...
    @property
    def n_contexts(self) -> int: ...
    @property
    def texts(self) -> str: ...


class TextDecoder(nn.Module):
    """Maps, and cells among the words → scores of classes on the finest map, and cosines with texts on the coarsest.

    Args:
        channels: of each map, the coarsest first.
        texts: of the classes, unit vectors.
        how: its sizes.
        names: of the classes, where vectors before them are learnt or drawn from the picture.
    """

    fixed: Tensor
    mean: Tensor
    spread: Tensor

    def __init__(
        self, channels: Sequence[int], texts: Float[Tensor, "k d"], how: Sizes, names: Names | None = None
    ) -> None:
        super().__init__()
        (k, d), width = texts.shape, how.width
        self.channels, self.names, self.prompting = tuple(channels), names, how.prompting
        self.shows = how.texts != "none"
        self.register_buffer("fixed", texts.clone())
        self.register_buffer("mean", torch.zeros(sum(channels)))
        self.register_buffer("spread", torch.ones(sum(channels)))
        if self.shows and self.prompting == "post":
            self.context = ContextDecoder(d)
            self.gamma = nn.Parameter(torch.full((d,), how.gamma))
            if names is not None:
                self.contexts = nn.Parameter(STD * torch.randn(how.n_contexts, names.width))
        elif self.shows and self.prompting == "pre":
            assert names is not None
            self.context = ContextDecoder(d, out=names.width)
            self.queries = nn.Parameter(torch.randn(how.n_contexts, d))
        elif self.shows and names is not None:
            self.contexts = nn.Parameter(STD * torch.randn(how.n_contexts, names.width))
        self.enter = nn.Sequential(nn.Conv2d(channels[0] + k * self.shows, width, 1), nn.GroupNorm(GROUPS, width))
        self.across = nn.ModuleList(
            nn.Sequential(nn.Conv2d(c, width, 1), nn.GroupNorm(GROUPS, width)) for c in channels[1:]
        )
        self.leave = nn.Sequential(
            nn.Conv2d(width, width, 3, padding=1), nn.GroupNorm(GROUPS, width), nn.ReLU(), nn.Conv2d(width, k, 1)
        )

    def texts(self, joint: Float[Tensor, "b d h w"], whole: Float[Tensor, "b d"]) -> Float[Tensor, "b k d"]:
        """Of the classes, for each picture."""
        visual = visual_context(joint, whole)
        if self.prompting == "pre":
            assert self.names is not None
            return centred(self.names.read(self.context(self.queries.expand(len(joint), -1, -1), visual)))
        own = self.fixed if self.names is None else centred(self.names.read(self.contexts))
        text = own.expand(len(joint), -1, -1)
        return text + self.gamma * self.context(text, visual) if self.prompting == "post" else text

    def forward(
        self, maps: Sequence[Tensor], joint: Float[Tensor, "b d h w"], whole: Float[Tensor, "b d"]
    ) -> tuple[Float[Tensor, "b k _y _x"], Float[Tensor, "b k _h _w"]]:
        parts = zip(maps, self.mean.split(self.channels), self.spread.split(self.channels), strict=True)
        first, *finer = ((x - m[:, None, None]) / s[:, None, None] for x, m, s in parts)
        if self.shows:
            text = normalize(self.texts(joint, whole), dim=2)
            cosine = torch.einsum("bdhw,bkd->bkhw", normalize(joint, dim=1), text)
            first = torch.cat([first, cosine], 1)
        else:
            cosine = first.new_zeros(len(first), len(self.fixed), *first.shape[2:])
        x = relu(self.enter(first))
        for level, across in zip(finer, self.across, strict=True):
            x = relu(across(level) + interpolate(x, size=level.shape[2:], mode="nearest"))
        return self.leave(x), cosine

    @torch.no_grad()
    def settle(self) -> None:
        """Read names behind what was learnt for the last time, where no picture changes what stands before them."""
        if self.names is not None and self.prompting != "pre":
            self.fixed.copy_(centred(self.names.read(self.contexts)))
            self.names = None


def centred(texts: Float[Tensor, "*b k d"]) -> Float[Tensor, "*b k d"]:
    """Less the mean of all classes, at unit length again: what all names have in common parts none."""
    return normalize(texts - texts.mean(-2, keepdim=True), dim=-1)
