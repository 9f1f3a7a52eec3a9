"""Builds the documentation as a site: ``python docs/build_site.py [FOLDER]``; ``make docs`` does. Nothing is fetched.

The pages are those of docs/, which the repository shows too. They are copied; links that leave them lead to the
repository; lists in docs/index.md become the side bar; cards are made of photographs that come with
scikit-image; tutorials are run. A broken link or a tutorial that fails ends it.
"""

from __future__ import annotations

import os
import re
import shutil
import sys
import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
DOCS = ROOT / "docs"
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
AT_THE_TOP = ("CONTRIBUTING.md", "CHANGELOG.md", "SECURITY.md", "CODE_OF_CONDUCT.md")
LINK = re.compile(r"(\]\()(?!\w+:|#)([^)#\s]+)")
BELOW = ("methods", "reproductions")
"""Folders whose pages stand below the page of the same name."""
TUTORIALS = {
    "gallery_dirs": "tutorials",
    "filename_pattern": r".*\.py$",
    "within_subsection_order": "FileNameSortKey",
    "capture_repr": ("_repr_html_",),
    "image_scrapers": (),
    "reset_modules": (),
    "abort_on_example_error": True,
    "show_memory": False,
    "write_computation_times": False,  # that page fetches scripts from elsewhere
    "min_reported_time": 1e9,
    "show_signature": False,
}
SETTINGS = {
    "project": "SeeWhy",
    "author": "The SeeWhy contributors",
    "copyright": "the SeeWhy contributors, Apache-2.0",
    "version": PROJECT["version"],
    "extensions": ["myst_parser", "sphinx_gallery.gen_gallery"],
    "myst_heading_anchors": 4,
    "smartquotes": False,  # it makes one dash of the two before an option
    "suppress_warnings": ["misc.highlighting_failure", "config.cache"],  # JSON on the pages is cut short with …
    "html_theme": "furo",
    "html_title": f"SeeWhy {PROJECT['version']}",
    "html_theme_options": {"top_of_page_buttons": []},
    "html_static_path": ["site"],
    "html_css_files": ["site.css"],
    "html_copy_source": False,
    "html_show_sphinx": False,
}


def main(folder: Path) -> int:
    """Lay the pages out and build; 0 where nothing was wrong."""
    from sphinx.application import Sphinx

    folder = folder.resolve()
    pages, scripts, extra = folder / "pages", folder / "scripts", folder / "extra"
    for old in (pages, scripts, extra, folder / "html", folder / "doctrees"):
        shutil.rmtree(old, ignore_errors=True)
    lay_out(pages)
    gallery(pages, extra / "cards")
    shutil.copytree(ROOT / "examples" / "tutorials", scripts)  # where they are run, they write
    settings = SETTINGS | {
        "html_extra_path": [str(extra)],
        "sphinx_gallery_conf": TUTORIALS | {"examples_dirs": str(scripts)},
    }
    site = Sphinx(pages, None, folder / "html", folder / "doctrees", "html", settings, status=None, warningiserror=True)
    site.build()
    return site.statuscode


def lay_out(pages: Path) -> None:
    """The pages as Sphinx reads them."""
    shutil.copytree(DOCS, pages, ignore=shutil.ignore_patterns("*.py", "__pycache__", "*.md"))
    repository, below = PROJECT["urls"]["Repository"], pages_below((DOCS / "index.md").read_text("utf-8"))
    for source in (*DOCS.rglob("*.md"), *(ROOT / name for name in AT_THE_TOP)):
        page = pages / place_of(source)
        page.parent.mkdir(parents=True, exist_ok=True)
        text = LINK.sub(lambda m, s=source: m[1] + target_of(m[2], s, repository), source.read_text("utf-8"))
        if source == DOCS / "index.md":
            text = with_contents(text)
        more = list(below.get(source.name, ())) if source.parent == DOCS else []
        more += [f"{source.stem}/*"] if source.stem in BELOW and source.parent == DOCS else []
        if more:
            text += "\n```{toctree}\n:hidden:\n:glob:\n\n" + "\n".join(more) + "\n```\n"
        page.write_text(text, "utf-8")


def place_of(source: Path) -> Path:
    """Where a file of the repository stands on the site, relative to its root."""
    return source.relative_to(DOCS) if source.is_relative_to(DOCS) else Path(source.name.lower())


def target_of(link: str, source: Path, repository: str) -> str:
    """A link of a page, as it is on the site: to another page, or to the repository.

    >>> target_of("concepts.md", DOCS / "start.md", "https://x")
    'concepts.md'
    >>> target_of("../CHANGELOG.md", DOCS / "start.md", "https://x")
    'changelog.md'
    >>> target_of("../../examples/demo.py", DOCS / "methods" / "rise.md", "https://x")
    'https://x/blob/main/examples/demo.py'
    """
    target = Path(os.path.normpath(source.parent / link))
    if target in [ROOT / name for name in AT_THE_TOP] or (target.is_relative_to(DOCS) and target.is_file()):
        return Path(os.path.relpath(place_of(target), place_of(source).parent)).as_posix()
    return f"{repository}/blob/main/{target.relative_to(ROOT).as_posix()}"


ENTRY = re.compile(r"^( *)- \[(.+)\]\((\S+)\)", re.MULTILINE)
"""A page in the lists of docs/index.md; one that is indented stands below the page before it."""


def pages_below(text: str) -> dict[str, list[str]]:
    """Page → the pages below it in the side bar.

    >>> pages_below("- [A](a.md)\\n  - [B](b.md)\\n- [C](c.md)")
    {'a.md': ['B <b.md>'], 'c.md': []}
    """
    below: dict[str, list[str]] = {}
    for indent, title, page in ENTRY.findall(text):
        if indent:
            below[next(reversed(below))].append(f"{title} <{place_of(Path(os.path.normpath(DOCS / page)))}>")
        else:
            below[page] = []
    below.get("start.md", []).extend(("Gallery of cards <gallery.md>", "Tutorials <tutorials/index>"))
    return below


def with_contents(text: str) -> str:
    """The first page, whose lists become the side bar."""
    head, *sections = text.split("\n## ")
    parts = [head]
    for section in sections:
        caption, _, body = section.partition("\n")
        entries = "\n".join(f"{title} <{page}>" for indent, title, page in ENTRY.findall(body) if not indent)
        parts.append(f"```{{toctree}}\n:hidden:\n:caption: {caption}\n:maxdepth: 1\n\n{entries}\n```\n")
    return "\n".join(parts)


def gallery(pages: Path, folder: Path) -> None:
    """Cards, each as the page that ``seewhy explain`` writes, and a page that shows them all."""
    sys.path.insert(0, str(DOCS))
    from pictures import cards

    folder.mkdir(parents=True)
    shown = []
    for name, (caption, why) in cards().items():
        why.save(folder / f"{name}.html")
        (folder / f"{name}.png").write_bytes(why.to_png())
        shown.append(f'<a href="cards/{name}.html"><img src="cards/{name}.png" alt=""> {caption}</a>\n')
    said = "Each card is the page that `seewhy explain` writes, made when this site was built. Click one to open it."
    text = f"# Gallery of cards\n\n{said}\n\n<div class='cards'>\n{''.join(shown)}</div>\n"
    (pages / "gallery.md").write_text(text, "utf-8")


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]) if len(sys.argv) > 1 else ROOT / "build" / "docs"))
