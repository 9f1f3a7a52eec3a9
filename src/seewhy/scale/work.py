"""The work on each picture of a long run, in a form that can be sent to other processes."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from ..bounds import Checked, Count
from ..errors import needs
from ..types import Failure

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa

    from ..encoders.base import Encoder

Row = dict[str, Any]


@dataclass(frozen=True)
class Model:
    """The identity of an opened model, and the columns of its rows."""

    identity: Mapping[str, Any]
    columns: tuple[tuple[str, Any], ...]

    @property
    def fields(self) -> list[tuple[str, Any]]:
        text = arrow().string()
        return [("image", text), *self.columns, ("error", text)]


class Opened(ABC):
    """Work with its model loaded in this process."""

    identity: Mapping[str, Any]

    def model(self) -> Model:
        return Model(dict(self.identity), tuple(self.columns()))

    @abstractmethod
    def columns(self) -> list[tuple[str, pa.DataType]]:
        """Return names and types of all columns except ``image`` and ``error``."""

    @abstractmethod
    def results(self, sources: Iterator[Any]) -> Iterator[Row | Failure]:
        """Yield a row for each picture, in order."""


class Work(ABC):
    """The settings of the work; its fields are plain values."""

    verb: ClassVar[str]

    @abstractmethod
    def open(self) -> Opened:
        """Load the model."""


def arrow() -> Any:
    with needs("parquet", "Writing Parquet"):
        import pyarrow
    return pyarrow


@dataclass(frozen=True)
class Embed(Checked, Work):
    """Compute pooled feature vectors.

    Attributes:
        encoder: name of the encoder.
        engine: engine of the encoder.
        space: ``"features"`` for pooled features, or ``"words"`` for unit vectors in the space of the text encoder.
        dtype: dtype of the stored vectors.
        batch_size: pictures per batch.
    """

    noun = "Embed"

    encoder: str = "lite0"
    engine: str = "auto"
    space: Literal["features", "words"] = "features"
    dtype: Literal["float32", "float16"] = "float32"
    batch_size: Count = 32

    verb = "embed"

    def open(self) -> Opened:
        from ..encoders.find import encoder

        return _Embedding(encoder(self.encoder, engine=self.engine), self)


class _Embedding(Opened):
    def __init__(self, encoder: Encoder, work: Embed) -> None:
        self.encoder, self.work = encoder, work
        self.identity = {
            "encoder": encoder.name, "fingerprint": encoder.fingerprint, "precision": encoder.engine.precision,
            "space": work.space, "dtype": work.dtype,
        }  # fmt: skip
        import numpy as np

        blank = np.zeros((8, 8, 3), np.uint8)
        self._width = len(next(row for row in self.results(iter([blank])) if not isinstance(row, Failure))["embedding"])

    def columns(self) -> list[tuple[str, pa.DataType]]:
        pa = arrow()
        number = pa.float16() if self.work.dtype == "float16" else pa.float32()
        return [("digest", pa.string()), ("embedding", pa.list_(number, self._width))]

    def results(self, sources: Iterator[Any]) -> Iterator[Row | Failure]:
        from ..encoders.stream import encode_stream

        for seen in encode_stream(self.encoder, sources, batch_size=self.work.batch_size):
            if isinstance(seen, Failure):
                yield seen
            else:
                yield {"digest": seen.digest, "embedding": self._vector(seen.pooled)}

    def _vector(self, pooled: Any) -> np.ndarray:
        if self.work.space == "words":
            import torch
            from torch.nn.functional import normalize

            with torch.no_grad():
                pooled = normalize(self.encoder.text.project(pooled), dim=1)
        return pooled[0].numpy().astype(self.work.dtype)
