"""A saved classifier: whole or not at all, refused in plain words when something is wrong, and never code."""

from __future__ import annotations

import builtins
import hashlib
import json
import os
import pickle
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import jaxtyping
import pytest
import torch
from safetensors.torch import load_file
from safetensors.torch import save as save_tensors

from seewhy.classifiers import saving
from seewhy.classifiers.base import Classifier
from seewhy.classifiers.linear.recipe import Linear
from seewhy.classifiers.saving import ARCHIVE, CARD, load
from seewhy.classifiers.unfitted import Pretrained
from seewhy.descriptions import Descriptions
from seewhy.errors import DataError, ModelError, WeightsError
from seewhy.heads.head import Head
from seewhy.pictures.samples import load_samples
from seewhy.storage import folders
from tiny import CLASSES, class_folders, noise, picture, tiny_cnn

ENCODER = tiny_cnn()


@pytest.fixture(scope="module")
def fitted(tmp_path_factory: pytest.TempPathFactory) -> Classifier:
    folder = class_folders(tmp_path_factory.mktemp("data"), 5)
    words = Descriptions({c: (f"{c} ünder light", "round") for c in CLASSES[:3]})
    return Linear(n_crops=1).fit(ENCODER, load_samples(folder), descriptions=words)


@pytest.fixture
def folder(fitted: Classifier, tmp_path: Path) -> Path:
    return fitted.save(tmp_path / "model")


def tensors_of(folder: Path) -> Path:
    return folder / ARCHIVE.tensors_file(json.loads((folder / CARD).read_text("utf-8")))


