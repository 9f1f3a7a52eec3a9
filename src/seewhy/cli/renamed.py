"""Verbs and options of earlier versions: they still work, with a line on standard error that says today's."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from ..errors import InputError
from .terminal import say

GOES = "0.4"
"""The version without them."""
FLAGS = {
    "--force", "--json", "--quiet", "-q", "--plan", "--because", "--dry-run", "--csv", "--png", "--raw-steps",
    "--controls", "--no-controls", "--balanced", "--paper", "--layer-norm", "--no-layer-norm",
}  # fmt: skip
"""Options without a value, in lines whose arguments move."""


def _set(*names: str) -> dict[str, str]:
    """Options that are settings now."""
    return {"--" + name.replace("_", "-"): f"--set {name}=" for name in names}


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
        options: old name → today's words, to which the value is added: after ``=``, else as a word of its own.
        flags: old option without a value → today's words.
        add: what the verb said by itself.
        before: what moves before options are renamed.
    """

    verb: str
    options: Mapping[str, str] = field(default_factory=dict)
    flags: Mapping[str, str] = field(default_factory=dict)
    add: tuple[str, ...] = ()
    before: Callable[[list[str]], list[str]] | None = None


COLUMNS = {f"--{what}-column": f"--column {what}=" for what in ("image", "label", "text", "split")}
RUN = _set("per_shard", "threads", "gpus", "decoders")
WRITER = _set("key_variable", "leave_out", "max_tokens", "per_minute", "timeout", "price_in", "price_out")
MASKS = {"--object-mask": "--masks", "--object-segmenter": "--masks", "--boxes": "--masks"}
HELD_OUT = {"--held-out": "--validation"}
WEB = _set("max_upload", "decode_seconds")
OLD = {
    "fit": Old(
        "fit", _set("solver", "n_crops", "held_out", "split"), {"--balanced": "--set class_weight=balanced"}
    ),
    "fit-prototypes": Old(
        "fit",
        _set(
            "optimiser", "form", "n_prototypes", "shrinkage", "n_rotated", "n_kept", "held_out", "max_seconds",
            "strengths", "because_on",
        ),
        add=("--task", "prototypes"),
    ),
    "fit-explainer": Old(
        "fit",
        _set("layers", "epochs", "steps", "batch_size", "lr", "size"),
        {"--paper": "--set paper=true"},
        add=("--task", "explainer"),
    ),
    "fit-segmenter": Old("fit", _set("ignore"), add=("--task", "masks")),
    "fit-detector": Old("fit", _set("folds", "precision"), add=("--task", "boxes")),
    "predict": Old("predict", {**HELD_OUT, **RUN, **_set("batch_size")}),
    "explain": Old(
        "explain",
        {
            **HELD_OUT, **RUN, **MASKS, "--detector": "--parts", "--segmenter": "--parts",
            **_set(
                "layer", "neurons", "explainer", "target_text", "contrast_text", "prototypes", "strengths", "judge",
                "most_cards",
            ),
        },
    ),
    "segment": Old(
        "segment",
        {
            "--segmenter": "--method", "--template": "--set templates=", "--centre": "--set centred=",
            "--denoise": "--set denoised=", "--smooth": "--set smoothed=",
            **_set("zoom", "normalised", "least", "least_presence"),
        },
    ),
    "detect": Old(
        "detect",
        {"--detector": "--method", "--most-boxes": "--set most=", **_set("least_presence", "overlap")},
    ),
    "evaluate": Old("evaluate", {**MASKS, **_set("ignore")}),
    "audit": Old("evaluate", {**MASKS, "--train": "--against"}, before=_with_model),
    "drift": Old(
        "evaluate", {"--train": "--against", **_set("alpha")}, before=_unless("--train", "--against", "fit")
    ),
    "pairs check": Old("check", {"--rule": "--set", "--examples": "--set n_examples="}, add=("--texts",)),
    "pairs clean": Old("check", {"--rule": "--set"}, add=("--texts",)),
    "app": Old("app", {"--group": "--by", **WEB}),
    "annotate": Old(
        "app",
        {"-o": "--annotate", "--output": "--annotate", "--rounds": "--set n_rounds=", **_set("min_edits")},
        before=_as_data,
    ),
    "serve": Old(
        "serve",
        WEB | _set(
            "max_pictures", "max_batch", "max_wait", "max_waiting", "request_seconds", "reload_seconds",
            "drain_seconds",
        ),
    ),
    "export": Old("export", {}, {"--triton": "--layout triton", "--ovms": "--layout ovms"}),
    "index": Old(
        "index",
        {
            "--remove": "--forget", **_set("parts", "levels", "whiten", "approximate_from"),
        },
        {
            "--remove-missing": "--forget-missing", "--words": "--set words=true", "--no-words": "--set words=false",
        },
    ),
    "embed": Old("index", {**RUN, **_set("space", "dtype", "machines", "price")}, before=_as_vectors),
    "search": Old(
        "search", {"--like": "--image", **_set("weight", "collapse", "levels")}, {"--centred": "--set centred=true"}
    ),
    "adapt": Old("adapt", {"--validation-pairs": "--validation", **_set("may_forget", "batch_size", "lr")}),
    "pretrain": Old(
        "pretrain",
        {
            "--validation-pairs": "--validation",
            **_set("projection_width", "kappa", "effective", "batch_size", "lr"),
        },
        {"--keep-head": "--set keep_head=true", "--pyramid": "--set pyramid=true"},
    ),
    "describe classes": Old("describe write", {"--n": "--set n_texts=", **WRITER, **_set("n_texts")}),
    "describe pairs": Old(
        "describe write", {"--n": "--set n_texts=", **WRITER, **_set("n_texts", "most", "top")}, add=("--pairs",)
    ),
    "describe write": Old("describe write", {**WRITER, **_set("n_texts", "most", "top")}),
    "describe match": Old("describe match", {"--n-texts": "--set top=", **WRITER, **_set("top")}),
    "describe images": Old("describe images", {**WRITER, **_set("threshold")}),
    "study faithfulness": Old("study faithfulness", {"--n": "--n-pictures"}),
    "study background": Old("study background", {**MASKS, **_set("n_rounds", "n_per_class")}),
    "study interpretability": Old(
        "study interpretability",
        {"--library": "--set libraries=", **_set("n_concepts", "mask", "grid")},
        {"--layer-norm": "--set layer_norm=true", "--no-layer-norm": "--set layer_norm=false"},
    ),
    "study scaling": Old(
        "study scaling",
        {
            "--of-classes": "--set n_classes=", "--also-encoder": "--encoder",
            **_set("held_out", "beyond", "n_sizes", "n_seeds", "draws", "noise", "n_crops"),
        },
        before=_with_first_encoder,
    ),
    "study transfer": Old(
        "study transfer",
        {
            "--per-class": "--set shots=", "--label-part": "--set parts=",
            **_set("held_out", "n_seeds", "n_corrupted"),
        },
    ),
    "study base-to-new": Old(
        "study base-to-new", {"--per-class": "--set shots=", **_set("held_out", "n_seeds")}
    ),
    "generate": Old(
        "study generate",
        {"--generator": "", "--count": "--set n=", **_set("start", "n_steps", "eps1", "eps2", "eps3", "gradient"),
            **_set("generator_encoder")},
        {
            "--raw-steps": "--set normalise=false", "--controls": "--set controls=true",
            "--no-controls": "--set controls=false",
        },
    ),
    "schema": Old(
        "methods", before=lambda words: ["--json-schema", words[0] if words else "all", *words[1:]]
    ),
}  # fmt: skip
"""Verb of an earlier version, or today's with options that had other names → how it is typed today."""
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
    if verb in LEFT:
        raise InputError(
            f"seewhy {verb} was typed, which is no command any more. Its script in Python was expected. Take "
            f"reproductions/{LEFT[verb]} of the repository."
        )
    if verb not in OLD:
        return args
    old, end = OLD[verb], rest.index("--") if "--" in rest else len(rest)
    words = rest[:end] if old.before is None else old.before(rest[:end])
    new = [*old.verb.split(), *_renamed(old, words), *old.add, *rest[end:]]
    if new != args and not {"-q", "--quiet"} & {*args}:
        say(f"seewhy: this is typed today as: seewhy {shlex.join(new)} (the old form goes in {GOES})", file=sys.stderr)
    return new


def _renamed(old: Old, words: Sequence[str]) -> Iterator[str]:
    options = {**COLUMNS, **old.options}
    left = iter(words)
    for word in left:
        name, equals, value = word.partition("=")
        if word in old.flags:
            yield from old.flags[word].split()
        elif name in options:
            *before, last = options[name].split() or [""]
            given = value if equals else next(left, "")
            yield from before
            yield from [f"{last}{given}"] if last.endswith("=") else [*([last] if last else []), given]
        else:
            yield word
