"""Zero-shot classification with a CLIP: SeeWhy beside transformers' pipeline, on one model folder, files to scores.

The model is transformers' default CLIP, a ViT-B/32 by size, with random weights: speed does not depend on them. Its
tokenizer is a small BPE made on the spot, the same for all. Every program starts from loaded weights and is given file
names and labels; SeeWhy's time includes encoding the labels. It runs twice: with its engine, and with eager torch,
which leaves what comes from encoding the texts once and the pictures in batches. Of the peers, "by hand" does both.

    python benchmarks/zero_shot_speed.py
    python benchmarks/zero_shot_speed.py --n 16 --labels 20 --rounds 3 --json

The pipeline at its default encodes all labels again for each picture, so that a round takes minutes on two cores.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from files_to_embeddings import SMALL, make_photographs
from grad_cam_peers import batches
from PIL import Image
from rich.console import Console
from rich.table import Table
from side_by_side import in_turn, ratios
from torch import Tensor
from torch.nn.functional import normalize

import seewhy
from seewhy.encoders.names import imagenet_classes
from seewhy.explanation.prediction import Prediction

TEMPLATE = "This is a photo of {}."
TOLERANCE = 1e-4
"""Largest difference between two probabilities."""
Classify = Callable[[Sequence[str], Sequence[str]], Tensor]
"""File names and labels → probabilities ``(n, k)``."""


def make_tokenizer(texts: Sequence[str]) -> Any:
    """CLIP's kind of tokenizer, with the words of these texts in its vocabulary."""
    from tokenizers import Tokenizer, models, pre_tokenizers, trainers
    from transformers import CLIPTokenizer

    start, end = "<|startoftext|>", "<|endoftext|>"
    raw = Tokenizer(models.BPE(end_of_word_suffix="</w>", unk_token=end))
    raw.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.WhitespaceSplit(), pre_tokenizers.ByteLevel(False)])
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=8000, initial_alphabet=alphabet, end_of_word_suffix="</w>", show_progress=False
    )
    raw.train_from_iterator([text.lower() for text in texts], trainer)
    model = json.loads(raw.to_str())["model"]
    words = [*model["vocab"], *(f"{c}</w>" for c in alphabet), start, end]
    vocabulary = {word: i for i, word in enumerate(dict.fromkeys(words))}
    return CLIPTokenizer(vocab=vocabulary, merges=[tuple(pair) for pair in model["merges"]])


def make_model(folder: Path) -> None:
    """transformers' default CLIP with random weights, its picture processor and the tokenizer."""
    from transformers import CLIPConfig, CLIPImageProcessor, CLIPModel, CLIPProcessor

    tokenizer = make_tokenizer([TEMPLATE.format(", ".join(c.names)) for c in imagenet_classes()])
    special = {"bos_token_id": tokenizer.bos_token_id, "eos_token_id": tokenizer.eos_token_id}
    torch.manual_seed(0)
    model = CLIPModel(CLIPConfig(text_config={**special, "pad_token_id": tokenizer.pad_token_id}))
    with torch.no_grad():  # as trained models have it, so that scores differ enough to be compared
        model.logit_scale.fill_(4.6052)
    model.eval().save_pretrained(folder)
    CLIPProcessor(CLIPImageProcessor(), tokenizer).save_pretrained(folder)


def pipeline(folder: Path, batch_size: int | None) -> Classify:
    import transformers

    transformers.logging.set_verbosity_error()
    classify = transformers.pipeline("zero-shot-image-classification", str(folder))
    batched = {} if batch_size is None else {"batch_size": batch_size}

    def run(names: Sequence[str], labels: Sequence[str]) -> Tensor:
        answers = classify(list(names), candidate_labels=list(labels), hypothesis_template=TEMPLATE, **batched)
        scores = [{row["label"]: row["score"] for row in answer} for answer in answers]
        return torch.tensor([[row[label] for label in labels] for row in scores])

    return run


def by_hand(folder: Path) -> Classify:
    """The same model as somebody who knows it calls it: texts once, two decoding processes, batches of 32."""
    from transformers import CLIPModel, CLIPProcessor

    model, processor = CLIPModel.from_pretrained(folder).eval(), CLIPProcessor.from_pretrained(folder)

    def prepare(picture: Image.Image) -> Tensor:
        return processor.image_processor(picture, return_tensors="pt")["pixel_values"][0]

    @torch.no_grad()
    def run(names: Sequence[str], labels: Sequence[str]) -> Tensor:
        tokens = processor.tokenizer([TEMPLATE.format(label) for label in labels], return_tensors="pt", padding=True)
        texts = normalize(model.text_projection(model.text_model(**tokens).pooler_output), dim=1)
        parts = []
        for pixels in batches(names, prepare, 2):
            seen = model.visual_projection(model.vision_model(pixel_values=pixels).pooler_output)
            parts.append((model.logit_scale.exp() * normalize(seen, dim=1) @ texts.T).softmax(1))
        return torch.cat(parts)

    return run


