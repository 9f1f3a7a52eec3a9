"""What encoders, pictures and storage answer on small pictures: numbers, digests, listings."""

from __future__ import annotations

import hashlib
import importlib.util
import io
import json
import tarfile
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
from made_pictures import class_folders, noise, table
from PIL import Image
from torch import nn

import seewhy

SIZE = (32, 32)
AS_IS = seewhy.Transform(SIZE, 36, "bicubic", (0.5, 0.4, 0.3), (0.2, 0.3, 0.4))
LARGER = seewhy.Transform((64, 64), 72, "bilinear", (0.5, 0.4, 0.3), (0.2, 0.3, 0.4))


def _digest(array: Any) -> str:
    return hashlib.sha256(np.ascontiguousarray(array).tobytes()).hexdigest()[:16]


def _encoder(encoder: Any) -> dict[str, Any]:
    height, width = encoder.transform.input_size
    pictures = [noise(seed, height, width) for seed in (1, 2)]
    look = encoder.encode(encoder.pixels(pictures))
    answer: dict[str, Any] = {
        "fingerprint": encoder.fingerprint,
        "transform": encoder.transform.to_json(),
        "layout": repr(encoder.layout),
        "shape": list(look.features.shape),
        "pooled": look.pooled[:, :4].tolist(),
        "sum": look.pooled.double().sum().item(),
        "features": look.features.double().abs().sum().item(),
        "average": encoder.is_average,
        "classes": [len(encoder.classes), *encoder.classes[:3]],
    }
    if encoder.classifier is not None:
        answer["scores"] = encoder.classifier(look.pooled)[:, :4].tolist()
    if encoder.has_text:
        words = encoder.encode_text(["a photo of a cat", "two dogs"])
        answer["words"] = words[:, :4].tolist()
        answer["likeness"] = (encoder.encode_image(encoder.pixels(pictures)) @ words.T).tolist()
        answer["scale"] = encoder.text.logit_scale
        answer["text fingerprint"] = encoder.text.fingerprint
    return answer


def _tests_module(name: str) -> Any:
    spec = importlib.util.spec_from_file_location(
        f"recorded_{name}", Path(__file__).parents[1] / "encoders" / f"{name}.py"
    )
    module = importlib.util.module_from_spec(spec)  # type: ignore[arg-type]
    spec.loader.exec_module(module)  # type: ignore[union-attr]
    return module


