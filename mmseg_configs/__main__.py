"""``python -m mmseg_configs list | path NAME``: the installed configs."""

from __future__ import annotations

import argparse

import mmseg_configs
from dynconv_plugins.errors import run_cli


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m mmseg_configs", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("list", help="print the names of the configs")
    path = commands.add_parser("path", help="print the path of a config, for `mim train mmsegmentation PATH`")
    path.add_argument("name")
    args = parser.parse_args()
    print("\n".join(mmseg_configs.names()) if args.command == "list" else mmseg_configs.path(args.name))


if __name__ == "__main__":
    run_cli(main)
