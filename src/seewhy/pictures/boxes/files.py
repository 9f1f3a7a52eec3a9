"""Reading and writing boxes in whatever format."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from ...arguments import checked
from ...errors import DataError
from ...storage.output import check_file, make_folder, write
from . import box_formats
from .base import BoxData, BoxFormat


@checked
def load_boxes(source: str | Path, *, format: str | None = None, pictures: str | Path | None = None) -> BoxData:
    """Pictures with boxes, from COCO, YOLO, VOC or a table.

    Boxes without area, outside the picture or of an unknown class are left out, each named in ``left_out``; those that
    reach beyond the picture are cut at its edge; pictures that are not there are named in ``missing``.
    The rest is read.

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
    names = [format] if format is not None else list(box_formats)
    for name in names:
        reader: BoxFormat = box_formats[name]()
        if reader.knows(path):
            return reader.read(path, None if pictures is None else Path(pictures))
    what = f"the format {format}" if format is not None else f"any of {', '.join(box_formats)}"
    raise DataError(
        f"{path} holds no boxes in {what}. A COCO file, YOLO's labels with the names of their classes, VOC's XML or a "
        "table was expected. Give one of these."
    )


@checked
def save_boxes(data: BoxData, folder: str | Path, *, format: str = "coco", force: bool = False) -> list[Path]:
    """Write boxes into a folder.

    Args:
        data: what is written; boxes that were left out are not.
        folder: made if it is not there.
        format: a registered name, such as ``"coco"``.
        force: write over files of others.

    Returns:
        The files, the one that names the classes first.

    Raises:
        ForeignFileError: a file that SeeWhy did not make is in the way; nothing has been written then.
        DataError: the format has no place for something in the data, or the folder cannot be written to.
    """
    folder = Path(folder)
    made = check_boxes(data, folder, format=format, force=force)
    written = []
    for name, text in made.items():
        place = make_folder((folder / name).parent) / Path(name).name
        written.append(write(place, text, force=force))
    return written


def check_boxes(data: BoxData, folder: Path, *, format: str, force: bool) -> Mapping[str, str]:
    """The files that :func:`save_boxes` would write, by their names in the folder; nothing is touched."""
    writer: BoxFormat = box_formats[format]()
    made = writer.files(data, folder)
    for name in made:
        if (folder / name).exists():
            check_file(folder / name, force=force)
    return made
