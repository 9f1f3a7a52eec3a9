"""DreamLIP's drawn scenes: things are where boxes say, figures by hand, arms differ as they say."""

from __future__ import annotations

import importlib
from types import ModuleType

import pytest
import torch
from torch import nn

pytestmark = pytest.mark.usefixtures("beside_the_scripts")


@pytest.fixture
def scenes() -> ModuleType:
    return importlib.import_module("grouped_scenes")


def test_things_of_other_names_stand_in_quarters_of_their_own(scenes: ModuleType) -> None:
    data = scenes.scenes(200, 1)
    said = scenes.sentences(data)
    assert {len(one) for one in said} == {2, 3}
    assert all(len(set(one)) == len(one) for one in said)
    assert said[0][0] == f"a {scenes.NAMES[int(data.labels[0, 0])]}"
    there, middle = data.labels >= 0, (data.boxes[..., :2] + data.boxes[..., 2:]) / 2
    quarters = ((middle > 0.5).long() * torch.tensor([1, 2])).sum(2)
    assert all(len(set(q[t].tolist())) == int(t.sum()) for q, t in zip(quarters, there, strict=True))
    assert ((data.boxes >= 0) & (data.boxes <= 1)).all()
    size = (data.boxes[..., 2:] - data.boxes[..., :2]) * scenes.SIDE
    assert (size.round() >= 5).all()
    assert (size.round() <= 9).all()
    assert torch.equal(scenes.scenes(200, 1).pixels, data.pixels)
    assert not torch.equal(scenes.scenes(200, 2).pixels, data.pixels)


def test_a_thing_has_the_colour_of_its_name_and_a_missing_one_has_none(scenes: ModuleType) -> None:
    data = scenes.scenes(400, 0)
    colours: dict[int, list[torch.Tensor]] = {}
    for pixels, boxes, labels in zip(data.pixels, (data.boxes * scenes.SIDE).round().long(), data.labels, strict=True):
        for (left, top, right, bottom), label in zip(boxes.tolist(), labels.tolist(), strict=True):
            colours.setdefault(label, []).append(pixels[:, top:bottom, left:right].mean((1, 2)))
    means = {label: torch.stack(each).mean(0) for label, each in colours.items()}
    red = means[scenes.NAMES.index("dark red")]
    assert red[0] > red[1] + 1
    assert red[0] > red[2] + 1
    assert means[scenes.NAMES.index("light red")].mean() > red.mean() + 0.8
    assert means[-1].abs().max() < 0.2, "ground, where a third thing is not"


