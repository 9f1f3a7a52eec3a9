"""The work on each picture of a long run, in a form that can be sent to other processes."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from ..bounds import Checked, Count
from ..errors import needs
from ..types import Failure

if TYPE_CHECKING:
    import numpy as np

    from ..encoders.base import Encoder

Row = dict[str, Any]


@dataclass(frozen=True)
class Model:
    """The identity of an opened model, and the columns of its rows except ``image`` and ``error``."""

    identity: Mapping[str, Any]
    columns: tuple[tuple[str, Any], ...]

    @property
    def fields(self) -> list[tuple[str, Any]]:
        text = arrow().string()
        return [("image", text), *self.columns, ("error", text)]


@dataclass(frozen=True)
class Opened:
    """Work with its model loaded in this process; ``results`` yields a row for each picture, in order."""

    model: Model
    results: Callable[[Iterator[Any]], Iterator[Row | Failure]]


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
        import numpy as np

        from ..encoders.find import encoder
        from ..encoders.stream import encode_stream

        own, pa = encoder(self.encoder, engine=self.engine), arrow()

        def results(sources: Iterator[Any]) -> Iterator[Row | Failure]:
            for seen in encode_stream(own, sources, batch_size=self.batch_size):
                if isinstance(seen, Failure):
                    yield seen
                else:
                    yield {"digest": seen.digest, "embedding": self._vector(own, seen.pooled)}

        blank = np.zeros((8, 8, 3), np.uint8)
        width = len(next(row for row in results(iter([blank])) if not isinstance(row, Failure))["embedding"])
        identity = {
            "encoder": own.name, "fingerprint": own.fingerprint, "precision": own.engine.precision,
            "space": self.space, "dtype": self.dtype,
        }  # fmt: skip
        number = pa.float16() if self.dtype == "float16" else pa.float32()
        return Opened(Model(identity, (("digest", pa.string()), ("embedding", pa.list_(number, width)))), results)

    def _vector(self, encoder: Encoder, pooled: Any) -> np.ndarray:
        if self.space == "words":
            import torch
            from torch.nn.functional import normalize

            with torch.no_grad():
                pooled = normalize(encoder.text.project(pooled), dim=1)
        return pooled[0].numpy().astype(self.dtype)
