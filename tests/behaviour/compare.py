"""The record of what SeeWhy answers: written once, equal after every change that should not be seen.

``python tests/behaviour/compare.py`` compares every ``record_NAME.py`` beside this file with ``NAME.json``; names may
follow. ``--write NAME ...`` writes anew: a commit that does so says what changed and why.

Training and digests of weights hang on how a processor rounds, so the record is of one kind of processor, which
``rounding.txt`` tells. On another kind, differences say nothing: write the record of the commit before yours there, and
compare with that.
"""

from __future__ import annotations

import argparse
import hashlib
import importlib
import json
import math
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

HERE = Path(__file__).resolve().parent
ROUNDING = HERE / "rounding.txt"
OTHER_PROCESSOR = 3
"""Exit code for differences on a processor that rounds otherwise than the one of the record."""
TOLERANCE = 1e-5
"""Relative, and absolute near 0: what another processor's rounding changes."""


def names() -> list[str]:
    """The rooms that have a record."""
    return sorted(path.stem.removeprefix("record_") for path in HERE.glob("record_*.py"))


def record(name: str) -> Any:
    """What the code answers now, as JSON keeps it."""
    sys.path[:0] = [p for p in (str(HERE), str(HERE.parent)) if p not in sys.path]
    return json.loads(json.dumps(importlib.import_module(f"record_{name}").record()))


def differences(before: Any, now: Any, place: str = "") -> Iterator[str]:
    """One line for each value that is not what it was."""
    if isinstance(before, dict) and isinstance(now, dict):
        for key in sorted({*before, *now}):
            if key in before and key in now:
                yield from differences(before[key], now[key], f"{place}/{key}")
            else:
                yield f"{place}/{key}: {'gone' if key in before else 'new'}"
    elif isinstance(before, list) and isinstance(now, list) and len(before) == len(now):
        for i, (one, other) in enumerate(zip(before, now, strict=True)):
            yield from differences(one, other, f"{place}/{i}")
    elif not _same(before, now):
        yield f"{place}: {before!r} is now {now!r}"


def _same(before: Any, now: Any) -> bool:
    numbers = all(isinstance(v, int | float) and not isinstance(v, bool) for v in (before, now))
    if numbers and isinstance(before, float) and isinstance(now, int | float):
        return math.isclose(before, now, rel_tol=TOLERANCE, abs_tol=TOLERANCE) or (before != before and now != now)
    return bool(before == now)


def rounding() -> str:
    """A digest of sums, products and functions as this processor rounds them."""
    x = torch.randn(4, 16, 33, 33, generator=torch.Generator().manual_seed(0))
    square = x.flatten(1)[:, :4096].reshape(4, 64, 64)
    values = [
        x, torch.conv2d(x, x[:, :, :3, :3]), square @ square.mT, torch.linalg.svdvals(square), x.exp(), x.softmax(1),
        torch.erfinv(x.tanh()), torch.nn.functional.gelu(x), torch.layer_norm(x, (33,)), torch.linalg.qr(square)[1],
    ]  # fmt: skip
    return hashlib.sha256(b"".join(value.contiguous().numpy().tobytes() for value in values)).hexdigest()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME")
    parser.add_argument("--write", action="store_true")
    options = parser.parse_args()
    changed = 0
    if options.write:
        ROUNDING.write_text(rounding() + "\n", "ascii")
    for name in options.names or names():
        path, began = HERE / f"{name}.json", time.process_time()
        now = record(name)
        seconds = time.process_time() - began
        if options.write:
            path.write_text(json.dumps(now, indent=1, sort_keys=True, ensure_ascii=False) + "\n", "utf-8")
            print(f"{name}: written, {seconds:.0f} s of processor")
            continue
        lines = list(differences(json.loads(path.read_text("utf-8")), now))
        changed += len(lines)
        print(f"{name}: {'equal' if not lines else f'{len(lines)} differences'}, {seconds:.0f} s of processor")
        print("".join(f"  {line}\n" for line in lines[:50]), end="")
    if changed and rounding() != ROUNDING.read_text("ascii").strip():
        print("this processor rounds otherwise than the one of the record")
        return OTHER_PROCESSOR
    return bool(changed)


if __name__ == "__main__":
    sys.exit(main())
