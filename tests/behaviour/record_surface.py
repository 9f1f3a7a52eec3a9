"""What the command line answers on small pictures: exit codes, sentences on stderr, and the JSON of each verb."""

from __future__ import annotations

import contextlib
import io
import json
import os
import shlex
import sys
import tempfile
from pathlib import Path
from typing import Any
from unittest import mock

import pandas as pd

from coloured import masked, squares
from tiny import CLASSES, class_folders

LINES = """
fit train -o m --set n_crops=0 --descriptions words.json --json
fit train -o m2 --method neighbours --set k=3 --json
predict train/moss -m m --json
predict train/moss nowhere.png -m m --csv
predict train/rust/rust_0.png --labels "moss, rust" --json
predict train/rust/rust_0.png --finding rust --json
predict train -m m --parquet -o decisions --json
explain train/moss/moss_0.png -m m --json
explain train/moss/moss_0.png -m m --json --no-measure --where eigen_cam --set neurons=2 --target rust --contrast moss
explain train/sky/sky_1.png -m m --no-measure -o why --json
explain boxes/0.png --labels "red, green" --parts word_regions --no-measure --json
segment masks/images/0.png --labels "red, green, blue" --json
detect boxes --labels "red, green" --json
fit masks --task masks -o seg --method linear --json
segment masks/images/0.png -m seg --json
evaluate masks -m seg --json
fit train --task prototypes -m m --set n_prototypes=2 --json
evaluate train -m m --json --n-explained 0
evaluate captions.csv --retrieval --json
evaluate train -m m --contract default --n-explained 0 --json
evaluate train -m m --against fit --json
check train --json
check captions.csv --texts --json
check captions.csv --texts -o clean.jsonl --json
index train -o library --json
search library --image train/moss/moss_0.png -k 2 --json
search library --text moss -k 2 --json
index train --parquet -o vectors --json
index --status vectors --json
index --verify vectors --json
index vectors -o library2 --json
index --verify library --json
describe write "wren, robin" -o birds.json --writer gpt-4o-mini --base-url http://localhost:1/v1 --dry-run --json
describe match train --descriptions words.json -o captions.jsonl --json
describe images train/moss/moss_0.png -o long.jsonl -m m --json
app --data train --annotate texts.sqlite --export texts.jsonl --json
adapt captions.csv -o enc --dry-run --json
study faithfulness train -m m --metrics sparsity,deletion --methods grad_cam --n-pictures 3 --json
study transfer train -e lite0 --set shots=1 --set parts=0.5 --set n_seeds=2 --set n_corrupted=0 --json
study scaling train --set n_sizes=3 --set n_seeds=2 --target 0.9 --json
methods rise --json
predict train -m nowhere
fit nowhere -o x
explain train/moss/moss_0.png -m m -o m
search library --image nowhere.png
predict train/moss/moss_0.png -m m --labels moss
detect boxes
evaluate train -m m -o report.txt
study transfer train -e lite0 -e lite0
fit train -o x --method rise
fit train -o x --set n_masks=3
"""
TIMES = ("seconds", "seconds_per_step", "seconds_looking", "timings", "time", "date", "version", "address")


def record() -> dict[str, Any]:
    """Line → exit code, standard output (parsed where it is JSON) and standard error."""
    before = Path.cwd()
    with tempfile.TemporaryDirectory() as place:
        os.chdir(place)
        try:
            _pictures()
            # What an engine rounds depends on the processor and on what the cache has.
            with mock.patch("seewhy.encoders.engines._installed", lambda engine: engine == "torch"):
                return {line: _answer(line, place) for line in LINES.strip().splitlines()}
        finally:
            os.chdir(before)


def _pictures() -> None:
    class_folders(Path("train"), 4, CLASSES[:3], side=64)
    masked(Path("masks"), 4)
    squares(Path("boxes"), 2)
    Path("words.json").write_text(json.dumps({c: [f"a {c} texture", "something flat"] for c in CLASSES[:3]}))
    rows = [(f"train/{c}/{c}_{i}.png", f"a photo of {c} number {i}") for c in CLASSES[:3] for i in range(4)]
    pd.DataFrame(rows, columns=["image", "text"]).to_csv("captions.csv", index=False)


def _answer(line: str, place: str) -> dict[str, Any]:
    from seewhy.cli import main

    out, err = io.StringIO(), io.StringIO()
    argv, sys.argv = sys.argv, ["seewhy", *shlex.split(line), *([] if line.startswith("methods") else ["--quiet"])]
    try:
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            main()
        code: Any = 0
    except SystemExit as end:
        code = end.code
    finally:
        sys.argv = argv
    said = [_read(text.replace(place, "HERE")) for text in out.getvalue().splitlines()]
    return {"code": code or 0, "out": said, "err": err.getvalue().replace(place, "HERE").splitlines()}


def _read(text: str) -> Any:
    try:
        return _without_times(json.loads(text))
    except ValueError:
        return text


def _without_times(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _without_times(v) for key, v in value.items() if key not in TIMES}
    return [_without_times(v) for v in value] if isinstance(value, list) else value
