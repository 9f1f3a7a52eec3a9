"""What a new process loads, and how often it looks for garbage: counted, as seconds depend on the machine."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
from PIL import Image

from seewhy.cli import _of_verb, app

HEAVY = (
    "torchvision", "torch._dynamo", "torch.onnx", "sympy", "networkx", "scipy", "sklearn", "timm", "pandas", "pyarrow",
    "matplotlib", "transformers", "onnx", "onnxscript", "fastapi", "ray",
)  # fmt: skip
"""Of each, half a second and more; the first, with ``torch._dynamo``, was imported for a function of boxes."""
RUN = """
import gc, json, sys
from seewhy.__main__ import run
searches = [0, 0]
def note(phase, _):
    searches["torch" in sys.modules and not hasattr(sys.modules["torch"], "compile")] += phase == "start"
gc.callbacks.append(note)
out = sys.argv.pop(1)
try:
    run()
finally:
    with open(out, "w") as file:
        json.dump([sorted(sys.modules), searches, gc.isenabled(), gc.get_freeze_count()], file)
"""


def test_a_card_loads_nothing_that_it_does_not_use(tmp_path: Path) -> None:
    picture = tmp_path / "photo.png"
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)).save(picture)

    def fresh(*command: str) -> list:
        notes = tmp_path / "notes.json"
        run = [sys.executable, "-c", RUN, str(notes), *command, "--quiet"]
        done = subprocess.run(run, capture_output=True, text=True, check=False, timeout=300)
        assert done.returncode == 0, done.stderr
        found: list = json.loads(notes.read_text())
        return found

    fresh("predict", str(picture))  # the first of all converts the network, which needs more
    loaded, (_, while_torch), enabled, frozen = fresh("explain", str(picture), "-o", str(tmp_path / "card.html"))
    assert not [name for name in HEAVY if name in loaded]
    assert "torch" in loaded
    assert while_torch < 40, "garbage was looked for again and again while torch was imported"
    assert enabled
    assert frozen > 100_000, "what stays is looked through again at the end"


def test_a_verb_that_is_named_is_read_alone() -> None:
    assert [command.name for command in _of_verb("predict").registered_commands] == ["predict"]
    assert not _of_verb("predict").registered_groups
    assert [group.name for group in _of_verb("study").registered_groups] == ["study"]
    for first in ("--help", "predct", ""):
        assert _of_verb(first) is app
    assert len(app.registered_commands) > 10
