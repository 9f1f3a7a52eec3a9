"""COMET (Zhang et al. 2024, arXiv 2407.19308): a classifier that explains itself by a mask."""

from __future__ import annotations

import copy
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, ClassVar

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn.functional import adaptive_avg_pool2d

from ....bounds import Bound, Count, NotNegative, OpenPart
from ....classifiers import classifiers
from ....classifiers.base import HeldOut
from ....classifiers.encoded_set import EncodedSet, spread
from ....classifiers.fitting import Fitting, Outcome
from ....classifiers.linear.recipe import Linear
from ....classifiers.linear.solvers import fit_linear, fit_temperature
from ....classifiers.network import Network
from ....encoders.base import Encoder
from ....errors import ImageError, InputError
from ....heads.head import Head
from ....pictures.images import read_picture
from ....pictures.samples import Samples
from ....progress import Progress
from ....seeded import seeded
from ....storage.marks import CHECKPOINT
from ....storage.output import remove
from ....training.batches import TrainingData
from ....training.loop import Schedule, Trained, Training, mean_terms, train
from ....training.task import Supervised
from ....types import Failure
from ...adaptation.backbone import (
    Backbone,
    Predictor,
    Start,
    TunedNetwork,
    new_predictor,
    predictor_of,
    training_columns,
)
from ...network_recipe import NetworkRecipe
from .network import COMETNetwork, Fill, Hide, Kind, Mode, Norm, Playing, make_selector

RELEASED: dict[str, float] = {"m_c": 4.0, "gap": 2.0, "tau": 0.6}
"""Loss weights of the authors' published configuration that differ from the defaults."""
BATCH = 16
MOST = 1000
"""Maximum number of training and of held-out pictures to evaluate on."""
SIDE = 12
"""Side of the mean-pooled masks for the linear probe."""
N_LEVELS = 17
"""Number of quantiles of the mask's values for the linear probe."""


