"""What every way of teaching an encoder shares: what it takes, reads and trains, and how ``keep`` is chosen."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Generic, Protocol, Self, TypeVar

from ..encoders.adapted import Adaptation
from ..encoders.base import Encoder
from ..errors import InputError
from ..pictures.samples import Sample
from ..progress import Progress
from ..storage.features import FeatureStore
from ..training.batches import TrainingData
from ..training.loop import Trained, Training
from ..training.task import Task

N_CHOSEN_ON = 1000
"""Held-out pictures that ``keep`` is chosen on, at most."""
N_APART = 40
"""Held-out pictures from which half are chosen on and the other half measured on; fewer are too few for either."""
AGREES = "agrees with its own classes by name"
"""The measure of how often the class whose name is nearest is the one that the encoder's own last layer says."""
AGREES_AS_NEW = "own classes, names read as new"
"""The same where each name is read as if it were none of the encoder's own, which keep their place: what becomes of
the names of other things, and what a ``keep`` of heads is chosen by."""


class Seen(Protocol):
    """Pictures as an encoder pools them, with what is said of them."""

    @property
    def items(self) -> tuple[Sample, ...]: ...
    @property
    def digests(self) -> tuple[str, ...]: ...
    def __len__(self) -> int: ...
    def only(self, keep: Sequence[int]) -> Self: ...
    def split(self, held_out: float, seed: int) -> tuple[Self, Self]: ...


S = TypeVar("S", bound=Seen)


class Tried(Protocol):
    """What one ``keep`` gives on held-out pictures.

    Attributes:
        keep: how much.
        named: part of the pictures whose nearest class by name is the one that the encoder's own last layer says;
            ``None`` for an encoder without classes of its own.
        gain: what is to be high.
    """

    @property
    def keep(self) -> float: ...
    @property
    def named(self) -> float | None: ...
    @property
    def gain(self) -> float: ...


T = TypeVar("T", bound=Tried)


@dataclass(frozen=True, eq=False)
class Finished(Generic[S, T]):
    """A finished training.

    Attributes:
        adaptation: the encoder it began with, what was trained and how much of it is kept.
        done: its steps.
        tried: what each ``keep`` gives on held-out pictures, 0 first; nothing where all is kept.
        train: pictures trained on, as the encoder saw them before.
        held: pictures to measure on.
    """

    adaptation: Adaptation
    done: Trained
    tried: tuple[T, ...]
    train: S
    held: S

    @property
    def encoder(self) -> Encoder:
        """The trained encoder."""
        return self.adaptation.encoder()

    def save(self, folder: str | Path) -> Path:
        """Keep it in a folder; see :meth:`seewhy.encoders.adapted.Adaptation.save`."""
        return self.adaptation.save(folder)


class Way(ABC):
    """A way of teaching an encoder by a table of pictures; the method says what it reads, looks at and trains.

    Class attributes:
        columns: of a table, by what they are for, that can be named.
        all_of_it: settings with which as much as can be is trained, and all of it kept.
        stays: what is not trained even then, in a sentence, if anything is not.
    """

    columns: ClassVar[tuple[str, ...]]
    all_of_it: ClassVar[Mapping[str, Any]]
    stays: ClassVar[str] = ""

    keep: float | None
    may_forget: float
    held_out: float

    @classmethod
    @abstractmethod
    def takes(cls) -> set[str]:
        """Names of the settings, beside the objective's."""

    @classmethod
    @abstractmethod
    def of(cls, objective: str, settings: Mapping[str, Any], columns: Mapping[str, Any]) -> Self:
        """The way with these settings, each of which it takes, for a table with these columns."""

    @abstractmethod
    def read(self, source: Any, columns: Mapping[str, Any], progress: Progress) -> Any:
        """What a table says; it has a length, and :meth:`look` takes it."""

    @abstractmethod
    def n_texts(self, read: Any) -> int:
        """Different ones."""

    @abstractmethod
    def some(self, read: Any, n: int) -> Any:
        """So many of what was read, spread over it."""

    @abstractmethod
    def look(self, on: Encoder, read: Any, store: FeatureStore | None, progress: Progress) -> Any:
        """Pictures and texts as vectors, each once."""

    @abstractmethod
    def prepared(self, on: Encoder, own: Any, progress: Progress) -> tuple[Any, Task, TrainingData]:
        """What is trained, as it is at first; the task; and what it learns from."""

    @abstractmethod
    def training(self, data: TrainingData, on: Encoder) -> Training:
        """Steps, batch and rate."""

    @abstractmethod
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
        """Look, train, choose: what is :class:`Finished`."""


