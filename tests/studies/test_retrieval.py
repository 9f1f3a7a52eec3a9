"""Before and after an encoder was adapted: what is counted, which differences are real, and the page that shows it."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

import seewhy
from schemas import check
from seewhy.cli import app
from seewhy.errors import DataError
from seewhy.learning.adapt import Adapt
from seewhy.learning.encoders.adapted import Adaptation
from seewhy.learning.encoders.heads import PairedHeads
from seewhy.learning.pooled import encode_pairs
from seewhy.pictures.samples import Sample, Samples
from seewhy.progress import Progress
from seewhy.studies.adapting import measure_retrieval
from seewhy.studies.study import Findings
from tiny import COLOURS, HUES, class_folders, colours, picture, tiny_cnn
from tiny_words import tiny_pair


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return class_folders(tmp_path_factory.mktemp("photos") / "all", 5, tuple(COLOURS))


@pytest.fixture(scope="module")
def told(folder: Path) -> Samples:
    """One picture of each class, whose first text says its colour; the second says nothing."""
    items = [
        Sample(str(folder / c / f"{c}_0.png"), c, (f"it is {HUES[c]}", f"number {i}")) for i, c in enumerate(COLOURS)
    ]
    return Samples(tuple(items), tuple(COLOURS))


def row(report: Findings, name: str) -> dict:
    return next(r for r in report.data["measures"] if r["measure"] == name)


def test_what_an_encoder_knows_is_found(told: Samples) -> None:
    report = measure_retrieval(colours(), told)
    assert row(report, "picture to text R@1")["after"] == 1.0
    # Of each picture's two texts one names its colour; the other is at right angles to all pictures.
    assert row(report, "text to picture R@1")["after"] == 0.5
    assert row(report, "text to picture R@5")["after"] == 1.0
    assert report.data["before"] is None
    assert "difference" not in report.data["measures"][0]
    assert (report.data["n_pictures"], report.data["n_texts"]) == (4, 8)


def test_classes_are_told_by_name_where_there_are_some(told: Samples) -> None:
    named = Samples(tuple(Sample(s.image, HUES[s.label], s.texts) for s in told.items), tuple(HUES.values()))
    assert row(measure_retrieval(colours(), named), "these classes by name")["after"] == 1.0
    silent = Samples(tuple(Sample(s.image, "", s.texts) for s in told.items), ())
    measures = [r["measure"] for r in measure_retrieval(colours(), silent).data["measures"]]
    assert "these classes by name" not in measures


def test_a_difference_is_real_where_its_interval_leaves_out_nothing(folder: Path) -> None:
    items = [Sample(str(p), p.parent.name, (f"it is {HUES[p.parent.name]}",)) for p in sorted(folder.rglob("*.png"))]
    samples = Samples(tuple(items), tuple(COLOURS))
    better = row(measure_retrieval(colours(), samples, before=tiny_cnn()), "picture to text R@10")
    assert better["difference"] == pytest.approx(better["after"] - better["before"], abs=2e-4)
    low, high = better["difference_interval"]
    assert better["real"] == (low > 0 or high < 0)
    same = row(measure_retrieval(colours(), samples, before=colours()), "picture to text R@10")
    assert (same["difference"], same["difference_interval"], same["real"]) == (0.0, [0.0, 0.0], False)


def test_pictures_of_one_group_are_drawn_together(folder: Path) -> None:
    files = sorted(folder.rglob("*.png"))
    items = [Sample(str(p), "", (f"it is {HUES[p.parent.name]}",), group=p.parent.name) for p in files]
    alone = tuple(Sample(s.image, "", s.texts) for s in items)

    def width(given: tuple[Sample, ...]) -> float:
        low, high = row(measure_retrieval(colours(), Samples(given, ())), "text to picture R@1")["after_interval"]
        return high - low

    assert width(tuple(items)) != width(alone)


def test_other_pictures_are_asked_by_name_too(told: Samples, folder: Path) -> None:
    others = seewhy.load_samples(folder)
    report = measure_retrieval(colours(), told, also={"textures": others}, before=tiny_cnn())
    assert row(report, "textures by name")["n"] == 20
    assert row(report, "agrees with its own classes by name")["n"] == 4


def test_one_picture_that_can_be_read_is_too_few(told: Samples) -> None:
    gone = [Sample("nowhere.png", "", ("a",)), told.items[0]]
    with pytest.raises(DataError, match=r"^At least two readable pictures are needed, got one: .*moss_0\.png\."):
        measure_retrieval(colours(), Samples(tuple(gone), ()))


def test_the_page_shows_what_was_measured_and_nothing_raw(told: Samples, tmp_path: Path) -> None:
    odd = [*told.items[1:], Sample(told.items[0].image, "moss", ("<b>it is green</b>",))]
    report = measure_retrieval(colours(), Samples(tuple(odd), told.classes), before=tiny_cnn())
    check("evaluate", [report.data])
    page = report.save(tmp_path / "found.html").read_text("utf-8")
    assert "&lt;b&gt;it is green&lt;/b&gt;" in page
    assert "<b>it is green" not in page
    assert page.count('class="known"') >= 4
    assert f"{100 * row(report, 'picture to text R@1')['after']:.1f}" in page


def test_a_place_counts_up_to_its_depth(told: Samples) -> None:
    """Every picture says the next one's colour, and one says its own: places of all kinds, counted by hand."""
    said = [*told.items[1:], told.items[0]]
    crossed = [Sample(s.image, "", (o.texts[0], s.texts[0])) for s, o in zip(told.items, said, strict=True)]
    report = measure_retrieval(colours(), Samples(tuple(crossed), ()))
    places = [example["after"]["place"] for example in report.data["examples"]]
    assert len(places) == 8
    assert places.count(1) == 4
    assert 2 in places
    assert row(report, "text to picture R@1")["after"] == 0.5
    drawn = {(e["picture"], e["text"]): e["after"] for e in report.data["examples"]}
    own = drawn[told.items[0].image, told.items[0].texts[0]]
    assert own["nearest"][0] == told.items[0].image


