"""DenseCLIP: the context decoder against the authors', texts that look at nothing, and a training that goes on."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from test_refine import wave
from typer.testing import CliRunner

from coloured import colours, masked
from seewhy.cli import app
from seewhy.dense.denseclip import DenseCLIP
from seewhy.dense.mask_training import FromMaps, labels_of, pixel_loss
from seewhy.dense.maskclip import MaskCLIP
from seewhy.dense.pixel_text import ContextDecoder, TextDecoder, centred, texts_for
from seewhy.dense.reader import Windows
from seewhy.dense.saving import load_segmenter, save_segmenter
from seewhy.encoders.base import Layout
from seewhy.encoders.open_clip import TextHalf
from seewhy.encoders.text_tokens import ClipText, Sentence
from seewhy.errors import DataError, InputError, ModelError
from seewhy.learning.adaptation.prompts import Names
from seewhy.pictures.pixel_classes import LEFT_OUT, load_masks
from seewhy.progress import Progress
from seewhy.training.batches import Batch
from tiny import tiny_tokens
from tiny_words import opened as with_words

GOLDEN = json.loads((Path(__file__).parents[1] / "golden" / "denseclip.json").read_text("utf-8"))
SMALL: dict[str, Any] = {"n_steps": 60, "batch_size": 4, "width": 16, "lr": 5e-3}

WRONG: list[tuple[dict[str, Any], str]] = [
    ({"width": 9}, "`width` of denseclip must be a multiple of 8, got 9."),
    ({"tau": 0.0}, "`tau` of denseclip must be a number above 0, got 0."),
    ({"levels": 5}, "`levels` of denseclip must be a whole number from 1 to 4, got 5."),
    ({"prompting": "both"}, "`prompting` of denseclip must be 'post', 'pre' or 'none', got 'both'."),
    (
        {"prompting": "pre"},
        "The settings of denseclip contradict each other: prompting='pre', n_contexts=0, texts='names'.",
    ),
    (
        {"n_contexts": 1, "texts": "random"},
        "The settings of denseclip contradict each other: prompting='post', n_contexts=1, texts='random'",
    ),
]


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


def test_names_behind_contexts_are_the_authors() -> None:
    open_clip = pytest.importorskip("open_clip")
    golden = GOLDEN["text"]
    text = {"context_length": 8, "vocab_size": 40, "width": 16, "heads": 2, "layers": 2}
    vision = {"image_size": 32, "layers": 1, "width": 64, "patch_size": 16}
    model = open_clip.CLIP(12, vision, text, quick_gelu=True).eval().requires_grad_(False)
    named = sorted((n, p) for n, p in model.named_parameters() if not n.startswith(("visual.", "logit_scale")))
    assert [name for name, _ in named] == golden["keys"]
    for i, (name, p) in enumerate(named):
        p.copy_(0.4 * wave(*p.shape, k=1.1 + 0.01 * i, i=i) + ("ln_" in name and name.endswith("weight")))
    ids = {f"{i}.": row for i, row in enumerate(golden["ids"])}
    half = TextHalf(model, Sentence(8, end=39))
    tower = ClipText("golden", 1.0, half, lambda texts: (torch.tensor([ids[one] for one in texts]),))
    read = Names(tower, ["0", "1", "2"]).read(0.5 * wave(2, 3, 16, k=0.3, i=2))
    expected = torch.nn.functional.normalize(torch.tensor(golden["out"]).unflatten(0, (2, 3, 12)), dim=2)
    torch.testing.assert_close(read, expected, atol=2e-5, rtol=1e-4)


def test_without_gamma_texts_look_at_nothing() -> None:
    texts, joint = torch.eye(3, 4), torch.rand(2, 4, 5, 6)
    whole, maps = joint.mean((2, 3)), [torch.rand(2, 8, 5, 6)]
    plain = TextDecoder([8], 16, texts, "post", 0.0).eval()
    _, cosine = plain(maps, joint, whole)
    torch.testing.assert_close(cosine, torch.nn.functional.normalize(joint, dim=1)[:, :3])
    moved = TextDecoder([8], 16, texts, "post", 9.0).eval()
    _, other = moved(maps, joint, whole)
    assert not torch.allclose(other, cosine, atol=1e-3)
    assert float(other.detach().abs().max()) <= 1 + 1e-6


def test_it_learns_is_kept_and_comes_back(data: Path, tmp_path: Path) -> None:
    given = load_masks(data)
    made = DenseCLIP(**SMALL).fit(colours("green blue red"), given)  # names that are wrong, so that masks must teach
    right = [float((made.segment(i.image).mask == given.truth(i, (64, 48))[0]).mean()) for i in given.items]
    assert min(right) > 0.8
    again = load_segmenter(save_segmenter(made, tmp_path / "seg"), encoder=colours("green blue red"))
    assert np.array_equal(again.segment(given.items[0].image).scores, made.segment(given.items[0].image).scores)
    assert again.trained_on == "6 windows of 6 pictures with masks"


@pytest.mark.parametrize(
    "how",
    [
        {"n_contexts": 2}, {"n_contexts": 2, "prompting": "none"}, {"n_contexts": 2, "prompting": "pre"},
        {"n_contexts": 2, "texts": "shuffled"}, {"prompting": "none"}, {"texts": "random"}, {"texts": "none"},
    ],
    ids=str,
)  # fmt: skip
def test_every_form_learns_and_comes_back(data: Path, tmp_path: Path, how: dict[str, Any]) -> None:
    given, short = load_masks(data), {**SMALL, "n_steps": 3}
    made = DenseCLIP(**short, **how).fit(with_words(), given)
    start = DenseCLIP(**{**short, "n_steps": 1, "lr": 1e-9}, **how).fit(with_words(), given)
    learnt, before = made.scorer.tensors(), start.scorer.tensors()
    for name in ("contexts", "queries", "gamma"):
        assert name not in learnt or not torch.equal(learnt[name], before[name])
    assert ("contexts" in learnt) == ("n_contexts" in how and how.get("prompting") != "pre")
    assert ("queries" in learnt) == (how.get("prompting") == "pre")
    assert ("gamma" in learnt) == (how.get("prompting", "post") == "post" and how.get("texts") != "none")
    if "contexts" in learnt:  # names are read once more when training ends
        assert not torch.equal(learnt["fixed"], before["fixed"])
        assert made.scorer.network.names is None  # type: ignore[attr-defined]
    again = load_segmenter(save_segmenter(made, tmp_path / "seg"), encoder=with_words())
    picture = given.items[0].image
    assert np.array_equal(again.segment(picture).scores, made.segment(picture).scores)


def test_before_the_text_network_each_picture_has_texts_of_its_own() -> None:
    torch.manual_seed(0)
    names, joint = Names(with_words().text, ["red", "green", "blue"]), torch.rand(2, 8, 5, 6)  # type: ignore[arg-type]
    network = TextDecoder([8], 16, torch.eye(3, 8), "pre", 0.0, names, 2).eval()
    found = network.texts(joint, joint.mean((2, 3)))
    assert found.shape == (2, 3, 8)
    assert not torch.allclose(found[0], found[1], atol=1e-4)
    torch.testing.assert_close(found.mean(1), torch.zeros(2, 8), atol=0.3, rtol=0)
    torch.testing.assert_close(found.norm(dim=2), torch.ones(2, 3))
    visual = torch.cat([joint.mean((2, 3))[:, None], joint.flatten(2).transpose(1, 2)], 1)
    before = network.context(network.queries.expand(2, -1, -1), visual)
    torch.testing.assert_close(found[1], centred(names.read(before[1])), atol=1e-5, rtol=1e-4)


def test_what_stands_for_the_classes() -> None:
    words, k = ("red", "green", "blue", "red_green"), 4
    on = colours()
    own = texts_for(on, words, "names", 0)
    assert own[0] == words
    assert torch.equal(own[1], MaskCLIP().build(on, words).scorer.texts)  # type: ignore[attr-defined]
    said, texts = texts_for(on, words, "shuffled", 3)
    assert sorted(said) == sorted(words)
    assert all(a != b for a, b in zip(said, words, strict=True))
    torch.testing.assert_close(texts, own[1][[words.index(one) for one in said]])
    draws = [texts_for(on, words, "random", i)[1] for i in (0, 0, 1)]
    assert torch.equal(draws[0], draws[1])
    assert not torch.allclose(draws[0], draws[2])
    torch.testing.assert_close(draws[0].norm(dim=1), torch.ones(k))
    blank = DenseCLIP(texts="none").cells(on, torch.rand(2, 3, 4, 4))
    assert [tuple(one.shape) for one in blank] == [(2, 1, 1, 1), (2, 1)]
    network = TextDecoder([3], 16, torch.zeros(k, 1), "post", 0.0, shows=False).eval()
    scores, cosine = network([torch.rand(2, 3, 4, 4)], *blank)
    assert scores.shape == cosine.shape == (2, k, 4, 4)
    assert not cosine.any()


def test_cells_that_attend_are_asked_for() -> None:
    on, x = colours(), torch.rand(2, 3, 4, 4)
    (cells, whole), (other, mean) = (DenseCLIP(attended=a).cells(on, x) for a in (False, True))
    assert torch.equal(cells, other)
    torch.testing.assert_close(whole, mean)
    with pytest.raises(ModelError, match="has no attention between grid cells"):
        DenseCLIP(attended=True).cells(tiny_tokens(), torch.rand(1, 17, 8))


def test_a_mask_is_learnt_from_where_its_window_lies() -> None:
    truth = np.arange(12 * 24, dtype=np.uint8).reshape(12, 24)
    whole = labels_of(Windows((3, 6), (1, 1)), truth)
    assert len(whole) == 1
    assert torch.equal(whole[0], torch.from_numpy(truth))
    two = labels_of(Windows((3, 4), (1, 2)), truth)  # 7 cells across, the second window from the fourth on
    assert [tuple(one.shape) for one in two] == [(12, 16), (12, 16)]
    assert two[0][0, 0] == truth[0, 0]
    assert two[1][0, -1] == truth[0, -1]
    assert two[1][0, 0] == truth[0, int((3 + 0.125) / 7 * 24)]


def test_a_pixel_without_a_class_teaches_nothing() -> None:
    scores, labels = torch.tensor([[[[2.0, -1.0]], [[0.0, 1.0]]]]), torch.tensor([[[0, LEFT_OUT]]])
    expected = torch.nn.functional.cross_entropy(torch.tensor([[2.0, 0.0]]), torch.tensor([0]))
    torch.testing.assert_close(pixel_loss(scores, labels), expected)
    assert pixel_loss(scores, torch.full((1, 1, 2), LEFT_OUT)) == 0
    task = FromMaps(TextDecoder([8], 16, torch.eye(2), "post", 0.0), 0.5, 3.0, Layout())
    terms = task.loss((scores, scores, labels), Batch([0], {}))
    torch.testing.assert_close(terms["scores"], torch.nn.functional.softplus(torch.tensor(-4.0)))
    torch.testing.assert_close(terms["loss"], expected + 3 * terms["scores"])


@pytest.mark.slow
def test_a_stopped_training_goes_on_bit_for_bit(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import seewhy.training.loop as loop

    how, given, encoder = DenseCLIP(**{**SMALL, "n_steps": 6}), load_masks(data), colours()
    whole = how.fit(encoder, given)
    step = loop._Run.step

    def stops(self: Any, number: int, *more: Any) -> None:
        if number == 4:
            raise KeyboardInterrupt
        step(self, number, *more)

    monkeypatch.setattr(loop._Run, "step", stops)
    with pytest.raises(KeyboardInterrupt):
        how.fit(encoder, given, checkpoint=tmp_path / "kept")
    monkeypatch.setattr(loop._Run, "step", step)
    progress = Progress()
    resumed = how.fit(encoder, given, checkpoint=tmp_path / "kept", progress=progress)
    assert "resuming at step 5" in progress.notes
    for name, value in whole.scorer.tensors().items():
        assert torch.equal(value, resumed.scorer.tensors()[name]), name


def test_what_is_wrong_is_told(tmp_path: Path) -> None:
    for given, says in WRONG:
        with pytest.raises(InputError) as caught:
            DenseCLIP(**given)
        assert str(caught.value).startswith(says)
    with pytest.raises(ModelError, match="does not accept learnt prompts"):
        DenseCLIP(**SMALL, n_contexts=2).fit(colours(), load_masks(masked(tmp_path / "two", 2)))
    with pytest.raises(DataError, match=r"At least 2 pictures with masks are needed for training, got 1"):
        DenseCLIP(**SMALL).fit(colours(), load_masks(masked(tmp_path / "one", 1)))


def test_from_the_command_line(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import seewhy.encoders.find

    monkeypatch.setattr(seewhy.encoders.find, "encoder", lambda name, engine: colours())
    sets = [word for name, value in {**SMALL, "n_steps": 3}.items() for word in ("--set", f"{name}={value}")]
    words = ["fit", str(data), "--task", "masks", "-o", str(tmp_path / "seg"), "--quiet"]
    done = CliRunner().invoke(app, [*words, *sets, "--json"])
    assert done.exit_code == 0, done.output
    assert json.loads(done.stdout)["method"] == "denseclip", "where the encoder has words"
    assert not (tmp_path / ".seg.checkpoint").exists()
    wordless = colours()
    monkeypatch.setattr(type(wordless), "has_text", False)
    done = CliRunner().invoke(app, words)
    assert done.stdout.startswith(f"{tmp_path / 'seg'}: 3 classes, trained on 1536 cells of 6 pictures"), (
        "else the probe"
    )
    wrong = CliRunner().invoke(app, [*words, "--method", "maskclip"])
    assert str(wrong.exception).startswith("--method maskclip cannot be trained. Use one of denseclip, linear")
