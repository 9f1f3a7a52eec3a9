"""Attribution functions of Captum and Quantus as attribution methods of SeeWhy."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar, cast

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn

from ..attributions.base import Attribution, Explainable
from ..encoders.base import EncoderOutput
from ..errors import InputError
from ..heads.head import Target, TargetFunction
from ..metrics.randomised import RandomisedModel


class ClassifierModule(nn.Module):
    """A classifier as a differentiable ``nn.Module`` from pixels to logits."""

    def __init__(self, classifier: Explainable) -> None:
        super().__init__()
        self.trunk, self.pool, self.head = classifier.encoder.trunk, classifier.encoder.head, classifier.head

    def forward(self, pixels: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b k"]:
        return self.head(self.pool(self.trunk(pixels)))


@dataclass(frozen=True)
class ForeignMethod(Attribution):
    """An attribution function of another library; its result is summed over colours."""

    paper: ClassVar[str] = "the function's own"
    needs: ClassVar[str] = "what the function needs, and the pixels"
    cost: ClassVar[str] = "the function's own"
    needs_pixels: ClassVar[bool] = True

    function: Callable[..., Any]
    options: tuple[tuple[str, Any], ...] = ()

    @torch.enable_grad()
    def attribute(self, model: Explainable, look: EncoderOutput, target: TargetFunction) -> Float[Tensor, "b h w"]:
        if not isinstance(target, Target) or target.against is not None:
            raise InputError(
                f"A {self.name} function explains the logit of one class, without a contrast. Give a class, or use one "
                "of SeeWhy's methods."
            )
        return as_maps(self.found(model, cast(Tensor, look.pixels).detach(), target.index), len(look), self.name)

    @abstractmethod
    def found(self, model: Explainable, pixels: Tensor, classes: Tensor) -> Any:
        """Call the function and return its result."""


@dataclass(frozen=True)
class CaptumMethod(ForeignMethod):
    """An ``attribute(inputs, target=...)`` function or a Captum class."""

    name: ClassVar[str] = "captum"

    def found(self, model: Explainable, pixels: Tensor, classes: Tensor) -> Any:
        function = self.function
        if isinstance(function, type):
            function = function(ClassifierModule(model).eval()).attribute
        elif isinstance(model, RandomisedModel):
            raise InputError(
                "With a randomised network, from_captum needs a class, got a function that is bound to the original "
                "network. Give the class, for example from_captum(IntegratedGradients)."
            )
        return function(pixels.clone().requires_grad_(), target=classes, **dict(self.options))


@dataclass(frozen=True)
class QuantusMethod(ForeignMethod):
    """A Quantus-style ``explain_func(model, inputs, targets, **keywords)`` on NumPy arrays."""

    name: ClassVar[str] = "quantus"

    def found(self, model: Explainable, pixels: Tensor, classes: Tensor) -> Any:
        network = ClassifierModule(model).eval()
        return self.function(network, pixels.numpy().copy(), classes.numpy(), **dict(self.options))


def from_captum(function: Callable[..., Any], **options: Any) -> Attribution:
    """Return an attribution method from a Captum class, or from a bound ``attribute(inputs, target=...,
    **options)``.
    """
    return CaptumMethod(function, tuple(sorted(options.items())))


def from_quantus(function: Callable[..., Any], **options: Any) -> Attribution:
    """Return an attribution method from a Quantus-style ``explain_func(model, inputs, targets, **options)``."""
    return QuantusMethod(function, tuple(sorted(options.items())))


def as_maps(found: Any, n_pictures: int, name: str) -> Float[Tensor, "b h w"]:
    """Convert the result of a function to maps, summed over channels."""
    if isinstance(found, tuple) and len(found) == 1:
        found = found[0]
    maps = found.detach() if isinstance(found, Tensor) else torch.from_numpy(np.asarray(found))
    if maps.ndim == 4:
        maps = maps.sum(1)
    if maps.ndim != 3 or len(maps) != n_pictures:
        raise InputError(
            f"The {name} function must return maps ({n_pictures}, c, h, w) or ({n_pictures}, h, w) for {n_pictures} "
            f"pictures, got {tuple(maps.shape)}."
        )
    return maps.float().cpu()
