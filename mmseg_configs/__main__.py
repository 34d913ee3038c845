"""``python -m mmseg_configs list | path NAME | write``: the installed configs."""

from __future__ import annotations

import argparse
from pathlib import Path

import mmseg_configs
from dynconv_plugins.errors import run_cli


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m mmseg_configs", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("list", help="print the names of the configs")
    path = commands.add_parser("path", help="print the path of a config, for `mim train mmsegmentation PATH`")
    path.add_argument("name")
    commands.add_parser("write", help="for developers: write the files of all registered operators anew")
    args = parser.parse_args()
    if args.command == "list":
        print("\n".join(mmseg_configs.names()))
    elif args.command == "path":
        print(mmseg_configs.path(args.name))
    else:
        from .writing import write  # needs torch; the other commands do not

        changed = write(Path(mmseg_configs.__file__).parent)
        print("\n".join(str(path) for path in changed) if changed else "all files are up to date")


if __name__ == "__main__":
    run_cli(main)
