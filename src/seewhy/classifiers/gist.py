"""GIST (Lewis et al. 2023, arXiv 2307.11315): tuned on texts about each picture, then a linear classifier."""

from __future__ import annotations

import json
import zlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar

import torch
from jaxtyping import Float, Int
from torch import Tensor

from ..data import Sample, Samples
from ..descriptions.base import Descriptions
from ..descriptions.captions import Caption, of_pictures
from ..descriptions.matching import Match, Matcher, say, specificity
from ..encoders.base import Encoder
from ..encoders.split import freeze
from ..errors import InputError
from ..features import encode_texts
from ..listener import Listener
from ..objectives.gist import GIST as Contrast
from ..objectives.gist import SameClass
from ..objectives.gpt4image import recall
from ..store import FeatureStore
from ..training import Trained, Training, train
from ..types import Crop
from . import classifiers
from .base import Classifier
from .gist_network import GISTNetwork, Turns
from .jitter import random_crops
from .linear import Linear
from .linear_pictures import HoldOut, Pictures, look_at
from .network import Network
from .recipe import Recipe


@dataclass(frozen=True)
class Pairs:
    """Pictures and the texts of each.

    Attributes:
        views: the features of each picture's views, in the shared space.
        vectors: the texts, of unit length, each once.
        pairs: one row a pair: which picture, which text.
        labels: class of each picture.
    """

    views: list[Float[Tensor, "v d"]]
    vectors: Float[Tensor, "m d"]
    pairs: Int[Tensor, "n 2"]
    labels: Int[Tensor, " p"]


