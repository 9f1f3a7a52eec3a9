"""Fit EPIC on cached features."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from ...attributions.base import EncoderOutput, Explainable, Target
from ...attributions.explainers import classifier_digest
from ...bounds import Bound, Checked, Count
from ...encoders.stream import Encoded, EncodeRequest, encode_stream
from ...errors import DataError
from ...progress import Progress
from ...storage.features import FeatureStore
from ...trust.groups import group_by_looks, hold_out_groups
from ..cells import CellMaps, Unpooled, unpooled
from ..fitted import Fitting
from ..measure import Labelled, measure_likeness
from .method import EPIC, Entry, EPICBank, collect, contributions
from .rotation import FLOOR, Maps, Matrix, Procrustes, check_fold, pure_cells, random_rotation, strongest

ENOUGH = 0.25
"""Pictures per channel below which a gain in purity may be due to chance."""
N_CHECKED = 256
LEAST = 12
"""Smallest number of distinct pictures."""
SHRINKAGES, COUNTS, PARTS = (0.05, 0.1, 0.2), (20,), (0.5,)
PARAMETERS = ("n_prototypes", "shrinkage", "n_rotated")
FEW_ROUNDS, MOST_ROUNDS = 3, 8
"""Number of iterations during model selection and in the final fit."""
N_MEASURED = 5
"""Prototypes per channel in the mean purity, as in the paper."""
N_DRAWS = 200


@dataclass(frozen=True)
class FitEPIC(Checked, Fitting):
    """Fitting procedure of EPIC for a classifier.

    The pictures are split into three sets, for fitting, model selection and evaluation. The rotation with the selected
    settings is fitted again on the first two sets. As in the paper, classes are not used. The paper's optimiser is in
    ``reproductions/epic_adam.py``.

    Args:
        n_prototypes: number of pictures per channel in the fit; ``None`` selects the number with the highest purity on
            held-out pictures.
        shrinkage: shrinkage of the rotation towards the identity, at least 0; ``None`` selects it in the same way.
        n_rotated: number of channels to rotate; ``None`` selects it in the same way.
        n_kept: number of positive prototypes, and of negative prototypes, to store for each channel.
        held_out: fraction of the pictures to hold out, half of them for model selection and half for evaluation.
            Pictures of the same object stay together.
        duplicate: pooled cosine above which pictures are duplicates.
        seed: seed of the split.
    """

    name = "epic"

    n_prototypes: int | None = None
    shrinkage: float | None = None
    n_rotated: int | None = None
    n_kept: Count = 8
    held_out: Annotated[float, Bound(0.05, 0.9)] = 0.25
    duplicate: float = 0.98
    seed: int = 0

    def fit(
        self,
        model: Explainable,
        pictures: Sequence[tuple[str, int | None]],
        *,
        store: FeatureStore | None = None,
        checkpoint: Path | None = None,
        progress: Progress | None = None,
    ) -> EPICBank:
        progress = progress or Progress()
        seal = self.seal(model, pictures)
        entries, maps = self._encoded(model, pictures, store, progress)
        labels, digests = torch.tensor([e.label for e in entries]), [e.digest for e in entries]
        groups = group_by_looks(maps.pooled[: len(entries)], labels, digests).groups
        fitted_to, chosen_on, measured_on = _thirds(groups, self.held_out, self.seed)
        fit, measured = maps.part(sorted([*fitted_to, *chosen_on])), maps.part(measured_on)
        fixed = {name: value for name in PARAMETERS if (value := getattr(self, name)) is not None}
        with torch.no_grad():
            choice = choose(maps.part(fitted_to), maps.part(chosen_on), fixed, progress).refitted(fit)
            rotation, width = choice.rotation, fit.pooled.shape[1]
            first = range(min(N_CHECKED, len(maps)))
            check = check_fold(model.head, rotation, maps.pooled[list(first)], torch.stack([maps[i] for i in first]))
            measures: dict[str, Any] = {
                "optimiser": "procrustes",
                "form": "orthogonal",
                "setting": {"n_rotated": 0} if choice.how is None else _named(choice.how, width),
                "tried": choice.tried,
                "n_pictures": len(entries),
                "n_fitted": len(fit),
                "logit_difference": check.difference,
                "decisions_kept": check.agreement,
                "purity_fit": round(mean_purity(fit, rotation), 4),
                "purity_fit_before": round(mean_purity(fit, torch.eye(width)), 4),
                "held_out": compare(measured, rotation, self.seed),
                "top_4_share": {
                    name: round(top_share(model, r, measured.pooled), 4)
                    for name, r in zip(("fitted", "before", "random"), _controls(rotation, 0), strict=True)
                },
                "coherence": round(coherence(fit.pooled, rotation, labels[fit.indices]), 4),
            }
        with progress.doing("Collecting pictures that show each prototype"):
            bank = collect(model, rotation, fit, [entries[i] for i in fit.indices], self.n_kept, self.duplicate, store)
        bank = replace(bank, classifier=classifier_digest(model), measures=measures, made_from=seal)
        with progress.doing("Testing the prototypes on held-out pictures"):
            likeness = self._likeness(model, bank, [entries[i] for i in measured.indices], store)
        self._warn(measures, width, progress)
        measures |= {"likeness": likeness, "notes": list(progress.notes)}
        measures["failures"] = [f.to_json() for f in progress.failures]
        return bank

    def _encoded(
        self,
        model: Explainable,
        pictures: Sequence[tuple[str, int | None]],
        store: FeatureStore | None,
        progress: Progress,
    ) -> tuple[list[Entry], CellMaps]:
        request = EncodeRequest(features=lambda _i: True)
        stream = encode_stream(model.encoder, [p for p, _ in pictures], store=store, request=request)
        entries: dict[str, Entry] = {}
        maps: CellMaps | None = None
        undo: Unpooled | None = None
        for (_, label), seen in progress.results(pictures, stream, "Looking at pictures"):
            if seen.digest in entries or seen.features is None:
                continue
            features = seen.features[None]
            undo = undo or unpooled(model.encoder, features)
            with torch.no_grad():
                cells = undo(model.encoder.layout.to_grid(features))[0].flatten(1).T
                decided = int(model.head(seen.pooled[:1]).argmax())
            maps = maps or CellMaps((len(pictures), *cells.shape))
            maps[len(entries)] = cells
            entries[seen.digest] = Entry(seen.name, seen.digest, decided if label is None else label)
        if maps is None or len(entries) < LEAST:
            raise DataError(
                f"At least {LEAST} distinct pictures are needed, and several hundred are better, got {len(entries)}. "
                "Give more pictures."
            )
        if len(entries) < len(pictures) - len(progress.failures):
            progress.note(f"{len(pictures) - len(progress.failures) - len(entries)} copies of pictures left out")
        return [*entries.values()], maps

    def _warn(self, measures: dict[str, Any], width: int, progress: Progress) -> None:
        n = measures["n_fitted"]
        if n < ENOUGH * width:
            progress.note(
                f"{n} pictures for {width} channels are {n / width:.2f} per channel; below {ENOUGH:g}, a gain in "
                f"purity may be due to chance. Give at least {round(ENOUGH * width / (1 - self.held_out))} pictures"
            )
        if measures["held_out"]["gain_interval"][0] <= 0:
            progress.note("the gain in purity on held-out pictures is not significant: its interval reaches 0 or below")

    def _likeness(
        self, model: Explainable, bank: EPICBank, entries: Sequence[Entry], store: FeatureStore | None
    ) -> dict[str, Any] | None:
        """Measure how often the prototypes of held-out pictures have the predicted class."""
        request = EncodeRequest(features=lambda _i: True)
        stream = encode_stream(model.encoder, [e.name for e in entries], store=store, request=request)
        with torch.no_grad():
            seen = [Labelled(s, e.label) for s, e in zip(stream, entries, strict=True) if isinstance(s, Encoded)]
            measure = measure_likeness(model, EPIC(duplicate=self.duplicate), bank, seen)
        return None if measure is None else measure.to_json()


def _thirds(groups: Int[Tensor, " n"], part: float, seed: int) -> tuple[list[int], list[int], list[int]]:
    """Split picture indices into fit, selection and evaluation, with whole groups."""
    anything = torch.zeros_like(groups)
    out = hold_out_groups(anything, groups, part, seed)
    chosen = torch.zeros_like(out)
    chosen[out] = hold_out_groups(anything[out], groups[out], 0.5, seed)
    fitted, choose_on, measure_on = (flags.nonzero()[:, 0].tolist() for flags in (~out, chosen, out & ~chosen))
    return fitted, choose_on, measure_on


@dataclass(frozen=True)
class Choice:
    """The selected settings; ``None`` means no rotation."""

    rotation: Matrix
    how: Procrustes | None
    tried: list[dict[str, Any]]

    def refitted(self, maps: Maps) -> Choice:
        return self if self.how is None else replace(self, rotation=self.how.fit(maps))


def choose(fit: Maps, held: Maps, fixed: dict[str, Any], progress: Progress) -> Choice:
    """Select settings by held-out purity, one parameter at a time."""
    width = fit.pooled.shape[1]
    start = torch.eye(width)
    highest = mean_purity(held, start)
    best = Choice(start, None, [{"rotation": "none", "purity": round(highest, 5)}])
    setting = replace(Procrustes(n_prototypes=50, n_rounds=FEW_ROUNDS), **fixed)
    free: dict[str, list[dict[str, Any]]] = {
        "shrinkage": [{"shrinkage": s} for s in SHRINKAGES],
        "n_prototypes": [{"n_prototypes": m} for m in COUNTS],
        "n_rotated": [{"n_rotated": max(2, int(width * p))} for p in PARTS],
    }
    for number, (name, changes) in enumerate(free.items()):
        steps = changes if name not in fixed else [{}] if number == 0 else []
        at_start = setting if best.how is None else best.how
        for change in progress.track(steps, f"Choosing how prototypes are made, setting {number + 1} of 3", len(steps)):
            tried = replace(at_start, **change)
            rotation = tried.fit(fit)
            pure = mean_purity(held, rotation)
            best.tried.append({**_named(tried, width), "purity": round(pure, 5)})
            if pure > highest or len(fixed) == len(PARAMETERS):
                highest, best = pure, Choice(rotation, tried, best.tried)
    if best.how is None:
        return best
    # The same settings with the number of rounds that is best on the selection pictures.
    rounds = replace(best.how, n_rounds=MOST_ROUNDS).rounds(fit)
    rounds = progress.track(rounds, "Choosing how many rounds prototypes need", MOST_ROUNDS)
    highest, number, rotation = max(
        ((mean_purity(held, r), n, r) for n, r in enumerate(rounds, 1)), key=lambda one: one[:2]
    )
    how = replace(best.how, n_rounds=number)
    return Choice(rotation, how, [*best.tried, {**_named(how, width), "purity": round(highest, 5)}])


def _named(setting: Procrustes, width: int) -> dict[str, Any]:
    tried = {name: getattr(setting, name) for name in (*PARAMETERS, "n_rounds")}
    return {**tried, "n_rotated": setting.n_rotated or width}


def mean_purity(maps: Maps, rotation: Matrix, m: int = N_MEASURED) -> float:
    """Return the mean purity over all channels, each on the ``m`` pictures that activate it most."""
    return float(pure_cells(maps, rotation, strongest(maps.pooled, rotation, m))[1].mean())


@dataclass(frozen=True)
class PurityTable:
    """The mean activation and the purity of each channel on each picture."""

    activation: Float[Tensor, "n d"]
    purity: Float[Tensor, "n d"]

    @classmethod
    def of(cls, maps: Maps, rotation: Matrix) -> PurityTable:
        rows = []
        for i in range(len(maps)):
            moved = maps[i] @ rotation.T
            top, at = moved.max(0)
            rows.append(top / moved.norm(dim=1)[at].clamp(min=FLOOR))
        return cls(maps.pooled @ rotation.T, torch.stack(rows))

    def by_channel(self, of: Tensor | slice = slice(None), m: int = N_MEASURED) -> Float[Tensor, " d"]:
        """Return the mean purity of each channel on the ``m`` pictures that activate it most."""
        activation = self.activation[of]
        top = activation.topk(min(m, len(activation)), dim=0).indices
        return self.purity[of].gather(0, top).mean(0)


def compare(maps: Maps, rotation: Matrix, seed: int) -> dict[str, Any]:
    """Compare the purity with the rotation, without it, and with a random rotation.

    The 95 % interval of the gain is computed from random halves of the pictures.
    """
    n = len(maps)
    fitted, plain, random = (PurityTable.of(maps, kind) for kind in _controls(rotation, seed))
    draw = torch.Generator().manual_seed(seed)
    halves = [torch.randperm(n, generator=draw)[: max(1, n // 2)] for _ in range(N_DRAWS)]
    gains = torch.stack([(fitted.by_channel(h) - plain.by_channel(h)).mean() for h in halves])
    after, before = float(fitted.by_channel().mean()), float(plain.by_channel().mean())
    spread = (gains - gains.mean()).quantile(torch.tensor([0.025, 0.975]))
    return {
        "n": n, "purity": round(after, 4), "before": round(before, 4),
        "random": round(float(random.by_channel().mean()), 4), "gain": round(after - before, 4),
        "gain_interval": [round(end, 4) for end in (after - before + spread).tolist()],
    }  # fmt: skip


def _controls(rotation: Matrix, seed: int) -> tuple[Matrix, Matrix, Matrix]:
    width = len(rotation)
    return rotation, torch.eye(width), random_rotation(width, seed)


def top_share(model: Explainable, rotation: Matrix, pooled: Float[Tensor, "n d"], n: int = 4) -> float:
    """Return the mean fraction of the evidence that comes from the ``n`` strongest channels, 0 to 1."""
    with torch.no_grad():
        target = Target(model.head(pooled).argmax(1))
        parts = contributions(model, rotation, EncoderOutput(pooled, pooled), target).clamp(min=0)
    return float((parts.topk(min(n, parts.shape[1]), dim=1).values.sum(1) / parts.sum(1).clamp(min=1e-12)).mean())


def coherence(pooled: Float[Tensor, "n d"], rotation: Matrix, labels: Tensor, m: int = N_MEASURED) -> float:
    """Return the fraction of a channel's ``m`` prototypes that have the most frequent class, averaged over channels."""
    top = (pooled @ rotation.T).topk(min(m, len(pooled)), dim=0).indices
    mine = labels[top]
    return float((mine == mine.mode(0).values).float().mean())
