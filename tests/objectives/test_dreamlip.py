"""DreamLIP: against the authors' numbers where their code does what the paper says, by hand, and groups of regions."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.nn.functional import cross_entropy, normalize

from seewhy.learning.objectives.pairs import CLIP
from seewhy.learning.objectives.regional import DreamLIP

GOLDEN = json.loads((Path(__file__).parents[1] / "golden" / "dreamlip.json").read_text("utf-8"))
IMAGE, TEXT, REGIONS = (torch.tensor(GOLDEN[n]) for n in ("image", "text", "regions"))


@pytest.mark.parametrize("run", GOLDEN["runs"], ids=lambda r: f"{r['scale']:.0f}, {r['sigma']}")
def test_against_the_authors(run: dict[str, Any]) -> None:
    objective = DreamLIP(1 / run["scale"], 3, run["sigma"])
    assert float(objective(IMAGE, TEXT)) == pytest.approx(run["loss"], abs=GOLDEN["tolerance"])
    for i, wanted in enumerate(run["grouping"]):
        one = objective.local(REGIONS[i : i + 1], TEXT[i : i + 1])
        assert float(one) == pytest.approx(wanted, abs=GOLDEN["tolerance"])
    together = float(objective.local(REGIONS, TEXT))
    assert together == pytest.approx(sum(run["grouping"]) / 4, abs=GOLDEN["tolerance"])


def test_sentences_of_one_picture_do_not_compete() -> None:
    """As many losses as sentences: the mean of CLIP's on each slot, whatever the others are."""
    slots = [float(CLIP(0.5)(IMAGE, TEXT[:, k])) for k in range(3)]
    assert float(DreamLIP(0.5)(IMAGE, TEXT)) == pytest.approx(sum(slots) / 3, rel=1e-5)
    assert float(DreamLIP(0.5)(IMAGE, TEXT[:, [2, 0, 1]])) == pytest.approx(sum(slots) / 3, rel=1e-5)
    assert float(DreamLIP(0.5)(IMAGE, TEXT[:, :1])) == pytest.approx(slots[0], rel=1e-6)


def test_shares_make_the_whole() -> None:
    parts = [float(DreamLIP()(IMAGE, TEXT, share=(a, b))) * (b - a) for a, b in ((0, 1), (1, 4))]
    assert sum(parts) / 4 == pytest.approx(float(DreamLIP()(IMAGE, TEXT)), rel=1e-5)


def test_groups_by_hand() -> None:
    """Cosines 1, 0.6, 0 and -1 of one sentence, stretched to 1, 0.8, 0.5 and 0."""
    regions = torch.tensor([[[2.0, 0.0], [0.6, 0.8], [0.0, 1.0], [-5.0, 0.0]]])
    sentence = torch.tensor([[[3.0, 0.0]]])
    assert DreamLIP(sigma=0.6).groups(regions, sentence)[0, 0].tolist() == pytest.approx([1 / 1.8, 0.8 / 1.8, 0, 0])
    assert DreamLIP(sigma=0.0).groups(regions, sentence)[0, 0].tolist() == pytest.approx(
        [1 / 2.3, 0.8 / 2.3, 0.5 / 2.3, 0], abs=1e-6
    )
    assert DreamLIP(sigma=1.0).groups(regions, sentence)[0, 0].tolist() == [1, 0, 0, 0]


def test_each_sentence_is_told_from_those_of_its_own_picture() -> None:
    regions, texts = torch.eye(3)[None], torch.eye(3)[None, :2]
    wanted = math.log(1 + math.exp(-2))
    assert float(DreamLIP(temperature=0.5, sigma=0.5).local(regions, texts)) == pytest.approx(wanted, rel=1e-5)
    swapped = torch.cat([texts, texts.flip(1)])
    two = float(DreamLIP(temperature=0.5, sigma=0.5).local(regions.repeat(2, 1, 1), swapped))
    assert two == pytest.approx(wanted, rel=1e-5), "another picture with the same sentences is no matter"


def test_both_directions_count() -> None:
    """Groups that overlap, so that rows and columns are not alike."""
    grouping = DreamLIP(temperature=0.5, sigma=0.0)
    group = normalize(grouping.groups(REGIONS, TEXT) @ normalize(REGIONS, dim=2), dim=2)
    scores = 2 * group @ normalize(TEXT, dim=2).transpose(1, 2)
    own = torch.arange(3).expand(4, 3)
    rows, columns = cross_entropy(scores.transpose(1, 2), own), cross_entropy(scores, own)
    assert float(rows) != pytest.approx(float(columns), rel=1e-2)
    assert float(grouping.local(REGIONS, TEXT)) == pytest.approx(float(rows + columns) / 2, rel=1e-5)


def test_regions_that_are_alike_and_sentences_that_are_missing() -> None:
    regions = torch.ones(2, 4, 3, requires_grad=True)
    texts = torch.eye(3)[None].repeat(2, 1, 1)
    said = torch.tensor([[True, True, False], [True, True, True]])
    loss = DreamLIP().local(regions, texts, said)
    (slope,) = torch.autograd.grad(loss, regions)
    assert slope.isfinite().all()
    assert DreamLIP().groups(regions, texts)[0].unique().tolist() == [0.25]
    other = texts.clone()
    other[0, 2] = torch.tensor([5.0, 5.0, 5.0])
    assert float(DreamLIP().local(regions, other, said).detach()) == pytest.approx(float(loss.detach()))
