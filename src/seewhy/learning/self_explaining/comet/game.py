"""COMET's game: what each player wants, and one step of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, Literal

from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from ....training.batches import Batch
from ....training.task import Task
from ...adaptation.backbone import Predictor
from .network import Hide, Selector

Mode = Literal["2p", "3p", "post_hoc"]
Norm = Literal["frozen", "batch"]


@dataclass(frozen=True)
class Objective:
    """What the selector wants.

    ``m_p · CE_P + m_c · max(CE_P − CE_D + gap, 0) + m_1 · mean_b max(mean_px(S_b) − tau, 0)``; ``CE_P`` and ``CE_D``
    are means over the batch, so that the hinge holds or not for the batch as a whole.
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

        Example:
            >>> import torch
            >>> Objective()(torch.tensor(0.5), torch.tensor(0.7), torch.full((2, 4, 4), 0.25))
            tensor(6.3000)
        """
        hinge = (ce_p - ce_d + self.gap).clamp(min=0)
        area = (mask.mean((1, 2)) - self.tau).clamp(min=0).mean()
        return self.m_p * ce_p + self.m_c * hinge + self.m_1 * area


@dataclass(frozen=True, eq=False)
class Players:
    """Selector, predictor and detector, and who of them learns."""

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

    @property
    def changed(self) -> set[str]:
        """Names of those whom a step changes: the players, and a detector whose averages drift."""
        drifts = self.detector_norm == "batch" and self.mode == "2p"
        return {*self.players(), "detector"} if drifts else {*self.players()}


class Playing(Task):
    """A game as it is learnt; each player by its own loss."""

    needs: ClassVar[tuple[str, ...]] = ("pixels", "labels")

    def __init__(self, game: Players) -> None:
        super().__init__()
        self.game, self.hide = game, game.hide
        self.selector, self.predictor, self.detector = game.selector, game.predictor, game.detector
        for name in ("selector", "predictor", "detector"):
            self.get_submodule(name).requires_grad_(name in game.players())

    def players(self) -> Mapping[str, nn.Module]:
        return self.game.players()

    def features(self, batch: Batch) -> tuple[Float[Tensor, "b h w"], Float[Tensor, "b k"], Float[Tensor, "b k"]]:
        """The mask, and the classes' scores of what it shows and of the rest."""
        pixels = batch["pixels"]
        for name in {"predictor", "detector"} - (set() if self.game.pretrained else self.game.changed):
            self.get_submodule(name).eval()
        mask = self.selector(pixels)
        return mask, self.predictor(self.hide(pixels, mask)), self.detector(self.hide(pixels, 1 - mask))

    def loss(self, features: tuple[Tensor, Tensor, Tensor], batch: Batch) -> Mapping[str, Tensor]:
        """Losses by player, and what is worth watching: area of the mask, and how often each is right."""
        (mask, shown, rest), labels = features, batch["labels"]
        ce_p, ce_d = cross_entropy(shown, labels), cross_entropy(rest, labels)
        return {
            "selector": self.game.objective(ce_p, ce_d, mask),
            "predictor": ce_p,
            "detector": ce_d,
            "area": mask.mean(),
            "right": (shown.argmax(1) == labels).float().mean(),
            "right on the rest": (rest.argmax(1) == labels).float().mean(),
        }
