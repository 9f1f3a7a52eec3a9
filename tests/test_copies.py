"""Pictures that a classifier was fitted on do not pass for new ones when it is judged."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import seewhy
from seewhy.classifiers import classifiers, known_pictures
from seewhy.classifiers.base import Classifier
from seewhy.classifiers.known_pictures import MINIATURE, WIDTH, KnownPictures, compact
from seewhy.classifiers.linear.recipe import Linear
from seewhy.errors import ModelError
from seewhy.evaluation import evaluate
from seewhy.pictures.miniatures import miniature, stacked
from seewhy.pictures.samples import load_samples
from seewhy.progress import Progress
from seewhy.storage.parts import tensors_of
from tiny import CLASSES, class_folders, tiny_cnn


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Pictures to fit on, as different as noise of one colour can be."""
    root = class_folders(tmp_path_factory.mktemp("fit"), 6, CLASSES[:3])
    draw = np.random.default_rng(0)
    for i, path in enumerate(sorted(root.rglob("*.png"))):
        pixels = np.asarray(Image.open(path)).astype(int) + draw.integers(-60, 60, (1, 1, 3)) * (1 + i % 3)
        Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(path)
    return root


@pytest.fixture(scope="module")
def fitted(folders: Path) -> Classifier:
    return Linear(n_crops=0).fit(tiny_cnn(), load_samples(folders))


def test_byte_copies_are_counted_named_and_left_out(fitted: Classifier, folders: Path, tmp_path: Path) -> None:
    for label in CLASSES[:3]:
        (tmp_path / label).mkdir()
    copied = sorted(folders.rglob("*.png"))[:2]
    names = [tmp_path / p.parent.name / f"renamed_{p.name}" for p in copied]
    for source, target in zip(copied, names, strict=True):
        shutil.copy(source, target)
    other = class_folders(tmp_path / "other", 2, CLASSES[:3])
    for path in other.rglob("*.png"):
        shutil.copy(path, tmp_path / path.parent.name / f"new_{path.name}")
    shutil.rmtree(tmp_path / "other")
    progress = Progress()
    report = evaluate(fitted, tmp_path, n_explained=0, progress=progress)
    found = report.data["fitted_on"]
    same = {row["image"]: row["fitted_on"] for row in found["pictures"] if row["same_bytes"]}
    assert same == {str(t): str(s) for s, t in zip(copied, names, strict=True)}
    assert found["n_same_bytes"] == 2
    (note,) = [n for n in progress.notes if "fitted on" in n]
    assert "2 as the same file" in note
    assert note in report.data["notes"]
    assert "(2 as the same file), so its accuracy is too high" in report.to_html()
    json.dumps(report.data)


def test_it_is_saved_and_read_and_small(fitted: Classifier, tmp_path: Path) -> None:
    fitted.save(tmp_path / "model")
    known, again = fitted.known, seewhy.load(tmp_path / "model", encoder=tiny_cnn()).known
    assert known is not None
    assert again is not None
    assert again.names == known.names
    assert torch.equal(again.digests, known.digests)
    assert torch.equal(again.features, known.features)
    assert torch.equal(again.miniatures, known.miniatures)
    assert sum(t.numel() * t.element_size() for t in tensors_of(known).values()) == len(known.names) * (
        32 + WIDTH + MINIATURE
    )


def test_a_classifier_without_known_pictures_says_nothing_of_them(fitted: Classifier, folders: Path) -> None:
    from dataclasses import replace

    report = evaluate(replace(fitted, known=None), folders, n_explained=0)
    assert report.data["fitted_on"] is None
    assert "as the same file" not in report.to_html()


def test_parts_that_do_not_fit_are_refused(fitted: Classifier, tmp_path: Path) -> None:
    assert fitted.known is not None
    facts, tensors = fitted.known.facts(), tensors_of(fitted.known, "known.")
    odd = [tensors | {f"known.{name}": tensors[f"known.{name}"].float()} for name in ("features", "miniatures")]
    odd.append(tensors | {"known.miniatures": tensors["known.miniatures"][1:]})
    for made, given in [(facts | {"names": ["a"]}, tensors), *((facts, one) for one in odd)]:
        with pytest.raises(ValueError, match=r"known\.|miniatures for"):
            KnownPictures.restore(made, given)
    fitted.save(tmp_path / "model")
    card = json.loads((tmp_path / "model" / "seewhy.json").read_text())
    card["known"]["names"] = []
    (tmp_path / "model" / "seewhy.json").write_text(json.dumps(card))
    with pytest.raises(ModelError):
        seewhy.load(tmp_path / "model", encoder=tiny_cnn())


