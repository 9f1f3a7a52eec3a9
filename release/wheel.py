"""The wheel, built twice from what git holds: the same bytes both times, everything in it that is needed, nothing else.

``make wheel`` or ``python release/wheel.py -o dist``. The time in it is that of the last commit.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
NEEDED = (
    "seewhy/py.typed", "seewhy/__init__.pyi", "seewhy/planted.json", "seewhy/encoders/embedded_measures.json",
    "seewhy/report/templates/", "seewhy/service/app/templates/", "seewhy/encoders/imagenet_sentences.safetensors",
    "seewhy/encoders/emoji_words.safetensors", "licenses/LICENSE", "METADATA", "entry_points.txt",
)  # fmt: skip


def tracked(*under: str) -> list[str]:
    """Names of git's files, as they are in the folder."""
    found = subprocess.run(["git", "ls-files", "-z", *under], cwd=ROOT, check=True, capture_output=True, text=True)
    return [name for name in found.stdout.split("\0") if name and (ROOT / name).is_file()]


def built(epoch: str) -> tuple[str, bytes]:
    """Name and bytes of a wheel, from a copy in a folder of its own."""
    with tempfile.TemporaryDirectory() as folder:
        for name in [*tracked("src"), "pyproject.toml", "setup.py", "README.md", "LICENSE"]:
            place = Path(folder, "source", name)
            place.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(ROOT / name, place)
            place.chmod(0o644)
        environment = {**os.environ, "SOURCE_DATE_EPOCH": epoch, "PYTHONHASHSEED": "random"}
        command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", *isolation(), "-w", f"{folder}/out"]
        # The wheel keeps the rights of its files: they are the same whatever this user's are by default.
        subprocess.run([*command, f"{folder}/source"], check=True, env=environment, umask=0o022)
        (wheel,) = Path(folder, "out").iterdir()
        return wheel.name, wheel.read_bytes()


def isolation() -> list[str]:
    """Build with the setuptools at hand, where it is new enough, so that nothing has to be fetched."""
    from importlib.metadata import PackageNotFoundError, version

    try:
        at_hand = int(version("setuptools").partition(".")[0])
    except PackageNotFoundError:
        return []
    return ["--no-build-isolation"] if at_hand >= 77 else []


def faults(wheel: Path) -> list[str]:
    """What is missing in a wheel, and what does not belong there."""
    names = zipfile.ZipFile(wheel).namelist()
    own = {name.removeprefix("src/") for name in tracked("src/seewhy")}
    found = [f"{name} is missing" for name in sorted(own - set(names))]
    found += [f"{part} is missing" for part in NEEDED if not any(part in name for name in names)]
    facts = [name for name in names if ".dist-info/" not in name]
    return found + [f"{name} does not belong there" for name in facts if name not in own]


def main() -> int:
    parse = argparse.ArgumentParser(description=__doc__)
    parse.add_argument("-o", "--output", type=Path, default=ROOT / "dist")
    output = parse.parse_args().output
    said = subprocess.run(["git", "log", "-1", "--format=%ct"], cwd=ROOT, check=True, capture_output=True, text=True)
    epoch = os.environ.get("SOURCE_DATE_EPOCH") or said.stdout.strip()
    (name, first), (_, second) = built(epoch), built(epoch)
    output.mkdir(parents=True, exist_ok=True)
    (output / name).write_bytes(first)
    wrong = faults(output / name) + ([] if first == second else ["two builds gave other bytes"])
    for line in wrong:
        print(f"{name}: {line}", file=sys.stderr)
    print(f"{hashlib.sha256(first).hexdigest()}  {name}  {len(first):,} bytes, built twice")
    return int(bool(wrong))


if __name__ == "__main__":
    raise SystemExit(main())
