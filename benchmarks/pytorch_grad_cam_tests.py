"""pytorch-grad-cam's own tests with :mod:`seewhy.compat` in the place of its methods, and random weights in the models.

    git clone https://github.com/jacobgil/pytorch-grad-cam peer
    python benchmarks/pytorch_grad_cam_tests.py peer [pytest's options]

The tests run as they are written. What they import from ``pytorch_grad_cam`` and its ``utils.model_targets`` is ours
where we have it, and theirs elsewhere: image utilities, metrics, RefineCAM, and the decompositions that one test file
is about.
"""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
from pathlib import Path

import pytest


class OursInTheirPlace:
    """Exchanges the classes and the weights before a test module is imported."""

    def pytest_configure(self) -> None:
        import pytorch_grad_cam
        import torchvision
        from pytorch_grad_cam.utils import model_targets

        from seewhy import compat

        replaced = []
        for name in compat.__all__:
            for module in (pytorch_grad_cam, model_targets):
                if hasattr(module, name):
                    setattr(module, name, getattr(compat, name))
                    replaced.append(name)
        print(f"ours: {', '.join(sorted(set(replaced)))}")
        for name in ("resnet18", "vgg11"):
            build = getattr(torchvision.models, name)
            setattr(torchvision.models, name, lambda build=build, **_: build(weights=None))


def main() -> int:
    peer = Path(sys.argv[1]).resolve()
    with tempfile.TemporaryDirectory() as folder:
        shutil.copytree(peer / "tests", Path(folder) / "tests")
        (Path(folder) / "examples").mkdir()
        shutil.copy(peer / "examples" / "both.png", Path(folder) / "examples")
        os.chdir(folder)
        options = ["-p", "no:cacheprovider", "-q", "--tb=line", "tests", *sys.argv[2:]]
        return int(pytest.main(options, plugins=[OursInTheirPlace()]))


if __name__ == "__main__":
    raise SystemExit(main())