@classifiers.register
@dataclass(frozen=True)
class GIST(Recipe):
    """Texts of a class are matched to its pictures; pictures and texts are drawn together; a linear layer decides.

    1. Each training picture gets those of its class's texts that fit it best
       (:func:`seewhy.descriptions.matching.match_pictures`), or the texts of a file that was written before.
    2. ``"{class}: {text}"`` of the first ``n_captions`` of them are its pairs.
    3. Image and text vectors are tuned by :class:`seewhy.objectives.gist.GIST` on batches of pairs.
    4. A linear classifier is fitted on the tuned features, not of unit length.

    Differences: both towers stay frozen, and one linear layer on each side is trained on kept features, which takes
    seconds on a CPU (the authors train all of CLIP ViT-L/14 at a rate of 1e-6 for 40 epochs and more); the linear
    classifier is the convex optimum with C chosen on held-out pictures (theirs: gradient descent at a rate of 0.5 for
    1,000 epochs, the best epoch on validation pictures). Test pictures get no text: what was matched while training is
    never a reason for a decision.

    Args:
        n_captions: texts a picture that are trained on; the authors' examples have 4.
        top: texts matched to a picture; the authors' 5.
        same_class: what other pairs of one class in a batch are; ``"negative"`` is the authors'.
        n_steps: batches.
        batch_size: pairs; the authors' 20.
        lr: of the two layers.
        weight_decay: the authors' 1e-3.
        n_crops: crops a picture, seen beside itself.
        held_out: part of the pictures that are not tuned on, on which C is chosen and everything is measured.
        n_bank: pictures whose patches are kept as evidence.
        seed: of split, crops and order.
    """

    name: ClassVar[str] = "gist"
    paper: ClassVar[str] = "Lewis et al. 2023, arXiv:2307.11315"
    needs: ClassVar[str] = "pictures in classes, and texts of the classes or of the pictures"
    stochastic: ClassVar[bool] = True
    network: ClassVar[type[Network] | None] = GISTNetwork

    n_captions: int = 4
    top: int = 5
    same_class: SameClass = "negative"
    n_steps: int = 300
    batch_size: int = 64
    lr: float = 3e-4
    weight_decay: float = 1e-3
    n_crops: int = 3
    held_out: float = 0.2
    n_bank: int = 1000
    seed: int = 0

    def __post_init__(self) -> None:
        if not 1 <= self.n_captions <= self.top or self.n_steps < 1 or self.batch_size < 2 or self.n_crops < 0:
            raise InputError(
                f"gist was given n_captions={self.n_captions}, top={self.top}, n_steps={self.n_steps}, "
                f"batch_size={self.batch_size}, n_crops={self.n_crops}. Captions from 1 to top, steps above zero, "
                "batches of two or more were expected. Change them."
            )

    def fit(
        self,
        encoder: Encoder,
        samples: Samples,
        *,
        validation: Samples | None = None,
        descriptions: Descriptions | None = None,
        captions: Sequence[Caption] | None = None,
        store: FeatureStore | None = None,
        listener: Listener | None = None,
        checkpoint: Path | None = None,
    ) -> Classifier:
        """Match, tune, fit.

        Args:
            encoder: with words; it is left as it is.
            samples: pictures with classes.
            validation: pictures that C is chosen and everything is measured on, never tuned on.
            descriptions: texts of each class, which are matched; also words evidence, in the tuned space.
            captions: texts of each picture, instead of matching; see :mod:`seewhy.descriptions.captions`.
            store: where looks are kept.
            listener: hears of progress, notes and failures.
            checkpoint: where to keep what a stopped run goes on from; the caller deletes it when the result is safe.

        Raises:
            InputError: neither descriptions nor captions were given.
            DataError: a class or a picture that is tuned on has no text, or the pictures cannot be used.
            ModelError: the encoder has no text half.
        """
        listener = listener or Listener()
        if descriptions is None and captions is None:
            raise InputError(
                "gist was given no texts. Texts of each class (--descriptions) or of each picture (--captions) were "
                "expected. Write some, for example with: seewhy describe classes"
            )
        descriptions = None if descriptions is None else descriptions.limited_to(samples.classes)
        tower = encoder.text
        pictures = look_at(
            encoder,
            samples,
            HoldOut(self.held_out, self.seed, validation),
            store=store,
            listener=listener,
            views=self._views,
        )
        chosen = (~pictures.held).nonzero()[:, 0].tolist()
        found = self._captions(encoder, pictures, chosen, descriptions, captions, store)
        specific = specificity(replace(c, label=pictures.items[i].label) for c, i in zip(found, chosen, strict=True))
        listener.note(f"texts of pictures: {say(specific)}")
        pairs = self._pairs(encoder, pictures, chosen, found, store)
        contrast = Contrast(tower.logit_scale, self.same_class)
        network = GISTNetwork(encoder, Turns(pairs.vectors.shape[1]))
        before = measure(network.turns, pairs)
        learnt = [(pictures.seen[i].digest, c.texts) for i, c in zip(chosen, found, strict=True)]
        seal = json.dumps([self.parameters(), encoder.fingerprint, learnt])
        kept = None if checkpoint is None else (checkpoint, seal)
        done = tune(network.turns, pairs, contrast, self._training, kept, listener)
        figures = {
            "texts": specific,
            "recall_before": before,
            "recall": measure(network.turns, pairs),
            "loss": mean_loss(done),
            "texts_by": sorted({c.model for c in found}),
        }
        return self._probe(network, pictures, descriptions, figures, store, listener)

    @property
    def _training(self) -> Training:
        return Training(self.n_steps, self.batch_size, lr=self.lr, weight_decay=self.weight_decay, seed=self.seed)

    def _views(self, sample: Sample) -> Sequence[Crop | None]:
        name = zlib.crc32(Path(sample.image).name.encode("utf-8", "surrogateescape"))
        return [None, *random_crops(self.n_crops, self.seed, name)]

    def _captions(
        self,
        encoder: Encoder,
        pictures: Pictures,
        chosen: Sequence[int],
        descriptions: Descriptions | None,
        captions: Sequence[Caption] | None,
        store: FeatureStore | None,
    ) -> Sequence[Caption]:
        """Of the pictures to tune on: those given, or those matched now."""
        if captions is not None:
            digests = [pictures.seen[i].digest for i in chosen]
            return of_pictures(captions, digests, [str(pictures.items[i].image) for i in chosen])
        assert descriptions is not None
        matcher = Matcher(encoder, descriptions, Match(self.top), store)
        return [matcher.match(pictures.items[i], pictures.seen[i]) for i in chosen]

    def _pairs(
        self,
        encoder: Encoder,
        pictures: Pictures,
        chosen: Sequence[int],
        captions: Sequence[Caption],
        store: FeatureStore | None,
    ) -> Pairs:
        """Every picture with its first texts, each under its class's name."""
        texts: dict[str, int] = {}
        pairs = []
        for place, (i, caption) in enumerate(zip(chosen, captions, strict=True)):
            for text in caption.texts[: self.n_captions]:
                label = pictures.items[i].label.replace("_", " ")
                pairs.append((place, texts.setdefault(f"{label}: {text}", len(texts))))
        with torch.no_grad():
            views = [encoder.text.project(pictures.seen[i].pooled) for i in chosen]
        vectors = encode_texts(encoder, list(texts), store)
        return Pairs(views, vectors, torch.tensor(pairs), pictures.labels[torch.tensor(chosen)])

    def _probe(
        self,
        network: GISTNetwork,
        pictures: Pictures,
        descriptions: Descriptions | None,
        figures: dict[str, Any],
        store: FeatureStore | None,
        listener: Listener,
    ) -> Classifier:
        """The linear classifier on the tuned features."""
        turn, project = network.turns.image, network.on.text.project
        with torch.no_grad():
            seen = [replace(s, pooled=turn(project(s.pooled))) for s in pictures.seen]
        probe = Linear(
            n_crops=self.n_crops, power=1.0, l2=False, held_out=self.held_out, n_bank=self.n_bank, seed=self.seed
        )
        made = probe.fit_seen(
            network.encoder(),
            replace(pictures, seen=seen),
            descriptions=descriptions,
            store=store,
            listener=listener,
        )
        return replace(
            made,
            recipe=self.name,
            parameters=self.parameters(),
            measures={**made.measures, **figures},
            network=network,
        )


def tune(
    turns: Turns,
    pairs: Pairs,
    contrast: Contrast,
    how: Training,
    checkpoint: tuple[Path, str] | None = None,
    listener: Listener | None = None,
) -> Trained:
    """Train both layers in place; of each picture in a batch a view is drawn."""

    def loss(index: Sequence[int]) -> dict[str, Tensor]:
        of, text = pairs.pairs[list(index)].T
        views = [pairs.views[i] for i in of.tolist()]
        image = torch.stack([v[int(torch.randint(len(v), ()))] for v in views])
        return {"loss": contrast(turns.image(image), turns.text(pairs.vectors[text]), pairs.labels[of])}

    done = train(turns, loss, len(pairs.pairs), how, checkpoint=checkpoint, listener=listener)
    freeze(turns)
    return done


def measure(turns: Turns, pairs: Pairs) -> float:
    """Part of the pictures tuned on that are nearest to their own first text, among the first texts of all."""
    first = [int((pairs.pairs[:, 0] == i).nonzero()[0]) for i in range(len(pairs.views))]
    with torch.no_grad():
        image = turns.image(torch.stack([v[0] for v in pairs.views]))
        return round(recall(image, turns.text(pairs.vectors[pairs.pairs[first, 1]])), 4)


def mean_loss(done: Trained) -> float:
    """Of the last 20 steps."""
    last = [step["loss"] for step in done.history[-20:]]
    return round(sum(last) / len(last), 4)
