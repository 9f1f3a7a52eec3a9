"""Verbs and options of earlier versions: they still work, with a line on standard error that says today's."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from importlib.metadata import entry_points

from ..errors import InputError
from .terminal import say

GOES = "0.4"
"""The version without them."""
LONGEST = 60
"""Signs of a word that are shown."""
FLAGS = {
    "--force", "--json", "--quiet", "-q", "--plan", "--because", "--dry-run", "--csv", "--png", "--raw-steps",
}  # fmt: skip
"""Options without a value, in lines whose arguments move."""
SETTINGS = """
    solver n_crops held_out split optimiser form n_prototypes shrinkage n_rotated n_kept max_seconds strengths
    layers steps batch_size lr size ignore folds precision per_shard threads gpus decoders layer
    neurons explainer target_text contrast_text prototypes most_cards zoom normalised least least_presence
    overlap alpha max_upload decode_seconds min_edits max_pictures max_batch max_wait max_waiting
    request_seconds reload_seconds drain_seconds levels whiten space dtype machines price
    weight collapse may_forget projection_width kappa effective n_texts most threshold key_variable leave_out
    max_tokens timeout price_in price_out n_rounds n_per_class n_concepts grid beyond n_sizes n_seeds
    draws noise n_corrupted start n_steps eps1 eps2 eps3 gradient generator_encoder
"""
"""Options that are settings now, in every verb that had them."""
RENAMED = {
    **{"--" + name.replace("_", "-"): f"--set {name}=" for name in SETTINGS.split()},
    **{f"--{what}-column": f"--column {what}=" for what in ("image", "label", "text", "split")},
    "--validation-pairs": "--validation", "--object-mask": "--masks", "--object-segmenter": "--masks",
    "--boxes": "--masks",
}  # fmt: skip
"""Old option → today's words, to which the value is added: after ``=``, else as a word of its own."""
TURNED = {
    "--balanced": "--set class_weight=balanced", "--paper": "--set paper=true",
    "--keep-head": "--set keep_head=true", "--pyramid": "--set pyramid=true", "--raw-steps": "--set normalise=false",
    "--remove-missing": "--forget-missing",
    **{
        flag: f"--set {name}={value}"
        for name in ("layer_norm", "controls", "words")
        for flag, value in ((f"--{name.replace('_', '-')}", "true"), (f"--no-{name.replace('_', '-')}", "false"))
    },
}  # fmt: skip
"""Old option without a value → today's words."""


def _with_model(words: list[str]) -> list[str]:
    """``MODEL DATA`` → ``-m MODEL DATA``, and a contract."""
    first = next(_arguments(words), None)
    if first is not None:
        words = [*words[:first], "-m", *words[first:]]
    return words if {"--contract", "--write-contract"} & {*words} else [*words, "--contract", "default"]


def _as_data(words: list[str]) -> list[str]:
    """Each argument after ``--data``."""
    places = {*_arguments(words)}
    return [part for i, word in enumerate(words) for part in (("--data", word) if i in places else (word,))]


def _arguments(words: Sequence[str]) -> Iterator[int]:
    """Where arguments stand, that is, neither options nor their values."""
    value = False
    for i, word in enumerate(words):
        if word.startswith("-") and word != "-":
            value = word not in FLAGS and "=" not in word
        else:
            if not value:
                yield i
            value = False


def _unless(option: str, *add: str) -> Callable[[list[str]], list[str]]:
    """More words, where an option is not there."""
    return lambda words: words if option in words else [*words, *add]


def _as_vectors(words: list[str]) -> list[str]:
    return words if {"--status", "--verify", "--plan"} & {*words} else [*words, "--parquet"]


def _with_first_encoder(words: list[str]) -> list[str]:
    """Another encoder stood beside the usual one."""
    beside = "--also-encoder" in words and not {"-e", "--encoder", "-m", "--model"} & {*words}
    return ["--encoder", "lite0", *words] if beside else words


@dataclass(frozen=True)
class Old:
    """How a line of an earlier version is typed today.

    Args:
        verb: today's.
        options: old name → today's words, where they are not those of :data:`RENAMED`.
        add: what the verb said by itself.
        before: what moves before options are renamed.
    """

    verb: str
    options: Mapping[str, str] = field(default_factory=dict)
    add: tuple[str, ...] = ()
    before: Callable[[list[str]], list[str]] | None = None


