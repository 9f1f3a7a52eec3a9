"""How many more pictures: cells that are kept, subsets and labels as they should be, answers within their range."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from typer.testing import CliRunner

from schemas import check
from seewhy.classifiers.linear.recipe import Linear
from seewhy.cli import app
from seewhy.errors import DataError, InputError
from seewhy.pictures.samples import Sample, Samples, gathered, load_samples
from seewhy.studies.learning_curve import resample
from seewhy.studies.material import look_with_each, subset_order
from seewhy.studies.scaling import Findings, ScalingStudy, noisy, rounded
from tiny import COLOURS, class_folders, colours, picture, tiny_cnn

STUDY = ScalingStudy(n_sizes=3, n_seeds=2, n_draws=40, recipe=Linear(n_crops=0, split="random"), held_out=0.3)
RUNNER = CliRunner()


def drawn(n: int, labels: tuple[str, ...] = ("moss", "rust", "sky"), start: int = 0) -> Samples:
    """Pictures whose label is wrong for every fifth: a curve with a floor."""
    items = []
    for k, label in enumerate(labels):
        for i in range(start, start + n):
            shown = labels[(k + 1) % len(labels)] if i % 5 == 0 else label
            items.append(Sample(f"{label} {i}", label, pixels=picture(shown, i, 16)))
    return gathered(items)


@pytest.fixture(scope="module")
def found() -> Findings:
    study = replace(STUDY, target=0.99, noise=(0.4,), n_classes=(2,))
    return study.run({"colours": colours(), "tiny": tiny_cnn()}, drawn(20))


def test_what_is_found_is_as_its_schema_says_and_draws_itself(found: Findings) -> None:
    check("study-scaling", [{**found.data, "report": None}])
    page = found.to_html()
    assert page.count("<svg") == 4
    assert "Tested with " in page
    assert found.sentence in json.dumps(found.data, ensure_ascii=False)
    assert [arm["name"] for arm in found.data["arms"]] == [
        "colours", "tiny", "colours, 40 % of labels wrong", "colours, 2 classes",
    ]  # fmt: skip


def test_the_range_that_was_tested_is_told(found: Findings) -> None:
    low, high = found.data["tested_range"]
    assert f"Tested with {low:,} to {high:,} pictures" in found.sentence
    assert high == found.data["n"] - found.data["n_test"]
    assert found.data["n_have"] == found.data["n"] == 60
    points = found.data["arms"][0]["points"]
    assert [p["n"] for p in points] == [6, 16, 42]
    assert all(len(p["by_seed"]) == 2 for p in points)


def test_nothing_is_foretold_beyond_four_times_what_was_seen(found: Findings) -> None:
    most = 4 * found.data["tested_range"][1]
    assert found.data["answer"]["most"] == most
    for arm in found.data["arms"]:
        assert max(row["n"] for row in arm["predictions"]) <= 4 * arm["points"][-1]["n"] * 1.05
        assert max(row["n"] for row in arm["band"]) <= 4 * arm["points"][-1]["n"] * 1.001
    for pair in (found.data["answer"]["needed"], found.data["answer"]["more"]):
        assert all(n is None or n <= most for n in pair)


def test_a_stopped_study_fits_nothing_twice(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fitted = []
    learn = Linear.fit_at
    monkeypatch.setattr(Linear, "fit_at", lambda self, part, c: fitted.append(len(part.labels)) or learn(self, part, c))
    first = STUDY.run({"colours": colours()}, drawn(12), tmp_path)
    n_fitted = len(fitted)
    assert n_fitted == 3  # of each size the second subset; the first is what C was chosen on
    rows = (tmp_path / "progress.jsonl").read_text().splitlines(keepends=True)
    assert len(rows) == 6
    (tmp_path / "progress.jsonl").write_text("".join(rows[:-1]) + rows[-1][:20])
    again = STUDY.run({"colours": colours()}, drawn(12), tmp_path)
    assert len(fitted) == n_fitted + 1
    assert again.data == first.data
    STUDY.run({"colours": colours()}, drawn(13), tmp_path)
    assert len(fitted) == 2 * n_fitted + 1  # of other pictures nothing is known


def test_subsets_have_every_class_in_its_share_and_lie_in_one_another() -> None:
    labels = torch.tensor([0] * 40 + [1] * 20)
    order = subset_order(labels, torch.arange(60), [0, 1], 3)
    assert sorted(order.tolist()) == list(range(60))
    assert sorted(labels[order[:4]].tolist()) == [0, 0, 1, 1]
    for size in (12, 30, 45):
        assert abs(int((labels[order[:size]] == 1).sum()) - size / 3) <= 2
    assert order.tolist() != subset_order(labels, torch.arange(60), [0, 1], 4).tolist()
    assert set(subset_order(labels, torch.arange(60), [1], 3).tolist()) == set(range(40, 60))


def test_wrong_labels_are_the_same_at_every_size_and_only_where_learnt_from() -> None:
    labels = torch.tensor([0, 1, 2] * 100)
    pool = torch.arange(200)
    changed = noisy(labels, pool, [0, 1, 2], 0.3, 1)
    assert torch.equal(changed[200:], labels[200:])
    part = float((changed != labels)[:200].double().mean())
    assert 0.2 < part < 0.4
    assert torch.equal(noisy(labels, torch.arange(50), [0, 1, 2], 0.3, 1)[:50], changed[:50])
    fewer = noisy(labels, pool, [0, 1, 2], 0.1, 1)
    assert bool(((fewer == labels) | (changed != labels)).all())  # what is wrong at 10 % is wrong at 30 %
    assert torch.equal(noisy(labels, pool, [0, 1, 2], 0.0, 1), labels)


def test_resampling_is_of_seeds_and_of_test_pictures_in_groups() -> None:
    certain = torch.ones(2, 3, 40, dtype=torch.long)
    errors, draws, _ = resample(certain, torch.arange(40), nested=True, n_draws=50)
    assert torch.allclose(errors, torch.full((2,), 0.5 / 41, dtype=torch.double))
    assert float(draws.std()) < 1e-9
    half = certain.clone()
    half[:, :, ::2] = 0
    apart, together = (
        resample(half, groups, nested=True, n_draws=2000)[1][:, 0]
        for groups in (torch.arange(40), torch.arange(40) % 2 + torch.arange(40) // 8 * 2)
    )
    assert float(apart.std()) == pytest.approx((0.25 / 40) ** 0.5, rel=0.1)
    assert float(together.std()) > 1.5 * float(apart.std())
    by_seed = certain.clone()
    by_seed[:, 0] = 0
    nested, alone = (resample(by_seed, torch.arange(40), nested=nested, n_draws=500)[1] for nested in (True, False))
    assert torch.equal(nested[:, 0], nested[:, 1])
    assert not torch.equal(alone[:, 0], alone[:, 1])
    assert float(nested[:, 0].mean()) == pytest.approx(1 / 3, abs=0.05)


def test_pictures_whose_class_is_not_asked_count_for_nothing() -> None:
    right = torch.ones(1, 2, 10, dtype=torch.long)
    right[:, :, 5:] = -1
    right[:, :, 0] = 0
    errors, _, by_seed = resample(right, torch.arange(10), nested=True, n_draws=10)
    assert float(errors[0]) == pytest.approx((2 + 1) / (10 + 2))
    assert by_seed.tolist() == [[pytest.approx(0.2)] * 2]


def test_numbers_of_pictures_are_round() -> None:
    assert [rounded(n) for n in (0, 9.4, 99.6, 123, 2345, 98765)] == [0, 9, 100, 120, 2300, 99000]


def refused(samples: Samples, says: str, **how: object) -> None:
    study = replace(STUDY, **{k: v for k, v in how.items() if k != "test"})
    with pytest.raises(DataError) as error:
        study.run({"colours": colours()}, samples, test=how.get("test"))
    assert says in str(error.value)


def test_bad_input_is_said_in_a_sentence() -> None:
    refused(drawn(9, ("moss",)), "At least two classes must have readable pictures, got 1.")
    refused(drawn(1), "at least 2 training pictures, and 3 class(es) have fewer: moss, rust, sky.")
    refused(drawn(4), "At least 6 training pictures per class (18 in all) are needed for three sizes, got 9")
    refused(drawn(20), "`target` must be an accuracy between 0 and 1, got 1.5.", target=1.5)
    refused(drawn(20), "`target` must be an accuracy between 0 and 1, got 95.", target=95.0)
    refused(drawn(20), "training pictures already reach, got 0.200.", target=0.2)
    refused(drawn(20), "`noise` must be the fraction of wrong labels, between 0 and 1, got 1.", noise=(1.0,))
    refused(drawn(20), "`n_classes` must be from 2 to 2, because the pictures have 3 classes, got 3.", n_classes=(3,))


def test_bad_test_pictures_are_named() -> None:
    learn, fresh = drawn(8), drawn(3, start=50)
    some = gathered([s for s in fresh.items if s.label != "sky"])
    refused(learn, "Every class must have a test picture, and 1 class(es) have none: sky.", test=some)
    refused(learn, "moss 3 = moss 3", test=gathered([*fresh.items, learn.items[3]]))
    refused(learn, "'mould'", test=gathered([Sample("m", "mould", pixels=picture("moss", 99, 16)), *fresh.items]))


def test_settings_that_are_none() -> None:
    with pytest.raises(InputError, match=r"must be a whole number of at least 2, got 1"):
        replace(STUDY, n_seeds=1)
    with pytest.raises(InputError, match=r"`beyond` of the study must be a number of at least 1, got 0\.5"):
        replace(STUDY, beyond=0.5)


def test_test_pictures_of_ones_own(tmp_path: Path) -> None:
    found = STUDY.run({"colours": colours()}, drawn(8), test=drawn(4, start=50))
    assert (found.data["n_have"], found.data["n_test"], found.data["tested_range"][1]) == (24, 12, 24)


def test_pictures_of_one_group_are_on_one_side() -> None:
    items = drawn(20).items
    grouped = gathered([replace(s, group=f"{s.label} {int(s.image.split()[1]) // 4}") for s in items])
    study = replace(STUDY, recipe=Linear(n_crops=0))
    looked = look_with_each({"colours": colours()}, grouped, study.recipe, held_out=study.held_out, seed=0)["colours"]
    sides = {}
    for sample, held in zip(looked.pictures.items, looked.pictures.held.tolist(), strict=True):
        assert sides.setdefault(sample.group, held) == held
    assert 0 < int(looked.pictures.held.sum()) < 60


@pytest.mark.slow
def test_on_the_command_line(tmp_path: Path) -> None:
    folder = class_folders(tmp_path / "photos", 12, tuple(COLOURS))
    out = tmp_path / "study"
    words = [
        "study",
        "scaling",
        str(folder),
        "--set",
        "n_sizes=3",
        "--set",
        "n_seeds=2",
        "-o",
        str(out),
        "--set",
        "held_out=0.3",
    ]
    done = RUNNER.invoke(app, [*words, "--json", "--quiet"])
    assert done.exit_code == 0, done.output
    data = json.loads(done.stdout)
    assert data["report"] == str(out / "scaling.html")
    assert (out / "scaling.json").exists()
    assert len(load_samples(folder)) == data["n"]
    again = RUNNER.invoke(app, words)
    assert "Tested with " in again.stdout
    refused = RUNNER.invoke(app, [*words, "--target", "1.2"])
    assert "`target` must be an accuracy between 0 and 1, got 1.2." in str(refused.exception)
