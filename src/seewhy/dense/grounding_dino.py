"""Grounding DINO (Liu et al. 2023), a pretrained zero-shot detector."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, UInt8
from PIL import Image
from torch import Tensor

from ..errors import InputError
from . import detectors
from .pretrained import Found, Look, PretrainedMethod, corners


@detectors.register
@dataclass(frozen=True)
class GroundingDino(PretrainedMethod):
    """Zero-shot detection with a pretrained Grounding DINO network.

    The names are given as one sentence, for example "a cat. a dog.". The score of a name is:

        score = max_w sigmoid(logit_w)

    - ``w``: a token of the name; ``logit_w`` is the logit of the box for this token.

    The transformers library instead returns all tokens above a threshold, which can mix two names in one box.

    The network runs once per tile.

    Args:
        tiles, overlap, most: see :class:`~seewhy.dense.pretrained.PretrainedMethod`.
        least: lowest score of a box, 0 to 1 (transformers: .25).
    """

    name = "grounding_dino"
    spelt = "Grounding DINO"
    paper = "Liu et al. 2023, arXiv:2303.05499"

    least: float = 0.25

    def look(self, classes: tuple[str, ...], model: Any, processor: Any) -> Look:
        sentence = " ".join(f"{' '.join(c.lower().replace('.', ' ').split())}." for c in classes)
        owner = words_of_names(processor.tokenizer(sentence)["input_ids"], processor.tokenizer, len(classes))
        if owner.shape[1] > model.config.max_text_len or not bool(owner.any(1).all()):
            raise InputError(
                f"The {len(classes)} names must have at most {model.config.max_text_len} tokens together and at least "
                f"one each, got {owner.shape[1]} tokens. Give fewer or shorter names."
            )

        def look(pixels: UInt8[np.ndarray, "h w 3"]) -> Found:
            given = processor(text=sentence, images=Image.fromarray(pixels), return_tensors="pt")
            found: Any = model(**given)
            words = found.logits[0, :, : owner.shape[1]].sigmoid()
            scores = torch.stack([words[:, own].amax(1) for own in owner], 1)
            return corners(found.pred_boxes[0], pixels.shape[1], pixels.shape[0]), scores

        return look


def words_of_names(ids: list[int], tokenizer: Any, n: int) -> Bool[Tensor, "k t"]:
    """Return a mask of the tokens of each name."""
    stop, special = tokenizer.convert_tokens_to_ids("."), set(tokenizer.all_special_ids)
    owner, k = torch.zeros(n, len(ids), dtype=torch.bool), 0
    for t, token in enumerate(ids):
        if token == stop:
            k += 1
        elif k < n and token not in special:
            owner[k, t] = True
    return owner
