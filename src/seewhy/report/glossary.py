"""What each number on a card or report means; the numbers link here."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple


class Term(NamedTuple):
    """One definition; its anchor is ``#def-<key>``."""

    key: str
    name: str
    text: str


TERMS: tuple[Term, ...] = (
    Term(
        "right",
        "Right",
        "How often decisions like this one are right, told on pictures held out with all others of the same thing: by "
        "how sure the classifier is, and by a second opinion that knows only where each class lies. With a 95 % "
        "interval, the held-out things drawn anew. It may be far from the classifier's own score.",
    ),
    Term(
        "fit-known",
        "As strange or stranger",
        "The share of held-out pictures that are as unlike the training pictures as this one, or more, by two "
        "distances. Below 5 % it is called unlike anything the classifier knows.",
    ),
    Term("sure", "Sure", "Of the held-out pictures that would have been called sure, the share that were right."),
    Term(
        "unknown",
        "Told from unknown",
        "What becomes of pictures of no class. Classes left out: each of its own classes was left out of a fit in turn "
        "and its pictures shown to that fit. As one figure, the area under the ROC curve: 1 always told from pictures "
        "of its classes, 0.50 no better than a coin.",
    ),
    Term(
        "probability",
        "The classifier's own score",
        "How probable the classifier takes a class for, the classes of one picture adding up to 100 %. How far to "
        "trust it is what calibration measures.",
    ),
    Term(
        "heat",
        "Heat",
        "How strongly each place on the picture speaks for the class named above it, relative to the strongest place. "
        "What speaks against the class is left uncoloured.",
    ),
    Term(
        "share",
        "Share",
        "A region's part of everything on this picture that speaks for the class. The shares of all places add up to "
        "100 %, so what the lettered regions do not cover lies elsewhere.",
    ),
    Term(
        "outside",
        "Outside the object",
        "The part of the heat that lies outside the object, as a mask says where that is, beside the part of the "
        "picture that does: a map that knows nothing has as much there. More says that the surroundings speak for the "
        "class; whether they decide is what seewhy study background measures.",
    ),
    Term(
        "deletion",
        "Deletion",
        "The hottest pixels are replaced by the network's mean colour, hottest first, and the probability is followed "
        "as they go; the figure is the area under that curve (RISE, Petsiuk et al. 2018). Low is good: the right "
        "pixels were taken.",
    ),
    Term(
        "insertion",
        "Insertion",
        "The picture starts blurred and the hottest pixels are restored first; the figure is the area under the curve "
        "of the probability (RISE, Petsiuk et al. 2018). High is good: the right pixels came first.",
    ),
    Term(
        "random-map",
        "Random map",
        "The same heat, shuffled over the picture: what deletion and insertion are when the places are chosen blindly. "
        "Its curves have as many steps as the map's.",
    ),
    Term(
        "match",
        "Match",
        "Half of the picture is put under the network's mean colour in 24 ways, and the odds of what is explained are "
        "followed, with a contrast those against it. The figure is the cosine between what each half adds to their "
        "logarithm and the heat in that half: 1 is perfect, 0 what a map that knows nothing has on average.",
    ),
    Term(
        "centre",
        "Bump in the middle",
        "The match of a round spot in the middle of the picture, which looks at neither picture nor classifier. A map "
        "that is no better may have found only where photographers put things.",
    ),
    Term(
        "neuron",
        "Neuron",
        "A channel of the last feature map. Its figure is what it adds to the class on this picture, as a part of all "
        "that is added. Its name is the word that leans on it most, given only where as many random words would lean "
        "less in 95 % of cases.",
    ),
    Term(
        "similarity",
        "Similarity",
        "The cosine between two regions as the network sees them: 1 is the same, 0 unrelated, −1 opposite. Of a "
        "ProtoPNet: how near the place is to the prototype, on a logarithmic scale, 1 on the very patch it is.",
    ),
    Term(
        "vote",
        "Of the vote",
        "The decision is a vote of your pictures, the more alike the heavier. A picture's part of it is its weight by "
        "that of all; the parts add up to 100 %. The places marked are where the two are most alike, no part of it.",
    ),
    Term(
        "removed",
        "Without voters",
        "How often a decision changes on held-out pictures when the pictures that would be shown for it lose their "
        "vote; beside it, when as many drawn at random among all that vote lose theirs.",
    ),
    Term(
        "because",
        "Because",
        "How much of a similarity is lost when one property of the whole picture is changed and the same place is read "
        "again (Nauta et al. 2020); a grey bar: it is gained. The mark is the same over many pictures, the more alike "
        "the heavier, where that was measured. A hint, no proof: where the truth was planted, the longest bar was "
        "right for about half of the prototypes. Bars can be compared only where every property was changed by the "
        "same amount. Properties overlap, texture is all fine detail, print too, and a warp also moves the place, "
        "which can pass for shape.",
    ),
    Term(
        "times",
        "×2",
        "So many patches, or prototypes, say the same: alike in direction, in the pictures nearest to them and in what "
        "they rest on. One of them is shown, with the shares of all.",
    ),
    Term(
        "purity",
        "Purity",
        "How alone a channel is in the place where it is strongest: 1 when nothing else is active there, about 0.06 "
        "for channels without meaning. For one prototype, the cosine between that place and the channel's direction "
        "(EPIC).",
    ),
    Term(
        "fold",
        "Logits changed by",
        "The channels are rotated, and the rotation is undone in the classifier's own weights, so that nothing it "
        "decides changes. The figure is the largest change of a logit that was found, as a part of the largest logit: "
        "rounding.",
    ),
    Term(
        "hidden",
        "Hidden places",
        "The places shown are put under the network's mean colour all at once, and the picture is looked at again. The "
        "lead is the class's logit less the mean over classes. Beside it: the same pattern elsewhere on the picture, "
        "mean of several placements. Places that matter cost more than others.",
    ),
    Term(
        "of-class",
        "Of the class",
        "The part of the patches shown that carries the class explained. Beside it, the part that a wrong class, "
        "neither right nor decided for, reaches on one held-out picture in twenty at most.",
    ),
    Term(
        "such",
        "Such pictures",
        "Held-out pictures of which about as many neighbours carry the class decided for: how many of them are right.",
    ),
    Term(
        "held-out",
        "Held-out precision",
        "How often patches found this way carry the predicted class, counted on pictures that were kept out of "
        "training.",
    ),
    Term(
        "chance",
        "Chance",
        "The same figure if the choice were left to luck: what there is to beat.",
    ),
    Term(
        "score",
        "Fit",
        "The cosine between the picture and the sentence, from −1 to 1. The tick on the bar is the mean fit of the "
        "sentences of the class it is weighed against.",
    ),
    Term(
        "separates",
        "Separates",
        "How well this sentence alone tells the two classes apart on held-out pictures (area under the ROC curve): "
        "1 always, 0.50 no better than a coin, below 0.50 the wrong way round.",
    ),
    Term(
        "words-accuracy",
        "Words accuracy",
        "How often the sentences alone, without the classifier, choose the right class.",
    ),
    Term(
        "other-words",
        "Beside other words",
        "The classes' lists of sentences are given to wrong classes, many times: how often they fit the held-out "
        "pictures as well as the right ones. And how many of the other lists fit this picture less well than "
        "those of the class explained. With fewer than five classes, sentences about other things are among them.",
    ),
    Term(
        "agreement",
        "Agreement",
        "The mean of the comparisons between the three kinds of evidence, from 0 % (they tell different stories) to "
        "100 % (one story). Given only when at least two kinds are there.",
    ),
    Term(
        "calibration",
        "Calibration",
        "Whether the classifier is right as often as it says: of the pictures it is 80 % sure of, 80 % should be "
        "right. The error is the mean gap, 0 being perfect.",
    ),
)

