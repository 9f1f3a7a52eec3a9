"""Reproductions on captioned pictures: what they plant is what they say, and verdicts follow from numbers."""

from __future__ import annotations

import importlib
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch

from seewhy.pictures.samples import Sample

FOLDER = Path(__file__).resolve().parents[1] / "reproductions"


@pytest.fixture
def captioned(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(FOLDER))
    return importlib.import_module("captioned")


@pytest.fixture
def align(captioned: ModuleType) -> ModuleType:
    return importlib.import_module("align")


@pytest.fixture
def convirt(captioned: ModuleType) -> ModuleType:
    return importlib.import_module("convirt")


@pytest.fixture
def clip(captioned: ModuleType) -> ModuleType:
    return importlib.import_module("clip")


@pytest.mark.parametrize("share", [0.0, 0.2, 1.0])
def test_a_share_of_things_changes_places(captioned: ModuleType, share: float) -> None:
    places = captioned.deranged(50, share, np.random.default_rng(0))
    assert sorted(places) == list(range(50))
    assert (places != np.arange(50)).sum() == round(share * 50)


def test_a_noisy_part_says_whose_captions_are_wrong(captioned: ModuleType, align: ModuleType) -> None:
    data = captioned.planted(40, 0)
    noisy, own = align.part(data, 0.5, 0.4, seed=3)
    clean, all_own = align.part(data, 0.5, 0.0, seed=3)
    assert torch.equal(noisy.pooled, clean.pooled)
    assert all(all_own)
    assert [a == b for a, b in zip(noisy.said, clean.said, strict=True)] == own
    assert own.count(False) == 8
    known = {tuple(row.tolist()): said for row, said in zip(data.pooled, data.said, strict=True)}
    assert [known[tuple(row.tolist())] for row in clean.pooled] == list(clean.said)


def test_captions_are_taken_out_and_pictures_without_any(captioned: ModuleType, align: ModuleType) -> None:
    data = captioned.planted(3, 0)
    left = align.without(data, {(0, 0), (1, 2), (1, 3)})
    assert left.said == ((1,), (4, 5))
    assert torch.equal(left.pooled, data.pooled[[0, 2]])


def test_shuffled_captions_are_the_same_captions(captioned: ModuleType, clip: ModuleType) -> None:
    data = captioned.planted(50, 0)
    rows = [row for said in clip.shuffled(data, 0.4, 0).said for row in said]
    assert sorted(rows) == list(range(100))
    assert sum(row != place for place, row in enumerate(rows)) == 40


def test_a_caption_is_found_among_the_first_pictures(captioned: ModuleType) -> None:
    """The second caption of picture 0 is that of picture 1."""
    eye = torch.eye(4)
    data = captioned.Captioned(eye, eye, ((0, 1), (1,), (2,), (3,)))
    same = captioned.Space(torch.nn.Identity(), torch.nn.Identity())
    assert captioned.found_by_caption(same, data, 1) == [0.5, 1.0, 1.0, 1.0]
    lost = captioned.Space(torch.nn.Identity(), torch.nn.Linear(4, 4, bias=False))
    lost.sentence.weight.data = -eye
    assert captioned.found_by_caption(lost, data, 3) == [0.5, 0.0, 0.0, 0.0]


def test_kept_arms_are_not_made_twice(captioned: ModuleType, tmp_path: Path) -> None:
    assert captioned.Kept(tmp_path / "x.json", "a").get("one", lambda: [1.0]) == [1.0]
    again = captioned.Kept(tmp_path / "x.json", "a")
    assert again.get("one", lambda: [2.0]) == [1.0]
    assert again.seconds >= 0
    assert captioned.Kept(tmp_path / "x.json", "b").get("one", lambda: [3.0]) == [3.0]


def test_rules_on_texts_find_what_was_planted_for_them(align: ModuleType) -> None:
    said = tuple(f"a small brown dog runs across number {i}" for i in range(3))
    samples = [Sample(f"{i}.jpg", texts=tuple(f"{t} of {i}" for t in said)) for i in range(5 * align.N_FAULTS)]
    found = align.faults(samples, 0)
    n = align.N_FAULTS
    assert set(found.values()) == {(n,) * 4, (2 * n, 2 * n, n, n)}, "two words are said of too many pictures as well"
    assert align.rule_claim(found, 1).verdict == "shown"
    assert align.rule_claim({**found, "too_long": (150, 100, 100, 100)}, 1).verdict == "partly"
    assert align.rule_claim({**found, "too_long": (50, 50, 50, 100)}, 1).verdict == "not shown"


