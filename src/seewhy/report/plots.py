"""Results on matplotlib axes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from ..errors import InputError

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.image import AxesImage


@dataclass(frozen=True)
class Display:
    """A drawing, with names as in scikit-learn's ``ConfusionMatrixDisplay``."""

    figure_: Figure
    ax_: Axes
    im_: AxesImage


def _axes(ax: Axes | None) -> Axes:
    if ax is not None:
        return ax
    try:
        from matplotlib import pyplot
    except ImportError as error:
        raise InputError("A plot needs the package matplotlib. Run: pip install matplotlib") from error
    return pyplot.subplots()[1]


def draw_confusion(labels: Sequence[str], counts: Sequence[Sequence[int]], ax: Axes | None = None) -> Display:
    """Draw a confusion matrix: true classes in rows, predicted classes in columns."""
    ax, values = _axes(ax), np.array(counts).reshape(len(labels), len(labels))
    image = ax.imshow(values, cmap="Blues")
    ax.set(xlabel="Predicted class", ylabel="True class")
    ax.set_xticks(range(len(labels)), labels, rotation="vertical")
    ax.set_yticks(range(len(labels)), labels)
    for (i, j), n in np.ndenumerate(values) if len(labels) <= 30 else ():
        if n:
            ax.text(j, i, str(n), ha="center", va="center", color="white" if 2 * n > values.max() else "black")
    return Display(ax.figure, ax, image)  # type: ignore[arg-type]


def draw_heat(view: np.ndarray, heat: np.ndarray, title: str, ax: Axes | None = None) -> Display:
    """Draw a heat map over its picture; red supports the class, and blue contradicts it."""
    ax, most = _axes(ax), float(np.abs(heat).max()) or 1.0
    ax.imshow(view)
    image = ax.imshow(heat, cmap="bwr", alpha=0.5, vmin=-most, vmax=most)
    ax.set_title(title)
    ax.set_axis_off()
    return Display(ax.figure, ax, image)  # type: ignore[arg-type]
