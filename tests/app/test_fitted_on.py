"""Every page that shows a share of right predictions says so if the model was fitted on the pictures."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from gone_through import looked
from PIL import Image
from starlette.testclient import TestClient

from seewhy.classifiers.base import Classifier
from seewhy.classifiers.linear.recipe import Linear
from seewhy.pictures.samples import load_samples
from tiny import class_folders, tiny_cnn

Client = Callable[..., TestClient]
WARNING = "The classifier was fitted on 24 of these pictures, so its accuracy is too high; there are no others"


def sentence(page: TestClient) -> Any:
    found = looked(page)["fitted_on"]
    assert page.get("/rows").json()["fitted_on"] == found
    assert page.get("/next?format=json").json()["fitted_on"] == found
    return found


def test_training_pictures_are_named_on_every_page(fitted: Classifier, folders: Path, client: Client) -> None:
    page = client(fitted, folders)
    found = sentence(page)
    assert found["n"] == 24
    assert found["accuracy_without"] is None
    assert found["held_out_accuracy"] == fitted.measures["held_out_accuracy"]
    assert found["sentence"].startswith(WARNING)
    held = fitted.measures["held_out_accuracy"]
    assert (f"of pictures held out while it was fitted, {100 * held:.1f} % are right" in found["sentence"]) or not held
    assert WARNING in page.get("/mistakes").text
    assert all(row["fitted_on"] for row in page.get("/rows").json()["rows"])
    assert 'id="fitted-on"' in page.get("/browse").text


def test_renamed_and_resized_copies_are_training_pictures_and_others_are_not(client: Client, tmp_path: Path) -> None:
    root, data = class_folders(tmp_path / "fit", 4), tmp_path / "data"
    draw = np.random.default_rng(0)
    for path in sorted(root.rglob("*.png")):
        noise = draw.integers(0, 256, (8, 8, 3)).astype(np.uint8)
        Image.fromarray(noise).resize((200, 200), Image.Resampling.BICUBIC).save(path)
    for label in ("moss", "rust"):
        (data / label).mkdir(parents=True)
        first, second, *_ = sorted((root / label).iterdir())
        (data / label / "renamed.png").write_bytes(first.read_bytes())
        Image.open(second).resize((150, 150), Image.Resampling.BICUBIC).save(data / label / "smaller.png")
        noise = draw.integers(0, 256, (8, 8, 3)).astype(np.uint8)
        Image.fromarray(noise).resize((200, 200), Image.Resampling.BICUBIC).save(data / label / "other.png")
    model = Linear(n_crops=0).fit(tiny_cnn(), load_samples(root))
    page = client(model, data)
    found = sentence(page)
    known = {row["image"] for row in page.get("/rows").json()["rows"] if row["fitted_on"]}
    assert known == {"renamed.png", "smaller.png"}
    assert found["n"] == 4
    assert found["accuracy_without"] in (0.0, 0.5, 1.0)
    assert "of these pictures, so its accuracy is too high; on the others, its accuracy is" in found["sentence"]


def test_without_training_pictures_nothing_is_said(fitted: Classifier, folders: Path, client: Client) -> None:
    page = client(replace(fitted, known=None), folders)
    assert sentence(page) is None
    assert "so its accuracy is too high" not in page.get("/mistakes").text


def test_the_effect_of_edited_descriptions_says_it_too(
    by_words: Classifier, fitted: Classifier, folders: Path, client: Client
) -> None:
    page = client(replace(by_words, known=fitted.known), folders)
    looked(page)
    card = page.get("/sample/0?format=json").json()["card"]
    page.post(f"{card}/edit", data={"label": "moss", "texts": "blue with clouds\nabove the roofs"})
    assert page.get("/changes?format=json").json()["fitted_on"]["n"] == 24
    assert WARNING in page.get("/changes").text
    assert WARNING in page.get(card).text
