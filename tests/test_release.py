"""What is locked is what pyproject.toml asks for, with hashes, and has a licence; the wheel is whole."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement

ROOT = Path(__file__).resolve().parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
EXTRAS = ("all", "demo", "dev", "docs")


def locked(name: str) -> dict[str, list[str]]:
    """Package → versions, as there may be one for each Python; every one has its hashes."""
    found: dict[str, list[str]] = {}
    for block in re.split(r"\n(?=\S)", (ROOT / name).read_text("utf-8").strip()):
        if not block.startswith("#"):
            package, version = re.match(r"([a-z0-9][\w.-]*)==([^\s;\\\\]+)", block).groups()  # type: ignore[union-attr]
            assert re.search(r"--hash=sha256:[0-9a-f]{64}$", block), package
            found.setdefault(package, []).append(version)
    return found


def asked(*extras: str) -> list[Requirement]:
    lines = [*PROJECT["dependencies"], *(one for e in extras for one in PROJECT["optional-dependencies"][e])]
    found = [Requirement(line) for line in lines]
    inner = tuple(e for one in found if one.name == "seewhy" for e in one.extras)
    return [one for one in found if one.name != "seewhy"] + (asked(*inner) if inner else [])


@pytest.mark.parametrize(("name", "extras"), [("requirements.lock", ()), ("requirements-dev.lock", EXTRAS)])
def test_the_lock_holds_what_is_asked_for(name: str, extras: tuple[str, ...]) -> None:
    found = locked(name)
    for one in asked(*extras):
        versions = found.get(re.sub(r"[-_.]+", "-", one.name).lower(), [])
        assert versions, f"{one} is not locked: run make lock"
        assert all(one.specifier.contains(v, prereleases=True) for v in versions), (one, versions)
    assert "://" not in (ROOT / name).read_text("utf-8"), "no place that packages come from"


def test_the_licences_are_those_of_the_lock() -> None:
    rows = re.findall(r"^\| ([\w.-]+) \| (\S+) \| (.+) \|$", (ROOT / "docs" / "licences.md").read_text("utf-8"), re.M)
    found = {name: version for name, version, _ in rows[2:]}
    lock = locked("requirements.lock")
    assert sorted(found) == sorted(lock)
    assert all(version.split("+")[0] in lock[name] for name, version in found.items())
    assert not [row for row in rows if row[2] == "not stated"]


@pytest.mark.slow
def test_the_wheel_is_the_same_whoever_builds_it_and_whole(tmp_path: Path) -> None:
    for name, umask, zone in (("a", 0o077, "Asia/Tokyo"), ("b", 0o002, "America/Lima")):
        done = subprocess.run(
            [sys.executable, str(ROOT / "release" / "wheel.py"), "-o", str(tmp_path / name)],
            env={**os.environ, "TZ": zone, "LC_ALL": "C"},
            umask=umask,
            capture_output=True,
            text=True,
            timeout=300,
        )
        assert done.stderr == ""
        assert done.returncode == 0
        assert done.stdout.rstrip().endswith("built twice")
    (one,), (other,) = (list((tmp_path / name).iterdir()) for name in "ab")
    assert one.name == other.name
    assert one.read_bytes() == other.read_bytes()
