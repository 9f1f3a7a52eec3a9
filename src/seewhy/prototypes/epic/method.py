"""EPIC: channel prototypes for pretrained classifiers (arXiv 2505.12897, AAAI 2026)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn.functional import normalize

from ...attributions.base import EncoderOutput, Explainable, Target
from ...bounds import Count
from ...clusters import grouped
from ...encoders.stream import Encoded, EncodeRequest, encode_stream
from ...errors import DataError
from ...explanation.similar import Display, Like, NeighbourShare, PrototypePurity
from ...explanation.verdict import Level, Verdict
from ...pictures.miniatures import encode_thumbnail
from ...printable import percent
from ...storage.features import FeatureStore
from ...storage.parts import check_index
from .. import prototypes
from ..bank import BankPicture, Patches, cell_box
from ..base import STRANGER, Group, Match, Prototypes, Query
from ..cells import CellPart, cells_of
from ..fitted import FittedBank
from ..measure import LEVELS, LikenessMeasure, Showing, said_of_share
from .rotation import TOLERANCE, Matrix, pure_cells, strongest

RULE = (
    "SeeWhy computes how many of the prototypes shown are of the explained class. Do not rely on the prototypes if a "
    "wrong class often reaches this share: on more than 1 in 20 held-out pictures. A wrong class is neither the true "
    "class nor the decision. Otherwise the prototypes are believable if hiding their places lowers the logit of the "
    "class (minus the mean over classes) more than hiding the same pattern in any other place that was tried. If it "
    "does not, they are partly believable. They are at most partly believable if the explained class is not the "
    f"decision. {STRANGER}"
)
SPARE = 3
"""Candidates per prototype, to replace duplicates."""


@dataclass(frozen=True, eq=False)
class EPICBank(FittedBank):
    """A rotation with the positive and negative prototypes of every channel.

    Attributes:
        matrix: orthogonal matrix from old to new channels.
        channels: channel of each patch; patches of a channel are consecutive, strongest first.
        signs: 1 for positive prototypes, −1 for negative prototypes.
        purity: cosine of the patch's features with the channel's direction.
    """

    method = "epic"

    matrix: Float[Tensor, "d d"]
    channels: Int[Tensor, " n"]
    signs: Int[Tensor, " n"]
    purity: Float[Tensor, " n"]

    def of_channel(self, channel: int, sign: int) -> list[int]:
        return ((self.channels == channel) & (self.signs == sign)).nonzero()[:, 0].tolist()

    def own(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        tensors = {
            "matrix": self.matrix,
            "channels": self.channels.int(),
            "signs": self.signs.to(torch.int8),
            "purity": self.purity.half(),
        }
        return tensors, {"form": "orthogonal"}

    def check_loaded(self) -> None:
        if not (error := float((self.matrix @ self.matrix.T - torch.eye(len(self.matrix))).abs().max())) < TOLERANCE:
            raise ValueError(f"the product of matrix and inverse differs from the identity by {error:.1e}")
        check_index("the prototypes' channels", self.channels, len(self.matrix))

    def check(self, model: Explainable) -> None:
        if len(self.matrix) != (width := model.head.weight.shape[1]):
            raise ValueError(f"`matrix` must have {width} channels, got {tuple(self.matrix.shape)}")

    def spoken(self) -> dict[str, Any]:
        """Return the prototypes of each channel: file name, digest and box."""
        pictures = [{"image": p.name, "sha256": p.digest, "class": p.label} for p in self.pictures]
        rows = zip(*(x.tolist() for x in (self.channels, self.signs, self.owner, self.pixel_boxes)), strict=True)
        own = ((f"{'+' if sign > 0 else '-'}{channel}", [owner, box]) for channel, sign, owner, box in rows)
        return {"pictures": pictures, "prototypes": grouped(own)}

    def lines(self) -> list[str]:
        m = self.measures
        held, likeness, share = m["held_out"], m["likeness"], m["top_4_share"]
        low, high = held["gain_interval"]
        lines = [
            f"fitted to {m['n_fitted']} of {m['n_pictures']} pictures by {m['optimiser']}",
            f"logits change by {m['logit_difference']:.0e} of the largest at most; "
            f"{100 * m['decisions_kept']:.0f} % of the decisions stay",
            f"purity on {held['n']} pictures held out: {held['purity']:.3f}, before {held['before']:.3f}, random "
            f"rotation {held['random']:.3f}; gain {held['gain']:+.4f} (95 % {low:+.4f} to {high:+.4f})",
            f"the strongest 4 channels have {100 * share['fitted']:.1f} % of the evidence for a decision, "
            f"before {100 * share['before']:.1f} %",
        ]
        if likeness is not None:
            lines.append(
                f"prototypes shown for held-out pictures carry the predicted class {100 * likeness['precision']:.0f} % "
                f"of the time (chance {100 * likeness['chance']:.0f} %)"
            )
        return lines


@prototypes.register
@dataclass(frozen=True)
class EPIC(Prototypes):
    """The channels that contribute most to the decision, with the pictures that activate them most.

    EPIC (arXiv 2505.12897) rotates the last feature map and applies the inverse rotation in the head, so all logits
    stay the same:

        Ẑ = U Z
        A' = A U⁻¹
        v = mean(Ẑ)
        logit_t − mean over classes = Σ_k A'_tk v_k + const

    - ``Z``: the feature map; ``Ẑ`` is the rotated map.
    - ``U``: a matrix fitted for pure channels (:class:`seewhy.prototypes.epic.training.FitEPIC`).
    - ``A``: the weights of the head; ``A'`` are the weights for rotated channels.
    - ``v``: the pooled vector of the rotated map.
    - ``t``: the explained class; ``k`` is a channel.

    A channel's prototypes are the pictures with the largest sum of activations. The box marks the grid cell with the
    largest activation. Where we differ: contributions are signed, while the authors' code uses ``max(v_k, 0)``. For a
    channel that contributes because its activation is low, the card shows the pictures with the smallest sum
    (docs/methods/epic.md). A share is between 0 and 1.

    Args:
        n_channels: number of channels to display (authors: 4).
        n_prototypes: number of pictures per channel (authors: 4).
        duplicate: pooled cosine above which pictures are duplicates.
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
        parts = contributions(model, known.matrix, query.look, query.target)[0]
        activity = known.matrix @ query.look.pooled[0]
        speaks = float(parts.clamp(min=0).sum())
        banned = known.copies(query.look.pooled[0], query.digest, self.duplicate)
        groups = []
        for channel in parts.argsort(descending=True, stable=True).tolist()[: self.n_channels]:
            part = float(parts[channel])
            if part <= 0:
                break
            sign = 1 if activity[channel] >= 0 else -1
            place = int((sign * torch.einsum("d,dhw->hw", known.matrix[channel], cells)).argmax())
            shown = known.distinct(known.of_channel(channel, sign), banned, self.n_prototypes, self.duplicate)
            matches = tuple(Match(patch, float(known.purity[patch])) for patch in shown)
            groups.append(Group(divmod(place, cells.shape[2]), part / speaks, matches, channel, part))
        return groups

    def activation(
        self, model: Explainable, bank: Patches, look: EncoderOutput, which: Int[Tensor, " p"]
    ) -> Float[Tensor, "b p h w"]:
        """Return the signed activation of each patch's channel."""
        known = _fitted(bank)
        rows = known.matrix[known.channels[which]] * known.signs[which, None]
        return torch.einsum("pd,bdhw->bphw", rows, cells_of(model, look.features))

    def judge(self, showing: Showing) -> Like:
        """Return the evidence with a verdict from two tests: the classes of the prototypes, and hiding the regions."""
        measures, deletion, subject = _fitted(showing.bank).measures, showing.deletion, showing.subject
        held, measure = measures["held_out"], LikenessMeasure.restore(measures["likeness"])
        purity = PrototypePurity(measures["purity_fit"], held["purity"], held["before"], held["random"], held["n"])
        matters = deletion is not None and deletion.matters_most
        here, limit = showing.of_target, None if measure is None else measure.limit
        # No accuracy here: the classifier may be fitted on pictures that the rotation holds out.
        share = None if here is None or limit is None else NeighbourShare(here, limit)
        level: Level = "not measured"
        rest = f"other channels contribute {100 * (1 - showing.share):.0f} %"
        figures = f"{showing.contribution('channels')}; {rest}.{showing.hidden}"
        said = f"These channels contribute {percent(showing.share, ' ')} of the evidence for {subject.of_class}"
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
    if not isinstance(bank, EPICBank):
        raise TypeError(f"epic needs an EPICBank, not {type(bank).__name__}")
    return bank


