"""``dynconv report``: the page, Markdown and CSV of one or several studies."""

from __future__ import annotations

import argparse
import shutil
import tempfile
import webbrowser
from pathlib import Path

from ..errors import UserError, require
from .archive import ARCHIVE, unpacked

MADE = ("index.html", "report.md", "csv", "img", ARCHIVE)


def add_parser(subparsers: argparse._SubParsersAction) -> None:
    """Adds ``report`` to the commands of ``dynconv``."""
    parser = subparsers.add_parser(
        "report",
        help="draw a study's page, tables and figures",
        description="Draws one page, Markdown and CSV from folders of 'dynconv study'. Several are united. The "
        "records.zip that a report leaves takes the place of folders that are gone; it holds no networks to look into.",
    )
    runs = "folders that 'dynconv study' wrote, or a report's records.zip"
    parser.add_argument("runs", nargs="+", type=Path, metavar="RUNS", help=runs)
    parser.add_argument("--out", type=Path, metavar="DIR", help="default: the folder 'report' in the first of RUNS")
    parser.add_argument("--no-pictures", action="store_true", help="leave out what needs the networks to be loaded")
    parser.add_argument("--open", action="store_true", help="open the page in the browser at the end")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Writes the report and prints its summary."""
    for module in (
        "rich",
        "matplotlib",
        "jinja2",
        "scipy",
        "yaml",
        "PIL",
        *(() if args.no_pictures else ("pytorch_grad_cam",)),
    ):
        require(module, extra="study")
    if args.out is None and not args.runs[0].is_dir():
        raise UserError(f"{args.runs[0]} is not a folder" + (": say --out DIR" if args.runs[0].is_file() else ""))
    shown = args.out or args.runs[0] / "report"
    out = shown.resolve()
    if out.exists() and not out.is_dir():
        raise UserError(f"--out {shown} is a file; choose another name")
    if out.is_dir() and any(out.iterdir()) and not all((out / name).is_file() for name in MADE[:2]):
        raise UserError(f"--out {shown} holds other files; choose another folder")
    from rich.console import Console

    from .collect import collect
    from .terminal import summary

    console = Console()
    part = out.with_name(f".{out.name}.part")
    shutil.rmtree(part, ignore_errors=True)
    with tempfile.TemporaryDirectory() as scratch:
        try:
            folders = unpacked(args.runs, Path(scratch))
            try:
                study = collect(list(folders))
            except UserError as e:
                told = str(e)
                for folder, run in folders.items():
                    told = told.replace(str(folder), str(run))
                raise UserError(told) from None
            study.folders = args.runs
            from .build import build

            with console.status("drawing"):
                answers = build(study, part, pictures=not args.no_pictures)
            _replace(part, out)
        finally:
            shutil.rmtree(part, ignore_errors=True)
    summary(answers, console)
    console.print(f"{shown / MADE[0]}", soft_wrap=True, highlight=False, markup=False)
    if args.open:
        webbrowser.open((out / MADE[0]).resolve().as_uri())
    return 0


def _replace(part: Path, out: Path) -> None:
    """Puts the new report in place of the old one, all of it; what else lies in the folder stays."""
    if not out.exists():
        out.parent.mkdir(parents=True, exist_ok=True)
        part.rename(out)
        return
    # One by one: what else lies in the folder is never moved.
    old = out.with_name(f".{out.name}.old")
    shutil.rmtree(old, ignore_errors=True)
    old.mkdir()
    for name in MADE:
        if (out / name).exists():
            (out / name).rename(old / name)
        if (part / name).exists():
            (part / name).rename(out / name)
    shutil.rmtree(old)
