"""The score of interpretability: closed forms, planted concepts, controls, resuming, and bad input."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from typer.testing import CliRunner

from schemas import check
from seewhy.cli import app
from seewhy.clusters import k_means
from seewhy.encoders.base import Encoder
from seewhy.errors import DataError, InputError, UnknownNameError
from seewhy.pictures.samples import Sample, Samples, load_samples
from seewhy.progress import Progress
from seewhy.studies.concepts import HeadTraining, Looked, Parts, iis, measure, prototype, random, standardised, text
from seewhy.studies.interpretability import Findings, InterpretabilityStudy, neighbours
from seewhy.studies.interpretability_findings import answer, correlations, rank_correlation
from tiny import class_folders, colours, tiny_cnn

GOLDEN = json.loads((Path(__file__).parents[1] / "golden" / "iis.json").read_text("utf-8"))
QUICK = HeadTraining(n_epochs=3, least_steps=6)
STUDY = InterpretabilityStudy(n_concepts=8, n_random=2, n_draws=100, training=QUICK)
WORDS = ("green", "brown", "blue", "pale")


def row_of(found: Findings, encoder: str, library: str) -> dict[str, Any]:
    return next(row for row in found.data["rows"] if (row["encoder"], row["library"]) == (encoder, library))


def thirds(n: int) -> Parts:
    place = torch.arange(n) % 3
    return Parts(place == 0, place == 1, place == 2)


@pytest.fixture(scope="module")
def samples(tmp_path_factory: pytest.TempPathFactory) -> Samples:
    return load_samples(class_folders(tmp_path_factory.mktemp("colours"), 6))


def test_the_integral_is_the_authors() -> None:
    found = iis(*(torch.tensor(GOLDEN[k], dtype=torch.double) for k in ("accuracies", "reference")))
    assert float(found) == pytest.approx(GOLDEN["iis"], abs=GOLDEN["tolerance"])
    one = torch.full((8,), 0.6)
    assert float(iis(one, torch.tensor(0.3), normalised=True)) == pytest.approx(2.0)  # above 1, and not clipped


def test_layers_separate_what_can_be_and_only_that() -> None:
    labels = torch.arange(60) % 2
    x = torch.randn(60, 5, generator=torch.Generator().manual_seed(0))
    parts = thirds(60)
    told = torch.cat([x, 4.0 * labels[:, None] - 2], 1)
    assert bool(HeadTraining()(told, labels, parts).all())
    assert 0.2 < float(HeadTraining()(x, labels, parts).float().mean()) < 0.8
    assert torch.equal(HeadTraining()(x, labels, parts), HeadTraining()(x, labels, parts))


def test_a_step_is_adams() -> None:
    x, labels = torch.randn(30, 4, generator=torch.Generator().manual_seed(1)), torch.arange(30) % 3
    every = torch.ones(30, dtype=torch.bool)
    mine = HeadTraining((0.3,), n_epochs=7, least_steps=7, decay=0.3, seed=2)
    draws = torch.Generator().manual_seed(2)
    layer = torch.nn.Linear(4, 3)
    layer.weight.data = torch.nn.init.trunc_normal_(torch.empty(3, 4), std=0.02, a=-2, b=2, generator=draws)
    layer.bias.data.zero_()
    adam = torch.optim.Adam(layer.parameters(), lr=0.3)
    falling = torch.optim.lr_scheduler.ExponentialLR(adam, 0.3)
    for _ in range(7):
        adam.zero_grad()
        torch.nn.functional.cross_entropy(layer(x), labels).backward()
        adam.step()
        falling.step()
    # Chosen on what it was trained on, the last epoch is the best.
    right = mine(x, labels, Parts(every, every, every))
    assert torch.equal(right, layer(x).argmax(1) == labels)
    assert 0 < int(right.sum()) < 30


def test_planted_concepts_beat_random_directions_when_few_are_kept() -> None:
    draws = torch.Generator().manual_seed(0)
    labels = torch.arange(240) % 8
    pooled = 3 * torch.eye(64)[labels] + torch.randn(240, 64, generator=draws)
    looked = Looked(tiny_cnn(), pooled, labels, [], thirds(240), n_concepts=16)
    planted = looked.along(torch.eye(64)[:16])
    control = random(looked, 0).scores
    few = {"sparsities": (0.9,), "training": HeadTraining()}
    (ours, kept, used), (theirs, *_) = (measure(s, labels, thirds(240), **few) for s in (planted, control))  # type: ignore[arg-type]
    assert kept == [2]
    assert used[0] <= 16
    assert float(ours.float().mean()) > float(theirs.float().mean()) + 0.2


def test_what_is_used_is_counted_on_test_pictures() -> None:
    scores = torch.eye(6)[torch.tensor([0, 1, 5, 2, 3, 5])]  # rows 2 and 5 are tested
    _, kept, used = measure(scores, torch.arange(6) % 2, thirds(6), sparsities=(0.9,), training=QUICK)
    assert (kept, used) == ([1], [1])


def test_a_study_is_as_its_schema_says_and_goes_on_where_it_was(samples: Samples, tmp_path: Path) -> None:
    encoders = [tiny_cnn(), tiny_cnn(1, name="other")]
    found = STUDY.run(encoders, samples, tmp_path / "study", concepts=WORDS)
    check("study-interpretability", [json.loads(json.dumps({**found.data, "report": None}))])
    assert [(r["encoder"], r["library"]) for r in found.data["rows"]] == [
        (e, lib) for e in ("tiny", "other") for lib in ("prototype", "cluster", "text", "random")
    ]
    row = row_of(found, "tiny", "prototype")
    assert [p["kept"] for p in row["points"]] == [8, 8, 6, 4, 3, 1, 1, 1]
    assert row["points"][0]["arr"]["value"] == pytest.approx(
        row["points"][0]["accuracy"]["value"] / found.data["encoders"][0]["accuracy"]["value"], abs=1e-3
    )
    assert "less_random" not in row_of(found, "tiny", "random")
    assert "not whether people understand them" in found.sentence
    lines = (tmp_path / "study" / "progress.jsonl").read_text("utf-8").splitlines()
    (tmp_path / "study" / "progress.jsonl").write_text("\n".join(lines[:4]) + "\n", "utf-8")
    again = STUDY.run(encoders, samples, tmp_path / "study", concepts=WORDS)
    assert again.data == found.data
    assert len((tmp_path / "study" / "progress.jsonl").read_text("utf-8").splitlines()) == len(lines)
    page = found.save(tmp_path / "study.html").read_text("utf-8")
    assert "concepts kept per picture" in page
    assert "Pieces of pictures" in page


def test_another_setting_is_measured_anew(samples: Samples, tmp_path: Path) -> None:
    study = replace(STUDY, libraries=("random",))
    study.run([tiny_cnn()], samples, tmp_path)
    n = len((tmp_path / "progress.jsonl").read_text("utf-8").splitlines())
    replace(study, layer_norm=False).run([tiny_cnn()], samples, tmp_path)
    assert len((tmp_path / "progress.jsonl").read_text("utf-8").splitlines()) == 2 * n == 6


def wordless(seed: int = 3) -> Encoder:
    made = tiny_cnn(seed, name="wordless")
    made._text = None
    return made


def test_words_by_a_judge_and_without_one(samples: Samples) -> None:
    study = replace(STUDY, libraries=("text", "random"))
    found = study.run([wordless()], samples, concepts=WORDS, judge=colours())
    assert row_of(found, "wordless", "text")["words_of"] == colours().name
    alone = study.run([wordless()], samples, concepts=WORDS)
    assert [r["library"] for r in alone.data["rows"]] == ["random"]
    assert "text of wordless is left out: The encoder wordless reads no text." in str(alone.data["notes"])
    with pytest.raises(DataError, match=r"^Nothing was measured\. text of wordless is left out"):
        replace(study, libraries=("text",)).run([wordless()], samples, concepts=WORDS)


def test_a_judges_words_keep_their_sign() -> None:
    draws = torch.Generator().manual_seed(0)
    seen = torch.randn(300, 8, generator=draws)
    judge = tiny_cnn()
    turned = torch.linalg.qr(torch.randn(8, 8, generator=draws))[0]
    looked = Looked(
        wordless(), seen @ turned, torch.zeros(300).long(), [], thirds(300), texts=WORDS, judge=(judge, seen)
    )
    found = text(looked, 0)
    own = text(replace(looked, encoder=judge, pooled=seen, judge=None), 0)
    assert found.scores.shape == own.scores.shape == (300, len(WORDS))
    assert all(
        float(torch.corrcoef(torch.stack([a, b]))[0, 1]) > 0.8
        for a, b in zip(found.scores.T, own.scores.T, strict=True)
    )


def test_prototypes_are_of_training_pictures_and_all_classes(samples: Samples) -> None:
    asked: list[Any] = [item.source for item in samples.items]
    labels = torch.tensor([samples.classes.index(item.label) for item in samples.items])
    looked = Looked(tiny_cnn(), torch.randn(len(labels), 8), labels, asked, thirds(len(labels)), n_concepts=12, grid=2)
    assert len(looked.pieces) == 4 * int(looked.parts.train.sum())
    assert prototype(looked, 0).scores.shape == (len(labels), 12)
    assert len(replace(looked, n_pieces=13).pieces) == 13
    assert not torch.equal(prototype(looked, 0).scores, prototype(looked, 1).scores)


def test_standard_units_and_neighbours() -> None:
    x = torch.tensor([[1.0, 5.0], [3.0, 5.0], [9.0, 6.0]])
    train = torch.tensor([True, True, False])
    assert standardised(x, train).tolist() == [[-1.0, 0.0], [1.0, 0.0], [7.0, 0.0]]
    pooled = torch.eye(2).repeat(6, 1)
    assert neighbours(pooled, torch.arange(12) % 2, thirds(12)) == 1.0


def test_k_means_with_more_centres_than_places() -> None:
    assert k_means(torch.ones(5, 2), 3, torch.Generator().manual_seed(0)).tolist() == [[1.0, 1.0]] * 3


def test_ranks_and_what_is_left_of_a_correlation() -> None:
    z = [1.0, 2.0, 3.0, 4.0, 5.0, 6.0]
    assert rank_correlation(z, [-v for v in z])[0] == pytest.approx(-1.0)
    assert rank_correlation([1, 1, 1, 1], z[:4])[0] is None
    assert rank_correlation(z[:3], z[:3])[1] is None
    x, y = [3.0, 4, 1, 2, 5, 6], [1.0, 2, 5, 6, 3, 4]
    xy, xz, yz = (
        1 - 6 * sum((p - q) ** 2 for p, q in zip(a, b, strict=True)) / 210 for a, b in ((x, y), (x, z), (y, z))
    )
    left = (xy - xz * yz) / ((1 - xz**2) * (1 - yz**2)) ** 0.5
    assert rank_correlation(x, y, z)[0] == pytest.approx(left)


def told(n: int, below: int = 0) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Encoders whose score falls while their accuracy rises."""
    encoders = [
        {"encoder": str(i), "accuracy": {"value": 0.5 + i / 20}, "neighbours": i / 10, "below_floor": i < below}
        for i in range(n)
    ]
    rows = [
        {"encoder": str(i), "library": lib, "iis": {"value": 1 - i / 20 + j * (i % 2) / 9}, "area": {"value": i / 10}}
        for i in range(n)
        for j, lib in enumerate(("prototype", "random"))
    ]
    return encoders, rows


