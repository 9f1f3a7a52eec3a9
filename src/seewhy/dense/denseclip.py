"""DenseCLIP (Rao et al. 2022, CVPR): segmentation with picture-dependent text embeddings."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Annotated, ClassVar

import torch
from jaxtyping import Float
from torch import Tensor

from ..bounds import Bound, Count, NotNegative, Positive, check_fields
from ..encoders.base import Encoder
from ..errors import InputError
from ..heads.head import Head
from ..heads.normalise import Normalise
from ..learning.adaptation.prompts import Names, opened
from ..learning.encoders.image_copy import ImageCopy, Learns
from ..pictures.pixel_classes import MaskedPictures
from ..progress import Progress
from ..seeded import seeded
from ..training.loop import Training, train
from ..training.memory import training_cost
from . import segmenters
from .cells import MOST, attended_cells, joint_cells, unpacked
from .finders import Scorer, Segmenter
from .mask_training import Crops, FromMaps, FromPixels, Maps, channels_of, moments
from .parts import PooledScore
from .pixel_text import GROUPS, Prompting, TextDecoder, Texts, texts_for
from .reader import LARGEST, Reader

SLOWER = 0.1
"""Learning rate of the encoder, as a share of the layers' learning rate."""


@segmenters.register
@dataclass(frozen=True)
class DenseCLIP:
    """A segmentation decoder that reads feature maps and picture-dependent text scores.

    Post-model prompting (section 3.3):

        t' = t + γ · decoder(t, [z̄; z])
        s = cos(z, t')
        loss = CE(decoder([features; s])) + .4 CE(s / τ)

    - ``t``: the text embeddings of the classes; ``t'`` depend on the picture.
    - ``z``: the image-text embeddings of the grid cells; ``z̄`` is the embedding of the picture.
    - ``s``: the score map, an input of the segmentation decoder in addition to ``features``.
    - ``CE``: the cross-entropy.
    - ``γ``: a learnt weight.
    - ``τ``: the temperature of the auxiliary loss.

    With ``n_contexts``, learnt context vectors precede the class names (section 3.2), and the frozen text encoder runs
    at every step. In pre-model prompting, the vectors are ``decoder(q, [z̄; z])`` with learnt queries ``q``.

    By default the encoder is frozen. With ``train``, a copy of its trunk and pooling is also trained, at a tenth of the
    learning rate, as in the authors' code. Every step then crops and mirrors windows at random.

    Where we differ from the authors' code:

    - The segmentation decoder is a feature pyramid with one convolution per level and one 3 x 3 convolution on the
      finest map.
    - The mean text embedding is subtracted from each text embedding.
    - Without context vectors, the texts are the sentences of :class:`~seewhy.dense.maskclip.MaskCLIP`.
    - Unless ``attended``, the head encodes each grid cell separately.
    - The statistics of batch normalisation do not change.
    - Pixels without a class are excluded from the mean loss; the authors count their loss as 0.

    The trunk runs once per window. A training step runs the decoder and, with context vectors, the text encoder. If the
    encoder is trained, each step also runs the encoder forwards and backwards; SeeWhy first reports the estimated time.

    With a frozen encoder, memory holds the feature maps of all windows in half precision, .5 to 3 MB each for the
    embedded encoder. If the encoder is trained, memory holds one step.

    Args:
        n_steps: number of training steps.
        batch_size: number of windows per step; lower it if memory runs out.
        lr: highest learning rate.
        width: number of channels of the decoder.
        levels: largest number of feature maps to read; convolutional trunks only.
        prompting: where the picture changes the texts: ``"post"``, after the text encoder; ``"pre"``, before it; or
            ``"none"``, nowhere.
        n_contexts: number of learnt vectors before each name (authors: 8); 0 uses sentences.
        texts: ``"names"``; for comparison, ``"shuffled"`` names, ``"random"`` vectors, or ``"none"`` for a decoder
            without texts.
        attended: whether grid cells come from attention pooling, as in DenseCLIP.
        gamma: initial weight of post-model prompting (authors: 1e-4).
        tau: temperature of the auxiliary loss (authors: .07).
        auxiliary: weight of the auxiliary loss (authors: .4).
        train: encoder weights to train at a tenth of the learning rate: ``"none"``, ``"last_stage"`` (after the
            last finer feature map, or the last quarter of a transformer), ``"late_stages"`` or ``"all"``.
        crops: whether to crop and mirror windows at random at every step; always true if the encoder is trained.
        zoom: short side of the picture, as a multiple of the encoder's input size; a larger value finds smaller objects
            and takes longer.
        least: lowest probability at which a pixel gets a name, 0 to 1; raise it to leave uncertain pixels unnamed.
        seed: seed for weights, order, mirroring and random texts.
    """

    name: ClassVar[str] = "denseclip"
    spelt: ClassVar[str] = "DenseCLIP"
    paper: ClassVar[str] = "Rao et al. 2022, arXiv:2112.01518"
    needs: ClassVar[str] = "pictures with masks and an image-text encoder"
    cost: ClassVar[str] = "one per window, and one of its decoder"
    needs_words: ClassVar[bool] = True

    n_steps: int = 300
    batch_size: Count = 4
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
            raise InputError(f"`width` of denseclip must be a multiple of {GROUPS}, got {self.width}.")
        read = self.n_contexts > 0
        if (self.prompting == "pre" and not read) or (read and self.texts in ("random", "none")):
            raise InputError(
                f"The settings of denseclip contradict each other: prompting={self.prompting!r}, "
                f"n_contexts={self.n_contexts}, texts={self.texts!r}. Pre-model prompting needs n_contexts above 0, "
                "and n_contexts above 0 needs the texts 'names' or 'shuffled'."
            )

    def fit(
        self,
        encoder: Encoder,
        data: MaskedPictures,
        *,
        progress: Progress | None = None,
        checkpoint: Path | None = None,
    ) -> Segmenter:
        """Train the decoder and, if requested, the encoder."""
        progress = progress or Progress()
        what = json.dumps([asdict(self), encoder.fingerprint, data.classes, [i.image for i in data.items]])
        kept = None if checkpoint is None else (checkpoint, what)
        once = self.train == "none" and not self.crops
        looked = self.look(encoder, data, progress) if once else Crops.of(self.reader(encoder), data, progress)
        return self.learn(encoder, data.classes, looked, checkpoint=kept, progress=progress)

    def reader(self, encoder: Encoder) -> Reader:
        return Reader(encoder, self.zoom, self.levels)

    def look(self, encoder: Encoder, data: MaskedPictures, progress: Progress | None = None) -> Maps:
        """Encode all training windows."""
        return Maps.of(self.reader(encoder), data, self.cells, progress or Progress())

    def learn(
        self,
        encoder: Encoder,
        classes: tuple[str, ...],
        looked: Maps | Crops,
        *,
        checkpoint: tuple[Path, str] | None = None,
        progress: Progress | None = None,
    ) -> Segmenter:
        """Train the decoder on encoded windows, or on random crops, with the encoder if requested."""
        progress, data, network = progress or Progress(), looked.data(), self._network(encoder, classes, looked)
        if isinstance(looked, Maps):
            still = FromMaps(network, self.tau, self.auxiliary, looked.layout)
            train(still, data, self.training, checkpoint=checkpoint, progress=progress)
            trained_on = f"{len(looked.maps)} windows of {looked.n_pictures} pictures with masks"
            return self._made(encoder, classes, network, trained_on)
        image = ImageCopy.before(encoder).learn(encoder, self.train)
        looks = self.reader(encoder.but(trunk=lambda: image.trunk, head=image.pool, engine="torch")).encoder
        task = FromPixels(network, self.tau, self.auxiliary, image, looks, self.cells)
        progress.note(training_cost(task, data, self.training))
        train(task, data, self.training, checkpoint=checkpoint, progress=progress)
        n_crops = self.n_steps * self.batch_size
        trained_on = f"windows of {data.n_samples} pictures with masks, cut at random {n_crops} times"
        if self.train == "none":
            return self._made(encoder, classes, network, trained_on)
        made = self._made(image.with_text(encoder), classes, network, f"{trained_on}, with the encoder ({self.train})")
        return replace(made, image=image)

    @property
    def training(self) -> Training:
        warmup, parts = min(20, self.n_steps), (("image.", SLOWER),)
        return Training.of(self, weight_decay=1e-4, schedule="cosine", warmup=warmup, part_lr=parts)

    def _network(self, encoder: Encoder, classes: tuple[str, ...], looked: Maps | Crops) -> TextDecoder:
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
        network.settle()
        made = self.segmenter(encoder, classes, Decoded(network.eval().requires_grad_(False), self))
        return replace(made, trained_on=trained_on)

    def restore(self, encoder: Encoder, classes: tuple[str, ...], tensors: Mapping[str, Tensor]) -> Segmenter:
        layout = self.reader(encoder).encoder.layout
        names = None
        if self.prompting == "pre":
            names = Names(opened(encoder), texts_for(encoder, classes, self.texts, self.seed)[0])
        behind = [c for c, _ in layout.finer]
        channels = [len(tensors["mean"]) - sum(behind), *behind]
        network = self._decoder(channels, tensors["fixed"], names)
        unread = {"contexts"} - set(network.state_dict())  # used only in training
        network.load_state_dict({name: t for name, t in tensors.items() if name not in unread})
        return self.segmenter(encoder, classes, Decoded(network.eval().requires_grad_(False), self))

    def segmenter(self, encoder: Encoder, classes: tuple[str, ...], scorer: Scorer) -> Segmenter:
        return Segmenter(self.name, asdict(self), encoder, classes, scorer, self.zoom, self.least, levels=self.levels)

    def cells(self, encoder: Encoder, features: Tensor) -> tuple[Float[Tensor, "b d h w"], Float[Tensor, "b d"]]:
        """Return the image-text embeddings of the grid cells and of the picture."""
        if self.texts == "none":
            return features.new_zeros(len(features), 1, 1, 1), features.new_zeros(len(features), 1)
        if self.attended:
            return attended_cells(encoder, features)
        cells = joint_cells(encoder, features)
        return cells, cells.mean((2, 3))


@dataclass(frozen=True, eq=False)
class Decoded(Scorer):
    """The class scores of a trained decoder."""

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
