"""Pictures in which something is wrong on purpose are found, each with its reason; others are not."""

from __future__ import annotations

import csv
import json
import re
import shutil
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image, ImageFilter
from rich.console import Console
from typer.testing import CliRunner

from schemas import check as as_documented
from seewhy.cli import app
from seewhy.errors import DataError, InputError, MissingExtraError
from seewhy.pictures.miniatures import miniature
from seewhy.pictures.samples import Sample, Samples, load_samples
from seewhy.progress import Progress
from seewhy.report.terminal import to_terminal
from seewhy.studies.inspection.check import KINDS, Check, Checked, digest_of
from seewhy.studies.inspection.faults import (
    FAR,
    HeldOutScores,
    find_copies,
    joined,
    neighbours,
    pixel_facts,
    pixel_faults,
    ranker,
    strangeness,
)
from tiny import COLOURS, tiny_cnn

SIDE = 64


def scene(seed: int) -> np.ndarray:
    """Sharp blocks with no colour of their own."""
    draw = np.random.default_rng(seed)
    return np.kron(draw.integers(30, 220, (16, 16, 1)), np.ones((4, 4, 3), int)).astype(np.uint8)


def tinted(seed: int, label: str) -> np.ndarray:
    return (0.3 * scene(seed) + 0.7 * np.array(COLOURS[label])).clip(0, 255).astype(np.uint8)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Three classes of ten, and one picture of each fault."""
    root = tmp_path / "photos"
    for k, label in enumerate(("moss", "rust", "sky")):
        (root / label).mkdir(parents=True)
        for i in range(10):
            Image.fromarray(tinted(100 * k + i, label)).save(root / label / f"{i}.png")
    Image.fromarray(tinted(950, "rust")).save(root / "moss" / "wrong.png")
    Image.fromarray(tinted(100, "rust")[:, ::-1]).resize((60, 60)).save(root / "rust" / "mirrored.jpg", quality=80)
    shutil.copy(root / "sky" / "3.png", root / "moss" / "twice.png")
    Image.fromarray(np.full((SIDE, SIDE, 3), 90, np.uint8)).save(root / "sky" / "blank.png")
    (root / "rust" / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\nhalf")
    return root


def kinds(data: dict[str, Any]) -> dict[str, set[str]]:
    found: dict[str, set[str]] = {}
    for one in data["findings"]:
        found.setdefault(one["kind"], set()).add(Path(one["image"]).name)
    return found


def test_everything_planted_is_found_with_its_reason(folder: Path) -> None:
    progress = Progress()
    found = Check(by="confident").run(tiny_cnn(), load_samples(folder), progress=progress).data
    by = kinds(found)
    assert by["label"] == {"wrong.png"}
    assert by["contradiction"] == {"3.png", "twice.png"}
    assert by["copy"] == {"mirrored.jpg"}
    assert by["broken"] == {"broken.png"} == {Path(f.image).name for f in progress.failures}
    assert by["blank"] == {"blank.png"}
    assert sum(found["counts"].values()) == len(found["findings"])
    (wrong,) = [f for f in found["findings"] if f["kind"] == "label"]
    assert (wrong["label"], wrong["proposed"]) == ("moss", "rust")
    assert wrong["why"].startswith("A model trained without this picture gives probabilities of ")
    assert " to its label 'moss'" in wrong["why"]
    assert {one["label"] for one in wrong["like"]["own"]} == {"moss"}
    assert {one["label"] for one in wrong["like"]["other"]} == {"rust"}
    assert wrong["figures"].startswith("Pictures labelled 'rust' have a probability of ")
    assert " The nearest picture labelled 'rust' has a cosine of " in wrong["figures"]
    twice = next(f for f in found["findings"] if f["image"].endswith("twice.png"))
    assert (twice["proposed"], len(twice["key"])) == ("sky", 16)
    assert twice["why"].endswith("/sky/3.png is labelled 'sky' (same file).")
    assert found["n"] == 34
    assert max(len(f["why"].split()) for f in found["findings"]) <= 20
    assert all(len(sentence.split()) <= 20 for kind in KINDS.values() for sentence in kind.todo.split(". "))


def test_a_page_says_what_to_do_and_keeps_figures_behind_a_click(folder: Path) -> None:
    found = Check(by="confident").run(tiny_cnn(), load_samples(folder))
    page = " ".join(found.to_html().split())
    total = len(found.data["findings"])
    assert f'<h1 class="long">{total} findings in 35 pictures</h1>' in page
    for kind, n in found.data["counts"].items():
        assert (f'<p class="lead">{KINDS[kind].todo}</p>' in page) == (n > 0)
    before = re.sub(r"<details>.*?</details>|<[^>]*>", " ", page)
    assert "cosine" not in before
    assert page.count("<summary>Figures</summary>") == sum(bool(f["figures"]) for f in found.data["findings"]) > 0
    empty = Checked({**found.data, "findings": [], "sentence": "No problems found in 3 pictures."}).to_html()
    assert '<h1 class="long">No problems found in 3 pictures</h1>' in empty
    assert "SeeWhy looked for: unknown label, copies under two labels, " in empty


def test_a_terminal_shows_whole_names_and_the_reason_on_one_line() -> None:
    names = [f"a rather long folder/with_an_underscore/{'x' * 80}_{i}.jpg" for i in range(2)]
    row = {"kind": "blank", "why": "Its brightness hardly changes."}
    twice = [{**row, "image": names[0]}, {**row, "image": names[1]}, {**row, "image": names[1], "why": "Again."}]
    document = Checked({"sentence": "3 findings.", "findings": twice, "notes": []}).document()
    console = Console(soft_wrap=True, width=60)
    with console.capture() as capture:
        console.print(to_terminal(document))
    assert capture.get().splitlines() == [
        "3 findings.", "", "Blank", KINDS["blank"].todo, f"{names[0]}: Its brightness hardly changes.",
        f"{names[1]}: Its brightness hardly changes. Again.",
    ]  # fmt: skip


def test_copies_of_another_split_and_labels_of_no_class(folder: Path, tmp_path: Path) -> None:
    other = tmp_path / "test"
    other.mkdir()
    shutil.copy(folder / "sky" / "5.png", other / "new.png")
    against = Samples((Sample(str(other / "new.png")),), ())
    known = ("moss", "rust", "skye")
    found = Check().run(tiny_cnn(), load_samples(folder), known=known, against=against).data
    (split,) = [f for f in found["findings"] if f["kind"] == "split"]
    assert split["with"] == [str(other / "new.png")]
    strange = [f for f in found["findings"] if f["kind"] == "class"]
    assert {(f["label"], f["proposed"]) for f in strange} == {("sky", "skye")}
    assert len(strange) == 11
    assert strange[0]["why"] == "The label 'sky' is not one of the model's 3 classes. Did you mean 'skye'?"


@pytest.fixture
def table(folder: Path) -> Path:
    """The pictures in one table of three splits, with copies across them."""
    rust = folder / "rust"
    shutil.copy(rust / "1.png", rust / "again.png")
    shutil.copy(rust / "2.png", rust / "unsplit.png")
    splits = {
        "rust/unsplit.png": "",
        "rust/mirrored.jpg": "test",
        "rust/again.png": "val",
        "moss/twice.png": "test",
        "sky/blank.png": "",
    }
    names = [
        Path(s.image).relative_to(folder) for s in load_samples(folder).items if not s.image.endswith("broken.png")
    ]
    rows = [f"{name},{name.parent},{splits.get(str(name), 'train')}" for name in names]
    path = folder / "all.csv"
    path.write_text("\n".join(["image,label,part", *rows]) + "\n")
    return path


def test_copies_across_the_splits_of_one_table(table: Path) -> None:
    samples = load_samples(table, split="part")
    assert [s.split for s in samples.items if s.image.endswith("blank.png")] == [None]
    found = Check(by="confident").run(tiny_cnn(), samples).data
    by = {Path(f["image"]).name: f for f in found["findings"] if f["kind"] == "split"}
    assert {name: tuple(f["splits"]) for name, f in by.items()} == {
        "again.png": ("val", "train"), "mirrored.jpg": ("test", "train"), "3.png": ("train", "test")
    }  # fmt: skip
    assert [Path(name).name for name in by["again.png"]["with"]] == ["1.png"]
    assert by["again.png"]["why"] == (
        f"It is in the split 'val', and its copy {table.parent / 'rust' / '1.png'} is in the split 'train' (same file)."
    )
    assert "(agreement 1.00 of 1)" in by["mirrored.jpg"]["why"]
    assert found["copies_across"] == [{"splits": ["test", "train"], "n": 2}, {"splits": ["train", "val"], "n": 1}]
    assert kinds(found)["contradiction"] == {"3.png", "twice.png"}  # another label than its copy in another split
    assert (found["counts"]["split"], kinds(found)["copy"]) == (3, {"unsplit.png"})
    assert found["notes"] == [
        "2 picture(s) have no split, so their copies are not reported as copies across splits: "
        f"{table.parent / 'rust' / 'unsplit.png'}, {table.parent / 'sky' / 'blank.png'}"
    ]
    plain = Check(by="confident").run(tiny_cnn(), load_samples(table)).data
    assert (plain["counts"]["split"], plain["counts"]["copy"], plain["copies_across"]) == (0, 3, [])
    assert plain["notes"] == []


def test_a_copy_in_another_split_says_nothing_of_a_label(table: Path) -> None:
    """A wrong one, saved again in another split with the same label: no head learns it, and it is not shown as like."""
    wrong = table.parent / "moss" / "wrong.png"
    Image.open(wrong).save(wrong.with_name("saved.png"), compress_level=1)
    table.write_text(table.read_text() + "moss/saved.png,moss,val\n")
    found = Check(by="confident").run(tiny_cnn(), load_samples(table, split="part")).data
    labels = {Path(f["image"]).name: f for f in found["findings"] if f["kind"] == "label"}
    assert {"wrong.png", "saved.png"} <= set(labels)
    shown = {Path(one["image"]).name for f in labels.values() for one in f["like"]["own"]}
    assert not shown & {"wrong.png", "saved.png"}


def test_splits_are_of_tables(folder: Path, table: Path) -> None:
    with pytest.raises(DataError, match=r"^.*photos is a folder, so it has no column 'part' of splits"):
        load_samples(folder, split="part")
    with pytest.raises(
        DataError, match=r"has no column 'past' that says to which split a picture belongs\. Did you mean 'par"
    ):
        load_samples(table, split="past")


def test_of_the_same_bytes_each_is_told_once_within_and_once_across() -> None:
    pooled, small = torch.eye(5, 16), [miniature(scene(i), (64, 64)) for i in range(5)]
    same = ["a"] * 5
    pairs = [(c.first, c.second) for c in find_copies(pooled, small, same, None, ["x", "y", "x", "y", "z"])]
    assert pairs == [(0, 1), (0, 2), (0, 4), (1, 3), (1, 4)]
    pairs = [(c.first, c.second) for c in find_copies(pooled, small, same, 3, ["x", "y", "x", None, None])]
    assert pairs == [(0, 1), (0, 2), (0, 3), (0, 4), (1, 3), (1, 4)]
    pairs = [(c.first, c.second) for c in find_copies(pooled, small, same, 2, ["x", None, None, "x", "x"])]
    assert pairs == [(0, i) for i in range(1, 5)] + [(1, i) for i in range(2, 5)]
    assert [(c.first, c.second) for c in find_copies(pooled, small, same)] == [(0, i) for i in range(1, 5)]


def test_nothing_that_can_be_read_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(b"no")
    with pytest.raises(DataError, match=r"^None of the 1 pictures can be read\. The first is \S+a\.png\."):
        Check().run(tiny_cnn(), Samples((Sample(str(tmp_path / "a.png"), "moss"),), ("moss",)))
    with pytest.raises(InputError, match=r"^--by must be one of odds, confident, cleanlab, "):
        Check(by="guess")


def test_one_class_is_not_judged_and_the_rest_is_looked_for(folder: Path) -> None:
    items = tuple(s for s in load_samples(folder).items if s.label == "sky")
    found = Check().run(tiny_cnn(), Samples(items, ("sky",))).data
    assert (found["accuracy"], found["judged"]) == (None, 0)
    assert found["notes"] == ["No label was checked. This needs at least two classes, one of them with two pictures."]
    assert kinds(found) == {"blank": {"blank.png"}}


def scores(p: list[list[float]], labels: list[int], judged: list[bool] | None = None) -> HeldOutScores:
    given = torch.tensor(p)
    of = torch.tensor(judged or [True] * len(labels))
    return HeldOutScores(given, torch.tensor(labels), given / given.norm(dim=1, keepdim=True), torch.arange(len(p)), of)


def test_the_confident_joint_is_the_papers() -> None:
    p = [[0.9, 0.1], [0.7, 0.3], [0.55, 0.45], [0.2, 0.8], [0.4, 0.6], [0.45, 0.55]]
    # Class 0 gets (.9 + .7 + .45) / 3 = .683 of its own, class 1 (.45 + .8 + .6) / 3 = .617, with one more .5125.
    found = ranker("confident")(scores(p, [0, 0, 1, 1, 1, 0]))
    assert found.flagged.tolist() == [False] * 6
    found = ranker("confident")(scores([*p, [0.8, 0.2]], [0, 0, 1, 1, 1, 0, 1]))
    assert found.flagged.tolist() == [False] * 5 + [True, True]
    assert found.proposed.tolist() == [1, 1, 0, 0, 0, 1, 0]
    assert found.doubt[-1].item() == pytest.approx(0.8)
    found = ranker("confident")(scores([*p, [0.8, 0.2]], [0, 0, 1, 1, 1, 0, 1], [True] * 6 + [False]))
    assert not found.flagged.any()  # and without it the mean is .617 again


def test_odds_are_beside_what_a_class_gets_from_others() -> None:
    p = [[0.6, 0.2, 0.2], [0.5, 0.25, 0.25], [0.1, 0.8, 0.1], [0.04, 0.8, 0.16], [0.08, 0.4, 0.52]]
    labels = [0, 0, 1, 1, 0]
    # Class 0 gets (.1 / .8 + .04 / .8) / 2 = .0875 from pictures of class 1, class 1 (1/3 + 1/2 + .4/.52) / 3 = .534.
    found = ranker("odds")(scores(p, labels))
    usual = torch.tensor([0.0875, 0.0875, (1 / 3 + 0.5 + 0.4 / 0.52) / 3, (1 / 3 + 0.5 + 0.4 / 0.52) / 3, 0.0875])
    odds = torch.tensor([3.0, 2.0, 8.0, 5.0, 0.08 / 0.52])
    assert found.doubt.tolist() == pytest.approx((usual / (usual + odds)).tolist())
    assert found.proposed.tolist() == [1, 1, 0, 2, 2]
    assert found.flagged.tolist() == [False] * 5
    wrong = [*p, [0.063, 0.9, 0.037]]  # odds of .07 against a mean of .0875
    found = ranker("odds")(scores(wrong, [*labels, 0]))
    assert found.flagged.tolist() == [False] * 5 + [True]
    assert float(found.doubt[5]) == pytest.approx(0.0875 / (0.0875 + 0.07))
    judged = [True, True, False, True, True, True]  # and class 0 gets .05 from others
    assert not ranker("odds")(scores(wrong, [*labels, 0], judged)).flagged.any()
    assert not ranker("odds")(scores(wrong, [*labels, 0], [True] * 5 + [False])).flagged.any()
    as_much = scores([[0.5, 0.25, 0.25]] * 3, [0, 0, 1])
    assert ranker("odds")(as_much).flagged.tolist() == [False, False, True]
    nothing = scores([[1.0, 0.0, 0.0], [0.0, 1.0, 0.0], [1.0, 0.0, 0.0]], [0, 1, 1])
    assert ranker("odds")(nothing).flagged.tolist() == [False, False, True]


def test_odds_follow_the_part_of_wrong_labels() -> None:
    """Where a fifth of two classes' labels is wrong, no head gives a wrong label less than a quarter of the other."""
    p, labels = [[0.8, 0.2]] * 10 + [[0.2, 0.8]] * 10, [0] * 8 + [1] * 2 + [1] * 8 + [0] * 2
    assert ranker("odds")(scores(p, labels)).flagged.tolist() == [False] * 8 + [True] * 2 + [False] * 8 + [True] * 2


