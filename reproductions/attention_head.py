"""An attention head on a map, as it is trained on diffusion features (Mukhopadhyay et al. 2023, 2307.08702)."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor, nn


class SelfAttention(nn.Module):
    """Of tokens among themselves; queries, keys and values without bias.

    Args:
        dim: of a token.
        n_heads: whose widths make it up.
    """

    def __init__(self, dim: int, n_heads: int) -> None:
        super().__init__()
        self.n_heads = n_heads
        self.qkv = nn.Linear(dim, 3 * dim, bias=False)
        self.proj = nn.Linear(dim, dim)

    def forward(self, tokens: Float[Tensor, "b t d"]) -> Float[Tensor, "b t d"]:
        q, k, v = self.qkv(tokens).unflatten(2, (3, self.n_heads, -1)).permute(2, 0, 3, 1, 4)
        weights = (q * q.shape[-1] ** -0.5 @ k.transpose(-2, -1)).softmax(-1)
        out: Tensor = self.proj((weights @ v).transpose(1, 2).flatten(2))
        return out


class AttentionBlock(nn.Module):
    """Attention and a perceptron, each behind a normalisation and added to what goes in.

    Args:
        dim: of a token.
        n_heads: of the attention.
        mlp_ratio: width of the perceptron, as a multiple.
    """

    def __init__(self, dim: int, n_heads: int, mlp_ratio: float) -> None:
        super().__init__()
        self.norm1, self.attention = nn.LayerNorm(dim), SelfAttention(dim, n_heads)
        self.norm2 = nn.LayerNorm(dim)
        inner = int(dim * mlp_ratio)
        self.perceptron = nn.Sequential(nn.Linear(dim, inner), nn.GELU(), nn.Linear(inner, dim))

    def forward(self, tokens: Float[Tensor, "b t d"]) -> Float[Tensor, "b t d"]:
        tokens = tokens + self.attention(self.norm1(tokens))
        out: Tensor = tokens + self.perceptron(self.norm2(tokens))
        return out


class AttentionHead(nn.Module):
    """A map → logits: its cells are tokens beside a learnt one, which is read after ``depth`` blocks.

    ``logits = W z_0``, ``z`` the tokens ``[cls, cells]`` after the blocks; no places are told. Equal to the authors'
    ``AttentionHead`` of ``Use_CLS_Token, Pool, Reshape, Insert_CLS_Token, Attention, Extract_CLS_Token, Dense``. Around
    it their code has a normalisation and a 1 × 1 convolution to 1,024 channels, which are the caller's.

    Args:
        dim: channels of the map.
        n_classes: logits.
        n_heads: of each block; the authors' 8.
        depth: blocks; the authors' 2.
        mlp_ratio: the authors' 4.
        pool: cells that are averaged, on a side; 1 keeps the map.
    """

    def __init__(
        self, dim: int, n_classes: int, *, n_heads: int = 8, depth: int = 2, mlp_ratio: float = 4.0, pool: int = 1
    ) -> None:
        super().__init__()
        self.first = nn.Parameter(torch.zeros(1, 1, dim))
        self.pool = nn.AvgPool2d(pool)
        self.blocks = nn.Sequential(*(AttentionBlock(dim, n_heads, mlp_ratio) for _ in range(depth)))
        self.last = nn.Linear(dim, n_classes)

    def forward(self, features: Float[Tensor, "b c h w"]) -> Float[Tensor, "b k"]:
        cells = self.pool(features).flatten(2).transpose(1, 2)
        tokens = torch.cat([self.first.expand(len(cells), -1, -1), cells], 1)
        logits: Tensor = self.last(self.blocks(tokens)[:, 0])
        return logits