REPORT_TERMS: tuple[Term, ...] = (
    Term(
        "set",
        "Named",
        "The classes a decision names: as few as hold the true one as often as promised (conformal sets).",
    ),
    Term(
        "aurc",
        "Risk against coverage",
        "The part of wrong decisions among those kept, the least doubtful first, averaged over how many are kept. Low "
        "is good; in random order it is the part of wrong decisions in all.",
    ),
    Term("accuracy", "Accuracy", "The share of held-out pictures whose decision is right, with its 95 % interval."),
    Term("precision", "Precision", "Of the pictures given this class, the share that truly have it."),
    Term("recall", "Recall", "Of the pictures that truly have this class, the share that was found."),
    Term("f1", "F1", "The harmonic mean of precision and recall: high only when both are."),
)

SEEN_TERMS: tuple[Term, ...] = (
    Term(
        "loop",
        "Loop",
        "A perceiver redraws from memory what it was given, then what it has drawn, and so on. What it sees in the end "
        "is what it classifies, and where several disturbed copies were redrawn, their mean.",
    ),
    Term(
        "moved",
        "Moved",
        "How much the last loop changed the picture, in grey levels of 255: the root mean square over its pixels. "
        "Below 1 it has settled.",
    ),
    Term(
        "spread",
        "Copies",
        "How far the copies end from their mean: the root mean square over pixels, black to white being 1. Far apart, "
        "their mean is a blend that no copy shows.",
    ),
    Term(
        "memorised",
        "Memorised",
        "The training picture nearest to what was seen, and its distance: the root mean square over pixels, black to "
        "white being 1. Near 0, what was seen is that training picture.",
    ),
)
"""On the card of a perceiver alone."""

PART_TERMS: tuple[Term, ...] = (
    Term(
        "inside",
        "Done inside",
        "Of what the picture does to the odds of the name, how much the pixels inside do: the part is hidden, then all "
        "else, then both, and each half gets its Shapley value. 100 % is a score that nothing outside moves.",
    ),
    Term(
        "odds-fall",
        "Log-odds fall",
        "How much the logarithm of the odds of the name falls when pixels become the mean colour: those inside, all "
        "others, or those under the same shape in other places of the picture.",
    ),
)


def terms_of(keys: Iterable[str]) -> tuple[Term, ...]:
    """The definitions of these keys, in the glossary's order."""
    wanted = set(keys)
    return tuple(t for t in (*TERMS, *REPORT_TERMS, *SEEN_TERMS, *PART_TERMS) if t.key in wanted)
