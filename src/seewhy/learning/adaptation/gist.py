"""GIST (Lewis et al. 2023, arXiv 2307.11315): contrastive training on texts, then a linear classifier."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, Self, cast, get_args

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn.functional import normalize

from ...bounds import Bound, Count, Natural
from ...classifiers import classifiers
from ...classifiers.encoded_set import EncodedSet
from ...classifiers.fitting import Fitting, Outcome
from ...classifiers.linear.jitter import crops_by_name
from ...classifiers.linear.recipe import Linear
from ...classifiers.network import Network
from ...descriptions.base import Descriptions
from ...encoders.base import Encoder, TextTower, Tokenised, TrainableText
from ...encoders.split import freeze, weights_digest
from ...encoders.stream import Encoded, EncodeRequest, encode_stream, encode_texts
from ...encoders.text_tokens import ClipText
from ...errors import InputError
from ...language.matching import Caption, Match, Matcher, of_pictures, say, specificity
from ...pictures.samples import Sample
from ...progress import Progress
from ...storage.features import FeatureStore
from ...training.augmentation import TrainingPictures
from ...training.batches import TrainingData
from ...training.loop import Schedule, Trained, Training, train
from ...types import Crop
from ..contrast import Contrast, Still, recall
from ..encoders.towers import TunedTowers, trainable
from ..network_recipe import NetworkRecipe
from ..objectives.contrastive import SameLabel
from ..objectives.pairs import GIST as Objective

Form = Literal["image", "towers"]
"""Parts to train: the image encoder, or both encoders."""


@dataclass(frozen=True)
class Pairs:
    """Pictures with their texts; ``pairs`` has indices into ``views`` and ``vectors``."""

    views: Any
    vectors: Float[Tensor, "m d"]
    pairs: Int[Tensor, "n 2"]
    labels: Int[Tensor, " p"]
    texts: tuple[str, ...] = ()


class Turns(nn.Module):
    """Linear layers after the frozen image and text encoders, initialised to the identity."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.image, self.text = (nn.Linear(width, width, bias=False) for _ in "it")
        for layer in (self.image, self.text):
            nn.init.eye_(layer.weight)

    def grown(self, on: Encoder) -> Encoder:
        head, digest = Turned(on.head, on.text, self.image).eval(), weights_digest(self.delta(on), on.fingerprint)
        parts = {"text": lambda: PlacedText(on.text, self.text), "fingerprint": digest, "engine": lambda: on.engine}
        return _among_texts(on, lambda: on.trunk, head, **parts)

    def delta(self, on: Encoder) -> dict[str, Tensor]:
        return {name: tensor.detach() for name, tensor in self.state_dict().items()}


class Turned(nn.Module):
    """Head that applies the trained layer to image features, without normalisation."""

    def __init__(self, head: nn.Module, tower: TextTower, turn: nn.Linear) -> None:
        super().__init__()
        self.head, self.tower, self.turn = head, tower, turn

    def forward(self, features: Tensor) -> Float[Tensor, "b d"]:
        return self.turn(self.tower.project(self.head(features)))


def _among_texts(on: Encoder, trunk: Callable[[], nn.Module], head: nn.Module, **parts: Any) -> Encoder:
    """Return a copy of the encoder whose head maps into the text space."""
    own = {"trunk": trunk, "head": head, "module": lambda: nn.Sequential(trunk(), head)}
    return on.but(**own, **parts, classifier=None, classes=())


class PlacedText:
    """Text encoder for an image head that already maps into the text space."""

    def __init__(self, tower: TextTower, turn: nn.Linear | None = None) -> None:
        self.tower, self.turn = tower, turn
        self.logit_scale, self.templates, own = tower.logit_scale, tower.templates, tower.fingerprint
        self.fingerprint = own if turn is None else weights_digest({"turn": turn.weight}, own)

    @torch.no_grad()
    def encode_text(self, texts: Sequence[str]) -> Float[Tensor, "n d"]:
        vectors = self.tower.encode_text(texts)
        return vectors if self.turn is None else normalize(self.turn(vectors), dim=1)

    def project(self, pooled: Float[Tensor, "b d"]) -> Float[Tensor, "b d"]:
        return pooled


