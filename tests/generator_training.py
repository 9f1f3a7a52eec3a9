"""The script that trains generators, for tests of what is made with one."""

from __future__ import annotations

import sys
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from typing import Any

PATH = Path(__file__).resolve().parents[1] / "reproductions" / "train_generator.py"


def _script() -> Any:
    spec = spec_from_file_location(PATH.stem, PATH)
    assert spec is not None
    assert spec.loader is not None
    module = sys.modules[PATH.stem] = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


training: Any = _script()
FitGenerator, Reconstruct, discriminator = training.FitGenerator, training.Reconstruct, training.discriminator
