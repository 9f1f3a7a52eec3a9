"""Sizes that a file of boxes states and its pictures do not have, so that the boxes would lie elsewhere."""

from __future__ import annotations

import json
import time
from pathlib import Path

import pytest
from PIL import Image

from seewhy.errors import DataError
from seewhy.pictures.boxes import load_boxes
from seewhy.pictures.pixel_classes import decode

BOX = {"id": 1, "image_id": 1, "category_id": 1, "bbox": [2, 3, 10, 8]}


def picture(path: Path, orientation: int = 1) -> Path:
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.new("RGB", (40, 30)).save(path, exif=exif)
    return path


def coco(folder: Path, sizes: dict[str, tuple[int, int]]) -> Path:
    images = [{"id": i, "file_name": n, "width": w, "height": h} for i, (n, (w, h)) in enumerate(sizes.items(), 1)]
    boxes = [{**BOX, "id": i, "image_id": i} for i in range(1, len(images) + 1)]
    whole = {"images": images, "categories": [{"id": 1, "name": "cat"}], "annotations": boxes}
    (folder / "boxes.json").write_text(json.dumps(whole))
    return folder / "boxes.json"


def voc(folder: Path, sizes: dict[str, tuple[int, int]]) -> Path:
    for name, (width, height) in sizes.items():
        edges = "".join(f"<{e}>{v}</{e}>" for e, v in (("xmin", 2), ("ymin", 3), ("xmax", 12), ("ymax", 11)))
        (folder / f"{Path(name).stem}.xml").write_text(
            f"<annotation><filename>{name}</filename><size><width>{width}</width><height>{height}</height></size>"
            f"<object><name>cat</name><bndbox>{edges}</bndbox></object></annotation>"
        )
    return folder


def table(folder: Path, sizes: dict[str, tuple[int, int]]) -> Path:
    rows = [f"{name},{w},{h},2,3,12,11,cat\n" for name, (w, h) in sizes.items()]
    (folder / "t.csv").write_text("image,width,height,left,top,right,bottom,label\n" + "".join(rows))
    return folder / "t.csv"


@pytest.mark.parametrize("write", [coco, voc, table])
def test_a_picture_of_another_size_is_left_out_and_named(write, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    for name in ("a.png", "b.png", "c.png"):
        picture(tmp_path / name)
    data = load_boxes(write(tmp_path, {"a.png": (40, 30), "b.png": (80, 60), "c.png": (41, 30)}))
    assert [Path(p.image).name for p in data.pictures] == ["a.png"]
    assert data.n_boxes == 1
    assert data.notes[0] == (
        "2 picture(s) left out, because their size differs from the stated size: b.png (stated 80 by "
        "60, is 40 by 30), c.png (stated 41 by 30, is 40 by 30)"
    )


def test_a_photograph_turned_by_exif_is_known_by_its_upright_size(tmp_path: Path) -> None:
    picture(tmp_path / "up.jpg", 6)
    picture(tmp_path / "raw.jpg", 6)
    data = load_boxes(coco(tmp_path, {"up.jpg": (30, 40), "raw.jpg": (40, 30)}))
    assert [(Path(p.image).name, p.size) for p in data.pictures] == [("up.jpg", (30, 40))]
    assert "raw.jpg (stated 40 by 30, is 30 by 40 when it is upright)" in data.notes[0]


def test_where_no_size_is_right_nothing_is_read(tmp_path: Path) -> None:
    picture(tmp_path / "a.png")
    with pytest.raises(DataError) as caught:
        load_boxes(coco(tmp_path, {"a.png": (80, 60)}))
    assert str(caught.value) == (
        f"The sizes in {tmp_path / 'boxes.json'} differ from the sizes of its pictures: a.png (stated 80 by 60, is "
        "40 by 30). Give the pictures that were annotated, or export the boxes again for these pictures."
    )


def test_a_picture_that_is_not_there_has_the_size_stated(tmp_path: Path) -> None:
    data = load_boxes(coco(tmp_path, {"gone.png": (80, 60)}))
    assert (data.pictures[0].size, data.n_boxes) == ((80, 60), 1)


def test_a_run_length_without_end_is_refused_soon() -> None:
    begun = time.thread_time()
    with pytest.raises(
        DataError, match=r"must be a COCO run-length mask \{\"size\": \[height, width\], \"counts\": …\}, got"
    ):
        decode({"size": [2, 2], "counts": "o" * 2_000_000 + "0"})
    assert time.thread_time() - begun < 5
