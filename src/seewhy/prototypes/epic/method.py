"""EPIC: prototypes for any pretrained classifier, without a changed logit (arXiv 2505.12897, AAAI 2026)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn.functional import normalize

from ...attributions.base import EncoderOutput, Explainable, Target
from ...bounds import Count
from ...encoders.stream import Encoded, EncodeRequest, encode_stream
from ...errors import DataError
from ...explanation.similar import Display, Like, NeighbourShare, PrototypePurity
from ...explanation.verdict import Level, Verdict
from ...pictures.miniatures import encode_thumbnail
from ...printable import percent
from ...storage.features import FeatureStore
from .. import prototypes
from ..bank import BankPicture, Patches, cell_box, check_index
from ..base import STRANGER, Group, Match, Prototypes, Query
from ..cells import CellPart, cells_of
from ..fitted import FittedBank
from ..measure import LEVELS, LikenessMeasure, Showing, said_of_share
from .rotation import TOLERANCE, Rotation, pure_cells, strongest

RULE = (
    "Do not rely on the prototypes if the class explained has no more of them than a wrong class has on 19 of 20 "
    "held-out pictures. A wrong class is neither the true class nor the decision. Otherwise they are believable if "
    "hiding their places lowers the class's lead more than hiding the same pattern in any other place that was tried. "
    "If it does not, they are partly believable. They are at most partly believable for a class that is not the "
    "decision. "
    f"{STRANGER}"
)
SPARE = 3
"""Candidates a prototype: enough to replace those that are copies of stronger ones."""


@dataclass(frozen=True, eq=False)
class EPICBank(FittedBank):
    """The matrix, and prototypes of every channel, positive and negative, duplicates left out.

    Each patch's box is the cell at which its channel is strongest, grown by half a cell. A channel's patches follow
    each other, strongest picture first; ``signs`` are 1 or −1, and ``purity`` is the cosine of the patch's features
    with the channel's direction.
    """

    method = "epic"

    channels: Int[Tensor, " n"]
    signs: Int[Tensor, " n"]
    purity: Float[Tensor, " n"]
    rotation: Rotation

    def of_channel(self, channel: int, sign: int) -> list[int]:
        """The patches of a channel, strongest picture first."""
        return ((self.channels == channel) & (self.signs == sign)).nonzero()[:, 0].tolist()

    def own(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        tensors = {
            "matrix": self.rotation.matrix,
            "channels": self.channels.int(),
            "signs": self.signs.to(torch.int8),
            "purity": self.purity.half(),
        }
        if self.rotation.form == "invertible":
            tensors["inverse"] = self.rotation.inverse
        return tensors, {"form": self.rotation.form}

    @classmethod
    def given(cls, tensors: Mapping[str, Tensor], facts: Mapping[str, Any]) -> dict[str, Any]:
        matrix = tensors["matrix"]
        inverse = tensors.get("inverse", matrix.T)
        if matrix.ndim != 2 or len({*matrix.shape, *inverse.shape}) != 1 or not matrix.is_floating_point():
            raise ValueError(f"its matrix is {matrix.dtype} {tuple(matrix.shape)}")
        rotation = Rotation(matrix, inverse, facts["form"])
        if not rotation.error < TOLERANCE:
            raise ValueError(f"its matrix times its inverse is off by {rotation.error:.1e}")
        check_index("the prototypes' channels", tensors["channels"], len(matrix))
        return {"rotation": rotation}

    def check(self, model: Explainable) -> None:
        if len(self.rotation.matrix) != (width := model.head.weight.shape[1]):
            raise ValueError(f"a matrix {tuple(self.rotation.matrix.shape)} for {width} channels")

    def spoken(self) -> dict[str, Any]:
        """The prototypes of each channel, by file name, digest and box."""
        pictures = [{"image": p.name, "sha256": p.digest, "class": p.label} for p in self.pictures]
        channels: dict[str, list[list[Any]]] = {}
        rows = zip(*(x.tolist() for x in (self.channels, self.signs, self.owner, self.pixel_boxes)), strict=True)
        for channel, sign, owner, box in rows:
            channels.setdefault(f"{'+' if sign > 0 else '-'}{channel}", []).append([owner, box])
        return {"pictures": pictures, "prototypes": channels}

    def lines(self) -> list[str]:
        m = self.measures
        held, likeness, share = m["held_out"], m["likeness"], m["top_4_share"]
        low, high = held["gain_interval"]
        lines = [
            f"fitted to {m['n_fitted']} of {m['n_pictures']} pictures by {m['optimiser']}",
            f"logits change by {m['logit_difference']:.0e} of the largest at most; "
            f"{m['decisions_kept']:.0%} of the decisions stay",
            f"purity on {held['n']} pictures held out: {held['purity']:.3f}, before {held['before']:.3f}, random "
            f"rotation {held['random']:.3f}; gain {held['gain']:+.4f} (95 % {low:+.4f} to {high:+.4f})",
            f"the strongest 4 channels have {share['fitted']:.1%} of what speaks for a decision, "
            f"before {share['before']:.1%}",
        ]
        if likeness is not None:
            lines.append(
                f"prototypes shown for held-out pictures carry the predicted class {likeness['precision']:.0%} of the "
                f"time (chance {likeness['chance']:.0%})"
            )
        return lines


@prototypes.register
@dataclass(frozen=True)
class EPIC(Prototypes):
    """The channels that speak most for the decision, each shown by the pictures that activate it most.

    EPIC (arXiv 2505.12897): a square matrix ``U`` behind the last feature map, with its inverse folded into the head,
    so no logit changes. ``U`` is fitted so that each new channel is pure: alone where it is strongest
    (:class:`seewhy.prototypes.epic.training.FitEPIC`). A channel's prototypes are the pictures with the largest sum of
    activation; the box on them and on the query is the cell where it is strongest::

        Ẑ = U Z      A' = A U⁻¹      logit_t − mean over classes = Σ_k A'_tk v_k + const      v = mean(Ẑ)

    Contributions are signed and exact, so they add up (the authors' code multiplies by ``max(v_k, 0)``). A channel that
    speaks by being low shows its negative prototypes (docs/methods/epic.md). Range of a share: 0…1.

    Args:
        n_channels: channels to show (authors: 4).
        n_prototypes: pictures per channel (authors: 4).
        duplicate: pooled cosine from which two pictures count as one.
    """

    name = "epic"
    spelt = "EPIC"
    paper = "EPIC 2026, arXiv:2505.12897"
    needs = "a mean-pooled network and seewhy fit --task prototypes"
    cost = "0"
    display = Display(unit="channel", similarity="purity")
    rule = RULE
    priority = 3
    fitted_by = "seewhy.prototypes.epic.training.FitEPIC"
    kept_as = EPICBank

    n_channels: Count = 4
    n_prototypes: Count = 4
    duplicate: float = 0.98

    def __call__(self, model: Explainable, bank: Patches, query: Query) -> list[Group]:
        known = _fitted(bank)
        cells = cells_of(model, query.look.features)[0]
        parts = contributions(model, known.rotation, query.look, query.target)[0]
        activity = known.rotation.matrix @ query.look.pooled[0]
        speaks = float(parts.clamp(min=0).sum())
        banned = known.copies(query.look.pooled[0], query.digest, self.duplicate)
        groups = []
        for channel in parts.argsort(descending=True, stable=True).tolist()[: self.n_channels]:
            part = float(parts[channel])
            if part <= 0:
                break
            sign = 1 if activity[channel] >= 0 else -1
            place = int((sign * torch.einsum("d,dhw->hw", known.rotation.matrix[channel], cells)).argmax())
            shown = known.distinct(known.of_channel(channel, sign), banned, self.n_prototypes, self.duplicate)
            matches = tuple(Match(patch, float(known.purity[patch])) for patch in shown)
            groups.append(Group(divmod(place, cells.shape[2]), part / speaks, matches, channel, part))
        return groups

    def activation(
        self, model: Explainable, bank: Patches, look: EncoderOutput, which: Int[Tensor, " p"]
    ) -> Float[Tensor, "b p h w"]:
        """The channel of each patch, with its sign, in the units of the feature map; unbounded."""
        known = _fitted(bank)
        rows = known.rotation.matrix[known.channels[which]] * known.signs[which, None]
        return torch.einsum("pd,bdhw->bphw", rows, cells_of(model, look.features))

    def judge(self, showing: Showing) -> Like:
        """Judge by how many prototypes are of the class explained, and by the effect of hiding their places."""
        measures, deletion, subject = _fitted(showing.bank).measures, showing.deletion, showing.subject
        held, measure = measures["held_out"], LikenessMeasure.restore(measures["likeness"])
        purity = PrototypePurity(measures["purity_fit"], held["purity"], held["before"], held["random"], held["n"])
        matters = deletion is not None and deletion.matters_most
        here, limit = showing.of_target, None if measure is None else measure.limit
        # How many were right is not asked: the classifier may have been fitted on what was held out of the rotation.
        share = None if here is None or limit is None else NeighbourShare(here, limit)
        level: Level = "not measured"
        figures = (
            f"These {len(showing.groups)} channels bring {showing.logits:.1f} of the {showing.logits_in_all:.1f} "
            f"logits that speak for {subject.of_class} ({showing.share:.0%}); other channels bring "
            f"{1 - showing.share:.0%}.{showing.hidden}"
        )
        said = f"These channels bring {percent(showing.share, ' ')} of what speaks for {subject.of_class}"
        if deletion is not None and not matters:
            said += ", but hiding them changes the prediction no more than hiding other places"
        if share is not None:
            figures += f" {said_of_share(showing, share, 'prototypes')}"
            if deletion is not None:
                most = LEVELS[1 + int(matters and subject.label == subject.decision)]
                level = most if share.reaches else "do not rely"
        verdict, difference = Verdict(level, f"{said}.", self.rule, figures), measures["logit_difference"]
        return showing.like(self, verdict, measure, purity=purity, logit_difference=difference, of_target=share)


def _fitted(bank: Patches) -> EPICBank:
    """The bank, if it is EPIC's; that of another method is a programming error."""
    if not isinstance(bank, EPICBank):
        raise TypeError(f"epic needs an EPICBank, not {type(bank).__name__}")
    return bank


def contributions(model: Explainable, rotation: Rotation, look: EncoderOutput, target: Target) -> Float[Tensor, "b d"]:
    """Each channel's contribution to the target's logit minus the mean over classes; they add up to it, up to a
    constant.

    ``A'_tk v_k``, with ``A`` the weights of the head on these very pictures
    (:meth:`seewhy.heads.head.Head.slope`) and ``A' = A U⁻¹``.
    """
    slope = model.head.slope(look.pooled, target)
    return (slope @ rotation.inverse) * (look.pooled @ rotation.matrix.T)


class Entry(NamedTuple):
    """A picture that may become a prototype: file name, SHA-256 of its bytes, index of its class."""

    name: str
    digest: str
    label: int


def without_copies(
    candidates: Int[Tensor, "k c"], unit: Float[Tensor, "n d"], m: int, duplicate: float
) -> Int[Tensor, "k m"]:
    """The first ``m`` of each row whose unit vectors do not copy earlier ones; −1 if there are fewer."""
    chosen = torch.full((len(candidates), m), -1)
    for k, row in enumerate(candidates):
        near = (unit[row] @ unit[row].T >= duplicate).tolist()
        kept: list[int] = []
        for i in range(len(row)):
            if len(kept) < m and not any(near[i][j] for j in kept):
                kept.append(i)
        chosen[k, : len(kept)] = row[kept]
    return chosen


def collect(
    model: Explainable,
    rotation: Rotation,
    maps: CellPart,
    entries: Sequence[Entry],
    n_kept: int,
    duplicate: float,
    store: FeatureStore | None,
) -> EPICBank:
    """The bank of a rotation: ``n_kept`` prototypes for each channel and sign, from cells of these pictures."""
    unit, rows = normalize(maps.pooled, dim=1), []
    for sign in (1, -1):
        of = without_copies(strongest(maps.pooled, rotation.matrix, SPARE * n_kept, sign), unit, n_kept, duplicate)
        there, (at, purity) = of >= 0, pure_cells(maps, rotation, of.clamp(min=0), sign)
        channel = torch.arange(len(of))[:, None].expand_as(of)[there]
        rows.append((channel, of[there], at[there], purity[there], torch.full_like(channel, sign)))
    channels, owner, cells, purity, signs = (torch.cat(parts) for parts in zip(*rows, strict=True))
    order = torch.argsort(channels * 2 + (signs < 0).long(), stable=True)
    channels, owner, cells, purity, signs = (v[order] for v in (channels, owner, cells, purity, signs))
    used, mine = owner.unique(return_inverse=True)
    n, (height, width) = len(maps[0]), model.encoder.transform.input_size
    grid_rows = round((n * height / width) ** 0.5)
    grid = (grid_rows, n // grid_rows)
    boxes = torch.tensor([cell_box(divmod(cell, grid[1]), grid) for cell in range(grid[0] * grid[1])])
    pictures, originals = _read(model, [entries[i] for i in used.tolist()], boxes, store)
    return EPICBank(pictures, unit[used], mine, boxes[cells], originals[mine, cells], channels, signs, purity, rotation)


def _read(
    model: Explainable, entries: Sequence[Entry], boxes: Float[Tensor, "s 4"], store: FeatureStore | None
) -> tuple[tuple[BankPicture, ...], Int[Tensor, "p s 4"]]:
    """Thumbnails, and every cell's box on the upright originals."""
    pictures, originals = [], []
    stream = encode_stream(model.encoder, [e.name for e in entries], store=store, request=EncodeRequest(pictures=True))
    for entry, seen in zip(entries, stream, strict=True):
        if not isinstance(seen, Encoded) or seen.picture is None or seen.digest != entry.digest:
            raise DataError(f"{entry.name} changed while prototypes were fitted. Leave it unchanged, and run again.")
        pictures.append(BankPicture(entry.name, entry.digest, entry.label, encode_thumbnail(seen.picture.pixels)))
        originals.append([seen.picture.to_original(tuple(box)) for box in boxes.tolist()])
    return tuple(pictures), torch.tensor(originals)
