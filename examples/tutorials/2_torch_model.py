"""
A torch model's maps, and whether to believe them
=================================================

Take any ``nn.Module``, draw its maps, and measure them beside maps that know nothing.
"""

# %%
# A network
# ---------
# It is yours in real life; here it is EfficientNet-Lite0 as plain torch, with the classes of ImageNet.

import tempfile

import skimage.data
import torch

import seewhy

borrowed = seewhy.encoder("lite0", engine="torch")
network = borrowed.module
print(type(network).__name__, [name for name, _ in network.named_children()])

# %%
# What has to be known: the layer to look at, the preprocessing, the names of the classes. Preprocessing is never
# guessed. The network is left as it is; a copy runs in the fastest engine there is.

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
# Other maps of the same look
# ---------------------------
# *Match* says how well the heat foretells what hiding halves of the picture does: 1 is perfect. It is compared with a
# bump in the middle, which looks at nothing.

for method in ("grad_cam", "grad_cam_plus_plus", "eigen_cam"):
    where = classifier.explain(coffee, where=method).where
    print(f"{method:<18} match {where.match:5.2f}, bump {where.match_centre:.2f}: {where.verdict.level}")

# %%
# Eigen-CAM does not know the class, and may do well nevertheless: on this photograph the cup is all there is. That is
# why one picture proves nothing.
#
# Any metric on any map
# ---------------------
# Maps of other libraries, too. Each is scored with the same looks; a random map stands beside it.

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
# Four photographs are enough to see how a study goes, and far too few to believe it: a difference is called real from
# ten pictures on.

from seewhy.studies.faithfulness import FaithfulnessStudy, chosen_methods, chosen_metrics

photographs = [skimage.data.coffee(), skimage.data.chelsea(), skimage.data.rocket(), skimage.data.astronaut()]
study = FaithfulnessStudy(
    methods=chosen_methods(["grad_cam", "layer_cam"]), metrics=chosen_metrics(["deletion", "insertion"])
)
found = study.run(classifier, photographs, tempfile.mkdtemp())
print(found.sentence)
