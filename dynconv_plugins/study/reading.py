"""YAML in which nothing is there twice."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from ..errors import UserError


def read(path: Path) -> Any:
    """What a YAML file holds.

    Raises:
        UserError: If it is no YAML, or a mapping has a key twice: YAML itself would take the last without a word.
    """
    try:
        return yaml.load(path.read_text(encoding="utf-8"), Loader=_Once)
    except (yaml.YAMLError, UnicodeDecodeError) as e:
        raise UserError(f"{path} is no YAML: {' '.join(str(e).split())}") from None


class _Once(yaml.SafeLoader):
    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        # Before what `<<` merges is put among them.
        keys = [key.value for key, _ in node.value if isinstance(key, yaml.ScalarNode) and key.value != "<<"]
        if twice := next((key for key in keys if keys.count(key) > 1), None):
            raise yaml.YAMLError(f"line {node.start_mark.line + 1}: {twice} is there twice")
        return super().construct_mapping(node, deep)
