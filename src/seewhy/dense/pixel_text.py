"""Picture-dependent text embeddings and their score map (DenseCLIP, section 3)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.functional import interpolate, normalize, relu

from ..encoders.base import Encoder
from ..errors import InputError
from ..learning.adaptation.prompts import STD, Names
from .maskclip import TEMPLATES, texts_of
from .miou import exchanged

GROUPS = 8
"""Number of groups of the group normalisation."""
Prompting = Literal["post", "pre", "none"]
"""Where the picture changes the texts: after the text encoder, before it, or nowhere."""
Texts = Literal["names", "shuffled", "random", "none"]
"""Text embeddings of the classes: their names, names of other classes, random directions, or none."""


class Attention(nn.Module):
    """Multi-head cross-attention without bias in queries, keys and values."""

    def __init__(self, width: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.heads = heads
        self.q_proj, self.k_proj, self.v_proj = (nn.Linear(width, width, bias=False) for _ in range(3))
        self.proj, self.proj_drop = nn.Linear(width, width), nn.Dropout(dropout)

    def forward(self, asks: Float[Tensor, "b n w"], given: Float[Tensor, "b m w"]) -> Float[Tensor, "b n w"]:
        q, k, v = (
            layer(x).unflatten(2, (self.heads, -1)).transpose(1, 2)
            for layer, x in ((self.q_proj, asks), (self.k_proj, given), (self.v_proj, given))
        )
        weights = (q @ k.transpose(2, 3) * q.shape[-1] ** -0.5).softmax(-1)
        return self.proj_drop(self.proj((weights @ v).transpose(1, 2).flatten(2)))


class Layer(nn.Module):
    """A pre-norm transformer decoder layer."""

    def __init__(self, width: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.self_attn, self.cross_attn = Attention(width, heads, dropout), Attention(width, heads, dropout)
        self.norm1, self.norm2, self.norm3 = nn.LayerNorm(width), nn.LayerNorm(width), nn.LayerNorm(width)
        self.dropout = nn.Dropout(dropout)
        self.mlp = nn.Sequential(
            nn.Linear(width, 4 * width), nn.GELU(), nn.Dropout(dropout), nn.Linear(4 * width, width)
        )

    def forward(self, x: Float[Tensor, "b n w"], memory: Float[Tensor, "b m w"]) -> Float[Tensor, "b n w"]:
        near = self.norm1(x)
        x = x + self.self_attn(near, near)
        x = x + self.cross_attn(self.norm2(x), memory)
        return x + self.dropout(self.mlp(self.norm3(x)))


class ContextDecoder(nn.Module):
    """A transformer decoder that computes, from a picture, what is added to the text embeddings."""

    def __init__(
        self, visual_dim: int, width: int = 256, heads: int = 4, layers: int = 3, dropout: float = 0.1, out: int = 0
    ) -> None:
        super().__init__()
        self.memory_proj = nn.Sequential(nn.LayerNorm(visual_dim), nn.Linear(visual_dim, width), nn.LayerNorm(width))
        self.text_proj = nn.Sequential(nn.LayerNorm(visual_dim), nn.Linear(visual_dim, width))
        self.decoder = nn.ModuleList([Layer(width, heads, dropout) for _ in range(layers)])
        self.out_proj = nn.Sequential(nn.LayerNorm(width), nn.Linear(width, out or visual_dim))
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.trunc_normal_(module.weight, std=0.02)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)

    def forward(self, text: Float[Tensor, "b n d"], visual: Float[Tensor, "b m d"]) -> Float[Tensor, "b n d"]:
        memory, x = self.memory_proj(visual), self.text_proj(text)
        for layer in self.decoder:
            x = layer(x, memory)
        return self.out_proj(x)


class PixelText(nn.Module):
    """A module that computes the cosines of grid cells with picture-dependent text embeddings.

    Args:
        channels: channels of the feature maps.
        texts: text embeddings of the classes before training.
        gamma: initial weight of post-model prompting.
        n_contexts: number of learnt vectors before each of the ``names``.
        shows: whether texts are used; if not, all cosines are 0.
    """

    fixed: Tensor
    mean: Tensor
    spread: Tensor

    def __init__(
        self,
        channels: int,
        texts: Float[Tensor, "k d"],
        prompting: Prompting,
        gamma: float,
        names: Names | None = None,
        n_contexts: int = 0,
        *,
        shows: bool = True,
    ) -> None:
        super().__init__()
        d = texts.shape[1]
        self.names, self.prompting, self.shows = names, prompting, shows
        self.register_buffer("fixed", texts.clone())
        self.register_buffer("mean", torch.zeros(channels))
        self.register_buffer("spread", torch.ones(channels))
        if shows and prompting == "post":
            self.context = ContextDecoder(d)
            self.gamma = nn.Parameter(torch.full((d,), gamma))
        if shows and names is not None and prompting == "pre":
            self.context = ContextDecoder(d, out=names.width)
            self.queries = nn.Parameter(torch.randn(n_contexts, d))
        elif shows and names is not None:
            self.contexts = nn.Parameter(STD * torch.randn(n_contexts, names.width))

    def scale_to(self, mean: Float[Tensor, " m"], spread: Float[Tensor, " m"]) -> None:
        """Set the mean and deviation by which feature maps are standardised."""
        self.mean.copy_(mean)
        self.spread.copy_(spread.clamp(min=1e-6))

    def texts(self, joint: Float[Tensor, "b d h w"], whole: Float[Tensor, "b d"]) -> Float[Tensor, "b k d"]:
        visual = torch.cat([whole[:, None], joint.flatten(2).transpose(1, 2)], 1)  # the whole picture, then its cells
        if self.prompting == "pre":
            assert self.names is not None
            return centred(self.names.read(self.context(self.queries.expand(len(joint), -1, -1), visual)))
        own = self.fixed if self.names is None else centred(self.names.read(self.contexts))
        text = own.expand(len(joint), -1, -1)
        return text + self.gamma * self.context(text, visual) if self.prompting == "post" else text

    def cosines(self, joint: Float[Tensor, "b d h w"], whole: Float[Tensor, "b d"]) -> Float[Tensor, "b k h w"]:
        text = normalize(self.texts(joint, whole), dim=2)
        return torch.einsum("bdhw,bkd->bkhw", normalize(joint, dim=1), text)

    @torch.no_grad()
    def settle(self) -> None:
        """Cache the text embeddings if they do not depend on the picture."""
        if self.names is not None and self.prompting != "pre":
            self.fixed.copy_(centred(self.names.read(self.contexts)))
            self.names = None


class TextDecoder(PixelText):
    """A feature pyramid that returns class scores and text cosines."""

    def __init__(
        self, channels: Sequence[int], width: int, texts: Float[Tensor, "k d"], *given: Any, shows: bool = True
    ) -> None:
        super().__init__(sum(channels), texts, *given, shows=shows)
        self.channels, k = tuple(channels), len(texts)
        self.enter = nn.Sequential(nn.Conv2d(channels[0] + k * shows, width, 1), nn.GroupNorm(GROUPS, width))
        self.across = nn.ModuleList(
            nn.Sequential(nn.Conv2d(c, width, 1), nn.GroupNorm(GROUPS, width)) for c in channels[1:]
        )
        self.leave = nn.Sequential(
            nn.Conv2d(width, width, 3, padding=1), nn.GroupNorm(GROUPS, width), nn.ReLU(), nn.Conv2d(width, k, 1)
        )

    def forward(
        self, maps: Sequence[Tensor], joint: Float[Tensor, "b d h w"], whole: Float[Tensor, "b d"]
    ) -> tuple[Float[Tensor, "b k _y _x"], Float[Tensor, "b k _h _w"]]:
        parts = zip(maps, self.mean.split(self.channels), self.spread.split(self.channels), strict=True)
        first, *finer = ((x - m[:, None, None]) / s[:, None, None] for x, m, s in parts)
        if self.shows:
            cosine = self.cosines(joint, whole)
            first = torch.cat([first, cosine], 1)
        else:
            cosine = first.new_zeros(len(first), len(self.fixed), *first.shape[2:])
        x = relu(self.enter(first))
        for level, across in zip(finer, self.across, strict=True):
            x = relu(across(level) + interpolate(x, size=level.shape[2:], mode="nearest"))
        return self.leave(x), cosine


def centred(texts: Float[Tensor, "*b k d"]) -> Float[Tensor, "*b k d"]:
    """Subtract the mean over the classes, unless there is only one, and normalise."""
    return normalize(texts - texts.mean(-2, keepdim=True) if texts.shape[-2] > 1 else texts, dim=-1)


def texts_for(
    encoder: Encoder, classes: tuple[str, ...], kind: Texts, seed: int
) -> tuple[tuple[str, ...], Float[Tensor, "k d"]]:
    """Return the name of each class and its text embedding before training."""
    generator, k = torch.Generator().manual_seed(seed), len(classes)
    if kind == "none":
        return classes, torch.zeros(k, 1)
    if kind == "shuffled" and k < 2:
        raise InputError("The texts of one class cannot be shuffled. Give more classes, or choose other `texts`.")
    said = tuple(classes[i] for i in exchanged(k, generator)) if kind == "shuffled" else classes
    texts = texts_of(encoder, said, TEMPLATES)
    return said, centred(torch.randn(texts.shape, generator=generator) if kind == "random" else texts)
