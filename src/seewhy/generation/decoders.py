"""Use of a pretrained decoder as a generator: any module, or a diffusers folder."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, get_args

import torch
from jaxtyping import Float, UInt8
from torch import Tensor, nn

from ..bounds import Checked, Count, InnerPart, Positive
from ..classifiers.encoded_set import parted
from ..encoders.diffusion import KIND, alphas_of, settings_of
from ..encoders.fence import from_saved, loading
from ..encoders.split import freeze
from ..encoders.weights import check_folder, local_folder, read_config
from ..errors import DataError, ImageError, InputError, ModelError, needs
from ..pictures.images import read_picture
from ..pictures.samples import Sample
from ..progress import Progress
from ..storage.reading import file_sha256
from ..storage.tensors import cached_tensors
from ..types import Failure, Transform
from .generator import Generator, batched, check_errors, errors, some, unit
from .priors import Autoencoder, Predicts, Score, autoencoder, check_noise, noise_left, spread_of

VAES = ("AutoencoderKL", "AutoencoderTiny")
LEAST = 16
"""Smallest number of pictures on which a decoder is evaluated."""
KEPT = 512
"""Largest number of stored codes as starting points."""
CLIPPED = 0.999
"""Quantile of the training codes' values to which codes are clipped."""
SEARCHED, RATE = 200, 0.1
"""Number of steps and learning rate of Adam in the search for a picture's code, for decoders without an encoder."""


@dataclass(frozen=True, eq=False)
class Decoder:
    """A network from codes to pictures, optionally with an encoder from pictures to codes.

    Args:
        decode: differentiable map from codes ``(b, *shape)`` to pictures ``(b, 3, s, s)``, which are clipped to 0…1.
        shape: shape of one code.
        encode: function from pictures to codes; default: codes are found by gradient descent.
        score: score function of a diffusion model on the same codes.
        name: displayed name.
        digest: digest of all weights; if given, evaluations and trained networks are cached.
    """

    decode: Callable[[Tensor], Tensor]
    shape: tuple[int, ...]
    encode: Callable[[Tensor], Tensor] | None = None
    score: Score | None = None
    name: str = "your decoder"
    digest: str = ""

    def __post_init__(self) -> None:
        for one in (self.decode, self.encode):
            if isinstance(one, nn.Module) and one.training:
                raise InputError(f"{self.name} must be in evaluation mode. Call .eval() on its networks.")
        self.side  # noqa: B018  # what does not draw is refused here

    @cached_property
    def side(self) -> int:
        """The side of the decoded pictures in pixels."""
        with torch.no_grad():
            made = self.decode(torch.zeros(2, *self.shape))
        if made.ndim != 4 or made.shape[:2] != (2, 3) or made.shape[2] != made.shape[3] or not made.isfinite().all():
            raise InputError(
                f"From codes of shape {self.shape}, {self.name} must make square RGB pictures with finite values, got "
                f"an output of shape {tuple(made.shape)} for two codes. Correct shape or decode."
            )
        return int(made.shape[3])

    def __call__(self, codes: Float[Tensor, "b d"]) -> Float[Tensor, "b 3 s s"]:
        return self.decode(codes.unflatten(1, self.shape)).clamp(0, 1)

    def searched(self, pictures: Float[Tensor, "b 3 s s"]) -> Tensor:
        """Search the codes of pictures by gradient descent, starting from zeros."""
        with torch.enable_grad():
            codes = torch.zeros(len(pictures), *self.shape, requires_grad=True)
            adam = torch.optim.Adam([codes], lr=RATE)
            for _ in range(SEARCHED):
                off = (self.decode(codes) - pictures).square().mean((1, 2, 3)).sum()
                (codes.grad,) = torch.autograd.grad(off, codes)
                adam.step()
        return codes.detach()


@dataclass(frozen=True, eq=False)
class CodesOf:
    """An encoder from pictures with values 0…1 to the flattened codes of a decoder."""

    decoder: Decoder
    looks: None = None

    @property
    def name(self) -> str:
        return self.decoder.name

    def cut(self, side: int) -> Transform:
        """Return the transform that resizes the short side and crops the centre."""
        return Transform((side, side), side, "bicubic", (0.5,) * 3, (0.5,) * 3)

    def __call__(self, pictures: Float[Tensor, "b 3 s s"]) -> Float[Tensor, "b d"]:
        return (self.decoder.encode or self.decoder.searched)(pictures).flatten(1)


