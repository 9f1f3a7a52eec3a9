"""DITO (Kim et al. 2023, arXiv 2310.00161): an open-vocabulary detector."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import ClassVar, Literal, cast

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn
from torch.nn.functional import normalize

from ...bounds import NotNegative, Part, Positive, SomePart
from ...encoders.base import Encoder
from ...encoders.region_heads import HeadSizes, RegionHeads
from ...heads.head import Head
from ...heads.normalise import Normalise
from ...learning.encoders.delta import halves_of, load_delta, state_delta
from ...pictures.boxes import BoxData
from ...pictures.images import upright_size
from ...progress import Progress
from ...seeded import seeded
from ...training.batches import TrainingData
from ...training.loop import train
from ...training.memory import training_cost
from .. import detectors
from ..cells import CHANNELS, joint_cells
from ..maskclip import TEMPLATES, texts_of
from ..parts import NOTHING, PooledScore, rest_names
from ..reader import LONGEST, Looked, Reader, box_means
from ..two_stage import Blend, TwoStage, TwoStageLearning, shrunk
from .trained import Regions
from .trunk import MergedMaps, TwoStageMethod, cut, looked_once

BACKGROUND = "background"
FAINT = 1e-12
"""Smallest score for which score differences are computed."""


@detectors.register
@dataclass(frozen=True)
class DITO(TwoStageMethod):
    """An open-vocabulary detector that combines its class probabilities with those of the frozen encoder.

        p = softmax(cos(head(box), t) / temperature)
        score = p^(1 - w) z^w

    - ``head(box)``: the embedding of the box.
    - ``t``: the text embeddings of the names.
    - ``p``: the class probabilities of the detector.
    - ``z``: the class probabilities of the frozen encoder, from the mean of its grid cells in the box, scaled by
      ``shrink``.
    - ``w``: ``alpha`` for names with training boxes, and ``beta`` for other names.

    The score is multiplied by a power of the objectness (:class:`~seewhy.dense.two_stage.Blend`). As in the authors'
    code, ``z`` is computed in the proposed box, and the result is the refined box. If ``seewhy pretrain --objective
    dito`` saved heads with the encoder, training starts from them.

    With ``trunk_lr`` greater than 0, a copy of the trunk is also trained; ``z`` still comes from the original encoder.
    With 0, as in F-VLM, the trunk is frozen and runs once for ``p`` and ``z``.

    Where we differ from the authors' code:

    - Three levels are computed from the last feature map.
    - The heads are smaller, and the background has a text embedding.
    - The optimiser is AdamW instead of SGD with momentum, and there is no scale jitter.
    - ``z`` uses an area-weighted mean of grid cells instead of 14 x 14 interpolated points.

    For equal ``p`` and ``z``, the scores equal those of the authors' code to five digits.

    Cost: one pass of the trunk per window, or two if it was trained, and the heads for ``n_proposed`` boxes. Training
    stores the feature maps of all pictures in memory, in half precision. If the trunk is trained, each step runs the
    trunk forwards and backwards on each picture; SeeWhy first reports the estimated time.

    Args:
        alpha: exponent of the frozen encoder for names with training boxes, 0 to 1 (paper: .35).
        beta: exponent of the frozen encoder for other names, 0 to 1 (paper: .65).
        objectness: exponent of the objectness (authors: 3).
        shrink: factor on the sides of the box that the frozen encoder reads (authors: .7).
        words_at: boxes for which ``z`` is computed: ``"proposals"`` (authors) or ``"moved"`` (the refined boxes).
        temperature: initial temperature of the detector's cosines (authors: .01).
        words_temperature: temperature of the frozen encoder's cosines; default: the temperature of the encoder (.01 for
            CLIP).
        template: a sentence with ``{}`` for a name; default: the mean over several.
        trunk_lr: learning rate of the trunk, as a fraction of ``lr`` (authors: .6); 0 freezes the trunk (F-VLM).
    """

    name: ClassVar[str] = "dito"
    spelt: ClassVar[str] = "DITO"
    paper: ClassVar[str] = "Kim et al. 2023, arXiv:2310.00161"
    cost: ClassVar[str] = "one per window; two if the trunk learnt"

    alpha: Part = 0.35
    beta: Part = 0.65
    objectness: NotNegative = 3.0
    shrink: SomePart = 0.7
    words_at: Literal["proposals", "moved"] = "proposals"
    temperature: Positive = 0.01
    words_temperature: Positive | None = None
    template: str | None = None
    trunk_lr: NotNegative = 0.0

    @property
    def blend(self) -> Blend:
        return Blend(self.alpha, self.beta, self.objectness)

    def texts(self, encoder: Encoder, names: tuple[str, ...]) -> Float[Tensor, "k d"]:
        """Return the text embeddings of the background and the names."""
        return texts_of(encoder, (BACKGROUND, *names), (self.template,) if self.template else TEMPLATES)

    def fit(
        self, reader: Reader, data: BoxData, *, progress: Progress | None = None, checkpoint: Path | None = None
    ) -> WordedBoxes:
        """Train both stages and, if requested, the trunk."""
        progress = progress or Progress()
        task, given = self._prepared(reader, data, progress)
        how, kept = self.training(given, self.trunk_lr), self.seal(checkpoint, reader, data)
        train(task, given, how, checkpoint=kept, progress=progress)
        trunk = None if task.trunk is None else cast(MergedMaps, task.trunk).still.network
        return WordedBoxes(self, task.network, data.classes, data.classes, trunk)

    def cost_of(self, reader: Reader, data: BoxData, n_trainings: int) -> str | None:
        """Return the estimated cost of training the trunk, or ``None`` if it is frozen."""
        if not self.trunk_lr:
            return None
        task, given = self._prepared(reader, data, Progress())
        said = training_cost(task, given, self.training(given, self.trunk_lr), n_trainings)
        return (
            f"the trunk is trained too: {said}; each picture then takes two passes, one of them through the frozen "
            f"encoder for the words"
        )

    def _prepared(self, reader: Reader, data: BoxData, progress: Progress) -> tuple[TwoStageLearning, TrainingData]:
        encoder = reader.base
        texts = self.texts(encoder, data.classes)
        trunk: MergedMaps | None = None
        if self.trunk_lr:
            columns = cut(reader, data, progress)
            first = reader.windows(upright_size(columns["pixels"].images[0], longest=LONGEST))
            size = replace(first, cells=reader.map_shape[1:]).whole
            trunk = MergedMaps(halves_of(reader.encoder)[0], encoder.layout, size)
        else:
            columns = looked_once(reader, data, _maps, progress)
        n = len(columns["labels"])
        with seeded(self.seed):
            heads = RegionHeads(HeadSizes(reader.map_shape[0], texts.shape[1]))
            if encoder.region_heads is not None and encoder.region_heads.sizes == heads.sizes:
                heads.load_state_dict(encoder.region_heads.state_dict())
            elif encoder.region_heads is not None:
                progress.note(f"{encoder.name} has heads of other sizes, so these are trained from random weights")
            network = TwoStage(heads, texts, self.temperature)
        return TwoStageLearning(network, trunk), TrainingData(n, columns)

    def restore(self, encoder: Encoder, classes: tuple[str, ...], tensors: Mapping[str, Tensor]) -> WordedBoxes:
        sizes = HeadSizes(tensors["heads.across.0.0.weight"].shape[1], tensors["texts"].shape[1])
        network = TwoStage(RegionHeads(sizes), tensors["texts"], self.temperature)
        network.load_state_dict({name: value for name, value in tensors.items() if not name.startswith("trunk.")})
        trunk = halves_of(encoder)[0] if self.trunk_lr else None
        if trunk is not None:
            load_delta({"trunk": trunk}, tensors, whole=True)
        return WordedBoxes(self, network.eval().requires_grad_(False), classes, classes, trunk)


@dataclass(frozen=True, eq=False)
class WordedBoxes:
    """The detector that :class:`DITO` trains."""

    how: DITO
    network: TwoStage = field(repr=False)
    classes: tuple[str, ...]
    trained: tuple[str, ...]
    trunk: nn.Module | None = field(default=None, repr=False)

    @property
    def is_base(self) -> Bool[Tensor, " k"]:
        """Whether each name had training boxes."""
        return torch.tensor([name in self.trained for name in self.classes])

    def tensors(self) -> dict[str, Tensor]:
        own = {} if self.trunk is None else state_delta({"trunk": self.trunk}, {}, whole=True)
        return {**self.network.state_dict(), **own}

    def named(self, encoder: Encoder, classes: tuple[str, ...]) -> WordedBoxes:
        """Return the detector for other names; trained names still use ``alpha``."""
        network = TwoStage(self.network.heads, self.how.texts(encoder, classes), self.how.temperature)
        own = {name: value for name, value in self.network.state_dict().items() if name != "texts"}
        network.load_state_dict(own, strict=False)
        return replace(self, network=network.eval().requires_grad_(False), classes=classes)

    @torch.no_grad()
    def regions(self, encoder: Encoder, looked: Looked) -> Regions:
        frozen, features = self._halves(encoder, looked.features)
        grid = looked.windows.merged(encoder.layout.to_grid(features)).float()
        first, boxes, objectness, own = self.network.found(grid[None], self.how.n_proposed).real()
        cells = looked.windows.merged(joint_cells(encoder, frozen)).float()
        words = self._words(encoder, cells, first if self.how.words_at == "proposals" else boxes)
        is_base, blend = self.is_base, self.how.blend
        scores = blend(own, words, is_base, objectness)[:, 1:]
        made_of = {
            "detector": own.softmax(1)[:, 1:],
            "words": words.softmax(1)[:, 1:],
            "weight": torch.where(is_base, blend.alpha, blend.beta).expand_as(scores),
            "objectness": objectness[:, None].expand_as(scores),
        }
        return Regions(boxes, scores, made_of)

    def pooled(self, reader: Reader, classes: tuple[str, ...]) -> PooledScore:
        """Return a classifier of one box, which maps a picture to the class scores of the box."""
        encoder, n = reader.encoder, self.network.heads.sizes.channels

        def cells(encoder: Encoder, features: Tensor) -> Tensor:
            frozen, own = self._halves(encoder, features)
            return torch.cat([encoder.layout.to_grid(own), joint_cells(encoder, frozen)], 1)

        def reads(whole: Tensor, box: Float[Tensor, "1 4"]) -> Callable[[Tensor], Tensor]:
            start, place = self._proposal(whole[:, :n], box)
            at = start if self.how.words_at == "proposals" else box

            def logits(copies: Tensor) -> Float[Tensor, "b k"]:
                levels = self.network.heads.levels(copies[:, :n])
                own, _ = self.network.read(levels, start.expand(len(copies), 4), torch.arange(len(copies)))
                words = torch.cat([self._words(encoder, one, at) for one in copies[:, n:]])
                sure = torch.ones(len(copies))
                if place is not None:
                    sure = self.network.proposals(levels)[1][:, place].sigmoid()
                scores = self.how.blend(own, words, self.is_base, sure)[:, 1:]
                return torch.cat([scores, 1 - scores.sum(1, keepdim=True)], 1).clamp(min=FAINT).log()

            return logits

        names = (*classes, *rest_names(classes, (NOTHING,)))
        return PooledScore(reader, DITO.name, names, cells, Head(Normalise(), torch.eye(len(names))), reads=reads)

    def _proposal(self, grid: Tensor, box: Float[Tensor, "1 4"]) -> tuple[Float[Tensor, "1 4"], int | None]:
        """Return the proposal behind a box and its index, if any."""
        start = self.network.found(grid, self.how.n_proposed).proposal_of(box)
        if start is None:
            return box, None
        every = self.network.proposals(self.network.heads.levels(grid))[0][0].clamp(0, 1)
        return start, int((every - start).abs().amax(1).argmin())

    def _halves(self, encoder: Encoder, features: Tensor) -> tuple[Tensor, Tensor]:
        """Return the features of the frozen encoder and of the detector's trunk."""
        if self.trunk is None:
            return features, features
        frozen, own = features.chunk(2, CHANNELS[encoder.layout.kind])
        return frozen, own

    def _words(
        self, encoder: Encoder, cells: Float[Tensor, "d h w"], boxes: Float[Tensor, "n 4"]
    ) -> Float[Tensor, "n k"]:
        """Return the frozen encoder's logits of boxes."""
        high, wide = cells.shape[1:]
        smaller = shrunk(boxes, self.how.shrink) * torch.tensor([wide, high, wide, high])
        vectors = normalize(box_means(cells, smaller), dim=1)
        scale = encoder.text.logit_scale if self.how.words_temperature is None else 1 / self.how.words_temperature
        return scale * vectors @ self.network.texts.T


def _maps(encoder: Encoder, looked: Looked) -> dict[str, Tensor]:
    return {"maps": looked.windows.merged(encoder.layout.to_grid(looked.features))}
