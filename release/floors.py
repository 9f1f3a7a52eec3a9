"""Installs the wheel with the oldest versions that pyproject.toml allows, or the newest, and tries it.

``make floors`` or ``python release/floors.py dist/seewhy-*.whl [--newest] [--only core,heif] [--each]``: the core, then
the extras. Environments are thrown away; on Linux torch brings its CUDA libraries, 6 GB, unless its backend is named
to uv (``UV_TORCH_BACKEND=cpu``).
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
import tomllib
from collections.abc import Iterable, Sequence
from pathlib import Path
from xml.etree import ElementTree

from packaging.requirements import Requirement
from packaging.version import Version
from trials import CORE, EXTRAS, SMOKE, TOOLS, Trial, together

ROOT = Path(__file__).resolve().parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]


NOT_TRIED = 75
"""Exit code where nothing could be installed: a temporary failure, by sysexits.h."""


def requirements(*extras: str) -> list[Requirement]:
    """The core's requirements and those of extras, as they stand; an extra that names others stands for theirs."""
    lines = [*PROJECT["dependencies"], *(line for name in extras for line in PROJECT["optional-dependencies"][name])]
    found: dict[str, Requirement] = {}
    for one in map(Requirement, lines):
        for inner in [one] if one.name != PROJECT["name"] else requirements(*one.extras):
            found.setdefault(str(inner), inner)
    return list(found.values())


def own_requirements(names: Sequence[str]) -> list[Requirement]:
    """What a trial shows the floors of. Beside an extra, a package of the core may have to be later than its floor."""
    core = requirements()
    return core if "core" in names else [one for one in requirements(*names) if one not in core]


def above_floor(asked: Iterable[Requirement], versions: dict[str, str]) -> list[str]:
    """Requirements of which a later version than the oldest allowed is installed, so that this was not tried."""
    found = []
    for one in asked:
        (floor,) = (part.version for part in one.specifier if part.operator == ">=")
        if Version(Version(versions[one.name]).public) != Version(floor):
            found.append(f"{one}: {versions[one.name]} is installed")
    return found


class NotFetchedError(Exception):
    """What is to be tried could not be installed, so that nothing is known of it."""


def installed(
    folder: Path, wheel: Path, python: str, *, newest: bool, extras: Sequence[str], tools: Sequence[str]
) -> Path:
    """The interpreter of a new environment with the wheel; tools are of the newest version that fits beside it."""
    uv = shutil.which("uv") or str(Path(sys.executable).with_name("uv"))
    home = folder / "environment"
    subprocess.run([uv, "venv", "--quiet", "--python", python, str(home)], check=True)
    inner = home / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
    # The oldest that a Python can have is the oldest with a wheel for it.
    command = [uv, "pip", "install", "--quiet", "--no-build", "--python", str(inner)]
    what = str(wheel) + (f"[{','.join(extras)}]" if extras else "")
    # A wheel's own requirements are not direct ones: named again they are.
    direct = [str(one) for one in requirements(*extras)]
    subprocess.run([*command, "--resolution", "highest" if newest else "lowest-direct", what, *direct], check=True)
    if tools:
        subprocess.run([*command, *tools], check=True)
    return inner


def is_oldest(python: Path) -> bool:
    """Whether this is the oldest Python that pyproject.toml allows: for later ones not every floor has a wheel."""
    code = "import sys; print('%d.%d' % sys.version_info[:2])"
    done = subprocess.run([python, "-c", code], check=True, capture_output=True, text=True)
    return PROJECT["requires-python"] == f">={done.stdout.strip()}"


def versions(python: Path, names: Iterable[str]) -> dict[str, str]:
    """Package → version in an environment."""
    code = "import importlib.metadata as m, json, sys; print(json.dumps({n: m.version(n) for n in sys.argv[1:]}))"
    done = subprocess.run([python, "-c", code, *names], check=True, capture_output=True, text=True)
    return json.loads(done.stdout)


def first_use(python: Path, folder: Path) -> list[str]:
    """What failed of a first use: doctor, predict, explain, fit, load."""
    seewhy = str(python.with_name("seewhy"))
    subprocess.run([python, "-c", SMOKE, folder], check=True)
    picture = str(folder / "data" / "moss" / "0.png")
    model = str(folder / "model")
    load = f"import seewhy; m = seewhy.load({model!r}); print(m.predict([{picture!r}])[0].label)"
    steps = {
        "doctor": [seewhy, "doctor"],
        "predict": [seewhy, "predict", picture, "--json"],
        "explain": [seewhy, "explain", picture, "-o", str(folder / "why")],
        "fit": [seewhy, "fit", str(folder / "data"), "-o", model],
        "predict with it": [seewhy, "predict", picture, "-m", model, "--json"],
        "load": [str(python), "-W", "error::DeprecationWarning:seewhy", "-c", load],
    }
    failed = []
    for name, command in steps.items():
        begun = time.perf_counter()
        done = subprocess.run(command, capture_output=True, text=True, cwd=folder, env=alone(folder))
        right = done.returncode == 0 and (name != "load" or done.stdout.strip() == "moss")
        print(f"  {name}: {'ok' if right else 'FAILED'}, {time.perf_counter() - begun:.0f} s", flush=True)
        if not right:
            failed.append(name)
            print(f"{done.stdout[-2000:]}\n{done.stderr[-4000:]}", file=sys.stderr)
    return failed


