"""Samples from folders, tables, lists, arrays, torch, Hugging Face and pandas; pictures are read on access."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from numbers import Integral, Real
from typing import Any

from ..bounds import article
from ..errors import DataError, InputError
from .samples import Sample, Samples, gathered, load_pictures, load_samples
from .sources import InMemory, list_pictures, name_of, several
from .tables import column_with, columns_with, opened

FORMS = (
    "They must be a folder with one subfolder per class, a table, pictures with labels, a "
    "torch Dataset of (picture, label) or a Hugging Face dataset"
)


def samples_of(source: Any, labels: Any = None, *, group: Any = None) -> Samples:
    """Return labelled pictures from any supported source.

    Args:
        source: one of
            - a folder with one subfolder per class, a table (:func:`seewhy.pictures.samples.load_samples`), or samples;
            - with ``labels``: several pictures, as a list or as an array ``(n, …)`` (:mod:`seewhy.pictures.sources`);
            - a tuple ``(pictures, labels)``, or a list of pairs ``(picture, label)``;
            - a dictionary from each class to its pictures;
            - a torch ``Dataset`` of ``(picture, label)`` with a length; its ``classes`` name the integer labels;
            - a Hugging Face ``Dataset`` (one split) or a pandas ``DataFrame``, with a column of pictures and one of
                labels.
        labels: text or integer of each picture.
        group: for tables and folders, as in :func:`seewhy.load_samples`; for other sources, a list with a value for
            each picture. Pictures with the same value are held out together.

    Raises:
        InputError: the source is not supported, or the numbers of labels and pictures differ.
        DataError: a label is missing or is not a class name.
    """
    if isinstance(source, tuple) and len(source) == 2 and labels is None and several(source[0]) is not None:
        source, labels = source
    is_text = group is None or isinstance(group, str)
    if labels is None and isinstance(source, str | os.PathLike) and is_text:
        return load_samples(os.fspath(source), group=group)
    if group is not None and is_text:
        raise InputError(
            f"`group` must be a list with one group per picture, got {group!r}. Give that list, or use "
            f"seewhy.load_samples(…, group={group!r})."
        )
    if labels is not None:
        samples = _paired(source, labels)
    else:
        samples = source.labelled() if isinstance(source, Samples) else _of_dataset(source)
    if group is None:
        return samples
    groups = _listed(group) or []
    if len(groups) != len(samples):
        raise InputError(
            f"`group` must have one value per picture, got {len(samples)} pictures and {len(groups)} "
            "groups. Use None for a picture without a group."
        )
    items = [replace(s, group=None if g is None else str(g)) for s, g in zip(samples.items, groups, strict=True)]
    return replace(samples, items=tuple(items))


def pictures_of(source: Any) -> list[Any]:
    """Return pictures without classes from folders, samples or a list."""
    if isinstance(source, Samples):
        return [s.source for s in source.items]
    many = [source] if isinstance(source, str | os.PathLike) else several(source)
    if many is None:
        cure = "Put one picture into a list" if hasattr(source, "__array__") else "Give one of them"
        raise InputError(
            f"The pictures must be a folder or a list of pictures, got {article(type(source).__name__)}. {cure}."
        )
    return [
        p for one in many for p in (list_pictures([os.fspath(one)]) if isinstance(one, str | os.PathLike) else [one])
    ]


def samples_or_pictures(source: Any, **columns: str) -> Samples:
    """Return pictures from any supported source, with or without classes; see :func:`load_pictures`."""
    if isinstance(source, Samples):
        return source
    if isinstance(source, str | os.PathLike):
        return load_pictures(os.fspath(source), **columns)
    table = opened(source)
    is_labelled = isinstance(source, tuple) or (table is not None and bool(columns_with(*table, "labels")))
    alone = [] if is_labelled else rows_of(source)
    if alone and not any(isinstance(one, tuple) for one in alone):
        return gathered([sample_of(one, name_of(one, i)) for i, one in enumerate(alone, 1)])
    return samples_of(source)


def sample_of(one: Any, name: str) -> Sample:
    """Return a sample of a file name or of a picture in memory."""
    if isinstance(one, str | os.PathLike):
        return Sample(os.fspath(one))
    return Sample(name, pixels=InMemory(name, lambda: one))


def _paired(pictures: Any, labels: Any) -> Samples:
    found = [] if isinstance(pictures, str | bytes | os.PathLike) else rows_of(pictures)
    names = labels if isinstance(labels, str | bytes | Mapping) else _listed(labels)
    if not isinstance(names, list) or not found:
        what = article(type(pictures if not found else labels).__name__)
        raise InputError(
            f"{'The pictures' if not found else 'The labels'} must be a list or an array, got {what}. "
            "Write fit(pictures, labels), or give only a folder."
        )
    if len(found) != len(names):
        raise InputError(
            f"The numbers of pictures and labels must be equal, got {len(found)} pictures and {len(names)} labels."
        )
    return _known(found, names)


def rows_of(pictures: Any) -> list[Any]:
    """Return the pictures along the first axis of an array; an array of three axes is a stack of grey pictures."""
    if hasattr(pictures, "__array__") and getattr(pictures, "ndim", 0) == 3:
        return list(pictures)
    return list(several(pictures) or [])


def _listed(labels: Any) -> list[Any] | None:
    if hasattr(labels, "tolist"):
        labels = labels.tolist()
    return list(labels) if isinstance(labels, Iterable) else None


def _of_dataset(source: Any) -> Samples:
    if (table := opened(source)) is not None:
        return _of_columns(*table)
    if isinstance(source, Mapping):  # from each class to its pictures
        pairs = [(one, label) for label, pictures in source.items() for one in several(pictures) or [pictures]]
        return _known([one for one, _ in pairs], [label for _, label in pairs])
    if hasattr(source, "dataset") and hasattr(source, "batch_size"):
        raise InputError("The pictures must be a data set, got a DataLoader. Use loader.dataset.")
    is_map = hasattr(source, "__getitem__") and hasattr(source, "__len__") and not isinstance(source, str | bytes)
    if not is_map or hasattr(source, "__array__"):
        cure = "Give one of them"
        if several(source) is not None:
            cure = "Turn it into a list of (picture, label)"
            cure = "Give the labels too: fit(pictures, labels)" if hasattr(source, "__len__") else cure
        raise InputError(f"Labelled pictures cannot be read from {article(type(source).__name__)}. {FORMS}. {cure}.")
    labels = _labels(source)
    if isinstance(source, list | tuple):
        return _known([one[0] for one in source], labels)
    return _named(fetched(lambda i: source[i][0], len(labels)), labels)


def column_of(source: Any, name: Any) -> list[Any]:
    """Return the values of a column; class numbers become names, and missing values ``None``."""
    names = getattr((getattr(source, "features", None) or {}).get(name), "names", None)
    values = [None if is_missing(value) else value for value in source[name]]
    if names is None:
        return values
    numbered = dict(enumerate(names))
    return [numbered.get(int(v)) if isinstance(v, Integral) else v for v in values]


def is_missing(value: Any) -> bool:
    if value is None or type(value).__name__ in ("NAType", "NaTType"):
        return True
    return isinstance(value, Real) and value != value  # NaN differs from itself


def _of_columns(source: Any, columns: dict[str, Any]) -> Samples:
    image = columns[column_with(source, columns, "pictures")]
    labels = column_of(source, columns[column_with(source, columns, "labels")])
    if hasattr(source, "iloc"):
        return _known(list(source[image]), labels)
    return _named(fetched(lambda i: source[i][image], len(labels)), labels)


def _labels(source: Any) -> list[Any]:
    """Return the labels of a data set of pairs, as names if the data set has them."""
    inner, index = getattr(source, "dataset", None), getattr(source, "indices", None)
    if inner is not None and index is not None:  # a torch Subset
        every = _labels(inner)
        return [every[int(i)] for i in index]
    targets, changed = getattr(source, "targets", None), getattr(source, "target_transform", None)
    labels = _listed(targets) if targets is not None and changed is None else None
    if labels is None or len(labels) != len(source):
        labels = []
        for i in range(len(source)):
            one = source[i]
            if not isinstance(one, tuple | list) or len(one) < 2:
                raise InputError(
                    f"Item {i} of the data must be a pair (picture, label), got "
                    f"{article(type(one).__name__)}. Or give the labels separately: fit(pictures, labels)."
                )
            labels.append(one[1])
    names = getattr(source, "classes", None)
    if isinstance(names, list | tuple) and all(isinstance(k, Integral) and 0 <= int(k) < len(names) for k in labels):
        return [names[int(k)] for k in labels]
    return labels


def _known(pictures: Sequence[Any], labels: list[Any]) -> Samples:
    return _named([sample_of(one, f"picture {i}") for i, one in enumerate(pictures, 1)], labels)


def _named(items: Sequence[Sample], labels: list[Any]) -> Samples:
    if not labels:
        raise DataError("The data has no pictures. Give at least two classes with pictures.")
    pairs = enumerate(zip(items, labels, strict=True), 1)
    return gathered([replace(item, label=class_name(label, i)) for i, (item, label) in pairs])


def fetched(fetch: Callable[[int], Any], n: int) -> list[Sample]:
    """Return ``n`` samples that are read from a data set on access, by one thread at a time."""
    lock = threading.Lock()

    def load(i: int) -> Any:
        with lock:
            return fetch(i)

    names = [f"picture {i}" for i in range(1, n + 1)]
    return [Sample(name, pixels=InMemory(name, partial(load, i))) for i, name in enumerate(names)]


def class_name(label: Any, number: int) -> str:
    label = label.item() if hasattr(label, "item") and getattr(label, "ndim", 0) == 0 else label
    if isinstance(label, Integral) or (isinstance(label, float) and label.is_integer()):
        return str(int(label))
    if not isinstance(label, str) or not label.strip():
        raise DataError(
            f"The label of picture {number} must be the name or index of a class, got {label!r}. Fill it in, or leave "
            "the picture out."
        )
    return str(label)
