"""Audits that fail for a planted mark at one place of the frame, for a background, and for drift."""

from __future__ import annotations

import re
from dataclasses import asdict, replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from typer.testing import CliRunner

from planting import CLASSES, SIDE, reader
from schemas import check
from seewhy.classifiers.base import Classifier
from seewhy.classifiers.known_pictures import KnownPictures
from seewhy.classifiers.linear.recipe import Linear
from seewhy.cli import app
from seewhy.errors import DataError, InputError
from seewhy.pictures.samples import Sample, Samples, gathered
from seewhy.report.blocks import Section
from seewhy.studies.auditing.audit import Audit, audit
from seewhy.studies.auditing.contract import CHECKS, Contract
from seewhy.studies.auditing.drift import FAR, N_SHOWN, Drift, DriftTest, sentence, todo
from seewhy.studies.inspection.check import small_picture
from tiny import colours, picture

LABELS = ("moss", "rust", "sky")


def asked(name: str, **changes: Any) -> Contract:
    return Contract({name: replace(CHECKS[name].limit, **{"required": True, **changes})})


def figure(found: Audit, name: str) -> dict[str, Any]:
    return next(dict(row) for row in found.data["figures"] if row["name"] == name)


@cache
def marked(place: tuple[int, int] | None) -> Samples:
    """Texture with a bright square of the class's colour, always at this place, or anywhere."""
    items = []
    for i in range(32):
        rng = np.random.default_rng(i)
        pixels = rng.uniform(0.1, 0.6, (SIDE, SIDE, 3))
        top, left = place or (8 * int(rng.integers(8)), 8 * int(rng.integers(8)))
        pixels[top : top + 8, left : left + 8, i % 3] = 0.95
        items.append(Sample(f"m{i}", CLASSES[i % 3], pixels=(pixels * 255).round().astype(np.uint8)))
    return gathered(items)


def test_a_mark_at_one_place_fails_it_and_one_that_moves_does_not() -> None:
    found = audit(reader("cnn", False), marked((0, 56)), contract=asked("one_place"))
    row = figure(found, "one_place")
    assert (row["state"], row["value"]) == ("fail", 1.0)
    assert row["meaning"].startswith(
        "Pasting the upper right of another picture changes 100.0 % of predictions; pasting other places changes 0.0 %."
    )
    assert found.data["place"] == {
        "boxes": [[0.75, 0.0, 1.0, 0.25]] * 2, "share": 1.0, "changed": 1.0, "changed_elsewhere": 0.0
    }  # fmt: skip
    check("audit", [{**found.data, "report": None}])
    moving = audit(reader("cnn", False), marked(None), contract=asked("one_place"))
    assert moving.passed
    assert abs(figure(moving, "one_place")["value"]) < 0.3


def test_a_mark_in_the_middle_is_taken_for_the_object() -> None:
    assert audit(reader("cnn", False), marked((32, 32)), contract=asked("one_place")).passed


def test_what_the_place_needs_is_told() -> None:
    one = gathered([s for s in marked(None).items if s.label == "red"])
    for samples, says in (
        (one, "All cards predict the same class"),
        (gathered(list(marked(None).items[:6])), "6 cards"),
    ):
        found = audit(reader("cnn", False), samples, contract=asked("one_place", required=True))
        assert figure(found, "one_place")["meaning"].startswith(says)
        assert not found.passed


class Known:
    """Where a symbol is, or is not."""

    told, by_hand, seal = "planted", True, ""

    def __init__(self, inside: bool) -> None:
        self.inside = inside

    def mask(self, sample: Sample, view: Any) -> torch.Tensor:
        bright = torch.from_numpy((np.asarray(sample.pixels) > 200).any(2))
        return bright if self.inside else ~bright


def test_a_model_that_reads_what_is_around_the_object_fails_it() -> None:
    around = audit(reader("cnn", False), marked(None), contract=asked("background"), masks=Known(False))
    assert figure(around, "background")["state"] == "fail"
    inside = audit(reader("cnn", False), marked(None), contract=asked("background"), masks=Known(True))
    assert figure(inside, "background")["state"] == "pass"
    nobody = audit(reader("cnn", False), marked(None), contract=asked("background", required=True))
    assert not nobody.passed
    assert (
        figure(nobody, "background")["meaning"] == "The positions of the objects are unknown. Give --masks or --object."
    )


