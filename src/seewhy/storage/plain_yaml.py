"""Bounded reading of YAML: a few kilobytes of references to references would expand to gigabytes."""

from __future__ import annotations

from typing import Any

import yaml

MOST = 1 << 20
"""Maximum bytes of a YAML file, which is parsed at about 100 kB a second; 10,000 class names take 300 kB."""
LONGEST = 300
"""Maximum characters of a number or date, as some forms take a time that grows with the square of the length."""


class _Loader(yaml.SafeLoader):
    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        is_reference = self.check_event(yaml.AliasEvent)
        node = super().compose_node(parent, index)
        if is_reference and not isinstance(node, yaml.ScalarNode):
            raise yaml.YAMLError("it refers to a list or mapping with *; write it out")
        if isinstance(node, yaml.ScalarNode) and len(node.value) > LONGEST and not node.tag.endswith(":str"):
            raise yaml.YAMLError("it has a number that is too long")
        return node


def parse_yaml(text: str) -> Any:
    """Parse YAML of plain values.

    Raises:
        yaml.YAMLError: a syntax error, a reference to a list or mapping, or a number that is too long.
        RecursionError: it is nested too deeply.
    """
    loader = _Loader(text)
    try:
        return loader.get_single_data()
    finally:
        loader.dispose()
