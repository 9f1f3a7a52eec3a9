"""Samples from whatever holds pictures and classes: folders, tables, lists, arrays, and the data sets of torch,
Hugging Face and pandas.

Nothing is read into memory here but the classes: each picture is fetched from where it lies when it is looked at.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from numbers import Integral, Real
from typing import Any

from ..arguments import article
from ..errors import DataError, InputError
from .samples import Sample, Samples, gathered, load_pictures, load_samples
from .sources import InMemory, list_pictures, name_of, several
from .tables import IMAGE_COLUMNS

LABEL_COLUMNS = ("label", "labels", "class", "fine_label", "target")
FORMS = (
    "Expected a folder with one folder per class, a table, pictures with their labels, a torch Dataset of (picture, "
    "label) or a Hugging Face dataset"
)


def samples_of(source: Any, labels: Any = None, *, group: Any = None) -> Samples:
    """Pictures with their classes.

    Args:
        source: one of

            - a folder with one folder per class, or a table (:func:`seewhy.pictures.samples.load_samples`), or samples;
            - with ``labels``: several pictures, as a list or as an array ``(n, …)`` (:mod:`seewhy.pictures.sources`);
            - a tuple ``(pictures, labels)``, or a list of pairs ``(picture, label)``;
            - a dictionary from each class to its pictures;
            - a torch ``Dataset`` of ``(picture, label)`` with a length; whole numbers are named by its ``classes``;
            - a Hugging Face ``Dataset`` (one split), or a pandas ``DataFrame``, with a column of pictures and one of
              labels.
        labels: one text or whole number per picture.
        group: which pictures belong together: for tables and folders as in :func:`seewhy.load_samples`; for any other
            source one value per picture, as for ``labels``.

    Raises:
        InputError: it is none of these, or there are not as many labels as pictures.
        DataError: a label is missing, or no class.
    """
    if isinstance(source, tuple) and len(source) == 2 and labels is None and several(source[0]) is not None:
        source, labels = source
    is_text = group is None or isinstance(group, str)
    if labels is None and isinstance(source, str | os.PathLike) and is_text:
        return load_samples(os.fspath(source), group=group)
    if group is not None and is_text:
        raise InputError(
            f"group={group!r} was given, but the pictures are neither a folder nor a table. Expected a list with one "
            f"group per picture. Give that list, or use seewhy.load_samples(…, group={group!r})."
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
            f"{len(samples)} pictures and {len(groups)} groups were given. Expected one group per picture. Give None "
            "for a picture without a group."
        )
    items = [replace(s, group=None if g is None else str(g)) for s, g in zip(samples.items, groups, strict=True)]
    return replace(samples, items=tuple(items))


def pictures_of(source: Any) -> list[Any]:
    """Pictures without classes, from one or several folders, from samples, or as a list."""
    if isinstance(source, Samples):
        return [s.source for s in source.items]
    many = [source] if isinstance(source, str | os.PathLike) else several(source)
    if many is None:
        cure = "Put one picture into a list" if hasattr(source, "__array__") else "Give one of them"
        raise InputError(
            f"The pictures were given as {article(type(source).__name__)}. Expected a folder or a list of pictures. "
            f"{cure}."
        )
    return [
        p for one in many for p in (list_pictures([os.fspath(one)]) if isinstance(one, str | os.PathLike) else [one])
    ]


def samples_or_pictures(source: Any, **columns: str) -> Samples:
    """Pictures in any form, with their classes if they have any; ``columns`` are those of :func:`load_pictures`."""
    if isinstance(source, Samples):
        return source
    if isinstance(source, str | os.PathLike):
        return load_pictures(os.fspath(source), **columns)
    alone = rows_of(source) if not isinstance(source, tuple) else []
    if alone and not any(isinstance(one, tuple) for one in alone):
        return gathered([sample_of(one, name_of(one, i)) for i, one in enumerate(alone, 1)])
    return samples_of(source)


def sample_of(one: Any, name: str) -> Sample:
    """A sample of a file by its name, or of any other picture as it is."""
    if isinstance(one, str | os.PathLike):
        return Sample(os.fspath(one))
    return Sample(name, pixels=InMemory(name, lambda: one))


def _paired(pictures: Any, labels: Any) -> Samples:
    found = [] if isinstance(pictures, str | bytes | os.PathLike) else rows_of(pictures)
    names = labels if isinstance(labels, str | bytes | Mapping) else _listed(labels)
    if not isinstance(names, list) or not found:
        what = article(type(pictures if not found else labels).__name__)
        raise InputError(
            f"{'No pictures' if not found else 'No labels'} can be read from {what}. Expected a list or an array of "
            "pictures, and one of labels. Write fit(pictures, labels), or give a folder by itself."
        )
    if len(found) != len(names):
        raise InputError(
            f"{len(found)} pictures and {len(names)} labels were given. Expected one label per picture. Add or remove "
            "some."
        )
    return _known(found, names)


def rows_of(pictures: Any) -> list[Any]:
    """The pictures along the first axis of an array, if it has one; an array of three axes is a stack of grey
    pictures.
    """
    if hasattr(pictures, "__array__") and getattr(pictures, "ndim", 0) == 3:
        return list(pictures)
    return list(several(pictures) or [])


def _listed(labels: Any) -> list[Any] | None:
    """Labels as a plain list; those of torch and numpy have a method for it."""
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
        raise InputError("A DataLoader was given. Expected its data set. Give loader.dataset.")
    is_map = hasattr(source, "__getitem__") and hasattr(source, "__len__") and not isinstance(source, str | bytes)
    if not is_map or hasattr(source, "__array__"):
        cure = "Give one of them"
        if several(source) is not None:
            cure = "Turn it into a list of (picture, label)"
            cure = "Give the labels too: fit(pictures, labels)" if hasattr(source, "__len__") else cure
        raise InputError(
            f"The pictures with their classes were given as {article(type(source).__name__)}. {FORMS}. {cure}."
        )
    labels = _labels(source)
    if isinstance(source, list | tuple):
        return _known([one[0] for one in source], labels)
    return _fetched(lambda i: source[i][0], labels)


def opened(source: Any) -> tuple[Any, dict[str, Any]] | None:
    """A table in memory that gives plain values, and its columns by their names as texts; ``None`` for anything else.

    A Hugging Face data set in the format of torch, numpy or pandas does not give plain values.
    """
    names = getattr(source, "column_names", None)
    names = getattr(source, "columns", None) if names is None else names
    parts = source if isinstance(source, Mapping) and any(hasattr(p, "column_names") for p in source.values()) else ()
    if isinstance(names, Mapping) or parts:
        splits = ", ".join(map(repr, names if isinstance(names, Mapping) else parts))
        raise InputError(f"A data set with the splits {splits} was given. Expected one split. Give one by its name.")
    if names is None or not hasattr(source, "__getitem__") or not hasattr(source, "__len__"):
        return None
    form = getattr(source, "format", None)
    if isinstance(form, Mapping) and form.get("type") not in (None, "custom"):
        source = source.with_format(None)
    columns = {str(name): name for name in names}
    if len(columns) < len(names):
        twice = next(name for name in columns if sum(str(one) == name for one in names) > 1)
        raise DataError(f"The data has two columns called {twice!r}. Expected every name once. Rename or drop one.")
    return source, columns


def column_of(source: Any, name: Any) -> list[Any]:
    """The values of a column, with class numbers replaced by names (-1 is no class), and ``None`` for a missing
    value.
    """
    names = getattr((getattr(source, "features", None) or {}).get(name), "names", None)
    values = [None if _is_missing(value) else value for value in source[name]]
    if names is None:
        return values
    numbered = dict(enumerate(names))
    return [numbered.get(int(v)) if isinstance(v, Integral) else v for v in values]


def _is_missing(value: Any) -> bool:
    """Whether a cell is empty: ``None``, NaN, or what pandas has for it."""
    if value is None or type(value).__name__ in ("NAType", "NaTType"):
        return True
    return isinstance(value, Real) and value != value  # NaN is not itself


def _of_columns(source: Any, columns: dict[str, Any]) -> Samples:
    """A table in memory: Hugging Face's, whose features say what each column is, or a data frame."""
    features = getattr(source, "features", None) or {}
    kinds = {name: type(feature).__name__ for name, feature in features.items()}
    image = columns[_column(list(columns), kinds, "Image", IMAGE_COLUMNS, "pictures")]
    labels = column_of(source, columns[_column(list(columns), kinds, "ClassLabel", LABEL_COLUMNS, "labels")])
    return (
        _known(list(source[image]), labels) if hasattr(source, "iloc") else _fetched(lambda i: source[i][image], labels)
    )


