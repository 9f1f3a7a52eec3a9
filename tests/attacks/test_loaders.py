"""Models made to do harm, as somebody would hand them over: nothing runs, asks or is called, and all is told."""

from __future__ import annotations

import importlib.util
import io
import json
import os
import pickle
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import torch
from damage import device, in_time, pipe

import seewhy
from seewhy.classifiers.saving import CARD
from seewhy.encoders.embedded import fingerprint_of
from seewhy.encoders.fence import FenceError, fenced
from seewhy.errors import ModelError, SeeWhyError, WeightsError
from seewhy.language.writers import LocalWriter, Prompt
from seewhy.retrieval import Index
from tiny import tiny_cnn

open_clip = pytest.importorskip("open_clip")
transformers = pytest.importorskip("transformers")

VIT = {"image_size": 32, "layers": 2, "width": 32, "head_width": 16, "patch_size": 8}
TEXT = {"context_length": 16, "vocab_size": 99, "width": 32, "heads": 2, "layers": 2}
PREPROCESS = {"mean": [0.5] * 3, "std": [0.2] * 3, "interpolation": "bilinear", "resize_mode": "squash"}
SMALL = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 48}


@pytest.fixture
def marker(tmp_path: Path) -> Path:
    """A file that is there when foreign code has run."""
    return tmp_path / "it_ran"


@pytest.fixture(autouse=True)
def calls(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[list[Any]]:
    """The network is allowed and there; every call to it is written down, and none must be."""
    made: list[Any] = []

    def call(*given: Any, **_: Any) -> Any:
        made.append(given)
        raise OSError("the test has no network")

    monkeypatch.delenv("HF_HUB_OFFLINE")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    monkeypatch.setattr(socket, "getaddrinfo", call)
    monkeypatch.setattr(socket.socket, "connect", call)
    yield made
    assert made == []


@pytest.fixture(autouse=True)
def stdin(monkeypatch: pytest.MonkeyPatch) -> Iterator[io.StringIO]:
    """A list of file names, the first of which is a consent; none of them may be taken."""
    names = io.StringIO("y\nyes\ny\na.png\n")
    monkeypatch.setattr(sys, "stdin", names)
    yield names
    assert names.tell() == 0


def evil(folder: Path, marker: Path, name: str = "evil") -> None:
    """A module that leaves a mark, with every class that a model may name."""
    classes = "\n".join(f"class {c}: pass" for c in ("Config", "Model", "Tokenizer", "Processor"))
    (folder / f"{name}.py").write_text(f"open({str(marker)!r}, 'w').close()\n{classes}\n")


class Harm:
    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.marker),)


AUTO = {
    "AutoConfig": "evil.Config", "AutoModel": "evil.Model", "AutoTokenizer": ["evil.Tokenizer", "evil.Tokenizer"],
    "AutoImageProcessor": "evil.Processor", "AutoModelForImageClassification": "evil.Model",
    "AutoModelForCausalLM": "evil.Model", "AutoProcessor": "evil.Processor",
}  # fmt: skip


def clip_folder(folder: Path, marker: Path, text: dict[str, Any], vision: dict[str, Any] | None = None) -> Path:
    """open_clip's own format, whole and of its own network, with a configuration that names more."""
    from safetensors.torch import save_file

    torch.manual_seed(0)
    model = open_clip.model.CLIP(24, dict(VIT), dict(TEXT))
    config = {"embed_dim": 24, "vision_cfg": vision or VIT, "text_cfg": TEXT | text}
    (folder / "open_clip_config.json").write_text(json.dumps({"model_cfg": config, "preprocess_cfg": PREPROCESS}))
    save_file(model.state_dict(), folder / "open_clip_model.safetensors")
    (folder / "config.json").write_text(json.dumps({"model_type": "x", "auto_map": AUTO}))
    (folder / "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": "Evil", "auto_map": AUTO}))
    evil(folder, marker)
    return folder


