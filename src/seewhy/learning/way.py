"""Steps shared by all encoder trainings."""

from __future__ import annotations

import json
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Annotated, Any, ClassVar, Generic, Literal, Self, TypeVar, cast, final

import torch

from ..bounds import Bound, InnerPart, Part
from ..classifiers.encoded_set import EncodedSet
from ..encoders.base import Encoder
from ..errors import DataError
from ..pictures.samples import Sample, Samples
from ..progress import Progress, shown
from ..results import Count, Doc
from ..storage.features import FeatureStore
from ..training.batches import TrainingData
from ..training.loop import Trained, Training, train
from ..training.task import Task
from .encoders.adapted import Adaptation

N_CHOSEN_ON = 1000
"""Maximum number of held-out pictures on which ``keep`` is chosen."""
N_APART = 40
"""Minimum number of held-out pictures to split between choosing ``keep`` and evaluation."""
AGREES = "agrees with its own classes by name"
"""Metric: how often the class with the nearest name is the prediction of the encoder's classifier."""
AGREES_AS_NEW = "own classes, names read as new"
"""Metric: ``AGREES`` with each class name treated as a new name. Heads choose ``keep`` by it."""

N_LOOKED_AT = 32
N_STEPS = 3
"""Pictures to encode and steps to train for the cost estimate."""

S = TypeVar("S", bound=EncodedSet)


T = TypeVar("T", bound=Any)
"""Held-out results for one value of ``keep``: ``gain``, and ``named``, the agreement with own classes."""


@dataclass(frozen=True, eq=False)
class Finished(Generic[S, T]):
    """A finished training."""

    adaptation: Adaptation
    done: Trained
    tried: tuple[T, ...]
    train: S
    held: S
    chosen_on: S
    judged: Mapping[str, Any] = field(default_factory=dict)

    @property
    def encoder(self) -> Encoder:
        """The trained encoder."""
        return self.adaptation.encoder()

    def save(self, folder: str | Path) -> Path:
        """Save the encoder to a folder; see :meth:`seewhy.learning.encoders.adapted.Adaptation.save`."""
        return self.adaptation.save(folder)


