"""GIST (Lewis et al. 2023, arXiv 2307.11315): tuned on texts about each picture, then a linear classifier."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor

from ....bounds import Bound, Count, Natural
from ....classifiers import classifiers
from ....classifiers.encoded_set import EncodedSet
from ....classifiers.fitting import Fitting, Outcome
from ....classifiers.linear.jitter import crops_by_name
from ....classifiers.linear.recipe import Linear
from ....classifiers.network import Network
from ....descriptions.base import Descriptions
from ....encoders.base import Encoder
from ....encoders.stream import Encoded, EncodeRequest, encode_stream, encode_texts
from ....errors import InputError
from ....language.matching import Caption, Match, Matcher, of_pictures, say, specificity
from ....pictures.samples import Sample
from ....progress import Progress
from ....storage.features import FeatureStore
from ....training.augmentation import TrainingPictures
from ....training.loop import Schedule, Training
from ....types import Crop
from ...encoders.towers import TunedTowers, trainable
from ...network_recipe import NetworkRecipe
from ...objectives.gist import GIST as Contrast
from ...objectives.gist import SameClass
from ...retrieval import recall
from .network import Form, GISTNetwork, Pairs, PicturePairs, Turns, first_texts, measure, tune, tune_towers

Train = Literal["layers", "image", "towers"]
"""One layer behind each frozen tower, the pictures' tower alone, or both towers."""


@dataclass(frozen=True)
class TrainingSet:
    """What is tuned on, and the means for it."""

    encoder: Encoder
    pictures: EncodedSet
    chosen: list[int]
    texts: tuple[str, ...]
    pairs: Int[Tensor, "n 2"]
    store: FeatureStore | None
    progress: Progress
    checkpoint: tuple[Path, str] | None

    @property
    def labels(self) -> Int[Tensor, " p"]:
        """Class of each of the chosen."""
        return self.pictures.labels[torch.tensor(self.chosen)]

    @cached_property
    def vectors(self) -> Float[Tensor, "m d"]:
        """The texts as the encoder has them, of unit length."""
        return encode_texts(self.encoder, list(self.texts), self.store)

    @property
    def joint(self) -> list[Float[Tensor, "v d"]]:
        """The views of each of the chosen in the space of the texts."""
        with torch.no_grad():
            return [self.encoder.text.project(self.pictures.encoded[i].pooled) for i in self.chosen]


