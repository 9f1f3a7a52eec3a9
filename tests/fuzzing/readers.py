"""Real saved files of every kind, small, and how each is read."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cache, partial
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

import seewhy
from seewhy.pictures.samples import load_samples
from tiny import TRANSFORM, build, class_folders, picture, tiny_cnn

COLOURS = {"red": (220, 30, 30), "blue": (30, 30, 220)}


@dataclass(frozen=True)
class Target:
    """Files that are read.

    Attributes:
        name: of it.
        make: writes them into a folder.
        read: reads them there, as far as an answer.
        files: patterns of those that are changed.
        own: SeeWhy wrote them, so that they name no file outside of their folder.
        sealed: makes names and digests fit after a change, as whoever changes a file would.
    """

    name: str
    make: Callable[[Path], Any]
    read: Callable[[Path], Any]
    files: tuple[str, ...] = ("*",)
    own: bool = False
    sealed: Callable[[dict[str, bytes]], dict[str, bytes]] = field(default=dict)


def sealed(card: str, files: dict[str, bytes]) -> dict[str, bytes]:
    """Tensors under the name of their digest, which the card says."""
    found = dict(files)
    place = str(Path(card).parent)
    name = next((n for n in files if str(Path(n).parent) == place and Path(n).name.startswith("tensors-")), None)
    try:
        facts = json.loads(files[card])
        digest = sha256(files[name or ""]).hexdigest()
        if name is None or name.endswith(f"{digest[:16]}.safetensors"):
            return found
        facts["tensors"] = digest
        found[card] = json.dumps(facts).encode()
        found[str(Path(name).with_name(f"tensors-{digest[:16]}.safetensors"))] = found.pop(name)
    except (ValueError, TypeError, KeyError, RecursionError):
        pass
    return found


@cache
def encoder() -> Any:
    return tiny_cnn()


@cache
def classifier() -> Any:
    return linear(class_folders(Path(_scratch()) / "classes", 8))


def _scratch() -> str:
    import tempfile

    return tempfile.mkdtemp(prefix="fuzz-")


def linear(folder: Path) -> Any:
    from seewhy.classifiers.linear.recipe import Linear

    return Linear(n_crops=0).fit(encoder(), load_samples(folder))


def _photo(side: int = 48) -> Image.Image:
    y, x = np.mgrid[0:side, 0:side]
    return Image.fromarray(np.stack([x * 5, y * 5, (x + y) % 256], 2).astype(np.uint8))


def _picture(name: str, options: dict[str, Any], folder: Path) -> None:
    image = _photo()
    mode = options.get("mode")
    image = image.quantize(16) if mode == "P" else image.convert(mode) if mode else image
    image.save(folder / name, **{k: v for k, v in options.items() if k != "mode"})


def _read_picture(name: str, folder: Path) -> None:
    from seewhy.pictures.images import read_views

    read_views(folder / name, TRANSFORM, [None])


def _exif() -> bytes:
    tags = Image.Exif()
    tags[0x0112], tags[0x010E] = 6, "said"
    return tags.tobytes()


PICTURES: dict[str, dict[str, Any]] = {
    "a.jpg": {"exif": _exif(), "quality": 80}, "progressive.jpg": {"progressive": True}, "cmyk.jpg": {"mode": "CMYK"},
    "a.png": {}, "palette.png": {"mode": "P", "transparency": b"\0\x80"}, "grey16.png": {"mode": "I;16"},
    "a.gif": {"save_all": True, "append_images": [_photo(40)]}, "a.webp": {"lossless": True}, "a.bmp": {},
    "a.tif": {"compression": "tiff_lzw"}, "jpeg.tif": {"compression": "jpeg"}, "float.tif": {"mode": "F"}, "a.heic": {},
}  # fmt: skip


def pictures() -> list[Target]:
    found = []
    for name, options in PICTURES.items():
        if name.endswith("heic"):
            import pillow_heif

            pillow_heif.register_heif_opener()
        found.append(
            Target(f"picture {name}", partial(_picture, name, options), partial(_read_picture, name), own=True)
        )
    return [*found, Target("picture a.dcm", _dicom, partial(_read_picture, "a.dcm"), own=True)]


def _dicom(folder: Path) -> None:
    from scans import dataset, saved

    values = (np.arange(40 * 30).reshape(30, 40) * 3).astype(np.uint16)
    (folder / "a.dcm").write_bytes(
        saved(dataset(values, WindowCenter=600, WindowWidth=500, RescaleSlope=2, RescaleIntercept=-3))
    )


ROWS = [
    {"image": f"{label}/{label}_{i}.png", "label": label, "text": f"some {label} {i}", "visit": str(i)}
    for label in ("moss", "rust")
    for i in range(3)
]


def _table(name: str, folder: Path) -> None:
    class_folders(folder, 3, ("moss", "rust"), 8)
    path = folder / name
    if name.endswith(".parquet"):
        import pyarrow as pa
        import pyarrow.parquet as pq

        pq.write_table(pa.Table.from_pylist(ROWS), path)
    elif name.endswith(".jsonl"):
        path.write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    else:
        text = io.StringIO()
        writer = csv.DictWriter(text, ROWS[0], delimiter="\t" if name.endswith("tsv") else ",")
        writer.writeheader()
        writer.writerows(ROWS)
        path.write_text(text.getvalue(), newline="")


def _read_table(name: str, folder: Path) -> None:
    load_samples(folder / name, group="visit")


def _read_pairs(name: str, folder: Path) -> None:
    seewhy.load_pairs(folder / name)


def _read_run_input(name: str, folder: Path) -> None:
    from seewhy.scale.inputs import find_input

    for shard in find_input(folder / name).shards():
        for item in shard.items():
            if not isinstance(item.source, str):
                _view(item.source)


def _view(source: Any) -> None:
    from seewhy.errors import ImageError
    from seewhy.pictures.images import read_views

    with suppress(ImageError):
        read_views(source, TRANSFORM, [None])


def tables() -> list[Target]:
    found = []
    for suffix in ("csv", "tsv", "jsonl", "parquet"):
        for what, read in (("samples", _read_table), ("pairs", _read_pairs), ("run", _read_run_input)):
            if what != "run" or suffix in ("csv", "parquet"):
                name = f"t.{suffix}"
                found.append(Target(f"table {suffix} {what}", partial(_table, name), partial(read, name), (name,)))
    return found


def _shard(folder: Path) -> None:
    import tarfile

    with tarfile.open(folder / "a.tar", "w") as tar:
        for i in range(3):
            image = io.BytesIO()
            Image.fromarray(picture("moss", i, 8)).save(image, "PNG")
            said = {"txt": f"a moss {i}".encode(), "json": json.dumps({"caption": "green", "label": "moss"}).encode()}
            for ending, data in {"png": image.getvalue(), **said}.items():
                member = tarfile.TarInfo(f"{i:03}.{ending}")
                member.size = len(data)
                tar.addfile(member, io.BytesIO(data))


def _read_shard(folder: Path) -> None:
    for sample in seewhy.load_pairs(folder / "a.tar").items:
        _view(sample.pixels or sample.image)


def _boxes(format: str, folder: Path) -> None:
    from seewhy.pictures.boxes import BoxData, BoxedPicture, BoxRecord, save_boxes

    (folder / "images").mkdir()
    rows = []
    for i in range(2):
        _photo(40).save(folder / "images" / f"{i}.png")
        found = tuple(BoxRecord((2.0 + i, 3.0, 20.0, 30.0), label, 0.5) for label in ("cat", "dog"))
        rows.append(BoxedPicture(str(folder / "images" / f"{i}.png"), (40, 40), found))
    save_boxes(BoxData(tuple(rows), ("cat", "dog")), folder, format=format)


def _read_boxes(format: str, folder: Path) -> None:
    place = {"coco": "*.json", "csv": "*.csv"}.get(format)
    source = folder if place is None else next(iter(sorted(folder.rglob(place))), folder)
    for told in (format, None):
        data = seewhy.load_boxes(source, format=told)
        for one in data.pictures:
            assert one.known_size


def _masked(folder: Path) -> None:
    rng = np.random.default_rng(0)
    for place in ("images", "labels"):
        (folder / place).mkdir()
    for i in range(3):
        mask = np.zeros((32, 32), np.uint8)
        mask[:, 6 * i + 8 :] = 1
        pixels = np.array(list(COLOURS.values()), np.int16)[mask] + rng.integers(-20, 21, (32, 32, 3))
        Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(folder / "images" / f"{i}.png")
        Image.fromarray(mask).save(folder / "labels" / f"{i}.png")
    (folder / "classes.txt").write_text("red\nblue")


def _read_masks(source: str, folder: Path) -> None:
    from seewhy.errors import ImageError
    from seewhy.pictures.object_masks import mask_beside
    from seewhy.pictures.pixel_classes import load_masks

    data = load_masks(folder / source)
    for item in data.items:
        for work in (
            partial(data.truth, item, (32, 32)),
            partial(mask_beside, folder / "labels", item.image, TRANSFORM),
        ):
            with suppress(ImageError):
                work()


def _coco_masks(folder: Path) -> None:
    from seewhy.pictures.pixel_classes import encode

    (folder / "labels").mkdir()
    _photo(32).save(folder / "0.png")
    mask = np.zeros((32, 32), bool)
    mask[4:9, 5:30] = True
    packed = {"size": [32, 32], "counts": "0" * 4}
    shapes = [encode(mask), [[1, 1, 20, 1, 20, 20]], packed]
    rows = [
        {"id": i, "image_id": 1, "category_id": 1 + i % 2, "segmentation": s, "bbox": [1, 2, 3, 4]}
        for i, s in enumerate(shapes)
    ]
    said = {"images": [{"id": 1, "file_name": "0.png", "width": 32, "height": 32}], "annotations": rows}
    (folder / "c.json").write_text(json.dumps({**said, "categories": [{"id": 1, "name": "a"}, {"id": 2, "name": "b"}]}))


def data_files() -> list[Target]:
    found = [
        Target("shard pairs", _shard, _read_shard),
        Target("shard run", _shard, partial(_read_run_input, "a.tar")),
        Target("masks folder", _masked, partial(_read_masks, ""), ("labels/*", "classes.txt"), own=True),
        Target("masks coco", _coco_masks, partial(_read_masks, "c.json"), ("c.json",)),
    ]
    patterns = {
        "coco": ("*.json",),
        "yolo": ("*.yaml", "labels/*.txt", "*.txt"),
        "voc": ("**/*.xml",),
        "csv": ("*.csv",),
    }
    boxes = [Target(f"boxes {n}", partial(_boxes, n), partial(_read_boxes, n), patterns[n]) for n in patterns]
    return [*found, *boxes]


@cache
def colours() -> Any:
    from seewhy.encoders.base import GlobalAverage, Layout
    from tiny import Channels, ColourWords

    return build(Channels(), GlobalAverage(), Layout(), 3, text=ColourWords())
