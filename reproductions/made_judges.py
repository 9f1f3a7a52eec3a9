"""Who tells photographs from made pictures, on pictures as they are and saved again, blurred, resampled."""

from __future__ import annotations

import io
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch
from jaxtyping import Bool, Float, UInt8
from PIL import Image, ImageFilter
from torch import Tensor, nn

from seewhy.classifiers.base import Classifier
from seewhy.classifiers.linear.recipe import Linear
from seewhy.encoders.base import Encoder
from seewhy.errors import InputError
from seewhy.learning.adaptation.backbone import sized
from seewhy.pictures.samples import Sample, gathered
from seewhy.pictures.sources import InMemory
from seewhy.progress import Progress
from seewhy.seeded import seeded
from seewhy.studies.bootstrap import paired_means, rounded
from seewhy.training.batches import TrainingData
from seewhy.training.loop import Training, train
from seewhy.training.task import Supervised

Change = Callable[[Image.Image], Image.Image]
UNCHANGED = "as it is"


def saved(quality: int) -> Change:
    """As a JPEG of this quality, and read again; chroma at half the size, as is usual."""

    def change(picture: Image.Image) -> Image.Image:
        buffer = io.BytesIO()
        picture.save(buffer, "JPEG", quality=quality, subsampling="4:2:0")
        return Image.open(io.BytesIO(buffer.getvalue())).convert("RGB")

    return change


def blurred(sigma: float) -> Change:
    """By a Gaussian of this standard deviation in pixels."""
    return lambda picture: picture.filter(ImageFilter.GaussianBlur(sigma))


def resampled(part: float) -> Change:
    """Made smaller by this part of its sides and as large again, bilinearly."""

    def change(picture: Image.Image) -> Image.Image:
        small = [max(1, round(part * side)) for side in picture.size]
        return picture.resize((small[0], small[1]), Image.Resampling.BILINEAR).resize(
            picture.size, Image.Resampling.BILINEAR
        )

    return change


PERTURBATIONS: Mapping[str, Change] = {
    UNCHANGED: lambda picture: picture,
    "JPEG 90": saved(90),
    "JPEG 75": saved(75),
    "JPEG 50": saved(50),
    "blur 0.5": blurred(0.5),
    "blur 1": blurred(1.0),
    "resampled 3/4": resampled(0.75),
    "resampled 1/2": resampled(0.5),
}
"""Name → what is done, all of it to photographs and made pictures alike."""


def perturbed(pixels: UInt8[np.ndarray, "n h w 3"], name: str) -> UInt8[np.ndarray, "n h w 3"]:
    """Every picture after one of :data:`PERTURBATIONS`.

    Example:
        >>> grey = np.full((1, 8, 8, 3), 128, np.uint8)
        >>> [int(abs(perturbed(grey, name).astype(int) - 128).max()) for name in ("blur 1", "resampled 1/2")]
        [0, 0]
    """
    change = PERTURBATIONS[name]
    return np.stack([np.asarray(change(Image.fromarray(one))) for one in pixels])


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


RARE = 0.01
"""A share of made pictures that is nearer to life than one half."""
N_DRAWS, LEVEL = 2000, 0.95


@dataclass(frozen=True)
class Table:
    """Who judges, and what each says of every version of the same pictures.

    Attributes:
        judges: by name, the network first, each with one instance per seed.
        said: judge → version → probability of being made, a row per seed.
        made: whether each picture is.
    """

    judges: Mapping[str, tuple[Judge, ...]]
    said: Mapping[str, Mapping[str, Float[Tensor, "s n"]]]
    made: Bool[Tensor, " n"]

    def __post_init__(self) -> None:
        lacks = [name for name in NUMBERS if name not in self.said]
        lacks += ["a frozen encoder"] * (not any(name.startswith("frozen") for name in self.said))
        for judge, versions in self.said.items():
            lacks += [f"{version} of {judge}" for version in PERTURBATIONS if version not in versions]
        if lacks:
            raise InputError(
                f"The table lacks {', '.join(lacks[:3])}. An accuracy is never told without what becomes of it and "
                "what stands beside it. Measure them, too."
            )

    @classmethod
    def of(
        cls,
        judges: Mapping[str, tuple[Judge, ...]],
        versions: Mapping[str, Pixels],
        made: Bool[Tensor, " n"],
        progress: Progress | None = None,
    ) -> Table:
        """Ask everyone of every version."""
        progress, said = progress or Progress(), {name: {} for name in judges}  # type: ignore[var-annotated]
        for version, pixels in progress.track(versions.items(), "Testing", len(versions)):
            for name, seeds in judges.items():
                said[name][version] = torch.stack([judge(pixels) for judge in seeds])
        return cls(judges, said, made)

    def right(self, judge: str, version: str) -> Float[Tensor, "s n"]:
        """1 where a seed is right."""
        return ((self.said[judge][version] > 0.5) == self.made).double()

    def told(self, seed: int) -> dict[str, Any]:
        """Rows with intervals of the first seed, what the others gave, and how often alarms would be wrong."""
        names, versions = [*self.said], [*PERTURBATIONS]
        sums = torch.stack([torch.stack([self.right(j, v)[0] for v in versions]) for j in names])
        drawn = paired_means(sums.flatten(0, 1).T, n_draws=N_DRAWS, level=LEVEL, seed=seed)
        rows = [
            {
                "judge": judge,
                "cells": [self._cell(judge, v, drawn, i * len(versions) + k) for k, v in enumerate(versions)],
            }
            for i, judge in enumerate(names)
        ]
        lead = [{"version": v, **_difference(drawn.difference(k, len(versions) + k))} for k, v in enumerate(versions)]
        clean = rows[0]["cells"][0]
        alarms = wrong_alarms(clean["false_alarms"], clean["missed"], RARE)  # type: ignore[index]
        return {"judges": rows, "lead_over_frozen": lead, "wrong_alarms": round(alarms, 4) if alarms == alarms else 0.0}

    def _cell(self, judge: str, version: str, drawn: Any, place: int) -> dict[str, Any]:
        called = self.said[judge][version][0] > 0.5
        return {
            "version": version,
            "right": drawn.figure(place),
            "false_alarms": round(float(called[~self.made].float().mean()), 4),
            "missed": round(float((~called[self.made]).float().mean()), 4),
            "by_seed": rounded(self.right(judge, version).mean(1).tolist()),
        }


def _difference(found: tuple[float, tuple[float, float], bool]) -> dict[str, Any]:
    value, interval, real = found
    return {"difference": round(value, 4), "interval": rounded(interval), "real": real}
