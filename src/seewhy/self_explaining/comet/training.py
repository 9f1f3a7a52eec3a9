"""COMET's game: what each player wants, and one step of it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from ...adaptation.backbone import Predictor
from ...listener import Listener
from ...training.loop import Trained, Training, train
from .selector import Hide, Selector

Mode = Literal["2p", "3p", "post_hoc"]
Norm = Literal["frozen", "batch"]


@dataclass(frozen=True)
class Objective:
    """What the selector wants.

    ``m_p · CE_P + m_c · max(CE_P − CE_D + gap, 0) + m_1 · mean_b max(mean_px(S_b) − tau, 0)``; ``CE_P`` and ``CE_D``
    are means over the batch, so that the hinge holds or not for the batch as a whole.

    Attributes:
        m_p: weight of sufficiency: the predictor is right on what is shown.
        m_c: weight of completeness: the detector is wrong on what is left.
        gap: how much worse the detector must be for the hinge to be content, in nats.
        m_1: weight of the area.
        tau: area that is free, as a part of the picture.
    """

    m_p: float = 1.0
    m_c: float = 1.0
    gap: float = 1.0
    m_1: float = 100.0
    tau: float = 0.2

    def __call__(
        self, ce_p: Float[Tensor, ""], ce_d: Float[Tensor, ""], mask: Float[Tensor, "b h w"]
    ) -> Float[Tensor, ""]:
        """The loss.

        Args:
            ce_p: cross entropy of the predictor on the shown part.
            ce_d: that of the detector on the rest.
            mask: of every picture.

        Example:
            >>> Objective()(torch.tensor(0.5), torch.tensor(0.7), torch.full((2, 4, 4), 0.25))
            tensor(6.3000)
        """
        hinge = (ce_p - ce_d + self.gap).clamp(min=0)
        area = (mask.mean((1, 2)) - self.tau).clamp(min=0).mean()
        return self.m_p * ce_p + self.m_c * hinge + self.m_1 * area


@dataclass(frozen=True, eq=False)
class Game:
    """Selector, predictor and detector, and who of them learns.

    Attributes:
        selector: always learns, by :class:`Objective`.
        predictor: sees what is shown; learns by ``CE_P`` except in ``"post_hoc"``.
        detector: sees the rest; learns by ``CE_D`` in ``"3p"`` only. In ``"post_hoc"`` it is the predictor.
        mode: ``"2p"``, ``"3p"`` or ``"post_hoc"``.
        objective: the selector's.
        hide: what stands where nothing is shown.
        pretrained: whether predictor and detector come from a trained network: their normalisation then stays as it
            is, since small batches of masked pictures would spoil it.
        detector_norm: ``"frozen"``, or ``"batch"``: a detector that does not learn is normalised by the batch all the
            same and its running averages drift, as in the authors' code.
    """

    selector: Selector
    predictor: Predictor
    detector: Predictor
    mode: Mode
    objective: Objective
    hide: Hide
    pretrained: bool = False
    detector_norm: Norm = "frozen"

    def players(self) -> dict[str, nn.Module]:
        """Those who learn, under the names of their losses."""
        found: dict[str, nn.Module] = {"selector": self.selector}
        if self.mode != "post_hoc":
            found["predictor"] = self.predictor
        if self.mode == "3p":
            found["detector"] = self.detector
        return found

    def parts(self) -> nn.ModuleDict:
        """Everything a step changes: the players, and a detector whose averages drift."""
        parts = self.players()
        if self._drifts:
            parts["detector"] = self.detector
        return nn.ModuleDict(parts)

    @property
    def _drifts(self) -> bool:
        return self.detector_norm == "batch" and not self.pretrained and self.mode == "2p"

    def ready(self) -> None:
        """Who learns has gradients; the rest is frozen."""
        players = self.players()
        for name, part in (("predictor", self.predictor), ("detector", self.detector)):
            part.requires_grad_(name in players)
            if name not in self.parts():
                part.eval()
        self.selector.requires_grad_(True)

    def terms(self, pixels: Float[Tensor, "b 3 h w"], labels: Int[Tensor, " b"]) -> dict[str, Tensor]:
        """Losses by player, and what is worth watching: area of the mask, and how often each is right."""
        if self.pretrained:
            for part in (self.predictor, self.detector):
                part.eval()
        mask = self.selector(pixels)
        shown = self.predictor(self.hide(pixels, mask))
        rest = self.detector(self.hide(pixels, 1 - mask))
        ce_p, ce_d = cross_entropy(shown, labels), cross_entropy(rest, labels)
        return {
            "selector": self.objective(ce_p, ce_d, mask),
            "predictor": ce_p,
            "detector": ce_d,
            "area": mask.mean(),
            "right": (shown.argmax(1) == labels).float().mean(),
            "right on the rest": (rest.argmax(1) == labels).float().mean(),
        }


@dataclass(frozen=True)
class Lesson:
    """Pictures to learn from, and for how long.

    Attributes:
        read: positions of pictures → normalised pixels, and the positions of those that could be read; for files
            :meth:`seewhy.training.augmentation.TrainingPictures.batch`.
        labels: of each picture.
        how: steps, batch, rate, seed.
        device: where the networks are while they learn; left out, where they are.
    """

    read: Callable[[Sequence[int]], tuple[Tensor, list[int]]]
    labels: Int[Tensor, " n"]
    how: Training
    device: torch.device | None = None

    def batch(self, index: Sequence[int]) -> tuple[Float[Tensor, "b 3 h w"], Int[Tensor, " b"]]:
        pixels, kept = self.read(index)
        return pixels.to(self.device), self.labels[kept].to(self.device)


def play(
    game: Game, lesson: Lesson, checkpoint: tuple[Path, str] | None = None, listener: Listener | None = None
) -> Trained:
    """Train the players in place, each by its own loss; all end frozen, in evaluation mode, on the CPU."""
    game.ready()
    parts = game.parts().to(lesson.device)
    everyone = nn.ModuleList([parts, game.predictor, game.detector, game.hide]).to(lesson.device)

    def loss(index: Sequence[int]) -> Mapping[str, Tensor]:
        return game.terms(*lesson.batch(index))

    done = train(
        parts, loss, len(lesson.labels), lesson.how, players=game.players(), checkpoint=checkpoint, listener=listener
    )
    everyone.cpu().eval().requires_grad_(False)
    return done


def learn(
    predictor: Predictor, lesson: Lesson, checkpoint: tuple[Path, str] | None = None, listener: Listener | None = None
) -> Trained:
    """Train a plain classifier on whole pictures, in place."""
    predictor.requires_grad_(True).to(lesson.device)

    def loss(index: Sequence[int]) -> Mapping[str, Tensor]:
        pixels, labels = lesson.batch(index)
        return {"loss": cross_entropy(predictor(pixels), labels)}

    done = train(predictor, loss, len(lesson.labels), lesson.how, checkpoint=checkpoint, listener=listener)
    predictor.cpu().requires_grad_(False)
    return done