def ours(folder: Path, engine: str) -> Classify:
    encoder = seewhy.encoder(f"hf:{folder}", engine=engine)

    def run(names: Sequence[str], labels: Sequence[str]) -> Tensor:
        classifier = seewhy.zero_shot(labels, encoder, templates=(TEMPLATE,))
        answers = [one for one in classifier.predict_all(names, top=len(labels)) if isinstance(one, Prediction)]
        scores = [{row.label: row.score for row in answer.top} for answer in answers]
        return torch.tensor([[row[label] for label in labels] for row in scores])

    return run


def compare(programs: dict[str, Classify], names: Sequence[str], labels: Sequence[str], rounds: int) -> dict[str, Any]:
    """All programs on the same files, in turn."""
    answers: dict[str, Tensor] = {}
    for run in programs.values():
        run(names[:2], labels[:2])  # warm

    def kept(name: str) -> Callable[[], None]:
        return lambda: answers.update({name: programs[name](names, labels)})

    times = in_turn({name: kept(name) for name in programs}, rounds)
    ours_, peers = ("SeeWhy", "SeeWhy, eager torch"), ("by hand", "pipeline", "pipeline, batch_size=8")
    gap = {n: float((answers[n] - answers["pipeline"]).abs().max()) for n in programs}
    return {
        "pictures": len(names),
        "labels": len(labels),
        "rounds": rounds,
        "seconds": {name: t.to_json() for name, t in times.items()},
        "times_faster": {o: {p: times[p].over(times[o]) for p in peers} for o in ours_},
        "largest_score": round(float(answers["pipeline"].max()), 4),
        "largest_difference": {n: float(f"{v:.2g}") for n, v in gap.items() if n != "pipeline"},
        "same_first": {n: int((answers[n].argmax(1) == answers["pipeline"].argmax(1)).sum()) for n in ours_},
        "equal": max(gap.values()) <= TOLERANCE,
    }


def show(result: dict[str, Any], console: Console) -> None:
    title = f"{result['pictures']} pictures, {result['labels']} labels, {result['rounds']} rounds"
    table = Table(
        "",
        "seconds",
        "faster than by hand",
        "than the pipeline",
        "than batch_size=8",
        "largest difference",
        title=title,
    )
    for name, seconds in result["seconds"].items():
        faster = [ratios(r) for r in result["times_faster"].get(name, {}).values()] or ["", "", ""]
        table.add_row(name, f"{seconds['median']:.2f}", *faster, f"{result['largest_difference'].get(name, 0.0):.1e}")
    console.print(table)
    console.print(
        f"Scores {'agree' if result['equal'] else 'DIFFER'} (tolerance {TOLERANCE:g}, largest score "
        f"{result['largest_score']}); same first label: {result['same_first']['SeeWhy']} of {result['pictures']}."
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--n", type=int, default=64, help="pictures")
    parser.add_argument("--labels", type=int, default=100, help="labels, names of ImageNet classes")
    parser.add_argument("--engine", default="auto", help="auto, openvino:f32, onnxruntime, …")
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--json", action="store_true", help="print the numbers as JSON")
    options = parser.parse_args()
    labels = [c.label for c in imagenet_classes()[:: 1000 // options.labels]][: options.labels]
    with tempfile.TemporaryDirectory() as made:
        pictures, model = Path(made) / "pictures", Path(made) / "model"
        pictures.mkdir()
        names = [str(p) for p in make_photographs(pictures, options.n, SMALL)]
        make_model(model)
        programs = {
            "by hand": by_hand(model),
            "pipeline": pipeline(model, None),
            "pipeline, batch_size=8": pipeline(model, 8),
            "SeeWhy, eager torch": ours(model, "torch"),
            "SeeWhy": ours(model, options.engine),
        }
        result = compare(programs, names, labels, options.rounds)
    if options.json:
        print(json.dumps(result, indent=2))
    else:
        show(result, Console(width=130))


if __name__ == "__main__":
    main()
