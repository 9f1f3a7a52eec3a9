"""OWLv2 (Minderer et al. 2023): a ready detector that finds what words name."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Any, ClassVar

import numpy as np
from jaxtyping import UInt8

from ..encoders.base import Encoder
from ..encoders.templates import filled
from ..storage.features import FeatureStore
from . import detectors
from .detections import Keep
from .names import names_to_find
from .pretrained_detector import Found, PretrainedDetector, as_image, corners, open_network


@detectors.register
@dataclass(frozen=True)
class Owlv2:
    """Every patch proposes one box, and its vector is compared with the names: ``sigmoid(scale * cos + shift)``.

    Weights and processor are transformers' own, from a folder in safetensors; no code of the repository runs. The
    picture is padded to a square at its right and lower edge, so boxes are fractions of its longer side: they are
    taken so here, whatever the version of transformers makes of them.

    Cost: one pass for each tile.

    Args:
        template: a sentence with ``{}`` for the name, as the paper's first template.
        tiles: windows on the picture's short side; 1 looks at the whole of it.
        least: score below which a box is not kept; .1 as in transformers.
        overlap: intersection over union above which the less sure of two boxes of a class goes.
        most: boxes kept in one picture.
    """

    name: ClassVar[str] = "owlv2"
    spelt: ClassVar[str] = "OWLv2"
    paper: ClassVar[str] = "Minderer et al. 2023, arXiv:2306.09683"
    needs: ClassVar[str] = "names and a folder of its weights"
    takes_folder: ClassVar[bool] = True

    template: str = "a photo of a {}."
    tiles: int = 1
    least: float = 0.1
    overlap: float = 0.5
    most: int = 100

    @staticmethod
    def tiled(n: int) -> dict[str, Any]:
        """The parameters with which pictures are looked at in so many tiles on the short side."""
        return {"tiles": n}

    def build(
        self,
        labels: Iterable[str],
        encoder: Encoder | None = None,
        folder: str | None = None,
        store: FeatureStore | None = None,
    ) -> PretrainedDetector:
        """A detector for these names.

        Args:
            labels: what may be in the picture.
            encoder: not used.
            folder: of the weights.
            store: not used.
        """
        classes = names_to_find(labels)
        model, processor, digest = open_network(self.name, folder)
        queries = [filled(self.template, c) for c in classes]

        def look(pixels: UInt8[np.ndarray, "h w 3"]) -> Found:
            given = processor(text=[queries], images=as_image(pixels), return_tensors="pt", truncation=True)
            found: Any = model(**given)
            side = float(max(pixels.shape[:2]))
            return corners(found.pred_boxes[0], side, side), found.logits[0].sigmoid()

        about = {"method": self.name, "encoder": str(folder), "fingerprint": digest, "parameters": asdict(self)}
        return PretrainedDetector(classes, about, look, Keep(self.least, self.overlap, self.most), self.tiles)
