"""Photograph or made: the accuracy never alone, judges that see what they should, a planted background."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from seewhy.encoders.base import Encoder, Layout
from seewhy.errors import DataError, InputError
from seewhy.heads.head import Head
from seewhy.heads.normalise import Normalise
from seewhy.pictures.samples import Sample, Samples, gathered
from seewhy.progress import Progress
from seewhy.types import Transform
from tiny import tiny_cnn

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "reproductions"))

from background_claim import claim, look
from made_judges import (
    NUMBERS,
    PERTURBATIONS,
    UNCHANGED,
    OfNumbers,
    Table,
    colours,
    perturbed,
    spectrum,
    wrong_alarms,
)
from real_or_generated import RealOrGeneratedStudy, made_class
from small_cnn import SmallCNN, Topology
from topology_search import Material, Search, best_of

FAST = SmallCNN(n_filters=4, n_units=8, side=16, n_epochs=2, batch_size=16, lr=1e-2, n_bank=1, split="random")
SEARCH = Search(FAST, convs=(1, 2), filters=(4, 8), dense=(1,), units=(4, 8))
STUDY = RealOrGeneratedStudy(search=SEARCH, n_epochs=30, n_seeds=2)


def world(n: int, seed: int) -> Samples:
    """Photographs are smooth; made pictures have a fine grain. Colours tell nothing."""
    rng = np.random.default_rng(seed)
    items = []
    for i in range(n):
        for label in ("REAL", "FAKE"):
            smooth = rng.uniform(60, 190, (1, 1, 3)) + np.linspace(-30, 30, 16)[:, None, None] * rng.normal(0, 1, 3)
            grain = rng.choice([-14, 14], (16, 16, 1)) * (label == "FAKE")
            pixels = (smooth + grain + rng.normal(0, 2, (16, 16, 3))).clip(0, 255).astype(np.uint8)
            items.append(Sample(f"{label} {i} {seed}", label, pixels=pixels))
    return gathered(items)


@pytest.fixture(scope="module")
def found() -> Any:
    return STUDY.run(tiny_cnn(), world(40, 0), None, test=world(20, 1), unseen={"other": world(3, 2)})


def test_every_version_and_judge_is_told(found: Any) -> None:
    assert [c["version"] for c in found.data["judges"][0]["cells"]] == list(PERTURBATIONS)
    assert found.classifier.recipe == "small_cnn"
    assert found.data["n"] == 40
    assert found.data["unseen"][0]["n"] == 6


def test_the_grain_is_found_and_gone_once_it_is_blurred_away(found: Any) -> None:
    judges = {row["judge"]: {c["version"]: c for c in row["cells"]} for row in found.data["judges"]}
    network, spectral, colour = judges["small CNN"], judges["spectrum alone"], judges["colour alone"]
    assert spectral[UNCHANGED]["right"]["value"] >= 0.95
    assert network[UNCHANGED]["right"]["value"] >= 0.85
    assert network["resampled 1/2"]["missed"] > network[UNCHANGED]["missed"]
    assert len(network[UNCHANGED]["by_seed"]) == 2
    assert network[UNCHANGED]["by_seed"][0] == network[UNCHANGED]["right"]["value"]
    assert spectral[UNCHANGED]["right"]["value"] > colour[UNCHANGED]["right"]["value"]


def test_the_accuracy_is_never_told_without_what_becomes_of_it(found: Any) -> None:
    text, data = found.sentence, found.data
    worst = min(data["judges"][0]["cells"][1:], key=lambda cell: cell["right"]["value"])
    clean = data["judges"][0]["cells"][0]
    for number in (clean["right"]["value"], worst["right"]["value"], clean["false_alarms"], clean["missed"]):
        assert f"{number:.1%}" in text
    assert "frozen tiny cnn + linear".capitalize()[:6] in text
    said = {name: {v: torch.zeros(1, 2) for v in PERTURBATIONS} for name in ("small CNN", "frozen x", *NUMBERS)}
    Table({}, said, torch.tensor([True, False]))
    for judge, version in (("small CNN", "JPEG 50"), ("frozen x", "resampled 3/4"), ("colour alone", UNCHANGED)):
        less = {j: {v: p for v, p in vs.items() if (j, v) != (judge, version)} for j, vs in said.items()}
        with pytest.raises(InputError, match=rf"^The table lacks {version} of {judge}\. An accuracy is never told"):
            Table({}, less, torch.tensor([True, False]))
    for judge, lacking in (("frozen x", "a frozen encoder"), ("spectrum alone", "spectrum alone")):
        with pytest.raises(InputError, match=f"^The table lacks {lacking}"):
            Table({}, {j: v for j, v in said.items() if j != judge}, torch.tensor([True, False]))


def test_a_stopped_search_trains_nothing_twice(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    trained: list[Topology] = []
    own = SmallCNN.train_on
    monkeypatch.setattr(SmallCNN, "train_on", lambda self, *a: trained.append(self.topology) or own(self, *a))
    draw = torch.Generator().manual_seed(0)
    pixels, labels = torch.rand(24, 3, 16, 16, generator=draw), torch.arange(24) % 2
    material = Material(pixels, labels, torch.arange(24) > 15, "digest")
    search = replace(SEARCH, recipe=replace(FAST, n_epochs=1), n_seeds=2)
    rows = search.run(material, tmp_path, Progress())
    assert len(trained) == (2 * 2 + 1 * 2) * 2
    assert [row["part"] for row in rows] == ["convolutions"] * 4 + ["dense layers"] * 2
    best = best_of(rows[:4])
    assert all((row["n_convs"], row["n_filters"]) == (best["n_convs"], best["n_filters"]) for row in rows[4:])
    path = tmp_path / "progress.jsonl"
    lines = path.read_text().splitlines(keepends=True)
    path.write_text("".join(lines[:-1]) + lines[-1][:20])
    assert search.run(material, tmp_path, Progress()) == rows
    assert len(trained) == 12 + 1
    search.run(replace(material, digest="other pictures"), tmp_path, Progress())
    assert len(trained) == 13 + 12
    changed = replace(material, labels=labels.flip(0))
    assert search.run(changed, None, Progress()) != rows


def test_topologies_are_chosen_on_pictures_of_training_alone(found: Any) -> None:
    data = found.data
    assert (data["n_train"], data["n_selection"]) == (80, 16)
    assert data["chosen"] == best_of(data["topologies"])["topology"]
    told = [row["right"] * data["n_selection"] for row in data["topologies"]]
    assert told == pytest.approx([round(n) for n in told], abs=2e-3)


def test_the_best_is_right_most_often_and_of_equals_the_smallest() -> None:
    rows = [{"right": r, "n_weights": n} for r, n in ((0.7, 1), (0.9, 7), (0.9, 5))]
    assert best_of(rows) == rows[2]


def test_the_papers_search_has_36_networks() -> None:
    search = Search(FAST)
    assert len(search.first()) + len(search.second(Topology(2, 32, 0, 1))) == 36


def test_perturbations_do_what_they_say() -> None:
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 256, (2, 16, 16, 3)).astype(np.uint8)
    assert np.array_equal(perturbed(pixels, UNCHANGED), pixels)
    off = {name: float(abs(perturbed(pixels, name).astype(float) - pixels).mean()) for name in PERTURBATIONS}
    assert 0 < off["JPEG 90"] < off["JPEG 75"] < off["JPEG 50"]
    assert 0 < off["blur 0.5"] < off["blur 1"]
    assert 0 < off["resampled 3/4"] < off["resampled 1/2"]
    assert all(perturbed(pixels, name).shape == pixels.shape for name in PERTURBATIONS)


def test_colours_know_no_place_and_the_spectrum_no_colour() -> None:
    rng = np.random.default_rng(1)
    pixels = rng.integers(0, 256, (1, 16, 16, 3)).astype(np.uint8)
    shuffled = pixels.reshape(1, 256, 3)[:, rng.permutation(256)].reshape(1, 16, 16, 3)
    torch.testing.assert_close(colours(pixels), colours(shuffled))
    assert not torch.allclose(spectrum(pixels), spectrum(shuffled), atol=1e-2)
    brighter = (pixels // 2 + 60).astype(np.uint8)
    torch.testing.assert_close(spectrum((pixels // 2).astype(np.uint8)), spectrum(brighter), atol=1e-3, rtol=1e-3)
    wave = np.sin(np.arange(16) * 2 * np.pi * 3 / 16)[None, :, None, None] * np.ones((1, 1, 16, 3))
    assert int(spectrum((127 + 100 * wave).astype(np.uint8)).argmax()) == 2  # radius 3, and 0 is left out


def test_a_judge_of_numbers_learns_them_and_is_the_same_for_a_seed() -> None:
    rng = np.random.default_rng(2)
    made = torch.arange(64) % 2 == 0
    pixels = (rng.integers(60, 160, (64, 8, 8, 3)) + 50 * made.numpy()[:, None, None, None]).astype(np.uint8)
    one, two = (OfNumbers.fit(colours, pixels, made, 0)(pixels) for _ in range(2))
    assert torch.equal(one, two)
    assert bool(((one > 0.5) == made).all())


@pytest.mark.parametrize(
    ("false_alarms", "missed", "share", "wrong"), [(0, 0.5, 0.01, 0), (1, 0, 0.5, 0.5), (0.5, 1, 0.1, 1)]
)
def test_alarms_that_are_wrong(false_alarms: float, missed: float, share: float, wrong: float) -> None:
    assert wrong_alarms(false_alarms, missed, share) == pytest.approx(wrong)


@pytest.mark.parametrize(
    ("classes", "named", "made"),
    [
        (("FAKE", "REAL"), None, "FAKE"),
        (("photo", "AI"), None, "AI"),
        (("a", "b"), "b", "b"),
        (("ai_made", "paint"), None, "ai_made"),
    ],
)
def test_the_made_class_is_known_by_its_name(classes: tuple[str, ...], named: str | None, made: str) -> None:
    assert made_class(Samples((), classes), named) == made


@pytest.mark.parametrize(
    ("classes", "named", "said"),
    [
        (
            ("a", "b", "c"),
            None,
            "3 classes were given: 'a', 'b', 'c'. Expected two, photographs",
        ),
        (("paint", "snow"), None, "Neither or both of the classes 'paint' and 'snow' are called generated."),
        (("fake", "ai"), None, "Neither or both of the classes 'fake' and 'ai' are called generated."),
        (("fake", "real"), "made", "There is no class 'made'. Expected one of 'fake', 'real'."),
    ],
)
def test_classes_that_do_not_say_it_are_refused(classes: tuple[str, ...], named: str | None, said: str) -> None:
    with pytest.raises(DataError) as caught:
        made_class(Samples((), classes), named)
    assert str(caught.value).startswith(said)


class Reads(nn.Module):
    """Brightness of one place: the map is that place's pixels."""

    def __init__(self, rows: slice) -> None:
        super().__init__()
        self.where = nn.Parameter(torch.zeros(1, 1, 16, 16), requires_grad=False)
        self.where[..., rows, :] = 1.0

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x.mean(1, keepdim=True) * self.where


