"""EPIC's own optimiser: Adam on the exponent of the matrix, prototypes renewed before each stage."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor

from seewhy.progress import Progress
from seewhy.prototypes.epic.rotation import FLOOR, Maps, Matrix, strongest

Form = Literal["orthogonal", "invertible"]

CHUNK = 64
"""Pairs whose whole maps are in memory at once."""


def exponential(raw: Float[Tensor, "d d"], form: Form) -> Float[Tensor, "d d"]:
    """``U = exp(A − Aᵀ)`` (orthogonal) or ``U = exp(A)`` (invertible); the identity at ``A = 0``; differentiable."""
    return torch.linalg.matrix_exp(raw - raw.T if form == "orthogonal" else raw)


def schedule(stage: int, start: int = 100, end: int = 5, n_stages: int = 10) -> int:
    """Prototypes a channel in a stage: ``int(max(5, 100 − 9.5 t))``, so the last of ten stages uses 14.

    Example:
        >>> [schedule(t) for t in range(10)]
        [100, 90, 81, 71, 62, 52, 43, 33, 24, 14]
    """
    return int(max(end, start - (start - end) / n_stages * stage))


def peak_loss(
    matrix: Float[Tensor, "d d"], vectors: Float[Tensor, "b d"], channels: Int[Tensor, " b"]
) -> Float[Tensor, ""]:
    """Minus the mean purity of pairs of a picture and a channel, with the features at the peaks given."""
    found = vectors @ matrix.T
    own = found.gather(1, channels[:, None])[:, 0]
    return -(own / found.norm(dim=1).clamp(min=FLOOR)).mean()


@dataclass(frozen=True)
class AdamSchedule:
    """The published schedule: 10 stages of 2 epochs over all pairs of a channel and one of its prototypes.

    Slow at many channels, for every step exponentiates a ``d × d`` matrix and differentiates through it.

    Args:
        learning_rate: of Adam, with its usual betas.
        weight_decay: added to the gradient as ``wd · A``; pulls ``U`` towards the identity.
        batch_size: pairs a step.
        n_stages: times the prototypes are found anew.
        n_epochs: a stage.
        n_start: prototypes a channel in the first stage.
        n_end: the number they fall towards.
        max_seconds: stops after the step that passes this; ``None`` runs to the end.
        max_steps: stops after so many steps; ``None`` runs to the end.
        seed: of the order of pairs.
    """

    learning_rate: float = 1e-3
    weight_decay: float = 1e-5
    batch_size: int = 512
    n_stages: int = 10
    n_epochs: int = 2
    n_start: int = 100
    n_end: int = 5
    max_seconds: float | None = None
    max_steps: int | None = None
    seed: int = 42

    def fit(
        self,
        maps: Maps,
        *,
        progress: Progress | None = None,
        after: Callable[[int, float], None] | None = None,
    ) -> Matrix:
        """Train."""
        progress = progress or Progress()
        width = maps.pooled.shape[1]
        raw = torch.zeros(width, width, requires_grad=True)
        adam = torch.optim.Adam([raw], lr=self.learning_rate, weight_decay=self.weight_decay)
        begun, step = time.perf_counter(), 0
        for stage in range(self.n_stages):
            pairs = self._pairs(maps, raw, stage)
            for pictures, channels in progress.track(pairs, f"Stage {stage + 1}"):
                matrix = exponential(raw, "orthogonal")
                loss = peak_loss(matrix, _at_peaks(maps, matrix.detach(), pictures, channels), channels)
                adam.zero_grad()
                loss.backward()
                adam.step()
                step += 1
                if after is not None:
                    after(step, float(loss.detach()))
                late = self.max_seconds is not None and time.perf_counter() - begun > self.max_seconds
                if late or step == self.max_steps:
                    return exponential(raw.detach().double(), "orthogonal").float()
        return exponential(raw.detach().double(), "orthogonal").float()

    def _pairs(self, maps: Maps, raw: Tensor, stage: int) -> Iterator[tuple[Tensor, Tensor]]:
        """Pictures and channels of each step of a stage: every channel with each of its prototypes, shuffled."""
        with torch.no_grad():
            now = exponential(raw, "orthogonal")
        of = strongest(maps.pooled, now, schedule(stage, self.n_start, self.n_end, self.n_stages))
        channels = torch.arange(len(of))[:, None].expand_as(of).reshape(-1)
        pictures = of.reshape(-1)
        for epoch in range(self.n_epochs):
            draw = torch.Generator().manual_seed(self.seed * 1000 + stage * self.n_epochs + epoch)
            for some in torch.randperm(len(pictures), generator=draw).split(self.batch_size):
                yield pictures[some], channels[some]


def _at_peaks(
    maps: Maps, matrix: Float[Tensor, "d d"], pictures: Int[Tensor, " b"], channels: Int[Tensor, " b"]
) -> Float[Tensor, "b d"]:
    found = []
    for part, rows in zip(pictures.split(CHUNK), channels.split(CHUNK), strict=True):
        cells = torch.stack([maps[i] for i in part.tolist()])
        at = torch.einsum("bsd,bd->bs", cells, matrix[rows]).argmax(1)
        found.append(cells[torch.arange(len(cells)), at])
    return torch.cat(found)
