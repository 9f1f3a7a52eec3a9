"""What the core and every extra are tried with, where they are installed with the oldest or newest versions."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple


class Trial(NamedTuple):
    """Tests that lean on what is installed and take seconds.

    Attributes:
        tests: files under tests/.
        tools: what those tests need beside the package.
        slow: with the tests that are marked slow, in an environment of its own.
    """

    tests: tuple[str, ...]
    tools: tuple[str, ...] = ()
    slow: bool = False


def together(trials: Iterable[Trial]) -> Trial:
    """One trial of all that these name."""
    given = list(trials)
    tests = dict.fromkeys(name for one in given for name in one.tests)
    tools = dict.fromkeys(name for one in given for name in one.tools)
    return Trial(tuple(tests), tuple(tools), any(one.slow for one in given))


SMOKE = """
import sys
from pathlib import Path
import numpy as np
from PIL import Image
folder, rng = Path(sys.argv[1]), np.random.default_rng(0)
for label, colour in (("moss", (40, 150, 50)), ("rust", (180, 70, 30))):
    (folder / "data" / label).mkdir(parents=True)
    for i in range(8):
        pixels = np.array(colour) + rng.normal(0, 25, (96, 96, 3))
        Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(folder / "data" / label / f"{i}.png")
"""
"""Pictures for a first use, made in a folder that is given."""
TOOLS = ("pytest>=8", "hypothesis>=6.100", "beartype>=0.18", "jsonschema>=4.21")
"""What every test needs."""
CORE = Trial((
    "tests/pictures/test_images.py", "tests/pictures/test_boxes.py", "tests/classifiers/test_saving.py",
    "tests/encoders/test_embedded.py", "tests/encoders/test_timm.py", "tests/encoders/test_minilm.py",
    "tests/encoders/test_file.py", "tests/cli/test_options.py",
))  # fmt: skip
"""Those that lean on torch, timm, Pillow, safetensors, tokenizers and typer."""
CLIENTS = ("httpx", "httpx2")
"""Starlette's test client stands on the one or, where it is newer, on the other."""
EXTRAS = {
    "openvino": Trial(("tests/encoders/test_engines.py", "tests/attributions/test_inner_engine.py")),
    "onnxruntime": Trial(("tests/encoders/test_engines.py", "tests/graphs/test_export.py")),
    "fast": Trial(("tests/attributions/test_inner_engine.py",)),
    "lite": Trial(("tests/encoders/test_embedded.py",)),
    "open-clip": Trial(("tests/encoders/test_open_clip.py",)),
    "huggingface": Trial(("tests/encoders/test_huggingface.py", "tests/encoders/test_multimodal.py")),
    "heif": Trial(("tests/pictures/test_images.py",)),
    "dicom": Trial(("tests/pictures/test_dicom.py",)),
    "parquet": Trial(("tests/pictures/test_samples.py", "tests/scale/test_embedding.py")),
    "s3": Trial(("tests/scale/test_remote.py",), ("pyarrow>=16", "moto[s3,server]"), slow=True),
    "ray": Trial(("tests/scale/test_ray.py",), slow=True),
    "captum": Trial(("tests/attributions/test_captum_adapters.py",)),
    "diffusion": Trial(("tests/encoders/test_diffusion.py",)),
    "cleanlab": Trial(("tests/inspection/test_cleanlab.py",)),
    "sklearn": Trial(("tests/test_sklearn.py",)),
    "app": Trial(("tests/app/test_app_pages.py",), CLIENTS),
    "serve": Trial(("tests/serve/test_service.py",), CLIENTS),
    "map": Trial(("tests/app/test_map.py",), (*CLIENTS, "fastapi>=0.115", "python-multipart>=0.0.9", "uvicorn>=0.30")),
    "text-metrics": Trial(("tests/descriptions/test_reference_metrics.py",)),
    "writers": Trial(("tests/descriptions/test_writers.py", "tests/attacks/test_writers_bounds.py")),
}
"""Every extra that a user installs, with the few tests that use its packages and not stand-ins of them."""
