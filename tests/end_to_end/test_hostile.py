"""A folder of broken, odd and harmful files through the real command line: each named, none in the way of others."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from hostile import OUTCOMES, make_hostile_folder
from tiny import CLASSES, class_folders

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def hostile(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, OUTCOMES]:
    root = tmp_path_factory.mktemp("hostile")
    return root, make_hostile_folder(root)


def files(outcomes: OUTCOMES) -> list[str]:
    """Every name but those of folders, which mean the pictures in them."""
    return [n for n in outcomes if n not in ("loop", "folder.png")]


def seewhy(*arguments: object, where: Path, stdin: str = "") -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-X", "utf8", "-m", "seewhy", *map(str, arguments)]
    return subprocess.run(
        command, input=stdin, capture_output=True, encoding="utf-8", errors="surrogateescape", cwd=where, timeout=300
    )


def check(found: list[dict[str, Any]], root: Path, names: list[str], outcomes: OUTCOMES) -> None:
    assert [row["image"] for row in found] == [str(root / n) for n in names]
    for row, name in zip(found, names, strict=True):
        expected = outcomes[name]
        if expected is None:
            assert "label" in row, row
        else:
            assert set(row) == {"image", "error"}
            assert expected in row["error"]


def test_predict_names_every_file(hostile: tuple[Path, OUTCOMES], tmp_path: Path) -> None:
    root, outcomes = hostile
    names = files(outcomes)
    done = seewhy("predict", *(root / n for n in names), "--json", where=tmp_path)
    check([json.loads(line) for line in done.stdout.splitlines()], root, names, outcomes)
    n_bad = sum(outcomes[n] is not None for n in names)
    assert done.returncode == 1
    said = [line for line in done.stderr.splitlines() if line.startswith("seewhy: ")]
    assert said[-1] == f"seewhy: {len(names) - n_bad} done, {n_bad} could not be read (named above)"
    assert len(said) == n_bad + 1
    assert "Traceback" not in done.stderr


def test_predict_walks_the_folder_and_reads_names_from_standard_input(
    hostile: tuple[Path, OUTCOMES], tmp_path: Path
) -> None:
    root, outcomes = hostile
    walked = seewhy("predict", root, "--json", where=tmp_path)
    found = {row["image"] for row in map(json.loads, walked.stdout.splitlines())}
    readable = {str(root / n) for n, o in outcomes.items() if o is None}
    assert readable <= found
    plain = [n for n in files(outcomes) if "\n" not in n]
    piped = seewhy("predict", "-", "--json", where=tmp_path, stdin="".join(f"{root / n}\n" for n in plain))
    check([json.loads(line) for line in piped.stdout.splitlines()], root, plain, outcomes)


def test_explain_names_every_file(hostile: tuple[Path, OUTCOMES], tmp_path: Path) -> None:
    root, outcomes = hostile
    names = files(outcomes)
    done = seewhy("explain", *(root / n for n in names), "--no-measure", "--json", "-o", "why", where=tmp_path)
    found = [json.loads(line) for line in done.stdout.splitlines()]
    check(found, root, names, outcomes)
    assert done.returncode == 1
    cards = [tmp_path / row["card"] for row in found if "card" in row]
    assert len(set(cards)) == len(cards) == sum(o is None for o in outcomes.values())
    assert all(card.is_file() and card.parent == tmp_path / "why" for card in cards)


def test_a_named_folder_without_pictures_is_an_error(hostile: tuple[Path, OUTCOMES], tmp_path: Path) -> None:
    done = seewhy("predict", hostile[0] / "folder.png", "--json", where=tmp_path)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == (
        f"seewhy: The folder {hostile[0] / 'folder.png'} and its subfolders have no pictures. "
        "Pictures end in .avif, .bmp, .dcm, .gif, .heic, .heif, .jpeg, .jpg, .png, .tif, "
        ".tiff, .webp. Give another folder, or name the files one by one.\n"
    )


def test_fit_and_evaluate_with_such_files_inside(hostile: tuple[Path, OUTCOMES], tmp_path: Path) -> None:
    root, outcomes = hostile
    folders = class_folders(tmp_path / "data", 3, CLASSES[:2], side=96)
    for name in outcomes:
        if (root / name).is_file() and (root / name).stat().st_size < 10**8:
            shutil.copy(root / name, folders / "moss" / name)
    done = seewhy("fit", folders, "-o", "model", "--set", "n_crops=0", "--json", where=tmp_path)
    assert done.returncode == 0, done.stderr
    record = json.loads(done.stdout)
    failed = {Path(f["image"]).name: f["error"] for f in record["failures"]}
    bad = {n: o for n, o in outcomes.items() if o is not None and (folders / "moss" / n).exists()}
    assert set(failed) == {n for n in bad if Path(n).suffix.lower() != ".txt"}
    assert all(bad[n] in error for n, error in failed.items())
    judged = seewhy("evaluate", folders, "-m", "model", "--n-explained", 0, "--json", where=tmp_path)
    assert judged.returncode == 0
    report = json.loads(judged.stdout)
    assert {Path(f["image"]).name for f in report["failures"]} == set(failed)
    assert report["n"] == record["n_pictures"]


def test_a_folder_of_nothing_else(tmp_path: Path) -> None:
    for label in ("a", "b"):
        (tmp_path / "data" / label).mkdir(parents=True)
        (tmp_path / "data" / label / "x.png").write_text("Not a picture at all.\n")
    done = seewhy("fit", "data", "-o", "model", where=tmp_path)
    assert done.returncode == 2
    assert done.stderr.splitlines()[-1] == (
        "seewhy: None of the 2 pictures can be read. The first is data/a/x.png: is text, not "
        "a picture; check what wrote it."
    )
    assert not (tmp_path / "model").exists()
