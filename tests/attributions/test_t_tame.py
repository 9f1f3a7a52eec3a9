"""T-TAME, TAME and L-CAM on a model that reads one patch; where they are kept, and what they refuse."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from typer.testing import CliRunner

from seewhy.attributions.explainers import AttentionMechanism, FitTTAME, load_explainer, masked, variation
from seewhy.attributions.layers import LAST, find_layers, layer_maps
from seewhy.attributions.t_tame import TTAME
from seewhy.classifiers.base import Classifier
from seewhy.classifiers.unfitted import Pretrained
from seewhy.cli import app
from seewhy.encoders.base import Encoder
from seewhy.errors import InputError, ModelError, WeightsError
from seewhy.heads.head import Target
from seewhy.progress import Progress
from seewhy.training.loop import Training
from tiny import SIDE, class_folders, colour_reader, noise, picture, tiny_cnn, tiny_tokens

RED, BLUE, GREY = (255, 128, 0), (0, 128, 255), (128, 128, 128)
HOW = Training(150, 8, lr=0.02)


def planted(seed: int) -> tuple[np.ndarray, tuple[int, int], int]:
    """A noisy grey picture with one coloured square: pixels, the square's cell, its class."""
    rng = np.random.default_rng(seed)
    pixels = np.clip(rng.normal(128, 3, (SIDE, SIDE, 1)) + np.zeros(3), 0, 255).astype(np.uint8)
    row, column, label = *rng.integers(0, 7, 2).tolist(), int(rng.integers(2))
    pixels[4 * row : 4 * row + 8, 4 * column : 4 * column + 8] = (RED, BLUE)[label]
    return pixels, (row, column), label


@pytest.fixture(scope="module")
def reader() -> Classifier:
    """Reads colours, and is sure of them: a square is a sixteenth of the picture."""
    encoder = colour_reader()
    encoder.classifier.weight.data *= 10
    return Pretrained().build(encoder)


@pytest.mark.parametrize("variant", ["t_tame", "tame", "l_cam"])
def test_the_map_lands_on_the_only_patch_that_is_read(reader: Classifier, variant: str) -> None:
    pictures = [planted(i)[0] for i in range(60)]
    explainer = FitTTAME(variant=variant).fit(reader, pictures, HOW)
    assert explainer.trained["final"]["loss"] < explainer.trained["first"]["loss"]
    inside, at_random = [], []
    rng = torch.Generator().manual_seed(0)
    for seed in range(1000, 1012):
        pixels, (row, column), label = planted(seed)
        look = reader.encoder.encode(reader.encoder.pixels([pixels]))
        heat = TTAME(explainer=explainer)(reader, look, Target(torch.tensor([label])))[0]
        assert heat.shape == (8, 8)
        assert heat.min() == 0
        assert heat.max() == pytest.approx(1)
        hot = torch.zeros(8, 8, dtype=torch.bool)
        hot[row : row + 2, column : column + 2] = True
        assert hot.flatten()[heat.argmax()]
        inside.append(float(heat[hot].sum() / heat.sum()))
        noisy = torch.rand(8, 8, generator=rng)
        at_random.append(float(noisy[hot].sum() / noisy.sum()))
    assert min(inside) > 2 * max(at_random)


def explained(encoder: Encoder, variant: str = "t_tame") -> tuple[Classifier, TTAME]:
    model = Pretrained().build(encoder)
    pictures = [picture(label, i) for label in ("moss", "rust", "sky") for i in range(3)]
    return model, TTAME(explainer=FitTTAME(variant=variant).fit(model, pictures, Training(4, 4)))


