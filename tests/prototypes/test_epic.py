"""EPIC from pictures to card: fitting, keeping, finding again, and what the card says."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save as save_tensors
from torch import Tensor

from seewhy.classifiers.base import Classifier
from seewhy.classifiers.linear.recipe import Linear
from seewhy.classifiers.unfitted import Pretrained
from seewhy.encoders.base import EncoderOutput
from seewhy.encoders.stream import file_digest
from seewhy.errors import DataError, InputError, ModelError, WeightsError
from seewhy.evidence.explain import ExplainOptions
from seewhy.evidence.like import delete_patches
from seewhy.explanation.similar import Like, PatchDeletion
from seewhy.explanation.verdict import Missing
from seewhy.heads.head import Head, Target
from seewhy.pictures.samples import load_samples
from seewhy.progress import Progress
from seewhy.prototypes.base import Query
from seewhy.prototypes.cells import cells_of
from seewhy.prototypes.epic.method import EPIC, EPICBank, without_copies
from seewhy.prototypes.epic.training import FitEPIC
from seewhy.prototypes.find import find_prototypes
from seewhy.prototypes.measure import NEVER, LikenessMeasure
from seewhy.prototypes.nearest import NearestPatches
from seewhy.storage.reading import SUM
from tiny import class_folders, colour_reader, noise, picture, tiny_cnn, tiny_tokens

MEASURED = LikenessMeasure(0.5, 0.3, 4, limit=0.5, near=0.9)


def pictures_in(folder: Path) -> list[tuple[str, int | None]]:
    samples = load_samples(folder)
    return [(s.image, samples.classes.index(s.label)) for s in samples.items]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return class_folders(tmp_path_factory.mktemp("data"), n=8)


@pytest.fixture(scope="module")
def fitted(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Classifier:
    """A classifier in a folder, with prototypes in it."""
    model = Linear(n_crops=0).fit(tiny_cnn(), load_samples(folder))
    place = tmp_path_factory.mktemp("model") / "saved"
    model.save(place)
    FitEPIC(duplicate=0.99999).fit(model, pictures_in(folder)).save(place / "prototypes")
    return replace(model, folder=place)


def test_what_is_measured(fitted: Classifier) -> None:
    bank = EPICBank.of(fitted)
    assert bank is not None
    m = bank.measures
    assert m["n_pictures"] == 24
    assert m["n_fitted"] == 20
    assert m["logit_difference"] < 1e-4
    assert m["decisions_kept"] == 1
    assert set(m["top_4_share"]) == {"fitted", "before", "random"}
    assert all(0 < v <= 1 for v in m["top_4_share"].values())
    assert m["likeness"]["n"] == m["held_out"]["n"] == 4
    assert 0 <= m["likeness"]["precision"] <= 1
    assert m["tried"][0]["rotation"] == "none"


def test_prototypes_are_the_strongest_pictures_and_boxes_lie_on_their_strongest_cell(
    fitted: Classifier, folder: Path
) -> None:
    bank = EPICBank.of(fitted)
    assert bank is not None
    assert set(bank.signs.tolist()) == {1, -1}
    for patch in range(0, len(bank.owner), 7):
        source = bank.pictures[int(bank.owner[patch])]
        assert file_digest(source.name) == source.digest
        view = np.asarray(fitted.encoder.pixels([_view(fitted, source.name)]))
        look = fitted.encoder.encode(torch.from_numpy(view))
        maps = EPIC().activation(fitted, bank, look, torch.tensor([patch]))[0, 0]
        row, column = divmod(int(maps.argmax()), 8)
        left, top, right, bottom = bank.boxes[patch].tolist()
        assert left <= (column + 0.5) / 8 <= right
        assert top <= (row + 0.5) / 8 <= bottom
    first = [int(bank.owner[bank.of_channel(k, 1)[0]]) for k in range(8)]
    last = [int(bank.owner[bank.of_channel(k, -1)[0]]) for k in range(8)]
    assert all(a != b for a, b in zip(first, last, strict=True))


def _view(model: Classifier, name: str) -> np.ndarray:
    from seewhy.pictures.images import read_picture

    return read_picture(name, model.encoder.transform).pixels


def test_held_out_pictures_are_never_prototypes(folder: Path) -> None:
    model = Pretrained().build(tiny_cnn())
    bank = FitEPIC(n_kept=18, duplicate=1.1, held_out=0.5).fit(model, pictures_in(folder))
    n_fitted = bank.measures["n_fitted"]
    assert len(bank.pictures) == n_fitted
    assert n_fitted + bank.measures["held_out"]["n"] == 24
    assert 16 <= n_fitted <= 20  # half is held out, half of that chooses; pictures of one thing are in one part


def test_classes_are_the_decisions_where_none_are_given(folder: Path) -> None:
    model = Pretrained().build(tiny_cnn())
    bank = FitEPIC().fit(model, [(name, None) for name, _ in pictures_in(folder)])
    for source in bank.pictures:
        assert model.classes[source.label] == model.predict(source.name).label


def test_copies_are_left_out_and_named(folder: Path, tmp_path: Path) -> None:
    names = [(name, None) for name, _ in pictures_in(folder)]
    copy = tmp_path / "copy.png"
    shutil.copy(names[0][0], copy)
    (tmp_path / "broken.png").write_bytes(b"no picture")
    progress = Progress()
    model = Pretrained().build(tiny_cnn())
    bank = FitEPIC().fit(model, [*names, (str(copy), None), (str(tmp_path / "broken.png"), None)], progress=progress)
    assert bank.measures["n_pictures"] == 24
    assert "1 copies of pictures left out" in progress.notes
    assert [f.image for f in progress.failures] == [str(tmp_path / "broken.png")]


def test_near_duplicates_give_way_to_the_next() -> None:
    unit = torch.nn.functional.normalize(torch.tensor([[1.0, 0.0], [1.0, 0.01], [0.0, 1.0], [1.0, 1.0]]), dim=1)
    assert without_copies(torch.tensor([[0, 1, 2, 3], [2, 0, 1, 3]]), unit, 3, 0.98).tolist() == [[0, 2, 3], [2, 0, 3]]
    assert without_copies(torch.tensor([[0, 1]]), unit, 2, 0.98).tolist() == [[0, -1]]


def test_the_same_pictures_give_the_same_bank(folder: Path) -> None:
    model = Pretrained().build(tiny_cnn())
    one, two = (FitEPIC().fit(model, pictures_in(folder)) for _ in range(2))
    assert torch.equal(one.matrix, two.matrix)
    assert torch.equal(one.owner, two.owner)
    assert one.measures == two.measures


def test_saved_and_loaded_it_is_the_same(fitted: Classifier, tmp_path: Path) -> None:
    bank = EPICBank.of(fitted)
    assert bank is not None
    path = bank.save(tmp_path / "again")
    found = EPICBank.load(path)
    assert found.pictures == bank.pictures
    assert found.measures == bank.measures
    assert torch.equal(found.matrix, bank.matrix)
    assert torch.equal(found.pixel_boxes, bank.pixel_boxes)
    said = json.loads(path.with_suffix(".json").read_text())
    assert said["pictures"][0]["sha256"] == bank.pictures[0].digest
    assert len(said["prototypes"]) == 16
    path.write_bytes(path.read_bytes()[:-1000])
    with pytest.raises(WeightsError, match="is damaged or holds no prototypes"):
        EPICBank.load(path)
    with pytest.raises(ModelError, match="There are no prototypes at"):
        EPICBank.load(tmp_path / "nowhere.safetensors")


@pytest.mark.parametrize(
    ("name", "change", "reason"),
    [
        ("owner", lambda t: t + 1000, "the patches' pictures must be integers from 0 to"),
        ("channels", lambda t: t + 8, "the prototypes' channels must be integers from 0 to 7"),
        ("purity", lambda t: t * torch.nan, "purity must be finite"),
        ("boxes", lambda t: t * 9, "`boxes` must lie within the view"),
        ("pooled", lambda t: t[1:], "pooled is"),
        ("matrix", lambda t: 1.1 * t, "the product of matrix and inverse differs from the identity by 2.1e-01"),
        ("matrix", lambda t: t[1:], "matrix is (7, 8), not (d d) with d = 8"),
        ("thumbnails", lambda t: t[1:], "in the bank is invalid"),
    ],
)
def test_a_bank_that_points_beyond_itself_is_refused(
    fitted: Classifier, tmp_path: Path, name: str, change: Callable[[Tensor], Tensor], reason: str
) -> None:
    bank = EPICBank.of(fitted)
    assert bank is not None
    path = bank.save(tmp_path)
    with safe_open(path, "pt") as file:
        tensors, about = {key: file.get_tensor(key) for key in file.keys()}, file.metadata()  # noqa: SIM118
    del about[SUM]  # by which the change would be noticed before it is looked at
    path.write_bytes(save_tensors(tensors | {name: change(tensors[name]).contiguous()}, about))
    with pytest.raises(WeightsError, match="is damaged or holds no prototypes") as caught:
        EPICBank.load(path)
    assert reason in str(caught.value)


def test_a_bank_of_more_classes_is_refused(fitted: Classifier, tmp_path: Path) -> None:
    bank = EPICBank.of(fitted)
    assert bank is not None
    path = replace(bank, pictures=tuple(replace(p, label=99) for p in bank.pictures)).save(tmp_path)
    assert EPICBank.load(path).pictures[0].label == 99
    with pytest.raises(WeightsError, match=r"the class of each picture in the bank must be an index below \d"):
        EPICBank.of(fitted, path)


def test_the_seal_is_of_pictures_settings_and_classifier(fitted: Classifier, folder: Path, tmp_path: Path) -> None:
    bank = EPICBank.of(fitted)
    assert bank is not None
    how, pictures = FitEPIC(duplicate=0.99999), pictures_in(folder)
    assert bank.made_from == how.seal(fitted, pictures)
    copies = class_folders(tmp_path / "same", n=8)
    assert how.seal(fitted, pictures_in(copies)) == bank.made_from
    assert FitEPIC().seal(fitted, pictures) != bank.made_from
    assert how.seal(fitted, pictures[1:]) != bank.made_from
    assert how.seal(replace(fitted, head=Head(fitted.head.feature, fitted.head.weight * 2)), pictures) != bank.made_from


def test_prototypes_of_another_classifier_are_refused(fitted: Classifier) -> None:
    other = replace(fitted, head=Head(fitted.head.feature, fitted.head.weight * 2, fitted.head.bias))
    with pytest.raises(InputError, match="was fitted for another classifier"):
        other.explain(picture("moss", 0), measure=False)


def test_the_card_shows_epic_when_it_can_and_nearest_when_asked(fitted: Classifier) -> None:
    why = fitted.explain(picture("moss", 50))
    like = why.like
    assert isinstance(like, Like)
    assert like.method == "epic"
    assert like.deletion is not None
    assert like.purity is not None
    first = like.neighbours[0]
    assert first.letter in "DEFG"
    assert first.channel is not None
    assert first.contribution is not None
    assert first.contribution > 0
    assert first.query_frame is not None
    data = json.loads(json.dumps(why.to_json()))
    assert data["like"][0]["channel"] == first.channel
    measured = data["like_measured"]
    assert measured["remainder"] == pytest.approx(1 - measured["share_shown"], abs=1e-3)
    assert {"lead", "deletion", "deletion_random", "purity", "purity_fit", "purity_before"} <= set(measured)
    assert measured["logit_difference"] < 1e-4
    page = why.to_html()
    assert 'href="#def-fold"' in page
    assert "<span>channel</span>" in page
    assert f">{first.channel}</td>" in page.replace("\n", "")
    assert 'href="#def-purity"' in page
    assert why.to_png().startswith(b"\x89PNG")
    plain = fitted.explain(picture("moss", 50), like="nearest")
    assert isinstance(plain.like, Like)
    assert plain.like.method == "nearest"
    assert plain.like.deletion is not None
    assert "channel" not in plain.to_json()["like"][0]


def test_without_measuring_nothing_is_said_to_matter(fitted: Classifier) -> None:
    like = fitted.explain(picture("moss", 50), measure=False).like
    assert isinstance(like, Like)
    assert like.deletion is None
    assert like.verdict.level == "not measured"


@pytest.mark.parametrize(
    ("limit", "target", "fall", "level"),
    [
        (0.0, None, 1.0, "believable"),
        (0.0, None, 0.1, "partly"),
        (0.0, "rust", 1.0, "partly"),
        (NEVER, None, 1.0, "do not rely"),
    ],
)
def test_the_verdict_is_by_prototypes_of_the_class_and_places_that_matter(
    fitted: Classifier, limit: float, target: str | None, fall: float, level: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("seewhy.evidence.like.delete_patches", lambda *_: PatchDeletion(3.0, fall, (0.2, 0.3), 0.1))
    monkeypatch.setattr("seewhy.prototypes.measure.LikenessMeasure.restore", lambda _: replace(MEASURED, limit=limit))
    like = fitted.explain(picture("moss", 50), target=target).like
    assert isinstance(like, Like)
    assert like.verdict.level == level
    assert "held-out pictures" in like.verdict.figures
    assert "predicted correctly" not in like.verdict.figures  # the classifier was fitted on those


def test_the_sentence_says_whether_the_places_matter(fitted: Classifier) -> None:
    why = fitted.explain(picture("moss", 50)).like
    assert isinstance(why, Like)
    assert why.deletion is not None
    matters = why.deletion.matters_most
    assert ("no more than hiding other places" in why.verdict.sentence) == (not matters)


def test_asking_for_what_is_not_there_says_how_to_get_it(fitted: Classifier, tmp_path: Path) -> None:
    bare = Pretrained().build(tiny_cnn())
    with pytest.raises(InputError) as caught:
        bare.explain(picture("moss", 0), like="epic")
    assert str(caught.value) == (
        "EPIC needs prototypes, and this classifier has none. Make them with: seewhy fit --task prototypes DATA"
    )
    with pytest.raises(InputError, match="There are no prototypes at"):
        bare.explain(picture("moss", 0), prototypes=str(tmp_path))
    with pytest.raises(InputError, match="nearest takes no file of prototypes"):
        bare.explain(picture("moss", 0), like="nearest", prototypes=str(tmp_path))
    with pytest.raises(KeyError, match=r"no prototype called 'epik'\. Did you mean 'epic'"):
        bare.explain(picture("moss", 0), like="epik")
    missing = bare.explain(picture("moss", 0)).like
    assert isinstance(missing, Missing)
    assert "--task prototypes" in missing.cure


def test_prototypes_can_lie_elsewhere(fitted: Classifier, tmp_path: Path) -> None:
    assert fitted.folder is not None
    moved = shutil.copytree(fitted.folder / "prototypes", tmp_path / "moved")
    homeless = replace(fitted, folder=None, bank=None)
    for place in (moved, moved / "epic.safetensors"):
        found = find_prototypes(homeless, None, place)
        assert found is not None
        assert isinstance(found[1], EPICBank)
    nearest = find_prototypes(replace(fitted, folder=None))
    assert nearest is not None
    assert isinstance(nearest[0], NearestPatches)
    assert find_prototypes(homeless) is None


def test_what_cannot_be_fitted_is_refused(folder: Path) -> None:
    with pytest.raises(InputError, match="Use --like nearest"):
        FitEPIC().fit(Pretrained().build(tiny_tokens()), pictures_in(folder))
    with pytest.raises(DataError, match=r"At least 12 distinct pictures are needed, .*, got 5\."):
        FitEPIC().fit(Pretrained().build(tiny_cnn()), pictures_in(folder)[:5])
    with pytest.raises(InputError, match="held_out"):
        FitEPIC(held_out=0.0)


def test_a_picture_that_changes_meanwhile_is_noticed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from seewhy.prototypes.epic import training as epic_training

    data = class_folders(tmp_path / "data", n=8)
    known = epic_training.collect

    def late(*args: Any) -> EPICBank:
        for entry in args[3]:
            shutil.copy(args[3][0].name, entry.name) if entry is not args[3][0] else None
        return known(*args)

    monkeypatch.setattr(epic_training, "collect", late)
    with pytest.raises(DataError, match="changed during the fit of the prototypes"):
        FitEPIC().fit(Pretrained().build(tiny_cnn()), pictures_in(data))


def test_too_few_pictures_a_channel_are_noted(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from seewhy.prototypes.epic import training as epic_training

    monkeypatch.setattr(epic_training, "ENOUGH", 10.0)
    progress = Progress()
    FitEPIC().fit(Pretrained().build(tiny_cnn()), pictures_in(folder), progress=progress)
    assert (
        "20 pictures for 8 channels are 2.50 per channel; below 10, a gain in purity may be due to chance. "
        "Give at least 107 pictures" in progress.notes
    )


def test_hiding_what_is_read_costs_more_than_hiding_elsewhere() -> None:
    """A network that reads red light, on a picture that is red in one place."""
    model = Pretrained().build(colour_reader())
    view = np.full((32, 32, 3), 128, np.uint8)
    view[8:16, 16:24] = (255, 0, 0)
    pixels = model.encoder.pixels([view])[0]
    found = delete_patches(model, pixels, [(0.5, 0.25, 0.75, 0.5)], 0)
    assert found.fall == pytest.approx(found.lead, abs=1e-6)
    assert found.fall > max(found.falls_random)
    assert found.area == pytest.approx(1 / 16)
    elsewhere = delete_patches(model, pixels, [(0.0, 0.75, 0.25, 1.0)], 0)
    assert elsewhere.fall == pytest.approx(0, abs=1e-6)
    assert found.falls_random == pytest.approx([0.0] * 8, abs=1e-6)


def test_the_options_hold_what_is_asked() -> None:
    assert ExplainOptions(like="nearest") != ExplainOptions()


def test_cells_average_to_the_pooled_vector() -> None:
    model = Pretrained().build(tiny_cnn())
    look: EncoderOutput = model.encoder.encode(noise(3))
    assert torch.allclose(cells_of(model, look.features).mean((2, 3)), look.pooled, atol=1e-6)


def test_a_channel_that_speaks_by_being_low_shows_where_and_on_which_pictures_it_is_lowest(fitted: Classifier) -> None:
    bank = EPICBank.of(fitted)
    assert bank is not None
    signs = set()
    for seed in range(50, 56):
        pixels = fitted.encoder.pixels([picture("moss", seed, 32)])
        look = fitted.encoder.encode(pixels)
        query = Query(look, Target(look.pooled.new_zeros(1, dtype=torch.long)))
        rotated = torch.einsum("kd,dhw->khw", bank.matrix, cells_of(fitted, look.features)[0])
        for group in EPIC(n_channels=8, duplicate=1.1)(fitted, bank, query):
            channel = rotated[group.channel]
            sign = 1 if channel.mean() > 0 else -1
            signs.add(sign)
            assert channel[group.cell] * sign == (channel * sign).max()
            assert [m.patch for m in group.matches] == bank.of_channel(group.channel, sign)[:4]
    assert signs == {1, -1}