def tune(
    turns: Turns,
    pairs: Pairs,
    objective: Objective,
    how: Training,
    checkpoint: tuple[Path, str] | None = None,
    progress: Progress | None = None,
) -> Trained:
    """Train both layers in place; a batch has a random crop of each picture."""
    of, text = pairs.pairs.T

    def drawn(index: list[int], draw: torch.Generator) -> Tensor:
        views = [pairs.views[i] for i in of[index].tolist()]
        return torch.stack([v[int(torch.randint(len(v), (), generator=draw))] for v in views])

    columns = {"image": drawn, "text": lambda index, _: pairs.vectors[text[index]], "labels": pairs.labels[of]}
    turns.requires_grad_(True)
    task = Contrast(turns.image, turns.text, objective, column="image", labels=True)
    return train(task, TrainingData(len(of), columns), how, checkpoint=checkpoint, progress=progress)


@torch.no_grad()
def measure(turns: Turns, pairs: Pairs) -> float:
    """Return the fraction of pictures that are nearer to their own first text than to those of other pictures."""
    image = turns.image(torch.stack([v[0] for v in pairs.views]))
    return round(recall(image, turns.text(pairs.vectors)[first_texts(pairs.pairs)]), 4)


def first_texts(pairs: Int[Tensor, "n 2"]) -> Int[Tensor, " p"]:
    """Return the index of the first text of each picture."""
    n = int(pairs[:, 0].max()) + 1
    return pairs[[int((pairs[:, 0] == i).nonzero()[0]) for i in range(n)], 1]


def grown(towers: TunedTowers, on: Encoder) -> Encoder:
    """Return an encoder that consists of the trained copies, whose pooled vectors are in the text space."""
    trunk, head, projection = towers.image_parts()
    if not isinstance(projection, nn.Identity):  # or else a head that is a mean over space stays one
        head = nn.Sequential(head, projection).eval()
    tensors, tower = towers.delta(on), trainable(on)

    def text() -> TextTower:
        if towers.words is None:
            return PlacedText(tower)
        own = {name: tensor for name, tensor in tensors.items() if name.startswith("words.")}
        digest = weights_digest(own, tower.fingerprint)
        return ClipText(digest, tower.logit_scale, towers.words, tower.tokens, templates=tower.templates)

    return _among_texts(on, lambda: trunk, head, text=text, fingerprint=weights_digest(tensors, on.fingerprint))


class DistinctTexts(nn.Module):
    """Text encoder that maps text indices to vectors and encodes each distinct text once per batch."""

    def __init__(self, words: nn.Module, tokens: Callable[[list[str]], Tokenised], texts: tuple[str, ...]) -> None:
        super().__init__()
        self.words, self.tokens, self.texts = words, tokens, texts

    def forward(self, index: Int[Tensor, " b"]) -> Float[Tensor, "b d"]:
        distinct, place = index.unique(return_inverse=True)
        tokens = self.tokens([self.texts[i] for i in distinct.tolist()])
        vectors: Tensor = self.words(*(t.to(index.device) for t in tokens))
        return vectors[place]


def tune_towers(
    towers: TunedTowers,
    tower: TrainableText,
    pairs: Pairs,
    objective: Objective,
    how: Training,
    checkpoint: tuple[Path, str] | None = None,
    progress: Progress | None = None,
) -> Trained:
    """Train copies of the encoders in place, with batch normalisation and dropout in evaluation mode."""
    of, row = pairs.pairs.T
    image = Still(nn.Sequential(*towers.image_parts()), learns=True)
    text: nn.Module = nn.Identity()
    if towers.words is not None:
        text = Still(DistinctTexts(towers.words, tower.tokens, pairs.texts), learns=True)
    said = pairs.vectors[row] if towers.words is None else row
    data = TrainingData(len(of), {"pixels": pairs.views, "text": said, "labels": pairs.labels[of]})
    return train(Contrast(image, text, objective, labels=True), data, how, checkpoint=checkpoint, progress=progress)


