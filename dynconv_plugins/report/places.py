"""Where things lay on the machine that made them is nobody's business: it is taken out of all that is published."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..study.cells import RUN

_ABSOLUTE = re.compile(r"(?<![\w$~./:…-])/(?:[^\s/'\"(){}\[\],:;]+/)+([^\s/'\"(){}\[\],:;]*)")
# What a study has prepared itself, below its folder.
_PREPARED = re.compile(r"(/.+)/data/[^/]+/[0-9a-f]{8}(?=/|$)")


def placeless(text: str, known: Mapping[str, str] | None = None) -> str:
    """A text without absolute paths.

    Args:
        text: Any.
        known: What takes the place of certain paths; of others the last part is kept.
    """
    known = {str(Path.home()): "~"} | dict(known or {})
    for place in sorted((p for p in known if len(p) > 1), key=len, reverse=True):
        text = text.replace(place, known[place])
    return _ABSOLUTE.sub(r"…/\1", text)


def placeless_record(record: Mapping[str, Any], root: Path, key: str) -> dict[str, Any]:
    """A cell's record, all its texts without absolute paths: the study's folder is named as given, real data by
    ``$DYNCONV_DATA``.

    Args:
        record: What ``cell.json`` holds.
        root: The study's folder today; the record may have been made elsewhere.
        key: The cell's, its folder below that.
    """
    name = str(root) if not root.is_absolute() else root.name
    known = {str(root.resolve()): name, str(root.absolute()): name}
    words = [str(word) for word in record.get("command") or ()]
    for word in filter(Path.is_absolute, map(Path, words)):
        for end in (f"/{key}", f"/{key}/{RUN}", f"/{key}/config.py"):
            if str(word).endswith(end):
                known[str(word).removesuffix(end)] = name
    data = Path(str((record.get("data") or {}).get("path") or ""))
    if prepared := _PREPARED.match(str(data)):
        known[prepared[1]] = name
    if data.is_absolute() and not any(data.is_relative_to(place) for place in known):
        known[str(data)] = f"$DYNCONV_DATA/{data.name}"

    def cleaned(value: Any) -> Any:
        if isinstance(value, Mapping):
            return {k: cleaned(v) for k, v in value.items()}
        if isinstance(value, (list, tuple)):
            return [cleaned(v) for v in value]
        return placeless(value, known) if isinstance(value, str) else value

    if words:
        record = {**record, "command": [Path(words[0]).name, *words[1:]]}
    return cleaned(record)
