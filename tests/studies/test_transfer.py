"""Several encoders on the same pictures: what is asked, what is kept, which differences are called real."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from schemas import check
from seewhy.classifiers.linear.recipe import Linear
from seewhy.cli import app
from seewhy.cli.session import Session
from seewhy.errors import DataError, InputError, UnknownNameError
from seewhy.pictures.samples import Sample, Samples, gathered
from seewhy.storage.features import FeatureStore
from seewhy.studies.bootstrap import Error, Measure, beyond, compared, holm, mean_of, said_of, standings, within
from seewhy.studies.material import Material, look_with_each
from seewhy.studies.transfer import (
    CORRUPTIONS,
    SIDE,
    Corrupted,
    FewShot,
    Findings,
    LabelPart,
    Neighbours,
    OwnClass,
    TransferStudy,
    few,
    likeness,
    read,
    read_small,
    written,
)
from tiny import COLOURS, class_folders, colours, picture, tiny_cnn

RECIPE = Linear(n_crops=0, split="random")
STUDY = TransferStudy(shots=(1, 2, 40), parts=(0.01, 0.5), n_seeds=2, n_corrupted=6, recipe=RECIPE, held_out=0.3)
RUNNER = CliRunner()
NAN = float("nan")


def drawn(n: int, labels: tuple[str, ...] = ("moss", "rust", "sky"), start: int = 0) -> Samples:
    return gathered([Sample(f"{k} {i}", k, pixels=picture(k, i, 16)) for k in labels for i in range(start, start + n)])


def looked(n: int = 10) -> Material:
    return look_with_each({"colours": colours()}, drawn(n), RECIPE, held_out=0.3, seed=0)["colours"]


@pytest.fixture(scope="module")
def found() -> Findings:
    return STUDY.run({"colours": colours(), "tiny": tiny_cnn()}, drawn(14))


def test_what_is_found_is_as_its_schema_says_and_draws_itself(found: Findings) -> None:
    check("study-transfer", [{**found.data, "report": None}])
    page = found.to_html()
    assert "Every difference" in page
    assert [(t["family"], t["measure"], t["n_draws"]) for t in found.data["measures"]] == [
        ("few-shot", "1 per class", 2), ("few-shot", "2 per class", 2),
        ("part of the labels", "50 % of labels", 2), ("part of the labels", "100 % of labels", 1),
        ("neighbours", "20 nearest vote", 1), ("retrieval", "R@1", 1), ("retrieval", "R@5", 1), ("retrieval", "mAP", 1),
        *[("corrupted", kind.name, 1) for kind in CORRUPTIONS], ("corrupted", "all kinds", 1), ("corrupted", "kept", 1),
    ]  # fmt: skip
    assert found.data["settings"]["n_compared"] == 15
    assert "corrected for 15 comparisons" in found.sentence


def test_what_cannot_be_asked_is_noted_with_the_reason(found: Findings) -> None:
    assert "40 per class was not measured: moss has only 10 pictures to train on" in found.data["notes"]
    assert "1 % of labels were not measured: they have 0 pictures, and two per class need 6" in found.data["notes"]


def test_a_stopped_study_measures_nothing_twice(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fitted = []
    learn = Linear.learn_seen
    monkeypatch.setattr(
        Linear, "learn_seen", lambda self, encoder, part: fitted.append(1) or learn(self, encoder, part)
    )
    study = replace(STUDY, n_corrupted=0, shots=(1, 2), parts=())
    first = study.run({"colours": colours()}, drawn(8), tmp_path)
    assert len(fitted) == 3  # two kinds of few, and all: C is chosen once for each
    rows = (tmp_path / "progress.jsonl").read_text().splitlines(keepends=True)
    assert len(rows) == 2 + 2 + 1 + 1 + 1
    (tmp_path / "progress.jsonl").write_text("".join(rows[:-3]) + rows[-3][:20])
    again = study.run({"colours": colours()}, drawn(8), tmp_path)
    assert len(fitted) == 4
    assert again.data == first.data
    study.run({"colours": colours()}, drawn(9), tmp_path)
    assert len(fitted) == 7  # of other pictures nothing is known


def test_corrupted_pictures_are_looked_at_once(tmp_path: Path) -> None:
    material, store = looked(), FeatureStore(tmp_path / "store.sqlite")
    task = Corrupted(n_pictures=4, store=store)
    first, _ = task.measured(material, 0, None)
    asked = first["blur"].isfinite()
    assert int(asked.sum()) == 4
    n = len(store)
    assert 4 * 14 < n <= 4 * 15
    second, _ = task.measured(material, 0, None)
    assert len(store) == n  # nothing was looked at anew
    assert all(torch.equal(first[k][asked], second[k][asked]) for k in first)
    kinds = torch.stack([first[kind.name] for kind in CORRUPTIONS])[:, asked]
    assert torch.allclose(first["all kinds"][asked], kinds.mean(0))
    assert bool((first["kept"][asked] <= first["all kinds"][asked]).all())


def test_own_class_is_looked_for_among_those_learnt_from() -> None:
    material = looked(4)
    values, _ = OwnClass().measured(material, 0, None)
    assert {k: v.tolist() for k, v in values.items()} == {k: [1.0] * 3 for k in ("R@1", "R@5", "mAP")}
    torch.manual_seed(0)
    wrong = Material(material.encoder, replace(material.pictures, labels=material.labels[torch.randperm(12)]), RECIPE)
    owner, truth = wrong.labels[wrong.pool], wrong.labels[wrong.test]
    by_hand = []
    for row, own in zip(likeness(wrong), truth.tolist(), strict=True):
        hits = [int(owner[i]) == own for i in row.argsort(descending=True, stable=True).tolist()]
        at = [i for i, hit in enumerate(hits) if hit]
        by_hand.append((float(hits[0]), float(any(hits[:5])), np.mean([(n + 1) / (i + 1) for n, i in enumerate(at)])))
    values, _ = OwnClass().measured(wrong, 0, None)
    assert torch.stack(list(values.values()), 1).tolist() == [[pytest.approx(v) for v in row] for row in by_hand]


def test_few_are_of_every_class_and_lie_in_more() -> None:
    labels, pool = torch.tensor([0] * 9 + [1] * 9), torch.arange(2, 18)
    one, four = (few(labels, pool, 2, k, 5).tolist() for k in (1, 4))
    assert labels[four].tolist() == [0] * 4 + [1] * 4
    assert set(one) < set(four) <= set(pool.tolist())
    assert len({tuple(few(labels, pool, 2, 4, seed).tolist()) for seed in range(5)}) == 5


def test_each_kind_of_question_learns_from_what_it_says() -> None:
    material = looked(10)
    assert len(FewShot(3).places(material, 0)) == 9
    assert len(LabelPart(0.5).places(material, 0)) == round(len(material.pool) / 2)
    assert torch.equal(LabelPart(1.0).places(material, 0), material.pool)
    assert not LabelPart(1.0).drawn
    assert LabelPart(0.1).name == "10 % of labels"
    values, _ = Neighbours(k=3).measured(material, 0, None)
    assert values["3 nearest vote"].mean() == 1.0
    assert FewShot(8).why_not(material) == "8 per class was not measured: moss has only 7 pictures to train on"
    assert FewShot(7).why_not(material) is None
    assert LabelPart(0.2).why_not(material) is not None
    assert LabelPart(0.29).why_not(material) is None


def test_corruptions_change_a_picture_more_at_each_level_and_always_alike() -> None:
    plain = picture("sky", 3, 64)
    for kind in CORRUPTIONS:
        off = [np.abs(kind(plain, level, 1).astype(float) - plain).mean() for level in kind.levels]
        assert 0 < off[0] < off[1] < off[2], kind.name
        assert np.array_equal(kind(plain, kind.levels[0], 1), kind(plain, kind.levels[0], 1))
        assert kind(plain, kind.levels[-1], 1).shape == plain.shape
    noise = next(k for k in CORRUPTIONS if k.name == "noise")
    assert not np.array_equal(noise(plain, 0.1, 1), noise(plain, 0.1, 2))
    grey = np.full((8, 8, 3), 128, np.uint8)
    assert np.std((noise(grey, 0.08, 1).astype(float) - 128) / 255) == pytest.approx(0.08, rel=0.15)
    bright = next(k for k in CORRUPTIONS if k.name == "brightness")
    raised = bright(np.array([[[100, 50, 0], [0, 0, 0], [255, 10, 10]]], np.uint8), 0.1, 0)
    assert raised.tolist() == [[[125, 62, 0], [25, 25, 25], [255, 10, 10]]]


def test_a_picture_is_corrupted_whole_and_no_larger_than_the_benchmarks() -> None:
    wide = np.zeros((300, 600, 3), np.uint8)
    wide[:, :10] = 255
    small = read_small(wide)
    assert small.shape == (SIDE, 2 * SIDE, 3)
    assert small[:, 0].mean() > 200
    assert np.array_equal(read_small(picture("sky", 0, 40)), picture("sky", 0, 40))


def measures(values: torch.Tensor, n: int = 1) -> list[Measure]:
    return [Measure(f"m{i}", "few-shot", values) for i in range(n)]


def test_a_mean_has_the_doubt_of_pictures_and_of_draws() -> None:
    alone = mean_of(torch.tensor([[1.0, 0.0, NAN, 1.0, 0.0]]), torch.arange(5))
    assert alone == (0.5, (Error(0.0, 1), Error(pytest.approx((0.25 / 3) ** 0.5), 3)))
    draws = mean_of(torch.tensor([[0.0], [0.5], [1.0]]).expand(3, 50), torch.arange(50))
    assert draws == (0.5, (Error(pytest.approx((0.25 / 3) ** 0.5), 2), Error(0.0, 49)))
    assert draws.interval(0.95) == (pytest.approx(0.5 - 4.3027 * 0.288675, abs=2e-3), pytest.approx(1.7421, abs=2e-3))
    things = mean_of(torch.tensor([[1.0, 0.0]]).repeat_interleave(20, 1), torch.arange(40) // 20)
    assert things == (0.5, (Error(0.0, 1), Error(pytest.approx(0.5), 1)))
    both = mean_of(torch.tensor([[1.0, 0.0, 1.0, 0.0], [1.0, 1.0, 1.0, 1.0]]), torch.arange(4))
    assert both == (
        0.75, (Error(pytest.approx((0.125 / 2) ** 0.5), 1), Error(pytest.approx((0.0625 * 4 / 3 / 4) ** 0.5), 3)),
    )  # fmt: skip


def test_what_never_differs_is_no_difference_and_what_always_does_is_one() -> None:
    assert mean_of(torch.zeros(1, 9), torch.arange(9)).p == 1.0
    assert mean_of(torch.ones(1, 9), torch.arange(9)).p == 0.0
    assert mean_of(torch.ones(1, 9), torch.arange(9)).interval(0.95) == (1.0, 1.0)


def test_clear_differences_are_real_and_none_are_none() -> None:
    generator = torch.Generator().manual_seed(0)
    good = (torch.rand(1, 1, 200, generator=generator) < 0.9).double()
    bad = (torch.rand(1, 1, 200, generator=generator) < 0.6).double()
    (table,) = compared(measures(torch.cat([good, bad, good])), ["a", "b", "c"], torch.arange(200))
    assert [(d["a"], d["b"], d["better"]) for d in table["differences"]] == [
        ("a", "b", "a"), ("a", "c", None), ("b", "c", "c"),
    ]  # fmt: skip
    assert table["differences"][1]["p"] == 1.0
    assert table["differences"][0]["p_corrected"] == pytest.approx(3 * table["differences"][0]["p"], rel=0.01)
    assert table["rows"][0]["interval"][0] < table["rows"][0]["value"] < table["rows"][0]["interval"][1]
    assert [s["encoder"] for s in standings([table], ["a", "b", "c"])] == ["a", "c", "b"]
    assert standings([table], ["a", "b", "c"])[2] == {"encoder": "b", "won": 0, "lost": 2, "compared": 2}
    assert said_of([table], ["a", "b", "c"]) == (
        "In 1 measure, no difference between a and c is real. a beats b on 1 of 1 measure, and loses on 0"
    )


def test_an_interval_stays_where_its_mean_must() -> None:
    values = torch.tensor([[[-2.0, 2.2] * 6]]).double()  # of a harmonic mean, to first order
    ends = [
        compared([Measure("h", "f", values, bounds)], ["a"], torch.arange(12))[0]["rows"][0]["interval"]
        for bounds in ((-math.inf, math.inf), (0.0, 1.0))
    ]
    assert ends[0][0] < 0 < 1 < ends[0][1]
    assert ends[1] == [0.0, 1.0]


def test_an_interval_of_a_difference_is_cut_to_what_is_possible() -> None:
    values = torch.tensor([[[0.0, 1.0, 0.0]], [[1.0, 0.0, 1.0]]]).double()
    ends = [
        compared([Measure("h", "f", values, bounds)], ["a", "b"], torch.arange(3))[0]["differences"][0]["interval"]
        for bounds in ((-math.inf, math.inf), (0.0, 1.0))
    ]
    assert ends[0][0] < -1 < 1 < ends[0][1]
    assert ends[1] == [-1.0, 1.0]


def test_few_things_to_test_on_never_give_a_real_difference() -> None:
    values = torch.stack([torch.ones(1, 90), torch.zeros(1, 90)]).double()
    for n_groups, real in ((9, False), (10, True)):
        (table,) = compared(measures(values), ["a", "b"], torch.arange(90) % n_groups)
        assert table["differences"][0]["real"] is real


def test_the_same_difference_counts_less_among_many() -> None:
    values = torch.stack([torch.ones(1, 40), (torch.arange(40) % 5 != 0)[None]]).double()
    for n, real in ((1, True), (30, False)):
        tables = compared(measures(values, n), ["a", "b"], torch.arange(40))
        assert all(t["differences"][0]["real"] is real for t in tables)


def test_tables_without_a_difference_seldom_have_a_real_one() -> None:
    """Encoders of one accuracy, five draws that come out better or worse, six measures: 5 % are expected at most."""
    generator, wrong = torch.Generator().manual_seed(3), 0
    for _ in range(60):
        hard = torch.randn(80, generator=generator)
        own = torch.randn(6, 2, 5, 80, generator=generator) + 0.5 * torch.randn(6, 2, 5, 1, generator=generator)
        right = (own > hard).double()
        wrong += min(holm([mean_of(one[0] - one[1], torch.arange(80)).p for one in right])) < 0.05
    assert wrong <= 6  # 3 are expected of exactly 5 %, more than 6 in one of 30 such worlds


def test_p_values_are_students_or_of_two_and_corrected_in_order() -> None:
    for t, freedom, p in ((2.776445, 4, 0.05), (-2.776445, 4, 0.05), (12.7062, 1, 0.05), (3.09, 10**6, 0.002)):
        assert beyond(t, [Error(1.0, freedom)]) == pytest.approx(p, rel=0.01)
        assert beyond(3 * t, [Error(0.0, 5), Error(3.0, freedom)]) == pytest.approx(p, rel=0.01)
    generator = torch.Generator().manual_seed(0)
    z = torch.randn(2, 400_000, generator=generator)
    t4 = (
        torch.randn(400_000, generator=generator)
        / (torch.randn(4, 400_000, generator=generator).square().mean(0)) ** 0.5
    )
    drawn = float(((0.5 * t4 + 0.3 * z[0]).abs() > 1.5).double().mean())
    assert beyond(1.5, [Error(0.3, 10**6), Error(0.5, 4)]) == pytest.approx(drawn, rel=0.03)
    assert within(0.9, [Error(2.0, 2)]) == pytest.approx(2 * 2.919986, rel=1e-3)
    assert within(0.9, [Error(0.0, 2), Error(0.0, 9)]) == 0.0
    assert holm([0.04, 0.01, 0.5]) == [0.08, 0.03, 0.5]
    assert holm([0.6, 0.9]) == [1.0, 1.0]


def test_numbers_come_back_from_the_journal() -> None:
    values = torch.tensor([1.0, NAN, 0.25], dtype=torch.double)
    assert torch.equal(read(written({"m": values})["m"]).nan_to_num(7), values.nan_to_num(7))


def test_bad_input_is_said_in_a_sentence() -> None:
    def refused(samples: Samples, says: str, test: Samples | None = None) -> None:
        with pytest.raises(DataError) as error:
            STUDY.run({"colours": colours()}, samples, test=test)
        assert says in str(error.value)

    learn, fresh = drawn(6), drawn(3, start=50)
    refused(drawn(6, ("moss",)), "At least two classes must have readable pictures, got 1.")
    refused(drawn(1), "at least 2 training pictures, and 3 class(es) have fewer: moss, rust, sky.")
    refused(
        learn,
        "Every class must have a test picture, and 1 class(es) have none: sky.",
        gathered([s for s in fresh.items if s.label != "sky"]),
    )
    refused(learn, "in both the training and the test set: moss 3 = moss 3", drawn(3, start=3))


def test_settings_that_are_none() -> None:
    for how, says in (
        ({"n_seeds": 1}, "`n_seeds` of the study must be a whole number of at least 2, got 1."),
        ({"shots": (4, 0)}, "`shots` of the study must be a whole number of at least 1, got 0. Leave it out"),
        ({"parts": (1.0,)}, "`parts` of the study must be a number above 0 and below 1, got 1."),
    ):  # fmt: skip
        with pytest.raises(InputError) as error:
            replace(STUDY, **how)
        assert says in str(error.value)
    with pytest.raises(InputError, match="`encoders` must have at least one entry"):
        STUDY.run({}, drawn(6))


def test_encoders_that_cannot_be_found_are_named() -> None:
    with pytest.raises(UnknownNameError, match=r"There is no encoder called 'lite9'\. Did you mean 'lite"):
        Session("study transfer", None, encoder=["lite9", "lite0"]).encoders()
    with pytest.raises(InputError, match=r"--encoder lite0 was given twice\. Give each encoder once\."):
        Session("study transfer", None, encoder=["lite0", "lite2", "lite0"]).encoders()


@pytest.mark.slow
def test_on_the_command_line(tmp_path: Path) -> None:
    folder = class_folders(tmp_path / "photos", 8, tuple(COLOURS))
    out = tmp_path / "study"
    words = ["study", "transfer", str(folder), "-e", "lite0", "--set", "shots=1", "--set", "parts=0.5", "-o", str(out)]
    words += ["--set", "n_corrupted=2", "--set", "n_seeds=2", "--set", "held_out=0.3"]
    done = RUNNER.invoke(app, [*words, "--json", "--quiet"])
    assert done.exit_code == 0, done.output
    data = json.loads(done.stdout)
    check("study-transfer", [data])
    assert data["report"] == str(out / "transfer.html")
    assert "Only lite0 was measured" in data["sentence"]
    assert "retrieval" in RUNNER.invoke(app, words).stdout
