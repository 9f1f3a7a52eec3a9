"""Writes the lock files: every package that is installed, its version and the SHA-256 of its files.

``make lock``. Both hold for all systems and for Python 3.11 on; ``pip install --require-hashes -r FILE`` installs one.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
EXTRAS = ("all", "demo", "dev", "docs")
NEWEST = ("torch<=2.13.0", "torchvision<=0.28.0")
"""The newest with which all tests have been run."""
HEAD = "# Written by make lock from pyproject.toml. Install with: pip install --require-hashes -r {name}\n"


def main() -> int:
    uv = shutil.which("uv") or str(Path(sys.executable).with_name("uv"))
    for name, extras in (("requirements.lock", ()), ("requirements-dev.lock", EXTRAS)):
        how = [
            "--universal",
            "--python-version",
            "3.11",
            "--generate-hashes",
            "--no-header",
            "--no-annotate",
            "--quiet",
        ]
        more = [part for extra in extras for part in ("--extra", extra)]
        done = subprocess.run(
            [uv, "pip", "compile", "pyproject.toml", *how, *more, "-c", "-"],
            input="\n".join(NEWEST), check=True, capture_output=True, text=True, cwd=ROOT,
        )  # fmt: skip
        (ROOT / name).write_text(HEAD.format(name=name) + done.stdout, "utf-8")
        print(f"{name}: {len(re.findall(r'^[a-z].*==', done.stdout, re.MULTILINE))} packages")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
