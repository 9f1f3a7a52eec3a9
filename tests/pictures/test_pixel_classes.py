"""Pictures with masks: what is read of folders and of COCO's JSON, and what is said of those that cannot be."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from seewhy.errors import DataError, ImageError
from seewhy.pictures.pixel_classes import MaskedPictures, encode, is_masked, load_masks, read_values

MASK = np.array([[0, 0, 1, 1], [2, 2, 7, 255], [2, 2, 1, 0]], np.uint8)


def folder(root: Path, masks: dict[str, np.ndarray], *, names: str = "sky\nroad\ncar\n") -> Path:
    """Pictures and masks, and what values are called."""
    for place in ("images", "labels"):
        (root / place).mkdir(parents=True)
    for name, mask in masks.items():
        Image.new("RGB", mask.shape[::-1]).save(root / "images" / f"{name}.jpg")
        Image.fromarray(mask).save(root / "labels" / f"{name}.png")
    if names:
        (root / "classes.txt").write_text(names)
    return root


def truth(data: MaskedPictures, i: int = 0) -> tuple[list[list[int]], dict[int, int]]:
    item = data.items[i]
    with Image.open(item.image) as opened:
        mask, unnamed = data.truth(item, opened.size)
    return mask.tolist(), unnamed


def test_values_are_places_among_the_names(tmp_path: Path) -> None:
    data = load_masks(folder(tmp_path, {"a": MASK}))
    assert data.classes == ("sky", "road", "car")
    assert truth(data) == ([[0, 0, 1, 1], [2, 2, 255, 255], [2, 2, 1, 0]], {7: 1})
    assert truth(load_masks(tmp_path, ignore=[255, 7]))[1] == {}
    # A value that is to be left out has no class, even where it has a name.
    fewer = load_masks(tmp_path, ignore=[0])
    assert fewer.classes == ("road", "car")
    assert truth(fewer) == ([[255, 255, 0, 0], [1, 1, 255, 255], [1, 1, 0, 255]], {7: 1, 255: 1})
    assert load_masks(tmp_path, classes=["a", "b"]).classes == ("a", "b")


@pytest.mark.parametrize(
    ("file", "text", "classes", "row"),
    [
        ("classes.txt", "\ufeffsky\n\ncar", ("sky", "car"), [1, 1, 255, 255]),
        ("classes.json", '["sky", "road", "car"]', ("sky", "road", "car"), [2, 2, 255, 255]),
        ("classes.json", '{"7": "tree", "2": "car"}', ("car", "tree"), [0, 0, 1, 255]),
    ],
)
def test_names_stand_in_a_file(tmp_path: Path, file: str, text: str, classes: tuple[str, ...], row: list[int]) -> None:
    root = folder(tmp_path / "train", {"a": MASK}, names="")
    (tmp_path / file).write_text(text, "utf-8")  # beside the parts of the data
    data = load_masks(root)
    assert data.classes == classes
    assert truth(data)[0][1] == row


def test_masks_of_all_forms_of_one_channel(tmp_path: Path) -> None:
    indexed = Image.fromarray(MASK)
    indexed.putpalette(list(range(256)) * 3)
    indexed.save(tmp_path / "p.png")
    assert np.array_equal(read_values(str(tmp_path / "p.png")), MASK)
    Image.fromarray(MASK.astype(np.uint16) + 300).save(tmp_path / "w.png")
    assert np.array_equal(read_values(str(tmp_path / "w.png")), MASK.astype(int) + 300)
    Image.fromarray(MASK > 0).save(tmp_path / "b.png")
    assert np.array_equal(read_values(str(tmp_path / "b.png")), MASK > 0)
    Image.new("RGB", (4, 3)).save(tmp_path / "c.png")
    with pytest.raises(
        ImageError, match=r"has colours \(RGB\); a mask must have one channel of class numbers; convert it"
    ):
        read_values(str(tmp_path / "c.png"))
    (tmp_path / "d.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    with pytest.raises(ImageError, match=r"d\.png"):
        read_values(str(tmp_path / "d.png"))


def test_a_mask_of_another_size_is_told(tmp_path: Path) -> None:
    root = folder(tmp_path, {"a": MASK, "b": MASK})
    Image.fromarray(MASK.T).save(root / "labels" / "b.png")
    data = load_masks(root)
    truth(data, 0)
    with pytest.raises(ImageError) as caught:
        truth(data, 1)
    assert str(caught.value) == (
        f"{root / 'labels' / 'b.png'}: has 3 by 4 pixels, but its picture {root / 'images' / 'b.jpg'} has 4 by 3; save "
        "the mask in the size of the picture"
    )


def test_what_has_no_partner_is_noted(tmp_path: Path) -> None:
    root = folder(tmp_path, {"a": MASK, "b": MASK, "c": MASK})
    (root / "labels" / "b.png").unlink()
    (root / "images" / "c.jpg").unlink()
    data = load_masks(root)
    assert len(data) == 1
    assert data.notes == (
        "left out 1 picture(s) without a mask: b.jpg", "left out 1 mask(s) without a picture: c.png",
    )  # fmt: skip
    (root / "labels" / "a.png").unlink()
    with pytest.raises(DataError, match=r"has a mask of the same name in .*labels\. Use the same names"):
        load_masks(root)


@pytest.mark.parametrize(
    ("names", "says"),
    [
        (
            "",
            (
                "has no class names. Add classes.txt with one name per line from value 0, or "
                'classes.json, or give --labels "sky, road, car".'
            ),
        ),
        ("sky\nsky\n", "classes.txt must have at least two different names, for values from 0, got 'sky' twice."),
        ("sky\n", "for values from 0, got 1 class(es)."),
    ],
)
def test_names_that_cannot_be_used(tmp_path: Path, names: str, says: str) -> None:
    with pytest.raises(DataError) as caught:
        load_masks(folder(tmp_path, {"a": MASK}, names=names))
    assert says in str(caught.value)


def test_a_folder_without_masks_is_told(tmp_path: Path) -> None:
    (tmp_path / "images").mkdir()
    assert not is_masked(tmp_path)
    with pytest.raises(
        DataError,
        match=(
            r"has no folder of masks\. Add labels/ with one mask per picture \(images/a\.jpg, "
            r"labels/a\.png\), or give a COCO JSON file\."
        ),
    ):
        load_masks(tmp_path)
    (tmp_path / "masks").mkdir()
    assert is_masked(tmp_path)
    (tmp_path / "classes.json").write_text('{"0": ')
    with pytest.raises(DataError, match=r"classes\.json cannot be read"):
        load_masks(tmp_path)


def coco(root: Path, annotations: list[dict[str, Any]], **more: Any) -> Path:
    Image.new("RGB", (6, 4)).save(root / "a.png")
    data = {
        "images": [{"id": 5, "file_name": "a.png", "width": 6, "height": 4}, *more.pop("images", [])],
        "categories": [{"id": 3, "name": "road"}, {"id": 9, "name": "car"}, *more.pop("categories", [])],
        "annotations": annotations,
    }
    (root / "coco.json").write_text(json.dumps({**data, **more}))
    return root / "coco.json"


ROAD = {"image_id": 5, "category_id": 3, "segmentation": [[0, 0, 5, 0, 5, 3, 0, 3]]}
CAR = {"image_id": 5, "category_id": 9, "segmentation": encode(np.arange(24).reshape(4, 6) == 7)}


def test_coco_polygons_and_runs_the_small_over_the_large(tmp_path: Path) -> None:
    data = load_masks(coco(tmp_path, [CAR, ROAD]))
    assert data.classes == ("road", "car")
    rows, _ = truth(data)
    assert rows == [[0] * 6, [0, 1, *[0] * 4], [0] * 6, [0] * 6]
    assert is_masked(tmp_path / "coco.json")
    # What nobody annotated counts for nothing, unless there is a class for it.
    assert truth(load_masks(coco(tmp_path, [CAR])))[0][0] == [255] * 6
    rest = [{"id": 1, "name": "background"}]
    assert truth(load_masks(coco(tmp_path, [CAR], categories=rest)))[0][0] == [2] * 6
    # What segment wrote, it reads.
    moved = tmp_path / "photos"
    moved.mkdir()
    path = coco(tmp_path, [CAR, ROAD])
    (tmp_path / "a.png").rename(moved / "a.png")
    assert len(load_masks(path, pictures=moved)) == 1


def test_coco_files_with_gaps_are_named_and_the_rest_is_read(tmp_path: Path) -> None:
    images = [{"id": 6, "file_name": "gone.png", "width": 6, "height": 4}]
    box = {"image_id": 5, "category_id": 3, "bbox": [0, 0, 2, 2], "segmentation": []}
    data = load_masks(coco(tmp_path, [ROAD, box], images=images))
    assert len(data) == 1
    long = load_masks(coco(tmp_path, [ROAD], images=[{**images[0], "file_name": "x" * 5000}]))
    assert long.notes[0].startswith("1 picture(s) of coco.json do not exist: xxx")
    assert data.notes == (
        "1 picture(s) of coco.json do not exist: gone.png", "left out 1 annotation(s) without a mask",
    )  # fmt: skip


@pytest.mark.parametrize(
    ("annotations", "says"),
    [
        ([{**ROAD, "segmentation": {"size": [4, 6], "counts": "1"}}], "pixels, got 1. Export it again."),
        (
            [{**ROAD, "segmentation": encode(np.ones((2, 2)))}],
            "has a mask of 2 by 2 pixels, which differs from the size of the picture; export it again",
        ),
        ([{**ROAD, "segmentation": [["a", 1]]}], "has an invalid polygon"),
    ],
)
def test_a_shape_that_is_none_is_told_of_its_picture(
    tmp_path: Path, annotations: list[dict[str, Any]], says: str
) -> None:
    data = load_masks(coco(tmp_path, annotations))
    with pytest.raises(ImageError, match=says):
        truth(data)


def test_coco_of_another_picture_and_none_at_all(tmp_path: Path) -> None:
    data = load_masks(coco(tmp_path, [ROAD]))
    with pytest.raises(ImageError, match="export them again, or use the picture that was annotated"):
        data.truth(data.items[0], (9, 9))
    for text, says in (("[]", "is not a valid COCO file"), ('{"images": []}', "it has no 'categories'")):
        (tmp_path / "coco.json").write_text(text)
        with pytest.raises(DataError, match=says):
            load_masks(tmp_path / "coco.json")
    no_number = {"id": [], "file_name": "b.png", "width": 6, "height": 4}
    with pytest.raises(
        DataError,
        match=(
            r"is not a valid COCO file \(unhashable type: 'list'\)\. It must have images, "
            r"categories and annotations with segmentations\."
        ),
    ):
        load_masks(coco(tmp_path, [ROAD], images=[no_number]))
    with pytest.raises(DataError, match="None of the 1 pictures"):
        load_masks(coco(tmp_path, []))