@cache
def fitted() -> Classifier:
    items = [Sample(f"fit {c} {i}", c, pixels=picture(c, i)) for c in LABELS for i in range(30)]
    return Linear(n_crops=0).fit(colours(), gathered(items))


def seen(change: float = 0.0, start: int = 200, n: int = 20) -> Samples:
    return gathered([
        Sample(f"{c} {i}", c, pixels=(picture(c, start + i) * (1 - change)).astype(np.uint8)) for c in LABELS
        for i in range(n)
    ])  # fmt: skip


def test_darker_pictures_are_drift_and_new_ones_of_the_same_kind_are_not() -> None:
    test = DriftTest(n_permutations=199)
    same, dark = (test.run(fitted(), seen(change).items) for change in (0.0, 0.4))
    check("drift", [{**same.data, "report": None}, {**dark.data, "report": None}])
    assert (same.data["drift"], dark.data["drift"], dark.data["p"]) == ("no", "yes", 0.005)
    assert dark.data["far"]["value"] > 0.5 > same.data["far"]["value"]
    assert dark.data["energy"] > 10 * abs(same.data["energy"])
    assert same.sentence.startswith("No difference was found between the ")
    assert dark.sentence.startswith(f"The {dark.data['n']} new pictures differ from the ")
    assert "No action is needed." in same.to_html()
    assert "If they show your classes, label some of them and fit again" in dark.to_html()
    assert [p["cosine"] for p in dark.data["pictures"]] == sorted(p["cosine"] for p in dark.data["pictures"])
    for name in ("drift_p", "far_pictures"):
        assert audit(fitted(), seen(), contract=asked(name), n_explained=0).passed
        assert not audit(fitted(), seen(0.4), contract=asked(name), n_explained=0).passed


def test_an_audit_tests_for_drift_once(monkeypatch: pytest.MonkeyPatch) -> None:
    runs, compare = [], DriftTest.compare
    monkeypatch.setattr(DriftTest, "compare", lambda test, *given: runs.append(test.seed) or compare(test, *given))
    both = Contract({**asked("drift_p").limits, **asked("far_pictures").limits})
    assert audit(fitted(), seen(), contract=both, n_explained=0, seed=3).passed
    assert runs == [3]


def test_training_pictures_among_the_new_ones_are_named_first() -> None:
    again = [Sample("renamed", c, pixels=picture(c, i)) for c in LABELS for i in range(3)]
    found = DriftTest(n_permutations=199).run(fitted(), [*seen().items, *again])
    assert found.data["n_fitted_on"] == 3 * len(LABELS)
    assert found.sentence.startswith(f"{3 * len(LABELS)} of the {found.data['n']} new pictures are training pictures")
    assert "Leave out the training pictures, and test again." in found.to_html()


def test_one_class_more_often_than_before_is_named() -> None:
    found = DriftTest(n_permutations=199).run(fitted(), [s for s in seen().items if s.label == "sky"])
    top = found.data["classes"][0]
    assert (top["label"], top["share"]) == ("sky", 1.0)
    assert top["p"] is None or top["p"] < 0.01


def test_false_alarms_are_as_rare_as_the_level() -> None:
    """Features drawn from one source, 40 times, at a level of a tenth."""
    alarms = 0
    for seed in range(40):
        features = torch.randn(80, 32, generator=torch.Generator().manual_seed(seed))
        known = KnownPictures.of([f"{i}" for i in range(40)], ["00" * 32] * 40, features[:40], "e")
        alarms += DriftTest(n_permutations=99, seed=seed).compare(known, features[40:]).p < 0.1
        moved = DriftTest(n_permutations=99, seed=seed).compare(known, features[40:] + 1.0).p
        assert moved == 0.01
    assert alarms <= 9


