"""Annotations as JSONL: everything out, and whole records back in."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ...errors import DataError, InputError
from ...storage.output import check_file, write
from ...storage.reading import json_lines, read_text, reason
from .figures import left_out
from .records import TASKS, Version, check_judgement, check_version, objects_of
from .rounds import StopRule, text_of
from .store import AnnotationStore

FORMAT = 1


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
            "versions": [dict(vars(v)) for task in TASKS for v in versions[task]],
            "judgements": judged.get(picture.key, []),
        }


def lines(store: AnnotationStore, rule: StopRule | None = None) -> str:
    """All records, one JSON object a line."""
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in records(store, rule))


def check_export(path: str | Path, *, force: bool = False) -> Path:
    """The path, if annotations can be written there; asked before the work begins."""
    path = Path(path)
    if path.suffix != ".jsonl":
        raise DataError(
            f"Annotations were to be written as {path.suffix!r}. .jsonl was expected. Change the ending of {path}."
        )
    return check_file(path, force=force)


def export(store: AnnotationStore, path: str | Path, rule: StopRule | None = None, *, force: bool = False) -> int:
    """Write all annotations; of how many pictures."""
    write(check_export(path, force=force), lines(store, rule), force=force)
    return len(store.pictures())


def bring_in(store: AnnotationStore, path: str | Path) -> tuple[int, list[str]]:
    """Take annotations back in, the whole file or nothing of it; pictures are recognised by their digest."""
    path, known = Path(path), {p.digest: p for p in store.pictures()}
    notes, takes = [], []
    for number, row in enumerate(_read(path), 1):
        try:
            record = _record(row)
        except (InputError, DataError) as error:
            raise DataError(f"{path}, picture {number}: {error}") from error
        if (picture := known.get(str(row.get("digest")))) is None:
            notes.append(f"picture {number} of {path.name} is none of those here, by its bytes")
        else:
            takes.append((picture, *record))
    n = 0
    for picture, versions, judgements in takes:
        if versions and store.restore(picture.key, versions, judgements):
            n += 1
        else:
            notes.append(f"{picture.name} has these or other annotations already, or the file has none for it")
    return n, notes


def _read(path: Path) -> list[dict[str, Any]]:
    try:
        rows = json_lines(read_text(path))
    except (OSError, ValueError) as error:
        raise DataError(f"{path} cannot be read: {reason(error)}. JSONL of this program does.") from error
    if not all(isinstance(row, dict) for row in rows):
        raise DataError(f"{path} holds something that is no object. One object a picture was expected.")
    return rows


def _record(row: dict[str, Any]) -> tuple[list[Version], list[dict[str, Any]]]:
    """Its versions, each number of a task once, and judgements."""
    given, judgements = row.get("versions"), row.get("judgements", [])
    if "versions" not in row or not isinstance(judgements, list):
        raise DataError("The record has no versions. JSONL as this program exports it was expected.")
    if not isinstance(given, list) or not all(isinstance(one, dict) for one in given):
        raise InputError("The versions are no list of objects. What this program exports was expected.")
    versions = [check_version(one) for one in given]
    if len({(v.task, v.number) for v in versions}) < len(versions):
        raise InputError("Two versions of a task have the same number. Each number once was expected.")
    return versions, [check_judgement(one) for one in judgements]
