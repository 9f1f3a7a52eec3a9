"""Encoders whose last layers are changed by an instruction, as if they were trained."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn

from seewhy.encoders.base import Encoder
from seewhy.learning.encoders.instructed import Instructed

QUESTIONS = (("the red",), ("the blue",))


def changed(
    on: Encoder, questions: Sequence[Sequence[str]] = QUESTIONS, rank: int = 3, n_layers: int = 1
) -> Instructed:
    """Every weight drawn; no sentence is far from those that are taught."""
    with torch.random.fork_rng():
        torch.manual_seed(1)
        part = Instructed.before(on, questions, rank=3, n_layers=n_layers)
        pixels = torch.randn(4, 3, *on.transform.input_size)
        part.measure(part.below.encode(pixels).pooled)
        for parameter in part.parameters():
            nn.init.normal_(parameter, std=0.1)
    part.far.fill_(-1.0)
    return part.requires_grad_(False)
