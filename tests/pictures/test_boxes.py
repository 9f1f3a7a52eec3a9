"""Boxes: every format there and back, what is wrong in a file named, and nothing lost with it."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from seewhy.errors import DataError, ForeignFileError, UnknownNameError
from seewhy.pictures.boxes import BoxData, BoxedPicture, BoxRecord, Gathering, box_formats, load_boxes, save_boxes
from seewhy.pictures.boxes.formats import parse_xml

SIZE = (40, 30)
FORMATS = list(box_formats)


def picture(path: Path, size: tuple[int, int] = SIZE) -> str:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size).save(path)
    return str(path)


def coco(path: Path, boxes: list[dict[str, object]], **more: object) -> Path:
    whole = {
        "images": [{"id": 7, "file_name": "a.png", "width": 40, "height": 30}],
        "categories": [{"id": 3, "name": "cat"}, {"id": 9, "name": "dog"}],
        "annotations": [{"id": i, "image_id": 7, "category_id": 3, **b} for i, b in enumerate(boxes)],
    }
    path.write_text(json.dumps({**whole, **more}))
    return path


numbers = st.floats(0, 1, width=32)


@st.composite
def records(draw: st.DrawFn) -> BoxRecord:
    left, right = sorted((draw(numbers) * SIZE[0], draw(numbers) * SIZE[0]))
    top, bottom = sorted((draw(numbers) * SIZE[1], draw(numbers) * SIZE[1]))
    left, top = min(left, 39.0), min(top, 29.0)
    box = (left, top, max(right, left + 0.5), max(bottom, top + 0.5))
    label = draw(st.sampled_from(["cat", "=dog", "a <b> & c, d", "Käfer"]))
    return BoxRecord(box, label, draw(st.none() | st.floats(0, 1)))


@settings(max_examples=12, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@pytest.mark.parametrize("name", FORMATS)
@given(boxes=st.lists(records(), max_size=4), data=st.data())
def test_there_and_back(name: str, boxes: list[BoxRecord], data: st.DataObject, tmp_path: Path) -> None:
    images = [picture(tmp_path / "images" / part) for part in ("x/1.png", "x/2.png", "y/1.png")]
    cut = data.draw(st.integers(0, len(boxes)))
    shared = (boxes[:cut], [], boxes[cut:])
    pictures = tuple(BoxedPicture(i, SIZE, tuple(b)) for i, b in zip(images, shared, strict=True))
    classes = tuple(dict.fromkeys(b.label for b in boxes)) or ("cat",)
    save_boxes(BoxData(pictures, classes), tmp_path / name, format=name, force=True)
    found = load_boxes(tmp_path / name, format=name, pictures=tmp_path / "images" if name == "yolo" else None)
    by_file = {Path(p.image).resolve(): p for p in found.pictures}
    assert len(by_file) == 3
    assert found.left_out == ()
    assert found.missing == ()
    for one in pictures:
        back = by_file[Path(one.image).resolve()]
        assert back.size == SIZE
        assert [(b.label, b.score, b.ignored) for b in back.boxes] == [(b.label, b.score, False) for b in one.boxes]
        assert [b.box for b in back.boxes] == [pytest.approx(b.box, abs=1e-9) for b in one.boxes]
    if name != "csv":
        assert found.classes == classes


def test_what_is_wrong_with_a_box_is_named_and_the_rest_is_read(tmp_path: Path) -> None:
    picture(tmp_path / "a.png")
    wrong: list[dict[str, object]] = [
        {"bbox": [1, 2, 3, 4]},
        {"bbox": [5, 5, 0, 4]},
        {"bbox": [50, 5, 3, 4]},
        {"bbox": [35, -2, 10, 10]},
        {"bbox": [1, 2, 3]},
        {"bbox": [1, 2, 3, "x"]},
        {"bbox": [1, 2, 3, 4], "image_id": 8},
        {"bbox": [1, 2, 3, 4], "category_id": 4},
        {"bbox": [1, 1, 9, 9], "iscrowd": 1, "score": 0.5},
        {"bbox": [5, 30, 3, 4]},
        {"bbox": [1, 2, 3, 4], "score": "sure"},
        {"bbox": [True, 2, 3, 4]},
        {"bbox": [35, 0, 10, 8], "iscrowd": 1},
    ]
    found = load_boxes(coco(tmp_path / "boxes.json", wrong))
    edge = (35, 0, 40, 8)
    assert [b.box for b in found.pictures[0].boxes] == [(1, 2, 4, 6), edge, (1, 1, 10, 10), edge]
    assert found.pictures[0].boxes[2] == BoxRecord((1, 1, 10, 10), "cat", 0.5, True)
    assert [b.ignored for b in found.pictures[0].boxes] == [False, False, True, True]
    assert [(o.where.rpartition(" ")[2], o.why) for o in found.left_out] == [
        ("1", "has no area"),
        ("2", "lies outside the picture"),
        ("4", "has no bbox with four numbers"),
        ("5", "has a coordinate that is not a number"),
        ("6", "has an unknown image (8)"),
        ("7", "has an unknown category (4)"),
        ("9", "lies outside the picture"),
        ("10", "has no number for its score"),
        ("11", "has a coordinate that is not a number"),
    ]
    assert found.notes[0] == "1 box(es) left out, each of which has no area: boxes.json, annotation 1 (cat: 5, 5, 5, 9)"
    assert "2 box(es) clipped to their picture: boxes.json, annotation 3, boxes.json, annotation 12" in found.notes
    assert "1 class(es) have no box: dog" in found.notes
    assert found.classes == ("cat", "dog")


def test_missing_pictures_stay_and_are_named(tmp_path: Path) -> None:
    path = coco(tmp_path / "boxes.json", [{"bbox": [1, 2, 3, 4]}])
    found = load_boxes(path)
    assert found.missing == (str(tmp_path / "a.png"),)
    assert found.n_boxes == 1
    assert found.notes[0] == f"1 picture(s) do not exist: {tmp_path / 'a.png'}"
    with pytest.raises(DataError) as caught:
        found.present()
    assert str(caught.value) == (
        f"None of the 1 pictures exists. The first is {tmp_path / 'a.png'}. Give their folder with --pictures."
    )
    picture(tmp_path / "elsewhere" / "a.png")
    assert load_boxes(path, pictures=tmp_path / "elsewhere").missing == ()
    picture(tmp_path / "b.png")
    both = [{"id": 7, "file_name": "a.png"}, {"id": 8, "file_name": "b.png"}]
    there = load_boxes(coco(path, [{"bbox": [1, 1, 0, 0]}], images=both)).present()
    assert ([Path(p.image).name for p in there.pictures], len(there.left_out), there.missing) == (["b.png"], 1, ())


@pytest.mark.parametrize("name", [n for n in FORMATS if n != "yolo"])
def test_what_does_not_count_and_scores_of_nothing_are_kept(name: str, tmp_path: Path) -> None:
    boxes = (BoxRecord((1, 2, 4, 8), "=cat", 0.0, True), BoxRecord((2, 2, 4, 4.5), "dog", None, False))
    image = picture(tmp_path / "real" / "deep" / "a & b.png")
    (tmp_path / "link").symlink_to(tmp_path / "real" / "deep")
    gone = str(tmp_path / "real" / "gone" / "c.png")
    data = BoxData((BoxedPicture(image, SIZE, boxes), BoxedPicture(gone, SIZE, boxes[:1])), ("=cat", "dog"))
    made = save_boxes(data, tmp_path / "link" / name, format=name)
    found = load_boxes(tmp_path / "link" / name, format=name)
    assert [p.boxes for p in found.pictures] == [boxes, boxes[:1]]
    assert os.path.samefile(found.pictures[0].image, image)
    assert found.missing == (gone,)
    assert any(gone in m.read_text() for m in made)
    text = made[0].read_text()
    assert name != "coco" or [a["area"] for a in json.loads(text)["annotations"]] == [18, 5, 18]
    assert ",=cat" not in text


def test_a_size_that_is_stated_counts_and_what_is_none_is_looked_up(tmp_path: Path) -> None:
    picture(tmp_path / "a.PNG")
    image = {"id": 7, "file_name": "a.PNG"}
    for width, height in ((*SIZE,), (0, 0), (40.5, 60), (None, 60)):
        stated = {**image, "width": width, "height": height}
        assert load_boxes(coco(tmp_path / "boxes.json", [], images=[stated])).pictures[0].size == SIZE
    row = "b.PNG,80,60,70,1,79,4,cat"
    (tmp_path / "t.csv").write_text(f"image,width,height,left,top,right,bottom,label\n{row}\n")
    assert [(p.size, len(p.boxes)) for p in load_boxes(tmp_path / "t.csv").pictures] == [((80, 60), 1)]
    reading = Gathering(tmp_path)
    for size in (None, (4, 3), None, (8, 6)):
        reading.picture("x.png", size)
    assert reading.done().pictures[0].size == (4, 3)


def test_where_pictures_and_files_are_looked_for(tmp_path: Path) -> None:
    picture(tmp_path / "val2017" / "a.png")
    assert load_boxes(coco(tmp_path / "instances_val2017.json", [])).missing == ()
    coco(tmp_path / "boxes.json", [], categories=[{"id": 1, "name": "own"}])
    coco(tmp_path / "annotations.json", [], categories=[{"id": 1, "name": "other"}])
    assert load_boxes(tmp_path).classes == ("own",)
    (tmp_path / "classes.txt").write_text("cat\n\ndog\n")
    picture(tmp_path / "b.PNG")
    (tmp_path / "b.txt").write_text("2 .5 .5 .5 .5\n0 .5 .5 .5 .5 .5 .5 .5\n")
    flat = load_boxes(tmp_path, format="yolo")
    assert [(Path(p.image).name, [b.label for b in p.boxes]) for p in flat.pictures] == [("b.PNG", ["dog"])]
    assert [o.why for o in flat.left_out] == ["is not a class with four numbers"]
    (tmp_path / "labels").mkdir()
    (tmp_path / "labels" / "b.txt").write_text("0 .85 .7 .3 .6\n")
    inside = load_boxes(tmp_path, format="yolo")
    assert [(Path(p.image).name, len(p.boxes)) for p in inside.pictures] == [("b.PNG", 1)]
    assert not [n for n in inside.notes if "cut" in n]


def test_no_object_and_ten_thousand(tmp_path: Path) -> None:
    picture(tmp_path / "a.png")
    assert load_boxes(coco(tmp_path / "boxes.json", [])).n_boxes == 0
    many = BoxData((BoxedPicture(str(tmp_path / "a.png"), SIZE, (BoxRecord((1, 1, 2, 2), "cat"),) * 10_000),), ("cat",))
    save_boxes(many, tmp_path / "many")
    assert load_boxes(tmp_path / "many").n_boxes == 10_000


def test_yolo_as_others_lay_it_out(tmp_path: Path) -> None:
    for part, text in (("train", "0 0.5 0.5 0.5 0.5\n2 .5 .5 .1 .1\nx\n"), ("val", "1 0 0 1 0 1 1 0 1\n")):
        picture(tmp_path / part / "images" / f"{part}.jpg")
        (tmp_path / part / "labels").mkdir()
        (tmp_path / part / "labels" / f"{part}.txt").write_text(text)
    picture(tmp_path / "val" / "images" / "empty.jpg")
    (tmp_path / "val" / "labels" / "lost.txt").write_text("0 .5 .5 .1 .1\n")
    (tmp_path / "data.yaml").write_text("nc: 2\nnames: [cat, dog]\n")
    found = load_boxes(tmp_path)
    assert {Path(p.image).name: [b.box for b in p.boxes] for p in found.pictures} == {
        "train.jpg": [(10, 7.5, 30, 22.5)], "val.jpg": [(0, 0, 40, 30)], "empty.jpg": [], "lost": [],
    }  # fmt: skip
    assert [o.why for o in found.left_out] == [
        "has a class without a name (2)",
        "has a class without a name (x)",
        "has an unknown size, as its picture does not exist",
    ]
    assert "1 polygon(s) were replaced by their bounding boxes" in found.notes


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("names: {0: a, 1: a}", "has 'a' twice. Rename or merge the classes."),
        ("nc: 2", "must have class names under 'names:', as a list or by number."),
        ("names: " + "[" * 2000, "cannot be read"),
        ("names: !!python/object/apply:os.system ['true']", "cannot be read"),
        (
            "a: &a [x, x]\nb: &b [*a, *a]\nnames: [*b, *b]",
            "refers to a list or mapping",
        ),
    ],
)
def test_names_that_are_none(text: str, says: str, tmp_path: Path) -> None:
    (tmp_path / "data.yaml").write_text(text)
    with pytest.raises(DataError, match=says):
        load_boxes(tmp_path, format="yolo")


def test_tables_of_others(tmp_path: Path) -> None:
    picture(tmp_path / "images" / "a.png")
    (tmp_path / "t.csv").write_text(
        "filename,class,xmin,ymin,xmax,ymax\na.png,cat,1,2,3,4\na.png,,1,2,3,4\na.png,cat,3,2,3,4\nb.png,,,,,\n"
    )
    found = load_boxes(tmp_path / "t.csv")
    assert [(Path(p.image).name, p.size, len(p.boxes)) for p in found.pictures] == [
        ("a.png", SIZE, 1),
        ("b.png", None, 0),
    ]
    assert [o.why for o in found.left_out] == ["has no class", "has no area"]
    (tmp_path / "v.csv").write_text(
        "filename,image,left,top,right,bottom,label,score,ignored\n"
        "x.png,a.png,1,2,3,4,z,0.5, TRUE \n ,  ,1,2,3,4,cat,,\nx.png,a.png,1,2,3,4,c10, ,no\nx.png,a.png,1,2,3,4,c9,,\n"
    )
    found = load_boxes(tmp_path / "v.csv")
    assert [(b.label, b.score, b.ignored) for b in found.pictures[0].boxes] == [
        ("z", 0.5, True), ("c10", None, False), ("c9", None, False),
    ]  # fmt: skip
    assert ([o.why for o in found.left_out], found.classes) == (
        ["has no picture"],
        ("c9", "c10", "z"),
    )
    assert [Path(p.image).name for p in found.pictures] == ["a.png"]
    (tmp_path / "t.csv").write_text("image,left,top\n")
    (tmp_path / "u.csv").write_text("image,left,top\na.png,1,2\n")
    with pytest.raises(DataError) as caught:
        load_boxes(tmp_path / "u.csv")
    assert str(caught.value) == (
        f"{tmp_path / 'u.csv'} has no column 'right' among 'image', 'left', 'top'. Rename the "
        "columns to image, left, top, right, bottom and label."
    )


BOMB = b'<!DOCTYPE a [<!ENTITY x "xxxx"><!ENTITY y "&x;&x;&x;">]><annotation><filename>&y;</filename></annotation>'


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (BOMB, "declares a document type"),
        (BOMB.decode().encode("utf-16"), "declares a document type"),
        (b'<!DOCTYPE a SYSTEM "file:///etc/passwd"><a/>', "declares a document type"),
        (b"<a>" * 100 + b"</a>" * 100, "nested too deeply"),
        (b"<a>", "it is not XML"),
        (b"<a>&x;</a>", "it is not XML"),
        (b"", "it is not XML"),
    ],
)
def test_xml_that_would_grow_or_reach_out(data: bytes, says: str) -> None:
    with pytest.raises(ValueError, match=says):
        parse_xml(data)


def test_one_bad_file_of_voc_is_named(tmp_path: Path) -> None:
    picture(tmp_path / "a.png")
    (tmp_path / "a.xml").write_text(
        "<annotation><filename>a.png</filename><size><width>0</width></size><object><name>cat</name>"
        "<difficult>1</difficult><bndbox><xmin>1</xmin><ymin>2</ymin><xmax>3</xmax><ymax>4</ymax></bndbox></object>"
        "<object><name>cat</name><bndbox><xmin>9</xmin></bndbox></object></annotation>"
    )
    (tmp_path / "b.xml").write_bytes(BOMB)
    found = load_boxes(tmp_path)
    assert [p.boxes for p in found.pictures] == [(BoxRecord((1, 2, 3, 4), "cat", None, True),)]
    assert found.pictures[0].size == SIZE
    assert [o.why for o in found.left_out] == ["has a coordinate that is not a number"]
    assert found.notes[0].startswith("1 file(s) cannot be read: b.xml (it declares a document type")
    (tmp_path / "a.xml").write_text(
        "<annotation><object><name> c<!-- x -->at </name><bndbox><xmin>1</xmin><ymin>2</ymin><xmax>3</xmax>"
        "<ymax>4</ymax></bndbox></object></annotation>"
    )
    assert [(Path(p.image).stem, p.boxes) for p in load_boxes(tmp_path).pictures] == [
        ("a", (BoxRecord((1, 2, 3, 4), "cat"),)),
    ]
    (tmp_path / "a.xml").unlink()
    with pytest.raises(DataError, match=r"cannot be read as VOC files: b\.xml"):
        load_boxes(tmp_path)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"images": [{"id": 1, "file_name": "a.png"}] * 2}, "the image 1 occurs twice. Correct it."),
        ({"images": [{"id": 1}]}, "the image 1 has no file_name"),
        ({"images": []}, "has no pictures. Give another file."),
        ({"images": {}}, "'images' must be a list of objects. Export it again as COCO."),
        ({"categories": [{"id": "x"}]}, "the id of a category must be an integer, got 'x'. Export it again."),
        ({"categories": [{"id": 1, "name": "a"}, {"id": 2, "name": "a"}]}, "twice. Rename or merge the categories."),
    ],
)
def test_coco_files_that_cannot_be_used(change: dict[str, object], says: str, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=says):
        load_boxes(coco(tmp_path / "boxes.json", [], **change))


def test_what_is_no_file_of_boxes(tmp_path: Path) -> None:
    (tmp_path / "list.json").write_text("[]")
    for path, says in (
        ("list.json", "is a list of detections without images"),
        ("", "Give a COCO file, YOLO labels with class names, VOC XML or a table."),
    ):
        with pytest.raises(DataError, match=says):
            load_boxes(tmp_path / path)
    with pytest.raises(DataError, match="does not exist"):
        load_boxes(tmp_path / "none")
    with pytest.raises(UnknownNameError, match="coco"):
        load_boxes(tmp_path, format="cocoo")


def test_writing_is_over_nothing_of_others(tmp_path: Path) -> None:
    data = BoxData((BoxedPicture(picture(tmp_path / "a.png"), SIZE, (BoxRecord((1, 2, 3, 4), "cat"),)),), ("cat",))
    for name in FORMATS:
        made = save_boxes(data, tmp_path / name, format=name)
        assert save_boxes(data, tmp_path / name, format=name) == made
        made[0].write_text("mine")
        with pytest.raises(ForeignFileError):
            save_boxes(data, tmp_path / name, format=name)
        assert made[0].read_text() == "mine"
    for name in ("yolo", "voc"):
        last = save_boxes(data, tmp_path / name, format=name, force=True)[-1]
        last.write_text("mine")
        first = next(p for p in (tmp_path / name).iterdir() if p.is_file())
        first.unlink()
        with pytest.raises(ForeignFileError):
            save_boxes(data, tmp_path / name, format=name)
        assert not first.exists()


def test_what_a_format_has_no_place_for(tmp_path: Path) -> None:
    crowd = BoxedPicture("a.png", SIZE, (BoxRecord((1, 2, 3, 4), "cat", None, True),))
    for pictures, name, says in (
        (
            (crowd,),
            "yolo",
            ("has a box marked as crowd or difficult, which YOLO cannot store. Write COCO or VOC, or remove the box."),
        ),
        (
            (BoxedPicture("a.png", None),),
            "yolo",
            (
                "YOLO needs the size of a.png, but the file does not exist. Give the folder of the "
                "pictures with --pictures."
            ),
        ),
        (
            (BoxedPicture("a.png", SIZE), BoxedPicture("a.jpg", SIZE)),
            "voc",
            "File names must differ by more than their extensions, got",
        ),
        (
            (BoxedPicture("a.png", SIZE), BoxedPicture("A.jpg", SIZE)),
            "voc",
            "File names must differ by more than their extensions, got",
        ),
    ):
        with pytest.raises(DataError, match=says):
            save_boxes(BoxData(pictures, ("cat",)), tmp_path / "out", format=name)
        assert not (tmp_path / "out").exists()