OLD = {
    "fit-prototypes": Old("fit", add=("--task", "prototypes")),
    "fit-explainer": Old("fit", {"--epochs": "--set epochs="}, ("--task", "explainer")),
    "fit-segmenter": Old("fit", add=("--task", "masks")),
    "fit-detector": Old("fit", add=("--task", "boxes")),
    "predict": Old("predict", {"--held-out": "--validation"}),
    "explain": Old(
        "explain",
        {
            "--held-out": "--validation", "--detector": "--parts", "--segmenter": "--parts",
            "--judge": "--set judge=",
        },
    ),
    "segment": Old(
        "segment",
        {
            "--segmenter": "--method", "--template": "--set templates=", "--centre": "--set centred=",
            "--denoise": "--set denoised=", "--smooth": "--set smoothed=",
        },
    ),
    "detect": Old("detect", {"--detector": "--method", "--most-boxes": "--set most="}),
    "audit": Old("evaluate", {"--train": "--against"}, before=_with_model),
    "drift": Old("evaluate", {"--train": "--against"}, before=_unless("--train", "--against", "fit")),
    "pairs check": Old("check", {"--rule": "--set", "--examples": "--set n_examples="}, ("--texts",)),
    "pairs clean": Old("check", {"--rule": "--set"}, ("--texts",)),
    "app": Old("app", {"--group": "--by"}),
    "annotate": Old(
        "app", {"-o": "--annotate", "--output": "--annotate", "--rounds": "--set n_rounds="}, before=_as_data
    ),
    "index": Old("index", {"--remove": "--forget", "--parts": "--set parts="}),
    "embed": Old("index", before=_as_vectors),
    "search": Old("search", {"--like": "--image"}),
    "describe classes": Old("describe write", {"--n": "--set n_texts="}),
    "describe pairs": Old("describe write", {"--n": "--set n_texts=", "--top": "--set top="}, ("--pairs",)),
    "describe match": Old("describe match", {"--n-texts": "--set top=", "--top": "--set top="}),
    "study faithfulness": Old("study faithfulness", {"--n": "--n-pictures"}),
    "study interpretability": Old(
        "study interpretability", {"--library": "--set libraries=", "--mask": "--set mask="}
    ),
    "study scaling": Old(
        "study scaling",
        {"--of-classes": "--set n_classes=", "--also-encoder": "--encoder"},
        before=_with_first_encoder,
    ),
    "study transfer": Old("study transfer", {"--per-class": "--set shots=", "--label-part": "--set parts="}),
    "study base-to-new": Old("study base-to-new", {"--per-class": "--set shots="}),
    "generate": Old("study generate", {"--generator": "", "--count": "--set n="}),
    "schema": Old("methods", before=lambda words: ["--json-schema", words[0] if words else "all", *words[1:]]),
}  # fmt: skip
"""Verb of an earlier version, or today's with options that had other names there alone → how it is typed today."""
LEFT = {
    "dialogue": "dialogue.py",
    "fit-generator": "train_generator.py",
    "study description-semantics": "description_semantics.py",
    "study edit-words": "edit_words.py",
    "study projection-head": "projection_head_study.py",
    "study real-or-generated": "real_or_generated.py",
}
"""Verbs that left the command line, and the script of the repository's reproductions/ that does the same in Python."""


def todays(args: list[str]) -> list[str]:
    """What was typed, as it is typed today; what follows ``--`` are names of files.

    >>> todays(["search", "library", "--image", "a.jpg"])
    ['search', 'library', '--image', 'a.jpg']

    Raises:
        InputError: the verb has left the command line.
    """
    n = 2 if args[:1] and args[0] in ("study", "describe", "pairs") else 1
    verb, rest = " ".join(args[:n]), args[n:]
    if verb in entry_points(group="seewhy.verbs").names:
        return args
    if verb in LEFT:
        raise InputError(
            f"seewhy {verb} was typed, which is no command any more. Its script in Python was expected. Take "
            f"reproductions/{LEFT[verb]} of the repository."
        )
    old, end = OLD.get(verb, Old(verb)), rest.index("--") if "--" in rest else len(rest)
    words = rest[:end] if old.before is None else old.before(rest[:end])
    new = [*old.verb.split(), *_renamed(old, words), *old.add, *rest[end:]]
    if new != args and not {"-q", "--quiet"} & {*args}:
        line = shlex.join(_short(word) for word in new)
        say(f"seewhy: this is typed today as: seewhy {line} (the old form goes in {GOES})", file=sys.stderr)
    return new


def _short(word: str) -> str:
    return word if len(word) <= LONGEST else f"{word[:LONGEST]}…"


def _renamed(old: Old, words: Sequence[str]) -> Iterator[str]:
    options = {**RENAMED, **old.options}
    left = iter(words)
    for word in left:
        name, equals, value = word.partition("=")
        if word in TURNED:
            yield from TURNED[word].split()
        elif name in options:
            *before, last = options[name].split() or [""]
            given = value if equals else next(left, "")
            yield from before
            yield from [f"{last}{given}"] if last.endswith("=") else [*([last] if last else []), given]
        else:
            yield word