CLIPS: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "a tokenizer, trusted by the file": (
        {"hf_tokenizer_name": "x", "tokenizer_kwargs": {"trust_remote_code": True}},
        {},
    ),
    "a tokenizer, not asked": ({"hf_tokenizer_name": "x"}, {}),
    "a tokenizer of another revision": (
        {"hf_tokenizer_name": "x", "tokenizer_kwargs": {"code_revision": "main"}},
        {},
    ),
    "a text network in a folder": ({"hf_model_name": "{folder}", "hf_tokenizer_name": "x"}, {}),
    "a text network beside": ({"hf_model_name": ".", "hf_tokenizer_name": "x"}, {}),
    "a text network of the hub": ({"hf_model_name": "someone/evil", "hf_tokenizer_name": "x"}, {}),
    "a picture network in a folder": ({}, {"timm_model_name": "local-dir:{folder}", "timm_model_pretrained": True}),
    "a picture network of the hub": ({}, {"timm_model_name": "hf-hub:someone/evil", "timm_model_pretrained": True}),
    "text that is a list": ({"hf_model_name": ["x"]}, {}),
}


@pytest.mark.parametrize("what", CLIPS)
def test_open_clip_folders(tmp_path: Path, marker: Path, what: str, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "m").mkdir()
    text, vision = json.loads(json.dumps(CLIPS[what]).replace("{folder}", str(tmp_path / "m")))
    folder = clip_folder(tmp_path / "m", marker, text, VIT | vision if vision else None)
    monkeypatch.chdir(folder)
    with in_time(60), pytest.raises(ModelError) as caught:
        seewhy.encoder(f"open_clip:local-dir:{folder}", engine="torch")
    assert "open_clip:local-dir" in str(caught.value)
    if what not in ("a tokenizer, not asked", "a text network beside", "a text network of the hub"):
        assert "open_clip_config.json of" in str(caught.value), "told before anything is built"
    assert not marker.exists()


def saved_clip(folder: Path) -> Path:
    """A pair as transformers saves it, with a tokenizer of words."""
    from tokenizers import Tokenizer, models

    own = {"vocab_size": 9, "max_position_embeddings": 12, "bos_token_id": 7, "eos_token_id": 8, "pad_token_id": 0}
    config = transformers.CLIPConfig(
        text_config=SMALL | own, vision_config=SMALL | {"image_size": 32, "patch_size": 8}, projection_dim=24
    )
    transformers.CLIPModel(config).eval().save_pretrained(folder)
    size = {"height": 32, "width": 32}
    transformers.CLIPImageProcessor(size={"shortest_edge": 32}, crop_size=size).save_pretrained(folder)
    words = {w: i for i, w in enumerate(["<pad>", "a", "photo", "of", "cat", "two", "dogs", "<start>", "<end>"])}
    raw = Tokenizer(models.WordLevel(words, unk_token="<pad>"))
    transformers.PreTrainedTokenizerFast(tokenizer_object=raw, pad_token="<pad>").save_pretrained(folder)
    return folder


@pytest.mark.parametrize("file", ["config.json", "tokenizer_config.json", "preprocessor_config.json"])
@pytest.mark.parametrize("known", [True, False])
def test_transformers_folders(tmp_path: Path, marker: Path, file: str, known: bool) -> None:
    """Refused, or read without the foreign class where the library has one of its own."""
    folder = saved_clip(tmp_path / "m")
    data = json.loads((folder / file).read_text()) | {"auto_map": AUTO}
    if not known:
        data |= {"model_type": "evil", "tokenizer_class": "Evil", "image_processor_type": "Evil"}
    (folder / file).write_text(json.dumps(data))
    evil(folder, marker)
    with in_time(60), suppress(SeeWhyError):
        seewhy.encoder(f"hf:{folder}", engine="torch").encode_text(["a cat"])
    assert not marker.exists()


def test_an_adapter_does_not_bring_another_model(tmp_path: Path, marker: Path) -> None:
    folder = saved_clip(tmp_path / "m")
    (folder / "adapter_config.json").write_text(json.dumps({"base_model_name_or_path": "someone/evil"}))
    with pytest.raises(ModelError, match=r"is only an adapter \(adapter_config\.json\)"):
        seewhy.encoder(f"hf:{folder}")


@pytest.mark.parametrize("file", ["config.json", "tokenizer_config.json"])
def test_writers(tmp_path: Path, marker: Path, file: str) -> None:
    config = transformers.GPT2Config(n_embd=8, n_layer=1, n_head=1, vocab_size=9, bos_token_id=0, eos_token_id=0)
    folder = tmp_path / "m"
    transformers.GPT2LMHeadModel(config).save_pretrained(folder)
    data = json.loads((folder / file).read_text()) if (folder / file).exists() else {}
    (folder / file).write_text(json.dumps(data | {"auto_map": AUTO, "model_type": "evil", "tokenizer_class": "Evil"}))
    evil(folder, marker)
    evil(folder, marker, "custom_generate")
    with in_time(60), pytest.raises(SeeWhyError):
        LocalWriter(str(folder)).write(Prompt("a", "b"))
    assert not marker.exists()