@dataclass(frozen=True, kw_only=True)
class Way(ABC, Generic[S, T]):
    """Base class of the two kinds of encoder training: adaptation and pretraining.

    ``columns`` are the columns that a user may name. ``all_of_it`` are the default settings of :func:`seewhy.pretrain`,
    and ``stays`` is a note about weights that are not trained.

    Args:
        keep: interpolation weight, from 0 (original encoder) to 1 (trained encoder); default: chosen on held-out
            pictures within the limit ``may_forget``.
        may_forget: largest allowed loss of agreement with the original encoder on its own classes, 0 to 1; a lower
            value forgets less.
        epochs: number of passes over the pictures.
        batch_size: number of pictures, or of pairs, per step; larger batches need more memory.
        lr: highest learning rate; default: depends on the encoder.
        weight_decay: weight decay, at least 0; not applied to biases, scales, the temperature and prefixes.
        held_out: fraction of the pictures to hold out, for the choice of ``keep`` and for evaluation, 0 to 1.
        seed: seed for weights, order, views and drawn texts.
    """

    columns: ClassVar[tuple[str, ...]]
    all_of_it: ClassVar[Mapping[str, Any]]
    stays: ClassVar[str] = ""
    by_class: ClassVar[bool] = False
    result: ClassVar[type[Finished[Any, Any]]]

    keep: Part | None = None
    may_forget: Part = 0.1
    epochs: Annotated[int, Bound(1)] = 12
    batch_size: Annotated[int, Bound(2)] = 512
    lr: float | None = None
    weight_decay: float = 0.1
    held_out: InnerPart = 0.1
    seed: int = 0

    @classmethod
    def takes(cls) -> set[str]:
        """Return the names of the settings, without objective and columns."""
        return {f.name for f in fields(cast(Any, cls)) if f.init} - {"objective", *cls.columns}

    @classmethod
    def of(cls, objective: str, settings: Mapping[str, Any], columns: Mapping[str, Any]) -> Self:
        """Return the training with these settings and columns."""
        return cast(Any, cls)(objective, **settings)

    @abstractmethod
    def read(self, source: Any, columns: Mapping[str, Any], progress: Progress) -> Any:
        """Read a table in the form that :meth:`look` takes."""

    def n_texts(self, read: Any) -> int:
        return len({text for item in read for text in item.texts})

    def some(self, read: Any, n: int) -> Any:
        return read[:: max(1, len(read) // n)][:n]

    @abstractmethod
    def look(self, on: Encoder, read: Any, store: FeatureStore | None, progress: Progress) -> S:
        """Encode all pictures and texts."""

    def refuse(self, on: Encoder, read: Any) -> None:
        """Check that encoder and table are suitable."""

    def check(self, own: S, progress: Progress) -> None:
        """Check that the training pictures are sufficient."""

    def spanned(self, on: Encoder, own: S, store: FeatureStore | None, progress: Progress) -> S:
        """Return the data with its texts split as the objective requires."""
        return own

    @abstractmethod
    def prepared(self, on: Encoder, own: S, progress: Progress) -> tuple[Any, Task, TrainingData]:
        """Return the untrained module, its task and the training data."""

    @abstractmethod
    def training(self, data: TrainingData, on: Encoder) -> Training:
        """Return the settings of the training loop."""

    @abstractmethod
    def seal(self, own: S) -> list[Any]:
        """Return values that must match when a checkpoint is resumed."""

    def keeps(self) -> Sequence[float]:
        """Return the values of ``keep`` to try; empty if all weights are kept."""
        return ()

    def measured(
        self, on: Encoder, part: Any, own: S, chosen_on: S, held: S, progress: Progress
    ) -> Callable[[float], T]:
        """Return a function from ``keep`` to held-out results."""
        raise NotImplementedError

    @abstractmethod
    def told(self, own: S, data: TrainingData, done: Trained) -> dict[str, Any]:
        """Return the training record for the HTML card."""

    def judge(self, on: Encoder, part: Any, keep: float, own: S, chosen_on: S, held: S) -> Mapping[str, Any]:
        """Return additional metrics on held-out pictures."""
        return {}

    @final
    @shown("Preparing and measuring the training")
    def fit(
        self,
        on: Encoder,
        items: Any,
        *,
        validation: Any = None,
        store: FeatureStore | None = None,
        progress: Progress | None = None,
        checkpoint: Path | None = None,
    ) -> Any:
        """Encode the data, train, and choose ``keep``."""
        progress, keeps = progress or Progress(), self.keeps()
        self.refuse(on, items)
        own, held = self._split(on, items, validation, store, progress)
        self.check(own, progress)
        chosen_on, held = split_held(held, self.keep, self.seed, progress) if keeps else (held, held)
        own = self.spanned(on, own, store, progress)
        part, task, data = self.prepared(on, own, progress)
        seal = json.dumps([*self.seal(own), on.fingerprint, own.digests])
        kept = None if checkpoint is None else (checkpoint, seal)
        done = train(task, data, self.training(data, on), checkpoint=kept, progress=progress)
        part.requires_grad_(False)
        facts, keep = self.told(own, data, done), 1.0
        tried: list[T] = []
        if keeps:
            measured = self.measured(on, part, own, chosen_on, held, progress)
            given = keeps if self.keep is None else (self.keep,)
            track = progress.track((0.0, *given), "Choosing how much of the change to keep", 1 + len(given))
            tried = [measured(keep) for keep in track]
            keep = (tried[-1] if self.keep is not None else choose(tried, self.may_forget)).keep
            if self.keep is None:
                progress.note(f"keep = {keep:g}, chosen on {len(chosen_on)} held-out pictures")
            facts |= {"keep_chosen": self.keep is None, "n_chosen_on": len(chosen_on)}
        facts |= {"keep": keep, "n_measured_on": len(held), "n_steps": len(done.history)}
        adaptation = Adaptation(on, part, keep, facts, tuple(dict.fromkeys(own.digests)))
        judged = self.judge(on, part, keep, own, chosen_on, held)
        return self.result(adaptation, done, tuple(tried), own, held, chosen_on, judged)

    def _split(
        self, on: Encoder, items: Any, validation: Any, store: FeatureStore | None, progress: Progress
    ) -> tuple[S, S]:
        encoded = self.look(on, items, store, progress)
        if validation is None:
            own, held = encoded.split(self.held_out, self.seed, by_class=self.by_class)
        else:
            own, held = encoded, self.look(on, validation, store, progress)
            known = dict(zip(own.digests, own.items, strict=True))
            both = [(known[d], item) for d, item in zip(held.digests, held.items, strict=True) if d in known]
            if both:
                progress.note(
                    f"{len(both)} picture(s) are in both the training and the validation data, which biases the choice "
                    f"of keep: {both[0][1].image} is {both[0][0].image}"
                )
        if len(own) < 2:
            raise DataError(
                f"Training needs at least 2 pictures, got {len(own)} of {len(encoded)} readable pictures. Add pictures."
            )
        return own, held


def noted(samples: Samples, progress: Progress) -> tuple[Sample, ...]:
    progress.note_all(samples.notes)
    return samples.items


def split_held(held: S, keep: float | None, seed: int, progress: Progress) -> tuple[S, S]:
    """Split held-out pictures into one half for the choice of ``keep`` and one for the evaluation."""
    held = held.subset(range(min(len(held), 2 * N_CHOSEN_ON)))
    if keep is not None:
        return held, held
    if len(held) < N_APART:
        progress.note(
            f"keep is chosen and evaluated on the same {len(held)} held-out pictures, so results are slightly too "
            f"good; with {N_APART} or more, separate pictures are used"
        )
        return held, held
    return held.split(0.5, seed)


def choose(tried: Sequence[T], may_forget: float) -> T:
    """Return the result with the highest ``gain`` whose ``named`` decreases by at most ``may_forget``."""
    before = tried[0].named
    allowed = [k for k in tried if before is None or k.named is None or k.named >= before - may_forget - 1e-9]
    return max(allowed, key=lambda k: k.gain)


@dataclass(frozen=True)
class Cost:
    """Predicted training cost: the JSON object of ``seewhy adapt`` and ``pretrain`` with ``--dry-run --json``."""

    dry_run: Annotated[Literal[True], Doc("`true`")]
    n_pictures: Annotated[Count, Doc("number of pictures with texts")]
    n_texts: Annotated[Count, Doc("number of distinct texts")]
    n_steps: Annotated[Count, Doc("number of training steps")]
    n_weights: Annotated[Count, Doc("number of trained weights")]
    seconds_looking: Annotated[float, Doc("seconds to encode all pictures and texts without cache")]
    seconds_per_step: Annotated[float, Doc("seconds per training step on this machine")]
    seconds: Annotated[float, Doc("seconds in total, without the choice of `keep`")]


def estimate(how: Way[Any, Any], on: Encoder, read: Any, *, validation: bool = False) -> Cost:
    """Estimate the training time from a few encoded pictures and training steps."""
    how.look(on, how.some(read, 1), None, Progress())
    start = time.perf_counter()
    encoded = how.look(on, how.some(read, N_LOOKED_AT), None, Progress())
    n, looking = len(read), len(read) * (time.perf_counter() - start) / len(encoded)
    part, task, data = how.prepared(on, encoded, Progress())
    weights = sum(p.numel() for p in part.parameters() if p.requires_grad)  # steps freeze them
    whole = how.training(_grown(data, (n if validation else round((1 - how.held_out) * n)) / len(encoded)), on)
    few = replace(how.training(data, on), n_steps=N_STEPS, warmup=0)
    times = whole.batch_size / min(few.batch_size, data.n_samples)
    step = times * train(task, data, few).seconds_per_step
    seconds = round(looking, 1), round(step, 3), round(looking + step * whole.n_steps, 1)
    return Cost(True, n, how.n_texts(read), whole.n_steps, weights, *seconds)


def _grown(data: TrainingData, times: float) -> TrainingData:
    """Return the data repeated ``times`` times, without columns."""
    if data.apart is None:
        return TrainingData(max(2, round(times * data.n_samples)), {})
    counts = [max(2, round(times * n)) for n in data.apart.unique(return_counts=True)[1].tolist()]
    apart = torch.repeat_interleave(torch.arange(len(counts)), torch.tensor(counts))
    return TrainingData(len(apart), {}, apart)
