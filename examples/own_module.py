"""Explain a network of your own: any ``nn.Module`` and the name of the layer to look at.

The weights here are random, so the prediction means nothing. The map still gets a verdict: "believable" means that the
map is true to the network, not that the network is right.
"""

from __future__ import annotations

import skimage.data
import torch
from torchvision.models import resnet18

import seewhy

torch.manual_seed(0)
network = resnet18(weights=None, num_classes=3).eval()  # yours, trained
transform = seewhy.Transform(
    input_size=(224, 224),
    resize=256,
    interpolation="bilinear",
    mean=(0.485, 0.456, 0.406),
    std=(0.229, 0.224, 0.225),
)
encoder = seewhy.from_module(
    network,
    target_layer="layer4",
    transform=transform,
    classes=["healthy", "mild", "severe"],
    name="my network",
    engine="torch",
)
why = seewhy.pretrained(encoder).explain(skimage.data.chelsea())
print(encoder)
print(f"{why.prediction.label} {why.prediction.score:.0%}")
print(f"map of {why.where.heat.shape[0]} × {why.where.heat.shape[1]} cells: {why.where.verdict.level}")
print(why.where.verdict.sentence)
