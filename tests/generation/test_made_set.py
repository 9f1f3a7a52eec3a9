"""A set of made pictures: every one by its seed again, resumable, nobody's files touched; pipelines of diffusers."""

from __future__ import annotations

import json
import shutil
import sys
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from generator_training import FitGenerator
from seewhy.errors import DataError, ForeignFileError, InputError, ModelError, WeightsError
from seewhy.generation.sampler import PPGN
from seewhy.pictures.samples import load_pictures, load_samples
from tiny import class_folders, tiny_cnn

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "reproductions"))

from make_pictures import TABLE, MadeSet, OfGenerator, load_pipeline, main


@dataclass
class Noise:
    """Pictures of a seed's noise; stops after so many."""

    name: str = "noise"
    fingerprint: str = "one"
    left: int = 100

    def refusal(self, classes: tuple[str, ...]) -> str | None:
        return None if classes else "noise has to be told"

    def picture(self, label: str | None, prompt: str, seed: int) -> np.ndarray:
        self.left -= 1
        if self.left < 0:
            raise KeyboardInterrupt
        return np.random.default_rng([seed, len(prompt)]).integers(0, 256, (4, 4, 3)).astype(np.uint8)


SET = MadeSet(("sea gull", "cat"), 3)


def contents(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def test_every_picture_has_its_seed_and_is_made_again_by_it(tmp_path: Path) -> None:
    told = SET.make(Noise(), tmp_path / "out")
    rows = [json.loads(line) for line in (tmp_path / "out" / TABLE).read_text().splitlines()]
    assert [(r["image"], r["label"], r["prompt"]) for r in rows[:2]] == [
        ("sea_gull/000000.png", "sea gull", "a photograph of a sea gull"),
        ("cat/000000.png", "cat", "a photograph of a cat"),
    ]
    assert (told["n"], told["n_new"], len({r["seed"] for r in rows})) == (6, 6, 6)
    for row in rows:
        again = Noise().picture(row["label"], row["prompt"], row["seed"])
        assert np.array_equal(np.asarray(Image.open(tmp_path / "out" / row["image"])), again)
    table = load_samples(tmp_path / "out" / TABLE).labelled()
    assert (len(table.items), table.classes) == (6, ("cat", "sea gull"))


def test_a_stopped_set_goes_on_to_the_same_and_more_changes_none(tmp_path: Path) -> None:
    SET.make(Noise(), tmp_path / "whole")
    with pytest.raises(KeyboardInterrupt):
        SET.make(Noise(left=4), tmp_path / "out")
    first = contents(tmp_path / "out")
    assert len(first) == 5
    path = tmp_path / "out" / TABLE
    path.write_bytes(path.read_bytes()[:-30])  # killed within a line: that picture is made once more
    assert SET.make(Noise(left=3), tmp_path / "out")["n_new"] == 3
    assert contents(tmp_path / "out") == contents(tmp_path / "whole")
    assert SET.make(Noise(left=0), tmp_path / "out")["n_new"] == 0
    replace(SET, classes=("dog", *SET.classes), count=4).make(Noise(), tmp_path / "out")
    after = contents(tmp_path / "out")
    assert all(after[k] == v for k, v in first.items() if k != TABLE)
    assert len(after) == 12 + 1
    other = replace(SET, seed=1)
    assert {r["seed"] for r in other.rows("one")}.isdisjoint(r["seed"] for r in SET.rows("one"))


def test_a_lost_picture_is_made_again_and_another_one_is_told(tmp_path: Path) -> None:
    SET.make(Noise(), tmp_path)
    before = contents(tmp_path)
    (tmp_path / "cat" / "000001.png").unlink()
    told = SET.make(Noise(), tmp_path)
    assert (told["n_new"], told["notes"], contents(tmp_path)) == (1, [], before)
    (tmp_path / "cat" / "000001.png").unlink()

    class Other(Noise):
        def picture(self, label: str | None, prompt: str, seed: int) -> np.ndarray:
            return 255 - super().picture(label, prompt, seed)

    assert SET.make(Other(), tmp_path)["notes"] == [
        "cat/000001.png was made again and is another picture: libraries may have changed"
    ]


@pytest.mark.parametrize("changed", [{"prompt": "a {}"}, {"seed": 5}, {"generator": "two"}])
def test_pictures_made_otherwise_are_not_gone_on_with(changed: dict[str, Any], tmp_path: Path) -> None:
    SET.make(Noise(), tmp_path)
    before = contents(tmp_path)
    source = Noise(fingerprint=changed.pop("generator", "one"))
    with pytest.raises(DataError, match=r"holds pictures that were made otherwise: sea_gull/000000.png by generator"):
        replace(SET, **changed).make(source, tmp_path)
    assert contents(tmp_path) == before


def test_nothing_of_somebody_else_is_touched(tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "a.txt").write_text("a")
    with pytest.raises(ForeignFileError, match=r"mine is not empty and holds no pictures.jsonl"):
        SET.make(Noise(left=0), tmp_path / "mine")
    (tmp_path / "mine" / TABLE).write_text('{"image": "mine"}\n')
    with pytest.raises(ForeignFileError, match="was not written by this command"):
        SET.make(Noise(left=0), tmp_path / "mine")
    out = tmp_path / "out"
    SET.make(Noise(), out)
    Image.new("RGB", (4, 4)).save(out / "cat" / "000001.png")
    with pytest.raises(ForeignFileError, match=r"cat/000001.png is no longer the picture that was made"):
        SET.make(Noise(left=0), out)
    (out / "cat" / "000001.png").unlink()
    Image.new("RGB", (4, 4)).save(out / "cat" / "000003.png")
    with pytest.raises(ForeignFileError, match=r"cat/000003.png exists, and either SeeWhy did not write it"):
        replace(SET, count=4).make(Noise(left=0), out)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"classes": ("a", "A!")}, "10 pictures of each of 'a', 'A!' were asked for"),
        ({"classes": ("..",)}, "10 pictures of each of '..'"),
        ({"classes": ("a",), "count": 0}, "0 pictures of each of 'a'"),
        ({"classes": ("a",), "prompt": "a cat"}, "The prompt is 'a cat'. Expected a sentence with {}"),
    ],
)
def test_what_cannot_be_made_is_refused(given: dict[str, Any], said: str) -> None:
    with pytest.raises(InputError) as caught:
        MadeSet(**given)
    assert str(caught.value).startswith(said)


