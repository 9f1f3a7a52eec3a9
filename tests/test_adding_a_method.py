"""The package that docs/adding_a_method.md shows, installed: one file and one line a method, and it is everywhere."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tomllib
from collections.abc import Callable
from pathlib import Path

import pytest

from planting import KINDS
from seewhy.catalogue import families
from tiny import class_folders

ROOT = Path(__file__).resolve().parents[1]
PAGE = (ROOT / "docs" / "adding_a_method.md").read_text("utf-8")
POINTS: dict[str, dict[str, str]] = {
    group: points
    for block in re.findall(r"```toml\n(.*?)```", PAGE, re.DOTALL)
    for group, points in tomllib.loads(block)["project"]["entry-points"].items()
}
METHODS = {name: group for group, points in POINTS.items() for name in points if group != "seewhy.encoders"}
DOCUMENT = """
import importlib.util, pathlib, sys
spec = importlib.util.spec_from_file_location("generate", sys.argv[1])
generate = importlib.util.module_from_spec(spec)
spec.loader.exec_module(generate)
generate.ROOT, generate._reports = pathlib.Path.cwd(), lambda: ((), [])
for page in generate.write_missing():
    page.write_text(generate.rendered(page), "utf-8")
new = generate.unscored()
generate.write_scores(new)
print(*new)
"""

TYPE = """
import json, sys
from typer.testing import CliRunner
from seewhy.cli import app
told = []
for arguments in json.loads(sys.argv[1]):
    done = CliRunner().invoke(app, arguments, catch_exceptions=False)
    assert done.exit_code == 0, (arguments, done.output)
    told.append(done.stdout)
print(json.dumps(told))
"""

DRAW = """
import json, sys
import seewhy
from seewhy.report.canvas import Canvas
drawn, text = [], Canvas.text
def recorded(canvas, x, y, words, *rest, **more):
    drawn.append(words)
    return text(canvas, x, y, words, *rest, **more)
Canvas.text = recorded
why = seewhy.load("shown").explain("data/moss/moss_0.png", measure=False)
why.to_png()
print(json.dumps([why.like.method, why.to_html(), drawn]))
"""

PLACES = """
import pathlib, numpy as np
from PIL import Image
rows = ["image,label,left,top,right,bottom"]
for part in ("images", "labels"):
    pathlib.Path("masked", part).mkdir(parents=True)
pathlib.Path("masked/classes.txt").write_text("rest\\nsquare\\n")
for i in range(4):
    mask = np.zeros((64, 64), np.uint8)
    mask[8 * i : 8 * i + 32, 8 * i : 8 * i + 32] = 1
    Image.fromarray(mask).save(f"masked/labels/{i}.png")
    Image.fromarray(np.where(mask, 220, 30 + 10 * i).astype(np.uint8)).convert("RGB").save(f"masked/images/{i}.png")
    rows.append(f"masked/images/{i}.png,square,{8 * i},{8 * i},{8 * i + 32},{8 * i + 32}")
pathlib.Path("boxes.csv").write_text("\\n".join(rows))
"""

Run = Callable[..., str]
pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def package(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The page's files and entry points, as an installed package lies on the path."""
    root = tmp_path_factory.mktemp("site")
    (root / "my_package").mkdir()
    (root / "my_package" / "__init__.py").touch()
    for stem, text in re.findall(r"```python\n# my_package/(\w+)\.py\n(.*?)```", PAGE, re.DOTALL):
        (root / "my_package" / f"{stem}.py").write_text(text, "utf-8")
    info = root / "my_package-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: my_package\nVersion: 1.0\n")
    lines = [f"[{group}]\n" + "".join(f"{k} = {v}\n" for k, v in points.items()) for group, points in POINTS.items()]
    (info / "entry_points.txt").write_text("\n".join(lines))
    return root