@pytest.mark.parametrize("make", [tiny_cnn, tiny_tokens])
@pytest.mark.parametrize("variant", ["t_tame", "tame", "l_cam"])
def test_the_contract_of_every_attribution(make: type, variant: str) -> None:
    model, method = explained(make(), variant)
    look = model.encoder.encode(noise(3))
    before = {k: v.clone() for k, v in model.encoder.module.state_dict().items()}
    random = torch.get_rng_state()
    for target in (
        Target(torch.tensor([0, 3, 1])),
        Target(torch.tensor([0, 3, 1]), torch.tensor([2, 2, 0])),
    ):
        whole = method(model, look, target)
        assert whole.shape == (3, *model.encoder.layout.to_grid(look.features).shape[2:])
        assert torch.equal(whole, method(model, look, target))
        for i in range(3):
            against = None if target.against is None else target.against[i : i + 1]
            one = method(model, look[i : i + 1], Target(target.index[i : i + 1], against))
            torch.testing.assert_close(one[0], whole[i], atol=1e-5, rtol=1e-4)
    for name, value in model.encoder.module.state_dict().items():
        assert torch.equal(value, before[name])
    assert all(p.grad is None for p in model.encoder.module.parameters())
    assert not any(len(m._forward_hooks) for m in model.encoder.module.modules())
    assert torch.equal(torch.get_rng_state(), random)


def test_training_leaves_the_model_as_it_was_even_where_it_could_learn() -> None:
    encoder = tiny_cnn()
    encoder.module.requires_grad_(True)
    before = {k: v.clone() for k, v in encoder.module.state_dict().items()}
    explained(encoder)
    assert all(torch.equal(v, before[k]) for k, v in encoder.module.state_dict().items())
    assert all(p.grad is None and p.requires_grad for p in encoder.module.parameters())


def test_the_mechanism_is_its_formula() -> None:
    torch.manual_seed(0)
    mechanism = AttentionMechanism([4, 6], 5).eval()
    maps = [torch.randn(2, 4, 8, 8), torch.randn(2, 6, 3, 3)]
    parts = [
        torch.nn.functional.interpolate((norm(mix(m)) + m).relu(), size=(8, 8), mode="bilinear")
        for m, mix, norm in zip(maps, mechanism.mixes, mechanism.norms, strict=True)
    ]
    plain = mechanism.last(torch.cat(parts, 1))
    torch.testing.assert_close(mechanism(maps, torch.tensor([3, 0])), plain[:, [3, 0]], atol=1e-5, rtol=1e-4)


def test_variation_and_mask_are_their_formulas() -> None:
    ramp = torch.arange(3.0).expand(3, 3)[None, None]
    assert variation(ramp) == pytest.approx((6 + 0.3 * (5 + 5 + 0 + 12)) / 2)
    pixels = noise(1)
    mean, std = (0.5, 0.5, 0.5), (0.25, 0.25, 0.25)
    assert torch.equal(masked(pixels, torch.ones(1, 2, 2), "mean", mean, std), pixels)
    assert (masked(pixels, torch.zeros(1, 2, 2), "mean", mean, std) == 0).all()
    assert (masked(pixels, torch.zeros(1, 2, 2), "black", mean, std) == -2).all()


def test_layers_are_found_and_a_pass_ends_at_the_last_inner_one() -> None:
    encoder = tiny_cnn()
    assert find_layers(encoder) == ("1", "2", LAST)
    assert find_layers(encoder, 1) == (LAST,)
    assert find_layers(colour_reader()) == (LAST,)
    pixels = noise(20)
    maps, features = layer_maps(encoder, pixels, ("0", "1", LAST))
    trunk = encoder.trunk
    torch.testing.assert_close(maps[0], trunk[0](pixels))
    torch.testing.assert_close(maps[1], trunk[0](pixels).relu())
    torch.testing.assert_close(maps[2], trunk(pixels))
    assert maps[2] is features
    again, same = layer_maps(encoder, pixels, ("0", LAST), torch.zeros(20, 8, 8, 8))
    torch.testing.assert_close(again[0], maps[0])
    assert not same.any()


