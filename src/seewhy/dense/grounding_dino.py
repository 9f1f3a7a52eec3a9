"""Grounding DINO (Liu et al. 2023): a ready detector that finds the phrases of a sentence."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Any, ClassVar

import numpy as np
import torch
from jaxtyping import Bool, UInt8
from torch import Tensor

from ..encoders.base import Encoder
from ..errors import InputError
from ..storage.features import FeatureStore
from . import detectors
from .detections import Keep
from .names import names_to_find
from .pretrained_detector import Found, PretrainedDetector, as_image, corners, open_network


@detectors.register
@dataclass(frozen=True)
class GroundingDino:
    """The names are one sentence, "a cat. a dog."; the score of a name for a box is that of its best word.

    ``max over the words of a name of sigmoid(logit)``. transformers writes out the words above a limit instead, which
    can mix names; here a box always has one of those that were given.

    Cost: one pass for each tile.

    Args:
        tiles: windows on the picture's short side; 1 looks at the whole of it.
        least: score below which a box is not kept; .25 as in transformers.
        overlap: intersection over union above which the less sure of two boxes of a class goes.
        most: boxes kept in one picture.
    """

    name: ClassVar[str] = "grounding_dino"
    spelt: ClassVar[str] = "Grounding DINO"
    paper: ClassVar[str] = "Liu et al. 2023, arXiv:2303.05499"
    needs: ClassVar[str] = "names and a folder of its weights"
    takes_folder: ClassVar[bool] = True

    tiles: int = 1
    least: float = 0.25
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

        Raises:
            InputError: all names together are longer than it reads.
        """
        classes = names_to_find(labels)
        model, processor, digest = open_network(self.name, folder)
        sentence = " ".join(f"{' '.join(c.lower().replace('.', ' ').split())}." for c in classes)
        owner = words_of_names(processor.tokenizer(sentence)["input_ids"], processor.tokenizer, len(classes))
        if owner.shape[1] > model.config.max_text_len or not bool(owner.any(1).all()):
            raise InputError(
                f"{len(classes)} names are {owner.shape[1]} words to Grounding DINO, which reads "
                f"{model.config.max_text_len}. Fewer or shorter ones, each of a word or more, were expected. "
                "Ask in parts."
            )

        def look(pixels: UInt8[np.ndarray, "h w 3"]) -> Found:
            given = processor(text=sentence, images=as_image(pixels), return_tensors="pt")
            found: Any = model(**given)
            words = found.logits[0, :, : owner.shape[1]].sigmoid()
            scores = torch.stack([words[:, own].amax(1) for own in owner], 1)
            return corners(found.pred_boxes[0], pixels.shape[1], pixels.shape[0]), scores

        about = {"method": self.name, "encoder": str(folder), "fingerprint": digest, "parameters": asdict(self)}
        return PretrainedDetector(classes, about, look, Keep(self.least, self.overlap, self.most), self.tiles)


def words_of_names(ids: list[int], tokenizer: Any, n: int) -> Bool[Tensor, "k t"]:
    """Which tokens are whose: names are parted by full stops."""
    stop, special = tokenizer.convert_tokens_to_ids("."), set(tokenizer.all_special_ids)
    owner, k = torch.zeros(n, len(ids), dtype=torch.bool), 0
    for t, token in enumerate(ids):
        if token == stop:
            k += 1
        elif k < n and token not in special:
            owner[k, t] = True
    return owner
