"""
Why are these two classes confused?
===================================

Find what a classifier mixes up, ask why, and mend it.
"""

# %%
# A classifier with a fault
# -------------------------
# It is made from three names alone, without a picture.

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
print(f"right on {report.accuracy:.0%} of {report.data['n']} pictures")
for confusion in report.data["confusions"]:
    print(f"{confusion['true']} taken for {confusion['predicted']}: {confusion['n']} times")

# %%
# Every piece of brick wall is taken for grass. One of them, with what speaks for grass *rather than* for brick:

wrong = report.data["confusions"][0]
why = by_name.explain(wrong["examples"][0], target=wrong["predicted"], contrast=wrong["true"])
print(why.where.verdict.level, "-", why.where.verdict.sentence)
why

# %%
# Is it the words?
# ----------------
# The map is not to be relied on: it does not foretell what hiding halves of the picture does, so no corner of the wall
# can be blamed. What about the words? Descriptions say more than a name, and each can be looked at.

words = {
    "brick": ["a wall of rectangular blocks", "straight lines of mortar"],
    "grass": ["thin green blades", "a lawn"],
    "gravel": ["many small round stones", "a path of pebbles"],
}
described = seewhy.described(words)
print(f"by descriptions: right on {described.evaluate(folder / 'photos', n_explained=0).accuracy:.0%}")
for word in described.explain(wrong["examples"][0], measure=False).words.words:
    print(f"  {word.label:<7} {word.score:+.2f}  {word.text}")

# %%
# Or is it the encoder?
# ---------------------
# If its features told the classes apart no better than the words do, nothing could be done but take another encoder.
# A classifier fitted on pictures shows that they do:

fitted = seewhy.fit(folder / "photos", descriptions=words)
report = fitted.evaluate(folder / "test", n_explained=0)
print(f"fitted on 36 pictures: right on {report.accuracy:.0%} of {report.data['n']} others")

# %%
# So the pictures were told apart all along; it was the names that did not fit. On your own data: ``seewhy evaluate
# test/ -m birds`` lists the confusions, ``seewhy app -m birds --data test/`` lets you walk through them, each with
# its card and with the two classes compared.
