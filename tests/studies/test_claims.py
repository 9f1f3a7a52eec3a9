"""Claims with a user's weights: planted encoders that bear them out or do not, resumed, judged by the rule, drawn."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from torch import Tensor
from typer.testing import CliRunner

from coloured import masked
from schemas import check
from seewhy.cli import app
from seewhy.dense.claims import halves
from seewhy.descriptions.base import Descriptions, Difference, Pair
from seewhy.errors import DataError, InputError, UnknownNameError
from seewhy.pictures.pairs import load_pairs
from seewhy.pictures.pixel_classes import load_masks
from seewhy.pictures.samples import Samples, load_samples
from seewhy.progress import Progress
from seewhy.studies import claim_list, claims
from seewhy.studies.claims import ClaimData, ClaimsStudy, Compared, PaperClaim, known_claims
from tiny import CLASSES, class_folders
from tiny_words import opened, opened_vit

SETTINGS = (("epochs", 2), ("batch_size", 4), ("lr", 0.3))
SMALL = ClaimsStudy(shots=2, n_seeds=2, n_explained=2, settings=SETTINGS)
PLAIN = ("names", "templates", "labels", "neighbours")


@pytest.fixture(scope="module")
def samples(tmp_path_factory: pytest.TempPathFactory) -> Samples:
    return load_samples(class_folders(tmp_path_factory.mktemp("classes"), 10, CLASSES))


@pytest.fixture(scope="module")
def everything(samples: Samples) -> ClaimData:
    words = Descriptions({c: (f"it is {c}", "a thing") for c in CLASSES})
    pairs = [Pair((CLASSES[0], CLASSES[1]), (Difference("colour", "one is like this", "one is like that"),))]
    captions = load_pairs([(s.image, [f"{s.label} {i}"]) for i, s in enumerate(samples.items[:12])])
    return ClaimData(samples, descriptions=words, follow_up=pairs, captions=captions)


def rows(found: Any) -> dict[str, dict[str, Any]]:
    return {row["name"]: row for row in found.data["claims"]}


@pytest.mark.slow
def test_each_claim_is_measured_where_what_it_needs_is_given(everything: ClaimData, tmp_path: Path) -> None:
    """Prompts are learnt and pictures explained, by the studies of those."""
    found = SMALL.run(opened(), everything, tmp_path, command="seewhy study claims x")
    data = found.data
    left = {row["name"]: row["reason"] for row in data["left_out"]}
    assert left.pop("before_projection").startswith("This claim needs an encoder with a projection")
    assert left == {
        "instructions": "no instructions were given (--instruction)",
        **dict.fromkeys(("maskclip", "denseclip"), "no masks were given (--masks)"),
    }
    assert {*rows(found), *left, "before_projection"} == {*known_claims()}
    assert {*rows(found)} > {"coop_learns", "ogen_keeps", "deletion", "sanity", "follow_up", "captions"}


def test_the_page_has_every_claim_with_its_verdict(everything: ClaimData, tmp_path: Path) -> None:
    quick = (*PLAIN, "four_labels", "meaning", "follow_up", "captions", "maskclip")
    found = ClaimsStudy(quick, n_seeds=2).run(opened(), everything, tmp_path, command="seewhy study claims x")
    data = found.data
    check("study-claims", [{**json.loads(json.dumps(data)), "report": None}])
    assert [*rows(found)] == [*quick[:-1]]
    told = [c["verdict"] for c in data["claims"]]
    assert data["sentence"] == (
        f"Of {len(told)} claims tested with tiny: {told.count('shown')} shown, {told.count('too small to tell')} too "
        f"small to tell, {told.count('not shown')} not shown."
    )
    page = found.to_html()
    assert all(text in page for text in ("ImageNet 76.2 %", "not verified", "seewhy study claims x", "Not measured"))


def test_a_second_run_measures_nothing_and_other_pictures_anew(
    samples: Samples, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    measured: list[str] = []
    own = claims._record

    def counted(claim: PaperClaim, material: Any) -> Any:
        measured.append(claim.name)
        return own(claim, material)

    monkeypatch.setattr(claims, "_record", counted)
    study, data = ClaimsStudy(("names", "labels"), n_seeds=2), ClaimData(samples)
    first = study.run(opened(), data, tmp_path)
    again = ClaimsStudy(("labels", "names"), n_seeds=2).run(opened(), data, tmp_path)
    assert measured == ["names", "labels"]
    assert rows(again) == rows(first)
    ClaimsStudy(("names",), n_seeds=2, seed=1).run(opened(), data, tmp_path)
    study.run(opened(1), data, tmp_path)
    assert measured == ["names", "labels", "names", "names", "labels"]


@pytest.mark.parametrize("changed", ["mask", "scene", "column", "caption"])
def test_what_is_written_anew_under_the_same_name_is_measured_anew(changed: str, tmp_path: Path) -> None:
    class_folders(tmp_path / "c", 2, CLASSES[:2])
    scenes, names = masked(tmp_path / "m", 2), sorted((tmp_path / "c").rglob("*.png"))

    def table(colours: str) -> None:
        rows = [f"{name},{colour}" for name, colour in zip(names, colours, strict=True)]
        (tmp_path / "t.csv").write_text("\n".join(["image,colour", *rows]))

    def digest() -> str:
        given = {"instructions": {"colour": "the colour"}, "table": tmp_path / "t.csv"}
        samples, captions = load_samples(tmp_path / "c"), load_pairs([(name, name.stem) for name in names])
        return ClaimData(samples, captions=captions, masks=load_masks(scenes), **given).digest()

    table("abab")
    before = digest()
    assert digest() == before
    file = {
        "mask": next((scenes / "labels").iterdir()), "scene": next((scenes / "images").iterdir()), "caption": names[0],
    }.get(changed)  # fmt: skip
    if file is None:
        table("abba")
    else:
        Image.open(file).transpose(Image.Transpose.ROTATE_90).save(file)
        file.write_bytes(file.read_bytes() + b" ")
    assert digest() != before


def test_neighbouring_frames_are_learnt_from_or_tested_on(tmp_path: Path) -> None:
    data = load_masks(masked(tmp_path / "m", 5))
    assert [[Path(item.image).stem for item in half.items] for half in halves(data)] == [["0", "1", "2"], ["3", "4"]]


def test_numbers_are_those_of_the_arms(samples: Samples) -> None:
    """The classes' colours tell them apart, and a bag of random words knows none of them."""
    found = rows(ClaimsStudy(PLAIN, n_seeds=2, held_out=0.5).run(opened(), ClaimData(samples)))
    labels = found["labels"]
    assert labels["verdict"] == "shown"
    assert "a linear classifier on all labels 1.000" in labels["measured"]
    by_name = float(labels["measured"].split("names ")[1].split(" ")[0])
    assert labels["difference"] == pytest.approx(1 - by_name, abs=1e-3)
    assert f"names {by_name:.3f}" in found["names"]["measured"]
    assert found["neighbours"]["difference"] == pytest.approx(0.75, abs=0.05)
    projected = rows(ClaimsStudy(("before_projection",), n_seeds=2).run(opened_vit(), ClaimData(samples)))
    assert projected["before_projection"]["measured"].startswith("before ")


