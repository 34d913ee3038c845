"""``python -m timm_models.train``: the same as ``python -m timm_models train``."""

import sys

from dynconv_plugins.errors import run_cli

from .cli import main

if __name__ == "__main__":
    run_cli(lambda: main(sys.argv[1:]))
