"""The registered methods of all families."""

from __future__ import annotations

import json
from functools import cache
from importlib.metadata import entry_points
from importlib.resources import files
from statistics import mean
from typing import Any

from .arguments import checked
from .errors import UnknownNameError
from .registry import Registry


def families() -> dict[str, Registry[Any]]:
    """Return the registries, by the question that their methods answer."""
    from .attributions import attributions
    from .classifiers import classifiers
    from .metrics import metrics
    from .prototypes import prototypes, reasons

    core: dict[str, Registry[Any]] = {
        "classifier": classifiers,
        "where": attributions,
        "like what": prototypes,
        "because": reasons,
        "metric": metrics,
    }
    return core | {point.name: point.load() for point in sorted(entry_points(group="seewhy.families"))}


@cache
def published() -> list[dict[str, Any]]:
    """Return the published scores on planted evidence, by method, kind and network."""
    return json.loads(files("seewhy").joinpath("planted.json").read_text("utf-8"))["scores"]


def _planted(name: str) -> str:
    """Return the hit rate over all kinds of planted evidence, and the kinds on which the method fails."""
    scores = [s for s in published() if s["method"] == name]
    if not scores:
        return ""
    failed = [f"{s['kind']} ({s['architecture']}) {s['hit_rate']:.2f}" for s in scores if s["hit_rate"] < 0.9]
    rate = f"{mean(s['hit_rate'] for s in scores):.2f}"
    return f"{rate}; fails on {', '.join(failed)}" if failed else rate


def listing() -> list[dict[str, Any]]:
    rows = []
    for family, registry in families().items():
        for name in registry:
            cls: Any = registry[name]
            summary = (cls.__doc__ or "").strip().partition("\n")[0]
            rows.append(
                {
                    "family": family,
                    "name": name,
                    "paper": cls.paper,
                    "needs": getattr(cls, "needs", "a map and the model"),
                    "cost": getattr(cls, "cost", "one forward pass a step"),
                    "planted": _planted(name) if family == "where" else "",
                    "summary": summary,
                }
            )
    return rows


@checked
def list_methods(kind: str | None = None) -> list[str]:
    """List the names of the registered methods; ``seewhy methods NAME`` describes one of them.

    Args:
        kind: ``"where"``, ``"like"``, ``"because"``, ``"classifier"``, ``"metric"``, ``"objective"``, ``"segmenter"``
            or ``"detector"``, or the name of a registry, such as ``"attribution"`` or ``"prototype"``; default: all.

    Raises:
        UnknownNameError: the kind does not exist.

    Example:
        >>> list_methods("like")
        ['epic', 'nearest', 'protopnet', 'voters']
    """
    registries = families()
    spelt = {word: r for family, r in registries.items() for word in (family, family.partition(" ")[0], r.kind)}
    if kind is None:
        return sorted({name for registry in registries.values() for name in registry})
    UnknownNameError.check("kind of method", kind, spelt)
    return list(spelt[kind])