@pytest.mark.parametrize(
    ("right", "out", "verdict"), [(40, 80, "shown"), (20, 80, "partly"), (20, 20, "partly"), (4, 80, "not shown")]
)
def test_poor_match_is_judged_by_what_it_takes_out(align: ModuleType, right: int, out: int, verdict: str) -> None:
    """A tenth of 500 pictures is wrong; so many captions are taken out, and so many of these are wrong."""
    wrong = [1.0] * 50 + [0.0] * 450
    taken = [float(i < right or 50 <= i < 50 + out - right) for i in range(500)]
    counts = {"captions": [1.0] * 500, "taken": taken, "wrong": wrong}
    (found,) = align.match_claims({0.1: [counts]})
    assert found.verdict == verdict
    assert f"precision {right / out:.3f}" in found.measured
    assert f"recall {right / 50:.3f}" in found.measured


def test_names_are_worth_labels(clip: ModuleType) -> None:
    values = {1: 0.2, 2: 0.4, 4: 0.6}
    assert clip.worth(dict.fromkeys(values), values, 0.5) == "2 to 4"
    assert clip.worth(dict.fromkeys(values), values, 0.1) == "fewer than 1"
    assert clip.worth(dict.fromkeys(values), values, 0.7) == "more than 4"


def test_names_beside_labels_are_judged_by_the_lead_over_four(clip: ModuleType) -> None:
    def arms(names: float) -> dict[str, list[float]]:
        words = ("words from captions", "the encoder's own words")
        said = {w + end: [names] * 20 for w in words for end in ("", ", exchanged")}
        return said | {"1 labels": [0.2] * 20, "4 labels": [0.5 + 0.3 * (i % 2) for i in range(20)]}

    assert [c.section.partition(", ")[2] for c in clip.transfer_claims({"things": arms(0.9)})] == [
        "words from captions",
        "the encoder's own words",
    ]
    verdicts = {v: clip.transfer_claims({"things": arms(v)})[0].verdict for v in (0.9, 0.65, 0.3)}
    assert verdicts == {0.9: "shown", 0.65: "too small to tell", 0.3: "not shown"}


@pytest.mark.parametrize("share", [0.01, 0.1, 1.0])
def test_a_share_of_labels_has_every_class(convirt: ModuleType, share: float) -> None:
    y = torch.tensor([0] * 40 + [1] * 5)
    rows = convirt.drawn_share(y, share, 0)
    assert len(set(rows.tolist())) == len(rows)
    assert y[rows].bincount().tolist() == {0.01: [1, 1], 0.1: [4, 1], 1.0: [40, 5]}[share]


def test_groups_count_alike_and_once(convirt: ModuleType) -> None:
    assert convirt.by_group([1.0, 0.5, 0.0], ["a", "b", "a"]) == [0.5, 0.5]
    data = convirt.planted_reports(8)
    y = torch.tensor([1, 1, 0])
    two = convirt.Reports(("l", "r"), data.train, data.test, y, torch.tensor([0, 0, 1]), ("a", "b", "a"))
    assert convirt.commonest(two) == 0.25


def test_a_picture_is_not_its_own_neighbour(convirt: ModuleType) -> None:
    x = torch.tensor([[1.0, 0.0], [1.0, 0.1], [0.0, 1.0], [0.1, 1.0]])
    assert convirt.like_it(x, torch.tensor([0, 0, 1, 1]), 1) == [1.0] * 4
    assert convirt.like_it(x, torch.tensor([0, 1, 0, 1]), 1) == [0.0] * 4


@pytest.mark.parametrize(("adapted", "verdict"), [(0.9, "shown"), (0.5, "too small to tell"), (0.1, "not shown")])
def test_a_start_is_judged_beside_the_features(convirt: ModuleType, adapted: float, verdict: str) -> None:
    def arm(value: float) -> dict[str, list[float]]:
        return {what: [value] * 20 for what in ("0.01", "0.1", "1.0", "pictures", "texts")}

    arms = {"the start": arm(0.5), "adapted": arm(adapted), **{c: arm(0.5) for c in convirt.CONTROLS}}
    assert [c.verdict for c in convirt.set_claims("things", arms)] == [verdict] * 6


