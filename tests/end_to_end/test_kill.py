"""Killed in the middle of its work, again and again, each command ends as if nothing had happened."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from safetensors.torch import load_file, save_file

from killing import Killing, content, lines, rows, writes
from seewhy.types import Transform
from tiny import CLASSES, class_folders

pytestmark = [pytest.mark.slow, pytest.mark.skipif(os.name != "posix", reason="this system has no SIGKILL")]
N = 16
LABELS = CLASSES[:3]
TRANSFORM = Transform((64, 64), (64, 64), "bilinear", (0.5, 0.5, 0.5), (0.5, 0.5, 0.5))


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Pictures, a small network in a file, and a classifier made with it, whose predictions are known."""
    folder = tmp_path_factory.mktemp("killed")
    class_folders(folder / "pictures", N, LABELS, side=96)
    class_folders(folder / "few", 2, LABELS, side=96)
    torch.manual_seed(0)
    network = timm.create_model("test_efficientnet", num_classes=3)
    said = {"architecture": "test_efficientnet", "num_classes": 3, "classes": LABELS, "transform": TRANSFORM.to_json()}
    words = {k: v if isinstance(v, str) else json.dumps(v) for k, v in said.items()}
    save_file(network.state_dict(), folder / "network.safetensors", metadata=words)
    return folder


@pytest.fixture
def run(place: Path, own_cache: Path) -> Killing:
    return Killing(place)


@pytest.fixture(scope="module")
def encoder(place: Path) -> list[str]:
    return ["--encoder", f"file:{place / 'network.safetensors'}", "--engine", "torch"]


@pytest.fixture(scope="module")
def model(place: Path, encoder: list[str], own_cache: Path) -> list[str]:
    Killing(place).finish("fit", "pictures", "-o", "model", "--set", "n_crops=0", "--store", "none", *encoder)
    return ["-m", "model", *encoder]


def without(text: str, *keys: str) -> list[dict[str, Any]]:
    """JSON lines, but for what says where they were written."""
    return [{k: v for k, v in json.loads(line).items() if k not in keys} for line in text.splitlines()]


