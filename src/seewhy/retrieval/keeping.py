"""What makes a large or much-changed index good again: whitening, approximate index, clearing away deleted rows."""

from __future__ import annotations

import secrets
from pathlib import Path

import numpy as np
import torch

from ..progress import Progress
from ..storage.folders import inside, remove_inside
from ..storage.reading import file_sha256
from ..undisturbed import undisturbed
from .approximate import Approximate, has_faiss
from .catalogue import Catalogue
from .columns import BLOCK, Column
from .settings import Settings
from .snapshot import APPROXIMATE, WHITENING, Snapshot
from .whitening import N_MOST, Whitening

STALE = 0.1
"""Part of the rows that may have come or gone before the approximate index is built anew."""

DEAD = 0.25
"""Part of the rows that may be deleted before they are cleared away."""


@undisturbed
def tidy(catalogue: Catalogue, settings: Settings, progress: Progress, *, rebuild: bool = False) -> None:
    """Do what is due; killed on the way, the next call does it.

    Args:
        catalogue: of the index.
        settings: of the index.
        progress: hears what was done.
        rebuild: do everything anew, due or not.
    """
    n_rows, n = catalogue.get("n_rows", 0), len(catalogue)
    if n_rows > n and (rebuild or n_rows - n > DEAD * n_rows):
        clear(catalogue)
    fitted = (catalogue.get("whitening") or {}).get("n", 0)
    if settings.whiten and n >= 3 and (rebuild or n >= 2 * fitted):
        whiten(catalogue, settings)
    if n >= settings.approximate_from:
        build(catalogue, settings, progress, rebuild)


def _read(catalogue: Catalogue) -> Snapshot:
    with catalogue.reading():
        return Snapshot.of(catalogue)


def whiten(catalogue: Catalogue, settings: Settings) -> None:
    """Fit on the pictures there are, and write the whitened column anew."""
    with catalogue.writing():
        now = Snapshot.of(catalogue)
        some = now.rows[np.linspace(0, len(now.rows) - 1, min(len(now.rows), N_MOST)).astype(np.int64)]
        sample = torch.from_numpy(np.array(now.matrices["look"][some]))
        white = Whitening.fit(sample, settings.whiten, settings.floor, settings.power)
        before, shapes = catalogue.get("whitening"), catalogue.need("columns")
        generation = shapes["whitened"][1] + 1 if "whitened" in shapes else now.columns["look"].generation
        column = Column(catalogue.folder, "whitened", white.matrix.shape[1], generation)
        for start in range(0, now.n_rows, BLOCK):
            block = np.array(now.matrices["look"][start : start + BLOCK])
            column.append(start, white(torch.from_numpy(block)))
        name = f"whitening-{secrets.token_hex(4)}.safetensors"
        white.save(inside(catalogue.folder, name, WHITENING))
        shapes["whitened"] = [column.width, generation]
        catalogue.set(columns=shapes, whitening={"file": name, "n": len(now.rows)}, approximate=None)
    if before is not None:
        remove_inside(inside(catalogue.folder, before["file"], WHITENING))
        now.columns["whitened"].drop()


def clear(catalogue: Catalogue) -> None:
    """Write every column anew without the deleted rows; readers keep the old files until they look again."""
    with catalogue.writing():
        now = Snapshot.of(catalogue)
        shapes, built = catalogue.need("columns"), catalogue.get("approximate")
        for name, column in now.columns.items():
            fresh = Column(catalogue.folder, name, column.width, column.generation + 1)
            for start in range(0, len(now.rows), BLOCK):
                part = now.rows[start : start + BLOCK]
                fresh.append(start, torch.from_numpy(np.array(now.matrices[name][part])))
            if not len(now.rows):
                fresh.append(0, torch.empty(0, column.width))
            shapes[name] = [column.width, column.generation + 1]
        catalogue.move(now.rows.tolist())
        catalogue.set(columns=shapes, n_rows=len(now.rows), approximate=None)
    for column in now.columns.values():
        column.drop()
    _unlink(catalogue.folder, built)


def build(catalogue: Catalogue, settings: Settings, progress: Progress, rebuild: bool = False) -> None:
    """Make the approximate index, if it is not there or no longer fits; others may add and search meanwhile."""
    now = _read(catalogue)
    before = catalogue.get("approximate")
    if before is not None and before["column"] == now.main and not rebuild:
        covered = before["calibration"]["n_rows"]
        gone = covered - int((now.rows < covered).sum()) - before["n_gone"]
        if now.n_rows - covered + gone <= STALE * covered:
            return
    if not has_faiss():
        progress.note(
            f"{len(now.rows):,} pictures are compared one by one at every search; "
            "pip install 'seewhy[search]' and index again to search faster"
        )
        return
    made = Approximate.build(now.matrices[now.main], now.rows, target=settings.recall)
    if made is None:
        progress.note(f"the approximate index does not reach a recall of {settings.recall}; search stays exact")
        return
    name = f"approximate-{secrets.token_hex(4)}.faiss"
    made.save(inside(catalogue.folder, name, APPROXIMATE))
    entry = {
        "column": now.main,
        "file": name,
        "calibration": made.calibration.to_json(),
        "sha256": file_sha256(catalogue.folder / name),
        "n_gone": now.n_rows - len(now.rows),
    }
    with catalogue.writing():
        if catalogue.need("columns")[now.main][1] == now.columns[now.main].generation:
            catalogue.set(approximate=entry)
        else:  # rows were cleared away meanwhile and bear other numbers
            before = entry
    _unlink(catalogue.folder, before)
    figures = made.calibration
    progress.note(
        f"search is approximate: recall@{figures.k} {figures.recall:.3f} at least, on {figures.n_queries} queries, "
        f"{figures.recall_low:.2f} at the 5th percentile ({figures.n_probe} of {figures.n_lists} lists)"
    )


def _unlink(folder: Path, built: dict | None) -> None:
    if built is not None:
        remove_inside(inside(folder, built["file"], APPROXIMATE))
