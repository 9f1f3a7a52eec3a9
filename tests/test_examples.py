"""Every example and tutorial runs as a script, and ``make demo``'s says and writes what the README promises."""

from __future__ import annotations

import os
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
    "pretrain_pictures": ["87 pictures, 24 steps", "before: ", "after: ", "test pictures are right"],
    "small_vit": ["held-out crops:", "same class as teacher", "--encoder timm:"],
    "walls": ["walls: 6 of the pictures", "wrong label"],
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


TUTORIALS = {
    "3_confused_classes": ["brick taken for grass: 12 times", "100% of 12 others are right"],
    "1_own_pictures": [
        "sure - In cases like this, the prediction is right",
        "where: do not rely",
        "unlike anything it knows",
    ],
    "4_search_and_batch": ["coffee.png     espresso", "broken.png     is text, not a picture"],
    "2_torch_model": ["espresso 95%", "Give at least 10 pictures."],
}
ONE_BY_ONE = """
import runpy, sys
for path in sys.argv[1:]:
    print("==", path)
    runpy.run_path(path, run_name="__main__")
"""


@pytest.mark.slow
def test_tutorials_run_and_say_what_their_text_rests_on(tmp_path: Path) -> None:
    """As plain scripts, in one process."""
    paths = sorted((EXAMPLES / "tutorials").glob("*.py"))
    assert [path.stem for path in paths] == sorted(TUTORIALS)
    command = [sys.executable, "-W", "error", "-c", ONE_BY_ONE, *map(str, paths)]
    env = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, cwd=tmp_path, env=env, capture_output=True, encoding="utf-8", timeout=300)
    assert (done.returncode, done.stderr) == (0, "")
    for path, said in zip(paths, done.stdout.split("== ")[1:], strict=True):
        assert [text for text in TUTORIALS[path.stem] if text not in said] == [], said