@pytest.mark.slow
def test_convirt_learns_what_was_planted(convirt: ModuleType) -> None:
    report = convirt.main(["--n-planted", "200", "--steps", "40", "--seeds", "1"])
    near = report.numbers["planted"]
    assert near["adapted"]["texts"][0] > 0.6
    assert near["adapted"]["texts"][0] > near["texts of others"]["texts"][0] + 0.05
    assert len(report.claims) == 6


@pytest.mark.slow
def test_both_run_in_small_and_learn_what_was_planted(align: ModuleType, clip: ModuleType) -> None:
    small = ["--n-planted", "160", "--steps", "8", "--seeds", "1"]
    for module in (align, clip):
        report = module.main(small)
        assert all(c.n == 40 for c in report.claims)
    recalls = report.numbers["R@5 by share of shuffled captions"]
    assert recalls["0.0"][0] > 0.6 > 0.3 > recalls["1.0"][0]


@pytest.fixture
def dreamlip(captioned: ModuleType) -> ModuleType:
    return importlib.import_module("dreamlip")


@pytest.fixture
def medical(captioned: ModuleType) -> ModuleType:
    return importlib.import_module("clip_medical")


def test_arms_read_as_much_text(dreamlip: ModuleType) -> None:
    read = {name: arm.steps(300) * arm.at_once for name, arm in dreamlip.ARMS.items()}
    assert (read.pop(dreamlip.LONGER), read.pop(dreamlip.SHORTER)) == (5 * 300, 100)
    assert set(read.values()) == {300}