def test_a_writer_of_pickles_is_refused(tmp_path: Path, marker: Path) -> None:
    config = transformers.GPT2Config(n_embd=8, n_layer=1, n_head=1, vocab_size=9)
    transformers.GPT2LMHeadModel(config).save_pretrained(tmp_path)
    (tmp_path / "model.safetensors").unlink()
    torch.save({"x": Harm(marker)}, tmp_path / "pytorch_model.bin")
    with pytest.raises(SeeWhyError):
        LocalWriter(str(tmp_path)).write(Prompt("a", "b"))
    assert not marker.exists()


@pytest.mark.parametrize("file", ["pytorch_model.bin", "model.pth", "open_clip_pytorch_model.bin"])
def test_timm_folders_of_pickles(tmp_path: Path, marker: Path, file: str) -> None:
    config = {"input_size": [3, 64, 64], "mean": [0.5] * 3, "std": [0.5] * 3, "interpolation": "bilinear"}
    about = {"architecture": "resnet18", "pretrained_cfg": config | {"custom_load": "hf", "hf_hub_filename": file}}
    (tmp_path / "config.json").write_text(json.dumps(about))
    torch.save({"x": Harm(marker)}, tmp_path / file)
    with pytest.raises(WeightsError, match="must contain only tensors, because other pickled objects can run code"):
        seewhy.encoder(f"timm:{tmp_path}")
    assert not marker.exists()


CACHED = "resnet18-f37072fd.pth"


def cached(root: Path) -> Path:
    folder = root / "torch" / "hub" / "checkpoints"
    folder.mkdir(parents=True)
    return folder / CACHED


def test_a_pickle_in_torchvisions_cache_is_not_run(tmp_path: Path, marker: Path) -> None:
    torch.save({"x": Harm(marker)}, cached(tmp_path))
    with pytest.raises(WeightsError, match="is not the published file: its SHA-256 begins with"):
        seewhy.encoder("torchvision:resnet18")
    assert not marker.exists()


