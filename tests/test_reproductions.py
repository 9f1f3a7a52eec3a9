"""Reproductions: what they hand over has one form, verdicts follow from numbers, and each can be run in small."""

from __future__ import annotations

import importlib.util
import re
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch
from PIL import Image

from seewhy.types import Transform

ROOT = Path(__file__).resolve().parents[1]
FOLDER = ROOT / "reproductions"
pytestmark = pytest.mark.usefixtures("beside_the_scripts")
RESULTS = sorted((FOLDER / "results").glob("*.json"))
SCRIPTS = [p for p in sorted(FOLDER.glob("*.py")) if "__main__" in p.read_text("utf-8")]


def script(name: str) -> ModuleType:
    if name in sys.modules:
        return sys.modules[name]
    spec = importlib.util.spec_from_file_location(name, FOLDER / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # dataclasses look their own module up
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def claims() -> ModuleType:
    return script("claims")


def test_the_rule_says_which_effect_is_meant(claims: ModuleType) -> None:
    assert "below 0.05, the paper's effect" in claims.rule_of(0.05)
    assert "effect" not in claims.JUDGED


@pytest.mark.parametrize("path", RESULTS, ids=lambda p: p.stem)
def test_every_result_has_the_claim_of_its_abstract(path: Path, claims: ModuleType) -> None:
    report, told = claims.read_report(path), claims.HEADLINES[path.stem]
    assert [c.claim for c in report.claims if c.headline] == [report.headline.claim]
    assert report.headline.claim.startswith(told["claim"])
    assert report.headline.paper == told.get("paper", "")


@pytest.mark.parametrize("path", RESULTS, ids=lambda p: p.stem)
def test_results_are_of_the_form_and_name_nothing_of_a_machine(path: Path, claims: ModuleType) -> None:
    report = claims.read_report(path)
    assert report.name == path.stem
    assert (FOLDER / f"{report.name}.py").exists()
    assert report.command.startswith(f"python reproductions/{report.name}.py")
    text = path.read_text("utf-8")
    assert len(text) < 40_000
    assert re.findall(r"(?:^|[\s\"'(=])/(?:home|root|tmp|work|Users|mnt|data)\b", text) == []


def test_every_script_says_how_it_is_called() -> None:
    for path in SCRIPTS:
        assert f"python reproductions/{path.name}" in path.read_text("utf-8").split('"""')[1], path.name


def test_a_report_is_read_as_it_was_written(claims: ModuleType, tmp_path: Path) -> None:
    claim = claims.Claim("a claim", "a rule", "a number", "partly", 3)
    report = claims.Report(
        "x", "X?", "A 2020", "data", "model", "python x", "1 core", 1.5, 0, (claim,), ("one",), {"a": 1}
    )
    report.write(tmp_path / "new" / "x.json")
    assert claims.read_report(tmp_path / "new" / "x.json") == report


def test_a_claim_keeps_the_papers_figure_and_ours(claims: ModuleType, tmp_path: Path) -> None:
    ours = claims.Interval(0.1, 0.02, 0.18)
    lost = claims.Claim("another", "a rule", "no number", "partly", 3)
    found = claims.Claim("a claim", "a rule", str(ours), "shown", 3, "", "+5 points (abstract)", ours, headline=True)
    told = ("x", "X?", "A 2020", "data", "model", "python x", "1 core", 1.5, 0)
    report = claims.Report(*told, (lost, found))
    report.write(tmp_path / "x.json")
    again = claims.read_report(tmp_path / "x.json")
    assert again == report
    assert again.headline == found
    assert again.commit == claims.COMMIT
    assert claims.Report(*told, (lost,)).headline == lost


def test_a_report_of_format_1_is_read_with_todays_verdicts(claims: ModuleType, tmp_path: Path) -> None:
    told = '"name": "x", "title": "X?", "paper": "", "data": "", "model": "", "command": "", "machine": ""'
    claim = '{"claim": "a", "rule": "undecided: else", "measured": "b", "verdict": "undecided", "n": 1, "section": ""}'
    path = tmp_path / "x.json"
    path.write_text(f'{{"format": 1, {told}, "seconds": 1, "seed": 0, "claims": [{claim}]}}')
    report = claims.read_report(path)
    assert report.claims == (claims.Claim("a", "too small to tell: else", "b", "too small to tell", 1),)
    assert report.commit == ""


def test_a_report_of_another_form_is_refused(claims: ModuleType, tmp_path: Path) -> None:
    path = tmp_path / "x.json"
    path.write_text('{"format": 3}')
    with pytest.raises(ValueError, match="format 2"):
        claims.read_report(path)
    path.write_text('{"format": 1, "claims": [], "colour": 1}')
    with pytest.raises(ValueError, match="is not a report"):
        claims.read_report(path)


def test_a_claim_has_one_of_four_verdicts_and_texts_of_one_line(claims: ModuleType) -> None:
    with pytest.raises(ValueError, match="'maybe'"):
        claims.Claim("a", "b", "c", "maybe", 1)
    with pytest.raises(ValueError, match="Expected one line"):
        claims.Claim("a\nb", "b", "c", "shown", 1)
    with pytest.raises(TypeError, match="Expected an Interval"):
        claims.Claim("a", "b", "c", "shown", 1, interval=(0.1, 0.0, 0.2))


def test_a_command_has_no_folders_of_a_machine(claims: ModuleType) -> None:
    given = ["--pictures", "/home/someone/data/grocery", "--out=/tmp/x.json", "--n", "3", "--out", "/tmp/y", "--fast"]
    assert claims.command("x", given) == "python reproductions/x.py --pictures data/grocery --n 3 --fast"


def test_every_result_has_a_page() -> None:
    folder = ROOT / "docs" / "reproductions"
    assert {p.stem for p in folder.glob("*.md")} == {p.stem for p in RESULTS}, "run: make docs"
    table = (ROOT / "docs" / "reproductions.md").read_text("utf-8")
    assert [p.stem for p in RESULTS if f"(reproductions/{p.stem}.md)" not in table] == [], "run: make docs"


def test_the_page_says_what_a_report_says(claims: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ours = claims.Interval(0.7, 0.6, 0.8)
    found = claims.Claim("A | B", "above 0.5", str(ours), "shown", 12, "two classes", "0.9 (Table 1)", ours)
    lost = claims.Claim("C", "above 0", "0.000", "not shown", 3)
    report = claims.Report(
        *("x", "Is it so?", "A 2020", "pictures", "lite0", "python x", "1 core", 300, 4, (found, lost)),
        differences=("it is small",),
        commit="abcd",
    )
    report.write(tmp_path / "reproductions" / "results" / "x.json")
    spec = importlib.util.spec_from_file_location("generate", ROOT / "docs" / "generate.py")
    assert spec is not None
    assert spec.loader is not None
    generate = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(generate)
    monkeypatch.setattr(generate, "ROOT", tmp_path)
    table = generate.reproductions(tmp_path / "docs" / "reproductions.md")
    assert "| [Is it so?](reproductions/x.md) | A 2020 | 1 | 0 | 0 | 1 |" in table
    page = generate.reproduction(tmp_path / "docs" / "reproductions" / "x.md")
    claim = r"*two classes*: A \| B. *Paper: 0.9 (Table 1)*"
    assert f"| {claim} | 0.700 (0.600 to 0.800); n = 12 | *Shown*: above 0.5. | **shown** |" in page
    assert "- Run: 1 core, 5 minutes, seed 4, commit abcd" in page
    heads = generate.headlines(tmp_path / "docs" / "reproductions.md")
    ours = "0.9 (Table 1) | 0.700 (0.600 to 0.800) | shown |"
    assert rf"| [A \| B](reproductions/x.md) | {ours}" in heads
    assert "- It is small." in page


def test_grad_cam_finds_planted_evidence_and_a_second_run_measures_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, claims: ModuleType
) -> None:
    grad_cam = script("grad_cam")
    arguments = ["--n-planted", "3", "--out", str(tmp_path / "grad_cam.json")]
    report = grad_cam.main(arguments)
    assert report == claims.read_report(tmp_path / "grad_cam.json")
    found = {c.claim.removeprefix("Grad-CAM finds "): c for c in report.claims}
    assert {c.verdict for c in found.values()} == {"shown", "partly"}
    failed = [claim for claim, c in found.items() if c.verdict != "shown"]
    assert failed == ["the one of four symbols that a network with another head than a mean reads"], (
        "its known weakness"
    )

    def again(*_: object) -> None:
        raise AssertionError("measured twice")

    monkeypatch.setattr(grad_cam, "in_planted", again)
    assert grad_cam.main(arguments).claims == report.claims


def test_hiding_takes_the_hottest_fifth() -> None:
    heat = torch.arange(100.0).reshape(10, 10)
    hidden = script("grad_cam").hottest(heat)
    assert hidden.sum() == 20
    assert hidden[8:].all()


def test_numbers_of_two_classes_of_a_picture_are_one_number_of_it() -> None:
    assert script("grad_cam").by_picture([1.0, 3.0, 5.0, 7.0], 2) == [2.0, 6.0]


def test_mosaics_are_of_two_classes_in_opposite_corners() -> None:
    photos = [(torch.full((3, 8, 8), float(i)), i) for i in range(3)] + [(torch.zeros(3, 8, 8), 0)]
    for pixels, mask, (first, second) in script("grad_cam").mosaics(photos, 12, seed=0):
        assert first != second
        assert mask.float().mean() == 0.5
        assert mask[0, 0] == mask[-1, -1] != mask[0, -1]
        assert (pixels[:, mask] == first).all()
        assert (pixels[:, ~mask] == second).all()


def columns(**means: float) -> dict[str, list[float]]:
    """Twenty numbers a method around its mean, in step with one another."""
    return {name: [mean + 0.01 * (i % 2) for i in range(20)] for name, mean in means.items()}


@pytest.mark.parametrize(
    ("cam", "guided", "verdicts"),
    [
        (0.1, 0.8, ["shown", "shown"]),
        (0.6, 0.3, ["partly", "not shown"]),
        (0.1, 0.3, ["shown", "partly"]),
        (0.9, 0.9, ["not shown", "shown"]),
    ],
)
def test_sanity_is_judged_by_its_rule(cam: float, guided: float, verdicts: list[str]) -> None:
    numbers = columns(grad_cam=cam, guided_backprop=guided, edges=1.0)
    found = script("sanity").sanity_claims(dict.fromkeys(("forgetting", "entropy", "another class"), numbers), 20)
    assert [c.verdict for c in found[:2]] == verdicts


@pytest.mark.parametrize(
    ("ours", "rival", "plain", "control", "verdict"),
    [
        (10, 12, 20, 30, "shown"),
        (10, 10, 20, 30, "shown"),
        (10, 5, 20, 30, "partly"),
        (10, 5, 8, 30, "not shown"),
        (10, 12, 20, 9, "not shown"),
    ],
)
def test_t_tame_is_shown_where_it_keeps_up_and_no_control_does(
    ours: float, rival: float, plain: float, control: float, verdict: str
) -> None:
    """Average drop, of which less is better."""
    numbers = columns(t_tame=ours, score_cam=40, rise=rival, grad_cam=plain, random=control, gaussian=50, edges=50)
    found = script("t_tame").against_perturbation("AD", -1, "average drop", "", {"AD": numbers})
    assert found.verdict == verdict


def test_tiles_have_the_thing_or_nothing_of_it(tmp_path: Path) -> None:
    """A bright square on black, in a picture as large as five tiles."""
    tiles = script("tiles")
    mask = np.zeros((100, 150), bool)
    mask[30:50, 60:80] = True
    Image.fromarray((mask[..., None] * np.full(3, 255)).astype(np.uint8)).save(tmp_path / "one.png")
    transform = Transform((56, 56), 64, "bilinear", (0.5, 0.5, 0.5), (0.5, 0.5, 0.5))
    pictures = [tiles.Annotated(tmp_path / "one.png", mask)]
    found = tiles.write_tiles(pictures, tiles.Cut(50, 0.1, 0.3, n=4), transform, tmp_path / "cut", seed=0)
    assert len(found) == 4
    for path, (number, seen) in found.items():
        view = np.asarray(Image.open(path).convert("L"))[4:60, 4:60]
        assert number == 0
        assert 0.05 < seen.float().mean() < 0.35
        assert ((view > 127) == seen.numpy()).mean() > 0.95
    empty = [np.asarray(Image.open(p)).max() for p in (tmp_path / "cut" / "without").iterdir()]
    assert empty == [0] * 4


@pytest.fixture(scope="module")
def photographs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four photographs that come with scikit-image."""
    import skimage.data

    folder = tmp_path_factory.mktemp("photographs")
    for name in ("astronaut", "chelsea", "coffee", "rocket"):
        Image.fromarray(getattr(skimage.data, name)()).resize((160, 160)).save(folder / f"{name}.png")
    return folder


@pytest.mark.slow
def test_t_tame_in_small(photographs: Path, tmp_path: Path, claims: ModuleType) -> None:
    small = [
        "--n-test",
        "2",
        "--steps",
        "2",
        "--batch-size",
        "2",
        "--n-masks",
        "8",
        "--n-channels",
        "8",
        "--size",
        "64",
    ]
    arguments = ["--pictures", str(photographs), *small, "--out", str(tmp_path / "t_tame.json")]
    report = script("t_tame").main(arguments)
    assert report.claims == claims.read_report(tmp_path / "t_tame.json").claims
    assert {c.section for c in report.claims} == {"trained for", "not trained for", "what it depends on", "cost"}
    assert str(photographs.parent) not in (tmp_path / "t_tame.json").read_text("utf-8")
    assert script("t_tame").main(arguments).claims == report.claims


@pytest.mark.slow
def test_grad_cam_in_small(photographs: Path, tmp_path: Path) -> None:
    small = ["--n-photos", "3", "--n-mosaics", "2", "--n-sanity", "1", "--n-planted", "1"]
    report = script("grad_cam").main(["--photos", str(photographs), *small, "--sheet", str(tmp_path / "maps.png")])
    assert {c.section.partition(",")[0] for c in report.claims} == {
        "planted evidence",
        "two classes",
        "sanity",
        "counterfactual",
    }
    with Image.open(tmp_path / "maps.png") as sheet:
        assert sheet.size == (9 * 224, 2 * 224)


@pytest.mark.slow
def test_a_thing_in_tiles_is_found_by_a_classifier_that_was_never_told_where(tmp_path: Path) -> None:
    """Photographs of gravel on which a part was painted red."""
    import skimage.data

    localisation, tiles = script("localisation"), script("tiles")
    gravel = np.repeat(skimage.data.gravel()[:240, :320, None], 3, 2)
    pictures, draw = [], np.random.default_rng(0)
    for number in range(10):
        mask = np.zeros(gravel.shape[:2], bool)
        top, left = draw.integers(0, 180), draw.integers(0, 100)
        mask[top : top + 50, left : left + 50] = True
        picture = np.roll(gravel, 17 * number, 1)
        picture[mask] = (200, 30, 30)
        Image.fromarray(picture).save(tmp_path / f"{number}.png")
        pictures.append(tiles.Annotated(tmp_path / f"{number}.png", mask))
    cut = tiles.Cut(120, 0.05, 0.4)
    maps = {n: m for n, m in script("grad_cam").methods().items() if not n.startswith("guided")}
    found, numbers = localisation.localised(maps, "red", "the red part", pictures[:6], pictures[6:], cut, 0)
    assert numbers["accuracy"] > 0.9
    assert numbers["pointing"]["grad_cam"][0] > 0.8
    assert numbers["energy"]["uniform"][0] < 0.3 < numbers["energy"]["grad_cam"][0]
    assert found[0].n == 4