def test_correlations_need_four_encoders_above_the_floor() -> None:
    assert correlations(*told(3), n_draws=100) == []
    assert correlations(*told(5, below=2), n_draws=100) == []
    found = correlations(*told(6, below=1), n_draws=100)
    by = {(c["library"], c["of"], c["with"], c["given"]): c for c in found}
    assert by["prototype", "iis", "accuracy", None]["rho"] == -1.0
    assert by["prototype", "area", "accuracy", None]["rho"] == 1.0
    assert by["prototype", "iis", "accuracy", None]["n"] == 5
    assert ("random", "iis", "accuracy", "iis of random") not in by
    assert by["prototype", "iis", "neighbours", "accuracy"]["rho"] is None


def test_encoders_that_know_nothing_are_set_aside(samples: Samples) -> None:
    found = replace(STUDY, libraries=("random",)).run([tiny_cnn()], samples)
    low = {**found.data, "encoders": [{**found.data["encoders"][0], "below_floor": True}]}
    assert answer(low).startswith("No encoder reaches an accuracy of ")
    assert found.data["floor"] == pytest.approx(2 / len(samples.classes), abs=1e-3)


def of(samples: Samples, n: dict[str, int]) -> Samples:
    """So many pictures of each class."""
    items = tuple(s for c, k in n.items() for s in [i for i in samples.items if i.label == c][:k])
    return Samples(items, tuple(n))


