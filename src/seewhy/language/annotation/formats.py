"""Annotations as files: JSONL (whole, both ways), Parquet (one row a picture), Label Studio (both ways)."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from ...errors import DataError, InputError, MissingExtraError
from ...storage.marks import MADE_BY
from ...storage.output import check_file, write
from ...storage.reading import json_lines, json_value, read_text, reason
from .figures import left_out
from .records import ATTRIBUTES, TASKS, Picture, check_content, check_judgement, check_versions, objects_of
from .rounds import StopRule, text_of
from .store import AnnotationStore

FORMAT = 1
ENDINGS = (".jsonl", ".parquet", ".json")

LABEL_STUDIO_CONFIG = f"""<View>
  <Image name="image" value="$image"/>
  <RectangleLabels name="label" toName="image"><Label value="object"/></RectangleLabels>
  <TextArea name="name" toName="image" perRegion="true" maxSubmissions="1"/>
  <TextArea name="description" toName="image" perRegion="true" maxSubmissions="1"/>
  <Choices name="attributes" toName="image" perRegion="true" choice="multiple">
    {"".join(f'<Choice value="{a}"/>' for a in ATTRIBUTES)}
  </Choices>
  <TextArea name="caption" toName="image" maxSubmissions="1"/>
</View>
"""
"""Labelling interface under which Label Studio shows what :func:`export` writes as ``.json``."""


def records(store: AnnotationStore, rule: StopRule | None = None) -> Iterator[dict[str, Any]]:
    """One record a picture, with everything: objects, text, every version, every judgement."""
    rule = rule or StopRule()
    judged: dict[str, list[dict[str, Any]]] = {}
    for row in store.judgements():
        judged.setdefault(row.pop("picture"), []).append(row)
    for picture in store.pictures():
        versions = {task: store.versions(picture.key, task) for task in TASKS}
        objects = objects_of(versions["objects"][-1].content) if versions["objects"] else ()
        text = text_of(versions["caption"][-1].content) if versions["caption"] else ""
        yield {
            "format": FORMAT,
            "image": picture.name,
            "digest": picture.digest,
            "width": picture.width,
            "height": picture.height,
            "objects": [o.to_json() for o in objects],
            "text": text,
            "left_out": list(left_out(objects, text)) if text else [],
            "finished": rule.finished(versions["caption"]),
            "versions": [v.to_json() for task in TASKS for v in versions[task]],
            "judgements": judged.get(picture.key, []),
        }


def check_export(path: str | Path, *, force: bool = False) -> Path:
    """The path, if annotations can be written there; asked before the work begins."""
    path = Path(path)
    if path.suffix not in ENDINGS:
        raise DataError(
            f"Annotations were to be written as {path.suffix!r}. {', '.join(ENDINGS)} (Label Studio) were expected. "
            f"Change the ending of {path}."
        )
    return check_file(path, force=force)


def export(store: AnnotationStore, path: str | Path, rule: StopRule | None = None, *, force: bool = False) -> int:
    """Write all annotations; the ending decides."""
    path = check_export(path, force=force)
    rows = list(records(store, rule))
    data: str | bytes
    if path.suffix == ".jsonl":
        data = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    elif path.suffix == ".json":
        data = json.dumps([label_studio(row) for row in rows], indent=1, ensure_ascii=False)
    else:
        data = _parquet(rows)
    write(path, data, force=force)
    return len(rows)


def _parquet(rows: list[dict[str, Any]]) -> bytes:
    """Nested columns for objects; versions and judgements, whose forms differ, as JSON."""
    import io

    try:
        import pyarrow as pa
        from pyarrow.parquet import write_table
    except ImportError as error:
        raise MissingExtraError("parquet", "Writing Parquet") from error
    text, texts, whole = pa.string(), pa.list_(pa.string()), pa.int32()
    box = pa.list_(pa.float64())
    thing = pa.struct({"id": text, "label": text, "box": box, "description": text, "attributes": texts})
    columns = {"format": whole, "image": text, "digest": text, "width": whole, "height": whole}
    columns |= {"objects": pa.list_(thing), "text": text, "left_out": texts, "finished": text}
    schema = pa.schema({**columns, "versions": text, "judgements": text})
    flat = [{**row, **{key: json.dumps(row[key]) for key in ("versions", "judgements")}} for row in rows]
    file = io.BytesIO()
    write_table(pa.Table.from_pylist(flat, schema.with_metadata({MADE_BY: str(FORMAT)})), file)
    return file.getvalue()


def label_studio(record: dict[str, Any]) -> dict[str, Any]:
    """A record as one of Label Studio's tasks: boxes in per cent, their names and descriptions by region."""
    size = {"original_width": record["width"], "original_height": record["height"], "image_rotation": 0}
    result: list[dict[str, Any]] = []
    for one in record["objects"]:
        left, top, right, bottom = one["box"]
        place = {"x": 100 * left, "y": 100 * top, "width": 100 * (right - left), "height": 100 * (bottom - top)}
        place["rotation"] = 0
        base = {"id": one["id"], "to_name": "image", **size}
        values: list[tuple[str, str, dict[str, Any]]] = [
            ("label", "rectanglelabels", {"rectanglelabels": ["object"]}),
            ("name", "textarea", {"text": [one["label"]]}),
            ("description", "textarea", {"text": [one["description"]]}),
        ]
        if one["attributes"]:
            values.append(("attributes", "choices", {"choices": one["attributes"]}))
        result += [
            {**base, "from_name": name, "type": kind, "value": {**place, **value}} for name, kind, value in values
        ]
    caption = {"from_name": "caption", "to_name": "image", "type": "textarea", "value": {"text": [record["text"]]}}
    result.append({"id": "caption", **caption})
    data = {"image": record["image"], "digest": record["digest"]}
    return {"data": data, "annotations": [{"result": result}]}