def contributions(model: Explainable, rotation: Matrix, look: EncoderOutput, target: Target) -> Float[Tensor, "b d"]:
    """Return the contribution ``A'_tk v_k`` of each channel ``k`` to the target's logit minus the mean over classes.

    The contributions add up to this difference, up to a constant. ``A' = A Uᵀ``, where ``A`` is the head's slope on
    these pictures (:meth:`seewhy.heads.head.Head.slope`) and ``U`` the rotation; ``v`` is the pooled rotated feature
    map.
    """
    slope = model.head.slope(look.pooled, target)
    return (slope @ rotation.T) * (look.pooled @ rotation.T)


class Entry(NamedTuple):
    """A candidate picture: file name, SHA-256 of its bytes, and class index."""

    name: str
    digest: str
    label: int


def without_copies(
    candidates: Int[Tensor, "k c"], unit: Float[Tensor, "n d"], m: int, duplicate: float
) -> Int[Tensor, "k m"]:
    """Return the first ``m`` candidates of each row that are not near-duplicates, padded with −1."""
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
    rotation: Matrix,
    maps: CellPart,
    entries: Sequence[Entry],
    n_kept: int,
    duplicate: float,
    store: FeatureStore | None,
) -> EPICBank:
    """Build the bank of a rotation: ``n_kept`` positive and ``n_kept`` negative prototypes per channel."""
    unit, rows = normalize(maps.pooled, dim=1), []
    for sign in (1, -1):
        of = without_copies(strongest(maps.pooled, rotation, SPARE * n_kept, sign), unit, n_kept, duplicate)
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
    return EPICBank(pictures, unit[used], mine, boxes[cells], originals[mine, cells], rotation, channels, signs, purity)


def _read(
    model: Explainable, entries: Sequence[Entry], boxes: Float[Tensor, "s 4"], store: FeatureStore | None
) -> tuple[tuple[BankPicture, ...], Int[Tensor, "p s 4"]]:
    """Return thumbnails, and the box of each grid cell in the upright originals."""
    pictures, originals = [], []
    stream = encode_stream(model.encoder, [e.name for e in entries], store=store, request=EncodeRequest(pictures=True))
    for entry, seen in zip(entries, stream, strict=True):
        if not isinstance(seen, Encoded) or seen.picture is None or seen.digest != entry.digest:
            raise DataError(
                f"{entry.name} changed during the fit of the prototypes. Do not change the file, and run the command "
                "again."
            )
        pictures.append(BankPicture(entry.name, entry.digest, entry.label, encode_thumbnail(seen.picture.pixels)))
        originals.append([seen.picture.to_original(tuple(box)) for box in boxes.tolist()])
    return tuple(pictures), torch.tensor(originals)