def test_bad_input_in_one_sentence(samples: Samples, tmp_path: Path) -> None:
    a, b = samples.classes[:2]
    small = replace(STUDY, libraries=("random",))
    with pytest.raises(DataError, match=rf"^The pictures must have at least two classes, got one class, {a}\."):
        small.run([tiny_cnn()], of(samples, {a: 6}))
    with pytest.raises(DataError, match=rf"^Every class must have at least 3 different pictures, got 1 of {b}\."):
        small.run([tiny_cnn()], of(samples, {a: 6, b: 1}))
    few = InterpretabilityStudy(("prototype",), grid=2, n_random=1, n_draws=50, training=QUICK)
    with pytest.raises(
        DataError, match=r"must be at most 36, the number of crops of your pictures, got 200\. .* --set n_concepts=36\."
    ):
        few.run([tiny_cnn()], samples)
    with pytest.raises(DataError, match="At least two concepts are needed, got 1"):
        replace(STUDY, libraries=("text",)).run([tiny_cnn()], samples, concepts=["one"])
    with pytest.raises(UnknownNameError, match="prototyp"):
        InterpretabilityStudy(("prototyp",))
    with pytest.raises(InputError, match="`grid` of the study must be a whole number of at least 1, got 0"):
        InterpretabilityStudy(grid=0)
    with pytest.raises(InputError, match="`libraries` must have at least one of prototype, cluster, text, random"):
        InterpretabilityStudy(())
    with pytest.raises(InputError, match=r"`encoders` must be different, got tiny .* twice"):
        small.run([tiny_cnn(), tiny_cnn()], samples)
    with pytest.raises(InputError, match=r"^`encoders` must have at least one entry"):
        small.run([], samples)
    with pytest.raises(DataError, match=r"^Features must be finite, and row 3 has NaN or infinite values\."):
        HeadTraining()(torch.tensor([[0.0]] * 3 + [[torch.nan]]), torch.tensor([0, 1, 0, 1]), thirds(4))


