"""A linear detection probe on an encoder's features."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import chain, islice
from typing import ClassVar, NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

from ...bounds import Checked, Count, Natural, Positive
from ...classifiers.linear.solvers import LinearFit, fit_linear
from ...clusters import lloyd
from ...encoders.base import Encoder
from ...heads.head import Head
from ...heads.normalise import Normalise
from ...pictures.boxes import BoxData, BoxedPicture
from ...progress import Progress
from .. import detectors
from ..parts import NOTHING, PooledScore, rest_names
from ..reader import LARGEST, Looked, Reader, shares, span_means
from ..two_stage import box_coder
from .trained import Regions, boxes_on, check_usable

STEP, FINEST = 0.25, 0.5
"""Stride of sliding windows, as a share of their sides, and smallest stride in grid cells."""
CHUNK, MOST, WIDEST = 1024, 300, 1.01
"""Windows per chunk of overlap computations, windows to refine, and largest side of a window as a share of the
picture's.
"""
MOST_ROWS, FEWEST, CLOSER = 15_000, 8, 4
"""Training windows in all, smallest number of each kind per picture, and jittered boxes per object."""
N_ROUNDS = 25
"""Largest number of rounds of k-means."""
RIGHT, WRONG = 0.5, 0.4
"""Overlap from which a window is a positive example, and below which it is a negative example."""
FIRST, RIDGE = 64, 1.0
"""Pictures for the principal components, and the ridge penalty of the box regression."""


def common_shapes(sizes: Float[Tensor, "n 2"], n: int, seed: int) -> Float[Tensor, "m 2"]:
    """Cluster widths and heights by k-means on their logarithms."""
    points = sizes.double().log()
    distinct = points.unique(dim=0)
    order = torch.randperm(len(distinct), generator=torch.Generator().manual_seed(seed))[:n]
    return lloyd(points, distinct[order], N_ROUNDS)[0].exp().float()


def lattices(shapes: Float[Tensor, "m 2"], grid: Sequence[int]) -> list[tuple[Tensor, Tensor]]:
    """Return the sliding windows of each shape as horizontal and vertical spans."""

    def places(side: int, own: float) -> Float[Tensor, "i 2"]:
        first = torch.linspace(0, side - own, max(1, round((side - own) / max(FINEST, STEP * own)) + 1))
        return torch.stack([first, first + own], 1)

    h, w = grid
    sizes = (shapes.clamp(max=1) * torch.tensor([w, h])).tolist()
    return [(places(w, width), places(h, height)) for width, height in sizes]


def windows_of(shapes: Float[Tensor, "m 2"], grid: Sequence[int]) -> Float[Tensor, "n 4"]:
    """Return the sliding windows as boxes in grid cells, row by row."""
    boxes = []
    for x, y in lattices(shapes, grid):
        i, j = torch.arange(len(x)).repeat(len(y)), torch.arange(len(y)).repeat_interleave(len(x))
        boxes.append(torch.stack([x[i, 0], y[j, 0], x[i, 1], y[j, 1]], 1))
    return torch.cat(boxes)


def pieces_of(spans: Float[Tensor, "i 2"], n: int) -> Float[Tensor, "n i 2"]:
    step = (spans[:, 1] - spans[:, 0]) / n
    first = spans[:, 0] + step * torch.arange(n)[:, None]
    return torch.stack([first, first + step], 2)


def wider(spans: Float[Tensor, "i 2"], around: float, n: int) -> Float[Tensor, "i 2"]:
    """Widen each span by a margin, within ``n`` grid cells."""
    margin = around * (spans[:, 1:] - spans[:, :1])
    return torch.cat([spans[:, :1] - margin, spans[:, 1:] + margin], 1).clamp(min=0, max=n)


def best_overlaps(boxes: Float[Tensor, "n 4"], there: Float[Tensor, "m 4"]) -> tuple[Tensor, Tensor]:
    """Return the largest overlap of each box with a true box, and its index."""
    from torchvision.ops import box_iou

    if not len(there):
        return boxes.new_zeros(len(boxes)), torch.zeros(len(boxes), dtype=torch.long)
    parts = [box_iou(part, there).max(1) for part in boxes.split(CHUNK)]
    return torch.cat([p.values for p in parts]), torch.cat([p.indices for p in parts])


def offsets(boxes: Float[Tensor, "n 4"], targets: Float[Tensor, "n 4"]) -> Float[Tensor, "n 4"]:
    """Return the box regression targets ``(dx / w, dy / h, log w'/w, log h'/h)`` (R-CNN, Girshick et al. 2013)."""
    return box_coder((1.0, 1.0, 1.0, 1.0)).encode_single(targets, boxes)


def moved(boxes: Float[Tensor, "n 4"], by: Float[Tensor, "n 4"]) -> Float[Tensor, "n 4"]:
    """Apply :func:`offsets` to boxes, with each component limited to 1.

    >>> a, b = torch.tensor([[0.0, 0.0, 2.0, 2.0]]), torch.tensor([[0.5, 0.0, 3.0, 1.0]])
    >>> moved(a, offsets(a, b)).tolist()
    [[0.5, 0.0, 3.0, 1.0]]
    """
    return box_coder((1.0, 1.0, 1.0, 1.0)).decode_single(by.clamp(-1, 1), boxes)


def parts_of(
    boxes: Float[Tensor, "n 4"], n: int, around: float, grid: Sequence[int]
) -> list[tuple[Float[Tensor, "n 2"], Float[Tensor, "n 2"]]]:
    """Return the spans of the ``n`` by ``n`` parts of each box, and of the ring around it."""
    x, y = boxes[:, ::2], boxes[:, 1::2]
    found = [(column, row) for row in pieces_of(y, n) for column in pieces_of(x, n)]
    return [*found, (wider(x, around, grid[1]), wider(y, around, grid[0]))]


@dataclass(frozen=True, eq=False)
class Axes:
    """Principal components of an encoder's features."""

    mean: Float[Tensor, " c"]
    components: Float[Tensor, "m c"]

    @classmethod
    def of(cls, maps: list[Tensor], width: int) -> Axes:
        cells = torch.cat([m.flatten(1).T for m in maps]).double()
        mean = cells.mean(0)
        centred = cells - mean
        values, vectors = torch.linalg.eigh(centred.T @ centred / len(cells))
        n = max(1, min(width, int((values > 1e-9 * values[-1]).sum())))
        spread = values[-n:].flip(0).clamp(min=1e-12).sqrt()
        return cls(mean.float(), (vectors[:, -n:].flip(1).T / spread[:, None]).float())

    def of_map(self, grid: Float[Tensor, "c h w"]) -> Float[Tensor, "m h w"]:
        return torch.einsum("mc,chw->mhw", self.components, grid - self.mean[:, None, None])