def test_nor_is_one_with_the_right_hash(tmp_path: Path, marker: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The eight digits can be met by trying."""
    torch.save({"x": Harm(marker)}, cached(tmp_path))
    monkeypatch.setattr("seewhy.encoders.weights.file_sha256", lambda _: "f37072fd" + "0" * 56)
    with pytest.raises(WeightsError, match="must contain only tensors"):
        seewhy.encoder("torchvision:resnet18")
    assert not marker.exists()


def test_torchvisions_own_weights_are_still_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from torchvision import models

    torch.manual_seed(0)
    whole = models.resnet18().eval()
    torch.save(whole.state_dict(), cached(tmp_path))
    monkeypatch.setattr("seewhy.encoders.weights.file_sha256", lambda _: "f37072fd" + "0" * 56)
    encoder = seewhy.encoder("torchvision:resnet18", engine="torch")
    pixels = torch.randn(1, 3, 224, 224, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        torch.testing.assert_close(encoder.classifier(encoder.encode(pixels).pooled), whole(pixels))


NAMED = [
    "open_clip:local-dir:{folder}", "open_clip:hf-hub:someone/evil", "hf:{folder}", "hf:someone/evil",
    "timm:hf-hub:someone/evil", "timm:resnet18.a1_in1k", "torchvision:resnet18", "file:{folder}/x.pth",
]  # fmt: skip


def card_of(folder: Path, name: str, fingerprint: str = "0" * 16) -> Path:
    """A saved classifier whose card names an encoder."""
    folder.mkdir()
    (folder / CARD).write_text(json.dumps({"format": 2, "encoder": {"encoder": name, "fingerprint": fingerprint}}))
    return folder


@pytest.mark.parametrize("name", NAMED)
def test_a_card_chooses_no_encoder(tmp_path: Path, marker: Path, name: str) -> None:
    (tmp_path / "m").mkdir()
    clip_folder(tmp_path / "m", marker, {"hf_tokenizer_name": "x", "tokenizer_kwargs": {"trust_remote_code": True}})
    name = name.format(folder=tmp_path / "m")
    folder = card_of(tmp_path / "saved", name)
    with pytest.raises(ModelError) as caught:
        seewhy.load(folder)
    assert str(caught.value) == (
        f"{folder} was made with the encoder '{name}'. SeeWhy never loads an encoder only because a file names it. If "
        f"you trust it, name it: seewhy predict … -m {folder} --encoder {name} (from Python: encoder={name!r})"
    )
    assert not marker.exists()


@pytest.mark.parametrize("name", NAMED)
def test_an_index_chooses_no_encoder(tmp_path: Path, name: str) -> None:
    index = Index.create(tmp_path / "index", width=8, fingerprint="0" * 16)
    index._catalogue.set(encoder={"encoder": name, "fingerprint": "0" * 16})
    index.close()
    with pytest.raises(ModelError, match="SeeWhy never loads an encoder only because a file names it"):
        Index.open(tmp_path / "index").search("nothing.png")


@pytest.mark.parametrize("name", ["hf:\x1b[31m\nred", "hf:" + "x" * 10_000, "hf:a b; rm -rf ~", "module", "hf:‮gnp"])
def test_a_name_out_of_a_card_is_shown_with_care(tmp_path: Path, name: str) -> None:
    with pytest.raises(ModelError) as caught:
        seewhy.load(card_of(tmp_path / "saved", name))
    message = str(caught.value)
    assert message.isprintable()
    assert len(message) < 900
    assert "--encoder hf:a b" not in message


def test_an_embedded_encoder_of_another_fingerprint_is_refused_unread(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def never(*_: Any, **__: Any) -> Any:
        raise AssertionError("its weights were read")

    monkeypatch.setattr("seewhy.encoders.embedded.load", never)
    with pytest.raises(ModelError, match="needs 'lite0' with the fingerprint 000000000000, got 'lite0' with"):
        seewhy.load(card_of(tmp_path / "saved", "lite0"))
    with pytest.raises(ModelError, match="needs 'hf:x/y' with the fingerprint 000000000000, got 'lite1' with"):
        seewhy.load(card_of(tmp_path / "other", "hf:x/y"), encoder="lite1")


def test_the_fingerprint_of_an_embedded_encoder_is_known_before() -> None:
    assert fingerprint_of("lite0") == seewhy.encoder("lite0").fingerprint


def test_who_names_the_encoder_gets_the_classifier(tmp_path: Path, command: list[str]) -> None:
    """Through the command line and from Python; the same fingerprint is expected."""
    from seewhy.classifiers.linear.recipe import Linear
    from seewhy.pictures.samples import load_samples
    from tiny import class_folders

    folder, pictures = saved_clip(tmp_path / "m"), class_folders(tmp_path / "pictures", 4)
    name = f"hf:{folder}"
    Linear(n_crops=0).fit(seewhy.encoder(name, engine="torch"), load_samples(pictures)).save(tmp_path / "model")
    assert seewhy.load(tmp_path / "model", encoder=name, engine="torch").classes == ("moss", "rust", "sky")
    words = [*command, "predict", str(pictures / "sky"), "-m", str(tmp_path / "model"), "--store", "none"]
    refused = subprocess.run(words, capture_output=True, encoding="utf-8", stdin=subprocess.DEVNULL)
    assert refused.returncode == 2
    assert f"If you trust it, name it: seewhy predict … -m {tmp_path / 'model'} --encoder {name}" in refused.stderr
    named = [*words, "--encoder", name, "--engine", "torch", "--json"]
    done = subprocess.run(named, capture_output=True, encoding="utf-8", stdin=subprocess.DEVNULL)
    assert done.returncode == 0, done.stderr
    assert len(done.stdout.splitlines()) == 4


def test_names_on_standard_input_are_no_answers(tmp_path: Path, marker: Path, command: list[str]) -> None:
    """The first line would consent, if anything asked and read it."""
    (tmp_path / "m").mkdir()
    folder = clip_folder(tmp_path / "m", marker, {"hf_tokenizer_name": "x"})
    words = [*command, "predict", "-", "--labels", "a,b", "--encoder", f"open_clip:local-dir:{folder}"]
    done = subprocess.run(
        [*words, "--store", "none"], input="y\ny\nyes\n", capture_output=True, encoding="utf-8", cwd=tmp_path
    )
    assert done.returncode == 2
    assert "[y/N]" not in done.stdout + done.stderr
    assert done.stderr.splitlines()[-1].startswith("seewhy: ")
    assert not marker.exists()


def test_standard_input_belongs_to_the_list_of_names(tmp_path: Path, photo: Path) -> None:
    """Neither Python's stream nor the system's can be read while the names still come."""
    program = (
        "import os, sys\nfrom seewhy.cli.terminal import standard_input, take_standard_input\n"
        "take_standard_input()\nassert sys.stdin.read() == ''\nassert os.read(0, 9) == b''\n"
        "print(standard_input().read(), end='')"
    )
    done = subprocess.run([sys.executable, "-c", program], input="a\nb\n", capture_output=True, encoding="utf-8")
    assert (done.returncode, done.stdout) == (0, "a\nb\n"), done.stderr


@pytest.mark.parametrize("put", [pipe, device])
@pytest.mark.parametrize(
    ("name", "file"),
    [
        ("open_clip:local-dir:{m}", "open_clip_config.json"),
        ("open_clip:local-dir:{m}", "open_clip_model.safetensors"),
        ("open_clip:local-dir:{m}", "tokenizer_config.json"),
        ("open_clip:ViT-B-32/{m}/open_clip_model.safetensors", "open_clip_model.safetensors"),
        ("hf:{m}", "config.json"),
        ("hf:{m}", "model.safetensors"),
        ("timm:{m}", "config.json"),
        ("timm:{m}", "open_clip_model.safetensors"),
        ("file:{m}/x.pth", "x.pth"),
        ("file:{m}/x.safetensors", "x.safetensors"),
        ("torchvision:resnet18@{m}/x.pth", "x.pth.json"),
        ("torchvision:resnet18", "../torch/hub/checkpoints/" + CACHED),
    ],
)
def test_a_file_that_never_ends_is_not_waited_on(
    tmp_path: Path, marker: Path, put: Callable[[Path], None], name: str, file: str
) -> None:
    (tmp_path / "m").mkdir()
    folder = clip_folder(tmp_path / "m", marker, {})
    (folder / "x.pth").touch()
    cached(tmp_path).touch()
    put(folder / file)
    with in_time(), pytest.raises(SeeWhyError) as caught:
        seewhy.encoder(name.format(m=folder))
    assert "\n" not in str(caught.value)


# The fence itself


def test_code_from_elsewhere_is_not_run(tmp_path: Path, marker: Path) -> None:
    evil(tmp_path, marker)
    spec = importlib.util.spec_from_file_location("evil", tmp_path / "evil.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    with pytest.raises(FenceError, match="has its own code"), fenced():
        spec.loader.exec_module(module)
    assert not marker.exists()
    spec.loader.exec_module(module)
    assert marker.exists(), "outside the fence nothing is changed"


def test_a_pickle_is_not_opened(marker: Path) -> None:
    data = pickle.dumps(Harm(marker))
    with pytest.raises(FenceError, match=r"contains posix\.mkdir in a pickle"), fenced():
        pickle.loads(data)
    assert not marker.exists()


def test_an_error_that_a_library_wraps_is_still_the_fences(tmp_path: Path, marker: Path) -> None:
    def library() -> None:
        try:
            pickle.loads(pickle.dumps(Harm(marker)))
        except Exception as error:
            raise ValueError("cannot be read") from error

    with pytest.raises(FenceError), fenced():
        library()


def test_the_network_is_not_called(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    for online in (False, True):
        with socket.socket() as one, pytest.raises(FenceError if not online else OSError), fenced(online=online):
            one.connect(("127.0.0.1", 9))
    with (
        pytest.raises(
            FenceError,
            match="The model tried to download a file",
        ),
        fenced(),
    ):
        socket.getaddrinfo("example.org", 80)


def test_standard_input_is_empty_inside(stdin: io.StringIO) -> None:
    with fenced(), pytest.raises(EOFError):
        input()
    assert sys.stdin is stdin


def test_other_threads_go_on(tmp_path: Path, marker: Path) -> None:
    done: list[Any] = []
    with fenced():
        other = threading.Thread(target=lambda: done.append(pickle.loads(pickle.dumps(OSError("x")))))
        other.start()
        other.join()
        with fenced(online=True):
            pass
        with pytest.raises(FenceError):
            pickle.loads(pickle.dumps(OSError("x")))
    assert len(done) == 1


def test_an_encoder_of_ones_own_needs_no_name(tmp_path: Path) -> None:
    encoder = tiny_cnn()
    index = Index.create(tmp_path / "index", encoder)
    index.close()
    with pytest.raises(ModelError, match="No name loads this encoder, so pass"):
        Index.open(tmp_path / "index").search("nothing.png")
