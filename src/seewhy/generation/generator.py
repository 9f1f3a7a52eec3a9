"""Generators, which map an encoder's codes to pictures."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from importlib.metadata import version
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float, UInt8
from torch import Tensor, nn
from torch.nn.functional import interpolate

from ..encoders.base import Encoder
from ..encoders.find import saved_encoder
from ..errors import InputError, ModelError
from ..pictures.images import read_picture
from ..pictures.sources import One
from ..storage.archive import TensorArchive
from ..storage.output import make_folder
from ..types import Transform


@dataclass(frozen=True, eq=False)
class Reader:
    """A differentiable function from pictures with values 0…1, of any size, to an encoder's features."""

    encoder: Encoder
    side: int | None = None

    @property
    def name(self) -> str:
        return self.encoder.name

    @property
    def looks(self) -> str | None:
        """The fingerprint of the encoder; a judge must have another fingerprint."""
        return self.encoder.looks

    def cut(self, side: int) -> Transform:
        """Return the transform that crops a picture to the generator's size."""
        return self.encoder.transform.at(side)

    def __post_init__(self) -> None:
        if self.side is None:
            return
        try:
            with torch.no_grad():
                found = self(torch.zeros(1, 3, self.side, self.side))
        except (RuntimeError, ValueError, AssertionError) as error:
            raise ModelError(
                f"The encoder {self.encoder.name!r} cannot read pictures with a side of {self.side} pixels. Leave out "
                f"`side` to use {self.encoder.transform.input_size[1]}."
            ) from error
        if not found.isfinite().all():
            raise ModelError(
                f"The encoder {self.encoder.name!r} returns non-finite features at a side of {self.side} pixels. Leave "
                "out `side`."
            )

    def pixels(self, pictures: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b 3 H W"]:
        """Resize and normalise pictures for the encoder."""
        own = self.encoder.transform
        size = own.input_size if self.side is None else (self.side, self.side)
        if pictures.shape[2:] != size:
            pictures = interpolate(pictures, size, mode="bilinear", antialias=True)
        mean, std = (torch.tensor(v).view(1, 3, 1, 1) for v in (own.mean, own.std))
        return (pictures - mean) / std

    def features(self, pictures: Float[Tensor, "b 3 h w"]) -> Tensor:
        """Return the features in the trunk's layout."""
        return self.encoder.trunk(self.pixels(pictures))

    def __call__(self, pictures: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b d"]:
        return self.encoder.head(self.features(pictures))


def as_read(picture: One, cut: Transform) -> Float[Tensor, "1 3 s s"]:
    return unit(torch.from_numpy(read_picture(picture, cut).pixels.copy())[None])


def unit(pictures: UInt8[Tensor, "b h w 3"]) -> Float[Tensor, "b 3 h w"]:
    """Convert bytes to floats of 0…1, channels second."""
    return pictures.permute(0, 3, 1, 2).float() / 255


def bytes_of(pictures: Float[Tensor, "b 3 h w"]) -> UInt8[Tensor, "b h w 3"]:
    """Convert floats of 0…1 to bytes, channels last."""
    return (pictures.clamp(0, 1) * 255).round().to(torch.uint8).permute(0, 2, 3, 1)


def batched(network: Callable[[Tensor], Tensor], many: Tensor, size: int = 64) -> Tensor:
    """Apply a function in batches, without gradients."""
    with torch.no_grad():
        return torch.cat([network(part) for part in many.split(size)])


POOR = 0.9
"""Largest error of an accepted generator, as a share of the error of the mean picture."""


def errors(
    made: Float[Tensor, "n 3 s s"], real: Float[Tensor, "n 3 s s"], others: UInt8[Tensor, "m s s 3"]
) -> dict[str, float]:
    """Return the error of decoded held-out pictures and the error of the mean picture."""
    mean = sum(unit(part).sum(0) for part in others.split(64)) / len(others)
    pairs = {"held_out_error": made, "mean_picture_error": mean}
    return {name: round(float((one - real).square().mean().sqrt()), 5) for name, one in pairs.items()}


def is_poor(facts: Mapping[str, Any]) -> bool:
    """Return whether the error exceeds :data:`POOR` times the error of the mean picture."""
    return bool(facts.get("held_out_error", 0) > POOR * facts.get("mean_picture_error", 1))


def check_errors(name: str, facts: Mapping[str, Any]) -> None:
    """Check that decoded pictures are better than the mean picture."""
    if is_poor(facts):
        raise ModelError(
            f"The reconstruction error of {name} on held-out pictures must be at most {100 * POOR:.0f} % of the "
            f"mean picture's "
            f"error, got {facts['held_out_error']:.3f} against {facts['mean_picture_error']:.3f} (root mean square, "
            "values 0 to 1). Give pictures of the kind on which the decoder was trained, or use another decoder."
        )


def some(codes: Float[Tensor, "n d"]) -> Float[Tensor, " m"]:
    """Return evenly spaced values, so that torch, which sorts at most 16 million values, can compute quantiles."""
    flat = codes.flatten()
    return flat[:: max(1, len(flat) // 2**23)]


LEAK = 0.3
"""Negative slope of the leaky ReLUs, as in the released generator."""
SIDES = (16, 32, 64, 128)
"""Possible sides of generated pictures in pixels."""
LEAST_SPREAD = 0.05
"""Smallest standard deviation of a unit, relative to the mean over units."""


class GeneratorNetwork(nn.Module):
    """A decoder of dense layers, transposed convolutions, and a sigmoid."""

    centre: Tensor
    spread: Tensor

    def __init__(self, n_code: int, side: int = 64, width: int = 32, hidden: int = 512) -> None:
        super().__init__()
        if side not in SIDES or min(n_code, width, hidden) < 1:
            raise InputError(
                f"`side` must be one of {', '.join(map(str, SIDES))}, and `width`, `hidden` and `n_code` at least 1, "
                f"got side={side}, width={width}, hidden={hidden}, n_code={n_code}."
            )
        self.side = side
        n_up = SIDES.index(side) + 2
        channels = [width * min(8, 2 ** (n_up - i)) for i in range(n_up)] + [width]
        full = [nn.Linear(*sizes) for sizes in pairwise((n_code, hidden, hidden, channels[0] * 16))]
        ups = [nn.ConvTranspose2d(n_in, n_out, 4, 2, 1) for n_in, n_out in pairwise(channels)]
        self.first = nn.Sequential(*(part for layer in full for part in (layer, nn.LeakyReLU(LEAK))))
        last = nn.Conv2d(width, 3, 3, 1, 1)
        self.ups = nn.Sequential(*(part for layer in ups for part in (layer, nn.LeakyReLU(LEAK))), last)
        self.register_buffer("centre", torch.zeros(n_code))
        self.register_buffer("spread", torch.ones(n_code))

    def scale_to(self, codes: Float[Tensor, "n d"]) -> None:
        """Set the mean and deviation by which codes are standardised."""
        spread = codes.std(0)
        self.centre.copy_(codes.mean(0))
        self.spread.copy_(spread.clamp_min(LEAST_SPREAD * float(spread.mean()) + 1e-6))

    def forward(self, codes: Float[Tensor, "b d"]) -> Float[Tensor, "b 3 s s"]:
        cells = self.first((codes - self.centre) / self.spread)
        return self.ups(cells.unflatten(1, (-1, 4, 4))).sigmoid()


FILE = "generator.safetensors"
ARCHIVE = TensorArchive(
    otherwise="no generator",
    again="Train it again with reproductions/train_generator.py of SeeWhy's repository",
    missing="There is no generator {path}. Train one with reproductions/train_generator.py of SeeWhy's repository",
    format=1,
)


@dataclass(frozen=True, eq=False)
class Generator:
    """A generator ``G`` from codes to pictures, with an encoder ``E`` from pictures to codes.

    :class:`seewhy.generation.decoders.Bring` builds a generator from a pretrained decoder.

    Attributes:
        network: function from codes to pictures with values 0…1, in evaluation mode.
        read: function from pictures to codes.
        bounds: lowest and highest value of each unit of a code.
        codes: codes of training pictures, as starting points.
        facts: training settings and held-out errors, as JSON; at least the ``side`` of the pictures.
        denoise: denoiser of codes; default: ``E(G(h))``.
    """

    network: Callable[[Tensor], Tensor]
    read: Any
    bounds: tuple[float, float]
    codes: Float[Tensor, "n d"]
    facts: dict[str, Any] = field(default_factory=dict)
    denoise: Callable[[Tensor], Tensor] | None = None

    def pull(self, codes: Float[Tensor, "b d"], made: Float[Tensor, "b 3 s s"]) -> Float[Tensor, "b d"]:
        """Return ``R(h) - h`` for codes ``h``, where ``R`` is the denoiser and ``made`` are the decoded pictures."""
        return (self.read(made) if self.denoise is None else self.denoise(codes)) - codes

    @property
    def side(self) -> int:
        return int(self.facts["side"])

    @property
    def recipe(self) -> str:
        """The origin and the error of the generator, in words."""
        facts = self.facts
        if "n_pictures" not in facts:
            return "a decoder of your own that was not measured"
        return (
            f"trained on {facts['n_pictures']:,} pictures for {facts['n_steps']:,} steps; on {facts['n_held_out']:,} "
            f"held-out pictures its error is {facts['held_out_error']:.3f} (the mean picture has "
            f"{facts['mean_picture_error']:.3f}; root mean square, black to white is 1), and the error of the codes is "
            f"{facts['code_error']:.2f} of their spread"
        )

    def save(self, folder: str | Path) -> Path:
        """Write ``folder/generator.safetensors`` and a JSON file."""
        if not isinstance(self.network, GeneratorNetwork):
            raise InputError(
                f"Only generators of train_generator.py can be saved, got {self.read.name}. Load your decoder from its "
                "own folder; its evaluation is cached."
            )
        path = ARCHIVE.check(make_folder(folder) / FILE)
        card = {
            "format": 1, "seewhy": version("seewhy"), "method": "ppgn", "encoder": self.read.encoder.name,
            "fingerprint": self.read.encoder.fingerprint, "bounds": list(self.bounds), "trained": self.facts,
        }  # fmt: skip
        weights = {f"network.{name}": tensor for name, tensor in self.network.state_dict().items()}
        return ARCHIVE.save(path, {**weights, "codes": self.codes.half()}, card, spoken=card)


def load_generator(
    folder: str | Path, encoder: Encoder | str | None = None, *, own: Encoder | None = None, engine: str = "auto"
) -> Generator:
    """Load a generator saved by :meth:`Generator.save`, without executing code from the file."""
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
        used = own
        if encoder is not None or used is None or used.fingerprint != card["fingerprint"]:
            again = "train a generator for this one with reproductions/train_generator.py"
            command = f"seewhy study generate {path.parent} --set generator_encoder={{}}"
            used = saved_encoder(card, encoder, engine=engine, place=str(path), again=again, command=command)
        network.eval().requires_grad_(False)
        return Generator(network, Reader(used, trained["reads"]), (low, high), codes, dict(trained))

    return ARCHIVE.load(path, assemble)
