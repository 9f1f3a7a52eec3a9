"""``--focus``: pictures decided on, explained and found under an instruction, or the instruction refused."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from typer.testing import CliRunner

import seewhy
from seewhy.cli import app
from seewhy.learning.encoders.adapted import Adaptation
from seewhy.learning.encoders.instructed import Instructed


@pytest.fixture(scope="module")
def enc(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two pictures, red and blue, and an encoder: under "the first" both are a cat, under "the second" both a dog."""
    folder, on = tmp_path_factory.mktemp("focus"), seewhy.encoder("lite0")
    for name, colour in (("red", (200, 30, 30)), ("blue", (30, 30, 200))):
        Image.fromarray(np.full((64, 64, 3), colour, np.uint8)).save(folder / f"{name}.png")
    part = Instructed.before(on, [("the first",), ("the second",)], rank=2)
    head = part.projection
    first, second = part.read(on.text.sentences(["the first", "the second"]))[0]  # type: ignore[attr-defined]
    with torch.no_grad():
        for p in part.parameters():
            p.zero_()
        head.down.bias.fill_(1)
        both = torch.linalg.pinv(8 * torch.stack([first, second]))  # each opens one of the two directions
        head.gate.weight.copy_(both.T)
        head.up.weight.copy_(1e3 * on.encode_text(["cat", "dog"]).T)
    Adaptation(on, part).save(folder / "enc")
    return folder


def run(*words: object) -> str:
    done = CliRunner().invoke(app, [str(w) for w in (*words, "--quiet")])
    assert done.exit_code == 0, done.output
    return done.output


def refused(*words: object) -> str:
    return str(CliRunner().invoke(app, [str(w) for w in words]).exception)


@pytest.mark.parametrize(("focus", "label"), [("the first", "cat"), ("the second", "dog")])
def test_a_decision_under_an_instruction(enc: Path, focus: str, label: str) -> None:
    words = (
        "--labels",
        "cat,dog",
        "--encoder",
        enc / "enc",
        "--focus",
        focus,
        "--store",
        "none",
        "--json",
        "--engine",
        "torch",
    )
    for verb in (("predict",), ("explain", "--no-measure")):
        told = [json.loads(line) for line in run(*verb, enc / "red.png", *words).splitlines()]
        assert [one["label"] for one in told] == [label]


def test_an_index_is_searched_under_its_own_instruction(enc: Path) -> None:
    listening = ("--encoder", enc / "enc", "--focus", "the first", "--engine", "torch")
    run("index", enc / "red.png", enc / "blue.png", "-o", enc / "idx", *listening, "--store", "none")
    found = json.loads(run("search", enc / "idx", "--image", enc / "red.png", *listening, "--json"))
    assert [Path(hit["image"]).name for hit in found["hits"]] == ["blue.png"]
    assert found["hits"][0]["cosine"] > 0.999
    told = refused("search", enc / "idx", "--image", enc / "red.png", "--encoder", enc / "enc")
    assert told.startswith(f"{enc / 'idx'} needs 'adapted:{enc / 'enc'}#the first' with the fingerprint")


@pytest.mark.parametrize("verb", [("predict", "--labels", "cat,dog"), ("explain", "--labels", "cat,dog")])
def test_an_instruction_to_an_encoder_that_takes_none_is_refused(enc: Path, verb: tuple[str, ...]) -> None:
    assert refused(*verb, enc / "red.png", "--focus", "the colour") == (
        "The encoder 'lite0' takes no instruction, got 'the colour'. Remove it, or use an encoder that was trained "
        "with instructions."
    )
