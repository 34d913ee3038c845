"""``python -m dynconv_plugins.demo``."""

from dynconv_plugins.demo.cli import main
from dynconv_plugins.errors import run_cli

if __name__ == "__main__":
    run_cli(main)
