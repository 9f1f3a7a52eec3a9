"""``seewhy doctor``: what works on this machine."""

from __future__ import annotations

import json
import re
from importlib.metadata import PackageNotFoundError, requires, version
from importlib.util import find_spec
from typing import Any

import typer

from .options import Json
from .terminal import say

EXAMPLES = """
Examples:\n
  seewhy doctor\n
  seewhy doctor --json
"""
NOT_FOR_USE = {"all", "demo", "dev"}
"""Extras that bring others together, or are for the repository."""


def examine() -> dict[str, Any]:
    """Engines, embedded models, extras and places, without any network call."""
    from ..encoders.embedded import SOURCES
    from ..encoders.engines import available_engines

    models = {name: find_spec(source.package) is not None for name, source in SOURCES.items()}
    extras = {extra: all(_version(p) is not None for p in packages) for extra, packages in extras_of().items()}
    return {
        "seewhy": version("seewhy"),
        "packages": {name: _version(name) for name in ("torch", "timm", "pillow", "numpy")},
        "engines": available_engines(),
        "models": models,
        "extras": extras,
        **_cache(),
    }


def _cache() -> dict[str, str | None]:
    """The folder; or none, and why. Nothing else needs it."""
    from ..errors import DataError
    from ..storage.cache import cache_dir

    try:
        return {"cache": str(cache_dir()), "cache_note": ""}
    except DataError as error:
        return {"cache": None, "cache_note": str(error)}


def extras_of() -> dict[str, list[str]]:
    """Extra → packages it brings, as the installed package states them."""
    found: dict[str, list[str]] = {}
    for line in requires("seewhy") or ():
        package, marker = re.match(r"[\w.-]+", line), re.search(r"extra == ['\"]([\w-]+)['\"]", line)
        if package and marker and package[0] != "seewhy" and marker[1] not in NOT_FOR_USE:
            found.setdefault(marker[1], []).append(package[0])
    return found


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def doctor(as_json: Json = False) -> None:
    """Engines, models and extras available here, found offline. Exit code 1 if the default cannot run."""
    found = examine()
    usable = found["models"]["lite0"]
    if as_json:
        say(json.dumps(found))
    else:
        _print(found)
    raise typer.Exit(0 if usable else 1)


def _print(found: dict[str, Any]) -> None:
    from rich.console import Console

    console = Console(highlight=False, soft_wrap=True)
    packages = ", ".join(f"{k} {v or 'missing'}" for k, v in found["packages"].items())
    console.print(f"[bold]seewhy {found['seewhy']}[/bold]  {packages}")
    for engine in found["engines"]:
        state = f"{engine['version']}, {engine['precision']}" if engine["version"] else "not installed"
        console.print(f"engine  {engine['name']:<12} {state}  {engine['note']}")
    for name, there in found["models"].items():
        console.print(f"model   {name:<12} {'ready' if there else 'not installed'}")
    for extra, there in found["extras"].items():
        cure = "" if there else f"  pip install 'seewhy\\[{extra}]'"
        console.print(f"extra   {extra:<12} {'installed' if there else 'not installed'}{cure}")
    say(f"cache   {found['cache'] or found['cache_note']}")
