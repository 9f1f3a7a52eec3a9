"""Fitting EPIC: pictures are looked at once; the matrix is fitted, chosen and measured on cached cells."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import torch
from jaxtyping import Int
from torch import Tensor

from ...attributions.base import Explainable
from ...attributions.explainers import classifier_digest
from ...encoders.stream import Encoded, EncodeRequest, encode_stream
from ...errors import DataError, InputError
from ...progress import Progress
from ...storage.features import FeatureStore
from ...trust.groups import group_by_looks, hold_out_groups
from ..cells import CellMaps, CellPart, Unpooled, unpooled
from ..fitted import Fitting
from ..measure import Labelled, measure_likeness
from .adam import AdamSchedule
from .bank import EPICBank
from .choice import PARAMETERS, choose, mean_purity, refitted, setting_of
from .measures import coherence, compare, top_share
from .method import EPIC
from .prototypes import Entry, collect
from .rotation import Form, Rotation, check_fold

ENOUGH = 0.25
"""Pictures a channel; with 0.2 of ImageNet (one a class) nothing is gained, with 0.08 of groceries something."""

N_CHECKED = 256
LEAST = 12
"""Distinct pictures without which nothing can be fitted, chosen and measured."""


@dataclass(frozen=True)
class FitEPIC(Fitting):
    """Makes an :class:`~seewhy.prototypes.epic.bank.EPICBank` for a classifier.

    The matrix is fitted on a part of the pictures, its setting chosen on a second part, the chosen setting fitted on
    both, and everything reported is measured on a third, which is never shown as a prototype. Classes are not used for
    fitting, as in the paper.

    Args:
        optimiser: ``"procrustes"`` (ours; :class:`~.procrustes.Procrustes`, setting chosen by
            purity on held-out pictures) or ``"adam"`` (the paper's; :class:`~.adam.AdamSchedule`).
        form: ``"orthogonal"`` or, for ``"adam"``, ``"invertible"``.
        n_prototypes: pictures a channel that Procrustes fits to; ``None`` chooses.
        shrinkage: of Procrustes towards the identity; ``None`` chooses.
        n_rotated: channels that Procrustes rotates; ``None`` chooses.
        n_kept: prototypes of each channel and sign that are kept.
        held_out: part of the pictures kept out of fitting; half of it chooses, half measures. Pictures that look like
            the same thing are in one part.
        duplicate: pooled cosine at which two pictures count as one.
        max_seconds: stops Adam early; ``None`` runs the paper's schedule to its end.
        seed: of the parts and of Adam's order.
    """

    optimiser: Literal["procrustes", "adam"] = "procrustes"
    form: Form = "orthogonal"
    n_prototypes: int | None = None
    shrinkage: float | None = None
    n_rotated: int | None = None
    n_kept: int = 8
    held_out: float = 0.25
    duplicate: float = 0.98
    max_seconds: float | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        if self.form == "invertible" and self.optimiser == "procrustes":
            raise InputError(
                "Procrustes gives an orthogonal matrix, and an invertible one was asked for. Use --optimiser adam."
            )
        if not 0.05 <= self.held_out <= 0.9:
            raise InputError(f"The part held out is {self.held_out:g}. Between 0.05 and 0.9 was expected. Change it.")

    def fit(
        self,
        model: Explainable,
        pictures: Sequence[tuple[str, int | None]],
        *,
        store: FeatureStore | None = None,
        checkpoint: Path | None = None,
        progress: Progress | None = None,
    ) -> EPICBank:
        """Look, fit, choose, measure, and collect the prototypes."""
        progress = progress or Progress()
        seal = self.seal(model, pictures)
        entries, maps = self._look(model, pictures, store, progress)
        labels, digests = torch.tensor([e.label for e in entries]), [e.digest for e in entries]
        groups = group_by_looks(maps.pooled[: len(entries)], labels, digests).groups
        fitted_to, chosen_on, measured_on = _thirds(groups, self.held_out, self.seed)
        fit, measured = maps.part(sorted([*fitted_to, *chosen_on])), maps.part(measured_on)
        with torch.no_grad():
            rotation, how = self._rotation(
                fit, maps.part(fitted_to), maps.part(chosen_on), checkpoint=checkpoint, progress=progress
            )
            first = range(min(N_CHECKED, len(maps)))
            check = check_fold(model.head, rotation, maps.pooled[list(first)], torch.stack([maps[i] for i in first]))
            measures = {
                "optimiser": self.optimiser,
                "form": self.form,
                **how,
                "n_pictures": len(entries),
                "n_fitted": len(fit),
                "logit_difference": check.difference,
                "decisions_kept": check.agreement,
                "purity_fit": round(mean_purity(fit, rotation), 4),
                "purity_fit_before": round(mean_purity(fit, Rotation.identity(rotation.matrix.shape[0])), 4),
                "held_out": compare(measured, rotation, self.seed),
                "top_4_share": _shares(model, rotation, measured),
                "coherence": round(coherence(fit.pooled, rotation, labels[fit.indices]), 4),
            }
        bank = collect(model, rotation, fit, [entries[i] for i in fit.indices], self.n_kept, self.duplicate, store)
        bank = replace(bank, classifier=classifier_digest(model), measures=measures, made_from=seal)
        likeness = self._likeness(model, bank, [entries[i] for i in measured.indices], store)
        self._warn(measures, rotation, progress)
        measures |= {"likeness": likeness, "notes": list(progress.notes)}
        measures["failures"] = [f.to_json() for f in progress.failures]
        return bank

    def _look(
        self,
        model: Explainable,
        pictures: Sequence[tuple[str, int | None]],
        store: FeatureStore | None,
        progress: Progress,
    ) -> tuple[list[Entry], CellMaps]:
        """Every distinct picture's cells, on disk."""
        stream = encode_stream(
            model.encoder, [p for p, _ in pictures], store=store, request=EncodeRequest(features=lambda _i: True)
        )
        entries: list[Entry] = []
        maps: CellMaps | None = None
        undo: Unpooled | None = None
        known: set[str] = set()
        for (_, label), seen in progress.results(pictures, stream, "Looking"):
            if seen.digest in known or seen.features is None:
                continue
            known.add(seen.digest)
            features = seen.features[None]
            undo = undo or unpooled(model.encoder, features)
            with torch.no_grad():
                cells = undo(model.encoder.layout.to_grid(features))[0].flatten(1).T
                decided = int(model.head(seen.pooled[:1]).argmax())
            maps = maps or CellMaps((len(pictures), *cells.shape))
            maps[len(entries)] = cells
            entries.append(Entry(seen.name, seen.digest, decided if label is None else label))
        if maps is None or len(entries) < LEAST:
            raise DataError(
                f"{len(entries)} distinct pictures can be read. At least {LEAST} were expected, better several "
                "hundred. Give more pictures."
            )
        if len(entries) < len(pictures) - len(progress.failures):
            progress.note(f"{len(pictures) - len(progress.failures) - len(entries)} copies of pictures are left out")
        return entries, maps

    def _rotation(
        self, both: CellPart, fit: CellPart, chosen: CellPart, *, checkpoint: Path | None, progress: Progress
    ) -> tuple[Rotation, dict[str, Any]]:
        if self.optimiser == "adam":
            schedule = AdamSchedule(form=self.form, max_seconds=self.max_seconds, seed=self.seed)
            with torch.enable_grad():
                return schedule.fit(both, checkpoint=checkpoint, progress=progress), {"setting": {}, "tried": []}
        fixed = {name: getattr(self, name) for name in PARAMETERS if getattr(self, name) is not None}
        found = refitted(choose(fit, chosen, fixed, progress), both)
        return found.rotation, {"setting": setting_of(found, fit.pooled.shape[1]), "tried": found.tried}

    def _likeness(
        self, model: Explainable, bank: EPICBank, entries: Sequence[Entry], store: FeatureStore | None
    ) -> dict[str, Any] | None:
        """How often prototypes shown for held-out pictures carry the predicted class."""
        stream = encode_stream(
            model.encoder, [e.name for e in entries], store=store, request=EncodeRequest(features=lambda _i: True)
        )
        method = EPIC(duplicate=self.duplicate)
        with torch.no_grad():
            seen = [Labelled(s, e.label) for s, e in zip(stream, entries, strict=True) if isinstance(s, Encoded)]
            found = measure_likeness(model, method, bank, seen)
        return None if found is None else found.to_json()

    def _warn(self, measures: dict[str, Any], rotation: Rotation, progress: Progress) -> None:
        width = rotation.matrix.shape[0]
        per_channel = measures["n_fitted"] / width
        if per_channel < ENOUGH:
            wanted = round(ENOUGH * width / (1 - self.held_out))
            progress.note(
                f"{measures['n_fitted']} pictures for {width} channels are {per_channel:.2f} a channel; below "
                f"{ENOUGH:g} a gain in purity need not be real. Give {wanted} pictures or more"
            )
        if measures["held_out"]["gain_interval"][0] <= 0:
            progress.note("the gain in purity is not real on pictures held out: its interval reaches 0 or below")


def _thirds(groups: Int[Tensor, " n"], part: float, seed: int) -> tuple[list[int], list[int], list[int]]:
    """Indices to fit, to choose and to measure on; pictures of the same thing are in one of them."""
    anything = torch.zeros_like(groups)
    out = hold_out_groups(anything, groups, part, seed)
    chosen = torch.zeros_like(out)
    chosen[out] = hold_out_groups(anything[out], groups[out], 0.5, seed)
    fitted, chosen_on, measured_on = (flags.nonzero()[:, 0].tolist() for flags in (~out, chosen, out & ~chosen))
    return fitted, chosen_on, measured_on


def _shares(model: Explainable, rotation: Rotation, measured: CellPart) -> dict[str, float]:
    width = rotation.matrix.shape[0]
    kinds = {"fitted": rotation, "before": Rotation.identity(width), "random": Rotation.random(width, 0)}
    return {name: round(top_share(model, r, measured.pooled), 4) for name, r in kinds.items()}
