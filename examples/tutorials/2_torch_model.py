"""
Heat maps of a torch model, and whether to believe them
=======================================================

Take any ``nn.Module``, make heat maps, and compare them with maps that ignore the picture.
"""

# %%
# A network
# ---------
# Use your own. This one is EfficientNet-Lite0 as plain torch, with the classes of ImageNet.

import tempfile

import skimage.data
import torch

import seewhy

borrowed = seewhy.encoder("lite0", engine="torch")
network = borrowed.module
print(type(network).__name__, [name for name, _ in network.named_children()])

# %%
# SeeWhy needs the layer to explain, the preprocessing, and the class names. It never guesses the preprocessing. Your
# network stays as it is: a copy runs in the fastest engine.

encoder = seewhy.from_module(
    network,
    target_layer="bn2",
    transform=borrowed.transform,
    classes=borrowed.classes,
    name="my network",
)
classifier = seewhy.pretrained(encoder)
coffee = skimage.data.coffee()
why = classifier.explain(coffee)
print(why.prediction.label, f"{why.prediction.score:.0%}", why.where.heat.shape)
why

# %%
# Other methods
# -------------
# SeeWhy hides halves of the picture. *Match* says how well the heat predicts the effect: 1 is perfect. The control is a
# spot in the centre, which ignores the picture.

for method in ("grad_cam", "grad_cam_plus_plus", "eigen_cam"):
    where = classifier.explain(coffee, where=method).where
    print(f"{method:<18} match {where.match:5.2f}, spot in the centre {where.match_centre:.2f}: {where.verdict.level}")

# %%
# Eigen-CAM ignores the class, and may still match well: this photograph shows nothing but the cup. So one picture
# proves nothing.
#
# Any metric on any map
# ---------------------
# Maps of other libraries work too. Each gets a score, and so does a random map.

from seewhy.metrics import metrics
from seewhy.metrics.base import Case

pixels = encoder.pixels([why.view])[0]
case = Case.of(classifier, pixels, classifier.index_of(why.prediction.label))
heat = torch.from_numpy(why.where.heat)
noise = torch.rand(heat.shape, generator=torch.Generator().manual_seed(0))
for name in ("deletion", "insertion", "average_drop"):
    ours, random = metrics[name]().measure(case, torch.stack([heat, noise]))
    print(f"{name:<13} {ours.value:6.2f}, a random map {random.value:6.2f}")

# %%
# Many pictures, with intervals
# -----------------------------
# Four photographs show how a study works, but are far too few to believe it. SeeWhy calls no difference real with
# fewer than ten pictures.

from seewhy.studies.faithfulness import FaithfulnessStudy, chosen_methods, chosen_metrics

photographs = [skimage.data.coffee(), skimage.data.chelsea(), skimage.data.rocket(), skimage.data.astronaut()]
study = FaithfulnessStudy(
    methods=chosen_methods(["grad_cam", "layer_cam"]), metrics=chosen_metrics(["deletion", "insertion"])
)
found = study.run(classifier, photographs, tempfile.mkdtemp())
print(found.sentence)
