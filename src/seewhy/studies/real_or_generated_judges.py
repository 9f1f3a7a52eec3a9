"""Who tells photographs from made pictures: networks, and what sees no picture at all but a few numbers of it."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from jaxtyping import Bool, Float, UInt8
from torch import Tensor, nn

from ..classifiers.base import Classifier
from ..classifiers.linear.recipe import Linear
from ..encoders.base import Encoder
from ..learning.adaptation.backbone import sized
from ..pictures.samples import Sample, gathered
from ..pictures.sources import InMemory
from ..seeded import seeded
from ..training.batches import TrainingData
from ..training.loop import Training, train
from ..training.task import Supervised

Pixels = UInt8[np.ndarray, "n h w 3"]
FROZEN_SIDE = 96
"""Pixels at which the frozen encoder looks: small pictures, three times as large."""
EPOCHS = 60
"""Of what learns from a few numbers."""


class Judge(Protocol):
    """Says of each picture how likely it was made."""

    def __call__(self, pixels: Pixels) -> Float[Tensor, " n"]: ...


def colours(pixels: Pixels) -> Float[Tensor, "n 6"]:
    """Mean and spread of each channel: no place, no edge, no thing."""
    flat = torch.from_numpy(pixels).float().flatten(1, 2) / 255
    return torch.cat([flat.mean(1), flat.std(1, unbiased=False)], 1)


def spectrum(pixels: Pixels) -> Float[Tensor, "n f"]:
    """Logarithm of the grey picture's power at each whole radius of frequency, without the mean: no place either.

    Example:
        >>> spectrum(np.zeros((1, 32, 32, 3), np.uint8)).shape
        torch.Size([1, 22])
    """
    grey = torch.from_numpy(pixels).double().mean(3) / 255
    power = torch.fft.fft2(grey).abs().square()
    at = torch.meshgrid(*(torch.fft.fftfreq(side) * side for side in grey.shape[1:]), indexing="ij")
    radius = (at[0].square() + at[1].square()).sqrt().floor().long().flatten()
    sums = torch.zeros(len(grey), int(radius.max()) + 1, dtype=torch.double).index_add_(1, radius, power.flatten(1))
    return (sums / radius.bincount()).add(1e-6).log()[:, 1:].float()


def both(pixels: Pixels) -> Float[Tensor, "n f"]:
    """Colours and spectrum."""
    return torch.cat([colours(pixels), spectrum(pixels)], 1)


NUMBERS: dict[str, Callable[[Pixels], Tensor]] = {
    "colour alone": colours,
    "spectrum alone": spectrum,
    "colour and spectrum": both,
}


@dataclass(frozen=True)
class OfNumbers:
    """A few numbers of a picture, standardised, and a small perceptron on them.

    Attributes:
        measure: pictures → numbers.
        mean: of the pictures learnt from.
        spread: of them.
        network: numbers → scores of real and made.
    """

    measure: Callable[[Pixels], Tensor]
    mean: Float[Tensor, " f"]
    spread: Float[Tensor, " f"]
    network: nn.Module

    @classmethod
    def fit(cls, measure: Callable[[Pixels], Tensor], pixels: Pixels, made: Bool[Tensor, " n"], seed: int) -> OfNumbers:
        """Learnt from pictures of which it is known."""
        numbers = measure(pixels)
        mean, spread = numbers.mean(0), numbers.std(0).clamp(min=1e-6)
        width = numbers.shape[1]
        with seeded(seed):
            network = nn.Sequential(nn.Linear(width, 64), nn.ReLU(), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 2))
        size = min(64, len(made))
        how = Training(EPOCHS * (len(made) // size), size, lr=3e-3, weight_decay=1e-2, schedule="cosine", seed=seed)
        data = TrainingData(len(made), {"numbers": (numbers - mean) / spread, "labels": made.long()})
        train(Supervised(network, column="numbers"), data, how)
        return cls(measure, mean, spread, network)

    @torch.no_grad()
    def __call__(self, pixels: Pixels) -> Float[Tensor, " n"]:
        scores: Tensor = self.network((self.measure(pixels) - self.mean) / self.spread)
        return scores.softmax(1)[:, 1]


@dataclass(frozen=True)
class OfClassifier:
    """Any classifier of the two.

    Attributes:
        classifier: of the pictures.
        made: its class of made ones.
    """

    classifier: Classifier
    made: str

    def __call__(self, pixels: Pixels) -> Float[Tensor, " n"]:
        said = self.classifier.predict_proba(list(pixels), batch_size=128)
        return torch.from_numpy(said[:, self.classifier.index_of(self.made)].copy())


def frozen(encoder: Encoder, pixels: Pixels, made: Bool[Tensor, " n"], seed: int) -> OfClassifier:
    """A linear layer on an encoder that was never trained for this."""
    labels = ["generated" if one else "real" for one in made.tolist()]
    items = [Sample(f"{i}", labels[i], pixels=_held(i, one)) for i, one in enumerate(pixels)]
    linear = Linear(n_crops=0, n_bank=1, split="random", seed=seed)
    return OfClassifier(linear.fit(enlarged(encoder), gathered(items)), "generated")


def enlarged(encoder: Encoder) -> Encoder:
    """The encoder at :data:`FROZEN_SIDE`, where its network takes it."""
    return encoder if encoder.layout.kind == "tokens" else sized(encoder, FROZEN_SIDE)


def _held(number: int, pixels: np.ndarray) -> InMemory:
    return InMemory(f"picture {number}", lambda: pixels)


def wrong_alarms(false_alarms: float, missed: float, share: float) -> float:
    """Part of those called made that are not, where so many are made.

    Example:
        >>> round(wrong_alarms(0.107, 0.039, 0.01), 3)
        0.917
    """
    wrong, right = false_alarms * (1 - share), (1 - missed) * share
    return wrong / (wrong + right) if wrong + right else math.nan
