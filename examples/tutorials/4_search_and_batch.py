"""
Many pictures: batches and search
=================================

Classify a stream of pictures, explain the doubtful ones, and search by picture and by words.
"""

# %%
# Some pictures, one of them broken
# ---------------------------------

from pathlib import Path

import skimage.data
from PIL import Image

import seewhy

folder = Path("holiday")
folder.mkdir(exist_ok=True)
for name in ("astronaut", "chelsea", "coffee", "rocket", "brick", "grass", "gravel"):
    Image.fromarray(getattr(skimage.data, name)()).convert("RGB").save(folder / f"{name}.png")
(folder / "broken.png").write_bytes(b"no picture")
pictures = sorted(str(path) for path in folder.glob("*.png"))

# %%
# Classify
# --------
# Results come one by one, in order. For a picture that cannot be read, the result is an error with the reason, and the
# others go on.

classifier = seewhy.pretrained()
doubtful = []
for result in classifier.predict_all(pictures):
    name = Path(result.image).name
    if isinstance(result, seewhy.Failure):
        print(f"{name:<14} {result.error}")
        continue
    print(f"{name:<14} {result.label}, {result.score:.0%}")
    if result.score < 0.5:
        doubtful.append(result.image)

# %%
# Explain the doubtful ones
# -------------------------
# ``store`` keeps the features, so that nothing is computed twice.

store = seewhy.FeatureStore(folder / "looks.sqlite")
for why in classifier.explain_all(doubtful, store=store):
    card = why.save(folder / f"{Path(why.prediction.image).stem}.html")
    print(f"{card.name}: {why.prediction.label}; where: {why.where.verdict.level}")

# %%
# Search
# ------
# An index is a folder. Search it with a picture, with words, or with both.

from seewhy.retrieval import Entry, Index, Query

index = Index.create(folder / "library", seewhy.encoder("lite0"))
index.add([Entry(picture) for picture in pictures if "broken" not in picture])


def show(found) -> None:
    print(*(f"{Path(hit.image).name} {hit.cosine:.2f}" for hit in found.hits), sep=", ")


show(index.search(Query(folder / "brick.png"), k=3))
show(index.search(Query(text="a cup of coffee"), k=3))
show(index.search(Query(folder / "gravel.png", text="green"), k=3))

# %%
# The same on the command line, where the same command continues a stopped run:
#
# .. code-block:: bash
#
#    seewhy predict photos/ --json > decisions.jsonl
#    seewhy explain photos/ -o why/
#    seewhy index photos/ -o library
#    seewhy search library --text "a cup of coffee" -o found.html
