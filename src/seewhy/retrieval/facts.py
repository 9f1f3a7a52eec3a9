"""What an index says of itself, as it may be: kinds, bounds, and file names that stay in its folder.

It is read from a database that somebody else may have written; what is not checked here would show later as a wrong
answer, or as a file somewhere else.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import fields
from typing import Any

from .approximate import Calibration
from .settings import Settings

COLUMNS = frozenset({"look", "words", "parts", "whitened"})
WIDEST = 1 << 22
"""Numbers of the widest row."""


def check(key: str, value: Any) -> None:
    """Refuse what no index says of itself.

    Raises:
        ValueError: says what.
    """
    _CHECKS[key](value)


def _count(value: Any) -> None:
    if type(value) is not int or not 0 <= value < 2**48:
        raise ValueError(f"a count is {value!r}")


def _settings(value: Any) -> None:
    kinds = {f.name: type(f.default) for f in fields(Settings)}
    if not isinstance(value, dict) or set(value) - set(kinds):
        raise ValueError("its settings are none")
    for name, one in value.items():
        if type(one) is not kinds[name] and not (kinds[name] is float and type(one) is int):
            raise ValueError(f"its setting {name} is {one!r}")
    Settings(**value)


def _encoder(value: Any) -> None:
    about = value if isinstance(value, dict) else {}
    if not isinstance(about.get("fingerprint"), str) or not isinstance(about.get("encoder", 0), str | None):
        raise ValueError("it does not say its encoder")


def _columns(value: Any) -> None:
    if not isinstance(value, dict) or "look" not in value or set(value) - COLUMNS:
        raise ValueError("its columns are none")
    for shape in value.values():
        if not isinstance(shape, list) or [type(n) for n in shape] != [int, int]:
            raise ValueError(f"a column is {shape!r}")
        if not 1 <= shape[0] <= WIDEST or not 0 <= shape[1] < 10**9:
            raise ValueError(f"a column is {shape!r}")


def _whitening(value: Any) -> None:
    if value is not None:
        _named_file(value, r"whitening-[0-9a-f]{8}\.safetensors")
        _count(value.get("n"))


def _approximate(value: Any) -> None:
    if value is None:
        return
    _named_file(value, r"approximate-[0-9a-f]{8}\.faiss")
    _count(value.get("n_gone"))
    if value.get("column") not in ("look", "whitened"):
        raise ValueError(f"its approximate index is of {value.get('column')!r}")
    if not re.fullmatch("[0-9a-f]{64}|", str(value.get("sha256", ""))):
        raise ValueError("the digest of its approximate index is none")
    figures = value.get("calibration")
    if not isinstance(figures, dict) or set(figures) != {f.name for f in fields(Calibration)}:
        raise ValueError("its approximate index has no figures")
    for name, one in figures.items():
        if name in ("recall", "recall_low", "target"):
            if type(one) not in (int, float) or not 0 <= one <= 1:
                raise ValueError(f"the {name} of its approximate index is {one!r}")
        else:
            _count(one)
    if not 1 <= figures["n_probe"] <= figures["n_lists"] <= 1 << 24:
        raise ValueError(f"its approximate index looks into {figures['n_probe']} of {figures['n_lists']} lists")


def _totals(value: Any) -> None:
    if not isinstance(value, dict) or set(value) != {"n", "sum"}:
        raise ValueError("it does not say how many pictures it has")
    for one in value.values():
        _count(one)


def _named_file(value: Any, pattern: str) -> None:
    name = value.get("file") if isinstance(value, dict) else None
    if not isinstance(name, str) or re.fullmatch(pattern, name) is None:
        raise ValueError(f"it names the file {name!r}, which is none of its own")


def _format(value: Any) -> None:
    if type(value) is not int:
        raise ValueError(f"its format is {value!r}")


_CHECKS: dict[str, Callable[[Any], None]] = {
    "format": _format,
    "version": _count,
    "n_rows": _count,
    "settings": _settings,
    "encoder": _encoder,
    "columns": _columns,
    "totals": _totals,
    "whitening": _whitening,
    "approximate": _approximate,
}