def load_decoder(folder: str | Path, *, side: int | None = None) -> Decoder:
    """Load a diffusers autoencoder, a U-Net of pictures, or a pipeline of both.

    The codes of an autoencoder are its latents times ``scaling_factor``. The codes of a U-Net are pictures from -1 to
    1. Weights must be safetensors, and no code in the folder is executed.

    Args:
        folder: folder of the autoencoder or U-Net, or of a pipeline with ``vae/``, ``unet/`` and ``scheduler/``.
        side: side of the pictures in pixels; default: the side in the decoder's training.
    """
    name = str(folder)
    root = local_folder(name, Path(folder).expanduser())
    kinds = {place: _config(place).get("_class_name") for place in (root / "vae", root / "unet", root)}
    vae = next((place for place, kind in kinds.items() if kind in VAES), None)
    unet = next((place for place, kind in kinds.items() if kind == KIND), None)
    if vae is None and unet is None:
        raise ModelError(
            f"{name!r} must be a diffusers folder with an autoencoder ({' or '.join(VAES)}) or a {KIND}, got "
            f"{', '.join(str(k) for k in kinds.values() if k) or 'no config.json'}."
        )
    with loading(lambda why: ModelError(f"{name!r} cannot be used: {why} Save the complete folder again.")):
        decode, encode, shape = (
            _pixels(_config(unet or root), side) if vae is None else _latent(_network(vae, name), side)
        )
        score = None if unet is None else _score(_network(unet, name), root, name, shape)
        digest = " ".join(file_sha256(file) for place in (vae, unet) if place for file in sorted(place.glob("*.*")))
        return Decoder(decode, shape, encode, score, name, f"{digest} {side}")


def _config(folder: Path) -> dict[str, Any]:
    file = folder / "config.json"
    return read_config(str(folder), file, "Save it again.") if file.is_file() else {}


def _network(folder: Path, name: str) -> Any:
    with needs("diffusion", "diffusers"):
        import diffusers
    check_folder(name, folder)
    network, missing = from_saved(getattr(diffusers, _config(folder)["_class_name"]), name, folder)
    if missing.tensors:
        raise missing.refusal()
    return freeze(network).float()


Parts = tuple[Callable[[Tensor], Tensor], Callable[[Tensor], Tensor], tuple[int, ...]]


def _latent(network: Any, side: int | None) -> Parts:
    config = network.config
    scale, shift = config.scaling_factor, config.get("shift_factor") or 0.0
    side = side or config.get("sample_size")
    if side is None:
        raise InputError(
            "The autoencoder's configuration has no sample_size. Give the side in pixels, for example --set side=64."
        )

    def encode(pictures: Tensor) -> Tensor:
        found = network.encode(2 * pictures - 1)
        latents: Tensor = found.latents if hasattr(found, "latents") else found.latent_dist.mode()
        return (latents - shift) * scale

    def decode(codes: Tensor) -> Tensor:
        made: Tensor = network.decode(codes / scale + shift).sample
        return made / 2 + 0.5

    with torch.no_grad():
        return decode, encode, tuple(encode(torch.zeros(1, 3, side, side)).shape[1:])


def _pixels(config: dict[str, Any], side: int | None) -> Parts:
    side = side or config["sample_size"]
    return lambda codes: codes / 2 + 0.5, lambda pictures: 2 * pictures - 1, (config["in_channels"], side, side)


def _score(network: Any, root: Path, name: str, shape: tuple[int, ...]) -> Score:
    config, said = network.config, settings_of(root)
    predicts = said.get("prediction_type", "epsilon")
    if config.in_channels != shape[0] or config.get("num_class_embeds") or config.get("class_embed_type"):
        raise ModelError(
            f"The U-Net of {name!r} must read the {shape[0]} channels of the codes and no classes, got "
            f"{config.in_channels} channels. Choose another one."
        )
    if not {"num_train_timesteps", "beta_schedule"} <= said.keys() or predicts not in get_args(Predicts):
        raise ModelError(
            f"The scheduler of {name!r} must have a beta_schedule, num_train_timesteps and a prediction_type of "
            f"{', '.join(get_args(Predicts))}. Save the U-Net with its own scheduler."
        )
    return Score(lambda noisy, t: network(noisy, t).sample, alphas_of(root, name).float(), predicts)


