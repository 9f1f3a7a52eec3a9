"""
Your own pictures
=================

From a folder of pictures to a classifier that gives reasons, and says how far to trust it.
"""

# %%
# Pictures in folders
# -------------------
# Make one folder per class. These pictures are cut from three photographs of surfaces. The lowest quarter of each
# photograph is for testing.

from pathlib import Path

import skimage.data
from PIL import Image

import seewhy

folder = Path("surfaces")
for label in ("brick", "grass", "gravel"):
    photo = Image.fromarray(getattr(skimage.data, label)())
    for i in range(16):
        left, top = 128 * (i % 4), 128 * (i // 4)
        path = folder / ("photos" if i < 12 else "test") / label / f"{label}-{i}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        photo.crop((left, top, left + 128, top + 128)).save(path)
print(*sorted(p.name for p in (folder / "photos").iterdir()))

# %%
# Fit
# ---
# SeeWhy encodes every picture once. Descriptions are optional: they add the evidence *in words*.

classifier = seewhy.fit(
    folder / "photos",
    descriptions={
        "brick": ["a wall of rectangular blocks", "straight lines of mortar"],
        "grass": ["thin green blades", "a lawn"],
        "gravel": ["many small round stones", "a path of pebbles"],
    },
)
measures = classifier.measures
print(f"held out: {measures['held_out_accuracy']:.0%} of {measures['n_held_out']} pictures")

# %%
# Explain
# -------
# In a notebook, an explanation appears as a card. Its first line says how far to trust the decision.

why = classifier.explain(folder / "test/gravel/gravel-13.png")
print(why.prediction.decision.verdict, "-", why.prediction.decision.sentence)
why

# %%
# Each kind of evidence has a verdict. This decision is right, but its heat map explains nothing: the picture shows
# gravel everywhere.

for name in ("where", "like", "words"):
    evidence = getattr(why, name)
    print(f"{name}: {evidence.verdict.level}\n    {evidence.verdict.sentence}")

# %%
# A picture of something else
# ---------------------------
# A classifier names one of its classes for any picture. The first line says when not to believe it.

cat = classifier.explain(skimage.data.chelsea())
print(cat.prediction.label, f"{cat.prediction.score:.0%}")
print(cat.prediction.decision.verdict, "-", cat.prediction.decision.sentence)

# %%
# Measure, and save
# -----------------
# Measure on pictures that were not used for fitting:

report = classifier.evaluate(folder / "test", n_explained=2)
low, high = report.data["accuracy_interval"]
print(f"{report.accuracy:.0%} of {report.data['n']} pictures are right (95 % interval {low:.0%} to {high:.0%})")
classifier.save(folder / "model")
again = seewhy.load(folder / "model")
print(again.predict(folder / "test/grass/grass-12.png").label)
