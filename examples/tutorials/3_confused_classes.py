"""
Why are these two classes confused?
===================================

Find what a classifier confuses, ask why, and correct it.
"""

# %%
# A classifier with a fault
# -------------------------
# This classifier is made from three class names, without pictures.

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

by_name = seewhy.zero_shot(["brick", "grass", "gravel"])
report = by_name.evaluate(folder / "photos", n_explained=0)
print(f"{report.accuracy:.0%} of {report.data['n']} pictures are right")
for confusion in report.data["confusions"]:
    print(f"{confusion['true']} taken for {confusion['predicted']}: {confusion['n']} times")

# %%
# It mistakes every brick wall for grass. What is the evidence for grass *rather than* brick on one of them?

wrong = report.data["confusions"][0]
why = by_name.explain(wrong["examples"][0], target=wrong["predicted"], contrast=wrong["true"])
print(why.where.verdict.level, "-", why.where.verdict.sentence)
why

# %%
# Is it the words?
# ----------------
# Do not rely on this map: it does not predict what hiding halves of the picture changes. So no part of the wall is the
# reason. Is it the class names? Descriptions say more than a name, and you can inspect each of them.

words = {
    "brick": ["a wall of rectangular blocks", "straight lines of mortar"],
    "grass": ["thin green blades", "a lawn"],
    "gravel": ["many small round stones", "a path of pebbles"],
}
described = seewhy.described(words)
print(f"by descriptions: {described.evaluate(folder / 'photos', n_explained=0).accuracy:.0%} are right")
for word in described.explain(wrong["examples"][0], measure=False).words.words:
    print(f"  {word.label:<7} {word.score:+.2f}  {word.text}")

# %%
# Or is it the encoder?
# ---------------------
# If the encoder's features did not distinguish the classes, you would need another encoder. A classifier fitted on
# pictures shows that they do:

fitted = seewhy.fit(folder / "photos", descriptions=words)
report = fitted.evaluate(folder / "test", n_explained=0)
print(f"fitted on 36 pictures: {report.accuracy:.0%} of {report.data['n']} others are right")

# %%
# So the encoder distinguishes the pictures; the names did not fit them. On your own data, ``seewhy evaluate test/ -m
# birds`` lists the confusions. ``seewhy app -m birds --data test/`` shows each with its card, and compares the two
# classes.
