"""What the methods taken from Captum share: the plain network, one picture at a time, seeded."""

from __future__ import annotations

import random
from abc import abstractmethod
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from ..bounds import Count
from ..encoders.base import Encoder
from ..errors import MissingExtraError
from ..seeded import seeded as torch_seeded
from .base import Attribution, EncoderOutput, Explainable, Maps, TargetFunction
from .scores import eager_logits, scores_of_rows

__all__ = ["CaptumGradients", "Encoder", "Forward", "Pixels"]

Forward = Callable[[Tensor], Tensor]
"""Pixels ``(n, 3, h, w)`` of one picture, changed n times → the target ``(n,)``."""
Pixels = Float[Tensor, "1 3 h w"]


@dataclass(frozen=True)
class CaptumGradients(Attribution):
    """Runs one of Captum's gradient methods on trunk, head and classifier in plain torch.

    The target is the logit, or the lead over another class. The maps are at pixel resolution, signed, summed over
    the three channels. No parameter gets a gradient; the global random states are put back.

    Args:
        batch_size: versions of the picture in memory at once.
    """

    needs = "pixels and the trunk in torch; the extra 'captum'"
    needs_pixels = True

    batch_size: Count = 16

    def attribute(self, model: Explainable, look: EncoderOutput, target: TargetFunction) -> Maps:
        captum = load_captum(self.name)
        assert look.pixels is not None  # the base has checked
        with torch.no_grad():
            others = model.head(look.pooled)

        def forward(pixels: Tensor) -> Tensor:
            return scores_of_rows(target, eager_logits(model, pixels), others, number, 0)

        maps = []
        for number in range(len(look)):
            picture = look.pixels[number : number + 1].detach().clone().requires_grad_()
            with seeded(getattr(self, "seed", 0)), torch.enable_grad():
                maps.append(self.run(captum, forward, picture, model.encoder).detach().float().sum(1))
        return torch.cat(maps) if maps else look.pixels.sum(1)

    @abstractmethod
    def run(self, captum: Any, forward: Forward, picture: Pixels, encoder: Encoder) -> Pixels:
        """Captum's call; ``captum`` is the module ``captum.attr``."""


def load_captum(what: str) -> Any:
    """``captum.attr``, where it is installed."""
    try:
        import captum.attr
    except ImportError as error:
        raise MissingExtraError("captum", what) from error
    return captum.attr


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Global random states at a seed (Captum draws from torch's and NumPy's), and afterwards as they were."""
    numpy_state, python_state = np.random.get_state(), random.getstate()
    with torch_seeded(seed):
        np.random.seed(seed)
        try:
            yield
        finally:
            np.random.set_state(numpy_state)
            random.setstate(python_state)
