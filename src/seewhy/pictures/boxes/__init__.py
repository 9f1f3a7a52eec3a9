"""Pictures with boxes around what is in them: COCO, YOLO, VOC and CSV, read and written."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ...arguments import checked
from ...errors import DataError
from ...registry import Registry
from ...storage.output import check_file, make_folder, write
from .base import BoxData, BoxedPicture, BoxRecord, LeftOut

box_formats: Registry[Any] = Registry("box format", __name__, ("formats",))

__all__ = ["BoxData", "BoxRecord", "BoxedPicture", "LeftOut", "box_formats", "load_boxes", "save_boxes"]


@checked
def load_boxes(source: str | Path, *, format: str | None = None, pictures: str | Path | None = None) -> BoxData:
    """Pictures with boxes, from COCO, YOLO, VOC or a table.

    Boxes without area, outside the picture or of an unknown class are left out, each named in ``left_out``; those that
    reach beyond the picture are cut at its edge; pictures that are not there are named in ``missing``.

    Args:
        source: a COCO file, a folder with YOLO's labels and names, a folder of VOC's files, or a table.
        format: its registered name; left out, it is told by what is there.
        pictures: the folder of the pictures; left out, they are looked for nearby.

    Raises:
        DataError: nothing of the kind is there, or the file cannot be read at all.
        UnknownNameError: there is no such format.
    """
    path = Path(source)
    if not path.exists():
        raise DataError(f"{path} is not there. A file or folder of boxes was expected. Check its name.")
    for name in [format] if format is not None else list(box_formats):
        reader = box_formats[name]()
        if reader.knows(path):
            data: BoxData = reader.read(path, None if pictures is None else Path(pictures))
            return data
    what = f"the format {format}" if format is not None else f"any of {', '.join(box_formats)}"
    raise DataError(
        f"{path} holds no boxes in {what}. A COCO file, YOLO's labels with the names of their classes, VOC's XML or a "
        "table was expected. Give one of these."
    )


def has_boxes(path: Path) -> bool:
    """Whether a file or folder looks like boxes of some format."""
    return path.exists() and any(box_formats[name]().knows(path) for name in box_formats)


@checked
def save_boxes(data: BoxData, folder: str | Path, *, format: str = "coco", force: bool = False) -> list[Path]:
    """Write boxes into a folder, but for those that were left out.

    Args:
        data: what is written.
        folder: made if it is not there.
        format: a registered name, such as ``"coco"``.
        force: write over files of others.

    Returns:
        The files, the one that names the classes first.

    Raises:
        ForeignFileError: a file that SeeWhy did not make is in the way; nothing has been written then.
        DataError: the format has no place for something in the data, or the folder cannot be written to.
    """
    folder, files = Path(folder), list[Path]()
    for name, text in check_boxes(data, folder, format=format, force=force).items():
        place = make_folder((folder / name).parent) / Path(name).name
        files.append(write(place, text, force=force))
    return files


def check_boxes(data: BoxData, folder: Path, *, format: str, force: bool) -> Mapping[str, str]:
    """The files that :func:`save_boxes` would write, by their names in the folder; nothing is touched."""
    files: Mapping[str, str] = box_formats[format]().files(data, folder)
    for name in files:
        if (folder / name).exists():
            check_file(folder / name, force=force)
    return files
