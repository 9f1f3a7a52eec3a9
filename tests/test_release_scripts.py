"""The scripts of a release: what they lock, list and build, and what they refuse."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import itertools
import json
import os
import re
import stat
import subprocess
import sys
import zipfile
from pathlib import Path
from subprocess import CompletedProcess
from types import ModuleType
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[1]


def script(name: str) -> ModuleType:
    """One of release/, under a name of its own: ``wheel`` is also a package's."""
    spec = importlib.util.spec_from_file_location(f"release_{name}", ROOT / "release" / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def wheel() -> ModuleType:
    return script("wheel")


@pytest.fixture
def licences() -> ModuleType:
    return script("licences")


def packed(place: Path, names: list[str]) -> Path:
    with zipfile.ZipFile(place, "w") as written:
        for name in names:
            written.writestr(name, "")
    return place


INFO = [f"seewhy-0.1.0.dist-info/{name}" for name in ("licenses/LICENSE", "METADATA", "entry_points.txt", "RECORD")]


def test_a_whole_wheel_has_no_fault_and_others_are_told(wheel: ModuleType, tmp_path: Path) -> None:
    own = [name.removeprefix("src/") for name in wheel.tracked("src/seewhy")]
    assert wheel.faults(packed(tmp_path / "whole.whl", [*own, *INFO])) == []
    less = [name for name in own if name != "seewhy/planted.json"]
    assert wheel.faults(packed(tmp_path / "less.whl", [*less, *INFO])) == ["seewhy/planted.json is missing"] * 2
    more = [*own, *INFO, "tests/test_x.py", "seewhy/left.py"]
    said = ["tests/test_x.py does not belong there", "seewhy/left.py does not belong there"]
    assert wheel.faults(packed(tmp_path / "more.whl", more)) == said
    assert wheel.faults(packed(tmp_path / "bare.whl", [*own, *INFO[1:]])) == ["licenses/LICENSE is missing"]


def test_what_the_wheel_needs_is_in_the_repository(wheel: ModuleType) -> None:
    names = [*wheel.tracked("src/seewhy"), *INFO]
    assert [part for part in wheel.NEEDED if not any(part in name for name in names)] == []


def test_every_file_of_data_has_its_licence_in_the_pages(wheel: ModuleType) -> None:
    data = [name for name in wheel.tracked("src/seewhy") if name.endswith(".safetensors")]
    page = (ROOT / "docs" / "dependencies.md").read_text("utf-8")
    rows = dict(re.findall(r"^\| `([\w./]+)` \| .+ \| (.+) \|$", page, re.MULTILINE))
    assert sorted(rows) == sorted(name.removeprefix("src/seewhy/") for name in data)
    assert all(re.search("Apache-2.0|MIT|Open Font License", licence) for licence in rows.values())


def test_files_are_those_that_git_holds_and_that_are_there(
    wheel: ModuleType, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "src").mkdir()
    for name in ("src/ä b.py", "src/gone.py", "src/new.py", "other.py"):
        (tmp_path / name).write_text("")
    git = ["git", "-C", str(tmp_path)]
    subprocess.run([*git, "init", "--quiet"], check=True)
    subprocess.run([*git, "add", "src/ä b.py", "src/gone.py", "other.py"], check=True)
    (tmp_path / "src" / "gone.py").unlink()
    monkeypatch.setattr(wheel, "ROOT", tmp_path)
    assert wheel.tracked("src") == ["src/ä b.py"]
    assert sorted(wheel.tracked()) == ["other.py", "src/ä b.py"]


@pytest.mark.parametrize(("version", "alone"), [("77.0.1", False), ("100", False), ("76.1", True), (None, True)])
def test_the_setuptools_at_hand_build_where_they_are_new_enough(
    wheel: ModuleType, monkeypatch: pytest.MonkeyPatch, version: str | None, alone: bool
) -> None:
    def at_hand(name: str) -> str:
        if version is None:
            raise importlib.metadata.PackageNotFoundError(name)
        return version

    monkeypatch.setattr(importlib.metadata, "version", at_hand)
    assert wheel.isolation() == ([] if alone else ["--no-build-isolation"])


def test_time_rights_and_place_do_not_depend_on_who_builds(
    wheel: ModuleType, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    for name in ("src/a.py", "pyproject.toml", "setup.py", "README.md", "LICENSE"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(name)
        (tmp_path / name).chmod(0o600)
    places = []

    def run(command: list[str], check: bool, env: dict[str, str], umask: int) -> CompletedProcess[str]:
        assert (check, env["SOURCE_DATE_EPOCH"], umask) == (True, "12", 0o022)
        source = Path(command[-1])
        copied = {str(p.relative_to(source)): stat.S_IMODE(p.stat().st_mode) for p in source.rglob("*") if p.is_file()}
        assert copied == dict.fromkeys(("src/a.py", "pyproject.toml", "setup.py", "README.md", "LICENSE"), 0o644)
        places.append(source)
        out = Path(command[command.index("-w") + 1])
        out.mkdir()
        (out / "s.whl").write_bytes(b"wheel")
        return CompletedProcess(command, 0)

    monkeypatch.setattr(wheel, "ROOT", tmp_path)
    monkeypatch.setattr(wheel, "tracked", lambda *under: ["src/a.py"])
    monkeypatch.setattr(wheel.subprocess, "run", run)
    before = os.umask(0o077)
    try:
        assert wheel.built("12") == wheel.built("12") == ("s.whl", b"wheel")
    finally:
        os.umask(before)
    assert places[0] != places[1]
    assert not places[0].exists()


@pytest.mark.parametrize(
    ("second", "faults", "said"),
    [
        (b"one", [], []),
        (b"two", [], ["two builds gave other bytes"]),
        (b"one", ["a is missing", "b is missing"], ["a is missing", "b is missing"]),
    ],
)
def test_a_wheel_with_faults_is_told(
    wheel: ModuleType,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    second: bytes,
    faults: list[str],
    said: list[str],
) -> None:
    builds = [("s.whl", b"one"), ("s.whl", second)]
    epochs: list[str] = []
    monkeypatch.setattr(wheel, "built", lambda epoch: epochs.append(epoch) or builds.pop(0))
    monkeypatch.setattr(wheel, "faults", lambda place: list(faults))
    monkeypatch.setattr(sys, "argv", ["wheel.py", "-o", str(tmp_path / "new" / "out")])
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "7")
    assert wheel.main() == (1 if said else 0)
    assert epochs == ["7", "7"]
    assert (tmp_path / "new" / "out" / "s.whl").read_bytes() == b"one"
    printed = capsys.readouterr()
    assert printed.err == "".join(f"s.whl: {line}\n" for line in said)
    digest = "7692c3ad3540bb803c020b3aee66cd8887123234ea0c6e7143c0add73ff431ed"
    assert printed.out == f"{digest}  s.whl  3 bytes, built twice\n"


def test_the_time_is_that_of_the_last_commit(
    wheel: ModuleType, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    epochs: list[str] = []
    monkeypatch.setattr(wheel, "built", lambda epoch: epochs.append(epoch) or ("s.whl", b"one"))
    monkeypatch.setattr(wheel, "faults", lambda place: [])
    monkeypatch.setattr(sys, "argv", ["wheel.py", "-o", str(tmp_path)])
    monkeypatch.delenv("SOURCE_DATE_EPOCH", raising=False)
    wheel.main()
    last = subprocess.run(["git", "log", "-1", "--format=%ct"], cwd=ROOT, capture_output=True, text=True, check=True)
    assert epochs == [last.stdout.strip()] * 2


LOCK = """# Written by make lock
numpy==1.26.4 ; python_full_version < '3.12' \\
    --hash=sha256:00
numpy==2.3.0 ; python_full_version >= '3.12' \\
    --hash=sha256:01
pyyaml==6.0.3 \\
    --hash=sha256:02
colorama==0.4.6 ; sys_platform == 'win32' \\
    --hash=sha256:03
torch==2.13.0 \\
    --hash=sha256:04
"""


def test_rows_name_version_and_licence_of_the_environment(licences: ModuleType, tmp_path: Path) -> None:
    (tmp_path / "lock").write_text(LOCK)
    assert set(licences.pinned(tmp_path / "lock")) == {"numpy", "pyyaml", "colorama", "torch"}
    components = [
        {"name": "numpy", "version": "2.3.0", "licenses": [{"license": {"id": "BSD-3-Clause"}}]},
        {"name": "PyYAML", "version": "6.0.3"},
        {"name": "torch", "version": "2.13.0"},
    ]
    found = list(licences.rows({"components": components}, tmp_path / "lock", {"pyyaml": "MIT"}))
    assert found == [
        "| colorama | 0.4.6 | on other systems or Pythons alone |",
        "| numpy | 2.3.0 | BSD-3-Clause |",
        "| pyyaml | 6.0.3 | MIT |",
        "| torch | 2.13.0 | not stated |",
    ]


@pytest.mark.parametrize(
    ("stated", "short"),
    [
        ([], ""),
        ([{"expression": "Apache-2.0 OR MIT"}], "Apache-2.0 OR MIT"),
        ([{"license": {"name": "License :: OSI Approved :: MIT License"}}], "MIT License"),
        ([{"license": {"id": "MIT"}}, {"license": {"name": "declared license of 'x'"}}], "MIT"),
        ([{"license": {"id": "MIT"}}, {"license": {"id": "MIT"}}], "MIT"),
        ([{"license": {"id": name}} for name in ("MIT", "ISC", "0BSD")], "MIT; ISC"),
        ([{"license": {"name": "a|b\n c"}}], "a/b c"),
        ([{"license": {"name": "x" * 60}}], "x" * 60),
        ([{"license": {"name": "x" * 61}}], "x" * 57 + "…"),
    ],
)
def test_a_licence_is_as_short_as_it_is_stated(licences: ModuleType, stated: list[Any], short: str) -> None:
    assert licences.stated({"licenses": stated}) == short


def test_the_plain_field_is_read_off_the_environment(
    licences: ModuleType, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    for name, field in (("Py_Words", "License: MIT\n        in full"), ("plain", ""), ("long", "License: " + "x" * 70)):
        (tmp_path / f"{name}-1.dist-info").mkdir()
        (tmp_path / f"{name}-1.dist-info" / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\n{field}\n")
    python = tmp_path / "python"
    python.write_text(f'#!/bin/sh\nexec "{sys.executable}" -S "$@"\n')
    python.chmod(0o755)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    assert licences.metadata(str(python)) == {"py-words": "MIT", "long": "x" * 60}


def test_the_bill_and_the_page_are_written(
    licences: ModuleType, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    (tmp_path / "lock").write_text(LOCK)
    bill, page = tmp_path / "build" / "sbom.json", tmp_path / "licences.md"

    def run(command: list[str], check: bool) -> CompletedProcess[str]:
        assert check
        assert command[1:5] == ["-m", "cyclonedx_py", "environment", "some/python"]
        assert "--output-reproducible" in command
        bill.write_text(json.dumps({"components": [{"name": "torch", "version": "2.13.0"}]}))
        return CompletedProcess(command, 0)

    monkeypatch.setattr(licences.subprocess, "run", run)
    monkeypatch.setattr(licences, "metadata", lambda python: {"torch": f"of {python}"})
    given = ["licences.py", "some/python", "--lock", str(tmp_path / "lock"), "--sbom", str(bill), "-o", str(page)]
    monkeypatch.setattr(sys, "argv", given)
    assert licences.main() == 0
    text = page.read_text("utf-8")
    assert text.startswith("# Licences of what is installed with SeeWhy\n")
    assert "| torch | 2.13.0 | of some/python |\n" in text
    assert capsys.readouterr().out == f"{bill}: 1 components; {page}\n"


def test_locks_hold_for_every_system_with_hashes(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    lock = script("lock")
    asked = []

    def run(command: list[str], input: str, check: bool, cwd: Path, **how: Any) -> CompletedProcess[str]:
        assert check
        assert {"--universal", "--generate-hashes", "--no-header"} <= set(command)
        assert command[1:4] == ["pip", "compile", "pyproject.toml"]
        assert command[command.index("--python-version") + 1] == "3.11"
        assert command[-2:] == ["-c", "-"]
        asked.append(([b for a, b in itertools.pairwise(command) if a == "--extra"], input))
        return CompletedProcess(command, 0, LOCK.partition("\n")[2], "")

    monkeypatch.setattr(lock, "ROOT", tmp_path)
    monkeypatch.setattr(lock.subprocess, "run", run)
    assert lock.main() == 0
    newest = "torch<=2.13.0\ntorchvision<=0.28.0"
    assert asked == [([], newest), (["all", "demo", "dev", "docs"], newest)]
    for name in ("requirements.lock", "requirements-dev.lock"):
        text = (tmp_path / name).read_text("utf-8")
        assert text.startswith(
            f"# Written by make lock from pyproject.toml. Install with: pip install --require-hashes -r {name}\n"
        )
        assert text.endswith(LOCK.partition("\n")[2])
    assert capsys.readouterr().out == "requirements.lock: 5 packages\nrequirements-dev.lock: 5 packages\n"
