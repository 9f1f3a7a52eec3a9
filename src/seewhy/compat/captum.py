"""Captum's and Quantus' explanation functions as attributions, for ``where=``, metrics and cards."""

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
    """A classifier as a plain network, pixels → logits, differentiable, as explanation libraries expect."""

    def __init__(self, classifier: Explainable) -> None:
        super().__init__()
        self.trunk, self.pool, self.head = classifier.encoder.trunk, classifier.encoder.head, classifier.head

    def forward(self, pixels: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b k"]:
        return self.head(self.pool(self.trunk(pixels)))


@dataclass(frozen=True)
class ForeignMethod(Attribution):
    """A function of another library, of which SeeWhy knows only the result; maps are summed over colours."""

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
                f"A {self.name} function explains the logit of one class, and a contrast or another function was "
                "given. Expected a class. Give a class alone, or use one of SeeWhy's methods."
            )
        return as_maps(self.found(model, cast(Tensor, look.pixels).detach(), target.index), len(look), self.name)

    @abstractmethod
    def found(self, model: Explainable, pixels: Tensor, classes: Tensor) -> Any:
        """The result of the function."""


@dataclass(frozen=True)
class CaptumMethod(ForeignMethod):
    """Another library's ``attribute(inputs, target=...)``."""

    name: ClassVar[str] = "captum"

    def found(self, model: Explainable, pixels: Tensor, classes: Tensor) -> Any:
        function = self.function
        if isinstance(function, type):
            function = function(ClassifierModule(model).eval()).attribute
        elif isinstance(model, RandomisedModel):
            raise InputError(
                "To compare with a randomised copy of the network, the function must be bound to that copy. "
                "Expected a class, and got a function bound to its own network. Give the class, for example "
                "from_captum(IntegratedGradients)."
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
    """Use a Captum class, or any bound ``attribute(inputs, target=..., **options)``, as an attribution."""
    return CaptumMethod(function, tuple(sorted(options.items())))


def from_quantus(function: Callable[..., Any], **options: Any) -> Attribution:
    """Use any Quantus-style ``explain_func(model, inputs, targets, **options)`` as an attribution."""
    return QuantusMethod(function, tuple(sorted(options.items())))


def as_maps(found: Any, n_pictures: int, name: str) -> Float[Tensor, "b h w"]:
    """The result of a function, summed over channels."""
    if isinstance(found, tuple) and len(found) == 1:
        found = found[0]
    maps = found.detach() if isinstance(found, Tensor) else torch.from_numpy(np.asarray(found))
    if maps.ndim == 4:
        maps = maps.sum(1)
    if maps.ndim != 3 or len(maps) != n_pictures:
        raise InputError(
            f"The {name} function returns {tuple(maps.shape)} for {n_pictures} pictures. Expected maps "
            f"({n_pictures}, c, h, w) or ({n_pictures}, h, w). Wrap it in a function that returns such maps."
        )
    return maps.float().cpu()
