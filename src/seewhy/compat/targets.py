"""What is explained, under pytorch-grad-cam's names: one picture's own output → a number.

The peer's own objects, and any other function, do as well.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from ..attributions.finer_cam import lead_over
from ..errors import InputError

Targets = Sequence[Callable[[Any], Tensor]]
"""One a picture: a picture's own output, ``(k,)`` of a classifier → a number."""

Choose = Callable[[Any], Targets]
"""The network's output for all pictures → their targets."""


class ClassifierOutputTarget:
    """The logit of one class."""

    def __init__(self, category: int) -> None:
        self.category = category

    def __call__(self, output: Tensor) -> Tensor:
        return output[..., self.category]


class ClassifierOutputSoftmaxTarget(ClassifierOutputTarget):
    """The probability of one class."""

    def __call__(self, output: Tensor) -> Tensor:
        return output.softmax(-1)[..., self.category]


class ClassifierOutputReST(ClassifierOutputTarget):
    """The logit and the log of the probability, added (Cai 2025, arXiv 2501.06261)."""

    def __call__(self, output: Tensor) -> Tensor:
        target = torch.full(output.shape[:-1], self.category, device=output.device)
        return output[..., self.category] - cross_entropy(output, target, reduction="none")


class BinaryClassifierOutputTarget:
    """The only logit of a network that tells two classes apart, turned over for the class that is not 1."""

    def __init__(self, category: int) -> None:
        self.category = category

    def __call__(self, output: Tensor) -> Tensor:
        return output if self.category == 1 else -output


class SoftmaxOutputTarget:
    """The output's softmax; for outputs of one number."""

    def __call__(self, output: Tensor) -> Tensor:
        return output.softmax(-1)


class RawScoresOutputTarget:
    """The output itself; for outputs of one number."""

    def __call__(self, output: Tensor) -> Tensor:
        return output


class SemanticSegmentationTarget:
    """The scores of one class ``(k, h, w)``, added up over the pixels of a mask.

    Args:
        category: the class.
        mask: ``(h, w)``; 1 where pixels count.
    """

    def __init__(self, category: int, mask: np.ndarray) -> None:
        self.category = category
        self.mask = torch.from_numpy(mask)

    def __call__(self, output: Tensor) -> Tensor:
        return (output[self.category] * self.mask.to(output.device)).sum()


class FasterRCNNBoxScoreTarget:
    """How well a detector finds given boxes again: overlap and score of the best box of each, added up.

    Args:
        labels: a class for each box.
        bounding_boxes: ``(n, 4)``: left, top, right, bottom.
        iou_threshold: a box that overlaps no further, or is of another class, counts 0.
    """

    def __init__(self, labels: Sequence[int], bounding_boxes: Any, iou_threshold: float = 0.5) -> None:
        self.labels = labels
        self.bounding_boxes = bounding_boxes
        self.iou_threshold = iou_threshold

    def __call__(self, output: dict[str, Tensor]) -> Tensor:
        from torchvision.ops import box_iou

        boxes = output["boxes"]
        total = boxes.new_zeros(1)
        if not len(boxes):
            return total
        for box, label in zip(self.bounding_boxes, self.labels, strict=True):
            overlaps = box_iou(torch.as_tensor(box, device=boxes.device, dtype=boxes.dtype)[None], boxes)[0]
            best = overlaps.argmax()
            if overlaps[best] > self.iou_threshold and output["labels"][best] == label:
                total = total + overlaps[best] + output["scores"][best]
        return total


class FinerWeightedTarget:
    """A class's lead over others, each counting by its probability; see :mod:`seewhy.attributions.finer_cam`.

    Args:
        main_category: the class.
        comparison_categories: those it is told from.
        alpha: how strongly they count.
    """

    def __init__(self, main_category: int, comparison_categories: Sequence[int], alpha: float) -> None:
        self.main_category = main_category
        self.comparison_categories = list(comparison_categories)
        self.alpha = alpha

    def __call__(self, output: Tensor) -> Tensor:
        rows = output if output.ndim == 2 else output[None]
        classes = torch.tensor([self.main_category], device=rows.device).expand(len(rows))
        others = torch.tensor([self.comparison_categories], device=rows.device).expand(len(rows), -1)
        weights = rows.softmax(1).gather(1, others)
        found = lead_over(rows, classes, others, self.alpha, weights / (weights.sum(1, keepdim=True) + 1e-9))
        return found if output.ndim == 2 else found[0]


def check_targets(targets: Targets, n_pictures: int) -> None:
    """The peer stops at the shorter list, and the pictures left over get an empty map without a word."""
    if callable(targets) or len(targets) != n_pictures:
        n = 1 if callable(targets) else len(targets)
        raise InputError(f"{n} targets were given for {n_pictures} pictures. Give a list with one a picture.")
    wrong = next((t for t in targets if not callable(t)), None)
    if wrong is not None:
        raise InputError(
            f"The target {wrong!r} is a {type(wrong).__name__}. A function of a picture's output was expected. "
            "Write ClassifierOutputTarget(class index)."
        )


def highest(output: Any) -> Targets:
    """The class with the highest output of each picture."""
    if not isinstance(output, Tensor) or output.ndim != 2:
        shape = tuple(output.shape) if isinstance(output, Tensor) else f"a {type(output).__name__}"
        raise InputError(
            f"No targets were given, and the network gives {shape}, which has no highest class. Outputs (b, k) were "
            "expected. Give targets, one a picture: each a function of that picture's output."
        )
    return [ClassifierOutputTarget(category) for category in output.argmax(1).tolist()]


def scores(targets: Targets, output: Any) -> Tensor:
    """The targets' numbers, ``(n,)``; rows beyond the targets' number start again at the first.

    Raises:
        InputError: the output is not a row a picture, or a target gives more than one number.
    """
    if not isinstance(output, Tensor | list | tuple) or len(output) % len(targets):
        raise InputError(
            f"The network gives a {type(output).__name__}. A tensor or a list with a row for each picture was "
            "expected. Wrap it in a module that returns one."
        )
    found = [targets[i % len(targets)](row) for i, row in enumerate(output)]
    wrong = next((value for value in found if value.numel() != 1), None)
    if wrong is not None:
        raise InputError(
            f"A target gives {tuple(wrong.shape)} for one picture. One number was expected. Choose one of the outputs, "
            "for example with ClassifierOutputTarget."
        )
    return torch.stack([value.reshape(()) for value in found])
