"""The words half of CLIP-like encoders, and of open_clip's: batched, normalised, without needless gradients."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from .base import Tokenised
from .split import replaced
from .text_tokens import Given, Sentence, TokenEmbeddings, TokenVectors, embed, encode_tokens, legible

PHOTO = ("a photo of a {}.",)
"""The default template of openai/CLIP's README."""


class ClipText:
    """Sentences and pictures in one space."""

    tuning_lr = 1e-6  # Lewis et al. 2023 (arXiv:2307.11315), for CLIP ViT-L/14

    def __init__(
        self,
        fingerprint: str,
        logit_scale: float,
        module: nn.Module,
        tokens: Callable[[list[str]], Tokenised],
        projection: nn.Module | None = None,
        templates: tuple[str, ...] = PHOTO,
        batch_size: int = 256,
        n_cut: Callable[[list[str]], int] | None = None,
    ) -> None:
        self.fingerprint = fingerprint
        self.logit_scale = logit_scale
        self.templates = templates
        self.batch_size = batch_size
        self.module = module
        self.projection = projection or nn.Identity()
        self._tokens = tokens
        self._n_cut = n_cut

    def tokens(self, texts: Sequence[str]) -> Tokenised:
        """Sentences → what the module takes."""
        return self._tokens(legible(texts))

    def n_cut(self, texts: Sequence[str]) -> int:
        """How many sentences are longer than is read; none where that is not known."""
        return 0 if self._n_cut is None else self._n_cut(legible(texts))

    def embed(self, tokens: Tokenised) -> TokenEmbeddings:
        """Tokens → what the network reads, before positions; vectors of one's own can be put in. Differentiable."""
        return embed(self.module, tokens)

    def encode_tokens(self, tokens: Tokenised | TokenEmbeddings) -> TokenVectors:
        """Tokens, or what was made of them → a vector for each, and for each sentence. Differentiable."""
        return encode_tokens(self.module, tokens)

    @torch.no_grad()
    def encode_text(self, texts: Sequence[str]) -> Float[Tensor, "n d"]:
        """Sentences → unit vectors."""
        n = self.batch_size
        parts = [self.module(*self.tokens(texts[i : i + n])) for i in range(0, len(texts), n)]
        return F.normalize(torch.cat(parts).float(), dim=-1)

    def project(self, pooled: Float[Tensor, "b p"]) -> Float[Tensor, "b d"]:
        """Pooled picture features → the space of the sentences, not yet of unit length; differentiable."""
        return self.projection(pooled)


class Projection(nn.Module):
    """Multiplication with a matrix kept as a bare parameter."""

    def __init__(self, matrix: Float[Tensor, "p d"]) -> None:
        super().__init__()
        self.matrix = nn.Parameter(matrix.detach(), requires_grad=False)

    def forward(self, pooled: Float[Tensor, "b p"]) -> Float[Tensor, "b d"]:
        return pooled @ self.matrix


def text_tower(model: Any, tokenizer: Any, digest: str, projection: nn.Module | None) -> ClipText:
    """With open_clip's own tokenizer."""
    scale = math.exp(float(model.logit_scale.detach().reshape(-1)[0]))
    longest = tokenizer.context_length
    theirs = getattr(tokenizer, "tokenizer", None)
    if theirs is None:
        sentence = Sentence(longest, end=tokenizer.eot_token_id)
    else:
        sentence = Sentence.of(theirs, longest, closed=not tokenizer.strip_sep_token)

    def n_cut(texts: list[str]) -> int:
        if theirs is None:
            return sum(len(tokenizer.encode(text)) + 2 > longest for text in texts)
        cleaned = [tokenizer.clean_fn(text) for text in texts]
        return sum(len(ids) > longest for ids in theirs(cleaned, verbose=False)["input_ids"]) if texts else 0

    module = TextHalf(model, sentence)
    return ClipText(digest, scale, module, lambda texts: (tokenizer(texts),), projection, n_cut=n_cut)


