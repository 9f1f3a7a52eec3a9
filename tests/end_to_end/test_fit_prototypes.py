"""Prototypes from the command line, on photographs that come with scikit-image: fitted, shown, killed, refused."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from seewhy.prototypes.perturbations import PROPERTIES

pytestmark = pytest.mark.slow
SURFACES = ("brick", "grass", "gravel")
QUICK = ("--set", "n_prototypes=4", "--set", "shrinkage=0.2", "--set", "n_rotated=32")
Run = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three surfaces, eight parts of each to fit on and two to test on."""
    import skimage.data

    folder = tmp_path_factory.mktemp("surfaces")
    for label in SURFACES:
        photo = Image.fromarray(getattr(skimage.data, label)())
        for i in range(10):
            left, top = 128 * (i // 4), 128 * (i % 4)
            path = folder / ("photos" if i < 8 else "test") / label / f"{label}-{i}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            photo.crop((left, top, left + 128, top + 128)).save(path)
    return folder


def command(*arguments: object) -> list[str]:
    return [sys.executable, "-m", "seewhy", *map(str, arguments)]


@pytest.fixture(scope="module")
def run(own_cache: Path, place: Path) -> Run:
    """Runs ``seewhy ARGUMENTS`` among the photographs."""

    def call(*arguments: object) -> subprocess.CompletedProcess[str]:
        return subprocess.run(command(*arguments), capture_output=True, text=True, cwd=place, timeout=300)

    return call


def said(done: subprocess.CompletedProcess[str]) -> dict[str, Any]:
    assert done.returncode == 0, done.stderr
    (row,) = [json.loads(line) for line in done.stdout.splitlines()]
    return row


@pytest.fixture(scope="module")
def fitted(run: Run) -> dict[str, Any]:
    """A classifier with EPIC's prototypes; the JSON of ``fit-prototypes``."""
    said(run("fit", "photos", "-o", "model", "--set", "n_crops=0", "--json", "--quiet"))
    return said(run("fit", "photos", "--task", "prototypes", "-m", "model", *QUICK, "--json"))


def test_fit_prototypes_says_what_it_found(fitted: dict[str, Any], place: Path) -> None:
    assert not fitted["kept"]
    assert fitted["n_pictures"] == 24
    assert fitted["logit_difference"] < 1e-4
    assert fitted["decisions_kept"] == 1
    files = {p.name for p in (place / "model" / "prototypes").iterdir()}
    assert files == {"epic.safetensors", "epic.json"}


def test_a_second_call_finds_everything_there(run: Run, fitted: dict[str, Any], place: Path) -> None:
    written = (place / fitted["prototypes"]).stat().st_mtime_ns
    again = said(run("fit", "photos", "--task", "prototypes", "-m", "model", *QUICK, "--json"))
    assert again["kept"]
    assert again["held_out"] == fitted["held_out"]
    assert (place / fitted["prototypes"]).stat().st_mtime_ns == written
    shown = run("fit", "photos", "--task", "prototypes", "-m", "model", *QUICK)
    assert shown.stdout.startswith("The folder already has the prototypes of these pictures and settings:\n")


def test_explain_shows_channels_with_their_influences(run: Run, fitted: dict[str, Any], place: Path) -> None:
    row = said(run("explain", "test/brick/brick-8.png", "-m", "model", "--because", "-o", "card.html", "--json"))
    assert row["like_measured"]["method"] == "epic"
    assert all({"channel", "contribution", "because"} <= set(near) for near in row["like"])
    assert all(set(near["because"]["lost"]) == set(PROPERTIES) for near in row["like"])
    assert all(Path(place, near["image"]).is_file() for near in row["like"])
    assert 'class="because"' in (place / "card.html").read_text("utf-8")
    plain = said(run("explain", "test/brick/brick-8.png", "-m", "model", "--like", "nearest", "-o", "n.html", "--json"))
    assert plain["like_measured"]["method"] == "nearest"
    assert plain["top"] == row["top"]


def test_evaluate_counts_what_epic_shows(run: Run, fitted: dict[str, Any]) -> None:
    found = said(run("evaluate", "test", "-m", "model", "--n-explained", 2, "--json"))
    assert found["accuracy"] == 1
    assert 0 <= found["like"]["held_out_precision"] <= 1
    assert found["like"]["chance"] == pytest.approx(fitted["likeness"]["chance"], abs=1e-3)


def test_pictures_that_voted(run: Run, place: Path) -> None:
    made = said(run("fit", "photos", "-o", "knn", "--method", "neighbours", "--json", "--quiet"))
    assert set(made["removal"]) == {"changed", "changed_random", "n"}
    row = said(run("explain", "test/grass/grass-8.png", "-m", "knn", "-o", "voted.html", "--no-measure", "--json"))
    assert row["like_measured"]["method"] == "voters"
    assert row["like_measured"]["share_shown"] == pytest.approx(sum(n["share"] for n in row["like"]), abs=1e-3)
    best = max(row["like"], key=lambda near: near["share"])
    assert best["label"] == row["label"]
    assert "of the vote" in (place / "voted.html").read_text("utf-8")


def test_a_head_that_epic_cannot_use_is_refused_in_one_line(run: Run, place: Path) -> None:
    quick = [x for s in ("n_rounds=1", "n_steps=4", "last_steps=4", "n_crops=0") for x in ("--set", s)]
    said(run("fit", "photos", "-o", "parts", "--method", "protopnet", *quick, "--json", "--quiet"))
    done = run("fit", "photos", "--task", "prototypes", "-m", "parts")
    assert done.returncode == 2
    assert done.stdout == ""
    assert done.stderr.splitlines()[-1] == (
        "seewhy: EPIC needs an encoder that pools by the mean, with or without a layer norm, got NearestSimilarity of "
        "'lite0'. Use --like nearest."
    )
    assert not (place / "parts" / "prototypes").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ["--method", "nearest"],
            ("nearest needs no fitting, because it already has its prototypes. Give another method."),
        ),
        (["--method", "epik"], "There is no prototype called 'epik'. Did you mean 'epic'?"),
    ],
)
def test_a_mistake_is_one_line(run: Run, fitted: dict[str, Any], arguments: list[str], message: str) -> None:
    done = run("fit", "photos", "-m", "model", "--task", "prototypes", *arguments)
    assert (done.returncode, done.stdout, done.stderr) == (2, "", f"seewhy: {message}\n")


