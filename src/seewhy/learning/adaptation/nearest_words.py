"""What a learnt prompt is nearest to in words, and how near words are to one another: the former says little by itself.

Zhou et al. 2022 (arXiv 2109.01134, section 4.5) show the same and find no meaning in most of it.
"""

from __future__ import annotations

import re
from functools import lru_cache
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import normalize

from ...encoders.base import TrainableText
from ...encoders.names import imagenet_texts

N_AT_ONCE = 512


@lru_cache(maxsize=1)
def common_words() -> tuple[str, ...]:
    """Words of the names and definitions of ImageNet's classes."""
    text = " ".join(one for several in imagenet_texts() for one in several).lower()
    return tuple(sorted(set(re.findall(r"(?<![\w'-])[a-z]+(?![\w'-])", text))))


@torch.no_grad()
def vocabulary(tower: TrainableText) -> tuple[list[str], Float[Tensor, "n w"]]:
    """Those words that the network looks up as a whole, and their vectors."""
    words, vectors = [], []
    every = common_words()
    for i in range(0, len(every), N_AT_ONCE):
        part = every[i : i + N_AT_ONCE]
        e = tower.embed(tower.tokens(part))
        whole = e.words.sum(1) == 1
        words += [word for word, one in zip(part, whole.tolist(), strict=True) if one]
        vectors.append(e.vectors[e.words & whole[:, None]])
    return words, torch.cat(vectors).float()


@torch.no_grad()
def nearest_words(tower: TrainableText, prompt: Float[Tensor, "p w"], top: int = 3) -> dict[str, Any]:
    """Each vector's nearest words, with their distances, beside the distance from a word to its own nearest word."""
    words, known = vocabulary(tower)
    apart = torch.cat([torch.cdist(part, known).topk(2, largest=False).values[:, 1] for part in known.split(N_AT_ONCE)])
    distance, cosine = torch.cdist(prompt, known), normalize(prompt, dim=1) @ normalize(known, dim=1).T
    vectors = []
    for i, row in enumerate(distance):
        near = row.topk(min(top, len(words)), largest=False).indices.tolist()
        vectors.append(
            {
                "nearest": [
                    {"word": words[j], "distance": round(float(row[j]), 4), "cosine": round(float(cosine[i, j]), 4)}
                    for j in near
                ]
            }
        )
    return {"vectors": vectors, "word_to_word": round(float(apart.mean()), 4), "n_words": len(words)}


def prompt_lines(found: dict[str, Any]) -> list[str]:
    """What is printed of it: a word only where the vector is as near to it as words are to one another."""
    typical = found["word_to_word"]
    said = [f"{v['nearest'][0]['word']} ({v['nearest'][0]['distance']:.2f})" for v in found["vectors"]]
    n_near = sum(v["nearest"][0]["distance"] <= typical for v in found["vectors"])
    if n_near == len(said):
        remark = "all are as near as that: the prompt is close to these words"
    elif n_near:
        remark = f"{n_near} of {len(said)} are as near as that: do not read the others as words"
    else:
        remark = "none is as near as that: do not read it as words"
    return [
        f"the prompt's nearest words (distance): {', '.join(said)}",
        f"a word's own nearest word is {typical:.2f} away on average; {remark}",
    ]