def test_figures_by_hand(scenes: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    """A picture of 2 x 2 patches with two things: one found, the other not; a second that is all right."""
    monkeypatch.setattr(scenes, "NAMES", ("dark red", "dark blue", "light red"))
    boxes = torch.tensor([[[0, 0, 0.5, 0.5], [0.5, 0, 1, 0.5], [0, 0.5, 0.5, 1]]]).repeat(2, 1, 1)
    test = scenes.Scenes(torch.zeros(2, 3, 4, 4), boxes, torch.tensor([[0, 1, -1], [0, 1, -1]]))
    eye = torch.eye(3)
    good = torch.stack([eye[0], eye[1], -eye.sum(0), -eye.sum(0)])
    bad = torch.stack([eye[0], eye[2], 2 * eye[2] + eye[1], -eye.sum(0)])  # blue is nearest to an empty patch

    class Eyes(nn.Module):
        def forward(self, pixels: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
            return torch.stack([eye[0] + eye[1], eye[0] + 0.5 * eye[2]]), torch.stack([good, bad])

    class Words(nn.Module):
        def forward(self, ids: torch.Tensor) -> torch.Tensor:
            place = {"red": 0, "blue": 1}
            rows = []
            for row in ids.tolist():
                words = [scenes.WORDS[i] for i in row if i]
                rows.append(eye[2 if "light" in words else place[words[-1]]])
            return torch.stack(rows)

    found = scenes.measured(scenes.Towers(Eyes(), Words()), test)
    assert found["pointing"] == pytest.approx(3 / 4)
    assert found["misled"] == 0.0
    assert found["chance"] == pytest.approx(0.25)
    assert found["patches"] == pytest.approx(3 / 4)
    assert found["things"] == pytest.approx(3 / 4)
    assert found["retrieval"] == pytest.approx(1 / 2), "both captions are one, and the first picture is nearer"


def test_a_patch_on_the_other_thing_misleads(scenes: ModuleType) -> None:
    boxes = torch.tensor([[[0, 0, 0.5, 1], [0.5, 0, 1, 1.0]]])
    cells = scenes.inside(boxes, 4)[0].view(2, 4, 4)
    assert cells[0, :, :2].all()
    assert not cells[0, :, 2:].any()
    assert torch.equal(cells[1], cells[0].flip(1))
    upper = scenes.inside(torch.tensor([[[0, 0, 1, 0.5]]]), 4)[0, 0].view(4, 4)
    assert upper.sum(1).tolist() == [4, 4, 0, 0], "rows go down"


def test_arms_learn_what_they_say(scenes: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = {}

    def train(task: nn.Module, data: object, how: object) -> None:
        text = data.columns["text"]  # type: ignore[attr-defined]
        objective = task.objective
        seen[arm] = text.n, objective.n_texts, objective.local_weight, len(text.choices[0])
        first.append(task.image.trunk.stages[0].weight.detach().clone())

    first: list[torch.Tensor] = []
    monkeypatch.setattr(scenes, "train", train)
    data = scenes.scenes(20, 0)
    n = len(scenes.sentences(data)[0])
    for arm in scenes.ARMS:
        scenes.towers(scenes.ARMS[arm], data, 1, 0)
    assert seen == {
        scenes.WHOLE: (1, 1, 0.0, 1),
        scenes.SAMPLED: (2, 2, 0.0, n),
        scenes.GROUPED: (2, 2, 1.0, n),
    }
    assert all(torch.equal(one, first[0]) for one in first), "all arms of a draw begin alike"


def test_the_reader_reads_the_same_alone_as_beside_longer_sentences(scenes: ModuleType) -> None:
    tower = importlib.import_module("reading_tower")
    torch.manual_seed(0)
    reader = tower.Reader(len(scenes.WORDS), 64).eval()
    short, long = "a dark red", "a dark red and a light blue"
    with torch.no_grad():
        both, alone = reader(tower.numbers([short, long], scenes.WORDS)), reader(tower.numbers([short], scenes.WORDS))
    torch.testing.assert_close(both[:1], alone, atol=1e-5, rtol=1e-4)
    swapped = reader(tower.numbers(["red dark a"], scenes.WORDS))
    assert not torch.allclose(swapped, alone, atol=1e-3), "places count"
    assert tower.numbers(["a and", "a"], ("<pad>", "a", "and")).tolist() == [[1, 2], [1, 0]]
    with pytest.raises(KeyError):
        tower.numbers(["unheard"], scenes.WORDS)


def test_verdicts_carry_the_papers_gain_over_as_a_part_of_the_errors(scenes: ModuleType) -> None:
    script = importlib.import_module("dreamlip")
    figures = ("pointing", "patches", "retrieval", "things", "misled")
    level = {f"{arm}: {figure}": [0.5, 0.51, 0.52] for arm in scenes.ARMS for figure in figures}
    found = script.scene_claims(level)
    assert {c.verdict for c in found} == {"not shown"}
    assert found[0].paper == "VOC mIoU 82.9 to 84.5 (reading notes)"
    assert "below 0.0936 of the other's errors" in found[0].rule
    assert "an effect of 0.046" in found[0].measured
    level |= {f"{scenes.GROUPED}: pointing": [0.8, 0.82, 0.81], f"{scenes.GROUPED}: things": [0.4, 0.8, 0.6]}
    found = script.scene_claims(level)
    assert [c.verdict for c in found[:4]] == ["shown", "not shown", "not shown", "too small to tell"]
    assert [c.verdict for c in found[4:]] == ["not shown", "not shown", "shown"]