def test_neighbours_vote_and_copies_do_not() -> None:
    x = [[1.0, 0.0], [1.0, 0.1], [1.0, 0.2], [0.0, 1.0], [0.1, 1.0], [1.0, 0.05]]
    given = scores(x, [0, 0, 0, 1, 1, 1])
    found = neighbours(given, k=3)
    assert found.flagged.tolist() == [False, False, False, False, False, True]
    alone = HeldOutScores(
        given.probabilities, given.labels, given.features, torch.tensor([5, 5, 5, 3, 4, 5]), given.judged
    )
    assert not neighbours(alone, k=2).flagged[5]


def test_cleanlab_ranks_where_it_is_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    given = scores([[0.9, 0.1], [0.2, 0.8], [0.8, 0.2]], [0, 1, 1], [True, True, False])
    monkeypatch.setitem(sys.modules, "cleanlab.filter", None)
    with pytest.raises(MissingExtraError, match=r"pip install 'seewhy\[cleanlab\]'"):
        ranker("cleanlab")(given)
    for name, function in (
        ("filter", {"find_label_issues": lambda labels, p, n_jobs: np.array([True, False])}),
        ("rank", {"get_label_quality_scores": lambda labels, p: p[np.arange(len(p)), labels]}),
    ):
        module = ModuleType(name)
        vars(module).update(function)
        monkeypatch.setitem(sys.modules, f"cleanlab.{name}", module)
    monkeypatch.setitem(sys.modules, "cleanlab", ModuleType("cleanlab"))
    found = ranker("cleanlab")(given)
    assert found.flagged.tolist() == [True, False, False]
    assert found.doubt.tolist() == pytest.approx([0.1, 0.2, 0.0])