def test_a_copy_is_told_by_its_details_whatever_network_looks(fitted: Classifier, folders: Path) -> None:
    """Turned and saved anew; of a model saved before details were kept, only the same bytes are."""
    from dataclasses import replace

    assert fitted.known is not None
    names, draw = fitted.known.names, np.random.default_rng(1)
    scenes = [np.kron(draw.integers(0, 256, (8, 8, 3)), np.ones((8, 8, 1))).astype(np.uint8) for _ in names]
    known = replace(fitted.known, miniatures=stacked([miniature(s, (64, 64)) for s in scenes]))
    asked = stacked(
        [
            miniature(np.rot90(scenes[3]).copy(), (64, 64)),
            miniature(scenes[0][::-1, :, ::-1] // 2 + scenes[1] // 2, (64, 64)),
        ]
    )
    first, second = known.copies_of(asked, None)
    assert first is not None
    assert (first[0], second) == (names[3], None)
    assert first[1] > 0.95
    of = replace(fitted, known=replace(known, miniatures=stacked([])))
    data = evaluate(of, folders, n_explained=0).data["fitted_on"]
    assert (data["n_compared"], data["n_near"], data["n_same_bytes"]) == (0, 0, len(names))


def test_of_many_pictures_some_miniatures_are_kept_and_named_rightly(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(known_pictures, "MOST_MINIATURES", 3)
    draw = np.random.default_rng(0)
    scenes = [np.kron(draw.integers(0, 256, (8, 8, 3)), np.ones((8, 8, 1))).astype(np.uint8) for _ in range(7)]
    small = [miniature(s, (64, 64)) for s in scenes]
    pooled = torch.eye(7, 16)
    known = KnownPictures.of([f"{i}.png" for i in range(7)], ["00" * 32] * 7, pooled, "e", small)
    assert len(known.miniatures) == 3
    found = known.copies_of(stacked(small), pooled)
    assert [f and f[0] for f in found] == ["0.png", None, None, "3.png", None, None, "6.png"]
    again = KnownPictures.restore(known.facts(), tensors_of(known, "known."))
    assert again is not None
    assert torch.equal(again.miniatures, known.miniatures)


def test_few_numbers_keep_the_cosines() -> None:
    draw = torch.Generator().manual_seed(0)
    a = torch.rand(200, 1280, generator=draw) ** 4
    b = (a + 0.1 * torch.rand(200, 1280, generator=draw) ** 4).clamp_min(0)
    exact = torch.nn.functional.cosine_similarity(a.sqrt(), b.sqrt())
    ours = torch.nn.functional.cosine_similarity(compact(a).float(), compact(b).float())
    assert float((exact - ours).abs().max()) < 0.03
    assert float(exact.min()) > 0.85


@pytest.mark.slow
def test_copies_are_named_and_told_from_new_pictures(grocery: Path, tmp_path: Path) -> None:
    """Real photographs, the embedded network: turned, tilted, a little cut, mirrored, all saved anew; and new ones."""
    classes = sorted((grocery / "train").iterdir())[:6]
    for folder in classes:
        shutil.copytree(folder, tmp_path / "train" / folder.name)
        (tmp_path / "judge" / folder.name).mkdir(parents=True)
        for path in sorted((grocery / "test" / folder.name).glob("*.jpg"))[:3]:
            shutil.copy(path, tmp_path / "judge" / folder.name / f"new_{path.name}")
        for i, path in enumerate(sorted(folder.glob("*.jpg"))[:4]):
            image = Image.open(path).convert("RGB")
            w, h = image.size
            cut = image.crop((w // 50, h // 50, w - w // 50, h - h // 50))
            changed = (image.rotate(90, expand=True), image.rotate(3), cut, image.transpose(Image.Transpose(0)))
            changed[i].save(tmp_path / "judge" / folder.name / f"copy{i}_{path.name}", quality=(70, 90, 95, 95)[i])
    model = seewhy.fit(tmp_path / "train", encoder="lite0", n_crops=0)
    found = evaluate(model, tmp_path / "judge", n_explained=0).data["fitted_on"]
    named = {Path(row["image"]).name for row in found["pictures"]}
    assert found["n_same_bytes"] == 0
    assert sum(name.startswith("copy") for name in named) >= 22  # of 24
    assert sum(name.startswith("new") for name in named) <= 1  # of 18


@pytest.mark.parametrize("name", sorted(classifiers))
def test_whatever_is_fitted_on_pictures_knows_them(name: str) -> None:
    """Every recipe that takes pictures remembers them: read off its source, as fitting all of them takes minutes."""
    import inspect

    source = inspect.getsource(inspect.getmodule(classifiers[name]))  # type: ignore[arg-type]
    if "encode_samples(" in source and "Linear(" not in source:
        assert "known=" in source or '"known":' in source


def test_a_contract_and_a_score_say_that_they_are_of_training_pictures(
    fitted: Classifier, folders: Path, caplog: pytest.LogCaptureFixture
) -> None:
    from seewhy.sklearn import SeeWhyClassifier
    from seewhy.studies.auditing.audit import audit

    note = "The classifier was fitted on 18 of these pictures"
    (accuracy,) = [r for r in audit(fitted, load_samples(folders)).data["figures"] if r["name"] == "accuracy"]
    assert note in json.dumps(accuracy)
    files = sorted(folders.rglob("*.png"))
    labels = [file.parent.name for file in files]
    estimator = SeeWhyClassifier(tiny_cnn(), n_crops=0).fit(files[::2], labels[::2])
    with caplog.at_level("WARNING", "seewhy"):
        value = estimator.score(files, labels)
    assert value == np.mean(estimator.predict(files) == np.array(labels))
    assert "of these pictures, so its accuracy is too high; on the others, its accuracy is" in caplog.text
    caplog.clear()
    estimator.score(
        [file for file in files if file not in files[::2]][:0] or [np.full((40, 40, 3), 9, np.uint8)], ["moss"]
    )
    assert "fitted on" not in caplog.text
