"""A trained generator with what it needs to be used: its encoder, bounds of its codes, and codes to start from."""

from __future__ import annotations

from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from ..encoders.base import Encoder
from ..encoders.provenance import saved_encoder
from ..storage.archive import TensorArchive
from ..storage.output import make_folder
from .network import GeneratorNetwork
from .reader import Reader

FILE = "generator.safetensors"
ARCHIVE = TensorArchive(
    otherwise="no generator",
    again="Train it again with: seewhy fit-generator",
    missing="There is no generator {path}. Make one with: seewhy fit-generator PICTURES -o FOLDER",
    format=1,
)


@dataclass(frozen=True, eq=False)
class Generator:
    """``G`` and ``E``: code → picture → code.

    Attributes:
        network: codes → pictures of 0…1, in evaluation mode.
        read: pictures → codes.
        bounds: lowest and highest that a unit of a code may be: quantiles of the training codes.
        codes: of training pictures, to start from.
        facts: how it was trained, and its errors on held-out pictures, as JSON.
    """

    network: nn.Module
    read: Reader
    bounds: tuple[float, float]
    codes: Float[Tensor, "n d"]
    facts: dict[str, Any] = field(default_factory=dict)

    @property
    def side(self) -> int:
        """Of its pictures, in pixels."""
        return int(self.facts["side"])

    def save(self, folder: str | Path) -> Path:
        """Write ``folder/generator.safetensors``, which holds everything, and the same facts as JSON, for people.

        Raises:
            ForeignFileError: a file of that name is there that SeeWhy did not make.
            DataError: the folder cannot be written.
        """
        path = check_generator(make_folder(folder)) / FILE
        card = {
            "format": 1,
            "seewhy": version("seewhy"),
            "method": "ppgn",
            "encoder": self.read.encoder.name,
            "fingerprint": self.read.encoder.fingerprint,
            "bounds": list(self.bounds),
            "trained": self.facts,
        }
        weights = {f"network.{name}": tensor for name, tensor in self.network.state_dict().items()}
        return ARCHIVE.save(path, {**weights, "codes": self.codes.half()}, card, spoken=card)


def check_generator(folder: Path) -> Path:
    """The folder, if a generator can be saved there; asked before the work begins."""
    return ARCHIVE.check(folder / FILE).parent


def load_generator(
    folder: str | Path, encoder: Encoder | str | None = None, *, own: Encoder | None = None, engine: str = "auto"
) -> Generator:
    """Read what :meth:`Generator.save` wrote. It runs no code."""
    path = Path(folder)
    path = path / FILE if path.is_dir() else path

    def assemble(card: dict[str, Any], tensors: dict[str, Tensor]) -> Generator:
        trained, codes = card["trained"], tensors.pop("codes").float()
        with torch.device("meta"):
            network = GeneratorNetwork(codes.shape[1], trained["side"], trained["width"], trained["hidden"])
        weights = {name.removeprefix("network."): tensor for name, tensor in tensors.items()}
        if not all(bool(one.isfinite().all()) for one in [codes, *weights.values()]):
            raise ValueError("its numbers are not finite")
        network.load_state_dict(weights, assign=True)
        low, high = map(float, card["bounds"])
        used = _used(path, card, encoder, own, engine)
        network.eval().requires_grad_(False)
        return Generator(network, Reader(used, trained["reads"]), (low, high), codes, dict(trained))

    return ARCHIVE.load(path, assemble)


def _used(path: Path, card: dict[str, Any], encoder: Encoder | str | None, own: Encoder | None, engine: str) -> Encoder:
    if encoder is None and own is not None and own.fingerprint == card["fingerprint"]:
        return own
    return saved_encoder(
        card,
        encoder,
        engine=engine,
        place=str(path),
        again="train a generator for this one with: seewhy fit-generator",
        command=f"seewhy generate --generator {path.parent} --generator-encoder {{}}",
    )
