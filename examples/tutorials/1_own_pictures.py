"""
Your own pictures
=================

From a folder of pictures to a classifier that says how far to trust it, and why it decides as it does.
"""

# %%
# Pictures in folders
# -------------------
# One folder for each class is all it takes. Here they are cut from three photographs of surfaces; the lowest quarter
# of each photograph is kept apart for testing.

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
# Every picture is looked at once. Descriptions are optional: they add the evidence *in words*.

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
# In a notebook an explanation shows itself as a card. The first line says how far to trust the decision.

why = classifier.explain(folder / "test/gravel/gravel-13.png")
print(why.prediction.decision.verdict, "-", why.prediction.decision.sentence)
why

# %%
# Each kind of evidence has a verdict. This decision is right and its heat map is nevertheless no explanation: gravel
# is gravel everywhere on the picture.

for name in ("where", "like", "words"):
    evidence = getattr(why, name)
    print(f"{name}: {evidence.verdict.level}\n    {evidence.verdict.sentence}")

# %%
# A picture of something else
# ---------------------------
# A classifier answers whatever it is shown. The first line says when not to listen.

cat = classifier.explain(skimage.data.chelsea())
print(cat.prediction.label, f"{cat.prediction.score:.0%}")
print(cat.prediction.decision.verdict, "-", cat.prediction.decision.sentence)

# %%
# Measure, and keep
# -----------------
# On pictures that fitting never saw:

report = classifier.evaluate(folder / "test", n_explained=2)
low, high = report.data["accuracy_interval"]
print(f"right on {report.accuracy:.0%} of {report.data['n']} pictures (95 % interval {low:.0%} to {high:.0%})")
classifier.save(folder / "model")
again = seewhy.load(folder / "model")
print(again.predict(folder / "test/grass/grass-12.png").label)