def _column(columns: list[str], kinds: dict[str, str], kind: str, usual: Sequence[str], what: str) -> str:
    found = [c for c in columns if kinds.get(c) == kind] or [c for c in usual if c in columns]
    if not found:
        raise DataError(
            f"None of the columns {', '.join(map(repr, columns))} holds the {what}. Expected one called {usual[0]!r}. "
            "Rename yours."
        )
    return found[0]


def _labels(source: Any) -> list[Any]:
    """The labels of a data set of pairs: those it lists, else one by one; whole numbers by its names for them."""
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
                    f"Item {i} of the data is {article(type(one).__name__)}. Expected a pair (picture, label). Or give "
                    "the labels separately: fit(pictures, labels)."
                )
            labels.append(one[1])
    names = getattr(source, "classes", None)
    if isinstance(names, list | tuple) and all(isinstance(k, Integral) and 0 <= int(k) < len(names) for k in labels):
        return [names[int(k)] for k in labels]
    return labels


def _known(pictures: Sequence[Any], labels: list[Any]) -> Samples:
    """Samples of pictures that are there; a file name is a file."""
    return _named([sample_of(one, f"picture {i}") for i, one in enumerate(pictures, 1)], labels)


def _fetched(fetch: Callable[[int], Any], labels: list[Any]) -> Samples:
    """Samples that fetch their pictures."""
    fetch, names = one_at_a_time(fetch), [f"picture {i}" for i in range(1, len(labels) + 1)]
    return _named([Sample(n, pixels=InMemory(n, partial(fetch, i))) for i, n in enumerate(names)], labels)


def _named(items: Sequence[Sample], labels: list[Any]) -> Samples:
    if not labels:
        raise DataError("The data has no pictures. Expected at least two classes with pictures. Add some.")
    pairs = enumerate(zip(items, labels, strict=True), 1)
    return gathered([replace(item, label=_class_name(label, i)) for i, (item, label) in pairs])


def one_at_a_time(fetch: Callable[[int], Any]) -> Callable[[int], Any]:
    """Let threads read a data set one after the other, because an open file may not allow several at once."""
    lock = threading.Lock()

    def fetched(i: int) -> Any:
        with lock:
            return fetch(i)

    return fetched


def _class_name(label: Any, number: int) -> str:
    """A label as its class's name."""
    label = label.item() if hasattr(label, "item") and getattr(label, "ndim", 0) == 0 else label
    if isinstance(label, Integral) or (isinstance(label, float) and label.is_integer()):
        return str(int(label))
    if not isinstance(label, str) or not label.strip():
        raise DataError(
            f"The label of picture {number} is {label!r}. Expected the name or number of a class. Fill it in, or leave "
            "the picture out."
        )
    return str(label)
