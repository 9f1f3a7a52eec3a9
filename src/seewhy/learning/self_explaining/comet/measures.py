"""What a COMET classifier's masks are worth, on pictures that were kept out of training."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn.functional import adaptive_avg_pool2d

from ....classifiers.base import HeldOut
from ....classifiers.encoded_set import EncodedSet, spread
from ....classifiers.linear.solvers import fit_logistic, fit_temperature
from ....encoders.base import Encoder
from ....errors import ImageError
from ....pictures.images import read_picture
from ....progress import Progress
from ....types import Failure
from ...adaptation.backbone import Predictor
from .game import Players

BATCH = 16
MOST = 1000
"""Pictures of either kind, at most."""
SIDE = 12
"""The probe of leakage sees masks as squares of this many cells,"""
N_LEVELS = 17
"""and as quantiles of their values, since a class may be told by how bright the mask is, wherever that is."""


@dataclass(frozen=True)
class Played:
    """What the players make of some pictures, in order."""

    labels: Int[Tensor, " n"]
    held: Bool[Tensor, " n"]
    masks: Float[Tensor, "n p"]
    area: Float[Tensor, " n"]
    pooled: Float[Tensor, "n d"]
    shown: Float[Tensor, "n k"]
    right: dict[str, Bool[Tensor, " n"]]
    groups: Int[Tensor, " n"]

    def held_out(self) -> HeldOut | None:
        """The held-out pictures as the classifier sees them."""
        held = self.held
        if not bool(held.any()):
            return None
        return HeldOut(self.pooled[held], self.labels[held], self.shown[held] / temperature(self), self.groups[held])


@torch.no_grad()
def watch(game: Players, judge: Predictor, encoder: Encoder, pictures: EncodedSet, progress: Progress) -> Played:
    """The players at work on up to a thousand pictures of either kind, spread over the classes."""
    of = pictures.labels.tolist()
    chosen = [i for part in (pictures.held, ~pictures.held) for i in spread(of, part.tolist(), MOST)]
    mixed = torch.randperm(len(chosen), generator=torch.Generator().manual_seed(0)).tolist()
    chosen = [chosen[i] for i in mixed]
    lent: tuple[Tensor, Tensor] | None = None
    kept: list[int] = []
    masks: list[Tensor] = []
    area: list[Tensor] = []
    pooled: list[Tensor] = []
    head = game.predictor.head()
    right: dict[str, list[Tensor]] = {}
    for some, pixels in _read(encoder, pictures, progress.track(chosen, "Measuring", len(chosen)), progress):
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
        pooled.append(game.predictor.pool(game.predictor.trunk(game.hide(pixels, mask))))
        lent = (mask, truth)
        kept += some
        masks.append(probed(mask))
        area.append(mask.mean((1, 2)))
    labels, seen = pictures.labels[kept], torch.cat(pooled)
    shown = head(seen)
    found = {"mask": shown.argmax(1) == labels} | {name: torch.cat(parts) for name, parts in right.items()}
    return Played(
        labels, pictures.held[kept], torch.cat(masks), torch.cat(area), seen, shown, found, pictures.groups[kept]
    )


def borrowed(
    mask: Float[Tensor, "b h w"], labels: Int[Tensor, " b"], lent: tuple[Tensor, Tensor] | None = None
) -> Float[Tensor, "b h w"]:
    """For every picture the mask of another one, of another class where there is one."""
    offered, whose = (mask, labels) if lent is None else (torch.cat([mask, lent[0]]), torch.cat([labels, lent[1]]))
    place, own = torch.arange(len(offered)), torch.arange(len(mask))[:, None]
    is_other, differs = place != own, whose[None] != labels[:, None]
    may = torch.where(differs.any(1, keepdim=True), differs, is_other)
    behind = (place - own) % len(offered)  # the next one that may, so that each is lent about once
    return offered[behind.masked_fill(~may, len(offered)).argmin(1)]


def probed(mask: Float[Tensor, "b h w"]) -> Float[Tensor, "b p"]:
    """A mask as the probe sees it: where it is, in coarse cells, and how bright, in quantiles."""
    cells = adaptive_avg_pool2d(mask[:, None], SIDE).flatten(1)
    levels = mask.flatten(1).quantile(torch.linspace(0, 1, N_LEVELS), dim=1).T
    return torch.cat([cells, levels], 1)


def _read(
    encoder: Encoder, pictures: EncodedSet, chosen: Iterator[int] | Sequence[int], progress: Progress
) -> Iterator[tuple[list[int], Float[Tensor, "b 3 h w"]]]:
    """Batches of pictures as they are predicted; one that has become unreadable is left out."""
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
    """Accuracies on held-out pictures, the mask's area, and how much its shape alone gives away.

    ``mask_alone_accuracy`` is that of a linear probe that sees nothing but the mask: above chance, the mask's shape
    tells of the class, and the predictor may read the mask instead of the picture.
    """
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
    """Accuracy on held-out pictures of a linear classifier of masks; a finer look at them may tell more."""
    x, train = played.masks, ~played.held
    x = (x - x[train].mean(0)) / x[train].std(0).clamp(min=1e-6)
    n_classes = played.shown.shape[1]
    fit = fit_logistic(x[train], played.labels[train], n_classes, 1.0 / N_LEVELS, tol=1e-3)
    chosen = (x[played.held] @ fit.weight.T + fit.bias).argmax(1)
    return round(float((chosen == played.labels[played.held]).float().mean()), 4)


def temperature(played: Played) -> float:
    """By which logits are divided so that probabilities hold on held-out pictures; 1 where there are none.

    Never below 1: where the few pictures held out are all right, no probability would be too high.
    """
    held = played.held
    return max(1.0, fit_temperature(played.shown[held], played.labels[held])) if bool(held.any()) else 1.0
