"""OWLv2 (Minderer et al. 2023), a pretrained zero-shot detector."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import UInt8
from PIL import Image

from ..encoders.names import filled
from . import detectors
from .pretrained import Found, Look, PretrainedMethod, corners


@detectors.register
@dataclass(frozen=True)
class Owlv2(PretrainedMethod):
    """Zero-shot detection with a pretrained OWLv2 network.

    Each patch proposes one box, with the score:

        score = sigmoid(scale * cos + shift)

    - ``cos``: the cosine of the patch embedding with the text embedding of the name.
    - ``scale``, ``shift``: two numbers that the network predicts for the patch.

    Weights and processor are read from a transformers folder in safetensors. No code in the folder is executed.

    The network runs once per tile.

    Args:
        tiles, overlap, most: see :class:`~seewhy.dense.pretrained.PretrainedMethod`.
        least: lowest score of a box, 0 to 1 (transformers: .1).
        template: a sentence with ``{}`` for the name; default: the paper's first template.
    """

    name = "owlv2"
    spelt = "OWLv2"
    paper = "Minderer et al. 2023, arXiv:2306.09683"

    template: str = "a photo of a {}."

    def look(self, classes: tuple[str, ...], model: Any, processor: Any) -> Look:
        queries = [filled(self.template, c) for c in classes]

        def look(pixels: UInt8[np.ndarray, "h w 3"]) -> Found:
            given = processor(text=[queries], images=Image.fromarray(pixels), return_tensors="pt", truncation=True)
            found: Any = model(**given)
            side = float(max(pixels.shape[:2]))
            return corners(found.pred_boxes[0], side, side), found.logits[0].sigmoid()

        return look
