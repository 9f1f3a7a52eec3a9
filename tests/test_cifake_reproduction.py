"""The reproductions of CIFAKE and of diffusion features: verdicts follow the numbers."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "reproductions"))

from small_cnn import SmallCNN


def script(name: str, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(Path(__file__).resolve().parents[1] / "reproductions"))
    sys.modules.pop(name, None)
    return importlib.import_module(name)


def judge(name: str, clean: float, changed: float, half: float = 0.01) -> dict[str, Any]:
    def cell(version: str, value: float) -> dict[str, Any]:
        right = {"value": value, "interval": [value - half, value + half]}
        return {"version": version, "right": right, "false_alarms": 0.1, "missed": 0.2, "by_seed": [value]}

    return {"judge": name, "cells": [cell("as it is", clean), cell("blur 1", changed)]}


def study(
    clean: float, changed: float, numbers: float, lead: tuple[float, float], chosen: tuple[int, float], coded: float
) -> dict[str, Any]:
    names = ("2 x 32 filters, 1 x 64 units", "3 x 16 filters")
    called = {"the same photographs": 0.1, "through an autoencoder": coded, "enlarged from half": 0.2}
    return {
        "judges": [judge("small CNN", clean, changed), judge("colour and spectrum", numbers, numbers)],
        "lead_over_frozen": [
            {"version": v, "difference": d, "real": abs(d) > 0.02}
            for v, d in zip(("as it is", "blur 1"), lead, strict=True)
        ],
        "topologies": [{"topology": names[0], "right": 0.8}, {"topology": names[1], "right": chosen[1]}],
        "chosen": names[chosen[0]],
        "unseen": [{"name": k, "called_generated": {"small CNN": v}} for k, v in called.items()],
        "n": 1000,
        "n_selection": 100,
    }


def ground(holds: bool) -> dict[str, Any]:
    one = {"value": 0.1, "interval": [0.05, 0.15]}
    told = {"n": 50, "excess": one, "cost": one, "holds": holds, "right": 0.9}
    return {"real": told, "made": told}


def test_verdicts_on_cifake_follow_the_numbers(monkeypatch: pytest.MonkeyPatch) -> None:
    claims_of = script("cifake", monkeypatch).claims_of

    def verdicts(holds: bool, *numbers: Any) -> list[str]:
        return [claim.verdict for claim in claims_of(study(*numbers), ground(holds))]

    assert verdicts(True, 0.93, 0.9, 0.8, (0.05, 0.0), (0, 0.7), 0.9) == ["shown"] * 7
    bad = verdicts(False, 0.84, 0.6, 0.85, (0.05, -0.1), (1, 0.9), 0.4)
    assert bad == ["not shown"] * 7
    middle = verdicts(True, 0.91, 0.87, 0.9, (0.0, 0.0), (1, 0.805), 0.9)
    assert middle == ["not shown", "partly", "shown", "shown", "not shown", "partly", "shown"]


def test_drawings_have_their_masks_and_an_autoencoder_gives_pictures_back(monkeypatch: pytest.MonkeyPatch) -> None:
    module = script("cifake", monkeypatch)
    pictures, masks = module.drawings(6, 0)
    assert masks.shape == (6, 32, 32)
    assert 0.01 < float(masks.float().mean()) < 0.4
    inside = [p[m.numpy()].mean(0) - p[~m.numpy()].mean(0) for p, m in zip(pictures, masks, strict=True)]
    assert min(abs(v).max() for v in inside) > 20
    assert module.through(pictures, pictures[:2], 2, 0).shape == (2, 32, 32, 3)


def test_verdicts_on_all_of_cifake_follow_the_numbers(monkeypatch: pytest.MonkeyPatch) -> None:
    claims_of = script("cifake_full", monkeypatch).claims_of

    def verdicts(seeds: list[float], changed: float, numbers: float, lead: tuple[float, float]) -> list[str]:
        full = {
            version: {
                "right": [value, value - 0.002, value + 0.002], "by_seed": seeds, "false_alarms": 0.1, "missed": 0.04
            }
            for version, value in (("as it is", seeds[0]), ("blur 1", changed))
        }  # fmt: skip
        table = study(seeds[0], changed, numbers, lead, (0, 0.7), 0.9)
        return [claim.verdict for claim in claims_of(full, table, 1000, 100)]

    assert verdicts([0.926, 0.925], 0.9, 0.8, (0.05, 0.0)) == ["shown"] * 4
    assert verdicts([0.926, 0.924], 0.87, 0.95, (0.0, -0.1)) == ["not shown"] * 4
    assert verdicts([0.9299, 0.92], 0.9, 0.91, (0.05, -0.1)) == ["shown", "shown", "shown", "partly"]


def test_a_network_judges_as_it_was_trained_and_goes_on(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    module = script("cifake_full", monkeypatch)
    made = torch.arange(40) % 2 == 0
    pixels = (90 + 80 * made.numpy()[:, None, None, None] + np.zeros((40, 8, 8, 3))).astype(np.uint8)
    recipe = SmallCNN(n_filters=4, n_units=8, side=8, n_epochs=60, batch_size=40, lr=1e-2, n_bank=1, seed=3)
    one = module.trained(recipe, pixels, made, tmp_path / "kept")(pixels)
    assert bool(((one > 0.5) == made).all())
    told = module.told(one[None], made)
    assert (told["right"], told["false_alarms"], told["missed"], told["by_seed"]) == ([1, 1, 1], 0, 0, [1])
    wrong = module.told(torch.stack([torch.ones(40), one]), made)
    assert (wrong["right"][0], wrong["false_alarms"], wrong["missed"], wrong["by_seed"]) == (0.5, 1, 0, [0.5, 1])
    assert (tmp_path / "kept" / "seed3").is_file()
    assert torch.equal(module.trained(recipe, pixels, made, tmp_path / "kept")(pixels), one)


def test_classes_are_read_off_both_ways_of_naming_files(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "REAL").mkdir()
    (tmp_path / "FAKE").mkdir()
    for name in ("0.jpg", "0 (10).jpg", "1_2.jpg", "12 (3).jpg"):
        Image.new("RGB", (8, 8)).save(tmp_path / "REAL" / name)
        Image.new("RGB", (8, 8)).save(tmp_path / "FAKE" / name)
    photographs = script("diffusion_features", monkeypatch).photographs
    pixels, labels = photographs(str(tmp_path), 4, 8)
    assert (tuple(pixels.shape), sorted(labels.tolist())) == ((4, 3, 8, 8), [0, 1, 2, 9])
    for i in range(20, 40):  # classes take turns, as in the whole set: every so many would be one class
        for k in range(10):
            Image.new("RGB", (8, 8)).save(tmp_path / "REAL" / (f"{i} ({k + 1}).jpg" if k else f"{i}.jpg"))
    assert len(set(photographs(str(tmp_path), 20, 8)[1].tolist())) > 5


def test_verdicts_on_diffusion_features_follow_the_numbers(monkeypatch: pytest.MonkeyPatch) -> None:
    claims_of = script("diffusion_features", monkeypatch).claims_of

    def verdicts(block: int, t: int, own: float, others: float, head: float) -> list[str]:
        table = {"block": block, "t": t, "n_blocks": 13, "middle": 7, "after": 10, "steps": [10, 90, 300]}

        def of(part: float) -> list[float]:
            return [float(i < 100 * part) for i in range(100)]

        others_right = {name: of(others) for name in ("random weights", "autoencoder", "pixels 8 x 8")}
        right = {"diffusion": of(own), **others_right, "diffusion, attention head": of(head)}
        right["random weights, attention head"] = of(others)
        return [claim.verdict for claim in claims_of(table, right)]

    assert verdicts(9, 90, 0.6, 0.3, 0.8) == ["shown"] * 7
    assert verdicts(1, 300, 0.3, 0.6, 0.1) == ["not shown"] * 7
    assert verdicts(4, 10, 0.5, 0.5, 0.5) == ["partly", "not shown", *["too small to tell"] * 5]


def test_cka_is_of_what_is_alike_up_to_a_rotation(monkeypatch: pytest.MonkeyPatch) -> None:
    cka = script("diffusion_features", monkeypatch).linear_cka
    draw = torch.Generator().manual_seed(0)
    x, other = torch.randn(400, 4, generator=draw), torch.randn(400, 4, generator=draw)
    turned = x @ torch.linalg.qr(torch.randn(4, 4, generator=draw))[0]
    assert cka(x, 3 * turned + 1) == pytest.approx(1, abs=1e-4)
    assert cka(x, other) < 0.05