def test_extra_captions_are_of_others_and_each_counts_alike(captioned: ModuleType, dreamlip: ModuleType) -> None:
    data = captioned.planted(20, 0)
    one = dreamlip.given(data, dreamlip.ARMS[dreamlip.ONE], 3)
    mixed = dreamlip.given(data, dreamlip.ARMS[dreamlip.OTHERS], 3)
    assert [said[0] for said in mixed.said] == [said[0] for said in one.said]
    assert all(len({row // 2 for row in said}) == 5 for said in mixed.said), "of five pictures"
    assert sorted(row for said in mixed.said for row in said) == sorted(5 * [said[0] for said in one.said])
    assert dreamlip.given(data, dreamlip.ARMS[dreamlip.ONE], 4).said != one.said
    fifth = dreamlip.given(data, dreamlip.ARMS[dreamlip.FIFTH], 3)
    assert {len(said) for said in fifth.said} == {2}
    assert len(fifth) == 4


@pytest.mark.parametrize(("at_once", "verdict"), [(0.9, "shown"), (0.5, "not shown"), (0.1, "not shown")])
def test_captions_at_once_are_judged_beside_one(dreamlip: ModuleType, at_once: float, verdict: str) -> None:
    arms = {name: [0.5] * 20 for name in dreamlip.ARMS} | {dreamlip.ALL: [at_once] * 20}
    found = {c.section + c.claim[:1]: c.verdict for c in dreamlip.recall_claims(arms, dict.fromkeys(arms, 1))}
    assert found == {
        **dict.fromkeys([f"at equal text{start}" for start in "235D"], "not shown"),
        "at equal steps5": "not shown", "at equal steps, added after the first run3": "not shown",
        "control5": verdict, "control4": "not shown",
    }  # fmt: skip


def test_pictures_are_ranked_beside_others_of_the_other_kind(medical: ModuleType) -> None:
    y = torch.tensor([1, 1, 0, 0])
    scores = torch.tensor([3.0, 1.0, 2.0, 1.0])
    assert medical.ranked(scores, y, "abcd") == [1.0, 0.25, 0.5, 0.75]
    assert medical.ranked(scores, y, "abbd") == [1.0, 0.5, 1.0, 0.75], "none of its own patient"


def test_a_source_goes_from_both_sides(medical: ModuleType) -> None:
    data = medical.planted_notes(12)
    left = data.without("a")
    assert left.sources == (("b",) * 6, ("b",) * 3)
    assert torch.equal(left.whole.train.pooled, data.whole.train.pooled[1::2])
    assert torch.equal(left.whole.y_test, data.whole.y_test[1::2])
    assert torch.equal(left.findings, data.findings[1::2])
    assert left.whole.groups == data.whole.groups[1::2]
    assert [*medical.sets_of(data)] == ["all", "without a", "without b"]


def test_findings_and_sources_are_read(medical: ModuleType) -> None:
    assert medical.named("COVID-19, ARDS") == {"COVID-19", "ARDS"}
    assert medical.named("No Finding") == set()
    assert medical.host("https://www.eurorad.org/case/1") == "eurorad.org"
    assert medical.host("10.1186/x") == "a journal"


def test_prompts_in_a_space_are_those_of_prompt_pairs(captioned: ModuleType, medical: ModuleType) -> None:
    data = medical.planted_notes(8)
    narrow = torch.nn.Linear(32, 16)
    space = captioned.Space(narrow, torch.nn.Identity())
    said = torch.nn.functional.normalize(torch.randn(2, 16, generator=torch.Generator().manual_seed(0)), dim=1)
    found = medical.margins(space, medical.replace(data, absent=said))
    mean = said.mean(0) / said.mean(0).norm()
    pictures = torch.nn.functional.normalize(narrow(data.whole.test.pooled), dim=1)
    torch.testing.assert_close(found["pairs"], (pictures @ data.present[0] - pictures @ mean).detach())
    torch.testing.assert_close(found["name"], (pictures @ data.present[0]).detach())


@pytest.mark.parametrize(
    ("clip", "control", "verdict"),
    [(0.9, 0.2, "shown"), (0.9, 0.9, "too small to tell"), (0.5, 0.2, "too small to tell"), (0.1, 0.0, "not shown")],
)
def test_a_control_that_does_as_well_is_not_shown(
    medical: ModuleType, clip: float, control: float, verdict: str
) -> None:
    def arm(value: float) -> dict[str, list[float]]:
        return {what: [value] * 20 for what in ("probe", "pairs", "name")}

    arms = {n: arm(0.5) for n in (medical.START, *medical.OBJECTIVES, medical.SOFT_OTHERS, medical.UNTRAINED)}
    found = medical.set_claims("all", arms | {"clip": arm(clip), medical.OTHERS: arm(control)})
    by_claim = {c.claim: c.verdict for c in found}
    assert by_claim["A probe is better after clip on notes than on the features it started from"] == verdict
    assert by_claim["After clip on notes, a pair of prompts ranks pictures without a label"] == verdict
    assert by_claim["After medclip on notes, a pair of prompts ranks pictures without a label"] == "too small to tell"


@pytest.mark.slow
def test_two_more_run_in_small_and_learn_what_was_planted(
    dreamlip: ModuleType, medical: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dreamlip, "RATES", (5e-3,))
    monkeypatch.setattr(medical, "N_SOURCES", 0)
    report = dreamlip.main(["--n-planted", "60", "--steps", "10", "--seeds", "1", "--draws", "0"])
    assert len(report.claims) == len(dreamlip.COMPARED)
    assert report.numbers["R@5"]["one drawn"][0] > report.numbers["chance"] + 0.2
    found = medical.main(["--n-planted", "200", "--steps", "20", "--seeds", "1"]).numbers["all"]
    assert found["medclip"]["pairs"][0] > found["medclip, findings of others"]["pairs"][0] + 0.1
    assert found["clip"]["pairs"][0] > found["clip, texts of others"]["pairs"][0] + 0.1


def test_each_of_two_drawn_things_has_its_own_pixels(captioned: ModuleType) -> None:
    script = importlib.import_module("gloria_attention")
    pixels, masks, names, ground = script.picture(np.random.default_rng(3))
    assert len({*names[0].split(), *names[1].split()}) == 4, "neither the colour nor the shape is the other's"
    assert not (masks[0] & masks[1]).any()
    for mask, name in zip(masks, names, strict=True):
        near = np.abs(pixels[mask].mean(0) - script.COLOURS[name.split()[0]]).max()
        assert near < np.abs(pixels[mask].mean(0) - script.GROUNDS[ground]).max()
    outside = pixels[~(masks[0] | masks[1])].mean(0)
    np.testing.assert_allclose(outside, script.GROUNDS[ground], atol=12)