def test_agreement_is_with_what_the_first_encoders_last_layer_says(folder: Path) -> None:
    items = [Sample(str(p), "", ("a",)) for p in sorted(folder.rglob("*.png"))]
    on = tiny_cnn(seed=2)
    found = row(measure_retrieval(on, Samples(tuple(items), ())), "agrees with its own classes by name")
    pooled = encode_pairs(on, items, None, Progress()).pooled
    by_name = on.text.project(pooled) @ on.encode_text([f"a photo of a {c}." for c in on.classes]).T
    same = by_name.argmax(1) == on.classifier(pooled).argmax(1)  # type: ignore[misc]
    assert 0 < same.float().mean() < 1
    assert found["after"] == pytest.approx(float(same.float().mean()), abs=1e-4)


def test_an_adapted_encoder_is_compared_with_its_base(told: Samples) -> None:
    on = tiny_pair()
    adapted = Adaptation(on, PairedHeads.before(on, 4), 0.9).encoder()
    report = measure_retrieval(adapted, told)
    assert report.data["before"]["fingerprint"] == on.fingerprint
    alone = measure_retrieval(on, told)
    assert row(report, "text to picture R@1")["before"] == row(alone, "text to picture R@1")["after"]


@pytest.mark.parametrize(
    ("difference", "real", "says"),
    [(0.1, True, "gained"), (-0.1, True, "forgotten"), (0.1, False, "no real difference")],
)
def test_the_page_says_gained_forgotten_or_not_real(told: Samples, difference: float, real: bool, says: str) -> None:
    report = measure_retrieval(colours(), told, before=tiny_cnn())
    for one in report.data["measures"]:
        one |= {"difference": difference, "difference_interval": [difference - 0.05, difference + 0.05], "real": real}
    page = report.to_html()
    assert page.count(f">{says}</td>") + page.count(f">\n{says}</td>") == len(report.data["measures"])
    assert f"{100 * difference:+.1f}".replace("-", "−") in page


def test_pictures_that_it_was_trained_on_are_named(told: Samples) -> None:
    progress = Progress()
    digests = [hashlib.sha256(Path(told.items[i].image).read_bytes()).hexdigest()[:16] for i in (1, 3)]
    measure_retrieval(colours(), told, trained_on=digests, progress=progress)
    assert progress.notes == [
        f"The encoder was trained on 2 of these pictures, so its results are too good: {told.items[1].image}, …"
    ]


@pytest.mark.slow
def test_verbs_from_pairs_to_a_page(folder: Path, tmp_path: Path) -> None:
    rows = [
        {"image": str(p), "text": [f"{p.parent.name} {i}", f"{i} of it"]} for i, p in enumerate(folder.rglob("*.png"))
    ]
    pairs, enc = tmp_path / "pairs.jsonl", tmp_path / "enc"
    pairs.write_text("\n".join(map(json.dumps, rows)))
    run = CliRunner()
    common = [str(pairs), "-o", str(enc), "--epochs", "2", "--set", "batch_size=8", "--store", "none", "--json", "-q"]
    dry = json.loads(run.invoke(app, ["adapt", *common, "--dry-run"]).stdout)
    check("adapt", [dry])
    assert (dry["n_steps"], enc.exists()) == (4, False)
    made = run.invoke(app, ["adapt", *common, "--keep", "0.5"])
    assert made.exit_code == 0, made.output
    found = json.loads(made.stdout)
    check("adapt", [found])
    assert found["run"]["provenance"]["keep"] == 0.5
    assert [k["keep"] for k in found["run"]["tried"]] == [0.0, 0.5]
    assert sorted(p.name for p in enc.iterdir() if p.suffix != ".safetensors") == [
        "encoder.json", "log.csv", "run.html", "run.json",
    ]  # fmt: skip
    assert [p.name for p in tmp_path.iterdir() if p.name.startswith(".enc")] == []
    log = (enc / "log.csv").read_text().splitlines()
    assert (log[0], len(log)) == ("step,loss", 5)
    assert "<polyline" in (enc / "run.html").read_text("utf-8")
    judged = run.invoke(app, ["evaluate", str(pairs), "--retrieval", "-m", str(enc), "--store", "none", "--json", "-q"])
    again = json.loads(judged.stdout)
    check("evaluate", [again])
    assert again["before"]["encoder"] == "lite0"
    said = run.invoke(app, ["predict", rows[0]["image"], "--encoder", str(enc), "--labels", "moss,rust", "--json"])
    assert json.loads(said.stdout)["label"] in ("moss", "rust")


@pytest.mark.slow
def test_an_encoder_from_nothing_is_trained_and_found_again(folder: Path, tmp_path: Path) -> None:
    on = seewhy.encoder("new:resnet", engine="torch")
    items = [Sample(str(p), "", (p.parent.name,)) for p in sorted(folder.rglob("*_[01].png"))]
    done = Adapt(train="towers", keep=1.0, epochs=1, batch_size=4).fit(on, items)
    assert isinstance(done.adaptation, Adaptation)
    place = done.adaptation.save(tmp_path / "enc")
    again = seewhy.encoder(f"{place}@new:resnet", engine="torch")
    assert again.fingerprint == done.encoder.fingerprint
    view = again.pixels([picture("moss", 0, 96)])
    assert (again.encode_image(view) - on.encode_image(view)).abs().max() > 1e-4
