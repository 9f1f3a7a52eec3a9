"""Training class prompts: on the tokens of a frozen network where it can be, on pictures where they enter earlier."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from jaxtyping import Float
from torch import Tensor

from ....encoders.base import Encoder
from ....training.batches import Batch
from ....training.task import Task, classified
from .network import PromptCAMNetwork

BORDER = 240 / 224
"""The authors stretch pictures to 240 x 240 and crop 224 x 224 at random, mirrored half of the time."""


class Prompting(Task):
    """Class prompts before or inside a frozen network, which stays where it is.

    Learns from ``"pixels"``; or, where prompts enter before the last block alone, from ``"tokens"``, what the trunk
    has seen once, in half precision.

    Args:
        network: whose prompts are trained.
    """

    needs: ClassVar[tuple[str, ...]] = ("labels",)
    moves: ClassVar[bool] = False

    def __init__(self, network: PromptCAMNetwork) -> None:
        super().__init__()
        self.network, self.prompts = network, network.prompts.requires_grad_(True)

    def features(self, batch: Batch) -> Float[Tensor, "b k"]:
        by_tokens = "tokens" in batch.columns
        return self.network.head.scores(batch["tokens"].float() if by_tokens else self.network.trunk(batch["pixels"]))

    def loss(self, features: Float[Tensor, "b k"], batch: Batch) -> Mapping[str, Tensor]:
        return classified(features, batch["labels"])


def seal_of(settings: Mapping[str, Any], encoder: Encoder, names: Sequence[str]) -> str:
    """What is trained on what, for a checkpoint."""
    digest = hashlib.sha256("\0".join(names).encode("utf-8", "surrogatepass")).hexdigest()[:16]
    return json.dumps([dict(settings), encoder.fingerprint, digest], sort_keys=True)