@pytest.mark.parametrize(
    ("values", "n", "effect", "verdict"),
    [
        ((0.1, 0.05, 0.2), 20, 0.3, "shown"),
        ((0.1, -0.05, 0.2), 20, 0.3, "not shown"),
        ((0.1, -0.05, 0.2), 20, 0.1, "too small to tell"),
        ((0.1, 0.05, 0.2), 9, 0.0, "too small to tell"),
    ],
)
def test_a_claim_is_judged_against_the_papers_effect(
    values: tuple[float, float, float], n: int, effect: float, verdict: str
) -> None:
    claim = PaperClaim("x", "X", "A 2020", lambda m: Compared.of("a", torch.ones(1), "b", torch.ones(1)), "", effect)
    row = claims._row(claim, {"difference": values, "told": "a", "n": n})
    assert row["verdict"] == verdict
    assert (row["difference"], row["interval"], row["effect"]) == (values[0], [*values[1:]], effect)


def test_descriptions_are_compared_with_those_of_other_classes(samples: Samples) -> None:
    """Each class's own sentence is the direction of its pictures; dealt out to others it is always wrong."""
    on = opened()
    means = {c: mean_of_class(on, samples, c) for c in CLASSES}
    texts = {c: (f"the {c} one",) for c in CLASSES}

    def read(said: Any) -> Tensor:
        found = [next((means[c] for c in CLASSES if f"the {c} one" in text), torch.ones(8)) for text in said]
        return torch.nn.functional.normalize(torch.stack(found), dim=1)

    object.__setattr__(on.text, "encode_text", read)
    study = ClaimsStudy(("swapped", "descriptions"), n_seeds=2, held_out=0.5)
    found = rows(study.run(on, ClaimData(samples, descriptions=Descriptions(texts))))
    assert found["swapped"]["difference"] == pytest.approx(1, abs=0.1)
    assert found["swapped"]["verdict"] == found["descriptions"]["verdict"] == "shown"


