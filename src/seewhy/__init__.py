"""SeeWhy: image recognition that explains itself.

All names and subpackages are imported on first use; ``__init__.pyi`` says which modules have them.

>>> import seewhy
>>> why = seewhy.explain("photo.jpg")                        # doctest: +SKIP
>>> why.prediction.label, why.where.deletion                 # doctest: +SKIP
"""

from __future__ import annotations

import importlib
import importlib.util
import pkgutil
import re
from typing import Any

_STUB = (pkgutil.get_data(__name__, "__init__.pyi") or b"").decode()
_WHERE = {name: module for module, name in re.findall(r"^from \.(\S+) import (\w+)", _STUB, re.MULTILINE)}

__all__ = [*_WHERE]  # pyright: ignore[reportUnsupportedDunderAll]


def __getattr__(name: str) -> Any:
    if name in _WHERE:
        return getattr(importlib.import_module(f".{_WHERE[name]}", __name__), name)
    if name == "__version__":
        from importlib.metadata import version

        return version("seewhy")
    if not name.startswith("_") and importlib.util.find_spec(f"{__name__}.{name}") is not None:
        return importlib.import_module(f".{name}", __name__)
    from .spelling import nearest

    near = nearest(name, __dir__())
    raise AttributeError(
        f"module 'seewhy' has no attribute {name!r}" + (f". Did you mean {near[0]!r}?" if near else "")
    )


def __dir__() -> list[str]:
    parts = [part.name for part in pkgutil.iter_modules(__path__) if not part.name.startswith("_")]
    return sorted({*_WHERE, "__version__", *parts})
