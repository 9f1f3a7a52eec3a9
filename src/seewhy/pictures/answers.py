"""Pictures with several answers each: labels that may be given together, or answers to several questions."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

from ..arguments import checked
from ..bounds import article
from ..clusters import grouped
from ..errors import DataError, InputError
from ..spelling import first_repeated, nearest, suggestion
from .boxes import box_formats, has_boxes, load_boxes
from .datasets import class_name, column_of, is_missing, rows_of, sample_of
from .samples import Sample, Samples, check_names, few, from_table, gathered, refused, some
from .sources import natural_key
from .tables import TABLES, cell_text, no_column, opened, plain_text, whole_numbers
from .tables import rows_of as rows_of_table

Kind = Literal["labels", "questions"]
BAR = "|"
"""Character between the labels of a picture."""
NO_LABEL = ("none", "no finding", "no findings")
"""Cells that say that a picture has no label, in lower case."""
YES, NO = ("1", "yes", "true", "y", "1.0"), ("0", "no", "false", "n", "0.0")
"""Values of a column that says whether pictures have a label, in lower case."""
MOST_ANSWERS = 1 << 26
"""Largest number of pictures times labels."""


@dataclass(frozen=True)
class Answers:
    """Pictures with several answers each: labels that may be given together, or answers to several questions.

    Attributes:
        kind: ``"labels"`` (each present or absent) or ``"questions"`` (each has classes of its own).
        items: pictures, without a class.
        given: for each decision (a label or a question), the answer of each picture; empty if unknown. The answers of
            the label ``X`` are ``"X"`` and ``"no X"``.
        notes: remarks about the data for the user.
    """

    kind: Kind
    items: tuple[Sample, ...]
    given: Mapping[str, tuple[str, ...]]
    notes: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.items)

    def __repr__(self) -> str:
        return f"Answers({len(self)} pictures, {len(self.given)} {self.kind}: {few([*self.given])})"

    @cached_property
    def kinds(self) -> list[str]:
        """All answers of each picture together."""
        return [BAR.join(answers) for answers in zip(*self.given.values(), strict=True)]

    def of(self, name: str) -> Samples:
        """Return the pictures whose answer to one decision is known, with the answer as class."""
        if name not in self.given:
            known = [*self.given]
            raise InputError(f"{name!r} is not one of the {self.kind}. {suggestion(nearest(name, known), known)}")
        each = zip(self.items, self.given[name], self.kinds, strict=True)
        return gathered([replace(item, label=answer, kind=kind) for item, answer, kind in each if answer])

    def part(self, index: Sequence[int]) -> Answers:
        """Return some of the pictures."""
        given = {name: tuple(answers[i] for i in index) for name, answers in self.given.items()}
        return Answers(self.kind, tuple(self.items[i] for i in index), given)

    @classmethod
    def of_labels(
        cls, items: Sequence[Sample], labels: Sequence[Collection[str] | None], names: Sequence[str] | None = None,
        notes: Sequence[str] = (),
    ) -> Answers:  # fmt: skip
        """Return pictures with the labels of each.

        Args:
            items: pictures, without a class.
            labels: the labels of each picture; ``None`` if unknown. A text has labels joined by ``|``.
            names: all labels; default: those that occur, in natural sort order. Other labels are left out.
            notes: remarks about the data for the user.
        """
        of_each = [_labels_in(one, f"The labels of picture {i}") for i, one in enumerate(labels, 1)]
        occurring = sorted({label for one in of_each for label in one or ()}, key=natural_key)
        every = list(dict.fromkeys([*(names or ()), *occurring]))
        if len(items) * len(every) > MOST_ANSWERS:
            raise DataError(
                f"{len(items):,} pictures with {len(every):,} labels are too many, as {MOST_ANSWERS:,} answers are "
                f"allowed. The first labels are {few(every)}. Give the column of labels, or fewer labels."
            )
        given = {name: [None if one is None else name in one for one in of_each] for name in every}
        return _of_labels(items, given, names, notes)

    @classmethod
    def of_pictures(cls, pictures: Any, answers: Any, names: Sequence[str] | None = None) -> Answers:
        """Return pictures in memory or files with their answers.

        Args:
            pictures: a list or an array ``(n, …)`` of pictures.
            answers: one of
                - a list with the labels of each picture; ``None`` if unknown;
                - a matrix ``(n, k)`` with 1 if a picture has a label and 0 if not; NaN or ``None`` if unknown;
                - a dictionary or ``DataFrame`` from each question to a list with the answer of each picture.
            names: the labels; for a matrix, the labels of its columns.
        """
        found = [] if isinstance(pictures, str | bytes) else rows_of(pictures)
        if not found:
            raise InputError(f"The pictures must be a list or an array, got {article(type(pictures).__name__)}.")
        items = [sample_of(one, f"picture {i}") for i, one in enumerate(found, 1)]
        table = opened(answers)
        if table is not None or isinstance(answers, Mapping):
            source, columns = table or (answers, {str(name): name for name in answers})
            given = {question: _answers_in(column_of(source, column)) for question, column in columns.items()}
            return _answers("questions", items, given, names)
        if isinstance(answers, str) or not isinstance(answers, Iterable):
            raise InputError(
                f"The answers must be a list with the labels of each picture, a matrix of 0 and 1, or a dictionary "
                f"from questions to answers, got {article(type(answers).__name__)}."
            )
        rows = [row.tolist() if hasattr(row, "tolist") else row for row in answers]
        vectors = [row for row in rows if isinstance(row, list | tuple)]
        if all(isinstance(value, str) for row in vectors for value in row):
            return cls.of_labels(items, rows, names)
        if names is None or any(len(row) != len(names) for row in vectors) or len(vectors) < len(rows):
            raise InputError(
                f"`names` must have the label of each column of the matrix, got {len(vectors[0])} columns and "
                f"{'no' if names is None else len(names)} names."
            )
        each = [dict(zip(names, row, strict=True)) for row in rows]
        shown = {n: [_yes_or_no(row, n, f"The answers, row {i}") for i, row in enumerate(each, 1)] for n in names}
        return _of_labels(items, shown, names)


@checked
def load_answers(
    source: str | Path,
    *,
    image: str = "image",
    label: str | Sequence[str] = "label",
    questions: Sequence[str] = (),
    group: str | None = None,
    names: Sequence[str] | None = None,
) -> Answers:
    """Load pictures with several answers each from a table, or with the labels of their boxes.

    An empty cell is an unknown answer. ``none`` or ``no finding`` says that a picture has no label.

    Args:
        source: a table, or a file or folder with boxes, such as a COCO file (:func:`seewhy.load_boxes`).
        image: column of file names, relative to the table.
        label: column of labels joined by ``|``, or several columns, each of which says whether pictures have the
            label (yes/no, true/false or 1/0).
        questions: columns that each answer a question with classes of its own; in place of labels.
        group: column that says which object, visit or patient a picture shows.
        names: all labels or questions, for an evaluation; others are left out.

    Raises:
        DataError: no usable pictures were found, or all pictures have the same answer.
    """
    path = Path(source)
    if path.suffix.lower() in TABLES and path.is_file():
        rows = list(rows_of_table(path))
        columns = {name for row in rows for name in row}
        if questions or not isinstance(label, str) or not columns >= {*box_formats["csv"].edges}:
            return _from_answers_table(path, rows, columns, image, label, questions, group, names)
    elif not has_boxes(path):
        raise DataError(
            f"{refused(path, 'a table nor boxes')} Give a table ending in {', '.join(TABLES)} with the columns "
            f"{image!r} and {label!r}, or a file or folder with boxes."
        )
    if questions or group is not None or not isinstance(label, str):
        raise DataError(f"{path} has boxes, of which only the labels are read. Leave out questions, group and label.")
    boxes = load_boxes(path)
    pictures = boxes.present().pictures
    labels = [[box.label for box in one.boxes] for one in pictures]
    return Answers.of_labels([Sample(one.image) for one in pictures], labels, names, boxes.notes)


def _from_answers_table(
    path: Path, rows: Sequence[dict[str, Any]], columns: Collection[str], image: str, label: str | Sequence[str],
    questions: Sequence[str], group: str | None, names: Sequence[str] | None,
) -> Answers:  # fmt: skip
    items, notes = from_table(path, rows, image, None, "", group, None)
    wanted = questions or ([label] if isinstance(label, str) else label)
    for column in wanted:
        if column not in columns:
            raise no_column(path, column, columns, " of answers")
    _check_once(wanted)
    each = [(f"{path}, row {i}", row) for i, row in enumerate(rows, 1) if plain_text(row, image)]
    if questions:
        texts = {q: [cell_text(row.get(q), f"{where}, column {q!r},").strip() for where, row in each] for q in wanted}
        answers = _answers("questions", items, {q: _whole(texts[q]) for q in wanted}, names, notes)
    elif isinstance(label, str):
        labels = [_labels_in(row.get(label), f"{where}, column {label!r},") for where, row in each]
        occurring = list({name for one in labels for name in one or ()})
        whole = dict(zip(occurring, whole_numbers(occurring), strict=True))
        parts = [None if one is None else [whole[name] for name in one] for one in labels]
        answers = Answers.of_labels(items, parts, names, notes)
    else:
        given = {name: [_yes_or_no(row, name, where) for where, row in each] for name in wanted}
        answers = _of_labels(items, given, names, notes)
    for file, kinds in grouped((s.image, kind) for s, kind in zip(items, answers.kinds, strict=True)).items():
        if len(set(kinds)) > 1:
            raise DataError(
                f"{path} has {len(kinds)} rows with {file}, whose answers differ. Give each picture one row, and join "
                f"its labels by {BAR!r}."
            )
    return answers


def _labels_in(value: Any, where: str) -> list[str] | None:
    """Return the labels of a picture: a text of labels joined by ``|``, or a list; ``None`` if they are unknown."""
    parts = value.split(BAR) if isinstance(value, str) else value
    if is_missing(value) or (isinstance(value, str) and not any(map(str.strip, parts))):
        return None
    parts = parts if isinstance(parts, Collection) and not isinstance(parts, bytes | Mapping) else [parts]
    names = [*dict.fromkeys(text for part in parts if (text := cell_text(part, where).strip()))]
    nothing = [name for name in names if name.casefold() in NO_LABEL]
    if nothing and len(names) > 1:
        raise DataError(f"{where} must be either {nothing[0]!r} or labels, got {few(names)}. Correct the labels.")
    return [] if nothing else names


def _yes_or_no(row: Mapping[str, Any], column: str, where: str) -> bool | None:
    text = str(plain_text(row, column) or "nan").casefold()
    if text in YES or text in NO:
        return text in YES
    if text in ("nan", "<na>"):
        return None
    raise DataError(
        f"{where}, column {column!r}, must be one of {', '.join(YES + NO)}, got {row[column]!r}. Correct it, or leave "
        "it empty if it is unknown."
    )


def _answers_in(values: Iterable[Any]) -> list[str]:
    return _whole(["" if v is None or v == "" else class_name(v, i) for i, v in enumerate(values, 1)])


def _whole(answers: Sequence[str]) -> list[str]:
    known = [a for a in answers if a]
    whole = iter(whole_numbers(known))
    return [next(whole) if a else "" for a in answers]


def _check_once(names: Sequence[str]) -> None:
    if (twice := first_repeated(names)) is not None:
        raise InputError(f"The labels or questions must differ, got {twice!r} twice. Name it once.")


def _of_labels(
    items: Sequence[Sample], given: Mapping[str, Sequence[bool | None]], names: Sequence[str] | None,
    notes: Sequence[str] = (),
) -> Answers:  # fmt: skip
    folded = check_names(dict.fromkeys([*given, *(names or ())]))
    for form, name in folded.items():
        if BAR in name:
            raise DataError(f"A label must have no {BAR!r}, which joins labels, got {name!r}. Rename it.")
        if (other := folded.get(form.removeprefix("no "), name)) != name:
            raise DataError(
                f"The labels {other!r} and {name!r} cannot be used together, because {name!r} is the answer of "
                f"pictures without {other!r}. Rename one, or leave {name!r} out."
            )
    texts = {
        name: ["" if has is None else name if has else f"no {name}" for has in answers]
        for name, answers in given.items()
    }
    return _answers("labels", items, texts, names, notes)


def _answers(
    kind: Kind, items: Sequence[Sample], given: Mapping[str, Sequence[str]], names: Sequence[str] | None,
    notes: Sequence[str] = (),
) -> Answers:  # fmt: skip
    """Return the answers to the named decisions, after a check that each decision has two answers."""
    _check_once(names or ())
    notes = list(notes)
    for name, answers in given.items():
        if len(answers) != len(items):
            raise InputError(
                f"The numbers of pictures and answers must be equal, got {len(items)} pictures and {len(answers)} "
                f"answers of {name!r}."
            )
        if kind == "questions":
            check_names(dict.fromkeys(filter(None, answers)))
    if names is not None:
        if others := [name for name in given if name not in names]:
            notes.append(f"left out {len(others)} {kind} that are not among the {len(names)} known: {some(others)}")
        given = {name: given.get(name) or [""] * len(items) for name in names}
    unknown = [s.image for s, *answers in zip(items, *given.values(), strict=True) if not any(answers)]
    if len(unknown) == len(items):
        raise DataError(f"None of the {len(items)} pictures has a known answer to one of the {kind}. Fill some in.")
    if unknown:
        notes.append(f"{len(unknown)} picture(s) have no known answer: {some(unknown)}")
    same = [name for name, answers in given.items() if len({*answers} - {""}) < 2]
    if same and names is None:
        need = "pictures with it and pictures without it" if kind == "labels" else "at least two classes with pictures"
        only = next(filter(None, given[same[0]]), "unknown")
        raise DataError(
            f"Each of the {kind} must have {need}, but the answers to {some([*map(repr, same)])} are all the same; "
            f"the first is {only!r}. Add pictures, or leave it out."
        )
    return Answers(kind, tuple(items), {name: tuple(answers) for name, answers in given.items()}, tuple(notes))
