"""Chromium without a window: what a page measures in a frame of a phone's width, and what it looks like."""

from __future__ import annotations

import html
import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
FLAGS = "--headless --no-sandbox --disable-gpu --no-first-run --disable-background-networking --disable-sync".split()


def measured(page: str, script: str, width: int, tmp_path: Path) -> Any:
    """What a script returns of a page in a frame `width` pixels wide; windows cannot be as narrow as that.

    Args:
        page: HTML.
        script: Body of a function of the document ``d``; what it returns must survive JSON.
        width: In CSS pixels.
        tmp_path: An own folder.
    """
    frame = f'<iframe id="f" width="{width}" height="900" srcdoc="{html.escape(page)}"></iframe>'
    run = f"((d) => {{ {script} }})(document.getElementById('f').contentDocument)"
    wrapper = tmp_path / "frame.html"
    wrapper.write_text(
        f"<!DOCTYPE html><title>-</title>{frame}"
        f"<script>onload = () => {{ document.title = 'told ' + JSON.stringify({run}); }}</script>"
    )
    command = [CHROMIUM, *FLAGS, f"--user-data-dir={tmp_path / 'profile'}", f"--window-size={width + 100},1000"]
    command += ["--virtual-time-budget=5000", "--dump-dom", wrapper.as_uri()]
    dom = subprocess.run(command, capture_output=True, text=True, timeout=180).stdout
    found = re.search(r"<title>told (.*?)</title>", dom, re.S)
    assert found, dom[:300]
    return json.loads(html.unescape(found.group(1)))


def shot(path: Path, width: int, height: int, tmp_path: Path):
    """A page's file as an image ``[height, width]``."""
    from PIL import Image

    made = tmp_path / "shot.png"
    command = [CHROMIUM, *FLAGS, f"--user-data-dir={tmp_path / 'profile'}", f"--window-size={width},{height}"]
    command += ["--hide-scrollbars", f"--screenshot={made}", path.as_uri()]
    subprocess.run(command, capture_output=True, timeout=180)
    return Image.open(made).convert("RGB")
