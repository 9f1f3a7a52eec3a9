"""Classify without training pictures: by class names, then by written descriptions."""

from __future__ import annotations

import skimage.data

import seewhy

photo = skimage.data.coffee()  # by Rachel Michetti, CC0

classifier = seewhy.zero_shot(["espresso", "cup of tea", "red wine", "bowl of soup"])
print("By name:")
for label, score in classifier.predict(photo).top:
    print(f"  {label:<14} {score:.0%}")

drinks = {
    "espresso": ["a small cup of strong black coffee", "golden brown foam on dark liquid", "a spoon on the saucer"],
    "cup of tea": ["a cup of clear amber liquid", "a tea bag on a string", "a slice of lemon on the saucer"],
    "red wine": ["dark red liquid in a stemmed glass", "a tall transparent glass"],
    "bowl of soup": ["a wide bowl with a thick liquid", "pieces of vegetables floating"],
}
why = seewhy.described(drinks).explain(photo, measure=False)
print(f"By description: {why.prediction.label} {why.prediction.score:.0%}")
for word in why.words.words:
    print(f"  {word.label:<14} {word.score:+.3f}  {word.text}")
print(why.words.would_change)
