"""A typical picture of the class on a card: made once for a class, judged by a second network, never a photograph."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

import seewhy
from generator_training import FitGenerator
from seewhy.cli import app
from seewhy.encoders.find import encoder as find
from seewhy.errors import InputError, ModelError
from seewhy.evidence.batch import Batch
from seewhy.evidence.explain import ExplainOptions, explain_all
from seewhy.explanation.base import Explanation
from seewhy.explanation.kinds import MadePicture
from seewhy.generation.conditions import Judge, of_class
from seewhy.generation.generator import load_generator, unit
from seewhy.generation.sampler import PPGN, facets
from seewhy.generation.typical import RULE, Typicals, believed
from seewhy.pictures.samples import load_pictures
from tiny import CLASSES, class_folders, picture, tiny_cnn

SHORT = PPGN(n_steps=3, n_shown=1)


@pytest.fixture(scope="module")
def kept(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A generator of a network of four colours."""
    folder = tmp_path_factory.mktemp("typical")
    pictures = load_pictures(class_folders(folder / "all", 8))
    fit = FitGenerator(side=16, reads=16, width=4, hidden=16, n_steps=30, batch_size=8, lr=5e-3)
    return fit.fit(tiny_cnn(), pictures.items).save(folder / "gen").parent


@pytest.fixture
def walks(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[str]:
    """The classes that were walked for, from an empty cache."""
    monkeypatch.setenv("SEEWHY_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr("seewhy.generation.typical.WALK", SHORT)
    walked, own = [], PPGN.sample

    def sample(self: PPGN, generator: Any, condition: Any, *more: Any, **how: Any) -> Any:
        walked.append(condition.asked)
        return own(self, generator, condition, *more, **how)

    monkeypatch.setattr(PPGN, "sample", sample)
    return walked


def test_a_thousand_cards_make_each_class_once(kept: Path, walks: list[str]) -> None:
    model = seewhy.pretrained(tiny_cnn())
    options = ExplainOptions(typical=kept, measure=False)
    pictures = [picture(name, i) for i in range(4) for name in CLASSES]
    found = list(explain_all(model, pictures, options, batch_size=4))
    labels = {one.prediction.label for one in found if isinstance(one, Explanation)}
    assert len(found) == 16
    assert sorted(walks) == sorted(labels)
    assert len(labels) > 1
    for one in found:
        assert isinstance(one, Explanation)
        assert one.typical is not None
        assert one.typical.label == one.prediction.label
    again = next(explain_all(seewhy.pretrained(tiny_cnn()), pictures, options))
    assert len(walks) == len(labels)
    assert isinstance(again, Explanation)
    assert again.typical is not None
    first = found[0].typical  # type: ignore[union-attr]
    assert first is not None
    for a, b in zip(first.pictures, again.typical.pictures, strict=True):
        assert np.array_equal(a.pixels, b.pixels)
        assert a.value == b.value
    Typicals.open(kept, model, tiny_cnn(seed=1)).of(0)
    assert len(walks) == len(labels) + 1


def test_the_explained_class_is_shown_not_the_decided_one(kept: Path, walks: list[str]) -> None:
    model = seewhy.pretrained(tiny_cnn())
    photo = picture("moss", 0)
    other = next(c for c in model.classes if c != model.predict(photo).label)
    found = model.explain(photo, target=other, typical=kept, measure=False)
    assert found.typical is not None
    assert (found.typical.label, walks) == (other, [other])
    assert model.explain(photo, measure=False).typical is None


def test_pictures_start_at_facets_and_the_second_network_says(kept: Path, walks: list[str]) -> None:
    model, other = seewhy.pretrained(tiny_cnn()), seewhy.pretrained(tiny_cnn(seed=1))
    generator = load_generator(kept, own=model.encoder)
    source = Typicals(model, generator, other, "x", n=2, walk=SHORT, seed=4)
    found = source.of(2)
    condition = of_class(model, 2)
    walk = SHORT.sample(generator, condition, facets(generator, condition, 2, 4), seed=4)
    shown = torch.from_numpy(np.stack([one.pixels for one in found.pictures]))
    torch.testing.assert_close(unit(shown), walk.pictures[-1], atol=0.003, rtol=0)
    assert [one.value for one in found.pictures] == pytest.approx(walk.values[-1].tolist(), abs=1e-5)
    verdicts, _ = Judge.of(other, condition, model.classes).look(walk.pictures[-1])
    assert [(one.seen, one.agrees) for one in found.pictures] == [(v.label, v.agrees) for v in verdicts]
    assert (found.climbed, found.judge) == ("tiny", "pretrained on tiny")
    assert source.of(2) is found
    given = ((None, "x", 3, 0), (other, "x", 3, 0), (None, "y", 3, 0), (None, "x", 2, 0), (None, "x", 3, 1))
    assert len({Typicals(model, generator, j, d, n=n, seed=s).digest for j, d, n, s in given}) == 5


def made(*agrees: bool | None, seen: str = "rust") -> tuple[MadePicture, ...]:
    return tuple(MadePicture(np.zeros((4, 4, 3), np.uint8), 0.9, seen, a) for a in agrees)


@pytest.mark.parametrize(
    ("judge", "pictures", "poor", "level", "said"),
    [
        (None, made(None, None), False, "not measured",
         "No second network has judged these pictures."),
        ("zoo", made(None, None), False, "not measured",
         "The second network, zoo, does not know wren, and predicts rust."),
        ("zoo", made(True, True), False, "believable", "A second network recognises 2 of 2 pictures."),
        ("zoo", made(True, False), False, "partly", "A second network recognises 1 of 2 pictures."),
        ("zoo", made(False, False), False, "do not rely", "A second network recognises 0 of 2 pictures."),
        ("zoo", made(True, True), True, "do not rely",
         "The generator's pictures are hardly more like real pictures than the mean picture is."),
    ],
)  # fmt: skip
def test_what_they_are_worth(judge: str | None, pictures: Any, poor: bool, level: str, said: str) -> None:
    found = believed("wren", "tiny", judge, pictures, poor)
    assert (found.level, found.sentence, found.rule) == (level, said, RULE)
    assert found.figures.endswith("tiny guided the generator, and agrees with any picture made for it.")
    assert ("A second network" in found.figures) == poor


def test_a_poor_generator_is_not_relied_on(kept: Path, walks: list[str]) -> None:
    model = seewhy.pretrained(tiny_cnn())
    generator = load_generator(kept, own=model.encoder)
    for error, level in ((0.091, "do not rely"), (0.089, "not measured")):
        facts = {**generator.facts, "held_out_error": error, "mean_picture_error": 0.1}
        assert Typicals(model, replace(generator, facts=facts), None, "x").of(0).verdict.level == level


def test_the_card_says_that_they_are_made(kept: Path, walks: list[str]) -> None:
    model = seewhy.pretrained(tiny_cnn())
    plain = model.explain(picture("rust", 0), measure=False)
    found = model.explain(picture("rust", 0), typical=kept, judge=tiny_cnn(seed=1), measure=False)
    assert found.typical is not None
    page, label = found.to_html(), found.prediction.label
    assert f"Generated: {label}" in page
    assert "A generator made these pictures. They are not photographs, and do not depend on this picture." in page
    assert "A second network recognises " in page
    assert f"The second network is {found.typical.judge}." in page
    assert page.count("Generated picture ") == 3
    assert "Generated: " not in plain.to_html()
    assert len(found.to_png()) > len(plain.to_png())
    assert found.to_json()["typical"]["pictures"][0]["seen"] in model.classes


def test_what_does_not_fit_is_said(kept: Path, tmp_path: Path) -> None:
    model = seewhy.pretrained(tiny_cnn())
    with pytest.raises(InputError) as told:
        model.explain(picture("moss", 0), judge=tiny_cnn(seed=1))
    assert str(told.value) == (
        "`judge` needs a generator of typical pictures. Add --typical FOLDER (typical=FOLDER in Python), or leave the "
        "judge out."
    )
    with pytest.raises(InputError) as told:
        model.explain(picture("moss", 0), typical=kept, judge="lite1")
    assert str(told.value) == (
        "`judge` must be a classifier or an image-text encoder, got 'str'. Load one with seewhy.load or seewhy.encoder."
    )
    with pytest.raises(InputError, match="The judge, which classifies the generated pictures, must not use"):
        model.explain(picture("moss", 0), typical=kept, judge=model)
    with pytest.raises(ModelError, match="There is no generator"):
        model.explain(picture("moss", 0), typical=tmp_path)


def test_cards_of_another_generator_are_made_anew(kept: Path, walks: list[str], tmp_path: Path) -> None:
    model = seewhy.pretrained(tiny_cnn())
    file = next((kept.parent / "all").rglob("*.png"))
    loaded = load_generator(kept, own=model.encoder)
    replace(loaded, bounds=(loaded.bounds[0], loaded.bounds[1] / 2)).save(tmp_path / "other")

    def run(folder: Path) -> bool:
        options = ExplainOptions(typical=folder, measure=False)
        return all(one.explanation is not None for one in Batch(model, options, tmp_path / "why").run([str(file)]))  # type: ignore[union-attr]

    assert [run(kept), run(kept), run(tmp_path / "other")] == [True, False, True]


@pytest.mark.slow  # two seconds: a generator and a classifier are trained, and the real command run
def test_the_command_shows_a_typical_picture(walks: list[str], tmp_path: Path) -> None:
    folder, on = class_folders(tmp_path / "all", 8), find("new:resnet/16", engine="torch")
    FitGenerator(side=16, width=4, hidden=16, n_steps=2).fit(on, load_pictures(folder).items).save(tmp_path / "gen")
    seewhy.fit(str(folder), on, n_crops=0).save(tmp_path / "model")
    photos = [str(next((folder / name).glob("*.png"))) for name in ("moss", "rust")]
    given = ["explain", *photos, "-m", tmp_path / "model", "-e", "new:resnet/16", "--engine", "torch", "--no-measure"]
    given += ["--typical", tmp_path / "gen", "--set", "judge=new:vit/16", "-o", tmp_path / "why"]
    done = CliRunner().invoke(app, [*map(str, given), "--json", "-q"], catch_exceptions=False)
    said = [json.loads(line) for line in done.stdout.splitlines()]
    assert done.exit_code == 0
    assert [len(one["typical"]["pictures"]) for one in said] == [3, 3]
    assert {one["typical"]["judge"] for one in said} == {"zero_shot on new:vit/16"}
    told = CliRunner().invoke(app, [*map(str, given), "--force", "-q", "-o", str(tmp_path / "other")])
    assert "  typical    " in told.output