def test_fit(run: Killing, place: Path, encoder: list[str]) -> None:
    def fit(name: str) -> list[str]:
        return ["fit", "pictures", "-o", name, "--store", f"{name}.sqlite", "--set", "n_crops=4", "--json", *encoder]

    expected = run.finish(*fit("whole"))
    looks = rows(place / "cut.sqlite", "looks_2")
    n_views = rows(place / "whole.sqlite", "looks_2")()
    assert n_views == 5 * 3 * N
    run.kill_at(looks, [1, n_views // 4, n_views // 2, n_views], *fit("cut"))
    assert without(run.finish(*fit("cut")), "model") == without(expected, "model")
    whole, cut = content(place / "whole"), content(place / "cut")
    assert cut == whole
    assert [p.name for p in place.iterdir() if ".cut" in p.name] == []


def test_predict_to_a_file_is_whole_or_not_there(run: Killing, place: Path, model: list[str]) -> None:
    def predict(name: str) -> list[str]:
        return ["predict", "pictures", "--store", f"{name}.p", "--set", "batch_size=4", "-o", f"{name}.jsonl", *model]

    run.finish(*predict("whole"))
    looks = rows(place / "cut.p", "looks_2")
    for mark in (4, 16, 32):
        run.kill_at(looks, [mark], *predict("cut"))
        assert not (place / "cut.jsonl").exists()
    run.finish(*predict("cut"))
    assert (place / "cut.jsonl").read_bytes() == (place / "whole.jsonl").read_bytes()


def test_predict_on_a_terminal_has_said_what_is_so(run: Killing, model: list[str]) -> None:
    arguments = ["predict", "pictures", "--store", "none", "--set", "batch_size=4", "--json", *model]
    expected = run.finish(*arguments).splitlines()
    assert len(expected) == 3 * N
    for mark in (1, 12, 30):
        run.kill(lambda mark=mark: lines(run.said)() >= mark, *arguments)  # type: ignore[misc]
        said = run.said.read_text("utf-8").rpartition("\n")[0].splitlines()
        assert mark <= len(said) < len(expected)
        assert said == expected[: len(said)]


def test_explain(run: Killing, place: Path, model: list[str]) -> None:
    def explain(name: str) -> list[str]:
        return ["explain", "few", "--store", f"{name}.e", "-o", name, *model]

    run.finish(*explain("cards"))
    run.kill_at(lines(place / "cut_cards" / ".explanations.progress.jsonl"), [1, 3, 5], *explain("cut_cards"))
    run.finish(*explain("cut_cards"))
    whole, cut = content(place / "cards"), content(place / "cut_cards")
    assert len(whole) == 6 + 2
    assert cut.keys() == whole.keys()
    for name, data in whole.items():
        assert cut[name].replace(b"cut_cards", b"cards") == data, name


def test_index(run: Killing, place: Path, encoder: list[str]) -> None:
    def index(name: str) -> list[str]:
        return ["index", "pictures", "-o", name, "--store", f"{name}.i", *encoder]

    def search(name: str) -> list[dict[str, Any]]:
        asked = ["search", name, "--image", "few/moss/moss_1.png", "-k", "40", "--json", *encoder]
        return without(run.finish(*asked), "version")

    run.finish(*index("idx"))
    looks = rows(place / "cut_idx.i", "looks_2")
    run.kill_at(looks, [1, 33], *index("cut_idx"))
    run.kill(lambda: rows(place / "cut_idx" / "catalogue.sqlite", "items")() >= 32, *index("cut_idx"))
    run.finish(*index("cut_idx"))
    assert search("cut_idx") == search("idx")


def test_fit_prototypes(run: Killing, place: Path, model: list[str]) -> None:
    def fit(name: str) -> list[str]:
        how = ["--set", "n_prototypes=3", "--set", "shrinkage=0.2", "--set", "n_rotated=16", "--json"]
        return ["fit", "pictures", "--task", "prototypes", "-o", name, "--store", f"{name}.f", *how, *model]

    expected = run.finish(*fit("protos"))
    run.kill_at(rows(place / "cut_protos.f", "looks_2"), [1, 3 * N], *fit("cut_protos"))
    found = run.finish(*fit("cut_protos"))
    assert without(found, "prototypes") == without(expected, "prototypes")
    assert content(place / "cut_protos") == content(place / "protos")


def test_fit_explainer(run: Killing, place: Path, model: list[str]) -> None:
    def fit(name: str) -> list[str]:
        how = ["--set", "steps=120", "--set", "batch_size=2", "--set", "layers=last", "--json"]
        return ["fit", "few", "--task", "explainer", "-o", name, *how, *model]

    expected = run.finish(*fit("explainer"))
    run.kill_at(writes(place / "cut_explainer" / ".t_tame.checkpoint"), [1, 2], *fit("cut_explainer"))
    found = run.finish(*fit("cut_explainer"))
    varies = ("explainer", "seconds_per_step")
    assert without(found, *varies) == without(expected, *varies)
    cut, whole = (load_file(place / name / "t_tame.safetensors") for name in ("cut_explainer", "explainer"))
    assert cut.keys() == whole.keys()
    assert all(torch.equal(cut[name], whole[name]) for name in whole)
    assert content(place / "cut_explainer").keys() == content(place / "explainer").keys()


def test_describe_images(run: Killing, place: Path, model: list[str]) -> None:
    def describe(name: str) -> list[str]:
        return ["describe", "images", "pictures", "-o", f"{name}.jsonl", "--no-check", *model]

    run.finish(*describe("texts"))
    run.kill_at(lines(place / "cut_texts.jsonl"), [1, 10, 30], *describe("cut_texts"))
    run.finish(*describe("cut_texts"))
    assert (place / "cut_texts.jsonl").read_bytes() == (place / "texts.jsonl").read_bytes()


def test_describe_match(run: Killing, place: Path) -> None:
    texts = {label: [f"a {word} surface of {label}" for word in ("rough", "smooth", "dull")] for label in LABELS}
    (place / "texts.json").write_text(json.dumps(texts))

    def match(name: str) -> list[str]:
        asked = ["describe", "match", "pictures", "--descriptions", "texts.json", "--set", "top=2"]
        return [*asked, "-o", f"{name}.jsonl", "--store", f"{name}.m"]

    run.finish(*match("captions"))
    run.kill_at(rows(place / "cut_captions.m", "looks_2"), [1], *match("cut_captions"))
    run.kill(lambda: lines(place / "cut_captions.jsonl")() >= 1, *match("cut_captions"))
    run.finish(*match("cut_captions"))
    assert (place / "cut_captions.jsonl").read_bytes() == (place / "captions.jsonl").read_bytes()
