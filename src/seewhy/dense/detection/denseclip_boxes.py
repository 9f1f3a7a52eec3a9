"""DenseCLIP's detector (Rao et al. 2022): a two-stage detector on features and text score maps."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar, Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits, interpolate

from ...bounds import NotNegative, Positive
from ...encoders.base import Encoder
from ...encoders.region_heads import HeadSizes, RegionHeads
from ...heads.head import Head
from ...heads.normalise import Normalise
from ...pictures.boxes import BoxData
from ...progress import Progress
from ...seeded import seeded
from ...training.batches import Batch, TrainingData
from ...training.loop import train
from ...training.task import Task
from .. import detectors
from ..cells import joint_cells
from ..parts import NOTHING, PooledScore, rest_names
from ..pixel_text import PixelText, Texts, texts_for
from ..reader import Looked, Reader
from ..two_stage import Found, TwoStage, TwoStageLearning
from .trained import Regions
from .trunk import TwoStageMethod, looked_once

FINER = 8
"""Upsampling factor of the score map for its loss, as in the authors' code."""
TEMPERATURE = 0.1
"""Initial temperature of the last layer's cosines."""


@detectors.register
@dataclass(frozen=True)
class DenseCLIPBoxes(TwoStageMethod):
    """A two-stage detector trained on feature maps and text score maps.

    The input of the two stages is the map ``[features; s / τ]``. The loss is that of Faster R-CNN plus ``BCE(s / τ)``.

    - ``s``: the cosines of grid cells with text embeddings that depend on the picture, as in
      :class:`~seewhy.dense.denseclip.DenseCLIP`.
    - ``τ``: the temperature.
    - ``BCE``: the binary cross-entropy with maps of the boxes' interiors, as in the authors' Mask R-CNN.

    The score of a box is its class probability times its objectness.

    Where we differ from the authors' code: the encoder is frozen. The two stages are
    :class:`~seewhy.dense.two_stage.TwoStage` with a linear classifier, and are smaller than in Mask R-CNN. Texts are
    sentences. Instance masks are not trained. On drawn objects, the score map lowered AP50 by 8 points
    (docs/reproductions/denseclip_encoder.md), so compare the detector with ``texts=none``.
    ``seewhy.fit_detector(method="auto")`` does not try this detector.

    The trunk runs once per window, and the heads run on ``n_proposed`` boxes. Training stores the feature maps of all
    pictures in memory, in half precision.

    Args:
        texts: ``"names"``; for comparison, ``"shuffled"`` names, ``"random"`` vectors, or ``"none"`` for the two stages
            without texts.
        prompting: ``"post"`` for texts that depend on the picture, or ``"none"``.
        gamma: initial weight of post-model prompting (authors: 1e-4).
        tau: temperature of the score map (authors: .07).
        auxiliary: weight of the score map's loss (authors: 1).
    """

    name: ClassVar[str] = "denseclip_boxes"
    spelt: ClassVar[str] = "DenseCLIP for boxes"
    paper: ClassVar[str] = "Rao et al. 2022, arXiv:2112.01518"
    cost: ClassVar[str] = "one per window"
    in_auto: ClassVar[bool] = False

    texts: Texts = "names"
    prompting: Literal["post", "none"] = "post"
    gamma: float = 1e-4
    tau: Positive = 0.07
    auxiliary: NotNegative = 1.0

    def fit(
        self, reader: Reader, data: BoxData, *, progress: Progress | None = None, checkpoint: Path | None = None
    ) -> MappedBoxes:
        columns, encoder = looked_once(reader, data, _grids, progress or Progress()), reader.base
        maps = columns["maps"].float()
        with seeded(self.seed):
            network = BoxNetwork(maps.shape[1], texts_for(encoder, data.classes, self.texts, self.seed)[1], self)
        network.scale_to(maps.mean((0, 2, 3)), maps.transpose(0, 1).flatten(1).std(1))
        given = TrainingData(len(maps), columns)
        task, kept = BoxLearning(network, self.auxiliary), self.seal(checkpoint, reader, data)
        train(task, given, self.training(given), checkpoint=kept, progress=progress)
        return MappedBoxes(self, network, data.classes)

    def restore(self, encoder: Encoder, classes: tuple[str, ...], tensors: Mapping[str, Tensor]) -> MappedBoxes:
        network = BoxNetwork(len(tensors["mean"]), tensors["fixed"], self)
        network.load_state_dict(dict(tensors))
        return MappedBoxes(self, network.eval().requires_grad_(False), classes)


class BoxNetwork(PixelText):
    """The score map and the two stages of the detector."""

    def __init__(self, channels: int, texts: Float[Tensor, "k d"], how: DenseCLIPBoxes) -> None:
        super().__init__(channels, texts, how.prompting, how.gamma, shows=how.texts != "none")
        k, self.tau = len(texts), how.tau
        heads = RegionHeads(HeadSizes(channels + k * self.shows, k + 1))
        self.stages = TwoStage(heads, torch.eye(k + 1), TEMPERATURE)

    def forward(self, maps: Float[Tensor, "b c h w"], joint: Float[Tensor, "b d h w"]) -> tuple[Tensor, Tensor]:
        """Return the input of the two stages and the scaled score map."""
        maps = (maps - self.mean[:, None, None]) / self.spread[:, None, None]
        if not self.shows:
            return maps, maps.new_zeros(len(maps), len(self.fixed), *maps.shape[2:])
        scores = self.cosines(joint, joint.mean((2, 3))) / self.tau
        return torch.cat([maps, scores], 1), scores


