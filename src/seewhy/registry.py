"""Registries of methods by name, which other packages can extend by entry points.

An extension package declares an entry point in the group ``seewhy.<kind>``, for example ``seewhy.attributions``;
importing it registers its class.
"""

from __future__ import annotations

import importlib
from collections.abc import Iterator
from importlib.metadata import entry_points
from typing import Any, Generic, TypeVar

from .errors import UnknownNameError

T = TypeVar("T")


_families: list[Registry[Any]] = []


def spelling(name: str) -> str:
    """Return a name as the method's paper spells it (class attribute ``spelt``), otherwise with spaces.

    >>> spelling("of_nobody")
    'of nobody'
    """
    written = (getattr(family[name], "spelt", "") for family in _families if name in family)
    return next(filter(None, written), name.replace("_", " "))


def is_registered(name: str) -> bool:
    """Whether a method has this name, so that ``seewhy methods`` describes it; only imported families count."""
    return any(family.is_listed and name in family for family in _families)


class Registry(Generic[T]):
    """The methods of one family.

    Args:
        kind: singular name for messages, for example ``"attribution"``.
        package: package whose submodules define the built-in methods.
        modules: modules to import on first use: submodules of the package, or full names.
        is_listed: whether ``seewhy methods`` describes them.
    """

    def __init__(self, kind: str, package: str, modules: tuple[str, ...], *, is_listed: bool = True) -> None:
        self.kind = kind
        self.is_listed = is_listed
        self._package = package
        self._modules = modules
        self._members: dict[str, type[T]] = {}
        self._loaded = False
        _families.append(self)

    def register(self, cls: type[T]) -> type[T]:
        """Register a class under its attribute ``name``, as a class decorator."""
        name: str = cls.name  # type: ignore[attr-defined]
        known = self._members.get(name)
        if known is not None and known is not cls:
            raise ValueError(
                f"Names of {self.kind}s must differ, but {known.__qualname__} and {cls.__qualname__} are "
                f"both {name!r}. Rename one."
            )
        self._members[name] = cls
        return cls

    def _load(self) -> None:
        if self._loaded:
            return
        for module in self._modules:
            importlib.import_module(module if module.startswith("seewhy.") else f"{self._package}.{module}")
        for point in entry_points(group=f"seewhy.{self.kind}s"):
            point.load()
        self._loaded = True  # only now: another thread must not look before; it imports too, and waits for each module

    def __getitem__(self, name: str) -> type[T]:
        self._load()
        UnknownNameError.check(self.kind, name, self._members)
        return self._members[name]

    def __iter__(self) -> Iterator[str]:
        self._load()
        return iter(sorted(self._members))

    def __len__(self) -> int:
        self._load()
        return len(self._members)