def test_chance_of_captions_has_the_rule_of_ties(samples: Samples) -> None:
    """A text of two pictures is right for neither; names of class folders are no captions."""
    pairs = torch.tensor([[0, 0], [1, 0], [1, 1], [1, 1], [2, 2], [2, 3]])
    assert claim_list._chance(pairs, 3).tolist() == [0, 0.25, 0.5]
    folders = ClaimData(samples, captions=load_pairs(Path(samples.items[0].image).parents[1]))
    with pytest.raises(DataError, match="Captions must distinguish pictures"):
        ClaimsStudy(("captions",)).run(opened(), folders)


def mean_of_class(on: Any, samples: Samples, label: str) -> Tensor:
    from seewhy.classifiers.encoded_set import encode_labelled

    seen = encode_labelled(on, CLASSES, samples)
    joint = on.text.project(seen.pooled)
    own = joint[seen.labels == CLASSES.index(label)].mean(0)
    return (own - joint.mean(0)).detach()


def test_a_claim_that_cannot_be_measured_says_why_and_the_rest_goes_on(samples: Samples, tmp_path: Path) -> None:
    few = load_samples(class_folders(tmp_path / "few", 4, CLASSES))
    found = ClaimsStudy(("four_labels", "names"), n_seeds=2).run(opened(), ClaimData(few)).data
    assert [row["name"] for row in found["claims"]] == ["names"]
    assert found["left_out"][0]["reason"].startswith("Every class must have at least four")
    same = ClaimsStudy(("before_projection", "names"), n_seeds=2).run(opened(), ClaimData(samples)).data
    assert same["left_out"][0]["reason"].startswith("This claim needs an encoder with a projection")
    with pytest.raises(
        DataError, match=r"No claim could be tested\. The first reason: Every class must have at least four"
    ):
        ClaimsStudy(("four_labels",)).run(opened(), ClaimData(few))


def test_what_is_missing_is_said_before_anything_is_looked_at(samples: Samples, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"No claim can be tested: no descriptions were given \(--descriptions\)\."):
        ClaimsStudy(("descriptions", "swapped")).asked(ClaimData(samples))
    folder = class_folders(tmp_path / "c", 2, CLASSES[:2])
    words = ["study", "claims", str(folder), "--only", "follow_up", "-e", "no:such"]
    assert "(--follow-up)" in str(CliRunner().invoke(app, words).exception)


def test_time_is_told_of_what_is_asked_and_kept_in_no_result(samples: Samples, everything: ClaimData) -> None:
    told: list[str] = []
    progress = Progress()
    progress.tell = told.append  # type: ignore[method-assign]
    found = ClaimsStudy(("names", "maskclip")).run(opened(), ClaimData(samples), progress=progress)
    missing, cost = told
    assert missing.endswith("no masks were given (--masks)")
    assert "minutes of encoding if nothing is cached; " in cost
    assert cost.endswith("MB of features") or "GPU" in cost
    assert found.data["notes"] == progress.notes == []
    whole = SMALL.cost(opened(), everything)
    assert all(f"minutes of {what}" in whole for what in ("encoding", "explaining", "learning prompts"))


def test_a_claim_asked_for_twice_is_one(samples: Samples) -> None:
    data = ClaimsStudy(("names", "names")).run(opened(), ClaimData(samples)).data
    assert [row["name"] for row in data["claims"]] == ["names"]
    assert data["sentence"].startswith("Of 1 claim tested with tiny: ")


def test_bad_input_is_said_in_a_sentence(samples: Samples) -> None:
    with pytest.raises(UnknownNameError, match="'namse'"):
        ClaimsStudy(("namse",))
    with pytest.raises(InputError, match="n_seeds"):
        ClaimsStudy(n_seeds=1)


def test_a_gpu_that_is_not_there_is_said(tmp_path: Path) -> None:
    folder = class_folders(tmp_path / "c", 4, CLASSES[:2])
    done = CliRunner().invoke(app, ["study", "claims", str(folder), "--device", "tpu"])
    assert isinstance(done.exception, InputError)
    assert str(done.exception).startswith("--device must be auto or")


@pytest.mark.slow
def test_on_the_command_line(tmp_path: Path) -> None:
    folder, out = class_folders(tmp_path / "c", 8, CLASSES), tmp_path / "study"
    words = ["study", "claims", str(folder), "--only", "names", "--only", "labels", "-o", str(out), "--quiet", "--json"]
    done = CliRunner().invoke(app, [*words, "--device", "auto", "--set", "held_out=0.5", "--seed", "3"])
    assert done.exit_code == 0, done.stderr
    data = json.loads(done.stdout)
    check("study-claims", [data])
    assert [row["name"] for row in data["claims"]] == ["names", "labels"]
    assert data["settings"]["held_out"] == 0.5
    assert data["settings"]["seed"] == 3
    assert data["report"] == str(out / "claims.html")
    assert "Which claims of papers hold here?" in (out / "claims.html").read_text("utf-8")
