"""What boxes, masks and annotations answer on small fixed data, as numbers; what earlier code kept is read."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import safe_open

import seewhy
from coloured import NAMES, colours, masked, picture, squares
from seewhy.dense import detectors, segmenters
from seewhy.dense.by_words import finder_for
from seewhy.dense.evaluation import evaluate_boxes, evaluate_segmenter
from seewhy.dense.saving import load_detector, load_segmenter, save_detector, save_segmenter
from seewhy.language.annotation.desk import AnnotationDesk, find_pictures, records
from seewhy.language.annotation.labels import LabelDecisions
from seewhy.language.annotation.records import DIMENSIONS, Picture, objects_of
from seewhy.language.annotation.rounds import StopRule, changes, coverage, merged
from seewhy.language.annotation.store import AnnotationStore
from seewhy.pictures.boxes import BoxData, BoxedPicture, BoxRecord, box_formats, load_boxes, save_boxes
from seewhy.pictures.pixel_classes import load_masks
from tiny_words import tiny_pair

KEPT = Path(__file__).parent / "kept_dense"
"""Models and a database of annotations that the code before this part wrote."""
SMALL_PROBE: dict[str, Any] = {"n_shapes": 3, "parts": 2, "rounds": 1}
SMALL_DITO: dict[str, Any] = {"n_steps": 3, "batch_size": 4, "n_proposed": 12, "template": "a {}"}
SMALL_DECODER: dict[str, Any] = {"n_steps": 4, "batch_size": 4, "width": 16}
CUP = {"id": "o1", "label": "cup", "box": [0.1, 0.2, 0.55555, 0.9], "description": "röd\nkopp", "attributes": ["shape"]}
DOG = {"id": "o2", "label": "dog", "box": [0.0, 0.0, 1.0, 0.33333], "description": "", "attributes": []}


def record() -> dict[str, Any]:
    """All of it."""
    with tempfile.TemporaryDirectory() as place:
        root = Path(place)
        answers = {
            "words": by_words(),
            "masks": of_masks(root),
            "boxes": of_boxes(root),
            "formats": box_files(root),
            "parts": parts(root),
            "annotation": annotation(root),
            "kept": kept(root),
        }
        return json.loads(json.dumps(answers).replace(str(root), "ROOT"))


def digest(value: Any) -> str:
    data = value.tobytes() if isinstance(value, np.ndarray) else value if isinstance(value, bytes) else value.encode()
    return hashlib.sha256(data).hexdigest()[:16]


def plain(text: str) -> str:
    """A file without what tells who wrote it."""
    return "\n".join(line for line in text.rstrip().splitlines() if not line.startswith("#"))


def by_words() -> dict[str, Any]:
    photo = np.random.default_rng(1).integers(0, 255, (150, 260, 3), np.uint8)
    photo[30:90, 40:120] = picture(80, 60)
    answers: dict[str, Any] = {}
    for name, how in {"plain": {}, "tiles": {"zoom": 4.0}, "mended": {"denoised": 0.4, "smoothed": 0.9}}.items():
        found = seewhy.segment(photo, list(NAMES), colours(), **how)
        answers[f"segment {name}"] = {**found.to_json(), "scores": digest(found.scores), "png": digest(found.to_png())}
    lite = seewhy.segment(photo, ["sky", "grass", "stone"], seewhy.encoder("lite0", engine="torch"), least_presence=0.0)
    answers["segment lite0"] = lite.to_json()
    detected = {
        "plain": finder_for(detectors, "word_regions", ["red", "blue"], colours()),
        "ranked": finder_for(detectors, "word_regions", ["red", "blue"], colours(), least_presence=0.0, part=0.0),
        "tiles": finder_for(
            detectors, "word_regions", ["red", "green"], colours(), size=4.0, most=5, least_presence=0.0
        ),
    }
    for name, detector in detected.items():
        answers[f"detect {name}"] = detector.detect(photo).to_json()
    return answers


def of_masks(root: Path) -> dict[str, Any]:
    data, new = load_masks(masked(root / "masks", 8, noise=40)), load_masks(masked(root / "new", 6, noise=60))
    answers: dict[str, Any] = {"notes": list(data.notes)}
    zero_shot = finder_for(segmenters, "maskclip", NAMES, colours())
    answers["maskclip"] = evaluate_segmenter(zero_shot, data, train=new).data
    for method, settings in (("linear", {}), ("denseclip", SMALL_DECODER)):
        made = segmenters[method](**settings).fit(colours(), data)
        answers[method] = evaluate_segmenter(made, new).data
        save_segmenter(made, root / method)
        again = load_segmenter(root / method, encoder=colours())
        first = again.segment(new.items[0].image)
        answers[f"{method} form"] = form(root / method)
        answers[f"{method} saved"] = {**first.to_json(), "scores": digest(first.scores.round(4))}
    return answers


def of_boxes(root: Path) -> dict[str, Any]:
    data, new = squares(root / "squares", 16), squares(root / "others", 6, seed=9)
    answers: dict[str, Any] = {}
    for method, encoder, how in (("linear", colours(), SMALL_PROBE), ("dito", tiny_pair(), SMALL_DITO)):
        made = seewhy.fit_detector(data, encoder, method=method, folds=2, **how)
        answers[f"{method} calibration"] = made.calibration
        again = load_detector(save_detector(made, root / f"det {method}"), encoder=encoder)
        answers[f"{method} form"] = form(root / f"det {method}")
        found = [one.to_json() for one in again.keeping(least=0.0, most=5).detect_all(p.image for p in new.pictures)]
        answers[f"{method} found"] = found
        all_ = [one.record() for one in again.keeping(least=0.0).detect_all(p.image for p in new.pictures)]
        report = evaluate_boxes(new, BoxData(tuple(all_), made.classes), n_draws=50, novel=["blue"])
        answers[f"{method} report"] = report.data
        if again.reads_words:
            answers["renamed"] = (
                again.for_classes(["green"]).keeping(least=0.0, most=3).detect(new.pictures[0].image).to_json()
            )
    answers["page"] = "AP50" in report.to_html()
    answers["by hand"] = evaluate_boxes(*by_hand(), n_draws=100).data
    return answers


def by_hand() -> tuple[BoxData, BoxData]:
    """Boxes moved about, some missing, some ignored, some of nothing."""
    rng, there, found = np.random.default_rng(3), [], []
    for i in range(12):
        own, guesses = [], []
        for _ in range(int(rng.integers(0, 5))):
            left, top, width, height = rng.integers(5, 60, 4).tolist()
            label = str(rng.choice(["a", "b", "c"]))
            own.append(BoxRecord((left, top, left + width, top + height), label, None, bool(rng.random() < 0.15)))
            for _ in range(int(rng.integers(0, 3))):
                dx, dy = rng.normal(0, 4, 2)
                name = label if rng.random() < 0.8 else "b"
                corners = (left + dx, top + dy, left + dx + width, top + dy + height)
                guesses.append(BoxRecord(corners, name, round(float(rng.random()), 2)))
        there.append(BoxedPicture(f"{i}.png", (128, 128), tuple(own)))
        found.append(BoxedPicture(f"{i}.png", (128, 128), tuple(guesses)))
    return BoxData(tuple(there), ("a", "b", "c")), BoxData(tuple(found), ("a", "b", "c"))


def box_files(root: Path) -> dict[str, Any]:
    data = squares(root / "written", 3)
    scored = [
        BoxedPicture(p.image, p.size, tuple(BoxRecord(b.box, b.label, 0.5 + 0.1 * i) for i, b in enumerate(p.boxes)))
        for p in data.pictures
    ]
    answers: dict[str, Any] = {}
    for name in box_formats:
        files = save_boxes(BoxData(tuple(scored), data.classes), root / "written" / name, format=name)
        texts = {str(f.relative_to(root)): f.read_text() for f in sorted(files)}
        read = load_boxes(files[0].parent, pictures=root / "written")
        answers[name] = {
            "files": {k: digest(plain(v)) for k, v in texts.items()},
            "read": repr(read.pictures),
            "classes": read.classes,
        }
    odd = {
        "images": [{"id": 1, "file_name": "0.png", "width": 64, "height": 64}, {"id": 2, "file_name": "x.png"}],
        "categories": [{"id": 5, "name": "red"}, {"id": 7, "name": "never"}],
        "annotations": [
            {"id": 1, "image_id": 1, "category_id": 5, "bbox": [-4, 3, 30, 20.5], "iscrowd": 1},
            {"id": 2, "image_id": 1, "category_id": 6, "bbox": [1, 3, 3, 2]},
            {"id": 3, "image_id": 1, "category_id": 5, "bbox": [1, 3, 0, 2]},
            {"id": 4, "image_id": 3, "category_id": 5, "bbox": [1, 3, 1, 2]},
            {"id": 5, "image_id": 1, "category_id": 5, "bbox": [1, 3, 1]},
            {"id": 6, "image_id": 1, "category_id": 5, "bbox": [70, 3, 5, 5]},
        ],
    }
    (root / "written" / "odd.json").write_text(json.dumps(odd))
    read = load_boxes(root / "written" / "odd.json")
    answers["odd"] = [
        repr(read.pictures),
        repr(read.left_out),
        list(read.missing),
        list(read.notes),
        list(read.classes),
    ]
    return answers


def parts(root: Path) -> dict[str, Any]:
    data = squares(root / "parts", 6)
    made = seewhy.fit_detector(data, colours(), method="linear", folds=2, **SMALL_PROBE)
    detector = finder_for(detectors, "word_regions", ["red", "blue"], colours(), least_presence=0.0)
    segmenter = finder_for(segmenters, "maskclip", NAMES, colours(), least_presence=0.0)
    save_boxes(data, root / "parts", format="coco")
    answers: dict[str, Any] = {}
    for name, finder, options in (
        ("word_regions", detector, {"known": root / "parts" / "boxes.json"}),
        ("linear", made, {"where": "occlusion"}),
        ("maskclip", segmenter, {}),
    ):
        explained = finder.explain(data.pictures[0].image, most=2, **options)
        answers[name] = [one.to_json() for one in explained]
    return answers


def written_annotations(path: Path, folder: Path) -> AnnotationStore:
    """Two pictures with objects, texts in rounds, drafts, texts from elsewhere, judgements and a decision."""
    store = AnnotationStore(path)
    store.add_pictures(p for p in find_pictures(str(folder / f"{i}.png") for i in range(2)) if isinstance(p, Picture))
    first, second = store.pictures()
    store.seed(first.key, "caption", "the model", {"text": "A dog."})
    store.save(first.key, "objects", "Ann", {"objects": [CUP, DOG]}, 0, 30)
    store.save(first.key, "caption", "Ann", {"text": "A red cup."}, 0, 60)
    store.save(first.key, "caption", "Bob", {"text": "A red cup on a table."}, 1, 20)
    store.save(first.key, "caption", "Bob", {"text": "Never kept."}, 1, 20)
    store.put_texts("elsewhere", [(first.key, "A cup."), (second.key, "A dark square.")])
    store.save(second.key, "caption", "Ann", {"text": "A grey square. It is dark."}, 0, 12)
    store.keep_draft(second.key, "caption", "Bob", {"text": "A grey"}, 1, 3, 0, tab="x", sequence=1)
    store.keep_draft(second.key, "caption", "Bob", {"text": "A grey thing"}, 1, 3, 0, tab="y", sequence=1)
    desk = AnnotationDesk(store)
    for name, score in (("Cy", 1), ("Di", 2), ("Ann", -1)):
        shown = desk.comparison(first.key, name)
        assert shown is not None
        desk.judge(first.key, name, dict.fromkeys(DIMENSIONS, score), shown["token"], 9)
    decisions = LabelDecisions(store, ("cup", "dog"))
    decisions.decide(first, "Ann", "changed", "dog", "cup", 0)
    decisions.decide(first, "Bob", "kept", "", "cup", 1)
    decisions.undo(first.key, "Ann", 2)
    return store


def annotated(store: AnnotationStore) -> dict[str, Any]:
    """What a database says, without the times at which things were written."""
    desk = AnnotationDesk(store)
    first, second = (p.key for p in store.pictures())
    answers = {
        "records": list(records(store, StopRule())),
        "overview": desk.overview(),
        "figures": desk.figures(),
        "next": [desk.next_for("Ann"), desk.next_for("Bob"), desk.next_for("Eve"), desk.next_comparison("Eve")],
        "states": [
            desk.state(k, task, who) for k in (first, second) for task in ("objects", "caption") for who in ("Bob",)
        ],
        "covered": desk.covered(first, "A dog beside things."),
        "pair": desk.pair(first),
        "comparison": desk.comparison(first, "Eve"),
        "texts": store.texts(first),
        "decisions": [LabelDecisions(store, ("cup",)).standing(), LabelDecisions(store, ("cup",)).history(first)],
        "jpeg": digest(desk.jpeg(first)),
    }
    return timeless(answers)


def timeless(value: Any) -> Any:
    if isinstance(value, dict):
        return {k: timeless(v) for k, v in value.items() if k != "made"}
    return [timeless(v) for v in value] if isinstance(value, list | tuple) else value


def pictures_in(folder: Path) -> Path:
    from PIL import Image

    folder.mkdir()
    for i in range(2):
        Image.fromarray(np.full((30, 40 + i, 3), 90 * i, np.uint8)).save(folder / f"{i}.png")
    return folder


def annotation(root: Path) -> dict[str, Any]:
    folder = pictures_in(root / "annotated")
    store = written_annotations(root / "a.sqlite", folder)
    answers = annotated(store)
    answers["coverage"] = [vars(c) for c in coverage(objects_of({"objects": [CUP, DOG]}), "A cup, and berries")]
    answers["changes"] = [tuple(c) for c in changes("a red cup. It is  big.", "a blue cup. It is big!")]
    answers["merged"] = merged("caption", {"text": "A. B. C."}, {"text": "A. D. C."}, {"text": "A. B. E. C."})
    answers["both"] = merged(
        "objects",
        {"objects": [CUP]},
        {"objects": [{**CUP, "label": "mug"}]},
        {"objects": [{**CUP, "label": "jug"}, DOG]},
    )
    return answers


def kept(root: Path) -> dict[str, Any]:
    """What earlier code wrote, opened by this one."""
    place = Path(shutil.copytree(KEPT, root / "kept"))
    photo = picture(96, 64)
    answers: dict[str, Any] = {}
    for name in ("linear", "denseclip"):
        answers[f"segmenter {name}"] = load_segmenter(place / f"seg {name}", encoder=colours()).segment(photo).to_json()
    detector = load_detector(place / "det linear", encoder=colours())
    answers["detector linear"] = detector.keeping(least=0.0, most=5).detect(photo).to_json()
    answers["measured linear"] = detector.measured
    store = AnnotationStore(place / "annotations.sqlite")
    answers["annotations"] = timeless([*records(store, StopRule())])
    answers["figures"] = AnnotationDesk(store).figures()
    return answers


def form(folder: Path) -> dict[str, Any]:
    """The card of a saved model but for its digests, and the shapes of its tensors."""
    (card,), (tensors,) = folder.glob("*.json"), folder.glob("*.safetensors")
    facts = json.loads(card.read_text())
    with safe_open(tensors, "np") as opened:
        shapes = {name: opened.get_slice(name).get_shape() for name in sorted(opened.keys())}
    return {"card": {k: v for k, v in facts.items() if k not in ("tensors", "seewhy", "sha256")}, "shapes": shapes}


def keep() -> None:
    """Write what :func:`kept` opens; done once, by the code before this part."""
    KEPT.mkdir()
    with tempfile.TemporaryDirectory() as place:
        root = Path(place)
        of_boxes(root)
        shutil.copytree(root / "det linear", KEPT / "det linear")
        data = load_masks(masked(root / "masks", 6, noise=40))
        for method, how in (("linear", {}), ("denseclip", {**SMALL_DECODER, "texts": "none", "prompting": "none"})):
            save_segmenter(segmenters[method](**how).fit(colours(), data), KEPT / f"seg {method}")
        os.chdir(root)  # names of pictures are kept as they are given
        written_annotations(KEPT / "annotations.sqlite", pictures_in(Path("annotated"))).close()


if __name__ == "__main__":
    keep()
