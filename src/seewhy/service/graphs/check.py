"""Whether a graph in its runtime answers as SeeWhy does, on real pictures or drawn ones."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Int, UInt8
from torch import Tensor

from ...attributions.grad_cam import GradCAM
from ...classifiers.base import Classifier
from ...encoders.base import EncoderOutput
from ...errors import ModelError
from ...heads.head import Target
from .formats import Run
from .graph import on_cpu

TOLERANCE = 1e-4
"""Largest difference: of a probability; of logits and heat, as a part of a picture's largest one, of logits at least
of 1."""
N_DRAWN = 8


@dataclass(frozen=True)
class Differences:
    """How far a graph was from SeeWhy.

    Attributes:
        logits: as a part of the picture's largest, or of 1.
        probabilities: as they are.
        heat: as a part of the picture's hottest or coldest place.
    """

    logits: float
    probabilities: float
    heat: float

    @property
    def largest(self) -> float:
        return max(self.logits, self.probabilities, self.heat)

    def to_json(self) -> dict[str, float]:
        return {name: float(f"{value:.2g}") for name, value in vars(self).items()}


def drawn(size: tuple[int, int], n: int = N_DRAWN, seed: int = 0) -> UInt8[np.ndarray, "n h w 3"]:
    """Pictures of coloured waves and noise, which light and dark, coarse and fine are all in."""
    random = np.random.default_rng(seed)
    y, x = np.mgrid[0 : size[0], 0 : size[1]] / max(size)
    turns = random.uniform(0.5, 12, (n, 3, 2, 1, 1)) * random.choice([-1, 1], (n, 3, 2, 1, 1))
    waves = np.sin(2 * np.pi * (turns[:, :, 0] * y + turns[:, :, 1] * x) + random.uniform(0, 6, (n, 3, 1, 1)))
    noise = random.normal(0, 25, (n, 3, *size))
    return np.clip(127 + 100 * waves + noise, 0, 255).astype(np.uint8).transpose(0, 2, 3, 1)


def answers(
    classifier: Classifier, views: UInt8[np.ndarray, "b h w 3"], index: Int[Tensor, " b"] | None = None
) -> dict[str, Tensor]:
    """What SeeWhy says of pictures in the encoder's size, in eager torch and float32, under the outputs' names."""
    encoder = classifier.encoder
    with torch.no_grad():
        features = on_cpu(encoder.trunk)(encoder.pixels(list(views)))
        look = EncoderOutput(features, encoder.head(features))
        logits = classifier.head(look.pooled)
    explained = logits.argmax(1) if index is None else index
    heat = GradCAM()(classifier, look, Target(explained))
    probabilities = classifier.head.probabilities(look.pooled)
    return {"logits": logits, "probabilities": probabilities, "heat": heat, "explained": explained[:, None]}


def compare(classifier: Classifier, run: Run, views: UInt8[np.ndarray, "n h w 3"]) -> Differences:
    """All pictures at once and the first one alone, the class decided for and, of each, another one.

    Raises:
        ModelError: the graph differs by more than :data:`TOLERANCE`.
    """
    every = torch.arange(len(views)) % len(classifier.classes)
    cases: Sequence[tuple[Any, Tensor | None]] = ((views, None), (views[:1], None), (views, every))
    found = []
    for pictures, index in cases:
        given = torch.full((len(pictures),), -1) if index is None else index
        got = {name: torch.from_numpy(a) for name, a in run(pictures, given[:, None].numpy()).items()}
        # Of two classes that are equal but for rounding, the graph may name the other one.
        wanted = answers(classifier, pictures, got["explained"][:, 0] if index is None else index)
        found.append(_differences(got, wanted, chosen=index is None))
    whole = Differences(*(max(getattr(one, name) for one in found) for name in Differences.__annotations__))
    if not whole.largest <= TOLERANCE:
        raise ModelError(
            f"The graph answers otherwise than the classifier, by {whole.largest:.1g} on {len(views)} pictures. At "
            f"most {TOLERANCE:.0e} was expected. Export to the other format, and report this."
        )
    return whole


def _differences(got: dict[str, Tensor], wanted: dict[str, Tensor], *, chosen: bool) -> Differences:
    """``chosen``: the graph chose the classes itself, and they must be the likeliest; else they were given to it."""
    if any(got[name].shape != wanted[name].shape for name in wanted) or not got["explained"].equal(wanted["explained"]):
        return Differences(*[float("inf")] * 3)
    logits, heat = wanted["logits"], wanted["heat"]
    largest = logits.abs().amax(1, keepdim=True).clamp(min=1)
    short = (logits.amax(1, keepdim=True) - logits.gather(1, wanted["explained"])) * chosen
    return Differences(
        _most((got["logits"] - logits).abs() / largest, short / largest),
        _most((got["probabilities"] - wanted["probabilities"]).abs()),
        _most((got["heat"] - heat).abs() / heat.abs().amax((1, 2), keepdim=True).clamp(min=1e-12)),
    )


def _most(*values: Tensor) -> float:
    """What is no number is further off than any."""
    return max(float(v.nan_to_num(torch.inf).max()) for v in values)
