"""The base of every attribution: it checks, and puts the model back as it was; the method writes the mathematics."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import ClassVar, Protocol

import torch
from jaxtyping import Float
from torch import Tensor

from ..classifiers.head import Head, Target
from ..encoders.base import Encoder, Look
from ..errors import InputError


class Explainable(Protocol):
    """What an attribution needs of a classifier."""

    @property
    def encoder(self) -> Encoder: ...

    @property
    def head(self) -> Head: ...


class Attribution(ABC):
    """Shows where the evidence for a target lies.

    Class attributes:
        name: registered name, the file's stem.
        paper: where it is from.
        needs: what it asks of the model.
        cost: in forward passes of the trunk, beside the one that predicts.
        stochastic: whether a seed matters.
    """

    name: ClassVar[str]
    paper: ClassVar[str]
    needs: ClassVar[str]
    cost: ClassVar[str]
    stochastic: ClassVar[bool] = False

    def __call__(self, model: Explainable, look: Look, target: Target) -> Float[Tensor, "b h w"]:
        """Signed maps at the features' own resolution; positive speaks for the target.

        Raises:
            InputError: as many targets as pictures are needed, each one of the head's classes.
        """
        n_classes = len(model.head.bias)
        for name, index in (("target", target.index), ("contrast", target.against)):
            if index is None:
                continue
            if index.shape != (len(look),):
                raise InputError(f"{len(index)} {name}s were given for {len(look)} pictures. Give one a picture.")
            if len(index) and not 0 <= int(index.min()) <= int(index.max()) < n_classes:
                raise InputError(f"A {name} is outside 0…{n_classes - 1}. Give the index of one of the classes.")
        maps = self.attribute(model, look, target).detach()
        if not maps.isfinite().all():
            raise InputError(f"{self.name} gives numbers that are not finite on these features. Try --engine torch.")
        return maps

    @abstractmethod
    def attribute(self, model: Explainable, look: Look, target: Target) -> Float[Tensor, "b h w"]:
        """The mathematics."""


@torch.enable_grad()
def feature_gradient(model: Explainable, look: Look, target: Target) -> Float[Tensor, "b c h w"]:
    """``∂ target / ∂ features``, spatial part only; ``(b, c, 1, 1)`` where it is the same in every cell.

    Only the head is differentiated, on leaves of its own: no parameter, hook or mode of the model is touched.
    """
    if model.encoder.is_average:
        leaf = look.pooled.detach().requires_grad_()
        score = target(model.head(leaf)).sum()
        cells = look.features.shape[2] * look.features.shape[3]
        return torch.autograd.grad(score, leaf)[0][:, :, None, None] / cells
    leaf = look.features.detach().requires_grad_()
    score = target(model.head(model.encoder.head(leaf))).sum()
    return model.encoder.layout.to_grid(torch.autograd.grad(score, leaf)[0])
