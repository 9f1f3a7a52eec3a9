"""What a bank's prototypes rest on over many pictures: measured once, stopped and gone on with, kept, shown."""

from __future__ import annotations

import io
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from seewhy.classifiers.base import Classifier
from seewhy.classifiers.linear.recipe import Linear
from seewhy.classifiers.neighbours import Neighbours
from seewhy.errors import InputError, WeightsError
from seewhy.evidence.batch import Batch
from seewhy.evidence.explain import ExplainOptions
from seewhy.explanation.similar import Like
from seewhy.pictures.images import Picture
from seewhy.pictures.samples import load_samples
from seewhy.pictures.sources import list_pictures
from seewhy.progress import Progress
from seewhy.prototypes import bank_influences
from seewhy.prototypes.bank_influences import (
    BankInfluences,
    bank_seal,
    kept_influences,
    load_influences,
    measure_bank,
)
from seewhy.prototypes.characteristics import GlobalInfluences
from seewhy.prototypes.epic.training import FitEPIC
from seewhy.prototypes.find import find_prototypes
from seewhy.prototypes.perturbations import PROPERTIES, PaperChanges
from seewhy.report.evidence import bars_of, scale_of
from tiny import class_folders, picture, tiny_cnn


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return class_folders(tmp_path_factory.mktemp("data"), n=6)


@pytest.fixture(scope="module")
def names(folder: Path) -> list[str]:
    return list(list_pictures([folder]))[::3]


