"""A tiny LLaVA with random weights: its last token under an instruction, against transformers itself; refusals."""

from __future__ import annotations

import builtins
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

import seewhy
from seewhy.encoders.base import Layout
from seewhy.encoders.multimodal import load
from seewhy.encoders.split import example_pixels
from seewhy.errors import InputError, MissingExtraError, ModelError, WeightsError

transformers = pytest.importorskip("transformers")

WORDS = ("<pad>", "<s>", "<image>", "USER", ":", "ASSISTANT", "the", "colour", "shape")
PIXELS = example_pixels((32, 32), batch=3, seed=4)
TINY = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 48}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return saved(tmp_path_factory.mktemp("llava"))


def saved(folder: Path, **more: Any) -> Path:
    """As ``save_pretrained`` writes it, all halves of it."""
    from tokenizers import Tokenizer, models, pre_tokenizers, processors

    vision = transformers.CLIPVisionConfig(**TINY, image_size=32, patch_size=8)
    text = transformers.LlamaConfig(**TINY, vocab_size=len(WORDS), max_position_embeddings=40, pad_token_id=0)
    config = transformers.LlavaConfig(vision_config=vision, text_config=text, image_token_index=2, image_seq_length=16)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = transformers.LlavaForConditionalGeneration(config).eval()
        for p in model.parameters():
            p.data += 0.1 * torch.randn_like(p)
    model.save_pretrained(folder, **more)
    transformers.CLIPImageProcessor(size={"shortest_edge": 32}, crop_size={"height": 32, "width": 32}).save_pretrained(
        folder
    )
    raw = Tokenizer(models.WordLevel({w: i for i, w in enumerate(WORDS)}, unk_token="<pad>"))
    raw.pre_tokenizer = pre_tokenizers.Whitespace()
    raw.post_processor = processors.TemplateProcessing("<s> $A", special_tokens=[("<s>", 1)])
    fast = transformers.PreTrainedTokenizerFast(tokenizer_object=raw, pad_token="<pad>", bos_token="<s>")
    fast.add_special_tokens({"additional_special_tokens": ["<image>"]})
    fast.save_pretrained(folder)
    return folder


def by_transformers(folder: Path, words: list[int]) -> Tensor:
    """``<s> USER : <image> WORDS ASSISTANT :``, sixteen marks for the picture."""
    model = transformers.LlavaForConditionalGeneration.from_pretrained(folder)
    ids = torch.tensor([[1, 3, 4, *[2] * 16, *words, 5, 4]]).expand(3, -1)
    with torch.no_grad():
        out = model(input_ids=ids, pixel_values=PIXELS, output_hidden_states=True)
    state: Tensor = out.hidden_states[-1][:, -1]
    return state


def test_the_last_token_under_an_instruction_is_transformers_own(folder: Path) -> None:
    encoder = seewhy.encoder(f"mllm:{folder}")
    look = encoder.encode(PIXELS)
    colour, shape = (encoder.encode(PIXELS, condition=words) for words in ("the colour", "the shape"))
    torch.testing.assert_close(look.pooled, by_transformers(folder, []), atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(colour.pooled, by_transformers(folder, [6, 7]), atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(shape.pooled, by_transformers(folder, [6, 8]), atol=1e-5, rtol=1e-5)
    assert torch.equal(colour.features, look.features), "a picture is looked at once"
    assert float((colour.pooled - shape.pooled).abs().max()) > 1e-3
    assert encoder.layout == Layout("tokens", (4, 4), 0)
    assert not encoder.has_text


def test_under_an_instruction_it_is_an_encoder_like_any_other(folder: Path) -> None:
    name = f"mllm:{folder}"
    encoder = seewhy.encoder(name)
    colour, shape = encoder.under("the colour"), seewhy.encoder(f"{name}#the shape")
    assert (colour.name, shape.name) == (f"{name}#the colour", f"{name}#the shape")
    assert len({encoder.fingerprint, colour.fingerprint, shape.fingerprint}) == 3
    assert colour.fingerprint == seewhy.encoder(f"{name}#the colour").fingerprint
    assert seewhy.encoder(name, prompt="{picture} {instruction}").fingerprint != encoder.fingerprint
    assert colour.engine is encoder.engine
    features = colour.encode(PIXELS).features.requires_grad_()
    slope = torch.autograd.grad(colour.head(features).sum(), features)[0]
    assert bool((slope.abs().sum(2) > 0).all()), "maps of what an instruction asks need a gradient in every cell"
    with pytest.raises(InputError, match="takes no instruction, got"):
        colour.under("the shape")


def test_what_is_no_instruction_or_prompt_is_refused(folder: Path) -> None:
    encoder = load(str(folder))
    with pytest.raises(InputError, match="got an empty text"):
        encoder.encode(PIXELS, condition=" ")
    with pytest.raises(InputError) as caught:
        encoder.encode(PIXELS, condition="the <image>")
    assert str(caught.value) == (
        "The instruction must not contain <image>, the token of the picture, got 'the <image>'."
    )
    with pytest.raises(InputError) as caught:
        encoder.under("the " * 40)
    assert str(caught.value) == (
        "Instruction, prompt and picture must have at most 40 tokens, got 61. Shorten the instruction."
    )
    with pytest.raises(InputError, match=r"^`prompt` must have .* got 'x \{picture\}'"):
        load(str(folder), prompt="x {picture}")


def test_without_the_extra_it_says_which(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = builtins.__import__

    def none(name: str, *args: Any, **keywords: Any) -> Any:
        if name == "transformers":
            raise ImportError(name)
        return real(name, *args, **keywords)

    monkeypatch.setattr(builtins, "__import__", none)
    with pytest.raises(MissingExtraError) as caught:
        seewhy.encoder(f"mllm:{folder}")
    assert str(caught.value) == (
        "transformers needs the extra 'huggingface', which is not installed. Run: pip install 'seewhy[huggingface]'"
    )


def test_a_pickle_and_code_from_the_folder_are_never_loaded(tmp_path: Path) -> None:
    folder = saved(tmp_path / "m")
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    with pytest.raises(WeightsError, match=r"a pickle such as pytorch_model\.bin"):
        load(str(folder))
    (folder / "pytorch_model.bin").rename(folder / "model.safetensors")
    (folder / "evil.py").write_text("raise SystemExit('it ran')\nclass M: pass\n")
    config = json.loads((folder / "config.json").read_text())
    remote = {"AutoConfig": "evil.M", "AutoModelForImageTextToText": "evil.M"}
    (folder / "config.json").write_text(json.dumps(config | {"auto_map": remote}))
    assert load(str(folder)).encode(PIXELS).pooled.shape == (3, 32), "transformers' own class"
    (folder / "config.json").write_text(json.dumps(config | {"auto_map": remote, "model_type": "other"}))
    for asked in ({}, {"trust_remote_code": True}):
        with pytest.raises(ModelError, match="Choose a LLaVA model without code of its own"):
            load(str(folder), **asked)


def test_no_folder_and_pictures_of_another_size_are_refused(tmp_path: Path) -> None:
    with pytest.raises(WeightsError) as caught:
        load("no/such")
    assert str(caught.value) == (
        "There is no folder 'no/such' for 'mllm:no/such'. Download the model there, or save it with save_pretrained."
    )
    folder = saved(tmp_path / "m")
    smaller = transformers.CLIPImageProcessor(size={"shortest_edge": 24}, crop_size={"height": 24, "width": 24})
    smaller.save_pretrained(folder)
    with pytest.raises(ModelError, match=r"cannot be loaded: .*24.* Choose a LLaVA model"):
        load(str(folder))
