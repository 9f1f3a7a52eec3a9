"""The JSON that scale answers with, as types."""

from __future__ import annotations

from ..explanation.outputs import Run
from ..retrieval.outputs import VerifyOutput
from .reading import Status

EmbedStatusOutput = Status
EmbedOutput = Status | VerifyOutput | Run
"""The object of seewhy index --parquet --json."""