@pytest.fixture(scope="module")
def run(package: Path, tmp_path_factory: pytest.TempPathFactory) -> Run:
    folder = tmp_path_factory.mktemp("work")
    class_folders(folder / "data", 6)
    path = os.pathsep.join([str(package), str(ROOT / "src"), *filter(None, [os.environ.get("PYTHONPATH")])])

    def python(*arguments: str, where: Path = folder) -> str:
        done = subprocess.run(
            [sys.executable, *arguments],
            cwd=where,
            env={**os.environ, "PYTHONPATH": path},
            capture_output=True,
            encoding="utf-8",
            timeout=300,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    return python


def test_the_page_shows_one_of_every_kind_in_one_file_and_one_line() -> None:
    kinds = {f"seewhy.{registry.kind}s" for family, registry in families().items() if family != "because"}
    assert set(POINTS) == kinds | {"seewhy.encoders"}
    for points in POINTS.values():
        assert all(place == f"my_package.{name}" for name, place in points.items())
    assert {group: len(points) for group, points in POINTS.items() if len(points) > 1} == {"seewhy.prototypes": 2}


def test_they_are_on_the_command_line(run: Run) -> None:
    how = ["--encoder", "blocks:32", "--store", "none", "--quiet", "--json"]
    one = "data/moss/moss_0.png"
    asked = [
        ["methods", "--json"],
        *(["methods", name, "--json"] for name in METHODS),
        ["fit", "data", "-o", "model", "--method", "nearest_mean", "--set", "scale=10", *how],
        ["predict", one, "-m", "model", *how],
        ["explain", one, "-m", "model", "-o", "why.json", "--where", "top_channels", "--set", "n_channels=2", *how],
        ["fit", "data", "-o", "linear", *how],
        ["explain", one, "-m", "linear", "-o", "like.json", "--like", "own_class", *how],
    ]
    told = [[json.loads(row) for row in text.splitlines()] for text in json.loads(run("-c", TYPE, json.dumps(asked)))]
    kinds = {family: f"seewhy.{registry.kind}s" for family, registry in families().items()}
    assert METHODS.items() <= {row["name"]: kinds[row["family"]] for row in told[0]}.items()
    for name, (row,) in zip(METHODS, told[1:], strict=False):
        assert (row["name"], row["paper"]) == (name, "docs/adding_a_method.md")
    _, (predicted,), (explained,), _, (like,) = told[-5:]
    assert predicted["label"] == "moss"
    assert explained["where"]["method"].startswith("top_channels")
    assert like["like_measured"]["method"] == "own_class"


def test_a_segmenter_and_a_detector_are_fitted_saved_and_used(run: Run) -> None:
    run("-c", PLACES)
    how, one = ["--encoder", "blocks:32", "--quiet", "--json"], "masked/images/0.png"
    asked = [
        ["fit", "masked", "-o", "seg", "--task", "masks", "--method", "cell_means", *how],
        ["segment", one, "-m", "seg", *how],
        ["fit", "boxes.csv", "-o", "det", "--task", "boxes", "--method", "mean_box", *how],
        ["detect", one, "-m", "det", *how],
        ["evaluate", "boxes.csv", "-m", "det", *how],
    ]
    told = [json.loads(text) for text in json.loads(run("-c", TYPE, json.dumps(asked)))]
    assert {part["label"] for part in told[1]["segments"]} == {"rest", "square"}
    assert [(box["label"], box["score"]) for box in told[3]["detections"]] == [("square", 1.0)]
    assert told[4]["n_found"] == 4


def test_fitted_prototypes_are_made_found_and_shown_under_their_own_title(run: Run) -> None:
    how = ["--store", "none", "--quiet", "--json"]
    fitted = ["fit", "data", "-m", "shown", "--task", "prototypes", "--method", "exemplars"]
    fitted += ["--set", "per_class=3", *how[:-1]]
    asked = [["fit", "data", "-o", "shown", *how], [*fitted, "--json"], fitted]
    _, made, again = json.loads(run("-c", TYPE, json.dumps(asked)))
    place = json.loads(made)["prototypes"]
    assert place.endswith("shown/prototypes/exemplars.safetensors")
    assert json.loads(made) == {"prototypes": place, "kept": False, "n_pictures": 18}
    there = "The folder already has the prototypes of these pictures and settings:"
    assert again.splitlines() == [there, f"{place}: 9 exemplars of 18 pictures"]
    method, page, drawn = json.loads(run("-c", DRAW))
    assert method == "exemplars"
    title = "Which exemplars it has, of your pictures"
    assert f'<h2 id="like-title">{title}</h2>' in page
    assert re.search(rf"{title}</h2>.{{0,900}}?Not measured", page, re.DOTALL)
    assert "<span>exemplar</span>" in page, "their table names them"
    assert title in drawn


def test_the_encoder_is_listed(run: Run) -> None:
    listed = run("-c", "import seewhy; print(seewhy.list_encoders('blocks:*'))")
    assert listed == "['blocks:16', 'blocks:32']\n"


def test_their_pages_are_written(run: Run, tmp_path: Path) -> None:
    (tmp_path / "docs").mkdir()
    new = run("-c", DOCUMENT, str(ROOT / "docs" / "generate.py"), where=tmp_path)
    assert new.split() == ["top_channels"], "what make docs scores on planted evidence"
    kept, ours = (json.loads((root / "src/seewhy/planted.json").read_text("utf-8")) for root in (tmp_path, ROOT))
    mine = [row for row in kept["scores"] if row["method"] == "top_channels"]
    assert {(row["architecture"], row["kind"]) for row in mine} == {
        (a, k) for a in ("cnn", "transformer") for k in KINDS
    }
    assert all(row["n"] == 10 for row in mine)
    assert {**kept, "scores": [row for row in kept["scores"] if row not in mine]} == ours
    for name in METHODS:
        page = (tmp_path / "docs" / "methods" / f"{name}.md").read_text("utf-8")
        assert page.startswith(f"# {name}\n")
        assert "docs/adding_a_method.md" in page, "the paper, from the class"
    assert "| `margin` | `2.0` |" in page_of(tmp_path, "hardest_text")
    assert "the positive heat on the hottest tenth" in page_of(tmp_path, "hottest_tenth")


def test_the_places_that_the_page_names_are_there() -> None:
    steps = PAGE.partition("## In SeeWhy itself")[2]
    folder = Path(re.findall(r"`(src/\S+/)top_channels\.py`", steps)[0])
    assert "grad_cam.py" in {path.name for path in (ROOT / folder).iterdir()}
    assert '"grad_cam",' in (ROOT / folder / "__init__.py").read_text("utf-8")
    assert "SCHEMES" in (ROOT / "src/seewhy/encoders/find.py").read_text("utf-8")
    assert (ROOT / re.findall(r"`(\S+planted\.json)`", steps)[0]).exists()
    assert "docs/generate.py" in (ROOT / "Makefile").read_text("utf-8").partition("\ndocs:")[2].partition("\n\n")[0]


def page_of(root: Path, name: str) -> str:
    return (root / "docs" / "methods" / f"{name}.md").read_text("utf-8")


def test_the_contracts_hold_them_to_account(run: Run) -> None:
    other = {"seewhy.objectives": "every_objective"}
    kinds = {name: other.get(group, group.partition(".")[2]) for name, group in METHODS.items()} | {"blocks": "schemes"}
    files = [f"tests/contracts/test_{kind}.py" for kind in dict.fromkeys(kinds.values())]
    only = ["-k", " or ".join(kinds), "-p", "no:cacheprovider", "-rA", "--tb=short"]
    said = run("-m", "pytest", *files, *only, where=ROOT)
    passed = re.findall(r"^PASSED tests/contracts/test_(\w+)\.py::(.+)$", said, re.MULTILINE)
    for name, kind in kinds.items():
        n = sum(kind == k and name in test for k, test in passed)
        assert n >= 3, f"{name} was hardly asked anything: {n}"