def alone(folder: Path) -> dict[str, str]:
    """The environment without this repository's code in it."""
    own = {k: v for k, v in os.environ.items() if k not in ("PYTHONPATH", "VIRTUAL_ENV")}
    return {**own, "SEEWHY_CACHE": str(folder / "cache"), "HF_HUB_OFFLINE": "1"}


def tests(python: Path, folder: Path, trial: Trial) -> list[str]:
    """What failed of some of the repository's tests, on the installed package."""
    for name in ("tests", "docs"):  # some tests read the pages
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__", "images"))
    shutil.copyfile(ROOT / "pyproject.toml", folder / "pyproject.toml")
    report = folder / "report.xml"
    command = [str(python), "-m", "pytest", "-rs", "-W", "ignore::DeprecationWarning", "--durations=3",
               "-p", "no:cacheprovider", f"--junitxml={report}"]  # fmt: skip
    command += [] if trial.slow else ["-m", "not slow"]
    code = subprocess.run([*command, *trial.tests], cwd=folder, env=alone(folder)).returncode
    silent = unanswered(ElementTree.parse(report), trial.tests) if report.is_file() else []
    return (["tests"] if code else []) + [f"{name}: no test ran" for name in silent]


def unanswered(report: ElementTree.ElementTree, files: Iterable[str]) -> list[str]:
    """Files of which every test was left out, so that they say nothing."""
    ran = {case.get("classname", "") for case in report.iter("testcase") if case.find("skipped") is None}
    return [name for name in files if name.removesuffix(".py").replace("/", ".") not in ran]


def tried(names: Sequence[str], given: argparse.Namespace) -> list[str]:
    """What failed of the core, or of extras, in one environment."""
    label, core = ", ".join(names), "core" in names
    extras = [] if core else names
    trial = together(CORE if core else EXTRAS[name] for name in names)
    begun = time.perf_counter()
    with tempfile.TemporaryDirectory(prefix="seewhy-") as place:
        folder = Path(place)
        tools = [] if given.no_tests else [*TOOLS, *trial.tools]
        wheel = given.wheel.resolve()
        try:
            python = installed(folder, wheel, given.python, newest=given.newest, extras=extras, tools=tools)
        except subprocess.CalledProcessError as error:
            raise NotFetchedError(f"{label}: NOT TRIED, for it could not be installed: {error}") from error
        there = versions(python, [one.name for one in requirements(*extras)])
        print(f"{label}: installed in {time.perf_counter() - begun:.0f} s: {there}", flush=True)
        later = [] if given.newest else above_floor(own_requirements(names), there)
        failed = later if is_oldest(python) else []
        failed += first_use(python, folder) if core else []
        failed += [] if given.no_tests else tests(python, folder, trial)
    verdict = f"FAILED: {'; '.join(failed)}" if failed else "ok"
    print(f"{label}: {verdict}, {time.perf_counter() - begun:.0f} s", flush=True)
    return [f"{label}: {one}" for one in failed]


def environments(names: Sequence[str], *, each: bool) -> list[list[str]]:
    """What is tried in one environment: the core, extras together, and each of those whose tests are slow."""
    own = [name for name in names if name != "core" and (each or EXTRAS[name].slow)]
    shared = [name for name in names if name != "core" and name not in own]
    return [one for one in (["core"] if "core" in names else [], shared, *([name] for name in own)) if one]


def main() -> int:
    parse = argparse.ArgumentParser(description=__doc__)
    parse.add_argument("wheel", type=Path)
    parse.add_argument("--newest", action="store_true", help="instead of the oldest")
    parse.add_argument("--python", default=f"{sys.version_info[0]}.{sys.version_info[1]}")
    parse.add_argument("--only", metavar="NAMES", help="core or extras, with commas; without it all")
    parse.add_argument("--each", action="store_true", help="an environment for every extra: does it lack a package?")
    parse.add_argument("--no-tests", action="store_true", help="only a first use of the core")
    given = parse.parse_args()
    known = ["core"] if given.no_tests else ["core", *EXTRAS]
    names = given.only.split(",") if given.only else known
    if unknown := [name for name in names if name not in known]:
        parse.error(f"no such extra: {', '.join(unknown)}; there are {', '.join(known)}")
    try:
        failed = [one for part in environments(names, each=given.each) for one in tried(part, given)]
    except NotFetchedError as error:
        print(error, file=sys.stderr)
        return NOT_TRIED
    print("\n".join(["failed:", *failed]) if failed else "all well")
    return int(bool(failed))


if __name__ == "__main__":
    raise SystemExit(main())
