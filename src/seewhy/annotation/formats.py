"""Annotations as files: JSONL (whole, both ways), Parquet (one row a picture), Label Studio (both ways)."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ..errors import DataError, InputError, MissingExtraError
from ..files import write_atomic
from .coverage import left_out
from .records import ATTRIBUTES, TASKS, Picture, Version, objects_of
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


def check_export(path: str | Path) -> Path:
    """The path, if annotations can be written there.

    Raises:
        DataError: another ending.
    """
    path = Path(path)
    if path.suffix not in ENDINGS:
        raise DataError(
            f"Annotations were to be written as {path.suffix!r}. {', '.join(ENDINGS)} (Label Studio) were expected. "
            f"Change the ending of {path}."
        )
    return path


def export(store: AnnotationStore, path: str | Path, rule: StopRule | None = None) -> int:
    """Write all annotations; the ending decides.

    Returns:
        How many pictures were written.

    Raises:
        DataError: another ending, or the file cannot be written.
        MissingExtraError: Parquet without pyarrow.
    """
    path = check_export(path)
    rows = list(records(store, rule))
    if path.suffix == ".jsonl":
        write_atomic(path, "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))
    elif path.suffix == ".json":
        write_atomic(path, json.dumps([label_studio(row) for row in rows], indent=1, ensure_ascii=False))
    else:
        _write_parquet(path, rows)
    return len(rows)


def _write_parquet(path: Path, rows: list[dict[str, Any]]) -> None:
    """Nested columns for objects; versions and judgements, whose forms differ, as JSON."""
    import io

    try:
        import pyarrow as pa
        from pyarrow.parquet import write_table
    except ImportError as error:
        raise MissingExtraError("parquet", "Writing Parquet") from error
    thing = pa.struct(
        [
            ("id", pa.string()),
            ("label", pa.string()),
            ("box", pa.list_(pa.float64())),
            ("description", pa.string()),
            ("attributes", pa.list_(pa.string())),
        ]
    )
    schema = pa.schema(
        [
            ("format", pa.int32()),
            ("image", pa.string()),
            ("digest", pa.string()),
            ("width", pa.int32()),
            ("height", pa.int32()),
            ("objects", pa.list_(thing)),
            ("text", pa.string()),
            ("left_out", pa.list_(pa.string())),
            ("finished", pa.string()),
            ("versions", pa.string()),
            ("judgements", pa.string()),
        ]
    )
    flat = [{**row, **{key: json.dumps(row[key]) for key in ("versions", "judgements")}} for row in rows]
    file = io.BytesIO()
    write_table(pa.Table.from_pylist(flat, schema), file)
    write_atomic(path, file.getvalue())


def label_studio(record: dict[str, Any]) -> dict[str, Any]:
    """A record as one of Label Studio's tasks: boxes in per cent, their names and descriptions by region."""
    size = {"original_width": record["width"], "original_height": record["height"], "image_rotation": 0}
    result: list[dict[str, Any]] = []
    for one in record["objects"]:
        left, top, right, bottom = one["box"]
        place = {
            "x": 100 * left,
            "y": 100 * top,
            "width": 100 * (right - left),
            "height": 100 * (bottom - top),
            "rotation": 0,
        }
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
    """``objects`` and ``text`` of one of Label Studio's tasks; the last annotation counts.

    Raises:
        DataError: it is not such a task.
    """
    try:
        result = task["annotations"][-1]["result"]
        text = ""
        things: dict[str, dict[str, Any]] = {}
        for row in result:
            value, name = row["value"], row["from_name"]
            if row["type"] == "textarea" and "x" not in value and name == "caption":
                text = "\n".join(value["text"])
                continue
            if "x" not in value:
                continue
            thing = things.setdefault(
                row["id"], {"id": row["id"], "label": "", "description": "", "attributes": [], "box": _fractions(value)}
            )
            if row["type"] == "rectanglelabels" and not thing["label"] and value["rectanglelabels"] != ["object"]:
                thing["label"] = " ".join(value["rectanglelabels"])
            elif row["type"] == "textarea":
                thing["label" if name == "name" else "description"] = "\n".join(value["text"])
            elif row["type"] == "choices":
                thing["attributes"] = value["choices"]
        return {"objects": list(things.values()), "text": text, "digest": task["data"].get("digest")}
    except (KeyError, TypeError, IndexError, AttributeError) as error:
        raise DataError(
            f"A Label Studio task lacks {error}. Tasks as Label Studio exports them as JSON were expected. "
            "Export them again with the interface that docs/annotate.md shows."
        ) from error


def _fractions(value: dict[str, Any]) -> list[float]:
    left, top = value["x"] / 100, value["y"] / 100
    edges = (left, top, left + value["width"] / 100, top + value["height"] / 100)
    return [round(min(max(v, 0.0), 1.0), 5) for v in edges]


def bring_in(store: AnnotationStore, path: str | Path, author: str = "import") -> tuple[int, list[str]]:
    """Take annotations back in; pictures are recognised by their digest.

    From JSONL every version and judgement comes back, into pictures that have none yet. From Label Studio each task
    becomes one more round by ``author``.

    Returns:
        Pictures that took something, and notes on those that did not.

    Raises:
        DataError: the file cannot be read or is of another form.
    """
    known = {p.digest: p for p in store.pictures()}
    n, notes = 0, []
    for row in _read(Path(path)):
        digest = row.get("digest") or (row.get("data") or {}).get("digest")
        picture = known.get(str(digest))
        if picture is None:
            notes.append(f"no picture here has the digest {str(digest)[:12]}")
            continue
        try:
            took = _take_task(store, picture, row, author) if "annotations" in row else _take(store, picture, row)
        except InputError as error:
            raise DataError(f"{path}: {error}") from error
        n += took
        if not took:
            notes.append(f"{picture.name} has annotations already, or the file has none for it")
    return n, notes


def _read(path: Path) -> list[dict[str, Any]]:
    try:
        text = path.read_text("utf-8-sig")
        rows = json.loads(text) if path.suffix == ".json" else [json.loads(line) for line in text.splitlines() if line]
    except (OSError, UnicodeDecodeError, json.JSONDecodeError) as error:
        raise DataError(f"{path} cannot be read: {error}. JSONL of this program or JSON of Label Studio do.") from error
    if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        raise DataError(f"{path} holds something that is no object. One object a picture was expected.")
    return rows


def _take(store: AnnotationStore, picture: Picture, row: dict[str, Any]) -> bool:
    if any(store.versions(picture.key, task) for task in TASKS):
        return False
    names = ("task", "number", "author", "kind", "content", "seconds", "base", "made")
    try:
        versions = [Version(*(v[name] for name in names)) for v in row["versions"]]
        judgements = list(row.get("judgements", []))
    except (KeyError, TypeError) as error:
        raise DataError(f"A record lacks {error}. JSONL as this program exports it was expected.") from error
    for version in versions:
        store.put_version(picture.key, version)
    for judgement in judgements:
        store.put_judgement(picture.key, judgement)
    return bool(versions)


def _take_task(store: AnnotationStore, picture: Picture, task: dict[str, Any], author: str) -> bool:
    given = read_label_studio(task)
    for name, content in (("objects", {"objects": given["objects"]}), ("caption", {"text": given["text"]})):
        latest = store.latest(picture.key, name)
        store.save(picture.key, name, author, content, latest.number if latest else 0, 0.0)
    return True
