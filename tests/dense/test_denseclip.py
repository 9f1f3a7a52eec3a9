"""DenseCLIP: the context decoder against the authors', texts that look at nothing, and a training that goes on."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from test_mask_evaluation import masked
from test_refine import wave
from test_segment import colours
from typer.testing import CliRunner

from seewhy.cli import app
from seewhy.dense.context_decoder import ContextDecoder, visual_context
from seewhy.dense.denseclip import Decoder, DenseCLIP
from seewhy.dense.saving import load_segmenter, save_segmenter
from seewhy.errors import DataError, InputError
from seewhy.pictures.pixel_classes import load_masks

GOLDEN = json.loads((Path(__file__).parents[1] / "golden" / "denseclip.json").read_text("utf-8"))
SMALL: dict[str, Any] = {"n_steps": 60, "batch_size": 4, "width": 16, "lr": 5e-3}


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return masked(tmp_path_factory.mktemp("masks") / "train", noise=20)


def test_the_context_decoder_is_the_authors() -> None:
    made = ContextDecoder(12, 16, 2, 2, 0.0)
    named = sorted(made.named_parameters())
    assert [name for name, _ in named] == GOLDEN["decoder"]["keys"]
    with torch.no_grad():
        for i, (name, p) in enumerate(named):
            p.copy_(0.4 * wave(*p.shape, k=1.1 + 0.01 * i, i=i) + ("norm" in name and name.endswith("weight")))
    found = made(wave(2, 3, 12, k=0.7), wave(2, 7, 12, k=0.5, i=1))
    torch.testing.assert_close(found.flatten(), torch.tensor(GOLDEN["decoder"]["out"]), atol=2e-5, rtol=1e-4)


def test_without_gamma_texts_look_at_nothing() -> None:
    texts, joint = torch.eye(3, 4), torch.rand(2, 4, 5, 6)
    plain = Decoder(8, texts, DenseCLIP(gamma=0.0, **SMALL)).eval()
    _, cosine = plain(torch.rand(2, 8, 5, 6), joint)
    torch.testing.assert_close(cosine, torch.nn.functional.normalize(joint, dim=1)[:, :3])
    moved = Decoder(8, texts, DenseCLIP(gamma=9.0, **SMALL)).eval()
    _, other = moved(torch.rand(2, 8, 5, 6), joint)
    assert not torch.allclose(other, cosine, atol=1e-3)
    assert float(other.detach().abs().max()) <= 1 + 1e-6
    context = visual_context(joint)
    assert context.shape == (2, 31, 4)
    torch.testing.assert_close(context[:, 0], joint.mean((2, 3)))


def test_it_learns_is_kept_and_comes_back(data: Path, tmp_path: Path) -> None:
    given = load_masks(data)
    made = DenseCLIP(**SMALL).fit(colours("green blue red"), given)  # names that are wrong, so that masks must teach
    right = [float((made.segment(i.image).mask == given.truth(i, (64, 48))[0]).mean()) for i in given.items]
    assert min(right) > 0.8
    again = load_segmenter(save_segmenter(made, tmp_path / "seg"), encoder=colours("green blue red"))
    assert np.array_equal(again.segment(given.items[0].image).scores, made.segment(given.items[0].image).scores)
    assert again.trained_on == "6 windows of 6 pictures with masks"


@pytest.mark.slow
def test_a_stopped_training_goes_on_bit_for_bit(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import seewhy.training.loop as loop

    how, given, encoder = DenseCLIP(**{**SMALL, "n_steps": 55}), load_masks(data), colours()
    whole = how.fit(encoder, given)
    step = loop._Run.step

    def stops(self: Any, number: int, *more: Any) -> None:
        if number == 52:
            raise KeyboardInterrupt
        step(self, number, *more)

    monkeypatch.setattr(loop._Run, "step", stops)
    with pytest.raises(KeyboardInterrupt):
        how.fit(encoder, given, checkpoint=tmp_path / "kept")
    monkeypatch.setattr(loop._Run, "step", step)
    resumed = how.fit(encoder, given, checkpoint=tmp_path / "kept")
    for name, value in whole.scorer.tensors().items():
        assert torch.equal(value, resumed.scorer.tensors()[name]), name


def test_what_is_wrong_is_told(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="denseclip was given width=9"):
        DenseCLIP(width=9)
    with pytest.raises(DataError, match=r"1 picture\(s\) with masks can be learnt from"):
        DenseCLIP(**SMALL).fit(colours(), load_masks(masked(tmp_path / "one", 1)))


def test_from_the_command_line(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import seewhy.encoders.find

    monkeypatch.setattr(seewhy.encoders.find, "encoder", lambda name, engine: colours())
    sets = [word for name, value in {**SMALL, "n_steps": 3}.items() for word in ("--set", f"{name}={value}")]
    words = ["fit-segmenter", str(data), "-o", str(tmp_path / "seg"), "--quiet"]
    done = CliRunner().invoke(app, [*words, "--method", "denseclip", *sets, "--json"])
    assert done.exit_code == 0, done.output
    assert json.loads(done.stdout)["method"] == "denseclip"
    assert not (tmp_path / ".seg.checkpoint").exists()
    done = CliRunner().invoke(app, words)
    assert done.stdout.startswith(f"{tmp_path / 'seg'}: 3 classes, 1536 cells of 6 pictures")
    wrong = CliRunner().invoke(app, [*words, "--method", "maskclip"])
    assert str(wrong.exception).startswith("maskclip is not trained. One of denseclip, linear was expected.")