def test_what_drift_needs_is_told() -> None:
    with pytest.raises(DataError, match=r"^The classifier has no features of its .* with --against\.$"):
        DriftTest().run(reader("cnn", False), marked(None).items)
    with pytest.raises(
        DataError, match=r"^At least 10 new pictures and 10 training pictures are needed, got 4 and \d+\."
    ):
        DriftTest().run(fitted(), seen().items[:4])
    with pytest.raises(InputError, match=r"^`alpha` must be at least 0\.001, the smallest"):
        DriftTest(alpha=0.0001)
    known = fitted().known
    assert known is not None
    other = replace(fitted(), known=replace(known, encoder="another"))
    found = audit(other, seen(), contract=asked("drift_p", required=True), n_explained=0)
    assert figure(found, "drift_p")["meaning"].startswith(
        "The features of the training pictures are from another state"
    )


@pytest.mark.parametrize("n", [1, 50, 400])
def test_the_page_shows_the_strangest_pictures_first(n: int, tmp_path: Path) -> None:
    """From the JSON alone: one picture, as many as are shown, and more; the second cannot be read any more."""
    rows: list[dict[str, Any]] = [
        {"image": f"{tmp_path}/a_{i}.png", "label": "moss", "cosine": i / n, "far": i < 1, "nearest": f"fit_{i}.png"}
        for i in range(min(n, N_SHOWN))
    ]
    for i, row in enumerate(rows):
        if i != 1:
            Image.fromarray(picture("moss", i)).save(row["image"])
    classes = [{"label": "moss", "n": n, "share": 1.0, "expected": 0.5, "p": 0.5}]
    data = {
        "drift": "no", "n": n, "n_known": 30, "n_fitted_on": 0, "p": 0.4, "classes": classes, "pictures": rows,
        "far": {"value": 1 / n, "interval": [0.0, 0.2], "expected": FAR}, "settings": asdict(DriftTest()),
    }  # fmt: skip
    found = Drift({"sentence": sentence(data), **data}, read=small_picture)
    page = " ".join(found.to_html().split())
    tile = r"<span>(a_\d+\.png)</span><span>(\w+) training \((\S+)\)</span><span>predicted moss</span>"
    expected = [(f"a_{i}.png", "unlike" if i < 1 else "like", f"{i / n:.2f}") for i in range(len(rows))]
    assert re.findall(tile, page) == expected
    assert page.count("data:image/") == len(rows) - (n > 1)
    assert ("The 50 most unusual of 400 pictures." in page) == (n == 400)
    before = re.sub(r"<details>.*?</details>", "", page)
    assert ("fit_0.png" in page, "fit_0.png" in before, "energy distance" in before) == (True, False, False)
    listed = next(b for b in found.document().blocks if getattr(b, "title", "") == "The most unusual pictures")
    assert isinstance(listed, Section)
    assert list(listed.blocks[1].facts) == [row["image"] for row in rows[:10]]  # type: ignore[union-attr]


def test_what_to_do_depends_on_what_was_found() -> None:
    far = {"value": 0.5, "interval": [0.0, 0.6]}
    data: dict[str, Any] = {"drift": "no", "classes": [{"p": None}], "far": far, "settings": {"alpha": 0.01}}
    data["n_fitted_on"] = 0
    assert todo(data) == "No action is needed."
    assert todo({**data, "far": {**far, "interval": [0.1, 0.6]}}).startswith("More pictures than expected are unlike")
    assert todo({**data, "classes": [{"p": 0.001}]}).startswith("Check whether these classes have become")
    assert todo({**data, "n_fitted_on": 1}) == "Leave out the training pictures, and test again."
    assert todo({**data, "drift": "yes"}).startswith("Look at the most unusual pictures.")


def test_exit_codes_of_drift(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("seewhy.cli.options.ClassifierChoice.opened", lambda *_: fitted())
    for change, code in ((0.0, 0), (0.4, 1)):
        folder = tmp_path / f"{code}"
        folder.mkdir()
        for s in seen(change, n=8).items:
            Image.fromarray(np.asarray(s.pixels)).save(folder / f"{s.image}.png")
        done = CliRunner().invoke(
            app, ["evaluate", str(folder), "--against", "fit", "-o", str(tmp_path / "out"), "--quiet"]
        )
        assert done.exit_code == code, done.output
    assert (tmp_path / "out" / "drift.html").exists()