def check_part(keep: float | None, may_forget: float, held_out: float) -> None:
    """Raises:
    InputError: one is no part.
    """
    if keep is not None and not 0 <= keep <= 1:
        raise InputError(
            f"adapt was given keep={keep:g}. A part from 0, the encoder as it was, to 1, all that was learnt, "
            "was expected. Change it, or leave it out to have it chosen."
        )
    if not 0 <= may_forget <= 1 or not 0 < held_out < 1:
        raise InputError(
            f"adapt was given may_forget={may_forget:g}, held_out={held_out:g}. A part from 0 to 1, and one between "
            "them, were expected. Change them."
        )


def refuse(objective: str, names: Sequence[str], spelt: Callable[[str], str] = str) -> None:
    """Refuse settings that an objective has no use for.

    Args:
        objective: its name.
        names: of settings.
        spelt: how a user writes one.
    """
    if names:
        raise InputError(
            f"{spelt(names[0])} was given with the objective {objective!r}, which has no use for it. An objective that "
            "has, or none of it, was expected. Drop it, or take another objective."
        )


def apart(held: S, keep: float | None, seed: int, progress: Progress) -> tuple[S, S]:
    """Held-out pictures that ``keep`` is chosen on, and others that what it gives is measured on."""
    held = held.only(range(min(len(held), 2 * N_CHOSEN_ON)))
    if keep is not None:
        return held, held
    if len(held) < N_APART:
        progress.note(
            f"keep is chosen and measured on the same {len(held)} held-out pictures, which flatters it a little; "
            f"from {N_APART} on they are parted"
        )
        return held, held
    return held.split(0.5, seed)


def choose(tried: Sequence[T], may_forget: float) -> T:
    """The highest gain among those that cost little of the agreement with own classes.

    Args:
        tried: the encoder as it was first.
        may_forget: what they may cost.

    Example:
        >>> from seewhy.learning.adapt import Kept
        >>> before, little, much = Kept(0.0, 0.2, 0.2, 0.8), Kept(0.3, 0.4, 0.4, 0.77), Kept(1.0, 0.6, 0.6, 0.5)
        >>> choose([before, little, much], 0.05).keep, choose([before, little, much], 1.0).keep
        (0.3, 1.0)
    """
    before = tried[0].named
    allowed = [k for k in tried if before is None or k.named is None or k.named >= before - may_forget - 1e-9]
    return max(allowed, key=lambda k: k.gain)


def choose_keep(
    measured: Callable[[float], T], every: Sequence[float], how: Way, n: int, progress: Progress
) -> tuple[T, list[T]]:
    """The ``keep`` that was asked for, or the best of several; and what each gives, 0 first."""
    asked = every if how.keep is None else (how.keep,)
    tried = [measured(keep) for keep in progress.track((0.0, *asked), "Choosing how much is kept", 1 + len(asked))]
    best = tried[-1] if how.keep is not None else choose(tried, how.may_forget)
    if how.keep is None:
        progress.note(f"keep = {best.keep:g}, chosen on {n} held-out pictures")
    return best, tried


def say_shared(own: Seen, held: Seen, progress: Progress) -> None:
    """A note that names pictures on both sides."""
    known = dict(zip(own.digests, own.items, strict=True))
    both = [(known[d], item) for d, item in zip(held.digests, held.items, strict=True) if d in known]
    if both:
        first = f"{both[0][1].image} is {both[0][0].image}"
        progress.note(f"{len(both)} picture(s) are trained on and chosen on, which flatters what is chosen: {first}")
