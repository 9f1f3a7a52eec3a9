"""Encoders taught by a table's columns: answers to instructions, or names of classes beside captions."""

from __future__ import annotations

import json
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any, ClassVar, Self

import torch
from torch import Tensor
from torch.nn.functional import normalize

from ..encoders.adapted import Adaptation
from ..encoders.adapted import Trained as TrainedPart
from ..encoders.base import Encoder
from ..encoders.instructed import InstructedHead
from ..encoders.names import names_of, own_sentences
from ..encoders.paired_heads import place
from ..encoders.prefixed import SOURCES, PrefixedWords
from ..encoders.split import freeze
from ..encoders.tuned_towers import trainable
from ..errors import InputError
from ..progress import Progress
from ..storage.features import FeatureStore
from ..training.batches import TrainingData
from ..training.loop import Trained, Training, train
from ..training.task import Task
from .columns import Judged, ReadColumns, SeenColumns, check_values, cosines, read_columns
from .instructed import Asked, Instruct, triplets, wordings
from .objectives.contrastive import Contrastive
from .objectives.focallens import FocalLens
from .objectives.prefix import Prefix
from .prefixed import Prefixing, two_kinds
from .way import AGREES, Finished, Way, apart, check_part, choose_keep, say_shared

KEEPS = (0.25, 0.5, 0.75, 1.0)
"""Tried where none was given."""
Measures = Mapping[str, tuple[str, Encoder, Sequence[str]]]


@dataclass(frozen=True)
class Right:
    """What one ``keep`` gives on held-out pictures.

    Attributes:
        keep: how much.
        right: measure → part of the pictures whose nearest value is their own.
        named: part of the pictures whose nearest class by name is the one that the encoder's own last layer says;
            ``None`` for an encoder without classes of its own.
    """

    keep: float
    right: Mapping[str, float]
    named: float | None

    @property
    def gain(self) -> float:
        """Mean of all measures."""
        return sum(self.right.values()) / max(1, len(self.right))


@dataclass(frozen=True, eq=False)
class Taught(Finished[SeenColumns, Right]):
    """A finished training on columns.

    Attributes:
        chosen_on: pictures that ``keep`` was chosen on; those to measure on are others, where there are enough.
        judged: measure → what was found on those to measure on, before and after.
    """

    chosen_on: SeenColumns
    judged: Mapping[str, Judged]


