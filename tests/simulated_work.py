"""A long run without a network: vectors made of a picture's digest, so that what is right is known of every row."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from seewhy.errors import ImageError, ModelError
from seewhy.pictures.images import Picture, read_picture
from seewhy.scale.work import Model, Opened, Row, Work, arrow
from seewhy.types import Failure, Transform

TRANSFORM = Transform((8, 8), 8, "bilinear", (0.5, 0.5, 0.5), (0.5, 0.5, 0.5))


@dataclass(frozen=True)
class Simulated(Work):
    """Looks at pictures with a trunk that is a digest.

    Attributes:
        name: of its model.
        seconds: that a picture takes.
        dies: a picture whose name holds this kills the process, once where ``survived`` names a file.
        survived: made before it dies.
        refuses: what is said instead of opening it; ``"kill"`` and ``"differ"`` do so.
    """

    name: str = "simulated"
    seconds: float = 0.0
    dies: str = ""
    survived: str = ""
    refuses: str = ""

    verb = "embed"

    def open(self) -> Opened:
        if self.refuses == "kill":
            os.kill(os.getpid(), 9)
        if self.refuses == "differ":
            return replace(self, name=f"simulated-{os.getpid()}")._opened()
        if self.refuses:
            raise ModelError(self.refuses)
        return self._opened()

    def _opened(self) -> Opened:
        pa = arrow()
        columns = (("digest", pa.string()), ("embedding", pa.list_(pa.float32(), 4)))
        return Opened(Model({"encoder": self.name}, columns), self._results)

    def _results(self, sources: Iterator[Any]) -> Iterator[Row | Failure]:
        for source in sources:
            if self.dies and self.dies in str(source):
                self._die()
            time.sleep(self.seconds)
            try:
                seen = source if isinstance(source, Picture) else read_picture(source, TRANSFORM)
            except ImageError as error:
                yield Failure(str(source), error.reason)
            else:
                yield {"digest": seen.digest, "embedding": vector(seen.digest)}

    def _die(self) -> None:
        if self.survived:
            if Path(self.survived).exists():
                return
            Path(self.survived).touch()
        os.kill(os.getpid(), 9)


def vector(digest: str) -> np.ndarray:
    return np.frombuffer(bytes.fromhex(digest)[:4], np.uint8).astype(np.float32)


def make_pictures(folder: Path, n: int, *, broken: tuple[int, ...] = ()) -> list[str]:
    """Small pictures in folders; the names relative to it, in natural order."""
    names = []
    for i in range(n):
        name = f"{i * 3 // n}/{i}.png"
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        if i in broken:
            (folder / name).write_bytes(b"\x89PNG\r\n\x1a\n")
        else:
            Image.new("RGB", (9, 8), (i % 256, i // 256 % 256, 7)).save(folder / name)
        names.append(name)
    return names


def rows(output: Path) -> list[dict[str, Any]]:
    """All rows of a run, in the order of its shards."""
    from pyarrow.parquet import read_table

    return [row for path in sorted(output.glob("*.parquet")) for row in read_table(path).to_pylist()]