@classifiers.register
@dataclass(frozen=True)
class GIST(NetworkRecipe):
    """Texts of a class are matched to its pictures; pictures and texts are drawn together; a linear layer decides.

    1. Each training picture gets those of its class's texts that fit it best
       (:func:`seewhy.language.matching.match_pictures`), or the texts of a file that was written before.
    2. ``"{class}: {text}"`` of the first ``n_captions`` of them are its pairs.
    3. Image and text vectors are tuned by :class:`seewhy.learning.objectives.gist.GIST` on batches of pairs.
    4. A linear classifier is fitted on the tuned features, not of unit length.

    By default both towers stay frozen and one linear layer on each side is trained on kept features: seconds on a CPU.
    ``train="towers"`` is the authors' form: all weights of copies of both towers; ``"image"`` holds the texts' tower.

    Args:
        train: ``"layers"``, ``"image"`` or ``"towers"``.
        n_captions: texts a picture that are trained on; the authors' examples have 4.
        top: texts matched to a picture; the authors' 5.
        same_class: what other pairs of one class in a batch are; ``"negative"`` is the authors'.
        n_steps: batches; the authors' examples train towers for 40 epochs.
        batch_size: pairs; left out, 64 for layers and the authors' 20 for towers.
        lr: left out, 3e-4 for layers, at its highest; for towers throughout, the authors' 1e-6 for a CLIP, and 1e-4 for
            the embedded encoder, whose halves were never trained together (found on held-out groceries).
        weight_decay: the authors' 1e-3.
        n_crops: crops a picture, seen beside itself, for the linear classifier and for layers.
    """

    name: ClassVar[str] = "gist"
    paper: ClassVar[str] = "Lewis et al. 2023, arXiv:2307.11315"
    needs: ClassVar[str] = "pictures in classes, and texts of the classes or of the pictures"
    network: ClassVar[type[Network] | None] = GISTNetwork
    takes: ClassVar = ("descriptions", "captions", "checkpoint")
    small: ClassVar = {"n_captions": 1, "n_steps": 2, "batch_size": 4, "n_crops": 1}

    train: Train = "layers"
    n_captions: Count = 4
    top: int = 5
    same_class: SameClass = "negative"
    n_steps: Count = 300
    batch_size: Annotated[int, Bound(2)] | None = None
    lr: float | None = None
    weight_decay: float = 1e-3
    n_crops: Natural = 3
    n_bank: int = 1000

    def check(self) -> None:
        if self.n_captions > self.top:
            raise InputError(
                f"gist was given n_captions={self.n_captions}, top={self.top}. Captions from 1 to top were expected. "
                "Change them."
            )

    def learn(self, fitting: Fitting) -> Outcome:
        encoder, store, progress = fitting.encoder, fitting.store, fitting.progress
        if fitting.descriptions is None and fitting.captions is None:
            raise InputError(
                "gist was given no texts. Texts of each class (--descriptions) or of each picture (--captions) were "
                "expected. Write some, for example with: seewhy describe write"
            )
        if self.train != "layers":
            trainable(encoder, "layers")  # refused before anything is looked at
        pictures = fitting.look(views=self._views) if self.train == "layers" else fitting.look()
        chosen = pictures.trained
        found = self._captions(fitting, pictures, chosen)
        specific = specificity(replace(c, label=pictures.items[i].label) for c, i in zip(found, chosen, strict=True))
        progress.note(f"texts of pictures: {say(specific)}")
        texts, pairs = self._pairs(pictures, chosen, found)
        facts = [(pictures.encoded[i].digest, c.texts) for i, c in zip(chosen, found, strict=True)]
        seal = json.dumps([self.parameters(), encoder.fingerprint, facts])
        lesson = TrainingSet(encoder, pictures, chosen, texts, pairs, store, progress, fitting.sealed(seal))
        tuned = self._tune_layers(lesson) if self.train == "layers" else self._tune_towers(lesson, self.train)
        figures = {"texts": specific, **tuned.figures, "texts_by": sorted({c.model for c in found})}
        return self._probe(replace(tuned, figures=figures))

    def _training(self, batch_size: int, lr: float, schedule: Schedule) -> Training:
        """With what was left out."""
        return Training(
            self.n_steps,
            batch_size if self.batch_size is None else self.batch_size,
            lr=lr if self.lr is None else self.lr,
            weight_decay=self.weight_decay,
            schedule=schedule,
            seed=self.seed,
        )

    def _views(self, sample: Sample) -> Sequence[Crop | None]:
        return crops_by_name(sample.image, self.n_crops, self.seed)

    def _captions(self, fitting: Fitting, pictures: EncodedSet, chosen: Sequence[int]) -> Sequence[Caption]:
        """Of the pictures to tune on: those given, or those matched now."""
        if fitting.captions is not None:
            digests = [pictures.encoded[i].digest for i in chosen]
            return of_pictures(fitting.captions, digests, [str(pictures.items[i].image) for i in chosen])
        assert isinstance(fitting.descriptions, Descriptions)
        matcher = Matcher(fitting.encoder, fitting.descriptions, Match(self.top), fitting.store)
        return [matcher.match(pictures.items[i], pictures.encoded[i]) for i in chosen]

    def _pairs(
        self, pictures: EncodedSet, chosen: Sequence[int], captions: Sequence[Caption]
    ) -> tuple[tuple[str, ...], Int[Tensor, "n 2"]]:
        """Every picture with its first texts, each under its class's name."""
        texts: dict[str, int] = {}
        pairs = []
        for place, (i, caption) in enumerate(zip(chosen, captions, strict=True)):
            for text in caption.texts[: self.n_captions]:
                label = pictures.items[i].label.replace("_", " ")
                pairs.append((place, texts.setdefault(f"{label}: {text}", len(texts))))
        return tuple(texts), torch.tensor(pairs)

    def _contrast(self, lesson: TrainingSet) -> Contrast:
        return Contrast(lesson.encoder.text.logit_scale, self.same_class)

    def _tune_layers(self, lesson: TrainingSet) -> Tuned:
        """Both layers, on kept features."""
        pairs = Pairs(lesson.joint, lesson.vectors, lesson.pairs, lesson.labels)
        turns = Turns(pairs.vectors.shape[1])
        before = measure(turns, pairs)
        how = self._training(64, 3e-4, "one_cycle")
        done = tune(turns, pairs, self._contrast(lesson), how, lesson.checkpoint, lesson.progress)
        figures = {"recall_before": before, "recall": measure(turns, pairs), "loss": done.loss}
        with torch.no_grad():
            project = lesson.encoder.text.project
            seen = [replace(s, pooled=turns.image(project(s.pooled))) for s in lesson.pictures.encoded]
        network = GISTNetwork(lesson.encoder, turns)
        return Tuned(network, network.encoder(), replace(lesson.pictures, encoded=seen), figures)

    def _tune_towers(self, lesson: TrainingSet, train: Form) -> Tuned:
        """Copies of the towers, on pictures that are read anew; then all pictures are looked at through them."""
        base, pictures = lesson.encoder, lesson.pictures
        tower, towers = trainable(base), TunedTowers.before(base, train)
        first = first_texts(lesson.pairs)
        before = round(recall(torch.cat(lesson.joint), lesson.vectors[first]), 4)
        of = [lesson.chosen[place] for place in lesson.pairs[:, 0].tolist()]
        read = TrainingPictures(base, [pictures.items[i].source for i in of], None, lesson.progress)
        pairs = PicturePairs(read, lesson.texts, lesson.vectors, lesson.pairs, lesson.labels)
        how = self._training(20, tower.tuning_lr, "constant")
        n = sum(p.numel() for p in towers.parameters())
        lesson.progress.note(f"training {n:,} weights: {16 * n / 1e9:.1f} GB, and what a batch leaves in the trunk")
        done = tune_towers(towers, tower, pairs, self._contrast(lesson), how, lesson.checkpoint, lesson.progress)
        network = GISTNetwork(base, towers)
        grown = network.encoder()
        seen = look_again(grown, pictures, self._views, lesson.store, lesson.progress)
        found = [(place, one) for place, i in enumerate(lesson.chosen) if (one := seen.get(i)) is not None]
        image, own = torch.stack([one.pooled[0] for _, one in found]), first[[place for place, _ in found]]
        after = round(recall(image, encode_texts(grown, list(lesson.texts), lesson.store)[own]), 4)
        figures = {"recall_before": before, "recall": after, "loss": done.loss}
        return Tuned(network, grown, _those_seen(pictures, seen), figures)

    def _probe(self, tuned: Tuned) -> Outcome:
        """The linear classifier on the tuned features."""
        probe = Linear(n_crops=self.n_crops, power=1.0, l2=False, held_out=self.held_out, seed=self.seed)
        pictures = replace(tuned.pictures, folds=None)  # the network was tuned on all but those held out
        found = probe.learn_seen(tuned.grown, pictures)
        made = replace(found.classifier, recipe=self.name, parameters=self.parameters(), network=tuned.network)
        return replace(found, classifier=made, figures={**found.figures, **tuned.figures})


@dataclass(frozen=True)
class Tuned:
    """What tuning gave."""

    network: GISTNetwork
    grown: Encoder
    pictures: EncodedSet
    figures: dict[str, Any]


def look_again(
    grown: Encoder,
    pictures: EncodedSet,
    views: Callable[[Sample], Sequence[Crop | None]],
    store: FeatureStore | None,
    progress: Progress,
) -> dict[int, Encoded]:
    """Positions of pictures → what the grown encoder sees of them, without those that can no longer be read."""

    def views_of(index: int) -> Sequence[Crop | None]:
        measured_only = pictures.validation and bool(pictures.held[index])
        return (None,) if measured_only else views(pictures.items[index])

    stream = encode_stream(
        grown, [s.source for s in pictures.items], store=store, request=EncodeRequest(views=views_of)
    )
    return dict(progress.results(range(len(pictures.items)), stream, "Looking again"))


def _those_seen(pictures: EncodedSet, seen: Mapping[int, Encoded]) -> EncodedSet:
    left = list(seen)
    return replace(pictures.subset(left), encoded=list(seen.values()))
