"""Claims of papers that pictures with masks suffice for."""

from __future__ import annotations

from dataclasses import replace

from ..studies.claims import ClaimMaterial, Compared, PaperClaim
from ..studies.verdicts import Interval
from .denseclip import DenseCLIP
from .evaluation import OWN, PROBE, SHUFFLED, evaluate_segmenter
from .finders import Segmenter
from .maskclip import MaskCLIP


def _over(m: ClaimMaterial, segmenter: Segmenter, control: str, halves: bool = False) -> Compared:
    """Mean intersection over union, and how far it is above a control's."""
    assert m.data.masks is not None  # the study has checked
    masks = m.data.masks
    test = replace(masks, items=masks.items[1::2]) if halves else masks
    train = replace(masks, items=masks.items[::2]) if halves else None
    found = evaluate_segmenter(segmenter, test, train=train, seed=m.study.seed, progress=m.progress).data
    rows = {row["name"]: row for row in found["rows"]}
    row = rows[control]
    ours = Interval(row["difference"], *row["difference_interval"])
    return Compared(ours, f"mIoU {rows[OWN]['miou']:.3f}, {control} {row['miou']:.3f}; difference {ours}", found["n"])


def _maskclip(m: ClaimMaterial) -> Compared:
    assert m.data.masks is not None  # the study has checked
    return _over(m, MaskCLIP().build(m.encoder, m.data.masks.classes, m.store), SHUFFLED)


def _denseclip(m: ClaimMaterial) -> Compared:
    assert m.data.masks is not None  # the study has checked
    learn = replace(m.data.masks, items=m.data.masks.items[::2])
    return _over(m, DenseCLIP().fit(m.encoder, learn, progress=m.progress), PROBE, halves=True)


CLAIMS = (
    PaperClaim("maskclip", "Names find their pixels without training, better than shuffled names",
        "Zhou et al. 2022, arXiv:2112.01071", _maskclip, "mIoU on VOC20 49.5, ViT-B/16 (authors' README)",
        needs="masks"),
    PaperClaim("denseclip", "A decoder shown the map of texts makes better masks than a probe of cells",
        "Rao et al. 2022, arXiv:2112.01518", _denseclip,
        "mIoU on ADE20K, ResNet-50: 43.5 against 39.6 (authors' README)", 0.039, "masks"),
)  # fmt: skip
