"""DITO (Kim et al. 2023, arXiv 2310.00161): a detector by words, whose scores are blended with the frozen encoder's."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from math import prod
from pathlib import Path
from typing import Any, ClassVar, Literal, cast

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn
from torch.nn.functional import normalize, pad

from ...bounds import Count, NotNegative, Part, Positive, SomePart, check_fields
from ...encoders.base import Encoder
from ...encoders.region_heads import HeadSizes, RegionHeads
from ...errors import ImageError
from ...heads.head import Head
from ...heads.normalise import Normalise
from ...learning.encoders.delta import halves_of, load_delta, state_delta
from ...pictures.boxes import BoxData, BoxedPicture
from ...pictures.images import upright_size
from ...progress import Progress
from ...seeded import seeded
from ...training.batches import TrainingData
from ...training.loop import Training, train
from ...types import Failure
from .. import detectors
from ..cells import CHANNELS, joint_cells
from ..maskclip import TEMPLATES, texts_of
from ..parts import NOTHING, PooledScore, rest_names
from ..reader import LARGEST, LONGEST, Looked, Reader, box_means
from ..two_stage import Blend, TwoStage, TwoStageLearning, shrunk
from .trained import Regions, boxes_on, check_usable
from .trunk import MergedMaps, Windowed, at_size, said_of

BACKGROUND = "background"
LEAST, FAINT = 1e-3, 1e-12
"""Part of the picture below which a box has no area, and two are one; score below which no difference is made."""


@detectors.register
@dataclass(frozen=True)
class DITO:
    """Places, then names by the cosine with texts, then a geometric mean with what the frozen encoder says of the box.

    ``p = softmax(cos(head(box), t) / temperature)``; ``z`` the same of the mean of the encoder's own cells in the box,
    made smaller by ``shrink``; names that were trained on score ``p^(1-alpha) z^alpha``, all others ``p^(1-beta)
    z^beta``, times the objectness to its power (:class:`~seewhy.dense.two_stage.Blend`). As the authors do, the frozen
    words are read where a box was proposed, and the box that is given is the one that was moved. Other names can be
    given when detecting: those that no box was drawn of are the others. Heads go on from where ``seewhy pretrain
    --objective dito`` left them, where the encoder has some.

    With ``trunk_lr`` a copy of the trunk learns with the heads (at .6 of their rate, as DITO's does); the encoder stays
    as it was, for the frozen words. At 0 the trunk is frozen, as F-VLM's is, and one look gives both sides.

    Differs: three levels on the last map; heads are smaller than the authors', the background is a word, AdamW takes
    the place of momentum, and pictures are not jittered in scale. Frozen words are the mean of the cells in the box by
    the part of each that is covered, where the authors take 14 x 14 points between cells. The blend of ``p`` and ``z``
    is theirs to five digits.

    Cost: one pass of the trunk for each window, two where it learnt; the heads of ``n_proposed`` boxes. Training: the
    maps of all pictures at half precision in memory; where the trunk learns, its passes forward and back for each
    picture of each step, read anew, which is said in minutes before it begins.

    Args:
        alpha: exponent of the frozen words for names that were trained on; the paper's .35.
        beta: for all others; the paper's .65.
        objectness: its power; the authors' 3.
        shrink: of a box's sides for the frozen words; the authors' .7.
        words_at: which boxes the frozen words are read in: the ``"proposals"``, as the authors do, or the ``"moved"``.
        temperature: of the detector's cosines, at first; the authors' .01.
        words_temperature: of the frozen words; left out, the encoder's own, which for CLIP is the authors' .01.
        template: a sentence with ``{}`` for a name; left out, the mean over several.
        n_proposed: boxes of a picture that are named.
        n_steps: of training.
        batch_size: pictures a step.
        lr: learning rate, at its highest.
        trunk_lr: that of the trunk, as a part of it; the authors' is .6, and 0 leaves it frozen, which is F-VLM.
        zoom: the picture's short side, in inputs of the encoder.
        seed: of weights, order and boxes drawn.
    """

    name: ClassVar[str] = "dito"
    spelt: ClassVar[str] = "DITO"
    paper: ClassVar[str] = "Kim et al. 2023, arXiv:2310.00161"
    needs: ClassVar[str] = "pictures with boxes and an image-text encoder"
    cost: ClassVar[str] = "one per window; two where the trunk learnt"
    takes_folder: ClassVar[bool] = False
    needs_words: ClassVar[bool] = True

    older: ClassVar[Mapping[str, Any]] = {"words_at": "moved"}

    alpha: Part = 0.35
    beta: Part = 0.65
    objectness: NotNegative = 3.0
    shrink: SomePart = 0.7
    words_at: Literal["proposals", "moved"] = "proposals"
    temperature: Positive = 0.01
    words_temperature: Positive | None = None
    template: str | None = None
    n_proposed: Count = 100
    n_steps: int = 300
    batch_size: int = 8
    lr: float = 1e-3
    trunk_lr: NotNegative = 0.0
    zoom: float = LARGEST
    seed: int = 0

    def __post_init__(self) -> None:
        check_fields(self)

    @property
    def blend(self) -> Blend:
        return Blend(self.alpha, self.beta, self.objectness)

    def texts(self, encoder: Encoder, names: tuple[str, ...]) -> Float[Tensor, "k d"]:
        """Of the background, then of the names."""
        return texts_of(encoder, (BACKGROUND, *names), (self.template,) if self.template else TEMPLATES)

    def fit(
        self, reader: Reader, data: BoxData, *, progress: Progress | None = None, checkpoint: Path | None = None
    ) -> WordedBoxes:
        """Train both stages, on a frozen trunk or with one that learns."""
        progress = progress or Progress()
        task, given = self._prepared(reader, data, progress)
        what = json.dumps([asdict(self), reader.base.fingerprint, data.classes, [p.image for p in data.pictures]])
        kept = None if checkpoint is None else (checkpoint, what)
        train(task, given, self._training(given), checkpoint=kept, progress=progress)
        trunk = None if task.trunk is None else cast(MergedMaps, task.trunk).still.network
        return WordedBoxes(self, task.network, data.classes, data.classes, trunk)

    def cost_of(self, reader: Reader, data: BoxData, n_trainings: int) -> str | None:
        """What so many trainings will take here; ``None`` where the trunk is frozen, which is little."""
        if not self.trunk_lr:
            return None
        task, given = self._prepared(reader, data, Progress())
        return said_of(task, given, self._training(given), n_trainings)

    def _prepared(self, reader: Reader, data: BoxData, progress: Progress) -> tuple[TwoStageLearning, TrainingData]:
        """What is trained, and what it learns from."""
        encoder = reader.base
        texts = self.texts(encoder, data.classes)
        trunk: MergedMaps | None = None
        if self.trunk_lr:
            pixels, columns = _cut(reader, data, progress)
            first = reader.windows(upright_size(pixels.images[0], longest=LONGEST))
            size = replace(first, cells=reader.map_shape[1:]).whole
            trunk = MergedMaps(halves_of(reader.encoder)[0], encoder.layout, size)
            columns = {"pixels": pixels, **columns}
        else:
            columns = _gathered(reader, data, progress)
        n = len(columns["labels"])
        with seeded(self.seed):
            heads = RegionHeads(HeadSizes(reader.map_shape[0], texts.shape[1]))
            if encoder.region_heads is not None and encoder.region_heads.sizes == heads.sizes:
                heads.load_state_dict(encoder.region_heads.state_dict())
            elif encoder.region_heads is not None:
                progress.note(f"{encoder.name} has heads of other sizes: these begin from nothing")
            network = TwoStage(heads, texts, self.temperature)
        return TwoStageLearning(network, trunk), TrainingData(n, columns)

    def _training(self, data: TrainingData) -> Training:
        return Training(
            self.n_steps, min(self.batch_size, data.n_samples), lr=self.lr, weight_decay=1e-4, schedule="cosine",
            warmup=min(20, self.n_steps // 5), seed=self.seed, part_lr=(("trunk", self.trunk_lr),),
            part_decay=(("trunk", 0.0),),
        )  # fmt: skip

    def restore(self, encoder: Encoder, classes: tuple[str, ...], tensors: Mapping[str, Tensor]) -> WordedBoxes:
        """The detector that was saved."""
        across, hidden = tensors["heads.across.0.0.weight"], tensors["heads.hidden.weight"]
        width = across.shape[0]
        n = sum(name.startswith("heads.box.") and name.endswith(".0.weight") for name in tensors)
        sizes = HeadSizes(
            across.shape[1], tensors["heads.embed.weight"].shape[0], width, round((hidden.shape[1] / width) ** 0.5), n,
            hidden.shape[0],
        )  # fmt: skip
        network = TwoStage(RegionHeads(sizes), tensors["texts"], self.temperature)
        network.load_state_dict({name: value for name, value in tensors.items() if not name.startswith("trunk.")})
        trunk = halves_of(encoder)[0] if self.trunk_lr else None
        if trunk is not None:
            load_delta({"trunk": trunk}, tensors, whole=True)
        return WordedBoxes(self, network.eval().requires_grad_(False), classes, classes, trunk)


@dataclass(frozen=True, eq=False)
class WordedBoxes:
    """What :class:`DITO` learns."""

    how: DITO
    network: TwoStage = field(repr=False)
    classes: tuple[str, ...]
    trained: tuple[str, ...]
    trunk: nn.Module | None = field(default=None, repr=False)

    @property
    def is_base(self) -> Bool[Tensor, " k"]:
        """Which names boxes were drawn of."""
        return torch.tensor([name in self.trained for name in self.classes])

    def tensors(self) -> dict[str, Tensor]:
        own = {} if self.trunk is None else state_delta({"trunk": self.trunk}, {}, whole=True)
        return {**self.network.state_dict(), **own}

    def named(self, encoder: Encoder, classes: tuple[str, ...]) -> WordedBoxes:
        """The same for other names; those that were trained on keep their weight."""
        network = TwoStage(self.network.heads, self.how.texts(encoder, classes), self.how.temperature)
        own = {name: value for name, value in self.network.state_dict().items() if name != "texts"}
        network.load_state_dict(own, strict=False)
        return replace(self, network=network.eval().requires_grad_(False), classes=classes)

    @torch.no_grad()
    def regions(self, encoder: Encoder, looked: Looked) -> Regions:
        """Boxes, scores, and what these are made of: both probabilities, the words' exponent and the objectness."""
        frozen, features = self._halves(encoder, looked.features)
        grid = looked.windows.merged(encoder.layout.to_grid(features)).float()
        first, boxes, objectness, own = (one[0] for one in self.network.found(grid[None], self.how.n_proposed))
        real = ((boxes[:, 2:] - boxes[:, :2]) > LEAST).all(1) & (objectness > 0)
        first, boxes, objectness, own = first[real], boxes[real], objectness[real], own[real]
        cells = looked.windows.merged(joint_cells(encoder, frozen)).float()
        words = self._words(encoder, cells, self._read_at(first, boxes))
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
        """The score of a box as it is: what proposed it is asked again of changed copies, and so is what names it."""
        encoder, n = reader.encoder, self.network.heads.sizes.channels

        def cells(encoder: Encoder, features: Tensor) -> Tensor:
            frozen, own = self._halves(encoder, features)
            return torch.cat([encoder.layout.to_grid(own), joint_cells(encoder, frozen)], 1)

        def reads(whole: Tensor, box: Float[Tensor, "1 4"]) -> Callable[[Tensor], Tensor]:
            start, place = self._proposal(whole[:, :n], box)
            at = self._read_at(start, box)

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
        """What was moved to a box, and its place among the proposals; of one that was not found, itself and none."""
        levels = self.network.heads.levels(grid)
        first, last = (boxes[0] for boxes in self.network.found(grid, self.how.n_proposed)[:2])
        off, which = (last - box).abs().amax(1).min(0)
        if off > LEAST:
            return box, None
        start = first[which][None]
        every = self.network.proposals(levels)[0][0].clamp(0, 1)
        return start, int((every - start).abs().amax(1).argmin())

    def _halves(self, encoder: Encoder, features: Tensor) -> tuple[Tensor, Tensor]:
        """What the encoder made of a picture, and what the detector's own trunk did."""
        if self.trunk is None:
            return features, features
        frozen, own = features.chunk(2, CHANNELS[encoder.layout.kind])
        return frozen, own

    def _read_at(self, proposals: Float[Tensor, "n 4"], moved: Float[Tensor, "n 4"]) -> Float[Tensor, "n 4"]:
        """Where the frozen words are read."""
        return proposals if self.how.words_at == "proposals" else moved

    def _words(
        self, encoder: Encoder, cells: Float[Tensor, "d h w"], boxes: Float[Tensor, "n 4"]
    ) -> Float[Tensor, "n k"]:
        """What the frozen encoder's texts say of the boxes, as logits."""
        high, wide = cells.shape[1:]
        smaller = shrunk(boxes, self.how.shrink) * torch.tensor([wide, high, wide, high])
        vectors = normalize(box_means(cells, smaller), dim=1)
        scale = encoder.text.logit_scale if self.how.words_temperature is None else 1 / self.how.words_temperature
        return scale * vectors @ self.network.texts.T


def _gathered(reader: Reader, data: BoxData, progress: Progress) -> dict[str, Tensor]:
    """Maps of all pictures at one size, and what is on them."""
    maps: list[Tensor] = []
    sized: list[BoxedPicture] = []
    looked = reader.looked([p.image for p in data.pictures])
    for picture, one in progress.results(data.pictures, looked, "Looking"):
        grid = one.windows.merged(reader.encoder.layout.to_grid(one.features))
        maps.append((at_size(grid, (maps[0].shape[1], maps[0].shape[2])) if maps else grid).half())
        sized.append(replace(picture, size=one.size))
    columns = _on(sized, data)
    return {"maps": torch.stack(maps), **columns}


def _cut(reader: Reader, data: BoxData, progress: Progress) -> tuple[Windowed, dict[str, Any]]:
    """Pictures that are read at every step, and what is on them."""
    sized: list[BoxedPicture] = []
    for picture in data.pictures:
        try:
            sized.append(replace(picture, size=upright_size(picture.image, longest=LONGEST)))
        except ImageError as error:
            progress.failed(Failure(picture.image, error.reason))
    columns = _on(sized, data)
    most = max(prod(reader.windows(one.size or (1, 1)).n) for one in sized)
    return Windowed(reader, tuple(p.image for p in sized), most), columns


def _on(pictures: Sequence[BoxedPicture], data: BoxData) -> dict[str, Any]:
    """Boxes as parts of the picture, and labels; -1 where there is none."""
    most = max((len(p.boxes) for p in pictures), default=0)
    boxes, labels = [], []
    for picture in pictures:
        own, named = boxes_on(picture, data.classes)
        boxes.append(pad(own, (0, 0, 0, most - len(own))))
        labels.append(pad(named, (0, most - len(named)), value=-1))
    check_usable(sum(int((one >= 0).sum()) for one in labels), len(data))
    return {"boxes": torch.stack(boxes), "labels": torch.stack(labels)}