class TextHalf(nn.Module):
    """open_clip's network without its picture tower: tokens → vectors."""

    def __init__(self, model: nn.Module, sentence: Sentence) -> None:
        super().__init__()
        self.model: Any = replaced(model, {"visual": nn.Identity()})
        self.sentence = sentence

    def forward(self, tokens: Int[Tensor, "n t"]) -> Float[Tensor, "n d"]:
        return encode_padded(self.model, tokens)

    def embed(self, tokens: Int[Tensor, "n t"]) -> TokenEmbeddings:
        """Words before positions are added; padding is cut where it is irrelevant."""
        tower = _tower(self.model)
        tokens = _without_padding(self.model, tower, tokens)
        lengths = self.sentence.lengths(tokens)
        return TokenEmbeddings.of(tower.get_submodule(_words(tower))(tokens), tokens, lengths, self.sentence)

    def read(self, embeddings: TokenEmbeddings) -> TokenVectors:
        """Every token through the norm and the projection that the pooled one goes through."""
        model, tower = self.model, _tower(self.model)
        if _is_plain(tower):
            states, pooled = _read_plain(model, tower, embeddings.vectors, embeddings.ids)
            return TokenVectors(_projected(tower, states), embeddings.words, pooled)
        given: Any = replaced(tower, {_words(tower): Given(embeddings.vectors)})
        given.output_tokens = True  # of this view alone
        if hasattr(tower, "pooler"):  # a network of transformers
            mask = embeddings.ids != tower.config.pad_token_id
            out = given.transformer(input_ids=embeddings.ids, attention_mask=mask.long())
            pooled = tower.proj(tower.pooler(out, mask.long()))
            return TokenVectors(tower.proj(out.last_hidden_state), embeddings.words, pooled)
        pooled, states = given(embeddings.ids)  # CoCa pools a token of its own, and norms after it
        return TokenVectors(_projected(tower, tower.ln_final(states)), embeddings.words, pooled)


def encode_padded(model: Any, tokens: Int[Tensor, "n t"]) -> Float[Tensor, "n d"]:
    """Tokens → vectors; padding is cut where causal attention and end-token pooling make it irrelevant."""
    tower = _tower(model)
    cut = _without_padding(model, tower, tokens)
    if cut is tokens:
        return model.encode_text(tokens)
    return _read_plain(model, tower, tower.token_embedding(cut), cut)[1]


def _tower(model: Any) -> Any:
    return model.text if hasattr(model, "text") else model


def _words(tower: nn.Module) -> str:
    """Where a tower looks up its vocabulary."""
    if hasattr(tower, "token_embedding"):
        return "token_embedding"
    words = tower.transformer.get_input_embeddings()  # type: ignore[union-attr,operator]
    return next(name for name, module in tower.named_modules() if module is words)


def _is_plain(tower: Any) -> bool:
    """Whether words, positions and blocks are all there is."""
    own = hasattr(tower, "token_embedding") and getattr(tower, "cls_emb", None) is None
    return own and not getattr(tower, "use_pad_mask", False)


def _pool(model: Any, tower: Any) -> str:
    return getattr(tower, "pool_type", getattr(model, "text_pool_type", ""))


def _without_padding(model: Any, tower: Any, tokens: Int[Tensor, "n t"]) -> Int[Tensor, "n s"]:
    """The tokens themselves where padding is read."""
    causal = getattr(tower, "attn_mask", None) is not None
    if not (causal and _is_plain(tower) and _pool(model, tower) in ("argmax", "eos")):
        return tokens
    used = (tokens != int(getattr(tower, "pad_id", 0) or 0)).any(0).nonzero()
    return tokens[:, : int(used.max()) + 1] if len(used) else tokens[:, :1]


def _read_plain(
    model: Any, tower: Any, words: Float[Tensor, "n t w"], ids: Int[Tensor, "n t"]
) -> tuple[Float[Tensor, "n t w"], Float[Tensor, "n d"]]:
    """States behind the last norm, and the pooled one projected."""
    from open_clip.transformer import text_global_pool

    n, mask = ids.shape[1], tower.attn_mask
    x = words + tower.positional_embedding[:n]
    x = tower.ln_final(tower.transformer(x, attn_mask=None if mask is None else mask[:n, :n]))
    end = getattr(tower, "eos_id", getattr(model, "text_eos_id", None))
    return x, _projected(tower, text_global_pool(x, ids, _pool(model, tower), eos_token_id=end))


def _projected(tower: Any, states: Tensor) -> Tensor:
    projection = tower.text_projection
    if projection is None:
        return states
    return projection(states) if isinstance(projection, nn.Linear) else states @ projection
