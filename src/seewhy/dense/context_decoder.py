"""DenseCLIP's context decoder: what a picture shows tells texts what to look for (Rao et al. 2022, section 3.3)."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor, nn


class Attention(nn.Module):
    """Attention of some vectors to others; queries, keys and values have no bias."""

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
    """Texts among themselves, then to the picture, then each by itself; normalised before each."""

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
    """Texts and what a picture shows → what is added to the texts.

    Equal to the authors' ``ContextDecoder``, names of weights among that.

    Args:
        visual_dim: numbers of a text and of a cell.
        width: of the layers.
        heads: of each.
        layers: how many.
        dropout: while it is trained.
        out: numbers of what is added; left out, as many as a text has.
    """

    def __init__(
        self,
        visual_dim: int,
        width: int = 256,
        heads: int = 4,
        layers: int = 3,
        dropout: float = 0.1,
        *,
        out: int | None = None,
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
        out: Tensor = self.out_proj(x)
        return out


def visual_context(cells: Float[Tensor, "b d h w"], whole: Float[Tensor, "b d"]) -> Float[Tensor, "b m d"]:
    """The whole picture, then its cells."""
    return torch.cat([whole[:, None], cells.flatten(2).transpose(1, 2)], 1)