@dataclass(frozen=True, eq=False)
class GISTNetwork(Network):
    """A trained encoder: two additional linear layers, or trained copies of the encoders."""

    where: ClassVar[str] = "grad_cam"

    trained: Turns | TunedTowers

    def encoder(self) -> Encoder:
        own = self.trained
        return own.grown(self.base) if isinstance(own, Turns) else grown(own, self.base)

    def tensors(self) -> dict[str, Tensor]:
        return self.trained.delta(self.base)

    def facts(self) -> dict[str, Any]:
        own = self.trained
        if isinstance(own, Turns):
            return {"train": "layers", "width": own.image.in_features}
        return {"train": own.form}

    @classmethod
    def restore(cls, base: Encoder, facts: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> Self:
        form = facts.get("train", "layers")
        if form == "layers":
            turns = Turns(int(facts["width"]))
            turns.load_state_dict(dict(tensors))
            freeze(turns)
            return cls(base, turns)
        if form not in get_args(Form):
            raise ValueError(f"gist does not know train={form!r}")
        return cls(base, TunedTowers.restored(base, {"form": form}, tensors))


Tuned = tuple[GISTNetwork, Encoder, EncodedSet, dict[str, Any]]
"""The network, its encoder, the pictures encoded with it, and metrics of the tuning."""


@classifiers.register
@dataclass(frozen=True)
class GIST(NetworkRecipe):
    """Contrastive training on texts that match each picture, followed by a linear classifier.

    1. Each training picture gets the best-matching texts of its class
      (:func:`seewhy.language.matching.match_pictures`), or its texts from a file.
    2. The first ``n_captions`` texts of a picture, in the form ``"{class}: {text}"``, become pairs with the picture.
    3. Image and text features are trained on these pairs with :class:`seewhy.learning.objectives.pairs.GIST`.
    4. A linear classifier is fitted on the new image features, without normalisation.

    ``train="layers"`` trains a linear layer on each frozen encoder, in seconds on a CPU. ``train="towers"`` trains
    copies of both encoders, as the authors do, and ``train="image"`` a copy of the image encoder only.

    Args:
        train: what to train: ``"layers"``, ``"image"`` or ``"towers"``.
        n_captions: number of training texts per picture (authors' examples: 4).
        top: number of texts to find for each picture (authors: 5).
        same_class: treatment of other pairs of the same class in a batch (authors: ``"negative"``).
        n_steps: number of training steps (authors' examples: 40 epochs).
        batch_size: number of pairs per step; default: 64 for ``"layers"``, otherwise 20 (authors).
        lr: learning rate; default: 3e-4 for ``"layers"``; otherwise 1e-6 with a CLIP (authors) and 1e-4 with the
            embedded encoder, a value chosen on held-out groceries.
        weight_decay: weight decay (authors: 1e-3).
        n_crops: number of additional crops per picture, for the linear classifier and for ``train="layers"``.
    """

    name: ClassVar[str] = "gist"
    paper: ClassVar[str] = "Lewis et al. 2023, arXiv:2307.11315"
    needs: ClassVar[str] = "labelled pictures, and texts of the classes or of the pictures"
    network: ClassVar[type[Network] | None] = GISTNetwork
    takes: ClassVar = ("descriptions", "captions", "checkpoint")
    small: ClassVar = {"n_captions": 1, "n_steps": 2, "batch_size": 4, "n_crops": 1}

    train: Literal["layers", "image", "towers"] = "layers"
    n_captions: Count = 4
    top: int = 5
    same_class: SameLabel = "negative"
    n_steps: Count = 300
    batch_size: Annotated[int, Bound(2)] | None = None
    lr: float | None = None
    weight_decay: float = 1e-3
    n_crops: Natural = 3
    n_bank: int = 1000

    def check(self) -> None:
        if self.n_captions > self.top:
            raise InputError(
                f"`n_captions` must be at most `top`, got n_captions={self.n_captions} and top={self.top}."
            )

    def learn(self, fitting: Fitting) -> Outcome:
        encoder = fitting.encoder
        if fitting.descriptions is None and fitting.captions is None:
            raise InputError(
                "gist needs texts of each class (--descriptions) or of each picture (--captions). To write some, run: "
                "seewhy describe write"
            )
        if self.train != "layers":
            trainable(encoder, "layers")  # refused before anything is looked at
        pictures = fitting.look(views=self._views) if self.train == "layers" else fitting.look()
        chosen = pictures.trained
        captions = self._captions(fitting, pictures, chosen)
        labels = [pictures.items[i].label for i in chosen]
        specific = specificity(replace(c, label=label) for c, label in zip(captions, labels, strict=True))
        fitting.progress.note(f"texts of pictures: {say(specific)}")
        facts = [(pictures.encoded[i].digest, c.texts) for i, c in zip(chosen, captions, strict=True)]
        seal = json.dumps([self.parameters(), encoder.fingerprint, facts])
        places: dict[str, int] = {}
        pairs = [
            (i, places.setdefault(f"{label.replace('_', ' ')}: {text}", len(places)))
            for i, (label, caption) in enumerate(zip(labels, captions, strict=True))
            for text in caption.texts[: self.n_captions]
        ]
        vectors = encode_texts(encoder, list(places), fitting.store)
        with torch.no_grad():
            joint = [encoder.text.project(pictures.encoded[i].pooled) for i in chosen]
        known = Pairs(joint, vectors, torch.tensor(pairs), pictures.labels[chosen], tuple(places))
        method = self._tune_layers if self.train == "layers" else self._tune_towers
        network, now, pictures, figures = method(fitting, pictures, known, fitting.sealed(seal))
        probe = Linear(n_crops=self.n_crops, power=1.0, l2=False, held_out=self.held_out, seed=self.seed)
        # Without folds: the network was tuned on all but those held out.
        found = probe.learn_seen(now, replace(pictures, folds=None))
        made = replace(found.classifier, recipe=self.name, parameters=self.parameters(), network=network)
        own = {"texts": specific, **figures, "texts_by": sorted({c.model for c in captions})}
        return replace(found, classifier=made, figures={**found.figures, **own})

    def _training(self, batch_size: int, lr: float, schedule: Schedule) -> Training:
        size, own = batch_size if self.batch_size is None else self.batch_size, lr if self.lr is None else self.lr
        return Training.of(self, batch_size=size, lr=own, schedule=schedule)

    def _views(self, sample: Sample) -> Sequence[Crop | None]:
        return crops_by_name(sample.image, self.n_crops, self.seed)

    def _captions(self, fitting: Fitting, pictures: EncodedSet, chosen: Sequence[int]) -> Sequence[Caption]:
        if fitting.captions is not None:
            digests = [pictures.encoded[i].digest for i in chosen]
            return of_pictures(fitting.captions, digests, [str(pictures.items[i].image) for i in chosen])
        assert isinstance(fitting.descriptions, Descriptions)
        matcher = Matcher(fitting.encoder, fitting.descriptions, Match(self.top), fitting.store)
        return [matcher.match(pictures.items[i], pictures.encoded[i]) for i in chosen]

    def _tune_layers(
        self, fitting: Fitting, pictures: EncodedSet, pairs: Pairs, checkpoint: tuple[Path, str] | None
    ) -> Tuned:
        on, turns = fitting.encoder, Turns(pairs.vectors.shape[1])
        before, how = measure(turns, pairs), self._training(64, 3e-4, "one_cycle")
        objective = Objective(on.text.logit_scale, self.same_class)
        done = tune(turns, pairs, objective, how, checkpoint, fitting.progress)
        figures = {"recall_before": before, "recall": measure(turns, pairs), "loss": done.loss}
        with torch.no_grad():
            encoded = [replace(s, pooled=turns.image(on.text.project(s.pooled))) for s in pictures.encoded]
        network = GISTNetwork(on, turns)
        return network, network.encoder(), replace(pictures, encoded=encoded), figures

    def _tune_towers(
        self, fitting: Fitting, pictures: EncodedSet, pairs: Pairs, checkpoint: tuple[Path, str] | None
    ) -> Tuned:
        """Train copies of the encoders, then encode all pictures again."""
        base, chosen, store, progress = fitting.encoder, pictures.trained, fitting.store, fitting.progress
        tower, towers = trainable(base), TunedTowers.before(base, cast(Form, self.train))
        first = first_texts(pairs.pairs)
        before = round(recall(torch.cat(pairs.views), pairs.vectors[first]), 4)
        sources = [pictures.items[chosen[place]].source for place in pairs.pairs[:, 0].tolist()]
        read = replace(pairs, views=TrainingPictures(base, sources, None, progress))
        how, objective = self._training(20, tower.tuning_lr, "constant"), Objective(tower.logit_scale, self.same_class)
        n = sum(p.numel() for p in towers.parameters())
        progress.note(
            f"training {n:,} weights needs {16 * n / 1e9:.1f} GB, plus the memory of one batch in the encoder"
        )
        done = tune_towers(towers, tower, read, objective, how, checkpoint, progress)
        network = GISTNetwork(base, towers)
        now = network.encoder()
        again = self._look_again(now, pictures, store, progress)
        places = [place for place, i in enumerate(chosen) if i in again]
        image = torch.stack([again[chosen[place]].pooled[0] for place in places])
        after = round(recall(image, encode_texts(now, list(pairs.texts), store)[first[places]]), 4)
        figures = {"recall_before": before, "recall": after, "loss": done.loss}
        readable = replace(pictures.subset(list(again)), encoded=list(again.values()))
        return network, now, readable, figures

    def _look_again(
        self, now: Encoder, pictures: EncodedSet, store: FeatureStore | None, progress: Progress
    ) -> dict[int, Encoded]:
        """Return new features by picture index, without pictures that can no longer be read."""

        def views_of(index: int) -> Sequence[Crop | None]:
            measured_only = pictures.validation and bool(pictures.held[index])
            return (None,) if measured_only else self._views(pictures.items[index])

        sources = [s.source for s in pictures.items]
        stream = encode_stream(now, sources, store=store, request=EncodeRequest(views=views_of))
        return dict(progress.results(range(len(pictures.items)), stream, "Looking at pictures again"))
