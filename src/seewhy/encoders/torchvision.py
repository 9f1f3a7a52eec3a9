"""Load encoders of torchvision: ``torchvision:NAME``, or ``torchvision:NAME@FILE`` with weights from a file."""

from __future__ import annotations

from typing import Any

from torch import nn

from ..errors import ModelError, UnknownNameError
from ..types import Transform
from .base import Encoder
from .fence import fenced
from .module import split_module
from .names import imagenet_labels
from .split import freeze
from .weights import EXAMPLE, WeightsFile, fetch_url

LIBRARIES = ("torchvision.models",)


def load(name: str, *, engine: str = "auto", weights: str = "DEFAULT", **options: Any) -> Encoder:
    """Load a torchvision classifier.

    Args:
        name: ``"resnet50"``, or ``"resnet50@/path/weights.pth"`` (or ``.safetensors``).
        engine: engine that runs the trunk.
        weights: member of the network's weights enum.
        **options: keyword arguments of the network's builder.
    """
    from torchvision import models

    whole, (architecture, _, path) = f"torchvision:{name}", name.partition("@")
    known = models.list_models(module=models)
    UnknownNameError.check("torchvision classifier", architecture, known)
    entries = {w.name: w for w in models.get_model_weights(architecture)}
    if path:
        model, transform, classes = _from_file(architecture, entries, WeightsFile.open(path), options)
    else:
        if weights != "DEFAULT" and weights not in entries:
            raise UnknownNameError(f"weights entry of {architecture}", weights, entries)
        entry = models.get_model_weights(architecture)[weights]
        file = entry.url.rsplit("/", 1)[-1]
        tensors = WeightsFile(fetch_url(whole, entry.url, f"torchvision:{architecture}@/path/to/{file}"), {}).weights()
        # The builders download and unpickle weights themselves, so replace only that step.
        entry.get_state_dict = lambda *_args, **_keywords: tensors
        try:
            with fenced():
                model = models.get_model(architecture, weights=entry, **options)
        finally:
            del entry.get_state_dict
        transform, classes = transform_of(entry.transforms()), _names(entry)
    split, classifier, _ = split_module(freeze(model), None, None, transform.input_size, whole, None)
    if classifier is not None and len(classes) != classifier.out_features:
        classes = tuple(f"class {i}" for i in range(classifier.out_features))
    return split.encoder(model, whole, transform, classifier=classifier, classes=tuple(classes), engine=engine)


def transform_of(preset: Any) -> Transform:
    height, width = (*preset.crop_size, preset.crop_size[-1])[:2]
    resize = preset.resize_size[0] if len(preset.resize_size) == 1 else tuple(preset.resize_size)
    mean, std = tuple(map(float, preset.mean)), tuple(map(float, preset.std))
    return Transform((height, width), resize, preset.interpolation.value, mean, std)  # type: ignore[arg-type]


def _names(entry: Any) -> tuple[str, ...]:
    """Return unique class names of a weights entry."""
    categories = tuple(entry.meta["categories"])
    return imagenet_labels() if len(categories) == 1000 else categories


def _from_file(
    architecture: str, entries: dict[str, Any], file: WeightsFile, options: dict[str, Any]
) -> tuple[nn.Module, Transform, tuple[str, ...]]:
    """Load a network, its preprocessing and its class names from a weights file."""
    from torchvision import models

    match = [w for w in entries.values() if w.url.rsplit("/", 1)[-1] == file.path.name]
    classes: tuple[str, ...] = file.classes
    if file.said.get("transform"):
        transform = file.transform
    elif match:
        transform = transform_of(match[0].transforms())
        classes = classes or _names(match[0])
    else:
        raise ModelError(
            f"The metadata of {str(file.path)!r} must have a transform, because the file does not have the name of "
            f"published weights of {architecture} ({', '.join(w.url.rsplit('/', 1)[-1] for w in entries.values())}). "
            f"Write it into {file.path.name + '.json'!r} beside the file, for example: {EXAMPLE}"
        )
    n = len(classes) or (file.num_classes if file.said.get("num_classes") else 1000)
    # Two networks draw slow random weights and carry training-only heads.
    quick = {"init_weights": False} if architecture in ("inception_v3", "googlenet") else {}
    given = {"num_classes": n, **quick, **options}
    model = file.fill(lambda: models.get_model(architecture, weights=None, **given), architecture)
    return model, transform, classes


def names() -> list[str]:
    """List all classifiers of torchvision."""
    from torchvision import models

    return models.list_models(module=models)