@dataclass(frozen=True)
class Bring(Checked):
    """Settings for turning a decoder into a generator.

    Args:
        prior: prior over codes: ``score`` (the decoder's diffusion model), ``autoencoder`` (a denoising autoencoder
            trained on the codes of your pictures), ``joint`` (decoding and encoding), or ``auto`` (the first
            available).
        noise: standard deviation of the noise that the prior removes, as a fraction of the codes' standard deviation;
            greater than 0.
        prior_steps: largest number of training steps of the autoencoder, each with 64 codes.
        side: side of the pictures in pixels; default: as in the decoder's training.
        most: largest number of pictures to read from the folder.
        held_out: fraction of these pictures on which the decoder is evaluated, 0 to 1.
    """

    noun = "the decoder's preparation"

    prior: Literal["auto", "score", "autoencoder", "joint"] = "auto"
    noise: Positive = 0.5
    prior_steps: Count = 1000
    side: Count | None = None
    most: Count = 1000
    held_out: InnerPart = 0.1

    def ready(
        self, decoder: Decoder, items: Sequence[Sample], *, seed: int = 0, progress: Progress | None = None
    ) -> Generator:
        """Return the generator.

        Raises:
            ModelError: decoded pictures are hardly better than the mean picture, or the prior removes no noise.
        """
        progress = progress or Progress()
        prior = self.prior if self.prior != "auto" else "autoencoder" if decoder.score is None else "score"
        if prior == "score" and decoder.score is None:
            raise InputError(
                f"prior='score' needs a diffusion model, but {decoder.name} has none. Give a folder with a U-Net and "
                "its scheduler, or set prior=autoencoder."
            )
        kept, digests, pictures = _read(items[:: -(-len(items) // self.most) or 1], decoder, progress)
        own, held = parted(kept, digests, self.held_out, seed)
        read, real, size = CodesOf(decoder), unit(pictures[held]), min(64, max(1, 2**18 // decoder.side**2))
        near = batched(read, real, size)
        facts = {
            "decoder": decoder.name, "side": decoder.side, "code": list(decoder.shape), "prior": prior,
            "noise": self.noise, "n_pictures": len(own), "n_held_out": len(held),
            **errors(batched(decoder, near, size), real, pictures[own]),
        }  # fmt: skip
        check_errors(decoder.name, facts)

        def fitted() -> dict[str, Tensor]:
            parts = pictures[own].split(size)
            codes = torch.cat(
                [batched(read, unit(part), size) for part in progress.track(parts, "Encoding pictures", len(parts))]
            )
            if prior != "autoencoder":
                return {"codes": codes}
            network = autoencoder(codes, self.noise, self.prior_steps, seed=seed, progress=progress)
            return {"codes": codes, **network.state_dict()}

        key = json.dumps([asdict(self), decoder.digest, digests, seed, prior])
        named = hashlib.sha256(key.encode()).hexdigest()[:40]
        weights = cached_tensors("decoders", named, fitted) if decoder.digest else fitted()
        codes = weights.pop("codes")
        denoise = self._denoiser(decoder, prior, codes, weights)
        facts["noise_left"] = noise_left(
            denoise or (lambda h: read(decoder(h))), near, self.noise * float(spread_of(codes))
        )
        if denoise is not None:
            check_noise(decoder.name, facts)
        low, high = (float(torch.quantile(some(codes), q)) for q in (1 - CLIPPED, CLIPPED))
        return Generator(decoder, read, (low, high), codes[:: -(-len(own) // KEPT)], facts, denoise)

    def _denoiser(
        self, decoder: Decoder, prior: str, codes: Float[Tensor, "n d"], weights: dict[str, Tensor]
    ) -> Callable[[Tensor], Tensor] | None:
        """Return the denoiser ``R``, or ``None`` for the joint prior."""
        if prior == "autoencoder":
            network = Autoencoder(codes.shape[1], self.noise)
            network.load_state_dict(weights)
            return network.eval().requires_grad_(False)
        if prior == "joint" or decoder.score is None:
            return None
        score, t = decoder.score, decoder.score.step(self.noise * float(spread_of(codes)))
        return lambda flat: score.denoised(flat.unflatten(1, decoder.shape), t).flatten(1)


def _read(
    items: Sequence[Sample], decoder: Decoder, progress: Progress
) -> tuple[list[Sample], list[str], UInt8[Tensor, "n h w 3"]]:
    """Read pictures at the decoder's size."""
    kept, digests, pictures = [], [], []
    for item in progress.track(items, "Reading pictures", len(items)):
        try:
            picture = read_picture(item.source, CodesOf(decoder).cut(decoder.side))
        except ImageError as error:
            progress.failed(Failure(item.image, error.reason))
            continue
        kept.append(item)
        digests.append(picture.digest)
        pictures.append(torch.from_numpy(picture.pixels.copy()))
    if len(set(digests)) < LEAST:
        raise DataError(
            f"At least {LEAST} different pictures are needed to evaluate the decoder, got {len(set(digests))}. Give "
            "more pictures."
        )
    return kept, digests, torch.stack(pictures)