def contents(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def refused(folder: Path, kind: type[Exception], **options: Any) -> str:
    with pytest.raises(kind) as caught:
        load(folder, encoder=options.get("encoder", ENCODER))
    return str(caught.value)


def edit(folder: Path, change: Callable[[dict[str, Any]], object]) -> None:
    card = json.loads((folder / CARD).read_text("utf-8"))
    change(card)
    (folder / CARD).write_text(json.dumps(card), "utf-8")


def test_everything_comes_back(fitted: Classifier, folder: Path) -> None:
    again = load(folder, encoder=ENCODER)
    assert torch.equal(again.probabilities(noise(8)), fitted.probabilities(noise(8)))
    for name in ("recipe", "parameters", "classes", "likeness", "trained_on", "measures", "words_accuracy"):
        assert getattr(again, name) == getattr(fitted, name), name
    assert again.words.texts == fitted.words.texts
    assert torch.equal(again.words.vectors, fitted.words.vectors)
    assert again.bank.pictures == fitted.bank.pictures
    assert torch.equal(again.bank.pixel_boxes, fitted.bank.pixel_boxes)
    torch.testing.assert_close(again.bank.vectors, fitted.bank.vectors, atol=1e-3, rtol=1e-3)
    assert torch.equal(again.held_out.labels, fitted.held_out.labels)
    assert (again.bank.thumbnail(0) == fitted.bank.thumbnail(0)).all()
    assert sorted(p.name for p in folder.iterdir()) == [CARD, tensors_of(folder).name]


def test_saved_twice_it_is_the_same(fitted: Classifier, folder: Path) -> None:
    before = contents(folder)
    load(folder, encoder=ENCODER).save(folder)
    fitted.save(folder)
    assert contents(folder) == before
    assert [p.name for p in folder.parent.iterdir()] == ["model"]


def test_saving_over_another_leaves_everything_else_in_the_folder(fitted: Classifier, folder: Path) -> None:
    """A project's folder holds pictures and notes, and what was trained for the classifier lies there too."""
    others = {"notes.txt": b"mine", "photos/cat.png": b"png", "prototypes/epic.safetensors": b"epic"}
    others |= {"explainers/t_tame.safetensors": b"hours of training", "tensors-mine.safetensors": b"mine too"}
    for name, data in others.items():
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_bytes(data)
    old = tensors_of(folder)
    Pretrained().build(ENCODER).save(folder)
    assert load(folder, encoder=ENCODER).recipe == "pretrained"
    assert not old.exists()
    assert contents(folder) == {
        **others, CARD: (folder / CARD).read_bytes(), tensors_of(folder).name: tensors_of(folder).read_bytes()
    }  # fmt: skip
    fitted.save(folder)
    assert load(folder, encoder=ENCODER).recipe == "linear"
    assert len(contents(folder)) == len(others) + 2


def test_a_save_that_is_killed_leaves_one_that_loads(
    fitted: Classifier, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Before and after every change to the folder it holds the old classifier, whole, or the new one."""
    moments: list[Path] = []

    def moment() -> None:
        moments.append(Path(shutil.copytree(folder, tmp_path / "moments" / str(len(moments)))))

    def watched(change: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **options: Any) -> Any:
            moment()
            return change(*args, **options)

        return call

    for owner, name in ((os, "replace"), (os, "rename"), (Path, "unlink")):
        monkeypatch.setattr(owner, name, watched(getattr(owner, name)))
    Pretrained().build(ENCODER).save(folder)
    monkeypatch.undo()
    moment()
    found = [load(there, encoder=ENCODER).recipe for there in moments]
    assert len(found) > 4
    assert found == sorted(found)  # first linear, then pretrained
    assert {found[0], found[-1]} == {"linear", "pretrained"}
    for there in moments:
        fitted.save(there)
        assert load(there, encoder=ENCODER).digest == fitted.digest


@pytest.mark.parametrize("there", [True, False])
@pytest.mark.parametrize("stage", ["tensors", "card", "rename"])
def test_a_save_that_fails_leaves_what_there_was(
    fitted: Classifier, folder: Path, stage: str, there: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = folder if there else folder.parent / "other"
    before = contents(folder.parent)
    wrote = folders.write_inside

    def write(path: Path, data: bytes | str) -> Path:
        if (path.name == CARD) == (stage == "card"):
            raise OSError(28, "No space left on device")
        return wrote(path, data)

    def rename(*_: object) -> None:
        raise OSError(28, "No space left on device")

    if stage == "rename":
        monkeypatch.setattr("seewhy.storage.output.os.rename", rename)
        monkeypatch.setattr("seewhy.storage.output.os.replace", rename)
    else:
        monkeypatch.setattr(folders, "write_inside", write)
    with pytest.raises(DataError, match=r"could not be written: .*[Nn]o space left on device") as caught:
        Pretrained().build(ENCODER).save(place)
    if stage != "rename":
        assert str(caught.value) == (
            f"{place} could not be written: No space left on device. Free some space, or give another place."
        )
    assert contents(folder.parent) == before
    assert [p.name for p in folder.parent.iterdir()] == ["model"]


def test_a_folder_of_something_else_is_never_replaced(fitted: Classifier, tmp_path: Path) -> None:
    mine = tmp_path / "mine"
    mine.mkdir()
    (mine / "thesis.txt").write_text("years of work")
    for place in (mine, mine / "thesis.txt", tmp_path):
        with pytest.raises(DataError) as caught:
            fitted.save(place)
        assert str(caught.value) == f"{place} exists and is not a saved SeeWhy classifier. Give another name."
    assert (mine / "thesis.txt").read_text() == "years of work"


def test_what_is_no_classifier_is_refused(tmp_path: Path, folder: Path) -> None:
    missing = tmp_path / "none"
    assert refused(missing, ModelError) == (
        f"{missing} is not a saved SeeWhy classifier (seewhy.json: No such file or directory). "
        f"Make one with: seewhy fit PHOTOS -o {missing}"
    )
    (folder / CARD).write_text("{oops")
    assert refused(folder, ModelError) == (
        f"{folder} is not a saved SeeWhy classifier (seewhy.json: it is not valid JSON: Expecting property name "
        f"enclosed in double quotes at line 1). Make one with: seewhy fit PHOTOS -o {folder}"
    )
    (folder / CARD).write_text("[" * 100_000)
    assert refused(folder, ModelError).startswith(f"{folder} is not a saved SeeWhy classifier (")


def test_a_newer_format_is_refused(folder: Path) -> None:
    edit(folder, lambda card: card.update(format=99))
    assert refused(folder, ModelError) == (
        f"{folder} must have format 2, got 99. Update SeeWhy with: pip install -U seewhy, or fit the classifier again."
    )


def test_a_card_that_is_no_object_is_refused(folder: Path) -> None:
    (folder / CARD).write_text("[1, 2]")
    assert refused(folder, ModelError) == (
        f"{folder} must have format 2, got None. Update SeeWhy with: pip install -U seewhy, or fit the classifier "
        "again."
    )


@pytest.mark.parametrize("cut", [0, 7, 100, -10, None])
def test_damaged_tensors_are_refused(folder: Path, cut: int | None) -> None:
    file = tensors_of(folder)
    data = file.read_bytes()
    file.unlink() if cut is None else file.write_bytes(data[:cut])
    message = refused(folder, WeightsError)
    assert message.startswith(f"{file} is damaged (")
    assert message.endswith("). Copy the whole folder again, or fit the classifier again.")


def test_one_changed_number_is_noticed(folder: Path) -> None:
    file = tensors_of(folder)
    data = bytearray(file.read_bytes())
    data[-1] ^= 1
    file.write_bytes(data)
    assert refused(folder, WeightsError) == (
        f"{file} is damaged (its SHA-256 differs from the one in seewhy.json). Copy the whole folder again, or fit the "
        "classifier again."
    )


@pytest.mark.parametrize("sha256", [None, 5, "../../elsewhere", "0" * 63 + "G"])
def test_the_tensors_lie_beside_the_card(folder: Path, sha256: object) -> None:
    edit(folder, lambda card: card.update(tensors=sha256))
    assert refused(folder, ModelError).startswith(f"{folder / CARD} is damaged (")


def tamper(folder: Path, change: Callable[[dict[str, Any], dict[str, torch.Tensor]], object]) -> None:
    """As somebody would who keeps card and seal in step."""
    file = tensors_of(folder)
    tensors = load_file(file)

    def write(card: dict[str, Any]) -> None:
        change(card, tensors)
        data = save_tensors({name: tensor.contiguous() for name, tensor in tensors.items()})
        card["tensors"] = hashlib.sha256(data).hexdigest()
        file.unlink()
        (folder / ARCHIVE.tensors_file(card)).write_bytes(data)

    edit(folder, write)


TAMPERED: dict[str, tuple[Callable[[dict[str, Any], dict[str, torch.Tensor]], object], str]] = {
    "not finite": (lambda c, t: t["head.weight"].fill_(torch.nan), "head.weight must be finite"),
    "infinite": (lambda c, t: t["bank.vectors"][0].fill_(torch.inf), "bank.vectors must be finite"),
    "one row": (lambda c, t: t.update({"head.weight": t["head.weight"][:1]}), "weights of shape (1, 8), but 3 rows"),
    "too many rows": (lambda c, t: t.update({"head.weight": t["head.weight"].repeat(2, 1)}), "weights of shape (6, 8)"),
    "narrow": (lambda c, t: t.update({"head.weight": t["head.weight"][:, :3]}), "different widths: "),
    "flat": (lambda c, t: t.update({"head.weight": t["head.weight"].flatten()}), "head.weight is torch.float32 (24,)"),
    "bias": (lambda c, t: t.update({"head.bias": t["head.bias"][:2]}), "3 classes, but 2 biases"),
    "scale": (lambda c, t: c.update(scale="NaN"), "the logit scale is nan"),
    "owner": (lambda c, t: t["bank.owner"].add_(1000), "the patches' pictures must be integers from 0 to 14"),
    "negative": (lambda c, t: t["bank.owner"].sub_(1), "the patches' pictures must be integers from 0 to 14"),
    "label": (lambda c, t: [p.__setitem__(2, 99) for p in c["bank"]], "must be an index below 3"),
    "label's kind": (lambda c, t: c["bank"][0].__setitem__(2, "moss"), "must be an integer"),
    "name's kind": (lambda c, t: c["bank"][0].__setitem__(0, 5), "the entry of picture 5 in the bank is invalid"),
    "thumbnail": (lambda c, t: c["bank"][0].__setitem__(3, 10**9), "in the bank is invalid"),
    "negative size": (lambda c, t: c["bank"][0].__setitem__(3, -1), "in the bank is invalid"),
    "pooled": (lambda c, t: t.update({"bank.pooled": t["bank.pooled"][1:]}), "bank.pooled is (14, 8), not"),
    "vectors": (lambda c, t: t.update({"bank.vectors": t["bank.vectors"][1:]}), "bank.vectors is (74, 8), not"),
    "boxes": (lambda c, t: t["bank.boxes"].mul_(9), "`boxes` must lie within the view"),
    "empty box": (lambda c, t: t["bank.boxes"].zero_(), "boxes must be 75 boxes with left < right"),
    "pixels": (
        lambda c, t: t.update({"bank.pixel_boxes": t["bank.pixel_boxes"][:, :3]}),
        "bank.pixel_boxes is (75, 3)",
    ),
    "held-out label": (
        lambda c, t: t["held_out.labels"].add_(3),
        "the class indices of the held-out pictures must be integers",
    ),
    "held out": (lambda c, t: t.update({"held_out.pooled": t["held_out.pooled"][1:]}), "held_out.labels is (15,), not"),
    "word's class": (lambda c, t: t["words.owner"].add_(3), "the class indices of the descriptions must be integers"),
    "a word less": (lambda c, t: c["words"]["texts"].pop(), "words.owner is (6,), not"),
    "word's kind": (lambda c, t: c["words"]["texts"].__setitem__(0, 5), "a description is not a text"),
    "likeness": (lambda c, t: c["likeness"].update(precision="x"), "the likeness measures are invalid"),
    "much likeness": (lambda c, t: c["likeness"].update(chance=5), "the likeness measures are invalid"),
    "likeness of": (lambda c, t: c["likeness"].update(n=None), "the likeness measures are invalid"),
    "band": (lambda c, t: c["likeness"].update(bands=[[0.5, 3, 4]]), "the likeness measures are invalid"),
    "band of": (lambda c, t: c["likeness"].update(bands=[[0.5, "3", 1]]), "the likeness measures are invalid"),
    "limit": (lambda c, t: c["likeness"].update(limit=7), "the likeness measures are invalid"),
    "near": (lambda c, t: c["likeness"].update(near="far"), "the likeness measures are invalid"),
    "no bands": (lambda c, t: c["likeness"].update(bands=[]), "the likeness measures are invalid"),
    "accuracy": (lambda c, t: c.update(words_accuracy="high"), "`words_accuracy` must be from 0 to 1, got"),
    "measures": (lambda c, t: c.update(measures=None), "measures is None"),
    "parameters": (lambda c, t: c.update(parameters=[]), "parameters is []"),
    "origin": (lambda c, t: c.update(trained_on=5), "trained_on is 5"),
    "a class": (lambda c, t: c["classes"].__setitem__(0, 5), "the name of the recipe or of a class is not a text"),
    "votes": (lambda c, t: c.update(votes=[1]), "KeyError('head.owner')"),
    "recipe": (lambda c, t: c.update(recipe="nope", network={}), "nope"),
}


@pytest.mark.parametrize("how", TAMPERED)
def test_what_does_not_fit_together_is_refused(folder: Path, how: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)  # shapes are checked in tests alone
    change, reason = TAMPERED[how]
    tamper(folder, change)
    message = refused(folder, ModelError)
    assert message.startswith(f"{folder / CARD} is damaged (")
    assert reason in message
    assert message.endswith("). Fit the classifier again.")


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64, torch.int8, torch.int16, torch.int32])
def test_a_tensor_of_another_precision_is_read_or_refused(
    folder: Path, dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is never met by torch's own error, at a prediction."""
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)
    before, names = (folder / CARD).read_bytes(), list(load_file(tensors_of(folder)))
    right = load(folder, encoder=ENCODER).predict(picture("moss", 0)).label
    file = tensors_of(folder)
    tensors = file.read_bytes()
    for name in names:
        if load_file(file)[name].is_floating_point() is not dtype.is_floating_point:
            continue
        tamper(folder, lambda c, t, name=name: t.update({name: t[name].to(dtype)}))
        try:
            label = load(folder, encoder=ENCODER).predict(picture("moss", 0)).label
        except ModelError as error:
            label = right if f"{name.rpartition('.')[2]} is {dtype}" in str(error) else str(error)
        assert label == right, name
        for path in folder.glob("*.safetensors"):
            path.unlink()
        file.write_bytes(tensors)
        (folder / CARD).write_bytes(before)


def test_a_head_of_another_width_says_so(folder: Path) -> None:
    """Where nothing else in the folder tells how wide features are."""
    keys = ("bank", "held_out", "words")

    def change(card: dict[str, Any], tensors: dict[str, torch.Tensor]) -> None:
        card.update(bank=None, words=None, likeness=None)
        for name in [n for n in tensors if n.startswith(keys)]:
            del tensors[name]
        tensors["head.weight"] = tensors["head.weight"][:, :3]

    tamper(folder, change)
    model = load(folder, encoder=ENCODER)
    with pytest.raises(ModelError) as caught:
        model.predict(picture("moss", 0))
    assert str(caught.value) == (
        "The classifier head needs 3 features per picture, but the encoder returns 8. Fit the "
        "classifier again with this encoder."
    )


EPS = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 32 32\n%%EndComments\nshowpage\n%%EOF\n"


@pytest.mark.parametrize("data", [EPS, b"no picture", b"\xff\xd8\xff\xe0cut off"])
def test_a_thumbnail_is_opened_as_jpeg_alone(
    folder: Path, data: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Pillow hands other formats to other programs, as EPS to Ghostscript."""

    def change(card: dict[str, Any], tensors: dict[str, torch.Tensor]) -> None:
        card["bank"] = [[name, digest, label, 0] for name, digest, label, _ in card["bank"]]
        card["bank"][0][3] = len(data)
        tensors["bank.thumbnails"] = torch.tensor(list(data), dtype=torch.uint8)

    (tmp_path / "gs").write_text(f"#!/bin/sh\ntouch {tmp_path / 'harm'}\nexit 1\n")
    (tmp_path / "gs").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    tamper(folder, change)
    bank = load(folder, encoder=ENCODER).bank
    with pytest.raises(WeightsError) as caught:
        bank.view(bank.owner.tolist().index(0))
    message = str(caught.value)
    assert message.startswith(f"The saved view of {bank.pictures[0].name!r} cannot be read: ")
    assert message.endswith(". Fit the model again.")
    assert not (tmp_path / "harm").exists()


def test_its_explainers_are_found_from_any_folder(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder.parent)
    model = load("model", encoder=ENCODER)
    monkeypatch.chdir("/")
    assert model.folder == folder


def test_words_measured_without_names_come_back(fitted: Classifier, tmp_path: Path) -> None:
    words = replace(fitted.words, nameless=fitted.words.vectors.flip(0))
    again = load(replace(fitted, words=words).save(tmp_path / "named"), encoder=ENCODER)
    assert torch.equal(again.words.measured.vectors, words.nameless)


CHANGES: dict[str, Callable[[Classifier], dict[str, Any]]] = {
    "bias": lambda c: {"head": Head(c.head.feature, c.head.weight, c.head.bias + torch.tensor([1.0, 0.0, 0.0]))},
    "rows exchanged": lambda c: {"head": Head(c.head.feature, c.head.weight.flip(0), c.head.bias)},
    "owner of texts": lambda c: {"words": replace(c.words, owner=c.words.owner.flip(0))},
    "texts": lambda c: {"words": replace(c.words, texts=c.words.texts[::-1])},
    "likeness": lambda c: {"likeness": None},
    "held out": lambda c: {"held_out": None},
    "bank": lambda c: {"bank": replace(c.bank, pictures=c.bank.pictures[::-1])},
    "measures": lambda c: {"measures": {}},
    "classes": lambda c: {"classes": c.classes[::-1]},
}


@pytest.mark.parametrize("what", CHANGES)
def test_the_digest_changes_with_everything(fitted: Classifier, what: str) -> None:
    changed = replace(fitted, **CHANGES[what](fitted))
    assert len(changed.digest) == 64
    assert changed.digest != fitted.digest
    assert replace(fitted).digest == fitted.digest


def test_the_digest_changes_with_engine_and_version(
    fitted: Classifier, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    narrow = tiny_cnn()
    narrow.engine.precision = "bfloat16"
    assert load(folder, encoder=ENCODER).digest == fitted.digest != load(folder, encoder=narrow).digest
    monkeypatch.setattr(saving, "version", lambda _: "99")
    assert load(folder, encoder=ENCODER).digest != fitted.digest


def test_a_classifier_fitted_in_another_precision_says_so(fitted: Classifier, folder: Path, tmp_path: Path) -> None:
    same, narrow = load(folder, encoder=ENCODER), tiny_cnn()
    assert same.provenance()["engine"] == "torch float32"
    narrow.engine.precision = "bfloat16"
    other = load(folder, encoder=narrow)
    assert other.provenance()["engine"] == "torch bfloat16, fitted in float32"
    again = load(other.save(tmp_path / "again"), encoder=tiny_cnn())
    assert again.provenance()["engine"] == "torch float32"
    assert again.digest == fitted.digest
    edit(folder, lambda card: card.update(fitted_in="<b>"))
    with pytest.raises(ModelError, match="is damaged"):
        load(folder, encoder=ENCODER)


@pytest.mark.parametrize("key", ["classes", "feature", "scale", "words", "encoder", "bank", "likeness", "measures"])
@pytest.mark.parametrize("value", ["gone", 3, "odd"])
def test_a_damaged_card_is_refused_or_harmless(folder: Path, key: str, value: object) -> None:
    """A changed field is either refused by name or still gives a classifier; never anything but a ModelError."""

    def change(card: dict[str, Any]) -> None:
        if value == "gone":
            del card[key]
        else:
            card[key] = value

    edit(folder, change)
    try:
        load(folder, encoder=ENCODER)
    except ModelError as error:
        assert str(folder) in str(error)  # noqa: PT017
    else:
        assert value != "gone"


def test_classes_that_do_not_match_the_head_are_refused(folder: Path) -> None:
    edit(folder, lambda card: card.update(classes=["a", "b"]))
    assert refused(folder, ModelError) == (
        f"{folder / CARD} is damaged (held_out.logits is (15, 3), not (n k) with k = 2). Fit the classifier again."
    )


def test_other_weights_are_refused(folder: Path) -> None:
    other = tiny_cnn(seed=1)
    assert refused(folder, ModelError, encoder=other) == (
        f"{folder} needs 'tiny' with the fingerprint {ENCODER.fingerprint[:12]}, got 'tiny' with "
        f"{other.fingerprint[:12]}. Use the same weights, or fit the classifier "
        "again."
    )


def test_loading_runs_no_code(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def never(*_: object, **__: object) -> None:
        raise AssertionError("loading must not unpickle or evaluate")

    for owner, name in (
        (pickle, "load"), (pickle, "loads"), (pickle, "Unpickler"), (torch, "load"), (builtins, "eval")
    ):  # fmt: skip
        monkeypatch.setattr(owner, name, never)
    assert load(folder, encoder=ENCODER).classes == CLASSES[:3]


def test_a_pickle_in_place_of_tensors_is_only_damaged(folder: Path, tmp_path: Path) -> None:
    class Harm:
        def __reduce__(self) -> tuple[Any, ...]:
            return os.mkdir, (str(tmp_path / "harm"),)

    file = tensors_of(folder)
    file.write_bytes(pickle.dumps(Harm()))
    assert refused(folder, WeightsError).startswith(f"{file} is damaged (")
    assert not (tmp_path / "harm").exists()
