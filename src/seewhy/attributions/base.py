"""The base of every attribution: it checks, and puts the model back as it was; the method writes the mathematics."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from contextlib import nullcontext
from typing import Any, ClassVar, Literal, Protocol

import torch
from jaxtyping import Float
from torch import Tensor

from ..bounds import check_fields
from ..encoders.base import Encoder, EncoderOutput
from ..errors import InputError
from ..heads.head import Head, Target, TargetFunction
from ..threads import for_torch
from ..undisturbed import undisturbed

__all__ = ["Attribution", "Deciding", "EncoderOutput", "Explainable", "Maps", "Target", "TargetFunction"]

Maps = Float[Tensor, "b h w"]
"""One signed map per picture; positive speaks for the target."""
Of = Literal["logit", "probability"]
"""What is watched: the target of the logits, or of the probabilities."""


class Explainable(Protocol):
    """The attributes of a classifier that an attribution needs."""

    @property
    def encoder(self) -> Encoder: ...

    @property
    def head(self) -> Head: ...


class Deciding(Explainable, Protocol):
    """An explainable classifier whose classes have names."""

    @property
    def classes(self) -> tuple[str, ...]: ...


class Attribution(ABC):
    """The base of maps that show where in a picture the evidence for a target is.

    Class attributes:
        name: registered name, the file's stem.
        spelt: the name as its paper spells it; empty if that is the same.
        paper: the paper it comes from.
        needs: what it needs of the model.
        cost: forward passes of the trunk, besides the prediction's.
        stochastic: whether a seed matters.
        needs_pixels: whether the look must carry its pixels.
        needs_training: whether it works only with an explainer that was trained for the classifier.
        needs_attention: whether it reads attention, and so explains only transformers.
        needs_words: whether it reads class names word by word, which needs an encoder that returns single words.
        recipe: the recipe whose classifiers it explains, if it explains only these; empty for any classifier.
        engine_alone: whether it reads pixels and runs the network only in the encoder's engine, never in torch.
        small: settings with which it is fast, for tests and trials: ``cls(**cls.small)``.
    """

    name: ClassVar[str]
    spelt: ClassVar[str] = ""
    paper: ClassVar[str]
    needs: ClassVar[str]
    cost: ClassVar[str]
    stochastic: ClassVar[bool] = False
    needs_pixels: ClassVar[bool] = False
    needs_training: ClassVar[bool] = False
    needs_attention: ClassVar[bool] = False
    needs_words: ClassVar[bool] = False
    recipe: ClassVar[str] = ""
    engine_alone: ClassVar[bool] = False
    small: ClassVar[Mapping[str, Any]] = {}

    def __post_init__(self) -> None:
        check_fields(self)

    @property
    def reads_pixels(self) -> bool:
        """Whether a look must carry its pixels: always, or because an inner layer is requested."""
        return self.needs_pixels or getattr(self, "layer", None) is not None

    @undisturbed
    def __call__(self, model: Explainable, look: EncoderOutput, target: TargetFunction) -> Maps:
        """Signed maps, at the features' own resolution or, for methods that read pixels, finer."""
        if self.reads_pixels and look.pixels is None:
            raise InputError(
                f"{self.name} needs the pixels, but the encoder's output has none. Pass encoder.encode(pixels)."
            )
        if isinstance(target, Target):
            check_classes(target, len(look), len(model.head.bias))
        else:
            check_numbers(target, model.head, look)
        in_torch = (self.reads_pixels and not self.engine_alone) or not model.encoder.is_average
        with for_torch() if in_torch else nullcontext():
            maps = self.attribute(model, look, target).detach()
        if not maps.isfinite().all():
            raise InputError(f"{self.name} gives numbers that are not finite on these features. Try --engine torch.")
        return maps

    @abstractmethod
    def attribute(self, model: Explainable, look: EncoderOutput, target: TargetFunction) -> Maps:
        """Compute the map: this is the mathematics of the method."""


def check_classes(target: Target, n_pictures: int, n_classes: int) -> None:
    """Check that there is one existing class per picture."""
    for name, index in (("target", target.index), ("contrast", target.against)):
        if index is None:
            continue
        if index.shape != (n_pictures,):
            raise InputError(f"{len(index)} {name}s were given for {n_pictures} pictures. Give one per picture.")
        if len(index) and not 0 <= int(index.min()) <= int(index.max()) < n_classes:
            raise InputError(
                f"A {name} is not a class index from 0 to {n_classes - 1}. Give the index of one of the classes."
            )


def check_numbers(target: TargetFunction, head: Head, look: EncoderOutput) -> None:
    """Check that a function of the logits gives one number per picture; a sum over pictures would not say which is
    meant.
    """
    with torch.no_grad():
        found = tuple(target(head(look.pooled)).shape)
    if found != (len(look),):
        raise InputError(
            f"The target gives {found} for {len(look)} pictures. Expected one number per picture, ({len(look)},). "
            "Write a function of logits (b, k) that returns (b,)."
        )


@torch.enable_grad()
def feature_gradient(model: Explainable, look: EncoderOutput, target: TargetFunction) -> Float[Tensor, "b c h w"]:
    """``∂ target / ∂ features``, spatial part only; ``(b, c, 1, 1)`` where it is the same in every cell."""
    if model.encoder.is_average:
        leaf = look.pooled.detach().requires_grad_()
        score = model.head.score(leaf, target).sum()
        cells = look.features.shape[2] * look.features.shape[3]
        return torch.autograd.grad(score, leaf)[0][:, :, None, None] / cells
    leaf = look.features.detach().requires_grad_()
    score = target(model.head(model.encoder.head(leaf))).sum()
    return model.encoder.layout.to_grid(torch.autograd.grad(score, leaf)[0])


def engine_logits(model: Explainable, pixels: Float[Tensor, "n 3 h w"], batch_size: int) -> Float[Tensor, "n k"]:
    """Logits from the encoder's engine, ``batch_size`` pictures at a time, without gradients."""
    with torch.no_grad():
        return torch.cat([model.head(model.encoder.pooled(part)) for part in pixels.split(batch_size)])


def scores_of_changes(target: TargetFunction, logits: Float[Tensor, "m b k"], of: Of) -> Float[Tensor, "m b"]:
    """The scores of ``m`` changed copies of ``b`` pictures; a target that is a function always gets logits."""
    values = logits.softmax(2) if of == "probability" and isinstance(target, Target) else logits
    return torch.stack([target(copy) for copy in values])


def scores_of_rows(
    target: TargetFunction, logits: Float[Tensor, "n k"], others: Float[Tensor, "b k"], first: int, step: int
) -> Float[Tensor, " n"]:
    """The target's scores on rows for pictures ``first``, ``first + step``, …, each with the constants of the
    others.
    """
    scores = []
    for r, row in enumerate(logits):
        i = first + r * step
        scores.append(target(torch.cat([others[:i], row[None], others[i + 1 :]]))[i])
    return torch.stack(scores)


def eager_features(model: Explainable, pixels: Float[Tensor, "b 3 h w"]) -> Tensor:
    """Differentiable features from the plain torch trunk, on the pixels' device."""
    trunk = model.encoder.trunk
    device = next((p.device for p in trunk.parameters()), pixels.device)
    return trunk(pixels.to(device)).to(pixels.device)


def eager_logits(model: Explainable, pixels: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b k"]:
    """Differentiable logits from the plain torch trunk."""
    return model.head(model.encoder.head(eager_features(model, pixels)))