def read_label_studio(task: dict[str, Any]) -> dict[str, Any]:
    """``objects`` and ``text`` of one of Label Studio's tasks; the last annotation that was not cancelled counts."""
    try:
        result = [one for one in task["annotations"] if not one.get("was_cancelled")][-1]["result"]
        text = ""
        things: dict[str, dict[str, Any]] = {}
        for row in result:
            value, name = row["value"], row["from_name"]
            if row["type"] == "textarea" and "x" not in value and name == "caption":
                text = _joined(value["text"])
                continue
            if "x" not in value:
                continue
            thing = things.setdefault(
                row["id"], {"id": row["id"], "label": "", "description": "", "attributes": [], "box": _fractions(value)}
            )
            if row["type"] == "rectanglelabels" and not thing["label"] and value["rectanglelabels"] != ["object"]:
                thing["label"] = " ".join(value["rectanglelabels"])
            elif row["type"] == "textarea":
                thing["label" if name == "name" else "description"] = _joined(value["text"])
            elif row["type"] == "choices":
                thing["attributes"] = value["choices"]
        return {"objects": list(things.values()), "text": text, "digest": task["data"].get("digest")}
    except (KeyError, TypeError, IndexError, AttributeError) as error:
        raise DataError(
            f"A Label Studio task lacks {error}. Tasks as Label Studio exports them as JSON were expected. "
            "Export them again with the interface that docs/annotate.md shows."
        ) from error


def _joined(text: str | list[str]) -> str:
    return text if isinstance(text, str) else "\n".join(text)


def _fractions(value: dict[str, Any]) -> list[float]:
    left, top = value["x"] / 100, value["y"] / 100
    edges = (left, top, left + value["width"] / 100, top + value["height"] / 100)
    return [round(min(max(v, 0.0), 1.0), 5) for v in edges]


def bring_in(store: AnnotationStore, path: str | Path, author: str = "import") -> tuple[int, list[str]]:
    """Take annotations back in; pictures are recognised by their digest, and tasks without one by their file name."""
    path = Path(path)
    known = _Known(store.pictures())
    n, notes, takes = 0, [], []
    for number, row in enumerate(_read(path), 1):
        picture = known.of(row)
        try:
            take = _task(row) if "annotations" in row else _record(row)
        except (InputError, DataError) as error:
            raise DataError(f"{path}, picture {number}: {error}") from error
        if picture is None:
            notes.append(f"picture {number} of {path.name} is none of those here: neither by its bytes nor by its name")
        else:
            takes.append((picture, take))
    for picture, take in takes:
        took = take(store, picture, author)
        n += took
        if not took:
            notes.append(f"{picture.name} has these or other annotations already, or the file has none for it")
    return n, notes


class _Known:
    """Pictures by their digest, and by their file name where only one has it."""

    def __init__(self, pictures: Sequence[Picture]) -> None:
        self.by_digest = {p.digest: p for p in pictures}
        names = Counter(Path(p.name).name for p in pictures)
        self.by_name = {Path(p.name).name: p for p in pictures if names[Path(p.name).name] == 1}

    def of(self, row: dict[str, Any]) -> Picture | None:
        data = row.get("data")
        about = data if isinstance(data, dict) else row
        digest, image = about.get("digest"), about.get("image")
        if isinstance(digest, str):
            return self.by_digest.get(digest)
        # Label Studio puts its own folder and sometimes a number and a hyphen before an uploaded file's name.
        name = str(image).replace("\\", "/").rpartition("/")[2].rpartition("?d=")[2]
        return self.by_name.get(name) or self.by_name.get(name.partition("-")[2])


def _read(path: Path) -> list[dict[str, Any]]:
    try:
        text = read_text(path)
        rows = json_value(text) if path.suffix == ".json" else json_lines(text)
    except (OSError, ValueError) as error:
        raise DataError(
            f"{path} cannot be read: {reason(error)}. JSONL of this program or JSON of Label Studio do."
        ) from error
    if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        raise DataError(f"{path} holds something that is no object. One object a picture was expected.")
    return rows


Take = Callable[[AnnotationStore, Picture, str], bool]


def _record(row: dict[str, Any]) -> Take:
    """A record of this program, checked."""
    judgements = row.get("judgements", [])
    if "versions" not in row or not isinstance(judgements, list):
        raise DataError("The record has no versions. JSONL as this program exports it was expected.")
    versions, judged = check_versions(row["versions"]), [check_judgement(one) for one in judgements]

    def take(store: AnnotationStore, picture: Picture, _author: str) -> bool:
        return bool(versions) and store.restore(picture.key, versions, judged)

    return take


def _task(row: dict[str, Any]) -> Take:
    """A task of Label Studio, checked; one that nobody has annotated there gives nothing."""
    annotations = row["annotations"]
    if isinstance(annotations, list) and all(isinstance(a, dict) and a.get("was_cancelled") for a in annotations):
        return lambda _store, _picture, _author: False
    given = read_label_studio(row)
    wanted = {"objects": {"objects": given["objects"]}, "caption": {"text": given["text"]}}
    contents = {task: check_content(task, content) for task, content in wanted.items()}

    def take(store: AnnotationStore, picture: Picture, author: str) -> bool:
        took = False
        for task, content in contents.items():
            latest = store.latest(picture.key, task)
            if content != (latest.content if latest else check_content(task, {})):
                store.save(picture.key, task, author, content, latest.number if latest else 0, 0.0)
                took = True
        return took

    return take
