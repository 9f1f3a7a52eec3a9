"""The base class of attribution methods."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from contextlib import nullcontext
from typing import Any, ClassVar, Literal, Protocol

import torch
from jaxtyping import Float
from torch import Tensor

from ..bounds import Checked
from ..encoders.base import Encoder, EncoderOutput
from ..errors import InputError
from ..heads.head import Head, Target, TargetFunction
from ..threads import for_torch
from ..undisturbed import undisturbed

__all__ = ["Attribution", "Deciding", "EncoderOutput", "Explainable", "Maps", "Target", "TargetFunction"]

Maps = Float[Tensor, "b h w"]
"""One signed map per picture; positive values support the target."""
Of = Literal["logit", "probability"]
"""Whether the target is applied to logits or to probabilities."""


class Explainable(Protocol):
    """The attributes of a classifier that an attribution method needs."""

    @property
    def encoder(self) -> Encoder: ...

    @property
    def head(self) -> Head: ...


class Deciding(Explainable, Protocol):
    """A classifier with named classes."""

    @property
    def classes(self) -> tuple[str, ...]: ...


class Attribution(Checked, ABC):
    """The base class of methods that show where in a picture the evidence for a target is.

    Class attributes: name: registered name, which is also the module's name. spelt: the name as spelt in its paper, if
    this differs from the registered name. paper: reference of the paper. needs: requirements on the model. cost: number
    of forward passes of the trunk, in addition to the pass for the prediction. stochastic: whether the map depends on a
    seed. needs_pixels: whether the encoder output must have its pixels. needs_training: whether the method needs an
    explainer that was trained for the classifier. needs_attention: whether the method works only with transformers.
    needs_words: whether the method needs an encoder that gives a vector for each word of a class name. recipe:
    registered name of the only kind of classifier that the method explains; empty for any kind. engine_alone: whether
    the method runs the network only in the encoder's engine and not in torch. small: fast settings for tests:
    ``cls(**cls.small)``.
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

    @property
    def reads_pixels(self) -> bool:
        """Whether the encoder output must have its pixels, given the method's settings."""
        return self.needs_pixels or getattr(self, "layer", None) is not None

    @undisturbed
    def __call__(self, model: Explainable, look: EncoderOutput, target: TargetFunction) -> Maps:
        """Compute signed maps at the resolution of the features, or finer for methods that need pixels."""
        if self.reads_pixels:
            look.pixels_for(self.name)
        if isinstance(target, Target):
            check_classes(target, len(look), len(model.head.bias))
        else:
            check_numbers(target, model.head, look)
        in_torch = (self.reads_pixels and not self.engine_alone) or not model.encoder.is_average
        with for_torch() if in_torch else nullcontext():
            maps = self.attribute(model, look, target).detach()
        if not maps.isfinite().all():
            raise InputError(f"The maps of {self.name} have NaN or infinity for these features. Try --engine torch.")
        return maps

    @abstractmethod
    def attribute(self, model: Explainable, look: EncoderOutput, target: TargetFunction) -> Maps:
        """Compute one map per picture."""


def check_classes(target: Target, n_pictures: int, n_classes: int) -> None:
    """Check that the target has one valid class index per picture."""
    for name, index in (("target", target.index), ("contrast", target.against)):
        if index is None:
            continue
        if index.shape != (n_pictures,):
            raise InputError(f"There must be one {name} per picture, got {len(index)} for {n_pictures} pictures.")
        if len(wrong := index[(index < 0) | (index >= n_classes)]):
            raise InputError(f"A {name} must be a class index from 0 to {n_classes - 1}, got {int(wrong[0])}.")


def check_numbers(target: TargetFunction, head: Head, look: EncoderOutput) -> None:
    """Check that a target function returns one number per picture."""
    with torch.no_grad():
        found = tuple(target(head(look.pooled)).shape)
    if found != (len(look),):
        raise InputError(
            f"The target must be a function from logits (b, k) to (b,), got the shape {found} for {len(look)} pictures."
        )


@torch.enable_grad()
def feature_gradient(model: Explainable, look: EncoderOutput, target: TargetFunction) -> Float[Tensor, "b c h w"]:
    """Compute ``∂ target / ∂ features`` for the spatial features.

    The shape is ``(b, c, 1, 1)`` if the gradient is the same at all positions.
    """
    if model.encoder.is_average:
        leaf = look.pooled.detach().requires_grad_()
        score = model.head.score(leaf, target).sum()
        cells = look.features.shape[2] * look.features.shape[3]
        return torch.autograd.grad(score, leaf)[0][:, :, None, None] / cells
    leaf = look.features.detach().requires_grad_()
    score = target(model.head(model.encoder.head(leaf))).sum()
    return model.encoder.layout.to_grid(torch.autograd.grad(score, leaf)[0])


def engine_logits(model: Explainable, pixels: Float[Tensor, "n 3 h w"], batch_size: int) -> Float[Tensor, "n k"]:
    """Compute logits with the encoder's engine, in batches."""
    with torch.no_grad():
        return torch.cat([model.head(model.encoder.pooled(part)) for part in pixels.split(batch_size)])


def scores_of_changes(target: TargetFunction, logits: Float[Tensor, "m b k"], of: Of) -> Float[Tensor, "m b"]:
    """Compute the scores of ``m`` modified copies of ``b`` pictures."""
    values = logits.softmax(2) if of == "probability" and isinstance(target, Target) else logits
    return torch.stack([target(copy) for copy in values])


def scores_of_rows(
    target: TargetFunction, logits: Float[Tensor, "n k"], others: Float[Tensor, "b k"], first: int, step: int
) -> Float[Tensor, " n"]:
    """Compute the target's score for each row; ``others`` are the logits of the other pictures in the batch."""
    scores = []
    for r, row in enumerate(logits):
        i = first + r * step
        scores.append(target(torch.cat([others[:i], row[None], others[i + 1 :]]))[i])
    return torch.stack(scores)


def eager_features(model: Explainable, pixels: Float[Tensor, "b 3 h w"]) -> Tensor:
    """Compute differentiable features with the torch trunk."""
    trunk = model.encoder.trunk
    device = next((p.device for p in trunk.parameters()), pixels.device)
    return trunk(pixels.to(device)).to(pixels.device)


def eager_logits(model: Explainable, pixels: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b k"]:
    """Compute differentiable logits with the torch trunk."""
    return model.head(model.encoder.head(eager_features(model, pixels)))