@pytest.mark.skipif(os.name != "posix", reason="this system has no SIGKILL")
def test_killed_it_goes_on_and_ends_as_if_nothing_had_happened(run: Run, fitted: dict[str, Any], place: Path) -> None:
    """Killed as soon as anything is written, twice, and once more when the prototypes are there.

    On a busy machine a run may end before it is killed: then all begins again.
    """
    asked = ["fit", "photos", "--task", "prototypes", "-m", "model", *QUICK, "--json", "-o"]
    expected, cut = said(run(*asked, "whole")), place / "cut"
    for _ in range(5):
        shutil.rmtree(cut, ignore_errors=True)
        n_killed = 0
        for _ in "12":
            before = on_disk(cut)
            n_killed += killed_when(lambda before=before: on_disk(cut) != before, [*asked, "cut"], place)
        n_killed += killed_when(lambda: (cut / "epic.json").exists(), [*asked, "cut"], place)
        if n_killed == 3:
            break
    assert n_killed == 3
    found = said(run(*asked, "cut"))
    for one in (found, expected):
        one.pop("prototypes"), one.pop("kept")
    assert close(found, expected)
    names = {p.name for p in cut.iterdir() if p.suffix != ".part"}  # what a kill leaves of a file half written
    assert names == {"epic.safetensors", "epic.json"}


def on_disk(folder: Path) -> set[tuple[str, int]]:
    """Names and times of what is there."""
    return {(p.name, p.stat().st_mtime_ns) for p in folder.iterdir()} if folder.is_dir() else set()


def killed_when(moment: Callable[[], bool], arguments: Sequence[object], place: Path) -> bool:
    """Whether a run was still there to be killed at this moment."""
    process = subprocess.Popen(
        command(*arguments), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=place
    )
    while process.poll() is None and not moment():
        time.sleep(0.005)
    is_running = process.poll() is None
    process.kill()
    process.communicate()
    return is_running


def close(a: Any, b: Any) -> bool:
    """The same but for the last digits, which hang on how pictures met in a batch."""
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(close(a[k], b[k]) for k in a)
    if isinstance(a, list):
        return len(a) == len(b) and all(close(x, y) for x, y in zip(a, b, strict=True))
    return bool(a == pytest.approx(b, abs=1e-3)) if isinstance(a, float) else bool(a == b)
