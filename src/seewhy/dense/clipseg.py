"""CLIPSeg (Lüddecke & Ecker 2022, CVPR), a pretrained zero-shot segmenter."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np
import torch
from jaxtyping import Float
from PIL import Image
from torch import Tensor

from ..bounds import OpenPart, check_fields
from ..encoders.names import filled
from ..errors import InputError
from ..pictures.images import read_views, upright_size
from ..types import Failure
from . import segmenters
from .finders import NamesPixels
from .pretrained import FINE, SHOWN, one_by_one, open_network, part_of, stretched
from .reader import LONGEST, WHOLE, Windows, Zoom, best_classes, tiling
from .regions import NOTHING, Segmentation, class_names, segments_of


@segmenters.register
@dataclass(frozen=True)
class CLIPSeg:
    """Zero-shot segmentation with a pretrained CLIPSeg network.

    Each name has its own probability map (section 3):

        s_k = decoder(activations(x), mean_p g(template_p(k)))
        p_k = sigmoid(s_k)

    - ``x``: the picture; ``activations`` are those of CLIP's image encoder.
    - ``k``: a name; ``template_p(k)`` is template ``p`` with this name.
    - ``g``: the text encoder.
    - ``s_k``, ``p_k``: the logit and the probability of name ``k`` at each pixel.

    Each pixel gets the name with the largest ``p_k``.

    Weights and processor are read from a transformers folder in safetensors. No code in the folder is executed. As in
    the transformers library, pictures are stretched to a square. The maps are interpolated bilinearly to pixels.

    The image encoder runs once per tile, and the small decoder once per name and tile.

    Args:
        templates: sentences with ``{}`` for the name, whose embeddings are averaged; default: the sentences of the
            paper.
        zoom: short side of the picture, as a multiple of the network's input size; a larger value finds smaller
            objects and takes longer. From 1.5, the picture is cut into tiles.
        least: lowest probability at which a pixel gets a name, 0 to 1. The probabilities of all names at a pixel need
            not add up to 1.
    """

    name: ClassVar[str] = "clipseg"
    spelt: ClassVar[str] = "CLIPSeg"
    paper: ClassVar[str] = "Lüddecke & Ecker 2022, arXiv:2112.10003"
    needs: ClassVar[str] = "class names, and a folder with its weights"
    cost: ClassVar[str] = "one per window and class, of its own network"
    takes_folder: ClassVar[bool] = True

    templates: tuple[str, ...] = ("a photo of a {}.",)
    zoom: Zoom = 1.0
    least: OpenPart = 0.0

    def __post_init__(self) -> None:
        check_fields(self)
        if not self.templates or not all("{}" in template for template in self.templates):
            raise InputError(
                f"`templates` of clipseg must be sentences with {{}} in place of the name, got {self.templates!r}."
            )

    @torch.no_grad()
    def build(self, labels: Iterable[str], folder: str | None) -> PretrainedSegmenter:
        classes = class_names(labels)
        network, processor, digest = open_network(self.name, folder, "CLIPSegForImageSegmentation", "segmenter")
        sentences = [filled(t, c) for c in classes for t in self.templates]
        said = processor.tokenizer(sentences, padding=True, truncation=True, return_tensors="pt")
        vectors = network.get_conditional_embeddings(len(sentences), said["input_ids"], said["attention_mask"])
        texts = vectors.unflatten(0, (len(classes), len(self.templates))).mean(1)
        about = {"method": self.name, "encoder": str(folder), "fingerprint": digest}
        return PretrainedSegmenter(classes, about, network, processor, texts, self)


@dataclass(frozen=True, eq=False)
class PretrainedSegmenter(NamesPixels):
    """A CLIPSeg segmenter for a fixed list of names."""

    classes: tuple[str, ...]
    about: dict[str, Any] = field(repr=False)
    network: Any = field(repr=False)
    processor: Any = field(repr=False)
    texts: Float[Tensor, "k d"] = field(repr=False)
    how: CLIPSeg

    def find_all(self, pictures: Iterable[Any]) -> Iterator[Segmentation | Failure]:
        return one_by_one(pictures, self._named)

    @torch.no_grad()
    def logits(self, pixels: np.ndarray) -> Float[Tensor, "k h w"]:
        """Compute the logit of each name at each position, as the transformers library does."""
        given = self.processor.image_processor(Image.fromarray(pixels), return_tensors="pt")
        states = self.network.clip.vision_model(
            given["pixel_values"], output_hidden_states=True, interpolate_pos_encoding=True
        ).hidden_states
        k = len(self.classes)
        activations = [states[i + 1].expand(k, -1, -1) for i in self.network.extract_layers]
        found: Tensor = self.network.decoder(activations, self.texts).logits
        return found.reshape(k, *found.shape[-2:])

    def _named(self, name: str, source: Any) -> Segmentation:
        width, height = upright_size(source, longest=LONGEST)
        along = max(1, round(self.how.zoom))
        n = tiling((width, height), along) if along > 1 else (1, 1)
        maps = [self.logits(part_of(source, (width, height), crop)) for crop in Windows((FINE, FINE), n).crops()]
        windows = Windows((maps[0].shape[1], maps[0].shape[2]), n)
        scores = windows.merged(torch.stack(maps))
        mask, probability = (one.numpy() for one in best_classes(scores, (height, width), alone=True))
        mask = np.where(probability < self.how.least, np.uint8(NOTHING), mask)
        about = {**self.about, "input": list(windows.cells), "n_windows": len(maps), "grid": list(scores.shape[1:])}
        small = read_views(source, stretched(SHOWN, SHOWN), [WHOLE])[0].pixels
        found = segments_of(self.classes, mask, probability)
        return Segmentation(
            name, (mask.shape[1], mask.shape[0]), self.classes, found, about, small, mask, scores.numpy()
        )