def test_classes_that_mean_nothing_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"^No class was named, and noise has to be told\. Name some\.$"):
        MadeSet().make(Noise(), tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.fixture(scope="module")
def own(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A generator of our own, and a classifier of the same encoder."""
    from seewhy.classifiers.linear.recipe import Linear

    folder, on = class_folders(tmp_path_factory.mktemp("own") / "all", 8), tiny_cnn()
    fit = FitGenerator(side=16, reads=16, width=4, hidden=16, n_steps=20, batch_size=8)
    made = fit.fit(on, load_pictures(folder).items)
    return made, Linear(n_crops=0, n_bank=1, split="random").fit(on, load_samples(folder).labelled())


def test_a_generator_of_our_own_climbs_the_class(own: Any, tmp_path: Path) -> None:
    generator, classifier = own
    source = OfGenerator(generator, classifier, PPGN(n_steps=15))
    label = classifier.classes[0]
    made = MadeSet((label,), 4)
    made.make(source, tmp_path / "out")
    pictures = [np.asarray(Image.open(tmp_path / "out" / row["image"])) for row in made.rows("")]
    assert pictures[0].shape == (16, 16, 3)
    assert len({one.tobytes() for one in pictures}) == 4
    free = OfGenerator(generator, None, PPGN(n_steps=15))
    rows = MadeSet(count=4).make(free, tmp_path / "free")["pictures"]
    assert rows[0]["image"] == "made/000000.png"
    others = [np.asarray(Image.open(tmp_path / "free" / row["image"])) for row in rows]
    scores = [classifier.predict_proba(list(some))[:, 0].mean() for some in (pictures, others)]
    assert scores[0] > scores[1]
    prints = {one.fingerprint for one in (source, free, replace(source, sampler=PPGN(n_steps=16)))}
    assert len(prints) == 3
    told = [row["seed"] for row in MadeSet((label,), 1).make(free, tmp_path / "words")["pictures"]]
    assert told == [next(made.rows(""))["seed"]], "by the words of the encoder itself"
    with pytest.raises(DataError, match="There is no class 'emu'"):
        MadeSet(("emu",)).make(source, tmp_path / "no")


def test_a_folder_of_somebody_else_is_left_by_the_script(own: Any, tmp_path: Path) -> None:
    own[0].save(tmp_path / "gen")
    with pytest.raises(ModelError, match="never loads an encoder only because a file names it"):
        main([str(tmp_path / "o"), "--generator", str(tmp_path / "gen")])
    assert not (tmp_path / "o").exists()


@pytest.fixture(scope="module")
def pipelines(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Random ones: ``ddpm``, which reads no words, and ``sd``, which does."""
    diffusers = pytest.importorskip("diffusers", reason="the extra 'diffusion' is not installed")
    transformers = pytest.importorskip("transformers", reason="the extra 'huggingface' is not installed")
    folder = tmp_path_factory.mktemp("pipelines")
    block = {"block_out_channels": (8, 8), "layers_per_block": 1, "norm_num_groups": 4}
    unet = diffusers.UNet2DModel(
        sample_size=8, down_block_types=("DownBlock2D",) * 2, up_block_types=("UpBlock2D",) * 2, **block
    )
    diffusers.DDPMPipeline(unet, diffusers.DDPMScheduler(num_train_timesteps=4)).save_pretrained(folder / "ddpm")
    letters = [chr(c) for c in range(97, 123)]
    vocabulary = [*letters, *(f"{c}</w>" for c in letters), "<|startoftext|>", "<|endoftext|>"]
    (folder / "vocab.json").write_text(json.dumps({w: i for i, w in enumerate(vocabulary)}))
    (folder / "merges.txt").write_text("#version: 0.2\n")
    text = transformers.CLIPTextConfig(
        vocab_size=len(vocabulary), hidden_size=8, intermediate_size=8, num_hidden_layers=1, num_attention_heads=2,
        max_position_embeddings=40, bos_token_id=52, eos_token_id=53, pad_token_id=53,
    )  # fmt: skip
    down, up = ("CrossAttnDownBlock2D", "DownBlock2D"), ("UpBlock2D", "CrossAttnUpBlock2D")
    diffusers.StableDiffusionPipeline(
        vae=diffusers.AutoencoderKL(
            down_block_types=("DownEncoderBlock2D",) * 2, up_block_types=("UpDecoderBlock2D",) * 2, **block
        ),
        text_encoder=transformers.CLIPTextModel(text),
        tokenizer=transformers.CLIPTokenizer(
            str(folder / "vocab.json"), str(folder / "merges.txt"), model_max_length=40
        ),
        unet=diffusers.UNet2DConditionModel(
            sample_size=8,
            down_block_types=down,
            up_block_types=up,
            cross_attention_dim=8,
            attention_head_dim=4,
            **block,
        ),
        scheduler=diffusers.DDIMScheduler(num_train_timesteps=10, steps_offset=1, clip_sample=False),
        safety_checker=None, feature_extractor=None, requires_safety_checker=False,
    ).save_pretrained(folder / "sd")  # fmt: skip
    return folder


@pytest.mark.slow  # diffusers takes its time to be imported
def test_any_pipeline_makes_the_picture_of_a_prompt_and_a_seed(
    pipelines: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    words = [str(tmp_path / "out"), "--generator", str(pipelines / "sd")]
    words += ["--classes", "cat, sea gull", "--count", "2", "--steps", "2"]
    told = main(words)
    assert (told["generator"], told["n_new"]) == ("StableDiffusionPipeline", 4)
    loaded = load_pipeline(pipelines / "sd", steps=2)
    assert capfd.readouterr().err == ""
    for row in told["pictures"]:
        again = loaded.picture(row["label"], row["prompt"], row["seed"])
        assert np.array_equal(np.asarray(Image.open(tmp_path / "out" / row["image"])), again)
    row = told["pictures"][0]
    assert not np.array_equal(again, loaded.picture("cat", row["prompt"], row["seed"]))
    other = loaded.picture("cat", "dog", row["seed"])
    assert not np.array_equal(other, loaded.picture("cat", "cat", row["seed"]))
    assert main(words)["n_new"] == 0
    assert load_pipeline(pipelines / "sd", steps=3).fingerprint != loaded.fingerprint
    with pytest.raises(InputError, match=r"No class was named, and StableDiffusionPipeline has to be told"):
        MadeSet().make(loaded, tmp_path / "no")
    plain = load_pipeline(pipelines / "ddpm", steps=2)
    assert MadeSet(count=1).make(plain, tmp_path / "plain")["n_new"] == 1
    with pytest.raises(InputError, match=r"1 class\(es\) were named, and DDPMPipeline reads no words"):
        MadeSet(("cat",)).make(plain, tmp_path / "no")
    with pytest.raises(InputError, match=r"^DDPMPipeline was given guidance_scale=2\."):
        load_pipeline(pipelines / "ddpm", guidance=2.0)


@pytest.mark.slow
def test_a_pipelines_folder_runs_nothing_and_chooses_nothing(pipelines: Path, tmp_path: Path) -> None:
    def changed(change: Any) -> Path:
        folder = tmp_path / f"{len(list(tmp_path.iterdir()))}"
        shutil.copytree(pipelines / "ddpm", folder)
        index = json.loads((folder / "model_index.json").read_text())
        change(folder, index)
        (folder / "model_index.json").write_text(json.dumps(index))
        return folder

    def pickled(folder: Path, index: Any) -> None:
        (folder / "unet" / "diffusion_pytorch_model.safetensors").unlink()
        (folder / "unet" / "diffusion_pytorch_model.bin").write_bytes(b"x")

    ran = tmp_path / "ran"
    wrong: list[tuple[Any, type[Exception], str]] = [
        (lambda f, i: i.update(unet=["evil", "Evil"]), ModelError, r"says that its unet is \['evil', 'Evil'\]"),
        (lambda f, i: i.update(unet=["os", "system"]), ModelError, "a file must not choose what else is loaded"),
        (lambda f, i: i.update(_class_name="UNet2DModel"), ModelError, "UNet2DModel is no pipeline"),
        (lambda f, i: i.update(_class_name="Emu"), ModelError, "names a pipeline of diffusers"),
        (lambda f, i: (f / "unet" / "a.py").write_text(f"open({str(ran)!r}, 'w')"), ModelError, "brings its own code"),
        (pickled, WeightsError, r"diffusion_pytorch_model.bin of .* is a pickle"),
        (lambda f, i: (f / "unet" / "config.json").write_text("{"), ModelError, "it is not valid JSON"),
    ]  # fmt: skip
    for change, error, said in wrong:
        with pytest.raises(error, match=said):
            load_pipeline(changed(change))
    assert not ran.exists()
    with pytest.raises(ModelError, match=r"has no model_index\.json"):
        load_pipeline(tmp_path)
