"""COMET: its loss is the authors', each player learns from its own, the mask finds what was planted."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from seewhy.classifiers.base import Classifier
from seewhy.classifiers.encoded_set import EncodedSet
from seewhy.classifiers.saving import load
from seewhy.classifiers.unfitted import Pretrained
from seewhy.descriptions import Descriptions
from seewhy.errors import InputError, ModelError
from seewhy.learning.adaptation.backbone import Predictor, new_predictor, predictor_of, sized
from seewhy.learning.self_explaining.comet.network import (
    COMETNetwork,
    Hide,
    Playing,
    Selector,
    make_selector,
)
from seewhy.learning.self_explaining.comet.recipe import (
    COMET,
    RELEASED,
    Played,
    borrowed,
    figures,
    mask_alone,
    probed,
    temperature,
    watch,
)
from seewhy.pictures.samples import Sample, load_samples
from seewhy.progress import Progress
from seewhy.training.batches import TrainingData
from seewhy.training.loop import Training, train
from tiny import CLASSES, TRANSFORM, class_folders, colour_reader, noise, picture, tiny_cnn, tiny_tokens

GOLDEN = json.loads((Path(__file__).parents[1] / "golden" / "comet.json").read_text())
QUICK = COMET(n_steps=3, batch_size=4, n_bank=6)
RED, BLUE = (255, 128, 0), (0, 128, 255)


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return class_folders(tmp_path_factory.mktemp("data"), 4)


def published(row: dict[str, float]) -> COMET:
    m_p, m_c, gap, m_1, tau = (row[name] for name in ("m_ploss", "m_closs", "gap_th", "m_m1", "mask_th"))
    return COMET(m_p=m_p, m_c=m_c, gap=gap, m_1=m_1, tau=tau)


@pytest.mark.parametrize("case", GOLDEN["cases"], ids=lambda c: f"{c['row']} {c['loss']:.2f}")
def test_the_loss_and_its_gradients_are_the_authors(case: dict[str, Any]) -> None:
    outputs, complement = (torch.tensor(case[k], requires_grad=True) for k in ("outputs", "complement"))
    i = torch.arange(224.0) / 223
    waves = [torch.sin(3 * (b + 1) * i[:, None] + 2 * i[None, :]) for b in range(3)]
    mask = (case["level"] * (0.5 + 0.5 * torch.stack(waves))).clamp(0, 1).requires_grad_()
    labels = torch.tensor(case["labels"])
    ce_p, ce_d = cross_entropy(outputs, labels), cross_entropy(complement, labels)
    loss = published(GOLDEN["rows"][case["row"]]).objective(ce_p, ce_d, mask)
    assert loss.item() == pytest.approx(case["loss"], abs=GOLDEN["tolerance"], rel=GOLDEN["tolerance"])
    found = torch.autograd.grad(loss, (outputs, complement, mask))
    for mine, theirs in zip(found[:2], (case["grad_outputs"], case["grad_complement"]), strict=True):
        torch.testing.assert_close(mine, torch.tensor(theirs), atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(found[2].sum((1, 2)), torch.tensor(case["grad_mask"]), atol=1e-4, rtol=1e-4)


def test_both_published_rows_of_weights_are_reached() -> None:
    marked, released = (published(GOLDEN["rows"][k]) for k in ("marked", "released"))
    assert COMET(m_c=1.0, gap=1.0) == marked
    assert replace(marked, **RELEASED) == released
    made = COMET(**RELEASED)  # type: ignore[arg-type]
    assert (made.m_p, made.m_c, made.gap, made.m_1, made.tau) == (1, 4, 2, 100, 0.6)


def test_the_hinge_is_content_at_the_gap_and_area_below_tau_is_free() -> None:
    of = COMET(m_p=0, m_c=3, gap=1, m_1=10, tau=0.25).objective
    small, half = torch.full((2, 4, 4), 0.25), torch.full((2, 4, 4), 0.5)
    assert float(of(torch.tensor(1.0), torch.tensor(2.0), small)) == 0.0
    assert float(of(torch.tensor(1.0), torch.tensor(9.0), small)) == 0.0
    assert float(of(torch.tensor(1.0), torch.tensor(0.5), small)) == 4.5
    assert float(of(torch.tensor(1.0), torch.tensor(2.0), half)) == 2.5
    assert float(of(torch.tensor(1.0), torch.tensor(2.0), torch.stack([small[0], half[0]]))) == 1.25
    ce_d = torch.tensor(2.5, requires_grad=True)
    assert float(torch.autograd.grad(of(torch.tensor(1.0), ce_d, small), ce_d)[0]) == 0.0


def test_what_is_hidden_takes_the_fill() -> None:
    pixels = noise(2)
    mask = torch.zeros(2, 32, 32)
    mask[:, :16] = 1
    for fill, colour in (("mean", 0.0), ("black", -2.0)):
        shown = Hide(fill, TRANSFORM)(pixels, mask)
        torch.testing.assert_close(shown[:, :, :16], pixels[:, :, :16])
        torch.testing.assert_close(shown[:, :, 16:], torch.full((2, 3, 16, 32), colour))


@pytest.mark.parametrize(("kind", "n_weights"), [("unet", 303_425), ("lraspp", 3_218_138)])
def test_selectors_give_a_mask_of_the_size_of_the_picture(kind: str, n_weights: int) -> None:
    selector = make_selector(kind).eval()
    assert sum(p.numel() for p in selector.parameters()) == n_weights
    with torch.no_grad():
        mask = selector(torch.randn(2, 3, 36, 52))
    assert mask.shape == (2, 36, 52)
    assert 0 < float(mask.min()) < float(mask.max()) < 1


def coloured(n: int, seed: int) -> tuple[Tensor, Tensor, Tensor]:
    """Noisy grey pictures with one coloured square: pixels, classes, where the squares are."""
    rng = np.random.default_rng(seed)
    pixels = np.clip(rng.normal(128, 3, (n, 32, 32, 1)) + np.zeros(3), 0, 255)
    labels, place = rng.integers(0, 2, n), 4 * rng.integers(0, 7, (n, 2))
    masks = torch.zeros(n, 32, 32, dtype=torch.bool)
    for i, (row, column) in enumerate(place.tolist()):
        pixels[i, row : row + 8, column : column + 8] = (RED, BLUE)[labels[i]]
        masks[i, row : row + 8, column : column + 8] = True
    x = torch.from_numpy(((pixels / 255 - 0.5) / 0.25).astype(np.float32)).permute(0, 3, 1, 2)
    return x.contiguous(), torch.from_numpy(labels), masks


def sure_reader() -> Predictor:
    """Reads colours, and is sure of them: a square is a sixteenth of the picture."""
    encoder = colour_reader()
    assert encoder.classifier is not None
    encoder.classifier.weight.data *= 10
    return predictor_of(encoder, Pretrained().build(encoder).head)


def play(game: Playing, pixels: Tensor, labels: Tensor, n_steps: int, lr: float = 0.01) -> None:
    data = TrainingData(len(labels), {"pixels": pixels, "labels": labels})
    train(game, data, Training(n_steps, 8, lr=lr))


def new_game(mode: str, predictor: Predictor, detector: Predictor, **weights: float) -> Playing:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        selector = make_selector("unet")
    return Playing(
        selector,
        predictor,
        detector,
        mode,
        COMET(**{"m_c": 1.0, "gap": 1.0, **weights}).objective,
        Hide("mean", TRANSFORM),
    )


def test_the_mask_lies_on_the_only_place_that_is_read() -> None:
    reader = sure_reader()
    pixels, labels, _ = coloured(64, 0)
    game = new_game("post_hoc", reader, reader, m_c=4, gap=2, tau=0.1)
    before = {n: t.clone() for n, t in reader.state_dict().items()}
    play(game, pixels, labels, 80)
    assert all(torch.equal(t, before[n]) for n, t in reader.state_dict().items())
    pixels, labels, where = coloured(20, 1)
    with torch.no_grad():
        mask = game.selector(pixels)
    inside = (mask * where).sum((1, 2)) / mask.sum((1, 2))
    assert float(inside.min()) > 3 / 16, "three times what a mask of chance has there"
    assert float(inside.mean()) > 0.3
    hottest = mask.flatten(1).argmax(1)
    assert bool(where.flatten(1)[torch.arange(20), hottest].all())


def test_each_player_learns_from_its_own_loss() -> None:
    pixels, labels, _ = coloured(16, 0)
    judge = sure_reader()
    alone = []
    for weights in ({"m_c": 0.0, "m_1": 0.0}, {"m_c": 50.0, "m_1": 1e4}):
        game = new_game("2p", new_predictor(2), judge, **weights)
        game.predictor.load_state_dict(alone[0][2] if alone else game.predictor.state_dict())
        start = {n: t.clone() for n, t in game.predictor.state_dict().items()}
        kept = {n: t.clone() for n, t in judge.state_dict().items()}
        play(game, pixels, labels, 1, lr=1e-3)
        assert all(torch.equal(t, kept[n]) for n, t in judge.state_dict().items())
        alone.append((game.predictor.state_dict(), game.selector.state_dict(), start))
    assert all(torch.equal(t, alone[1][0][n]) for n, t in alone[0][0].items()), "what the selector wants changed it"
    assert any(not torch.equal(t, alone[0][2][n]) for n, t in alone[0][0].items())
    assert any(not torch.equal(t, alone[1][1][n]) for n, t in alone[0][1].items())


def test_the_detector_learns_in_3p_and_drifts_where_asked() -> None:
    pixels, labels, _ = coloured(16, 0)
    for mode, norm, weights, averages in (
        ("2p", "frozen", False, False),
        ("2p", "batch", False, True),
        ("3p", "frozen", True, True),
    ):
        detector = new_predictor(2)
        game = new_game(mode, new_predictor(2), detector)
        game.drifts = norm == "batch"
        before = {n: t.clone() for n, t in detector.state_dict().items()}
        play(game, pixels, labels, 2)
        changed = {n for n, t in detector.state_dict().items() if not torch.equal(t, before[n])}
        assert any("running_mean" in n for n in changed) is averages, (mode, norm)
        assert any(n.endswith("weight") for n in changed) is weights, (mode, norm)
        assert not any(m.training for m in (*detector.modules(), *game.selector.modules()))


def played(masks: Tensor, labels: Tensor) -> Played:
    n = len(labels)
    held = torch.arange(n) % 2 == 0
    right = {"mask": torch.ones(n, dtype=torch.bool)}
    views = ("binarised mask", "another picture's mask", "whole picture", "rest", "binarised rest")
    right |= {v: torch.zeros(n, dtype=torch.bool) for v in views}
    return Played(
        labels, held, probed(masks), masks.mean((1, 2)), torch.zeros(n, 1), torch.zeros(n, 2), right, torch.arange(n)
    )


def test_a_mask_whose_shape_tells_the_class_is_found_out() -> None:
    rng = torch.Generator().manual_seed(0)
    labels = torch.randint(0, 2, (200,), generator=rng)
    masks = torch.rand(200, 12, 12, generator=rng)
    assert mask_alone(played(masks, labels)) == pytest.approx(0.5, abs=0.15)
    level = torch.where(labels == 1, 0.9, 0.7)[:, None, None]
    assert mask_alone(played(masks * level, labels)) == pytest.approx(1.0, abs=0.02), "told by brightness, anywhere"
    masks[:, 3:6, 3:6] += labels[:, None, None]
    assert mask_alone(played(masks, labels)) == 1.0
    found = figures(played(masks, labels))
    assert found["accuracy"] == 1.0
    assert found["complement_accuracy"] == 0.0
    assert found["mean_mask_area"] == pytest.approx(float(masks[::2].mean()), abs=1e-4)
    assert found["chance"] == pytest.approx(max(float((labels[::2] == k).float().mean()) for k in (0, 1)), abs=1e-4)


def test_a_mask_is_borrowed_from_another_picture_of_another_class_where_there_is_one() -> None:
    masks = torch.arange(4.0)[:, None, None].expand(4, 2, 2)
    taken = borrowed(masks, torch.tensor([0, 0, 1, 1]))[:, 0, 0].tolist()
    assert taken == [2, 2, 0, 0]
    assert borrowed(masks[:2], torch.tensor([0, 0]))[:, 0, 0].tolist() == [1, 0]
    alone = borrowed(masks[:1], torch.tensor([0]), (masks[2:], torch.tensor([0, 1])))
    assert alone[:, 0, 0].tolist() == [3]


def test_probabilities_are_softened_and_never_sharpened() -> None:
    some = played(torch.rand(8, 12, 12), torch.tensor([0, 0, 1, 1, 0, 0, 1, 1]))
    sure = torch.tensor([[4.0, 0.0], [4.0, 0.0], [0.0, 4.0], [0.0, 4.0]] * 2)
    # Four of four right count as five of six.
    assert temperature(replace(some, shown=sure)) == pytest.approx(4 / np.log(5), rel=1e-4)
    assert temperature(replace(some, shown=sure / 8)) == 1.0
    wrong = sure.clone()
    wrong[0] = torch.tensor([0.0, 4.0])
    assert temperature(replace(some, shown=wrong)) == pytest.approx(4 / np.log(2), rel=1e-4)
    assert temperature(replace(some, held=torch.zeros(8, dtype=torch.bool))) == 1.0


VARIANTS = {
    "2p": QUICK,
    "3p": replace(QUICK, mode="3p"),
    "post_hoc": replace(QUICK, mode="post_hoc"),
    "scratch": replace(QUICK, backbone="scratch"),
    "scratch batch": replace(QUICK, backbone="scratch", detector_norm="batch", size=48),
    "smaller": replace(QUICK, size=48, fill="black"),
}


@pytest.mark.parametrize("name", VARIANTS)
def test_saved_and_loaded_it_is_the_same(name: str, folders: Path, tmp_path: Path) -> None:
    base = tiny_cnn()
    weights = {n: t.clone() for n, t in base.module.state_dict().items()}
    state = torch.get_rng_state()
    made = VARIANTS[name].fit(base, load_samples(folders))
    assert torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(t, weights[n]) for n, t in base.module.state_dict().items())
    side = VARIANTS[name].size or 32
    pixels = torch.randn(3, 3, side, side, generator=torch.Generator().manual_seed(0))
    again = load(made.save(tmp_path / "model"), encoder=tiny_cnn())
    assert again.encoder.fingerprint == made.encoder.fingerprint
    assert again.encoder.transform.input_size == (side, side)
    assert torch.equal(again.probabilities(pixels), made.probabilities(pixels))
    assert again.where == "comet"
    before, after = (m.explain(picture("moss", 0)) for m in (made, again))
    assert after.to_json()["where"] == before.to_json()["where"]
    assert before.where.heat.shape == (side, side)
    network = made.network
    assert isinstance(network, COMETNetwork)
    assert any(n.startswith("trunk.") for n in network.tensors()) is (name != "post_hoc")
    assert 0 < made.measures["mean_mask_area"] < 1
    for key in ("held_out_accuracy", "accuracy_binarised", "complement_accuracy", "mask_alone_accuracy"):
        assert 0 <= made.measures[key] <= 1
    assert "the mask alone predicts the class" in made.trained_on


def test_another_fingerprint_with_other_weights(folders: Path) -> None:
    one, other = (replace(QUICK, seed=s).fit(tiny_cnn(), load_samples(folders)) for s in (0, 1))
    assert one.encoder.fingerprint != other.encoder.fingerprint != tiny_cnn().fingerprint


class Stopped(Progress):
    """Ends the program at a step of a training."""

    def __init__(self, training: int, step: int) -> None:
        super().__init__()
        self.training = training
        self.step = step

    def track(self, items: Iterable[Any], what: str, total: int | None = None) -> Iterator[Any]:
        self.training -= what == "Training"
        for i, item in enumerate(items):
            if what == "Training" and self.training == 0 and i == self.step:
                raise KeyboardInterrupt
            yield item


def test_a_stopped_fit_goes_on_to_the_same_weights(folders: Path, tmp_path: Path) -> None:
    recipe = replace(QUICK, backbone="scratch", n_steps=6)
    samples, checkpoint = load_samples(folders), tmp_path / "checkpoint"
    with pytest.raises(KeyboardInterrupt):
        recipe.fit(tiny_cnn(), samples, checkpoint=checkpoint, progress=Stopped(training=2, step=4))
    assert sorted(p.name for p in tmp_path.iterdir()) == ["checkpoint", "checkpoint.plain"]
    progress = Progress()
    rest = recipe.fit(tiny_cnn(), samples, checkpoint=checkpoint, progress=progress)
    assert progress.notes == [
        "all 6 steps were finished by an earlier run",
        "resuming at step 5",
    ]
    whole = recipe.fit(tiny_cnn(), samples)
    assert whole.network is not None
    assert rest.network is not None
    assert all(torch.equal(t, rest.network.tensors()[n]) for n, t in whole.network.tensors().items())
    assert [p.name for p in tmp_path.iterdir()] == ["checkpoint"]


def test_words_stay_with_a_trunk_that_stays(folders: Path) -> None:
    words = Descriptions({c: (f"{c} one", f"{c} two") for c in CLASSES[:3]})
    made = VARIANTS["post_hoc"].fit(tiny_cnn(), load_samples(folders), descriptions=words)
    assert made.explain(picture("moss", 0)).to_json()["words"]
    with pytest.raises(InputError) as caught:
        QUICK.fit(tiny_cnn(), load_samples(folders), descriptions=words)
    assert str(caught.value) == (
        "comet accepts descriptions only with mode='post_hoc' and backbone='encoder', got mode='2p' "
        "and backbone='encoder'. Set both, or leave the descriptions out."
    )


def test_without_held_out_pictures(folders: Path) -> None:
    made = replace(QUICK, held_out=0.0).fit(tiny_cnn(), load_samples(folders))
    assert made.measures["held_out_accuracy"] is None
    assert made.measures["temperature"] == 1.0
    assert made.held_out is None
    assert "held-out" not in made.trained_on


def test_what_cannot_be_is_refused() -> None:
    for setting, message in (
        (
            {"mode": "4p"},
            "`mode` of comet must be '2p', '3p' or 'post_hoc', got '4p'. Leave it out to use '2p'.",
        ),
        (
            {"tau": 1.5},
            "`tau` of comet must be a number from 0 to below 1, got 1.5. Leave it out to use 0.2.",
        ),
    ):
        with pytest.raises(InputError) as caught:
            COMET(**setting)
        assert str(caught.value) == message
    with pytest.raises(InputError) as caught:
        sized(tiny_tokens(), 48)
    assert str(caught.value) == (
        "`size` must be 32 for 'tiny', got 48. Leave `size` out, or use a convolutional encoder."
    )


def test_a_damaged_network_is_told(folders: Path, tmp_path: Path) -> None:
    made: Classifier = QUICK.fit(tiny_cnn(), load_samples(folders))
    folder = made.save(tmp_path / "model")
    card = json.loads((folder / "seewhy.json").read_text())
    card["network"]["selector"] = "lraspp"
    (folder / "seewhy.json").write_text(json.dumps(card))
    with pytest.raises(ModelError, match="is damaged"):
        load(folder, encoder=tiny_cnn())


class Green(nn.Module):
    """What a selector's sigmoid turns into the picture's own green, 0…1."""

    def forward(self, pixels: Tensor) -> Tensor:
        return (pixels[:, 1:2] * 0.25 + 0.5).logit()


# Label, how much redder than blue the left and the right half are, how much of each the mask shows.
WATCHED = [(0, (3, -1), (0.6, 0.1)), (1, (3, -1), (0.4, 0.6)), (0, (1, -3), (0.9, 0.2)), (1, (-1, 2), (0.4, 0.8))]


def test_every_view_of_a_picture_is_judged_by_the_player_that_is_meant(tmp_path: Path) -> None:
    """The predictor says 0 of red, the judge 0 of blue, and the game's detector 1 of everything."""
    for i, (_, redder, shown) in enumerate(WATCHED):
        pixels = np.full((32, 32, 3), 128, np.uint8)
        for half, (red, part) in zip((slice(16), slice(16, 32)), zip(redder, shown, strict=True), strict=True):
            pixels[:, half] = 128 + 16 * red, round(255 * part), 128 - 16 * red
        Image.fromarray(pixels).save(tmp_path / f"{i}.png")
    encoder = colour_reader()
    predictor, judge, detector = (predictor_of(encoder, Pretrained().build(encoder).head) for _ in range(3))
    judge.weight.data.neg_()
    detector.weight.data.zero_()
    detector.bias.data = torch.tensor([0.0, 1.0])
    game = Playing(Selector(Green()), predictor, detector, "2p", COMET().objective, Hide("mean", TRANSFORM))
    items = [Sample(str(tmp_path / f"{i}.png"), str(k)) for i, (k, _, _) in enumerate(WATCHED)]
    labels = torch.tensor([k for k, _, _ in WATCHED])
    pictures = EncodedSet(items, (), ("0", "1"), labels, torch.tensor([False, True, False, True]))
    found = watch(game, judge, encoder, pictures, Progress())
    order = found.area.argsort()
    assert found.area[order].tolist() == pytest.approx([0.35, 0.5, 0.55, 0.6], abs=0.002)
    assert torch.equal(found.labels[order], labels)
    assert torch.equal(found.held[order], pictures.held)
    # In brackets the sum of redder times shown over the halves.
    assert {name: hits[order].tolist() for name, hits in found.right.items()} == {
        "mask": [True, False, True, False],  # [1.7, 0.6, 0.3, 1.2], and the predictor says 0, 0, 0, 0
        "binarised mask": [True, True, True, False],  # [3, -1, 1, 2]
        "another picture's mask": [True, False, False, True],  # of the other class: [0.4 or more, 1.7, -1.4, -0.4]
        "whole picture": [False, True, True, True],  # [2, 2, -2, 1], and the judge says 1, 1, 0, 1
        "rest": [False, True, True, False],  # [0.3, 1.4, -2.3, -0.2]
        "binarised rest": [True, True, True, False],  # [-1, 3, -3, -1]
    }
    # Two logits, red less blue and the other way round; a step of 16 of 255 each way is half a deviation in all.
    lead = torch.tensor([1.7, 0.6, 0.3, 1.2]) / 2 * 32 / 255 / 0.25
    torch.testing.assert_close(found.shown[order], torch.stack([lead, -lead], 1), atol=0.01, rtol=0)
    assert found.pooled.shape == (4, 3)
