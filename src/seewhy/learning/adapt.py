"""Adapting an encoder to pictures with texts: what is trained, and how much of it is kept."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, ClassVar, Literal, Self, get_args

import torch
from jaxtyping import Bool
from torch import Tensor

from ..encoders.adapted import Adaptation
from ..encoders.base import Encoder
from ..encoders.names import names_of
from ..encoders.paired_heads import WIDTH, PairedHeads
from ..encoders.tuned_towers import TunedTowers, trainable
from ..errors import DataError, InputError
from ..pictures.pairs import load_pairs
from ..pictures.samples import Sample
from ..progress import Progress
from ..seeded import seeded
from ..storage.features import FeatureStore
from ..training.batches import TrainingData
from ..training.loop import Trained, Training, train
from ..training.task import Task
from .heads import HeadsTask, agrees, heads_data, heads_vectors
from .objectives import objectives
from .objectives.contrastive import Contrastive, RandomBoxes, Regional
from .retrieval import Ranks, ranks
from .seen_pairs import SeenPairs, findings, joint_vectors, look_at_pairs, spanned
from .towers import towers_data, towers_task
from .way import Finished, Way, apart, check_part, choose_keep, say_shared

Form = Literal["heads", "image", "text", "towers"]
KEEPS = (0.05, 0.08, 0.1, 0.12, 0.14, 0.16, 0.2, 0.25, 0.3, 0.4, 0.5, 0.7, 1.0)
"""Tried where none was given."""
TOWER_KEEPS = (0.25, 0.5, 0.75, 1.0)
"""The same for towers, where each costs a look at what is held out."""


@dataclass(frozen=True)
class Kept:
    """What one ``keep`` gives on held-out pictures.

    Attributes:
        keep: how much.
        image_to_text: R@5.
        text_to_image: R@5.
        named: part of the pictures whose nearest class by name is the one that the encoder's own last layer says;
            ``None`` for an encoder without classes of its own.
    """

    keep: float
    image_to_text: float
    text_to_image: float
    named: float | None

    @classmethod
    def of(cls, keep: float, found: Ranks, named: Bool[Tensor, " n"] | None) -> Kept:
        image_to_text, text_to_image = found.recall(5)
        part = None if named is None else round(float(named.float().mean()), 4)
        return cls(keep, round(image_to_text, 4), round(text_to_image, 4), part)

    @property
    def gain(self) -> float:
        """Mean R@5 of both ways."""
        return (self.image_to_text + self.text_to_image) / 2


@dataclass(frozen=True, eq=False)
class Adapted(Finished[SeenPairs, Kept]):
    """A finished training on pairs.

    Attributes:
        chosen_on: pictures that ``keep`` was chosen on; those to measure on are others, where there are enough.
    """

    chosen_on: SeenPairs


@dataclass(frozen=True)
class Adapt(Way):
    """How an encoder is adapted to pictures with texts.

    Args:
        objective: registered name of one that compares all pairs.
        train: heads behind frozen towers, the picture tower, the words tower, or both towers.
        keep: how much of what was learnt is kept, 0 to 1; left out, chosen on held-out pictures: the highest mean R@5
            of both ways among those that cost no more than ``may_forget``.
        epochs: times that each picture is seen, each time with one of its texts.
        batch_size: pairs compared with one another.
        micro_batch: pairs whose towers are computed at once; left out, as many as the free memory is enough for.
        lr: highest learning rate; left out, 1.5e-3 for heads, the words tower's own for towers.
        weight_decay: of everything but biases and the temperature.
        width: of the space that heads learn.
        refit: whether heads fit the place of sentences anew, where it is a regression on classes' texts.
        guard: whether with heads a sentence that is nearer to the name of an own class than to all that is trained on
            keeps its old place.
        may_forget: most of the agreement with the encoder's own classes that a ``keep`` that is chosen may cost; with
            heads, each name is read as if it were none of them, as others are.
        held_out: part of the pictures that ``keep`` is chosen on.
        seed: of weights, order and texts drawn.
    """

    columns: ClassVar[tuple[str, ...]] = ("image", "text", "label", "group")
    all_of_it: ClassVar[Mapping[str, Any]] = {"train": "towers", "keep": 1.0, "epochs": 20, "batch_size": 256}

    objective: str = "clip"
    train: Form = "heads"
    keep: float | None = None
    epochs: int = 12
    batch_size: int = 512
    micro_batch: int | None = None
    lr: float | None = None
    weight_decay: float = 0.1
    width: int = WIDTH
    refit: bool = True
    guard: bool = True
    may_forget: float = 0.1
    held_out: float = 0.1
    seed: int = 0

    def __post_init__(self) -> None:
        if self.train not in get_args(Form):
            raise InputError(
                f"adapt was given train={self.train!r}. 'heads', 'image', 'text' or 'towers' was expected. Change it."
            )
        if self.epochs < 1 or self.batch_size < 2 or not 0 < self.held_out < 1 or self.width < 1:
            raise InputError(
                f"adapt was given epochs={self.epochs}, batch_size={self.batch_size}, held_out={self.held_out:g}, "
                f"width={self.width}. An epoch or more, batches of two or more pairs, a part between 0 and 1 and a "
                "width of one or more were expected. Change them."
            )
        check_part(self.keep, self.may_forget, self.held_out)
        self.contrastive()

    @classmethod
    def takes(cls) -> set[str]:
        return {field.name for field in fields(cls)} - {"objective"}

    @classmethod
    def of(cls, objective: str, settings: Mapping[str, Any], columns: Mapping[str, Any]) -> Self:
        return cls(objective, **settings)

    def read(self, source: Any, columns: Mapping[str, Any], progress: Progress) -> tuple[Sample, ...]:
        found = load_pairs(source, **columns)
        for note in found.notes:
            progress.note(note)
        return found.items

    def n_texts(self, read: Sequence[Sample]) -> int:
        return len({text for item in read for text in item.texts})

    def some(self, read: Sequence[Sample], n: int) -> Sequence[Sample]:
        return read[:: max(1, len(read) // n)][:n]

    def look(self, on: Encoder, read: Sequence[Sample], store: FeatureStore | None, progress: Progress) -> SeenPairs:
        return look_at_pairs(on, read, store, progress)

    def contrastive(self) -> Contrastive:
        """The objective."""
        found, each = objectives[self.objective], [(n, objectives[n]) for n in objectives]
        if not (issubclass(found, Contrastive) and found.plain_pairs):
            able = ", ".join(n for n, one in each if issubclass(one, Contrastive) and one.plain_pairs)
            raise InputError(
                f"The objective {self.objective!r} needs {found.needs}. One over pairs of pictures and texts was "
                f"expected: {able}. Take one of those{found.options and f', or give seewhy adapt {found.options}'}."
            )
        return found()

    def training(self, data: TrainingData, on: Encoder) -> Training:
        size = min(self.batch_size, data.n_samples)
        steps = self.epochs * data.steps_per_epoch(size)
        heads = self.train == "heads"
        return Training(
            steps,
            size,
            lr=self.lr or (1.5e-3 if heads else trainable(on).tuning_lr),
            weight_decay=self.weight_decay,
            schedule="cosine",
            warmup=min(20, steps // 5),
            seed=self.seed,
            micro_batch=self.micro_batch,
        )

    def fit(
        self,
        on: Encoder,
        items: Sequence[Sample],
        *,
        validation: Sequence[Sample] | None = None,
        store: FeatureStore | None = None,
        progress: Progress | None = None,
        checkpoint: Path | None = None,
        history: Path | None = None,
    ) -> Adapted:
        """Look, train, choose."""
        progress = progress or Progress()
        _ = on.text if self.train == "heads" else trainable(on)  # refused before anything is looked at
        seen = look_at_pairs(on, items, store, progress)
        if validation is None:
            own, held = seen.split(self.held_out, self.seed)
        else:
            own, held = seen, look_at_pairs(on, validation, store, progress)
            say_shared(own, held, progress)
        if len(own) < 2:
            raise DataError(
                f"One pair can be trained on, of {own.items[0].image}. Two or more were expected, as a picture learns "
                "by being told from others. Give more pairs."
            )
        chosen_on, held = apart(held, self.keep, self.seed, progress)
        own = spanned(on, own, self.contrastive().spans, store, progress)
        part, task, data = self.prepared(on, own, progress)
        labels = [item.label for item in own.items] if self.contrastive().uses_labels else []
        seal = json.dumps([asdict(self), labels, on.fingerprint, own.digests, own.texts, own.pairs.tolist()])
        kept = None if checkpoint is None else (checkpoint, seal)
        done = train(task, data, self.training(data, on), checkpoint=kept, history=history, progress=progress)
        measured = self._measure(on, part, own, chosen_on, progress)
        every = KEEPS if self.train == "heads" else TOWER_KEEPS
        best, tried = choose_keep(measured, every, self, len(chosen_on), progress)
        digests = tuple(dict.fromkeys(own.digests))
        adaptation = Adaptation(on, part, best.keep, self._provenance(best, own, chosen_on, held, done), digests)
        return Adapted(adaptation, done, tuple(tried), own, held, chosen_on)

    def prepared(
        self, on: Encoder, own: SeenPairs, progress: Progress
    ) -> tuple[PairedHeads | TunedTowers, Task, TrainingData]:
        objective = self.contrastive()
        if isinstance(objective, RandomBoxes) and self.train in ("heads", "text"):
            progress.note(f"{self.objective} trains a detector's heads with the picture tower alone: they are left out")
        labels = findings(own) if objective.uses_labels else None
        if objective.uses_labels and labels is None:
            progress.note(f"{self.objective} learns from pairs alone: not every picture has a class, or findings")
        if self.train == "heads":
            if isinstance(objective, Regional):
                progress.note(f"heads see whole pictures and texts: what {self.objective} makes of parts is left out")
            with seeded(self.seed), torch.no_grad():
                heads = PairedHeads.before(on, self.width, refit=self.refit).measure(on.text.project(own.pooled))
                if self.guard:
                    heads.hear(own.sentences)
            if "coefficients" in heads.refit and "left" not in heads.refit:
                progress.note(
                    f"no emoji were made for {on.name}: the place of sentences is fitted on its classes alone"
                )
            task: Task = HeadsTask(heads, objective, labels=labels is not None)
            return heads, task, labelled(heads_data(heads, on, own, objective.n_texts), labels)
        towers = TunedTowers.before(on, self.train)
        with seeded(self.seed):
            task = towers_task(on, towers, objective, labels=labels is not None)
        return towers, task, labelled(towers_data(on, towers, own, progress, objective), labels)

    def _measure(
        self, on: Encoder, part: PairedHeads | TunedTowers, own: SeenPairs, held: SeenPairs, progress: Progress
    ) -> Callable[[float], Kept]:
        """What a ``keep`` gives on held-out pictures."""
        if isinstance(part, PairedHeads):
            heads = part.level(on.text.project(own.pooled))

            def behind(keep: float) -> Kept:
                image, text = heads_vectors(heads, on, held, keep)
                return Kept.of(keep, ranks(image, text, held.owner), agrees(heads, keep, on, held.pooled))

            return behind

        def through(keep: float) -> Kept:
            grown = Adaptation(on, part, keep).encoder() if keep else on
            seen = held if not keep else look_at_pairs(grown, held.items, None, progress)
            image, text = joint_vectors(grown, seen)
            named = None
            if on.classifier is not None and len(on.classes) == on.classifier.out_features and len(seen) == len(held):
                own_class = on.classifier(held.pooled).argmax(1)
                named = (image @ grown.encode_text(names_of(on)).T).argmax(1) == own_class
            return Kept.of(keep, ranks(image, text, seen.owner), named)

        return through

    def _provenance(
        self, best: Kept, own: SeenPairs, chosen_on: SeenPairs, held: SeenPairs, done: Trained
    ) -> dict[str, Any]:
        return {
            **asdict(self),
            "keep": best.keep,
            "keep_chosen": self.keep is None,
            "n_pictures": len(own),
            "n_texts": len(own.texts),
            "n_chosen_on": len(chosen_on),
            "n_measured_on": len(held),
            "n_steps": len(done.history),
            "loss": done.loss,
        }


def labelled(data: TrainingData, labels: Tensor | None) -> TrainingData:
    """With a column of labels, where there are any."""
    return data if labels is None else TrainingData(data.n_samples, {**data.columns, "labels": labels})