@pytest.fixture(scope="module")
def model(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Classifier:
    """A classifier in a folder, with EPIC's prototypes."""
    made = Linear(n_crops=0).fit(tiny_cnn(), load_samples(folder))
    place = made.save(tmp_path_factory.mktemp("model") / "saved")
    samples = load_samples(folder)
    pictures = [(s.image, samples.classes.index(s.label)) for s in samples.items]
    FitEPIC(duplicate=0.99999).fit(made, pictures).save(place / "prototypes")
    return replace(made, folder=place)


@pytest.fixture(scope="module")
def measured(model: Classifier, names: list[str]) -> BankInfluences:
    assert model.folder is not None
    found, known = measure_bank(model, *find("epic", model), names, model.folder / "prototypes")
    assert not known
    return found


def find(name: str, model: Classifier):  # type: ignore[no-untyped-def]
    found = find_prototypes(model, name)
    assert found is not None
    return found


def test_they_are_those_of_the_definition(model: Classifier, measured: BankInfluences, names: list[str]) -> None:
    """One row a channel and sign; a row is what ``bank_influences`` says of any of its patches."""
    method, bank = find("epic", model)
    assert len(measured.names) == len(set(measured.names)) == len(measured.numbers)
    assert set(measured.numbers.tolist()) == {method.prototype_of(bank, p) for p in range(len(bank.owner))}
    assert measured.means.n_pictures == len(names)
    patch = 5
    direct = bank_influences.bank_influences(model, method, bank, [patch], pictures=[Path(n) for n in names])
    found = measured.of(method.prototype_of(bank, patch))
    assert found is not None
    assert list(found.values()) == pytest.approx(direct.relative[0].tolist(), abs=1e-5)
    assert measured.of(10_000) is None


def test_kept_and_found_again(model: Classifier, measured: BankInfluences) -> None:
    assert model.folder is not None
    path = model.folder / "prototypes" / "epic.because.safetensors"
    found = load_influences(path)
    assert found.names == measured.names
    assert torch.equal(found.means.relative, measured.means.relative)
    assert found.summary() == measured.summary()
    said = json.loads(path.with_suffix(".json").read_text())
    assert said["lost"][measured.names[0]] == pytest.approx(measured.means.relative[0].tolist(), abs=1e-4)
    assert kept_influences(model, *find("epic", model)) is not None
    assert kept_influences(model, *find("nearest", model)) is None


def test_a_second_call_reads_what_is_there(
    model: Classifier, measured: BankInfluences, names: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert model.folder is not None
    place = model.folder / "prototypes"
    monkeypatch.setattr(bank_influences, "bank_influences", None)
    found, known = measure_bank(model, *find("epic", model), names, place)
    assert known
    assert torch.equal(found.means.phi, measured.means.phi)
    with pytest.raises(TypeError):  # other strengths, or other pictures, would be measured
        measure_bank(model, *find("epic", model), names, place, PaperChanges())
    with pytest.raises(TypeError):
        measure_bank(model, *find("epic", model), names[1:], place)


def test_influences_of_another_bank_are_not_shown(model: Classifier, measured: BankInfluences) -> None:
    method, bank = find("epic", model)
    other = replace(bank, purity=bank.purity + 0.01)
    assert bank_seal(model, other) != measured.bank == bank_seal(model, bank)
    assert kept_influences(model, method, other) is None


def test_what_cannot_be_read_is_told_of_and_left_out(model: Classifier, names: list[str], tmp_path: Path) -> None:
    broken = tmp_path / "broken.png"
    broken.write_bytes(b"no picture")
    progress = Progress()
    method, bank = find("nearest", model)
    found, _ = measure_bank(model, method, bank, [names[0], str(broken)], tmp_path / "out", progress=progress)
    assert found.means.n_pictures == 1
    assert [f.image for f in progress.failures] == [str(broken)]
    with pytest.raises(InputError, match="No picture was given"):
        measure_bank(model, method, bank, [str(broken)], tmp_path / "none")


def test_damaged_influences_are_refused_and_made_anew(model: Classifier, names: list[str], tmp_path: Path) -> None:
    method, bank = find("nearest", model)
    measure_bank(model, method, bank, names[:1], tmp_path)
    path = tmp_path / "nearest.because.safetensors"
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(WeightsError, match="is damaged or holds no influences"):
        load_influences(path)
    _, known = measure_bank(model, method, bank, names[:1], tmp_path)
    assert not known
    assert load_influences(path).means.n_pictures == 1


def test_the_summary_by_hand() -> None:
    """Three prototypes: one on hue, one on shape, one that no picture is like."""
    relative = torch.zeros(3, 6)
    relative[0, 0], relative[1, 5], relative[1, 0] = 0.4, 0.3, 0.1
    zero = torch.zeros(3, 6)
    means = GlobalInfluences(
        zero, relative, zero, torch.tensor([0.5, 0.4, 0.0]), torch.full((6,), 8.0), 9, "calibrated"
    )
    found = BankInfluences("epic", torch.tensor([0, 2, 3]), ("+0", "+1", "-1"), means, "", "").summary()
    assert (found["n_prototypes"], found["n_pictures"]) == (2, 9)
    by_name = {row["name"]: row for row in found["properties"]}
    assert by_name["hue"]["mean"] == 0.25
    assert by_name["shape"]["mean"] == 0.15
    assert [by_name[name]["first"] for name in PROPERTIES] == [0.5, 0, 0, 0, 0, 0.5]
    assert by_name["hue"]["strongest"][0] == {"prototype": "+0", "lost": 0.4}


def test_the_card_marks_them_on_the_bars(model: Classifier, measured: BankInfluences) -> None:
    why = model.explain(picture("moss", 50), because="calibrated", measure=False)
    assert isinstance(why.like, Like)
    for near in why.like.neighbours:
        assert near.because is not None
        assert near.because.overall is not None
        assert near.channel is not None
        own = [measured.of(2 * near.channel + negative) for negative in (0, 1)]
        assert near.because.overall in own
    scale = scale_of(why.like)
    bars = bars_of(why.like.neighbours[0], scale)
    assert bars is not None
    overall = why.like.neighbours[0].because.overall
    assert overall is not None
    marks = [min(1.0, max(0.0, value) / scale) for value in overall.values()]
    assert [bar.mark for bar in bars.bars] == pytest.approx(marks)
    section = why.to_html().split('id="like"')[1].split('id="words"')[0]
    assert section.count("<u style=") == 6 * len({n.channel for n in why.like.neighbours})
    assert "over all pictures" in section
    assert set(why.to_json()["like"][0]["because"]["overall"]) == set(PROPERTIES)
    plain = replace(why.like, neighbours=tuple(replace(n, because=unmarked(n.because)) for n in why.like.neighbours))
    stills = [Image.open(io.BytesIO(e.to_png())).convert("RGB") for e in (why, replace(why, like=plain))]
    assert not np.array_equal(*(np.asarray(still) for still in stills))


def unmarked(because):  # type: ignore[no-untyped-def]
    return replace(because, overall=None)


def test_other_strengths_are_not_marked(model: Classifier, measured: BankInfluences) -> None:
    why = model.explain(picture("moss", 50), because="paper", measure=False)
    assert isinstance(why.like, Like)
    assert all(n.because is not None and n.because.overall is None for n in why.like.neighbours)
    assert "overall" not in why.to_json()["like"][0]["because"]


def test_voters_have_influences_too(folder: Path, names: list[str], tmp_path: Path) -> None:
    made = Neighbours(k=3).fit(tiny_cnn(), load_samples(folder))
    made = replace(made, folder=made.save(tmp_path / "knn"))
    assert made.folder is not None
    found, _ = measure_bank(made, *find("voters", made), names[:2], made.folder / "prototypes")
    assert len(found.names) == 18
    why = made.explain(picture("rust", 77), because="calibrated", measure=False)
    assert isinstance(why.like, Like)
    assert all(n.because is not None and n.because.overall is not None for n in why.like.neighbours)


def test_cards_are_made_again_once_there_are_influences(model: Classifier, names: list[str], tmp_path: Path) -> None:
    method, bank = find("nearest", model)
    options = ExplainOptions(like="nearest", because="calibrated", measure=False)
    before = Batch(model, options, tmp_path).fingerprint()
    assert model.folder is not None
    measure_bank(model, method, bank, names[:1], model.folder / "prototypes")
    assert Batch(model, options, tmp_path).fingerprint() != before
    assert isinstance(bank_influences.view_of(bank.pictures[0]), Picture)