def test_stages_of_real_networks_are_found() -> None:
    import timm
    from torchvision.models import resnet18

    import seewhy

    half = (0.5, 0.5, 0.5)
    transform = seewhy.Transform((64, 64), 64, "bicubic", half, half)
    made = [(resnet18(weights=None), ("layer2", "layer3", LAST))]
    vit = timm.create_model("vit_tiny_patch16_224", img_size=64, depth=5, pretrained=False)
    made.append((vit, ("blocks.1", "blocks.2", LAST)))
    made.append((timm.create_model("convnext_atto", pretrained=False), ("stages.1", "stages.2", LAST)))
    for network, layers in made:
        assert find_layers(seewhy.from_module(network.eval(), transform=transform, engine="torch")) == layers


def test_kept_beside_the_classifier_and_found_again(tmp_path: Path, reader: Classifier) -> None:
    reader.save(tmp_path / "model")
    from seewhy.classifiers.saving import load

    model = load(tmp_path / "model", encoder=reader.encoder)
    pictures = [planted(i)[0] for i in range(8)]
    explainer = FitTTAME().fit(model, pictures, Training(3, 4))
    path = explainer.save(tmp_path / "model" / "explainers")
    assert path == tmp_path / "model" / "explainers" / "t_tame.safetensors"
    card = json.loads(path.with_suffix(".json").read_text())
    assert (card["variant"], card["layers"], card["fill"]) == ("t_tame", [LAST], "black")
    look = model.encoder.encode(noise(2))
    target = Target(torch.tensor([0, 1]))
    wanted = TTAME(explainer=explainer)(model, look, target)
    random = torch.get_rng_state()
    assert torch.equal(TTAME()(model, look, target), wanted)
    assert torch.equal(torch.get_rng_state(), random)
    for place in (path, path.parent, tmp_path / "model"):
        assert torch.equal(TTAME(explainer=str(place))(reader, look, target), wanted)
    why = model.explain(planted(3)[0], where="t_tame")
    assert why.where.method == "t_tame"
    path.write_bytes(path.read_bytes()[:-9])
    with pytest.raises(WeightsError, match=r"is damaged or no explainer .* Train it again\."):
        TTAME()(model, look, target)
    with pytest.raises(ModelError, match=r"There is no explainer"):
        load_explainer(tmp_path / "nothing")


def test_a_stopped_fit_goes_on_to_the_same_weights(tmp_path: Path, reader: Classifier) -> None:
    class Stopping(Progress):
        def track(self, items, what, total=None):  # type: ignore[no-untyped-def]
            for i, item in enumerate(items):
                if i == 7:
                    raise KeyboardInterrupt
                yield item

    pictures = [planted(i)[0] for i in range(12)]
    how, kept = Training(12, 4, checkpoint_every=3), tmp_path / "checkpoint"
    straight = FitTTAME().fit(reader, pictures, how)
    with pytest.raises(KeyboardInterrupt):
        FitTTAME().fit(reader, pictures, how, checkpoint=kept, progress=Stopping())
    progress = Progress()
    again = FitTTAME().fit(reader, pictures, how, checkpoint=kept, progress=progress)
    assert progress.notes[-1] == "resuming at step 8"
    for name, value in straight.mechanism.state_dict().items():
        assert torch.equal(value, again.mechanism.state_dict()[name]), name


