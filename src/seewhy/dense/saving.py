"""A saved segmenter: a folder of safetensors and JSON. Loading it runs no code."""

from __future__ import annotations

from dataclasses import fields
from importlib.metadata import version
from pathlib import Path
from typing import Any

from safetensors.torch import save as save_tensors

from ..arguments import checked
from ..encoders.base import Encoder
from ..encoders.provenance import saved_encoder
from ..errors import ModelError, SeeWhyError
from ..storage.archive import DAMAGE, FolderArchive
from ..storage.marks import Facts
from . import segmenters
from .maskclip import class_names
from .segmenter import Segmenter

FORMAT = 1
CARD = "segmenter.json"
ARCHIVE = FolderArchive(
    CARD,
    Facts(("format", "seewhy", "method", "encoder", "classes")),
    formats=(FORMAT,),
    kind="a saved segmenter",
    make="Make one with: seewhy fit-segmenter DATA -o {folder}",
    again="fit the segmenter again",
    undigested={},
)


def save_segmenter(segmenter: Segmenter, folder: Path) -> Path:
    """Write the card, and beside it the tensors under a name made of their SHA-256.

    Raises:
        ForeignFileError: the folder exists and is another.
        DataError: it cannot be written.
    """
    card = {
        "format": FORMAT,
        "seewhy": version("seewhy"),
        "method": segmenter.method,
        "parameters": segmenter.parameters,
        "encoder": segmenter.base.describe(),
        "classes": list(segmenter.classes),
        "trained_on": segmenter.trained_on,
    }
    tensors = {name: t.detach().cpu().contiguous() for name, t in segmenter.scorer.tensors().items()}
    return ARCHIVE.save(folder, card, save_tensors(tensors))


def is_segmenter(folder: str | Path) -> bool:
    """Whether a folder is a saved segmenter."""
    return (Path(folder) / CARD).is_file()


@checked
def load_segmenter(folder: str | Path, *, encoder: Encoder | str | None = None, engine: str = "auto") -> Segmenter:
    """Bring a segmenter back.

    Args:
        folder: what was saved.
        encoder: what it looks with; needed where that is not embedded.
        engine: what runs the trunk, where it is loaded here.

    Raises:
        ModelError: it is none, or damaged, or of another encoder.
        WeightsError: its tensors are damaged.
    """
    folder = Path(folder)
    card = ARCHIVE.load_card(folder)
    tensors = ARCHIVE.checked_tensors(folder, card)
    try:
        found = saved_encoder(
            card["encoder"], encoder, engine=engine, place=str(folder), again="fit the segmenter again",
            command=f"seewhy segment PICTURE -m {folder} --encoder {{}}",
        )  # fmt: skip
        how = _method(card)
        made: Segmenter = how.restore(found, class_names(card["classes"]), tensors)
        made.check()
        return made.with_trained_on(str(card["trained_on"]))
    except ModelError:
        raise
    except (SeeWhyError, *DAMAGE) as error:
        raise ARCHIVE.damaged(folder, error) from error


def _method(card: dict[str, Any]) -> Any:
    """What made it, with the parameters it had."""
    cls = segmenters[card["method"]]
    given = {k: tuple(v) if isinstance(v, list) else v for k, v in card["parameters"].items()}
    unknown = set(given) - {f.name for f in fields(cls)}
    if unknown:
        raise ValueError(f"its method has no parameter {sorted(unknown)[0]!r}")
    return cls(**given)
