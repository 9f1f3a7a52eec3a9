"""Encoders, which consist of a trunk (pixels to features) and a head (features to a pooled vector)."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any, Literal, Protocol, runtime_checkable

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.functional import normalize

from ..errors import InputError, ModelError
from ..threads import beside, for_torch
from ..types import Transform
from ..undisturbed import undisturbed
from .engines import Engine, PictureEngine, make_engine
from .text_tokens import TokenEmbeddings, TokenVectors
from .text_tokens import Tokenised as Tokenised

if TYPE_CHECKING:
    from .region_heads import RegionHeads


STEP = 32
"""Input sides are rounded to a multiple of this number of pixels, the stride of most convolutional networks."""


@dataclass(frozen=True)
class Layout:
    """The memory layout of a trunk's features.

    Attributes:
        kind: ``"nchw"`` ``(b, c, h, w)``, ``"nhwc"`` ``(b, h, w, c)`` or ``"tokens"`` ``(b, t, d)``.
        grid: for tokens: size ``(h, w)`` of the patch grid.
        prefix: for tokens: number of class and register tokens before the patch tokens.
        finer: for ``"nchw"``: number of channels and scale factor of each map of higher resolution that is stored in
            additional channels.
    """

    kind: Literal["nchw", "nhwc", "tokens"] = "nchw"
    grid: tuple[int, int] | None = None
    prefix: int = 0
    finer: tuple[tuple[int, int], ...] = ()

    def to_grid(self, features: Tensor) -> Float[Tensor, "b c h w"]:
        """Return the spatial features as ``(b, c, h, w)``."""
        if self.kind == "nchw":
            behind = sum(c * t * t for c, t in self.finer)
            return features[:, :-behind] if behind else features
        if self.kind == "nhwc":
            return features.permute(0, 3, 1, 2)
        if self.grid is None:
            raise ModelError("A token layout needs a grid. Pass Layout('tokens', grid=(h, w), prefix=n).")
        return features[:, self.prefix :].transpose(1, 2).unflatten(2, self.grid)


class GlobalAverage(nn.Module):
    """Global average pooling."""

    def forward(self, features: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c"]:
        return features.mean((2, 3))


class TextTower(Protocol):
    """The text encoder of an image-text model, which maps sentences to unit vectors in the shared space."""

    fingerprint: str
    logit_scale: float
    templates: tuple[str, ...]

    def encode_text(self, texts: Sequence[str]) -> Float[Tensor, "n d"]: ...

    def project(self, pooled: Float[Tensor, "b p"]) -> Float[Tensor, "b d"]:
        """Map pooled picture features to the shared space by a differentiable affine function."""
        ...


@runtime_checkable
class SentenceText(TextTower, Protocol):
    """A text encoder in two steps: ``sentences`` computes vectors, and ``place`` maps them to the shared space."""

    sentence_fingerprint: str

    def sentences(self, texts: Sequence[str]) -> Float[Tensor, "n e"]: ...

    def place(self, vectors: Float[Tensor, "n e"]) -> Float[Tensor, "n d"]: ...


@runtime_checkable
class RefittedText(SentenceText, Protocol):
    """A text encoder whose map to the shared space is a regression that can be refitted."""

    def refit(self) -> Mapping[str, Tensor]:
        """Return the tensors that :meth:`place_by` takes as ``refit``."""
        ...

    def place_by(self, vectors: Float[Tensor, "n e"], refit: Mapping[str, Tensor]) -> Float[Tensor, "n d"]: ...


@runtime_checkable
class TrainableText(TextTower, Protocol):
    """A trainable text encoder: ``encode_text`` is ``module(*tokens(texts))``, ``project`` is ``projection``."""

    tuning_lr: float

    @property
    def module(self) -> nn.Module: ...

    @property
    def projection(self) -> nn.Module: ...

    def tokens(self, texts: Sequence[str]) -> Tokenised: ...

    def n_cut(self, texts: Sequence[str]) -> int:
        """Return the number of texts that are longer than the network's context and would be truncated."""
        ...

    def embed(self, tokens: Tokenised) -> TokenEmbeddings:
        """Compute differentiable token embeddings, without positions."""
        ...

    def encode_tokens(self, tokens: Tokenised | TokenEmbeddings) -> TokenVectors:
        """Compute one differentiable vector per token and one per text, from tokens or their embeddings."""
        ...


@dataclass(frozen=True)
class EncoderOutput:
    """The output of one forward pass: features, pooled vectors and, if available, pixels."""

    features: Tensor
    pooled: Float[Tensor, "b d"]
    pixels: Float[Tensor, "b 3 h w"] | None = None

    def __len__(self) -> int:
        return len(self.pooled)

    def pixels_for(self, name: str) -> Float[Tensor, "b 3 h w"]:
        """Return the pixels, which the method ``name`` needs."""
        if self.pixels is None:
            raise InputError(f"{name} needs an encoder output with pixels. Pass encoder.encode(pixels).")
        return self.pixels

    def __getitem__(self, index: slice) -> EncoderOutput:
        pixels = None if self.pixels is None else self.pixels[index]
        return EncoderOutput(self.features[index], self.pooled[index], pixels)