@dataclass(frozen=True, eq=False)
class Taught:
    """A training picture: its feature map, and its objects as fractions of the picture."""

    grid: Float[Tensor, "m h w"]
    boxes: Float[Tensor, "g 4"]
    labels: Int[Tensor, " g"]
    ignored: Float[Tensor, "i 4"]

    @classmethod
    def of(cls, picture: BoxedPicture, grid: Float[Tensor, "m h w"], classes: Sequence[str]) -> Taught:
        scale = torch.tensor((picture.size or (1, 1)) * 2)
        ignored = torch.tensor([b.box for b in picture.boxes if b.ignored]).reshape(-1, 4) / scale
        return cls(grid.half(), *boxes_on(picture, classes), ignored)

    @property
    def cells(self) -> Float[Tensor, "g 4"]:
        return self.boxes * corners_of(self.grid)


def corners_of(grid: Tensor) -> Float[Tensor, " 4"]:
    """Return (width, height, width, height) of a map in grid cells."""
    h, w = grid.shape[1:]
    return torch.tensor([w, h, w, h], dtype=torch.float32)


class Examples(NamedTuple):
    """Training windows: features, class (the last is the background), and box regression targets."""

    x: Float[Tensor, "n d"]
    label: Int[Tensor, " n"]
    offsets: Float[Tensor, "n 4"]


Fit = tuple[LinearFit, Tensor]
"""The fitted classifier and its standardisation."""