class FromColumns(Way):
    """How an encoder is taught by a table; the method says which columns, and what of them it learns."""

    objective: ClassVar[type[Contrastive]]
    form: ClassVar[str]
    all_of_it: ClassVar[Mapping[str, Any]] = {"keep": 1.0}
    stays: ClassVar[str] = "pictures stay as the encoder sees them: their tower is not trained by this objective"
    how: Instruct | Prefixing

    @abstractmethod
    def asked(self) -> Mapping[str, str | Sequence[str] | None]:
        """What is read, by what it is for: a column, several, or those that texts usually have."""

    @abstractmethod
    def names(self) -> Sequence[str]:
        """Those of them that hold answers or names, not captions."""

    @abstractmethod
    def check(self, on: Encoder) -> None:
        """Refuse an encoder that cannot be taught so, before anything is looked at."""

    @abstractmethod
    def measures(self, after: Encoder) -> Measures:
        """Measure → the column it asks for, the encoder that answers, and the templates of an answer."""

    @abstractmethod
    def told(self, own: SeenColumns, data: TrainingData, done: Trained) -> dict[str, Any]:
        """What a card says of the training."""

    def read(self, source: Any, columns: Mapping[str, Any], progress: Progress) -> ReadColumns:
        return read_columns(source, self.asked(), columns.get("image"), columns.get("group"), progress)

    def n_texts(self, read: ReadColumns) -> int:
        return len({text for several in read.said.values() for texts in several for text in texts})

    def some(self, read: ReadColumns, n: int) -> ReadColumns:
        rows: set[int] = set()
        for several in read.said.values():  # each column says something of some
            known = [i for i, texts in enumerate(several) if texts]
            part = max(2, n // len(read.said))
            rows |= set(known[:: max(1, len(known) // part)][:part])
        return read.only(sorted(rows))

    def look(self, on: Encoder, read: ReadColumns, store: FeatureStore | None, progress: Progress) -> SeenColumns:
        return read.look(on, store, progress)

    def fit(
        self,
        on: Encoder,
        items: ReadColumns,
        *,
        validation: ReadColumns | None = None,
        store: FeatureStore | None = None,
        progress: Progress | None = None,
        checkpoint: Path | None = None,
    ) -> Taught:
        """Look, train, choose how much is kept, and measure on what was held out."""
        progress = progress or Progress()
        self.check(on)
        seen = self.look(on, items, store, progress)
        if validation is None:
            own, held = seen.split(self.held_out, self.how.seed)
        else:
            own, held = seen, self.look(on, validation, store, progress)
            say_shared(own, held, progress)
        for name in own.said:
            check_values(name, own, name in self.names(), progress)
        chosen_on, held = apart(held, self.keep, self.how.seed, progress)
        part, task, data = self.prepared(on, own, progress)
        seal = json.dumps([asdict(self.how), dict(self.asked()), on.fingerprint, own.digests, dict(own.said)])
        kept = None if checkpoint is None else (checkpoint, seal)
        done = train(task, data, self.training(data, on), checkpoint=kept, progress=progress)
        freeze(part)
        told = self.told(own, data, done)
        values = {
            name: sorted({*own.first(name), *held.first(name), *chosen_on.first(name)} - {""}) for name in own.said
        }

        def measured(keep: float) -> Right:
            judged = self.judged(on, part, keep, chosen_on, values)
            right = {name: round(float(j.right(j.after)[:, 0].mean()), 4) for name, j in judged.items()}
            return Right(keep, right, right.pop(AGREES, None))

        best, tried = choose_keep(measured, KEEPS, self, len(chosen_on), progress)
        told |= {"train": self.form, "keep": best.keep, "keep_chosen": self.keep is None}
        told |= {"n_texts": len({text for several in own.said.values() for texts in several for text in texts})}
        told |= {"n_chosen_on": len(chosen_on), "n_measured_on": len(held), "n_steps": len(done.history)}
        adaptation = Adaptation(on, part, best.keep, told, tuple(dict.fromkeys(own.digests)))
        judged = self.judged(on, part, best.keep, held, values)
        return Taught(adaptation, done, tuple(tried), own, held, chosen_on, judged)

    def judged(
        self, on: Encoder, part: TrainedPart, keep: float, held: SeenColumns, values: Mapping[str, Sequence[str]]
    ) -> dict[str, Judged]:
        """What is found on held-out pictures with so much kept, beside what the encoder itself finds."""
        after = Adaptation(on, part, keep).encoder()
        found = {}
        for measure, (column, encoder, templates) in self.measures(after).items():
            words, given = values[column], held.first(column)
            rows = [i for i, answer in enumerate(given) if answer]
            if rows:
                pooled, own = held.pooled[rows], torch.tensor([words.index(given[i]) for i in rows])
                before = cosines(on, pooled, words, on.text.templates)
                now = cosines(encoder, pooled, words, templates) if keep else before
                found[measure] = Judged(tuple(held.items[i] for i in rows), tuple(words), own, before, now)
        if (own_classes := agreement(on, after, held)) is not None:
            found[AGREES] = own_classes
        return found


@dataclass(frozen=True)
class ByInstructions(FromColumns):
    """Each column answers an instruction.

    Args:
        instructions: column → the instruction, in one wording or several.
        how: the training.
        keep: how much of what was learnt is kept, 0 to 1; left out, chosen on held-out pictures: where their own
            values are the nearest most often, among what costs no more than ``may_forget``.
        may_forget: most of the agreement with the encoder's own classes that a ``keep`` that is chosen may cost.
        held_out: part of the pictures that is chosen and measured on.
    """

    objective: ClassVar[type[Contrastive]] = FocalLens
    form: ClassVar[str] = InstructedHead.form
    columns: ClassVar[tuple[str, ...]] = ("image", "group")

    instructions: Mapping[str, Sequence[str]]
    how: Instruct = field(default_factory=Instruct)
    keep: float | None = None
    may_forget: float = 0.1
    held_out: float = 0.1

    def __post_init__(self) -> None:
        if not self.instructions:
            raise InputError(needs(self.objective))
        check_part(self.keep, self.may_forget, self.held_out)

    @classmethod
    def takes(cls) -> set[str]:
        return {"instructions", *PARTS, *settings_of(Instruct)}

    @classmethod
    def of(cls, objective: str, settings: Mapping[str, Any], columns: Mapping[str, Any]) -> Self:
        own, inner = parted_settings(settings)
        said = own.pop("instructions", None) or {}
        return cls({c: (s,) if isinstance(s, str) else tuple(s) for c, s in said.items()}, Instruct(**inner), **own)

    def asked(self) -> Mapping[str, str]:
        return {column: column for column in self.instructions}

    def names(self) -> Sequence[str]:
        return list(self.instructions)

    def check(self, on: Encoder) -> None:
        _ = on.text

    def prepared(self, on: Encoder, own: SeenColumns, progress: Progress) -> tuple[InstructedHead, Task, TrainingData]:
        asked = self._asked(own)
        head, task = self.how.task(on, own.pooled)
        head.taught = wordings(asked)
        return head, task, triplets(on, own.pooled, asked)

    def training(self, data: TrainingData, on: Encoder) -> Training:
        return self.how.training(data)

    def told(self, own: SeenColumns, data: TrainingData, done: Trained) -> dict[str, Any]:
        told = self.how.provenance(data, self._asked(own), done)
        return {**asdict(self.how), **told, "columns": list(self.instructions)}

    def _asked(self, own: SeenColumns) -> list[Asked]:
        return [Asked(list(said), own.first(column)) for column, said in self.instructions.items()]

    def measures(self, after: Encoder) -> Measures:
        said = {column: several[0] for column, several in self.instructions.items()}
        return {f"{column} under '{words}'": (column, after.under(words), ("{}",)) for column, words in said.items()}


@dataclass(frozen=True)
class ByClassesAndCaptions(FromColumns):
    """One column names classes, others are captions; a picture may have either or both.

    Args:
        label: the column of classes.
        text: the columns of captions; left out, those called text, caption, title or alike.
        how: the training.
        keep: how much of what was learnt is kept, as for :class:`ByInstructions`.
        may_forget: most that a ``keep`` that is chosen may cost.
        held_out: part of the pictures that is chosen and measured on.
    """

    objective: ClassVar[type[Contrastive]] = Prefix
    form: ClassVar[str] = PrefixedWords.form
    columns: ClassVar[tuple[str, ...]] = ("image", "text", "label", "group")

    label: str | None
    text: str | Sequence[str] | None = None
    how: Prefixing = field(default_factory=Prefixing)
    keep: float | None = None
    may_forget: float = 0.1
    held_out: float = 0.1

    def __post_init__(self) -> None:
        if not self.label:
            raise InputError(needs(self.objective))
        check_part(self.keep, self.may_forget, self.held_out)

    @classmethod
    def takes(cls) -> set[str]:
        return {*PARTS, *settings_of(Prefixing)}

    @classmethod
    def of(cls, objective: str, settings: Mapping[str, Any], columns: Mapping[str, Any]) -> Self:
        own, inner = parted_settings(settings)
        return cls(columns.get("label"), columns.get("text"), Prefixing(**inner), **own)

    def asked(self) -> Mapping[str, str | Sequence[str] | None]:
        return {"class": self.label, "caption": self.text}

    def names(self) -> Sequence[str]:
        return SOURCES[:1]

    def check(self, on: Encoder) -> None:
        trainable(on)

    def prepared(self, on: Encoder, own: SeenColumns, progress: Progress) -> tuple[PrefixedWords, Task, TrainingData]:
        data = two_kinds(on, own.pooled, own.first("class"), own.said["caption"], self.how.objective)
        return *self.how.task(on), data

    def training(self, data: TrainingData, on: Encoder) -> Training:
        return self.how.training(data, on)

    def told(self, own: SeenColumns, data: TrainingData, done: Trained) -> dict[str, Any]:
        captions = [self.text] if isinstance(self.text, str) else list(self.text or ())
        told = self.how.provenance(data, own.first("class"), done)
        return {**asdict(self.how), **told, "columns": [self.label, *captions]}

    def measures(self, after: Encoder) -> Measures:
        read = {source: after if source == SOURCES[-1] else after.under(source) for source in SOURCES}
        return {
            f"{self.label}, read as {source}": ("class", encoder, encoder.text.templates)
            for source, encoder in read.items()
        }


PARTS = ("keep", "may_forget", "held_out")


def settings_of(how: type[Instruct] | type[Prefixing]) -> set[str]:
    """Names of its fields, but for the objective."""
    return {one.name for one in fields(how)} - {"objective"}


def parted_settings(settings: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Settings of the way, and those of the training within it."""
    own = {name: value for name, value in settings.items() if name in (*PARTS, "instructions")}
    return own, {name: value for name, value in settings.items() if name not in own}


def needs(objective: type[Contrastive]) -> str:
    """What an objective was not given, and how to give it."""
    return (
        f"The objective {objective.name!r} needs {objective.needs}, and none was named. Columns of a table were "
        f"expected. Give {objective.options}."
    )


@torch.no_grad()
def agreement(on: Encoder, after: Encoder, held: SeenColumns) -> Judged | None:
    """Whether the class whose name is nearest is the one that the encoder's own last layer says.

    ``None`` for an encoder without classes that have names.
    """
    if on.classifier is None or len(on.classes) != on.classifier.out_features:
        return None
    own, names = on.classifier(held.pooled).argmax(1), names_of(on)

    def scores(encoder: Encoder) -> Tensor:
        tower = encoder.text
        text = place(on.text, own_sentences(on.text, names)) if tower is on.text else tower.encode_text(names)
        return normalize(tower.project(held.pooled), dim=1) @ text.T

    before = scores(on)
    return Judged(held.items, tuple(names), own, before, before if after.text is on.text else scores(after))
