"""The reproductions of CIFAKE and of diffusion features: verdicts follow the numbers."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch


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


def test_verdicts_on_diffusion_features_follow_the_numbers(monkeypatch: pytest.MonkeyPatch) -> None:
    claims_of = script("diffusion_features", monkeypatch).claims_of

    def verdicts(block: int, t: int, own: float, others: float, head: float) -> list[str]:
        table = {"block": block, "t": t, "n_blocks": 13, "middle": 7, "after": 10, "steps": [10, 90, 300]}

        def of(part: float) -> list[float]:
            return [float(i < 100 * part) for i in range(100)]

        others_right = {name: of(others) for name in ("random weights", "autoencoder", "pixels 8 x 8")}
        right = {"diffusion": of(own), **others_right, "attention head": of(head)}
        return [claim.verdict for claim in claims_of(table, right)]

    assert verdicts(9, 90, 0.6, 0.3, 0.8) == ["shown"] * 6
    assert verdicts(1, 300, 0.3, 0.6, 0.1) == ["not shown"] * 6
    assert verdicts(4, 10, 0.5, 0.5, 0.5) == ["partly", "not shown", *["undecided"] * 4]


def test_cka_is_of_what_is_alike_up_to_a_rotation(monkeypatch: pytest.MonkeyPatch) -> None:
    cka = script("diffusion_features", monkeypatch).linear_cka
    draw = torch.Generator().manual_seed(0)
    x, other = torch.randn(400, 4, generator=draw), torch.randn(400, 4, generator=draw)
    turned = x @ torch.linalg.qr(torch.randn(4, 4, generator=draw))[0]
    assert cka(x, 3 * turned + 1) == pytest.approx(1, abs=1e-4)
    assert cka(x, other) < 0.05
