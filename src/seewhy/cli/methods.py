"""``seewhy methods`` and ``seewhy doctor``: list the methods, and test the installation."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import asdict
from importlib.metadata import PackageNotFoundError, requires, version
from importlib.util import find_spec
from itertools import groupby
from typing import Any

import typer

from ..catalogue import listing as listing
from ..errors import DataError, UnknownNameError
from ..parameters import documented, settings_of
from ..results import list_schemas, schema
from ..storage.cache import cache_dir
from .session import Session
from .terminal import say

NOT_FOR_USE = {"all", "demo", "dev"}
"""Extras that combine others, or are for development."""


def with_settings(name: str) -> list[dict[str, Any]]:
    rows = listing()
    chosen = [row for row in rows if row["name"] == name]
    if not chosen:
        raise UnknownNameError("method", name, {row["name"] for row in rows})
    for row in chosen:
        row["settings"] = [asdict(field) for field in settings_of(_class_of(row))] if _class_of(row) else []
    return chosen


def _class_of(row: dict[str, Any]) -> Any:
    from ..attributions import attributions
    from ..classifiers import classifiers

    settable: dict[str, Any] = {"where": attributions, "classifier": classifiers}
    registry = settable.get(row["family"])
    return None if registry is None else registry[row["name"]]


def methods(session: Session, name: str | None = None, *, json_schema: str | None = None) -> None:
    """List all methods with their paper, needs, cost in forward passes, and how often they find planted evidence."""
    if json_schema is not None:
        names = json_schema == "all"
        text = "" if names else json.dumps(schema(json_schema), indent=2, ensure_ascii=False)
        say(*(list_schemas() if names else text.splitlines()))
        return
    rows = listing() if name is None else with_settings(name)
    if session.as_json:
        say(*(json.dumps(row, ensure_ascii=False) for row in rows))
    else:
        say(*_method_lines(rows))


def _method_lines(rows: list[dict[str, Any]]) -> Iterator[str]:
    for family, members in groupby(rows, lambda row: row["family"]):
        yield ""
        yield family
        for row in members:
            planted = f"; planted evidence: {row['planted']}" if row["planted"] else ""
            yield f"  {row['name']}  {row['paper']}"
            yield f"      needs {row['needs']}; passes: {row['cost']}{planted}"
            if "settings" in row:
                yield f"      {row['summary']}"
            meanings = documented(_class_of(row))[1] if row.get("settings") else {}
            for setting in row.get("settings", ()):
                yield f"      --set {setting['name']}={setting['default']}  ({setting['kind']})"
                if meaning := meanings.get(setting["name"], ("", ""))[1]:
                    yield f"          {meaning[:1].upper()}{meaning[1:]}"


def examine() -> dict[str, Any]:
    """Return the engines, embedded models, extras and folders, without network access."""
    from ..encoders.embedded import SOURCES
    from ..encoders.engines import available_engines

    try:
        cache: dict[str, str | None] = {"cache": str(cache_dir()), "cache_note": ""}
    except DataError as error:
        cache = {"cache": None, "cache_note": str(error)}
    return {
        "seewhy": version("seewhy"),
        "packages": {name: _version(name) for name in ("torch", "timm", "pillow", "numpy")},
        "engines": available_engines(),
        "models": {name: find_spec(source.package) is not None for name, source in SOURCES.items()},
        "extras": {extra: all(map(_version, packages)) for extra, packages in extras_of().items()},
        **cache,
    }


def extras_of() -> dict[str, list[str]]:
    """Return the packages of each extra, from the metadata of the installed package."""
    extras: dict[str, list[str]] = {}
    for line in requires("seewhy") or ():
        package, marker = re.match(r"[\w.-]+", line), re.search(r"extra == ['\"]([\w-]+)['\"]", line)
        if package and marker and package[0] != "seewhy" and marker[1] not in NOT_FOR_USE:
            extras.setdefault(marker[1], []).append(package[0])
    return extras


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def doctor(session: Session) -> None:
    """Show which engines, models and extras work here, without a network. The exit code is 1 if lite0 cannot run."""
    state = examine()
    session.say(state, *_doctor_lines(state))
    raise typer.Exit(0 if state["models"]["lite0"] else 1)


def _doctor_lines(state: dict[str, Any]) -> Iterator[str]:
    packages = ", ".join(f"{name} {there or 'missing'}" for name, there in state["packages"].items())
    yield f"seewhy {state['seewhy']}  {packages}"
    for engine in state["engines"]:
        about = f"{engine['version']}, {engine['precision']}" if engine["version"] else "not installed"
        yield f"engine  {engine['name']:<12} {about}  {engine['note']}"
    for name, there in state["models"].items():
        yield f"model   {name:<12} {'ready' if there else 'not installed'}"
    for extra, there in state["extras"].items():
        cure = "" if there else f"  pip install 'seewhy[{extra}]'"
        yield f"extra   {extra:<12} {'installed' if there else 'not installed'}{cure}"
    yield f"cache   {state['cache'] or state['cache_note']}"
