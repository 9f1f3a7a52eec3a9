"""What pyproject.toml cannot say: README.md with whole addresses, for pages outside of the repository."""

import re
import tomllib
from pathlib import Path

from setuptools import setup

FOLDER = Path(__file__).resolve().parent
REPOSITORY = tomllib.loads((FOLDER / "pyproject.toml").read_text("utf-8"))["project"]["urls"]["Repository"]
PAGES = f"{REPOSITORY}/blob/main/"
PICTURES = f"{REPOSITORY}/raw/main/"


def whole(text: str) -> str:
    """Markdown whose relative links lead to the repository."""
    text = re.sub(r'(<img [^>]*src=")(?!\w+:)', rf"\g<1>{PICTURES}", text)
    return re.sub(r"(\]\()(?!\w+:|#)", rf"\g<1>{PAGES}", text)


if __name__ == "__main__":
    setup(
        long_description=whole((FOLDER / "README.md").read_text("utf-8")), long_description_content_type="text/markdown"
    )
