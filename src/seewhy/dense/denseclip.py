"""DenseCLIP (Rao et al. 2022, CVPR): texts that adapt to the picture, and a decoder that reads their map of scores."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Annotated, ClassVar

import torch
from jaxtyping import Float
from torch import Tensor

from ..bounds import Bound, NotNegative, Positive, check_fields
from ..encoders.base import Encoder
from ..errors import InputError
from ..heads.head import Head
from ..heads.normalise import Normalise
from ..learning.adaptation.prompts import Names, opened
from ..pictures.pixel_classes import MaskedPictures
from ..progress import Progress
from ..seeded import seeded
from ..training.loop import Training, train
from . import segmenters
from .cells import MOST, attended_cells, joint_cells, unpacked
from .finders import Scorer, Segmenter
from .linear import Affine
from .mask_training import Crops, FromMaps, FromPixels, Maps, channels_of, moments
from .parts import PooledScore
from .pixel_text import GROUPS, Prompting, TextDecoder, Texts, texts_for
from .reader import LARGEST, Reader
from .tuned import SLOWER, Learns, halves_to_train, looking_through, said_cost, tuned


@segmenters.register
@dataclass(frozen=True)
class DenseCLIP:
    """A small decoder that reads the encoder's maps and the scores of texts that adapt to the picture.

    ``t' = t + γ · decoder(t, [z̄; z])``, ``s = cos(z, t')`` (post-model prompting, section 3.3). The decoder reads
    the map ``[features; s]``, and the loss is ``CE(decoder) + .4 CE(s / τ)`` on pixels with a class. With
    ``n_contexts``, ``t`` are names behind learnt vectors, one set for all classes (section 3.2), which the frozen
    text encoder encodes at every step. Pre-model prompting computes them from the picture instead: ``decoder(q, [z̄;
    z])`` with learnt queries ``q``.

    By default the encoder stays frozen, and every window is encoded once. With ``train`` a copy of its trunk and
    pooling learns through both losses at a tenth of the rate, as in the authors' code. Windows are then cropped and
    mirrored at random at every step. The copy is saved with the decoder.

    Differences: the decoder is a pyramid of one convolution per level and one 3 by 3 on the finest map. Texts have
    their mean subtracted, and without contexts they are the sentences of :class:`~seewhy.dense.maskclip.MaskCLIP`.
    Cells are encoded one by one unless ``attended``. Batch normalisations keep their statistics. Pixels without a
    class do not count; in the authors' mean they count as zeros. Context decoder, attention pooling, texts behind
    contexts, the map and its loss match the authors' code.

    Cost: one pass of the trunk per window. Training: the decoder and a small transformer per step, with contexts also
    the text encoder. If the encoder learns, its forward and backward passes; SeeWhy first prints the minutes.
    Memory: the maps of all windows in half precision, .5 to 3 MB each for the embedded encoder; if the encoder
    learns, that of one step, which SeeWhy also prints.

    Args:
        n_steps: number of training steps; more take longer.
        batch_size: windows per step; lower it if memory runs out.
        lr: highest learning rate.
        width: channels of the decoder.
        levels: most maps of the trunk to read, the last and finer ones (convolutional trunks only).
        prompting: where the picture changes the texts: ``"post"`` behind their network, ``"pre"`` before it, or
            ``"none"``.
        n_contexts: learnt vectors before each name (authors: 8); 0 uses sentences.
        texts: ``"names"``; the controls ``"shuffled"`` and ``"random"``; or ``"none"`` for the decoder alone.
        attended: whether cells come from attention pooling, as in DenseCLIP.
        gamma: weight of post-model prompting at the start (authors: 1e-4).
        tau: temperature of the auxiliary loss (authors: .07).
        auxiliary: weight of the auxiliary loss (authors: .4).
        train: encoder weights to train at a tenth of the rate: ``"none"``, ``"last_stage"`` (behind the last
            finer map, or the last quarter of a transformer), or ``"all"``.
        crops: whether to crop new windows at every step, half of them mirrored; always so if the encoder
            trains.
        zoom: short side of the picture, as a multiple of the encoder's input; larger finds smaller objects and
            takes longer.
        least: lowest probability for naming a pixel, 0 to 1; raise it to leave doubtful pixels without a name.
        seed: seed for weights, order, mirroring and drawn texts.
    """

    name: ClassVar[str] = "denseclip"
    spelt: ClassVar[str] = "DenseCLIP"
    paper: ClassVar[str] = "Rao et al. 2022, arXiv:2112.01518"
    needs: ClassVar[str] = "pictures with masks and an image-text encoder"
    cost: ClassVar[str] = "one per window, and one of its decoder"
    needs_words: ClassVar[bool] = True

    n_steps: int = 300
    batch_size: int = 4
    lr: float = 2e-3
    width: int = 64
    levels: Annotated[int, Bound(1, MOST)] = 2
    prompting: Prompting = "post"
    n_contexts: Annotated[int, Bound(0, 64)] = 0
    texts: Texts = "names"
    attended: bool = False
    gamma: float = 1e-4
    tau: Positive = 0.07
    auxiliary: NotNegative = 0.4
    train: Learns = "none"
    crops: bool = False
    zoom: float = LARGEST
    least: float = 0.0
    seed: int = 0

    def __post_init__(self) -> None:
        check_fields(self)
        if self.width < GROUPS or self.width % GROUPS:
            raise InputError(f"denseclip was given width={self.width}. Expected a multiple of {GROUPS}. Change it.")
        read = self.n_contexts > 0
        if (self.prompting == "pre" and not read) or (read and self.texts in ("random", "none")):
            raise InputError(
                f"denseclip was given prompting={self.prompting!r}, n_contexts={self.n_contexts}, "
                f"texts={self.texts!r}. Expected names as texts where n_contexts is above 0, and n_contexts above "
                "0 for pre-model prompting. Change one of them."
            )

    def fit(
        self,
        encoder: Encoder,
        data: MaskedPictures,
        *,
        progress: Progress | None = None,
        checkpoint: Path | None = None,
    ) -> Segmenter:
        """Train the decoder, and the encoder if it learns."""
        progress = progress or Progress()
        what = json.dumps([asdict(self), encoder.fingerprint, data.classes, [i.image for i in data.items]])
        kept = None if checkpoint is None else (checkpoint, what)
        if self.train == "none" and not self.crops:
            maps = self.look(encoder, data, progress)
            return self.learn(encoder, data.classes, maps, checkpoint=kept, progress=progress)
        crops = Crops.of(self.segmenter_before(encoder, data.classes).reader, data, progress)
        return self.learn_encoder(encoder, data.classes, crops, checkpoint=kept, progress=progress)

    def look(self, encoder: Encoder, data: MaskedPictures, progress: Progress | None = None) -> Maps:
        """Encode the windows of all pictures once, for any later training."""
        return Maps.of(self.segmenter_before(encoder, data.classes).reader, data, self.cells, progress or Progress())

    def learn(
        self,
        encoder: Encoder,
        classes: tuple[str, ...],
        maps: Maps,
        *,
        checkpoint: tuple[Path, str] | None = None,
        progress: Progress | None = None,
    ) -> Segmenter:
        """Train the decoder on encoded windows."""
        network = self._network(encoder, classes, maps)
        task = FromMaps(network, self.tau, self.auxiliary, maps.layout)
        train(task, maps.data(), self.training, checkpoint=checkpoint, progress=progress)
        trained_on = f"{len(maps.maps)} windows of {maps.n_pictures} pictures with masks"
        return self._made(encoder, classes, network, trained_on)

    def learn_encoder(
        self,
        encoder: Encoder,
        classes: tuple[str, ...],
        crops: Crops,
        *,
        checkpoint: tuple[Path, str] | None = None,
        progress: Progress | None = None,
    ) -> Segmenter:
        """Train the decoder and, if wanted, a copy of the encoder, on new windows at every step."""
        network, halves = self._network(encoder, classes, crops), halves_to_train(encoder, self.train)
        looks = Reader(looking_through(encoder, halves), self.zoom, self.levels).encoder
        task, data = FromPixels(network, self.tau, self.auxiliary, halves, looks, self.cells), crops.data()
        progress = progress or Progress()
        progress.note(said_cost(task, data, self.training))
        train(task, data, self.training, checkpoint=checkpoint, progress=progress)
        trained_on = f"windows of {data.n_samples} pictures with masks, cut anew {self.n_steps * self.batch_size} times"
        if self.train == "none":
            return self._made(encoder, classes, network, trained_on)
        made = self._made(tuned(encoder, halves), classes, network, f"{trained_on}, with the encoder ({self.train})")
        return replace(made, halves=halves)

    @property
    def training(self) -> Training:
        """Return the number of steps and the learning rate."""
        return Training(
            self.n_steps, self.batch_size, lr=self.lr, weight_decay=1e-4, schedule="cosine",
            warmup=min(20, self.n_steps), seed=self.seed, part_lr=(("halves.", SLOWER),),
        )  # fmt: skip

    def _network(self, encoder: Encoder, classes: tuple[str, ...], looked: Maps | Crops) -> TextDecoder:
        """Before it has learnt."""
        said, texts = texts_for(encoder, classes, self.texts, self.seed)
        names = Names(opened(encoder), said) if self.n_contexts else None
        with seeded(self.seed):
            network = self._decoder(channels_of(looked.maps, looked.layout), texts, names)
        network.scale_to(*moments(looked.maps, looked.layout))
        return network

    def _decoder(self, channels: Sequence[int], texts: Float[Tensor, "k d"], names: Names | None) -> TextDecoder:
        given = (texts, self.prompting, self.gamma, names, self.n_contexts)
        return TextDecoder(channels, self.width, *given, shows=self.texts != "none")

    def _made(self, encoder: Encoder, classes: tuple[str, ...], network: TextDecoder, trained_on: str) -> Segmenter:
        """What has learnt."""
        network.settle()
        made = self.segmenter(encoder, classes, Decoded(network.eval().requires_grad_(False), self))
        return replace(made, trained_on=trained_on)

    def segmenter_before(self, encoder: Encoder, classes: tuple[str, ...]) -> Segmenter:
        """Return the segmenter that encodes pictures before any training."""
        return self.segmenter(encoder, classes, Affine.empty(len(classes)))

    def restore(self, encoder: Encoder, classes: tuple[str, ...], tensors: Mapping[str, Tensor]) -> Segmenter:
        """Return the saved segmenter."""
        layout = self.segmenter_before(encoder, classes).encoder.layout
        names = (
            Names(opened(encoder), texts_for(encoder, classes, self.texts, self.seed)[0])
            if self.prompting == "pre"
            else None
        )
        behind = [c for c, _ in layout.finer]
        channels = [len(tensors["mean"]) - sum(behind), *behind]
        network = self._decoder(channels, tensors["fixed"], names)
        unread = {"contexts"} - set(network.state_dict())  # read for the last time when training ended
        network.load_state_dict({name: t for name, t in tensors.items() if name not in unread})
        return self.segmenter(encoder, classes, Decoded(network.eval().requires_grad_(False), self))

    def segmenter(self, encoder: Encoder, classes: tuple[str, ...], scorer: Scorer) -> Segmenter:
        """Return a segmenter with these scores."""
        return Segmenter(self.name, asdict(self), encoder, classes, scorer, self.zoom, self.least, levels=self.levels)

    def cells(self, encoder: Encoder, features: Tensor) -> tuple[Float[Tensor, "b d h w"], Float[Tensor, "b d"]]:
        """Return the cells and the whole picture in the space of the words."""
        if self.texts == "none":
            return features.new_zeros(len(features), 1, 1, 1), features.new_zeros(len(features), 1)
        if self.attended:
            return attended_cells(encoder, features)
        cells = joint_cells(encoder, features)
        return cells, cells.mean((2, 3))


@dataclass(frozen=True, eq=False)
class Decoded(Scorer):
    """Scores of cells by a trained decoder."""

    network: TextDecoder
    how: DenseCLIP
    scale: float = 1.0

    @torch.no_grad()
    def scores(self, encoder: Encoder, features: Tensor) -> Float[Tensor, "b k _h _w"]:
        return self.network(unpacked(encoder.layout, features), *self.how.cells(encoder, features))[0]

    def pooled(self, looks: Segmenter) -> PooledScore:
        return looks.score(self.scores, Head(Normalise(), torch.eye(len(looks.classes))))

    def tensors(self) -> dict[str, Tensor]:
        return self.network.state_dict()