@detectors.register
@dataclass(frozen=True)
class Linear(Checked):
    """Multinomial logistic regression on sliding windows, as a baseline detector.

    A window has these features ``x``: the means of the feature map over its ``parts x parts`` parts and over a ring
    around it, and the logarithms of its width and height. The feature map is first reduced to ``width`` whitened
    principal components. The scores of the classes and the background are

        softmax(W x + b)

    with fitted ``W`` and ``b``.

    All windows of the ``n_shapes`` most common shapes are scored, so no proposals are needed. Hard negatives are added
    in rounds (Felzenszwalb et al. 2010). A ridge regression on the same features refines the boxes, which are then
    scored again. The classifier follows R-CNN with Fast R-CNN's softmax, and the parts follow R-FCN.

    The trunk runs once per window of a picture, in training and in detection.

    Args:
        width: number of principal components.
        parts: number of parts of a window along each side.
        around: width of the ring around a window, as a fraction of the window's side.
        n_shapes: number of window shapes, found by k-means over the boxes.
        c: inverse regularisation strength, greater than 0; lower values reduce overfitting.
        rounds: number of training rounds on hard negatives.
        zoom: short side of the picture, as a multiple of the encoder's input size; a larger value finds smaller objects
            and takes longer.
        seed: seed for shapes and sampled windows.
    """

    name: ClassVar[str] = "linear"
    paper: ClassVar[str] = "after Girshick et al. 2013, arXiv:1311.2524, and Dai et al. 2016, arXiv:1605.06409"
    needs: ClassVar[str] = "pictures with boxes"
    cost: ClassVar[str] = "one per window"

    width: Count = 128
    parts: Count = 3
    around: Positive = 0.25
    n_shapes: Count = 9
    c: Positive = 0.01
    rounds: Natural = 2
    zoom: float = LARGEST
    seed: int = 0

    def fit(self, reader: Reader, data: BoxData, *, progress: Progress | None = None) -> RegionProbe:
        progress = progress or Progress()
        maps, axes = self._maps(reader, data, progress)
        sizes = torch.cat([m.boxes[:, 2:] - m.boxes[:, :2] for m in maps])
        shapes = common_shapes(sizes, self.n_shapes, self.seed)
        empty = RegionProbe(axes, shapes, torch.zeros(0, 0), torch.zeros(0), self.parts, self.around)
        generator = torch.Generator().manual_seed(self.seed)
        n = max(FEWEST, MOST_ROWS // len(maps) // (3 + self.rounds))
        taught = [_examples(empty, one, n, generator) for one in maps]
        probe, fit = self._fitted(empty, taught, len(data.classes))
        for _ in progress.track(range(self.rounds), "Learning from mistakes", self.rounds):
            taught += [_mistakes(probe, one, n) for one in maps]
            probe, fit = self._fitted(empty, taught, len(data.classes), fit)
        return probe

    def restore(self, encoder: Encoder, classes: tuple[str, ...], tensors: Mapping[str, Tensor]) -> RegionProbe:
        axes = Axes(tensors["mean"], tensors["components"])
        made = RegionProbe(axes, tensors["shapes"], tensors["weight"], tensors["bias"], self.parts, self.around)
        made.check(len(classes))
        return made

    def _maps(self, reader: Reader, data: BoxData, progress: Progress) -> tuple[list[Taught], Axes]:
        """Return the feature map of each picture in principal components."""
        order = torch.randperm(len(data), generator=torch.Generator().manual_seed(self.seed)).tolist()
        pictures = [data.pictures[i] for i in order]
        looked = reader.looked([p.image for p in pictures])
        stream = (
            (BoxedPicture(p.image, one.size, p.boxes), one.windows.merged(reader.encoder.layout.to_grid(one.features)))
            for p, one in progress.results(pictures, looked, "Looking at pictures")
        )
        first = list(islice(stream, FIRST))
        axes = Axes.of([grid for _, grid in first], self.width) if first else None
        taught = [Taught.of(p, axes.of_map(grid), data.classes) for p, grid in chain(first, stream)] if axes else []
        check_usable(sum(len(one.boxes) for one in taught), len(data))
        assert axes is not None
        return taught, axes

    def _fitted(
        self, empty: RegionProbe, taught: list[Examples], k: int, before: Fit | None = None
    ) -> tuple[RegionProbe, Fit]:
        """Fit the probe, starting from the weights of the previous round."""
        x, y = torch.cat([t.x for t in taught]), torch.cat([t.label for t in taught])
        spread = x.std(0).clamp(min=1e-4) if before is None else before[1]
        y = torch.where(y < 0, k, y)
        fit = fit_linear(x / spread, y, k + 1, self.c, warm_start=before and before[0], tol=1e-3)
        near = y < k
        own, targets = x[near] / spread, torch.cat([t.offsets for t in taught])[near]
        mean, middle = own.mean(0), targets.mean(0)
        centred = own - mean
        gram = centred.T @ centred / len(own) + RIDGE / len(own) * torch.eye(own.shape[1])
        move = torch.linalg.solve(gram, centred.T @ (targets - middle) / len(own)).T
        weight, bias = torch.cat([fit.weight, move]) / spread, torch.cat([fit.bias, middle - move @ mean])
        return replace(empty, weight=weight, bias=bias), (fit, spread)


@dataclass(frozen=True, eq=False)
class RegionProbe:
    """The detector that :class:`Linear` trains."""

    axes: Axes
    shapes: Float[Tensor, "s 2"]
    weight: Float[Tensor, "o d"]
    bias: Float[Tensor, " o"]
    parts: int
    around: float

    def tensors(self) -> dict[str, Tensor]:
        return {
            "mean": self.axes.mean, "components": self.axes.components, "shapes": self.shapes,
            "weight": self.weight, "bias": self.bias,
        }  # fmt: skip

    def check(self, k: int) -> None:
        wanted = (k + 5, (self.parts**2 + 1) * len(self.axes.components) + 2)
        if tuple(self.weight.shape) != wanted or self.bias.shape != wanted[:1]:
            raise ValueError(f"`weight` must have the shape {wanted}, got {tuple(self.weight.shape)}")
        pairs = self.shapes.ndim == 2 and self.shapes.shape[1] == 2 and len(self.shapes) > 0
        if not pairs or not bool(((self.shapes > 0) & (self.shapes <= WIDEST)).all()):
            raise ValueError(f"each window shape must be above 0 and at most {WIDEST} of the picture")

    def features(self, grid: Float[Tensor, "m h w"], boxes: Float[Tensor, "n 4"]) -> Float[Tensor, "n d"]:
        means = [span_means(grid.float(), x, y) for x, y in parts_of(boxes, self.parts, self.around, grid.shape[1:])]
        return torch.cat([*means, self._sizes(grid, boxes)], 1)

    def weighed(self, grid: Float[Tensor, "m h w"]) -> Float[Tensor, "p o h w"]:
        """Return the feature map multiplied by the weights of each part."""
        m, (h, w) = len(grid), grid.shape[1:]
        found = self.weight[:, :-2].reshape(-1, m) @ grid.float().flatten(1)
        return found.reshape(len(self.weight), -1, h, w).transpose(0, 1)

    def outputs(
        self, grid: Float[Tensor, "m h w"], boxes: Float[Tensor, "n 4"], weighed: Tensor | None = None
    ) -> Float[Tensor, "n o"]:
        """Return ``features @ weight.T + bias`` for each box."""
        weighed = self.weighed(grid) if weighed is None else weighed
        parts = parts_of(boxes, self.parts, self.around, grid.shape[1:])
        means = [span_means(one, x, y) for one, (x, y) in zip(weighed, parts, strict=True)]
        return torch.stack(means).sum(0) + self._sizes(grid, boxes) @ self.weight[:, -2:].T + self.bias

    def scan(self, grid: Float[Tensor, "m h w"]) -> tuple[Tensor, Tensor, Tensor]:
        """Return all windows, their outputs, and the weighted feature maps."""
        (h, w), n = grid.shape[1:], self.parts
        weighed = self.weighed(grid)
        inside, around = weighed[:-1].unflatten(0, (n, n)), weighed[-1]
        found = []
        for across, down in lattices(self.shapes, (h, w)):
            x, y = shares(pieces_of(across, n), w), shares(pieces_of(down, n), h)
            total = torch.einsum("rjh,rcohw,ciw->oji", y, inside, x)
            x, y = shares(wider(across, self.around, w), w), shares(wider(down, self.around, h), h)
            found.append((total + torch.einsum("jh,ohw,iw->oji", y, around, x)).flatten(1).T)
        windows = windows_of(self.shapes, (h, w))
        outputs = torch.cat(found) + self._sizes(grid, windows) @ self.weight[:, -2:].T + self.bias
        return windows, outputs, weighed

    def regions(self, encoder: Encoder, looked: Looked) -> Regions:
        grid = self.axes.of_map(looked.windows.merged(encoder.layout.to_grid(looked.features)))
        boxes, scores, _ = self.moved(grid)
        return Regions(boxes / corners_of(grid), scores)

    def pooled(self, reader: Reader, classes: tuple[str, ...]) -> PooledScore:
        """Return a linear classifier of one box, which reads the means of its parts."""
        n = len(classes) + 1

        def cells(encoder: Encoder, features: Tensor) -> Tensor:
            return torch.stack([self.axes.of_map(one) for one in encoder.layout.to_grid(features)])

        def head_of(box: Float[Tensor, "1 4"], grid: tuple[int, int]) -> Head:
            sizes = self._sizes(torch.empty(1, *grid), box)[0]
            return Head(Normalise(), self.weight[:n, :-2], self.bias[:n] + self.weight[:n, -2:] @ sizes)

        def pieces(box: Float[Tensor, "1 4"], grid: tuple[int, int]) -> list[Tensor]:
            spans = parts_of(box, self.parts, self.around, grid)
            return [torch.stack([x[:, 0], y[:, 0], x[:, 1], y[:, 1]], 1) for x, y in spans]

        names = (*classes, *rest_names(classes, (NOTHING,)))
        head = Head(Normalise(), self.weight[:n, :-2], self.bias[:n])
        return PooledScore(reader, Linear.name, names, cells, head, pieces=pieces, head_of=head_of)

    def moved(self, grid: Float[Tensor, "m h w"]) -> Regions:
        """Return the best windows after refinement, in grid cells, with their new scores."""
        windows, first, weighed = self.scan(grid)
        # Columns: classes, background, then four offsets of the window.
        top = first[:, :-4].softmax(1)[:, :-1].amax(1).topk(min(MOST, len(first))).indices
        boxes = torch.minimum(moved(windows[top], first[top, -4:]).clamp(min=0), corners_of(grid))
        boxes = boxes[(boxes[:, 2:] - boxes[:, :2]).amin(1) > 1e-3]
        return Regions(boxes, self.outputs(grid, boxes, weighed)[:, :-4].softmax(1)[:, :-1])

    def _sizes(self, grid: Tensor, boxes: Float[Tensor, "n 4"]) -> Float[Tensor, "n 2"]:
        return ((boxes[:, 2:] - boxes[:, :2]) / corners_of(grid)[:2]).log()


def _examples(probe: RegionProbe, one: Taught, n: int, generator: torch.Generator) -> Examples:
    """Sample training windows of a picture, including shifted copies of the true boxes."""

    def drawn(rows: Tensor) -> Tensor:
        return rows[torch.randperm(len(rows), generator=generator)[:n]]

    windows, own = windows_of(probe.shapes, one.grid.shape[1:]), one.cells
    few = drawn(own)
    many = few.repeat(CLOSER, 1)
    beside = moved(many, torch.randn(many.shape, generator=generator) * 0.15).clamp(min=0)
    beside = torch.cat([few, torch.minimum(beside, corners_of(one.grid))])
    beside = beside[(beside[:, 2:] - beside[:, :2]).amin(1) > 1e-3]
    overlap, _ = best_overlaps(windows, own)
    near, far = drawn(windows[overlap >= RIGHT]), drawn(windows[overlap < WRONG])
    return _labelled(probe, one, torch.cat([near, far, drawn(beside)]))


def _mistakes(probe: RegionProbe, one: Taught, n: int) -> Examples:
    """Return the windows without an object that have the highest scores."""
    boxes, scores, _ = probe.moved(one.grid)
    overlap, _ = best_overlaps(boxes, one.cells)
    top = scores.amax(1).masked_fill(overlap >= WRONG, -1).topk(min(n, len(boxes))).indices
    return _labelled(probe, one, boxes[top[overlap[top] < WRONG]])


def _labelled(probe: RegionProbe, one: Taught, boxes: Float[Tensor, "n 4"]) -> Examples:
    """Return windows with features and labels, without ambiguous and ignored windows."""
    own = one.cells
    overlap, which = best_overlaps(boxes, own)
    on_ignored, _ = best_overlaps(boxes, one.ignored * corners_of(one.grid))
    use = (overlap >= RIGHT) | ((overlap < WRONG) & (on_ignored < 0.3))
    boxes, which, near = boxes[use], which[use], (overlap >= RIGHT)[use]
    label, by = torch.full((len(boxes),), -1), torch.zeros(len(boxes), 4)
    if near.any():
        label[near] = one.labels[which[near]]
        by[near] = offsets(boxes[near], own[which[near]])
    return Examples(probe.features(one.grid, boxes), label, by)