def _encoders(root: Path) -> dict[str, Any]:
    import timm
    from safetensors.torch import save_file
    from torchvision import models

    answers = {"lite0": _encoder(seewhy.encoder("lite0", engine="torch"))}
    torch.manual_seed(0)
    net = nn.Sequential(
        nn.Conv2d(3, 8, 4, 4),
        nn.ReLU(),
        nn.Conv2d(8, 8, 3, 1, 1),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(8, 3),
    )
    answers["module"] = _encoder(seewhy.from_module(net, transform=AS_IS, classes=["a", "b", "c"], engine="torch"))
    save_timm = _tests_module("test_timm").save
    for architecture, options in (
        ("resnet18", {"num_classes": 7}),
        ("test_vit", {"num_classes": 5}),
        (
            "swin_tiny_patch4_window7_224",
            {"num_classes": 7, "embed_dim": 12, "depths": (1, 1, 1, 1), "img_size": 64, "window_size": 2},
        ),
        ("cait_xxs24_224", {"num_classes": 7, "embed_dim": 32, "depth": 2, "num_heads": 2, "img_size": 64}),
    ):
        folder, _ = save_timm(
            root, architecture, {"input_size": (3, 64, 64)} if architecture == "resnet18" else None, **options
        )
        answers[f"timm {architecture}"] = _encoder(seewhy.encoder(f"timm:{folder}", engine="torch"))
    torch.manual_seed(0)
    model = timm.create_model("mobilenetv3_small_050", num_classes=2).eval()
    said = {"architecture": "mobilenetv3_small_050", "classes": ["healthy", "ill"], "transform": AS_IS.to_json()}
    save_file(model.state_dict(), root / "net.safetensors")
    (root / "net.safetensors.json").write_text(json.dumps(said))
    answers["file"] = _encoder(seewhy.encoder(f"file:{root}/net.safetensors", engine="torch"))
    torch.manual_seed(0)
    model = models.get_model("shufflenet_v2_x0_5", weights=None, num_classes=3).eval()
    save_file(model.state_dict(), root / "vision.safetensors")
    (root / "vision.safetensors.json").write_text(
        json.dumps({"classes": ["a", "b", "c"], "transform": LARGER.to_json()})
    )
    answers["torchvision"] = _encoder(
        seewhy.encoder(f"torchvision:shufflenet_v2_x0_5@{root}/vision.safetensors", engine="torch")
    )
    hugging = _tests_module("test_huggingface")
    for kind in ("clip", "siglip"):
        hugging.pair(root / kind, kind)
        answers[f"hf {kind}"] = _encoder(seewhy.encoder(f"hf:{root / kind}", engine="torch"))
    import transformers

    config = transformers.ViTConfig(**hugging.VISION, num_labels=3)
    (root / "vit").mkdir()
    hugging.save(
        root / "vit", transformers.ViTForImageClassification(config), transformers.ViTImageProcessor(**hugging.PLAIN)
    )
    answers["hf vit"] = _encoder(seewhy.encoder(f"hf:{root / 'vit'}", engine="torch"))
    opened = _tests_module("test_open_clip")
    for kind in ("vit", "siglip"):
        (root / f"oc-{kind}").mkdir()
        opened.save(root / f"oc-{kind}", opened.CONFIGS[kind])
        answers[f"open_clip {kind}"] = _encoder(
            seewhy.encoder(f"open_clip:local-dir:{root / f'oc-{kind}'}", engine="torch")
        )
    llava = _tests_module("test_multimodal")
    (root / "llava").mkdir()
    encoder = seewhy.encoder(f"mllm:{llava.saved(root / 'llava')}", engine="torch")
    answers["mllm"] = _encoder(encoder)
    answers["mllm under"] = _encoder(encoder.under("the colour"))
    return answers


def _files() -> dict[str, bytes]:
    """Pictures of many kinds, as bytes."""

    def saved(image: Image.Image, kind: str, **options: Any) -> bytes:
        file = io.BytesIO()
        image.save(file, kind, **options)
        return file.getvalue()

    rgb, grey = Image.fromarray(noise(1, 60, 80)), Image.fromarray(noise(2, 50, 40, 1))
    smooth = Image.fromarray(noise(3, 12, 16)).resize((640, 480), Image.Resampling.BICUBIC)
    exif = Image.Exif()
    exif[0x0112] = 6
    alpha = Image.fromarray(noise(4, 60, 60, 4), "RGBA")
    deep = Image.fromarray(noise(5, 40, 40, 1).astype(np.uint16) * 16)
    files = {
        "rgb.png": saved(rgb, "PNG"),
        "grey.png": saved(grey, "PNG"),
        "large.jpg": saved(smooth, "JPEG", quality=90),
        "turned.jpg": saved(smooth, "JPEG", quality=90, exif=exif),
        "cmyk.jpg": saved(smooth.convert("CMYK"), "JPEG", quality=90),
        "alpha.png": saved(alpha, "PNG"),
        "palette.gif": saved(smooth.quantize(16), "GIF"),
        "deep.tif": saved(deep, "TIFF"),
        "deep.png": saved(deep, "PNG"),
        "one.bmp": saved(rgb.convert("1"), "BMP"),
        "web.webp": saved(smooth, "WEBP", lossless=True),
        "cut.jpg": saved(smooth, "JPEG")[:400],
        "text.png": b"hello there\n",
        "page.png": b"<!doctype html><html></html>",
        "empty.png": b"",
    }
    from scans import dataset

    for name, more in {
        "plain": {},
        "window": {"WindowCenter": 1000, "WindowWidth": 1600, "RescaleSlope": 0.5, "RescaleIntercept": -7},
        "sigmoid": {"WindowCenter": 35, "WindowWidth": 50, "VOILUTFunction": "SIGMOID"},
        "inverted": {"PhotometricInterpretation": "MONOCHROME1"},
    }.items():
        made = dataset((noise(6, 40, 48, 1).astype(np.uint16) * 15), 12, **more)
        file = io.BytesIO()
        made.save_as(file, enforce_file_format=True)
        files[f"{name}.dcm"] = file.getvalue()
    return files