class Encoder:
    """A pretrained network, split into a trunk and a head, with its preprocessing.

    Args:
        name: name, for example ``"lite0"`` or ``"timm:resnet18"``.
        transform: the model's preprocessing.
        trunk: function that returns the trunk module; called only when needed.
        head: differentiable module from features to the pooled vector.
        layout: layout of the features.
        fingerprint: digest of weights and transform; equal fingerprints give equal features.
        classifier: the network's last linear layer on pooled features, if it has one.
        classes: names of the classifier's outputs.
        text: function that loads the text encoder, if there is one; called only when needed.
        module: function that returns the whole network, for methods that need gradients inside the trunk.
        engine: ``"auto"``, ``"torch"``, ``"onnxruntime"``, ``"openvino"``, or a function that returns a loaded engine.
        conditioned: function from an instruction, such as ``"the colour"``, to an encoder that follows it.
        looks: fingerprint of the part that encodes pictures; default: ``fingerprint``.
        base: encoder from which this one was adapted.
        rest: module from the pooled vectors of ``base`` to the features of this encoder.
        region_heads: detection heads that were trained with the encoder on pictures with texts.
    """

    def __init__(
        self,
        *,
        name: str,
        transform: Transform,
        trunk: Callable[[], nn.Module],
        head: nn.Module,
        layout: Layout,
        fingerprint: str,
        classifier: nn.Linear | None = None,
        classes: Sequence[str] = (),
        text: Callable[[], TextTower] | None = None,
        module: Callable[[], nn.Module] | None = None,
        engine: str | Callable[[], Engine] = "auto",
        conditioned: Callable[[str], Encoder] | None = None,
        looks: str | None = None,
        base: Encoder | None = None,
        rest: nn.Module | None = None,
        region_heads: RegionHeads | None = None,
    ) -> None:
        self.name, self.transform, self.head, self.layout = name, transform, head, layout
        self.fingerprint, self.looks = fingerprint, looks or fingerprint
        self.base, self.rest, self.region_heads = base, rest, region_heads
        self.classifier, self.classes = classifier, tuple(classes)
        self._trunk, self._module, self._text = trunk, module or trunk, text
        self._engine, self._conditioned = engine, conditioned

    @cached_property
    def engine(self) -> Engine:
        if callable(self._engine):
            return self._engine()
        return make_engine(self._engine, lambda: self.trunk, self.transform.input_size, self.fingerprint)

    @property
    def engine_asked(self) -> str:
        """The requested engine; ``"auto"`` if a loaded engine was passed."""
        return self._engine if isinstance(self._engine, str) else "auto"

    @cached_property
    def trunk(self) -> nn.Module:
        return self._trunk()

    @cached_property
    def module(self) -> nn.Module:
        return self._module()

    @property
    def has_text(self) -> bool:
        return self._text is not None

    @cached_property
    def text(self) -> TextTower:
        if self._text is None:
            raise ModelError(
                f"The encoder {self.name!r} has no text encoder. Use an image-text model: the embedded 'lite0', "
                "'open_clip:MODEL/PRETRAINED' or a CLIP or SigLIP model, 'hf:ORG/NAME'."
            )
        return self._text()

    @property
    def is_average(self) -> bool:
        """Whether the head is global average pooling."""
        return isinstance(self.head, GlobalAverage)

    def pixels(self, pictures: Sequence[np.ndarray]) -> Float[Tensor, "b 3 h w"]:
        """Normalise uint8 pictures ``(h, w, 3)``."""
        height, width, n_channels = pictures[0].shape
        mean = np.tile(np.array(self.transform.mean, np.float32) * np.float32(255), width)
        std = np.tile(np.array(self.transform.std, np.float32) * np.float32(255), width)
        rows = np.empty((len(pictures), height, width * n_channels), np.float32)
        # One picture at a time, in place: it stays in the cache and takes a quarter of the time.
        for row, picture in zip(rows, pictures, strict=True):
            np.subtract(picture.reshape(row.shape), mean, out=row, dtype=np.float32)
            row /= std
        # Keep channels last in memory, for the fastest convolutions.
        return torch.from_numpy(rows).unflatten(2, (width, n_channels)).permute(0, 3, 1, 2)

    def forward_features(self, pixels: Float[Tensor, "b 3 h w"]) -> Tensor:
        """Compute features from pixels without gradients."""
        return self.engine(pixels)

    @property
    def takes_condition(self) -> bool:
        """Whether :meth:`encode` takes an instruction."""
        return self._conditioned is not None

    def under(self, condition: str) -> Encoder:
        """Return the encoder that follows an instruction, such as ``"the colour"``."""
        if self._conditioned is None:
            raise InputError(
                f"The encoder {self.name!r} takes no instruction, got {condition!r}. Remove it, or use an encoder "
                "that was trained with instructions."
            )
        if not condition.strip():
            raise InputError("The instruction must be words such as 'the colour', got an empty text.")
        return self._conditioned(condition)

    @undisturbed
    def encode(self, pixels: Float[Tensor, "b 3 h w"], condition: str | None = None) -> EncoderOutput:
        """Return the features and pooled vectors of pictures.

        Args:
            pixels: normalised pictures, from :meth:`pixels`.
            condition: instruction in words, such as ``"the colour"``, for an encoder trained with instructions.
        """
        if condition is not None:
            return self.under(condition).encode(pixels)
        if (engine := self._averaging) is not None:
            maps, means = engine.maps_and_means(pixels)
            return EncoderOutput(maps, means, pixels)
        features = self.forward_features(pixels)
        # A mean is cheap; another head may be a whole block.
        with beside(self.engine.name) if self.is_average else for_torch(), torch.no_grad():
            return EncoderOutput(features, self.head(features), pixels)

    @undisturbed
    def pooled(self, pixels: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b d"]:
        """Compute the pooled vectors without the features, which is faster than :meth:`encode`."""
        engine = self._averaging
        return self.encode(pixels).pooled if engine is None else engine.mean(pixels)

    @property
    def _averaging(self) -> PictureEngine | None:
        """The engine, if it can compute global average pooling; otherwise ``None``."""
        engine = self.engine
        return engine if self.is_average and isinstance(engine, PictureEngine) and engine.averages else None

    @torch.no_grad()
    def beyond(self, pooled: Float[Tensor, "b p"]) -> EncoderOutput:
        """Compute features and pooled vectors from the base encoder's pooled vectors."""
        if self.rest is None:
            return EncoderOutput(pooled, pooled)
        with for_torch():
            parts = [self.rest(part) for part in pooled.split(STEP)]
            return EncoderOutput(torch.cat(parts), torch.cat([self.head(part) for part in parts]))

    @undisturbed
    def encode_image(self, pixels: Float[Tensor, "b 3 h w"], condition: str | None = None) -> Float[Tensor, "b d"]:
        """Map pixels to unit vectors in the space shared with text."""
        with torch.no_grad():
            return normalize(self.text.project(self.encode(pixels, condition).pooled), dim=1)

    @undisturbed
    def encode_text(self, texts: Sequence[str]) -> Float[Tensor, "n d"]:
        """Map texts to unit vectors in the space shared with pictures."""
        try:
            "\n".join(texts).encode()
        except UnicodeEncodeError as error:  # bytes that are not UTF-8 on a command line are read as half characters
            raise InputError(f"Texts must be valid UTF-8, got the character {error.object[error.start]!r}.") from error
        with for_torch():
            return self.text.encode_text(list(texts))

    def but(self, **changes: Any) -> Encoder:
        """Return a copy of the encoder with some arguments replaced."""
        same = ("name", "transform", "head", "layout", "fingerprint", "classifier", "classes")
        parts: dict[str, Any] = {part: getattr(self, part) for part in same}
        parts |= {"trunk": lambda: self.trunk, "module": lambda: self.module, "engine": self.engine_asked}
        parts |= {"text": lambda: self.text} if self.has_text else {}
        return Encoder(**{**parts, **changes})

    def __deepcopy__(self, _memo: object) -> Encoder:
        """Return the encoder itself, which is immutable."""
        return self

    def __copy__(self) -> Encoder:
        return self

    def __reduce__(self) -> tuple[Any, ...]:
        """Refuse pickle, since engines and loaders belong to this process."""
        raise InputError(
            f"The encoder {self.name!r} cannot be pickled. Load it in the other process, or save the classifier with "
            "classifier.save(folder) and load it there with seewhy.load(folder)."
        )

    def __repr__(self) -> str:
        words = "with words" if self.has_text else "without words"
        return f"Encoder({self.name!r}, {self.transform.input_size[1]} px, {len(self.classes)} own classes, {words})"

    def describe(self) -> dict[str, Any]:
        """Return the encoder's name, fingerprint and transform as JSON."""
        return {"encoder": self.name, "fingerprint": self.fingerprint, "transform": self.transform.to_json()}


def can_grow(encoder: Encoder) -> bool:
    """Check whether an encoder accepts other input sizes."""
    return encoder.layout.kind == "nchw"


def larger(encoder: Encoder, times: float) -> Encoder:
    """Return the encoder with its input size multiplied by a factor."""
    if times == 1:
        return encoder
    if not can_grow(encoder) or times <= 0:
        raise InputError(
            f"The encoder {encoder.name!r} cannot be enlarged {times:g} times. The factor must be greater than 0, and "
            "the encoder must return a feature map, not tokens. Cut the picture into tiles instead."
        )
    height, width = (max(STEP, round(times * side / STEP) * STEP) for side in encoder.transform.input_size)
    transform = replace(encoder.transform, input_size=(height, width), resize=(height, width))
    fingerprint = hashlib.sha256(f"{encoder.fingerprint}:{transform.fingerprint}".encode()).hexdigest()
    under = (lambda words: larger(encoder.under(words), times)) if encoder.takes_condition else None
    return encoder.but(transform=transform, fingerprint=fingerprint, conditioned=under)
