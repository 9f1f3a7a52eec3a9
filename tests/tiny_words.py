"""A words half small enough to train in a test: the mean of its words' vectors, then one layer."""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import gelu

from seewhy.encoders.base import Encoder, Tokenised
from seewhy.encoders.split import example_pixels, freeze
from seewhy.encoders.text_tokens import ClipText, Sentence, TokenEmbeddings, TokenVectors
from seewhy.learning.adaptation.gist import Form, Pairs, grown, tune_towers
from seewhy.learning.encoders.towers import TunedTowers, trainable
from seewhy.learning.objectives.pairs import GIST as Contrast
from seewhy.training.loop import Trained, Training
from tiny import tiny_cnn
from tiny_transformer import tiny_vit

N_WORDS = 97


class MeanOfWords(nn.Module):
    """Word numbers and their mask → vectors."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.words = nn.Embedding(N_WORDS, width)
        self.out = nn.Linear(width, width)

    def forward(self, ids: Tensor, mask: Tensor) -> Tensor:
        weight = mask[..., None].to(self.words.weight)
        vectors: Tensor = self.out((self.words(ids) * weight).sum(1) / weight.sum(1))
        return vectors

    def embed(self, ids: Tensor, mask: Tensor) -> TokenEmbeddings:
        return TokenEmbeddings.of(self.words(ids), ids, mask.sum(1), Sentence(64, 0, 0))

    def read(self, embeddings: TokenEmbeddings) -> TokenVectors:
        vectors = self.out(embeddings.vectors)
        weight = embeddings.words[..., None].to(vectors)
        return TokenVectors(vectors, embeddings.words, (vectors * weight).sum(1) / weight.sum(1))


class Opened(MeanOfWords):
    """The mean of its words' vectors, bent, then one layer; words can be put in."""

    def embed(self, ids: Tensor, mask: Tensor) -> TokenEmbeddings:
        return TokenEmbeddings.of(self.words(ids), ids, mask.sum(1), Sentence(9, opening=0, closing=0))

    def read(self, embeddings: TokenEmbeddings) -> TokenVectors:
        weight = embeddings.mask[..., None].float()
        pooled = self.out(gelu((embeddings.vectors * weight).sum(1) / weight.sum(1)))
        return TokenVectors(embeddings.vectors, embeddings.words, pooled)

    def forward(self, ids: Tensor, mask: Tensor) -> Tensor:
        return self.read(self.embed(ids, mask)).pooled


def hashed(texts: Sequence[str]) -> Tokenised:
    """Words → numbers, the same on every run."""
    rows = [[zlib.crc32(word.encode()) % N_WORDS for word in text.split()] for text in texts]
    longest = max(map(len, rows))
    ids = torch.tensor([row + [0] * (longest - len(row)) for row in rows])
    return ids, torch.tensor([[1] * len(row) + [0] * (longest - len(row)) for row in rows])


def bag_of_words(width: int = 8, seed: int = 3) -> ClipText:
    """Frozen, with random weights; its projection of pictures is a layer of its own."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        module, projection = freeze(MeanOfWords(width)), freeze(nn.Linear(width, width))
    return ClipText(f"bag of words {seed}", 10.0, module, hashed, projection)


def opened(seed: int = 0) -> Encoder:
    """:func:`tiny.tiny_cnn` with a words half that takes prefixes."""
    with torch.random.fork_rng():
        torch.manual_seed(7)
        words = freeze(Opened(8))
    return tiny_cnn(seed, text=ClipText("opened", 10.0, words, hashed, templates=("{}",)))


def opened_vit() -> Encoder:
    """:func:`tiny_transformer.tiny_vit` with a words half that takes prefixes."""
    with torch.random.fork_rng():
        torch.manual_seed(7)
        words, projection = freeze(Opened(16)), freeze(nn.Linear(16, 16))
    return tiny_vit(text=ClipText("opened", 10.0, words, hashed, projection, templates=("{}",)))


def tiny_pair(seed: int = 0, **options: Any) -> Encoder:
    """:func:`tiny.tiny_cnn` with a words half that can be trained."""
    return tiny_cnn(seed, text=bag_of_words(), **options)


def drawn_pairs(on: Encoder, n: int = 6) -> Pairs:
    """Noise, each with a text of its own."""
    pixels = example_pixels(on.transform.input_size, batch=n, seed=5)
    texts = tuple(f"a photo of {'two dogs' if i % 2 else 'a cat'} {i}" for i in range(n))
    pairs = torch.stack([torch.arange(n), torch.arange(n)], 1)
    return Pairs(pixels, on.encode_text(texts), pairs, torch.arange(n), texts)


def trained(on: Encoder, train: Form, how: Training, contrast: Contrast | None = None) -> tuple[TunedTowers, Trained]:
    """Copies after training on :func:`drawn_pairs`."""
    towers = TunedTowers.before(on, train)
    return towers, tune_towers(towers, trainable(on), drawn_pairs(on), contrast or Contrast(10.0), how)


def changed_by_a_step(on: Encoder) -> set[str]:
    """Names of the weights of both halves that one step of training changes; the encoder itself must stay as it is."""
    pixels, texts = example_pixels(on.transform.input_size, batch=2, seed=1), ["a cat", "two dogs"]
    before = on.encode_image(pixels), on.encode_text(texts)
    towers, done = trained(on, "towers", Training(1, 6, lr=1e-3, schedule="constant"))
    assert len(done.history) == 1
    assert all(torch.equal(a, b) for a, b in zip(before, (on.encode_image(pixels), on.encode_text(texts)), strict=True))
    assert not torch.allclose(grown(towers, on).encode_text(texts), before[1], atol=1e-5)
    assert not torch.allclose(grown(towers, on).encode_image(pixels), before[0], atol=1e-5)
    return set(towers.delta(on))


def says_what_its_module_says(on: Encoder, texts: Sequence[str]) -> bool:
    """Whether ``encode_text`` is the module's vectors at unit length, but for the rounding of another batch."""
    tower = trainable(on)
    with torch.no_grad():
        vectors = nn.functional.normalize(tower.module(*tower.tokens(texts)), dim=1)
    return torch.allclose(vectors, tower.encode_text(texts), atol=1e-6)
