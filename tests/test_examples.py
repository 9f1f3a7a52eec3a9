"""Every example runs as a script, and ``make demo``'s says and writes what the README promises."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import skimage.data

EXAMPLES = Path(__file__).resolve().parents[1] / "examples"
SAYS = {
    "demo": ["cat", "Where: ", "Like what: ", "In words: ", "card.html", "card.png"],
    "fit_and_explain": ["24 of your pictures", "test pictures"],
    "own_module": ["map of 7 × 7 cells"],
    "small_vit": ["held-out crops:", "same class as teacher", "--encoder timm:"],
    "zero_shot": ["espresso", "By description: espresso"],
}
SAMPLES = [str(path) for path in sorted(Path(skimage.data.__file__).parent.glob("*.jpg"))]
ARGUMENTS = {"small_vit": ["--pictures", *SAMPLES, "--crops", "2", "--depth", "2", "--steps", "3"]}


def test_every_example_is_tested() -> None:
    assert {path.stem for path in EXAMPLES.glob("*.py")} == set(SAYS)


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(SAYS))
def test_example_runs(name: str, tmp_path: Path) -> None:
    command = [sys.executable, "-W", "error", str(EXAMPLES / f"{name}.py"), *ARGUMENTS.get(name, ())]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, encoding="utf-8", timeout=300)
    assert (done.returncode, done.stderr) == (0, "")
    assert [text for text in SAYS[name] if text not in done.stdout] == []
    if name == "demo":
        assert {"card.html", "card.png", "chelsea.png"} == {path.name for path in (tmp_path / "demo").iterdir()}