def faults(pixels: np.ndarray, size: tuple[int, int] = (64, 64)) -> list[str]:
    usual = [pixel_facts(scene(i), (64, 64)) for i in range(3)]
    found = list(pixel_faults([*usual, pixel_facts(pixels, size)]))
    assert all(i == 3 and 0 <= bad <= 1 and why.endswith(".") for i, _, bad, why in found)
    return [kind for _, kind, _, _ in found]


def test_faults_of_the_picture_itself() -> None:
    plain = scene(9)
    assert faults(plain) == []
    assert faults(np.full_like(plain, 128)) == ["blank"]
    assert faults(np.zeros_like(plain)) == ["blank"]
    assert faults((plain * 0.05).astype(np.uint8)) == ["dark"]
    assert faults((plain * 0.2).astype(np.uint8)) == ["dark"]
    assert faults((250 + plain // 50).astype(np.uint8)) == ["blank"]
    white = np.full_like(plain, 255)
    white[:2, :30] = 0
    assert faults(white) == ["overexposed"]
    smooth = np.asarray(Image.fromarray(scene(9)).resize((224, 224)).filter(ImageFilter.GaussianBlur(6)))
    assert faults(smooth, (100, 96)) == ["blurred"]
    assert faults(smooth, (100, 95)) == [], "enlarged so much that nothing can be said"
    assert faults(plain, (128, 127)) == []
    assert faults(plain, (128, 128)) == faults(plain, (32, 32)) == ["size"]
    assert faults(plain, (128, 32)) == faults(plain, (32, 128)) == ["shape"]


def test_copies_are_the_same_bytes_or_the_same_picture() -> None:
    small = [miniature(scene(i), (64, 64)) for i in range(3)]
    pooled = torch.eye(3, 16).repeat(2, 1)
    grey = [small[0], small[1], small[2], miniature(scene(0)[:, ::-1].copy(), (64, 64)), small[2], small[2]]
    found = find_copies(pooled, grey, list("abcdec"))
    assert [(c.first, c.second, c.same_bytes) for c in found] == [
        (0, 3, False),
        (2, 4, False),
        (2, 5, True),
        (4, 5, False),
    ]
    assert min(c.agreement for c in found) > 0.99
    assert [c.second for c in find_copies(pooled, grey, list("abcdec"), n_own=2)] == [3]
    groups = joined(6, found, [None, "x", None, "x", None, None]).tolist()
    assert groups[0] == groups[1] == groups[3]
    assert groups[2] == groups[5]
    assert len(set(groups)) == 2


def test_strangers_lie_far_from_every_class() -> None:
    draw = torch.Generator().manual_seed(0)
    labels = torch.arange(60) % 3
    pooled = torch.eye(3, 12)[labels] * 4 + 0.3 * torch.rand(60, 12, generator=draw)
    pooled[7] = torch.tensor([0.0] * 6 + [5.0] * 6)
    far = strangeness(pooled, labels, torch.arange(60) % 5, 3)
    assert (far > FAR).nonzero().flatten().tolist() == [7]
    assert not strangeness(pooled[:20], labels[:20], torch.arange(20) % 5, 3).any()


def test_the_command_writes_what_it_says(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("seewhy.encoders.find.encoder", lambda _name, engine: tiny_cnn())
    out = tmp_path / "check"
    done = CliRunner().invoke(app, ["check", str(folder), "-o", str(out), "--store", "none", "--json", "-q"])
    assert done.exit_code == 0, done.stderr
    (line,) = done.stdout.splitlines()
    as_documented("check", [json.loads(line)])
    found = json.loads((out / "check.json").read_text())
    assert found["digest"] == digest_of(load_samples(folder).items)
    page = (out / "check.html").read_text()
    assert "Copies under two labels" in page
    assert page.count("data:image/jpeg") >= 6
    assert found["copies_across"] == []
    rows = list(csv.DictReader((out / "findings.csv").read_text().splitlines()))
    assert [(r["kind"], r["why"]) for r in rows] == [(f["kind"], f["why"]) for f in found["findings"]]
    (out / "findings.csv").write_text("mine\n")
    done = CliRunner().invoke(app, ["check", str(folder), "-o", str(out)])
    assert "findings.csv exists, and either SeeWhy did not write it" in str(done.exception)


def test_the_command_takes_a_column_of_splits(table: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("seewhy.encoders.find.encoder", lambda _name, engine: tiny_cnn())
    done = CliRunner().invoke(app, ["check", str(table), "--column", "split=part", "--store", "none", "--json", "-q"])
    assert done.exit_code == 0, done.stderr
    assert [one["n"] for one in json.loads(done.stdout)["copies_across"]] == [2, 1]


def test_an_empty_folder_is_told_in_a_sentence(tmp_path: Path) -> None:
    done = CliRunner().invoke(app, ["check", str(tmp_path)])
    assert str(done.exception) == (f"{tmp_path} must have one subfolder per class, but it has no subfolders.")


def test_findings_come_while_the_check_goes_on(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The cheap ones first: 3,000 pictures once had none after five minutes."""
    monkeypatch.setattr("seewhy.studies.inspection.check.EARLY", 0.0)
    told: list[list[str]] = []
    done = Check().run(tiny_cnn(), load_samples(folder), early=lambda found: told.append([f.kind for f in found]))
    *reading, pixels, copies = told
    assert reading[0] == [], "the pictures are still read"
    assert reading[-1].count("contradiction") == 2, "two equal files"
    assert "broken" in reading[-1]
    assert {"blank", "broken"} < set(pixels) < set(copies) | set(pixels)
    assert (pixels.count("contradiction"), copies.count("copy")) == (2, 1)
    assert "label" not in copies
    assert [f["kind"] for f in done.data["findings"] if f["kind"] in copies] == copies, "in the same order"


def test_a_stopped_check_keeps_its_findings_and_goes_on(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("seewhy.encoders.find.encoder", lambda _name, engine: tiny_cnn())
    out, store = tmp_path / "check", tmp_path / "f.sqlite"
    soon, line = out / "findings-so-far.csv", ["seewhy", "check", str(folder), "-o", str(out), "--store", str(store)]
    monkeypatch.setattr(sys, "argv", line)

    def run() -> tuple[Any, str]:
        from seewhy.cli import main

        with pytest.raises(SystemExit) as ended:
            main()
        return ended.value.code, capfd.readouterr().err

    with monkeypatch.context() as patch:

        def stopped(*_: Any, **__: Any) -> None:
            raise KeyboardInterrupt

        patch.setattr("seewhy.studies.inspection.check.held_out_scores", stopped)
        code, said = run()
    assert code == 130
    notes = [line for line in said.splitlines() if line.startswith("note: so far, ")]
    assert "copies under two labels (2), cannot be read (1), blank (1)" in notes[0]
    assert "copies under two labels (2), copy of another picture (1), cannot be read (1), blank (1)" in notes[1]
    assert f"Kept: {soon} and the features so far, in {store}. Run the same command again to continue" in said
    assert [row["kind"] for row in csv.DictReader(soon.read_text().splitlines())].count("contradiction") == 2
    assert [file.name for file in out.iterdir()] == [soon.name]
    assert run()[0] in (0, None)
    assert sorted(file.name for file in out.iterdir()) == ["check.html", "check.json", "findings.csv"]
    soon.write_text("mine\n")
    assert run()[0] in (0, None), "what is early stops nothing"
    assert soon.read_text() == "mine\n", "and writes over nothing"


def test_the_blur_is_that_of_means_of_nine() -> None:
    pixels = scene(3)
    grey = torch.from_numpy(pixels @ np.array([0.299, 0.587, 0.114], np.float32))[None, None].float() / 255
    worst = 0.0
    for one in (grey, grey.transpose(2, 3)):
        before, after = (x.diff(dim=3).abs() for x in (one[..., 4:-4], torch.nn.functional.avg_pool2d(one, (1, 9), 1)))
        worst = max(worst, float(1 - (before - after).clamp(min=0).sum() / before.sum()))
    assert pixel_facts(pixels, (64, 64)).blur == pytest.approx(worst, abs=1e-5)
