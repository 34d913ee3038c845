"""Runs a command and puts it, the machine and what it printed into a page of docs/.

    python -m benchmarks.record docs/results.md --title "Adiac, ten folds" --tail 20 -- python -m tsai_models train ...

A section of the same title is replaced, so the page always holds the newest run. A command that fails leaves the page
as it was. This is how the figures of docs/ get there.
"""

from __future__ import annotations

import argparse
import datetime
import os
import platform
import re
import shlex
import subprocess
import sys
import time
from pathlib import Path

import torch

import dynconv_plugins as dc


def machine() -> str:
    """Processor, cores, threads and versions, one line."""
    model = re.search(r"model name\s*:\s*(.*)", Path("/proc/cpuinfo").read_text()) if sys.platform == "linux" else None
    name = model.group(1) if model else platform.processor()
    return f"{name}, {os.cpu_count()} cores, Python {platform.python_version()}, torch {torch.__version__}"


def section(title: str, command: list[str], output: str, seconds: float, after: str = "") -> str:
    """One section of a page; `after` is the command line whose results the command shows."""
    today = datetime.date.today().isoformat()
    facts = f"{today}, dynconv-plugins {dc.__version__}, {machine()}, {seconds:.0f} s"
    lines = "".join(f"{line}\n" for line in (after, shlex.join(command)) if line)
    return f"## {title}\n\n```bash\n{lines}```\n\n{facts}:\n\n```text\n{output.rstrip()}\n```\n"


def replaced(page: str, title: str, new: str) -> str:
    """`page` with the section `title` replaced by `new`, or with `new` at its end."""
    old = re.search(rf"^## {re.escape(title)}\n.*?(?=^## |\Z)", page, re.DOTALL | re.MULTILINE)
    return page[: old.start()] + new + "\n" + page[old.end() :] if old else page.rstrip() + "\n\n" + new


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.record", description=__doc__.splitlines()[0])
    parser.add_argument("page", type=Path)
    parser.add_argument("--title", required=True)
    parser.add_argument("--tail", type=int, default=60, help="keep this many lines of the output")
    parser.add_argument("--after", default="", metavar="LINE", help="what had been run before, shown and not run")
    parser.add_argument("command", nargs="+", help="after --")
    args = parser.parse_args()
    start = time.monotonic()
    env = os.environ | {"COLUMNS": "150", "NO_COLOR": "1"}
    process = subprocess.Popen(args.command, stdout=subprocess.PIPE, text=True, env=env)
    lines = []
    for line in process.stdout:
        print(line, end="", flush=True)
        lines.append(line.rstrip())
    if process.wait():
        print(f"error: exit code {process.returncode}, {args.page} is left as it was", file=sys.stderr)
        return 1
    page = args.page.read_text() if args.page.exists() else f"# {args.page.stem.capitalize()}\n"
    new = section(args.title, args.command, "\n".join(lines[-args.tail :]), time.monotonic() - start, args.after)
    args.page.write_text(replaced(page, args.title, new).rstrip() + "\n")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