def test_what_it_refuses(tmp_path: Path, reader: Classifier) -> None:
    look, target = reader.encoder.encode(noise(1)), Target(torch.tensor([0]))
    for model, method, message in (
        (
            reader,
            TTAME(),
            "t_tame needs a trained explainer, but this classifier has no folder. Train one with: "
            "seewhy fit --task explainer PICTURES --method t_tame -o FOLDER, and pass --set explainer=FOLDER",
        ),
        (
            replace(reader, folder=Path("birds")),
            TTAME(variant="tame"),
            "tame needs a trained explainer, but birds has none. Train one with: seewhy fit --task explainer PICTURES "
            "--method tame -m birds",
        ),
    ):
        with pytest.raises(InputError) as caught:
            method(model, look, target)
        assert str(caught.value) == message
    explainer = FitTTAME().fit(reader, [planted(0)[0], planted(1)[0]], Training(1, 2))
    path = explainer.save(tmp_path)
    other = Pretrained().build(tiny_cnn())
    with pytest.raises(InputError) as caught:
        TTAME(explainer=str(path))(other, other.encoder.encode(noise(1)), target)
    assert str(caught.value) == (
        f"{path} was trained for another classifier. Train it again with: seewhy fit --task explainer PICTURES "
        "--method t_tame"
    )
    with pytest.raises(InputError, match="The target of t_tame must be a class"):
        TTAME(explainer=explainer)(reader, look, lambda logits: logits.logsumexp(1))
    with pytest.raises(InputError, match=r"`variant` must be .*, got 'lcam'\."):
        FitTTAME(variant="lcam")
    with pytest.raises(InputError, match=r"`layers` must name one layer for l_cam, got 2 layers\."):
        FitTTAME(variant="l_cam", layers=("0", "1"))


def test_broken_pictures_are_named_and_left_out(tmp_path: Path, reader: Classifier) -> None:
    for i in range(5):
        Image.fromarray(planted(i)[0]).save(tmp_path / f"{i}.png")
    (tmp_path / "broken.png").write_bytes(b"\x89PNG")
    progress = Progress()
    names = sorted(str(p) for p in tmp_path.iterdir())
    FitTTAME().fit(reader, names, Training(6, 3), progress=progress)
    assert [f.image for f in progress.failures] == [str(tmp_path / "broken.png")]


def test_through_the_command_line(tmp_path: Path) -> None:
    folders = class_folders(tmp_path / "photos", n=2)
    run = CliRunner()
    model = str(tmp_path / "model")
    done = run.invoke(app, ["fit", str(folders), "-o", model, "--set", "n_crops=0", "--engine", "torch", "-q"])
    assert done.exit_code == 0, done.output
    fit = [
        "fit",
        str(folders),
        "--task",
        "explainer",
        "-m",
        model,
        "--engine",
        "torch",
        "--set",
        "steps=2",
        "--set",
        "batch_size=2",
    ]
    done = run.invoke(app, [*fit, "--set", "size=64", "--json", "-q"], catch_exceptions=False)
    assert done.exit_code == 0, done.output
    row = json.loads(done.stdout)
    assert row["layers"] == ["blocks.2", "blocks.4", "last"]
    assert Path(row["explainer"]) == tmp_path / "model" / "explainers" / "t_tame.safetensors"
    assert sorted(p.name for p in Path(row["explainer"]).parent.iterdir()) == ["t_tame.json", "t_tame.safetensors"]
    one = str(next(folders.rglob("*.png")))
    explain = ["explain", one, "-m", model, "--engine", "torch", "--no-measure", "--json", "-q"]
    for extra in ([], ["--set", f"explainer={row['explainer']}"]):
        out = str(tmp_path / f"why{len(extra)}")
        done = run.invoke(app, [*explain, "--where", "t_tame", "-o", out, *extra], catch_exceptions=False)
        assert done.exit_code == 0, done.output
        heat = np.array(json.loads(done.stdout)["where"]["heat"])
        assert heat.shape == (28, 28)
        assert heat.max() == pytest.approx(1, abs=1e-3)
    with pytest.raises(InputError) as caught:
        run.invoke(app, [*explain, "--where", "grad_cam", "--set", "explainer=there"], catch_exceptions=False)
    assert str(caught.value) == "grad_cam takes no explainer, got 'there'. Remove it, or use t_tame."
    with pytest.raises(InputError) as caught:
        run.invoke(app, ["fit", str(folders), "--task", "explainer", "--set", "steps=1"], catch_exceptions=False)
    assert str(caught.value) == (
        "An output folder is required, because the classifier was not loaded from a folder. Give one with -o."
    )
