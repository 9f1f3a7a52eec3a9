"""Claims of papers that can be tested on pictures with masks."""

from __future__ import annotations

from dataclasses import replace

from ..pictures.pixel_classes import MaskedPictures
from ..studies.claims import ClaimMaterial, Compared, Interval, PaperClaim
from .denseclip import DenseCLIP
from .evaluation import OWN, PROBE, SHUFFLED, evaluate_segmenter
from .finders import Segmenter
from .maskclip import MaskCLIP


def _over(
    m: ClaimMaterial, segmenter: Segmenter, control: str, test: MaskedPictures, train: MaskedPictures | None = None
) -> Compared:
    found = evaluate_segmenter(segmenter, test, train=train, seed=m.study.seed, progress=m.progress).data
    rows = {row["name"]: row for row in found["rows"]}
    row = rows[control]
    ours = Interval(row["difference"], *row["difference_interval"])
    return Compared(ours, f"mIoU {rows[OWN]['miou']:.3f}, {control} {row['miou']:.3f}; difference {ours}", found["n"])


def _maskclip(m: ClaimMaterial) -> Compared:
    assert m.data.masks is not None  # checked by the study
    masks = m.data.masks
    return _over(m, MaskCLIP().build(m.encoder, masks.classes, m.store), SHUFFLED, masks)


def halves(masks: MaskedPictures) -> tuple[MaskedPictures, MaskedPictures]:
    """Split the pictures into a first and a second half, so that neighbouring video frames stay together."""
    middle = (len(masks) + 1) // 2
    return replace(masks, items=masks.items[:middle]), replace(masks, items=masks.items[middle:])


def _denseclip(m: ClaimMaterial) -> Compared:
    assert m.data.masks is not None  # checked by the study
    learn, test = halves(m.data.masks)
    return _over(m, DenseCLIP().fit(m.encoder, learn, progress=m.progress), PROBE, test, learn)


CLAIMS = (
    PaperClaim("maskclip", "Class names find their pixels without training, and better than shuffled names do",
        "Zhou et al. 2022, arXiv:2112.01071", _maskclip, "mIoU on VOC20 49.5, ViT-B/16 (authors' README)",
        needs="masks"),
    PaperClaim("denseclip", "A decoder that receives the map of text similarities makes better masks than a linear "
        "probe of the patches",
        "Rao et al. 2022, arXiv:2112.01518", _denseclip,
        "mIoU on ADE20K, ResNet-50: 43.5 against 39.6 (authors' README)", 0.039, "masks"),
)  # fmt: skip