def test_features_that_are_not_finite_leave_the_picture_out_for_all(samples: Samples) -> None:
    broken = tiny_cnn(5, name="broken")
    with torch.no_grad():
        next(iter(broken.module.parameters())).fill_(torch.nan)
    with pytest.raises(DataError, match=r"None of the .* pictures can be read\. The first is .*finite"):
        replace(STUDY, libraries=("random",)).run([tiny_cnn(), broken], samples)


def test_a_class_that_is_absent_at_test_and_pictures_on_both_sides(samples: Samples) -> None:
    names = samples.classes
    test = of(samples, dict.fromkeys(names[:-1], 2))
    heard = Progress()
    found = replace(STUDY, libraries=("random",)).run([tiny_cnn()], samples, test=test, progress=heard)
    assert found.data["n"] == len(test)
    assert f"The class {names[-1]} has no picture to test on: results are for the other classes." in found.data["notes"]
    assert f"{len(test)} picture(s) are also test pictures and were left out of training." in found.data["notes"]
    assert found.data["n_train"] + found.data["n_selection"] == len(samples) - len(test)


def test_groups_are_not_divided(samples: Samples) -> None:
    grouped = tuple(replace(s, group=f"{s.label} {i % 3}") for i, s in enumerate(samples.items))
    found = replace(STUDY, libraries=("random",)).run([tiny_cnn()], replace(samples, items=grouped))
    assert found.data["n"] == 2 * len(samples.classes)  # a third of each class, its two pictures together


def test_the_command(samples: Samples, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("seewhy.encoders.find.encoder", lambda name, *, engine: tiny_cnn(name=name))
    folder = str(Path(samples.items[0].image).parents[1])
    words = tmp_path / "words.txt"
    words.write_text("green\nbrown\n\nblue\n", "utf-8")
    asked = [
        "study",
        "interpretability",
        folder,
        "--set",
        "libraries=text",
        "--concepts",
        str(words),
        "--store",
        "none",
    ]
    done = CliRunner().invoke(app, [*asked, "-o", str(tmp_path / "out"), "--json", "-q"])
    assert done.exit_code == 0, done.output
    data = json.loads(done.stdout)
    check("study-interpretability", [data])
    assert data["rows"][0]["n_concepts"] == 3
    assert Path(data["report"]).is_file()
    assert Findings(data).sentence == data["sentence"]
    assert isinstance(samples.items[0], Sample)