class Model:
    """Reads the upper or the lower half of a picture and nothing else."""

    def __init__(self, rows: slice) -> None:
        trunk = Reads(rows)
        transform = Transform((16, 16), (16, 16), "bilinear", (0.0, 0.0, 0.0), (1.0, 1.0, 1.0))
        self.encoder = Encoder(
            name="half", transform=transform, trunk=lambda: trunk, layout=Layout(),
            head=nn.Sequential(nn.AdaptiveMaxPool2d(1), nn.Flatten()), fingerprint="half", engine="torch",
        )  # fmt: skip
        self.head = Head(Normalise(), torch.tensor([[0.0], [1.0]]), torch.tensor([0.0, -0.1]))


def halves(n: int = 24) -> tuple[torch.Tensor, torch.Tensor]:
    """Objects fill a part of the upper half; both halves are of noise with a bright pixel."""
    draw = torch.Generator().manual_seed(0)
    pixels = 0.2 * torch.rand(n, 3, 16, 16, generator=draw)
    pixels[:, :, 3, 5] = 1.0
    pixels[:, :, 11, 5] = 1.0
    objects = torch.zeros(n, 16, 16, dtype=torch.bool)
    objects[:, :8, :] = True
    return pixels, objects


def test_a_planted_background_is_found_and_an_object_is_not_accused() -> None:
    pixels, objects = halves()
    below, above = (look(Model(rows), pixels, objects) for rows in (slice(8, 16), slice(0, 8)))
    torch.testing.assert_close(below.excess, torch.full((24,), 0.5))
    torch.testing.assert_close(above.excess, torch.full((24,), -0.5))
    assert float(below.cost.min()) > 0.3
    assert float(above.cost.max()) < -0.3
    found = claim(Model(slice(8, 16)), pixels, objects, n_controls=2, n_draws=50)
    assert found["excess"]["value"] == 0.5
    assert found["background_area"] == 0.5
    assert not claim(Model(slice(0, 8)), pixels, objects, n_controls=2, n_draws=50)["holds"]


def test_masks_that_are_too_few_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"^0 of 12 test pictures have a mask in .*Expected at least 10, named like"):
        STUDY.run(tiny_cnn(), world(12, 0), None, test=world(6, 1), masks=tmp_path)
