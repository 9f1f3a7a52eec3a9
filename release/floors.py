"""Installs the wheel with the oldest versions that pyproject.toml allows, or the newest, and tries it.

``make floors`` or ``python release/floors.py dist/seewhy-*.whl [--newest]``. The environment is thrown away; of the
oldest, torch with its CUDA libraries is 6 GB (no others of that age are offered).
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
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
TESTS = (
    "tests/pictures/test_images.py", "tests/pictures/test_boxes.py", "tests/classifiers/test_saving.py",
    "tests/encoders/test_embedded.py", "tests/encoders/test_timm.py", "tests/encoders/test_minilm.py",
    "tests/encoders/test_file.py", "tests/cli/test_flags.py",
)  # fmt: skip
"""Those that lean on torch, timm, Pillow, safetensors, tokenizers and typer, and take seconds."""
SMOKE = """
import sys
from pathlib import Path
import numpy as np
from PIL import Image
folder, rng = Path(sys.argv[1]), np.random.default_rng(0)
for label, colour in (("moss", (40, 150, 50)), ("rust", (180, 70, 30))):
    (folder / "data" / label).mkdir(parents=True)
    for i in range(8):
        pixels = np.array(colour) + rng.normal(0, 25, (96, 96, 3))
        Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(folder / "data" / label / f"{i}.png")
"""


def floors() -> list[str]:
    """The core's requirements, as they stand."""
    return tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]["dependencies"]


def installed(folder: Path, wheel: Path, python: str, *, newest: bool, extra: Sequence[str]) -> Path:
    """The interpreter of a new environment with the wheel."""
    uv = [shutil.which("uv") or str(Path(sys.executable).with_name("uv"))]
    home = folder / "environment"
    subprocess.run([*uv, "venv", "--quiet", "--python", python, str(home)], check=True)
    python = str(home / ("Scripts/python.exe" if os.name == "nt" else "bin/python"))
    how = "highest" if newest else "lowest-direct"
    command = [*uv, "pip", "install", "--quiet", "--python", python, "--resolution", how]
    # A wheel's own requirements are not direct ones: named again they are.
    subprocess.run([*command, str(wheel), *floors()], check=True)
    if extra:
        subprocess.run([*uv, "pip", "install", "--quiet", "--python", python, *extra], check=True)
    return Path(python)


def versions(python: Path) -> dict[str, str]:
    code = "import importlib.metadata as m, json, sys; print(json.dumps({n: m.version(n) for n in sys.argv[1:]}))"
    names = [requirement.partition(">")[0] for requirement in floors()]
    done = subprocess.run([python, "-c", code, *names], check=True, capture_output=True, text=True)
    return json.loads(done.stdout)


def tried(python: Path, folder: Path) -> list[str]:
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


def tests(python: Path, folder: Path) -> list[str]:
    """Some of the repository's tests, on the installed package."""
    shutil.copytree(ROOT / "tests", folder / "tests", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copyfile(ROOT / "pyproject.toml", folder / "pyproject.toml")
    command = [
        python,
        "-m",
        "pytest",
        "-W",
        "ignore::DeprecationWarning",
        "-m",
        "not slow",
        "--durations=3",
        "-p",
        "no:cacheprovider",
        *TESTS,
    ]
    return [] if subprocess.run(command, cwd=folder, env=alone(folder)).returncode == 0 else ["tests"]


def main() -> int:
    parse = argparse.ArgumentParser(description=__doc__)
    parse.add_argument("wheel", type=Path)
    parse.add_argument("--newest", action="store_true", help="instead of the oldest")
    parse.add_argument("--python", default=f"{sys.version_info[0]}.{sys.version_info[1]}")
    parse.add_argument("--no-tests", action="store_true", help="only the first use")
    given = parse.parse_args()
    with tempfile.TemporaryDirectory(prefix="seewhy-") as name:
        folder, begun = Path(name), time.perf_counter()
        extra = [] if given.no_tests else ["pytest>=8", "hypothesis>=6.100", "beartype>=0.18", "jsonschema>=4.21"]
        python = installed(folder, given.wheel.resolve(), given.python, newest=given.newest, extra=extra)
        print(f"installed in {time.perf_counter() - begun:.0f} s: {versions(python)}", flush=True)
        failed = tried(python, folder) + ([] if given.no_tests else tests(python, folder))
    print(f"failed: {', '.join(failed)}" if failed else "all well")
    return int(bool(failed))


if __name__ == "__main__":
    raise SystemExit(main())