@classifiers.register
@dataclass(frozen=True)
class COMET(NetworkRecipe):
    """Classifier that predicts from a masked picture; the mask is its explanation.

        x_s = S ∘ x + (1 − S) ∘ q

    * ``S``: mask from the selector, the same for every class.
    * ``x``, ``q``: picture and fill colour.

    A predictor classifies ``x_s``. A detector, trained on whole pictures, classifies the complement, in which the shown
    pixels are hidden. The loss is small if the predictor is right, the detector is clearly worse and the mask is small
    (:meth:`objective`).

    Args:
        mode: ``"2p"`` trains selector and predictor, with a fixed detector. ``"3p"`` also trains the detector, on the
            complement. ``"post_hoc"`` trains only the selector; a frozen classifier is both predictor and detector.
        backbone: network of predictor and detector: ``"encoder"``, the encoder with a linear layer, or ``"scratch"``, a
            small ResNet for small pictures. With ``"scratch"``, the detector is first trained for ``n_steps``.
        selector: network that predicts the mask: ``"unet"`` or ``"lraspp"``.
        m_p: weight of the predictor's loss (sufficiency), at least 0.
        m_c: weight of the detector's loss (completeness), at least 0 (authors: 4); 0 is plain select-then-predict.
        gap: margin by which the detector must be worse on the complement, in nats (authors: 2).
        m_1: weight of the mask's area, at least 0; a higher value gives smaller masks.
        tau: area of the mask up to which its loss is 0, as a fraction of the picture, 0 to 1 (authors: 0.6).
        fill: colour of the hidden pixels: ``"mean"`` or ``"black"``; default: as the authors, black for ``"post_hoc"``
            and mean otherwise.
        detector_norm: batch normalisation of the detector: ``"frozen"``, or ``"batch"`` for batch statistics, which
            needs ``"2p"`` and ``"scratch"``.
        size: side of the pictures in pixels; default: the encoder's input size. Smaller is faster.
        n_steps: number of training steps.
        batch_size: pictures per step (authors: 128); lower it if memory runs out.
        lr: learning rate of AdamW (authors: 0.0005 over 200 epochs, which is too low for short training).
        encoder_lr: learning rate of the encoder's layers in predictor and detector, as a multiple of ``lr``.
        weight_decay: weight decay (authors: 0.03).
        schedule: learning rate schedule (authors: ``"milestones"``); see :class:`seewhy.training.loop.Training`.
    """

    name: ClassVar[str] = "comet"
    paper: ClassVar[str] = "Zhang et al. 2024, arXiv:2407.19308"
    needs: ClassVar[str] = "labelled pictures"
    cost: ClassVar[str] = "1, and 1 of the selector"
    network: ClassVar[type[Network] | None] = COMETNetwork
    takes: ClassVar = ("descriptions", "checkpoint")
    small: ClassVar = {"n_steps": 2, "batch_size": 4}

    mode: Mode = "2p"
    backbone: Backbone = "encoder"
    selector: Kind = "unet"
    m_p: NotNegative = 1.0
    m_c: NotNegative = 4.0
    gap: float = 2.0
    m_1: NotNegative = 100.0
    tau: OpenPart = 0.2
    fill: Fill | None = None
    detector_norm: Norm = "frozen"
    size: Annotated[int, Bound(32)] | None = None
    n_steps: int = 300
    batch_size: Count = 16
    lr: float = 2e-3
    encoder_lr: float = 0.1
    weight_decay: float = 0.03
    schedule: Schedule = "milestones"
    n_bank: int = 1000

    def objective(
        self, ce_p: Float[Tensor, ""], ce_d: Float[Tensor, ""], mask: Float[Tensor, "b h w"]
    ) -> Float[Tensor, ""]:
        """Compute the loss of the selector.

            m_p · CE_P + m_c · max(CE_P − CE_D + gap, 0) + m_1 · mean_b max(mean_px(S_b) − tau, 0)

        ``CE_P`` is the cross entropy of the predictor on shown pixels, ``CE_D`` that of the detector on hidden pixels,
        and ``S_b`` the mask of picture ``b``.
        """
        hinge = (ce_p - ce_d + self.gap).clamp(min=0)
        area = (mask.mean((1, 2)) - self.tau).clamp(min=0).mean()
        return self.m_p * ce_p + self.m_c * hinge + self.m_1 * area

    def learn(self, fitting: Fitting) -> Outcome:
        encoder, progress, checkpoint = fitting.encoder, fitting.progress, fitting.checkpoint
        if fitting.descriptions is not None and not self._frozen:
            raise InputError(
                "comet accepts descriptions only with mode='post_hoc' and backbone='encoder', got "
                f"mode={self.mode!r} and backbone={self.backbone!r}. Set both, or leave the descriptions out."
            )
        base = self._start.of(encoder)
        pictures = self._start.encode(fitting, base)
        data = TrainingData(len(pictures.trained), training_columns(fitting, base, pictures))
        facts = [(pictures.encoded[i].digest, int(pictures.labels[i])) for i in pictures.trained]
        seal = json.dumps([self.parameters(), base.fingerprint, facts])
        plain = None if checkpoint is None else checkpoint.with_name(f"{checkpoint.name}.plain")
        judge = self._plain(base, pictures, data, fitting, None if plain is None else (plain, seal))
        game = self._game(base, judge)
        done = train(game, data, self._training, checkpoint=fitting.sealed(seal), progress=progress)
        outcome = self._outcome(encoder, game, judge, pictures, done, progress)
        if plain is not None:
            remove(plain, CHECKPOINT)
        return outcome

    @property
    def _frozen(self) -> bool:
        return self.mode == "post_hoc" and self.backbone == "encoder"

    @property
    def _start(self) -> Start:
        return Start(self.backbone, self.size)

    @property
    def _training(self) -> Training:
        learnt = ("predictor.", "detector.") if self.backbone == "encoder" else ()
        parts = tuple((name, self.encoder_lr) for name in learnt)
        return Training.of(self, warmup=max(1, self.n_steps // 100), part_lr=parts)

    def _plain(
        self, base: Encoder, pictures: EncodedSet, data: TrainingData, fitting: Fitting, kept: tuple[Path, str] | None
    ) -> Predictor:
        """Return a classifier of whole pictures, which serves as detector and baseline."""
        if self.backbone == "scratch":
            with seeded(self.seed):
                plain = new_predictor(len(pictures.classes))
            train(Supervised(plain), data, self._training, checkpoint=kept, progress=fitting.progress)
            return plain
        own, held = (_some(pictures, part) for part in (~pictures.held, pictures.held))
        linear = Linear(n_crops=2, n_bank=1, seed=self.seed, held_out=0.0)
        validation = held if len(held) else None
        fitted = linear.fit(base, own, validation=validation, store=fitting.store, progress=fitting.progress)
        return predictor_of(base, fitted.head)

    def _game(self, base: Encoder, judge: Predictor) -> Playing:
        """Return the untrained selector, predictor and detector."""
        with seeded(self.seed + 1):
            selector = make_selector(self.selector)
            new = [new_predictor(len(judge.bias)) if self.backbone == "scratch" else copy.deepcopy(judge) for _ in "pd"]
        predictor = judge if self.mode == "post_hoc" else new[0]
        drifts = self.mode == "2p" and self.detector_norm == "batch"
        detector = new[1] if self.mode == "3p" else copy.deepcopy(judge) if drifts else judge
        hide = Hide(self._fill, base.transform)
        pretrained = self.backbone == "encoder"
        return Playing(selector, predictor, detector, self.mode, self.objective, hide, pretrained, self.detector_norm)

    @property
    def _fill(self) -> Fill:
        return self.fill or ("black" if self.mode == "post_hoc" else "mean")

    def _outcome(
        self, encoder: Encoder, game: Playing, judge: Predictor, pictures: EncodedSet, done: Trained, progress: Progress
    ) -> Outcome:
        settings = {"selector": self.selector, "fill": self._fill, "frozen": self._frozen}
        player = game.predictor
        network = COMETNetwork(encoder, game.selector, TunedNetwork(encoder, player.image, self._start), settings)
        played = watch(game, judge, network.encoder(), pictures, progress)
        found, heat = figures(played), temperature(played)
        head = Head(player.feature, player.weight / heat, player.bias / heat)
        made = self.classifier(network, pictures, head, played.held_out(), _of_mask(int(pictures.held.sum()), found))
        further = {"temperature": round(heat, 4), "last_steps": mean_terms(done.history[-20:])}
        return Outcome(made, pictures, {**found, **further}, keep=False)


def _some(pictures: EncodedSet, part: Tensor) -> Samples:
    items = tuple(pictures.items[i] for i in part.nonzero()[:, 0].tolist())
    return Samples(items, tuple(c for c in pictures.classes if any(s.label == c for s in items)))


def _of_mask(n_held: int, found: Mapping[str, Any]) -> str:
    """Return a sentence about the mask, for the card."""
    text = f"; the mask shows {100 * found['mean_mask_area']:.0f} % of a picture"
    if "mask_alone_accuracy" not in found:
        return text
    return (
        f"{text}; on {n_held:,} held-out pictures the mask alone predicts the class "
        f"{100 * found['mask_alone_accuracy']:.0f} % of the time (chance {100 * found['chance']:.0f} %), and the "
        f"hidden rest does so {100 * found['complement_accuracy']:.0f} % of the time"
    )


@dataclass(frozen=True)
class Played:
    """Outputs of selector, predictor and detector."""

    labels: Int[Tensor, " n"]
    held: Bool[Tensor, " n"]
    masks: Float[Tensor, "n p"]
    area: Float[Tensor, " n"]
    pooled: Float[Tensor, "n d"]
    shown: Float[Tensor, "n k"]
    right: dict[str, Bool[Tensor, " n"]]
    groups: Int[Tensor, " n"]

    def held_out(self) -> HeldOut | None:
        held = self.held
        if not bool(held.any()):
            return None
        return HeldOut(self.pooled[held], self.labels[held], self.shown[held] / temperature(self), self.groups[held])


@torch.no_grad()
def watch(game: Playing, judge: Predictor, encoder: Encoder, pictures: EncodedSet, progress: Progress) -> Played:
    """Run the three networks on up to 1000 training and 1000 held-out pictures, spread evenly over the classes."""
    of = pictures.labels.tolist()
    every = [i for part in (pictures.held, ~pictures.held) for i in spread(of, part.tolist(), MOST)]
    chosen = [every[i] for i in torch.randperm(len(every), generator=torch.Generator().manual_seed(0)).tolist()]
    lent: tuple[Tensor, Tensor] | None = None
    kept: list[int] = []
    masks: list[Tensor] = []
    area: list[Tensor] = []
    pooled: list[Tensor] = []
    right: dict[str, list[Tensor]] = {}
    for some, pixels in _read(encoder, pictures, progress.track(chosen, "Measuring the masks", len(chosen)), progress):
        mask, truth = game.selector(pixels), pictures.labels[some]
        hard = (mask > 0.5).to(mask)
        views = {
            "binarised mask": (game.predictor, game.hide(pixels, hard)),
            "another picture's mask": (game.predictor, game.hide(pixels, borrowed(mask, truth, lent))),
            "whole picture": (judge, pixels),
            "rest": (judge, game.hide(pixels, 1 - mask)),
            "binarised rest": (judge, game.hide(pixels, 1 - hard)),
        }
        for name, (player, view) in views.items():
            right.setdefault(name, []).append(player(view).argmax(1) == truth)
        pooled.append(game.predictor.image(game.hide(pixels, mask)))
        lent = (mask, truth)
        kept += some
        masks.append(probed(mask))
        area.append(mask.mean((1, 2)))
    labels, seen = pictures.labels[kept], torch.cat(pooled)
    shown = game.predictor.head()(seen)
    found = {"mask": shown.argmax(1) == labels} | {name: torch.cat(parts) for name, parts in right.items()}
    parts = torch.cat(masks), torch.cat(area), seen, shown, found, pictures.groups[kept]
    return Played(labels, pictures.held[kept], *parts)


def borrowed(
    mask: Float[Tensor, "b h w"], labels: Int[Tensor, " b"], lent: tuple[Tensor, Tensor] | None = None
) -> Float[Tensor, "b h w"]:
    """Return, for each picture, the mask of another picture, if possible of another class."""
    offered, whose = (mask, labels) if lent is None else (torch.cat([mask, lent[0]]), torch.cat([labels, lent[1]]))
    place, own = torch.arange(len(offered)), torch.arange(len(mask))[:, None]
    is_other, differs = place != own, whose[None] != labels[:, None]
    may = torch.where(differs.any(1, keepdim=True), differs, is_other)
    behind = (place - own) % len(offered)  # the next one that may, so that each is lent about once
    return offered[behind.masked_fill(~may, len(offered)).argmin(1)]


def probed(mask: Float[Tensor, "b h w"]) -> Float[Tensor, "b p"]:
    """Return the features of a mask for the linear probe: coarse mean values and quantiles."""
    cells = adaptive_avg_pool2d(mask[:, None], SIDE).flatten(1)
    levels = mask.flatten(1).quantile(torch.linspace(0, 1, N_LEVELS), dim=1).T
    return torch.cat([cells, levels], 1)


def _read(
    encoder: Encoder, pictures: EncodedSet, chosen: Iterator[int] | Sequence[int], progress: Progress
) -> Iterator[tuple[list[int], Float[Tensor, "b 3 h w"]]]:
    """Yield batches of preprocessed pictures; unreadable pictures are skipped."""
    some: list[int] = []
    views = []
    for i in chosen:
        try:
            views.append(read_picture(pictures.items[i].source, encoder.transform).pixels)
            some.append(i)
        except ImageError as error:
            progress.failed(Failure(pictures.items[i].image, error.reason))
        if len(some) == BATCH:
            yield some, encoder.pixels(views)
            some, views = [], []
    if some:
        yield some, encoder.pixels(views)


def figures(played: Played) -> dict[str, Any]:
    """Return held-out accuracies, the mean mask area, and the accuracy of a linear probe on masks."""
    held = played.held
    if not bool(held.any()):
        return {"mean_mask_area": round(float(played.area.mean()), 4)}
    found: dict[str, Any] = {"mean_mask_area": round(float(played.area[held].mean()), 4)}
    for key, view in (
        ("accuracy", "mask"),
        ("accuracy_binarised", "binarised mask"),
        ("accuracy_with_another_pictures_mask", "another picture's mask"),
        ("plain_accuracy", "whole picture"),
        ("complement_accuracy", "rest"),
        ("complement_accuracy_binarised", "binarised rest"),
    ):
        found[key] = round(float(played.right[view][held].float().mean()), 4)
    counts = played.labels[held].bincount()
    found["chance"] = round(float(counts.max() / counts.sum()), 4)
    found["mask_alone_accuracy"] = mask_alone(played)
    return found


def mask_alone(played: Played) -> float:
    """Return the held-out accuracy of a linear classifier that sees only the masks, not the pictures."""
    x, train = played.masks, ~played.held
    x = (x - x[train].mean(0)) / x[train].std(0).clamp(min=1e-6)
    n_classes = played.shown.shape[1]
    fit = fit_linear(x[train], played.labels[train], n_classes, 1.0 / N_LEVELS, tol=1e-3)
    chosen = (x[played.held] @ fit.weight.T + fit.bias).argmax(1)
    return round(float((chosen == played.labels[played.held]).float().mean()), 4)


def temperature(played: Played) -> float:
    """Return the temperature that calibrates held-out probabilities, at least 1."""
    held = played.held
    return max(1.0, fit_temperature(played.shown[held], played.labels[held])) if bool(held.any()) else 1.0