class BoxLearning(Task):
    """The losses of both stages plus the loss of the score map."""

    needs: ClassVar = ("maps", "joint", "boxes", "labels")

    def __init__(self, network: BoxNetwork, auxiliary: float) -> None:
        super().__init__()
        self.network, self.auxiliary = network, auxiliary
        self.stages = TwoStageLearning(network.stages)

    def features(self, batch: Batch) -> tuple[Tensor, Tensor]:
        return self.network(batch["maps"].float(), batch["joint"].float())

    def loss(self, features: tuple[Tensor, Tensor], batch: Batch) -> Mapping[str, Tensor]:
        read, scores = features
        own = Batch(batch.index, {**batch.columns, "maps": read})
        stages = self.stages.loss(self.stages.features(own), own)
        beside = box_map_loss(scores, batch["boxes"], batch["labels"])
        return {"loss": stages["loss"] + self.auxiliary * beside, "stages": stages["loss"].detach(), "map": beside}


def box_map_loss(
    scores: Float[Tensor, "b k h w"], boxes: Float[Tensor, "b n 4"], labels: Int[Tensor, "b n"]
) -> Float[Tensor, ""]:
    """Return the binary cross-entropy of the score map with a map that is 1 inside the boxes."""
    finer = interpolate(scores, scale_factor=FINER, mode="bilinear", align_corners=False)
    high, wide = finer.shape[2:]
    wanted, inside = torch.zeros_like(finer), finer.new_zeros(len(finer), 1, high, wide)
    sides = boxes.new_tensor([wide, high, wide, high])
    corners = torch.minimum((boxes * sides).long().clamp(min=0), sides.long() - 1)
    for i, named in enumerate(labels):
        for (left, top, right, bottom), k in zip(corners[i, named >= 0].tolist(), named[named >= 0], strict=True):
            wanted[i, k, top:bottom, left:right] = 1
            inside[i, :, top:bottom, left:right] = 1
    total = binary_cross_entropy_with_logits(finer, wanted, inside.expand_as(finer), reduction="sum")
    return total / (finer.shape[1] * inside.sum()).clamp(min=1)


@dataclass(frozen=True, eq=False)
class MappedBoxes:
    """The detector that :class:`DenseCLIPBoxes` trains."""

    how: DenseCLIPBoxes
    network: BoxNetwork = field(repr=False)
    classes: tuple[str, ...]

    def tensors(self) -> dict[str, Tensor]:
        return dict(self.network.state_dict())

    @torch.no_grad()
    def regions(self, encoder: Encoder, looked: Looked) -> Regions:
        found = self.found(*(one[None].float() for one in _grids(encoder, looked).values())).real()
        named = found.logits.softmax(1)[:, 1:]
        sure = found.objectness[:, None].expand_as(named)
        return Regions(found.boxes, named * sure, {"class": named, "objectness": sure})

    def found(self, maps: Float[Tensor, "b c h w"], joint: Float[Tensor, "b d h w"]) -> Found:
        return self.network.stages.found(self.network(maps, joint)[0], self.how.n_proposed)

    def pooled(self, reader: Reader, classes: tuple[str, ...]) -> PooledScore:
        """Return a function of the features that gives the class scores of a box, without the objectness."""
        channels = len(self.network.mean)

        def cells(encoder: Encoder, features: Tensor) -> Tensor:
            return torch.cat([encoder.layout.to_grid(features), joint_cells(encoder, features)], 1)

        def reads(whole: Tensor, box: Float[Tensor, "1 4"]) -> Callable[[Tensor], Tensor]:
            found = self.found(whole[:, :channels], whole[:, channels:]).proposal_of(box)
            start = box if found is None else found

            def logits(copies: Tensor) -> Float[Tensor, "b k"]:
                levels = self.network.stages.heads.levels(self.network(copies[:, :channels], copies[:, channels:])[0])
                own, _ = self.network.stages.read(levels, start.expand(len(copies), 4), torch.arange(len(copies)))
                return own.roll(-1, 1)  # background is last

            return logits

        names = (*classes, *rest_names(classes, (NOTHING,)))
        head = Head(Normalise(), torch.eye(len(names)))
        return PooledScore(reader, self.how.name, names, cells, head, reads=reads)


def _grids(encoder: Encoder, looked: Looked) -> dict[str, Float[Tensor, "_d h w"]]:
    """Return the feature map of a picture and its image-text embeddings."""
    merged = looked.windows.merged
    return {
        "maps": merged(encoder.layout.to_grid(looked.features)),
        "joint": merged(joint_cells(encoder, looked.features)),
    }