def _pictures(root: Path) -> dict[str, Any]:
    from seewhy.pictures.images import read_picture, read_views
    from seewhy.types import Crop

    answers: dict[str, Any] = {}
    for name, data in _files().items():
        (root / name).write_bytes(data)
        try:
            one = read_picture(str(root / name), AS_IS)
            cropped = read_views(data, AS_IS, [Crop((0.1, 0.2, 0.6, 0.9), True)])[0]
            answers[name] = [
                _digest(one.pixels),
                one.digest[:16],
                list(one.original_size),
                list(one.window),
                _digest(cropped.pixels),
            ]
        except seewhy.SeeWhyError as error:
            answers[name] = str(error).replace(str(root), "")
    arrays = {
        "floats": noise(7, 40, 40) / 255,
        "grey": noise(8, 40, 40, 1),
        "tensor": torch.from_numpy(noise(9, 40, 40)).permute(2, 0, 1),
    }
    for name, array in arrays.items():
        one = read_picture(array, AS_IS)
        answers[name] = [_digest(one.pixels), one.digest[:16]]
    return answers


def _samples(samples: Any, root: Path) -> list[Any]:
    rows = [[s.image.replace(str(root), ""), s.label, s.text, s.group, s.split] for s in samples.items]
    return [repr(samples), list(samples.notes), rows]


def _data(root: Path) -> dict[str, Any]:
    folders = class_folders(root / "classes")
    csv = table(root, folders)
    answers = {
        "folders": _samples(seewhy.load_samples(folders), root),
        "table": _samples(seewhy.load_samples(csv, group="visit"), root),
        "jsonl": _samples(seewhy.load_samples(root / "table.jsonl"), root),
        "pairs": _samples(seewhy.load_pairs(csv), root),
        "pairs of folders": _samples(seewhy.load_pairs(folders), root),
    }
    with tarfile.open(root / "shard.tar", "w") as tar:
        for i in range(3):
            for name, data in (
                (f"{i}.png", (folders / "moss" / f"moss-{i}.png").read_bytes()),
                (f"{i}.txt", f"moss {i}".encode()),
            ):
                about = tarfile.TarInfo(name)
                about.size = len(data)
                tar.addfile(about, io.BytesIO(data))
    answers["shard"] = _samples(seewhy.load_pairs(root / "shard.tar"), root)
    from seewhy.pictures.samples import split

    samples = seewhy.load_samples(folders)
    digests = [hashlib.sha256(Path(s.image).read_bytes()).hexdigest() for s in samples.items]
    answers["split"] = split([s.label for s in samples.items], digests, 0.4, 3)
    for name, wrong in {"missing": root / "nothing", "picture": folders / "moss" / "moss-0.png"}.items():
        try:
            seewhy.load_samples(wrong)
        except seewhy.SeeWhyError as error:
            answers[name] = str(error).replace(str(root), "")
    return answers


def _store(root: Path) -> dict[str, Any]:
    folders = root / "classes"
    store = seewhy.FeatureStore(root / "store.sqlite")
    classifier = seewhy.fit(folders, encoder=seewhy.encoder("lite0", engine="torch"), store=store)
    store.close()
    classifier.save(root / "model")
    again = seewhy.load(root / "model", engine="torch")
    card = json.loads((root / "model" / "seewhy.json").read_text())
    prediction = again.predict(str(folders / "sky" / "sky-1.png"))
    return {
        "files": sorted(p.name for p in (root / "model").iterdir() if not p.name.startswith("tensors-")),
        "card": sorted(card),
        "label": prediction.label,
        "scores": [[ranked.label, ranked.score] for ranked in prediction.top],
    }


def record() -> dict[str, Any]:
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        return {"encoders": _encoders(root), "pictures": _pictures(root), "data": _data(root), "store": _store(root)}


if __name__ == "__main__":
    print(json.dumps(record(), indent=1, default=str))
