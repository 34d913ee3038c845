"""Measurements of the package. Each module that has a ``main`` is a command: ``python -m benchmarks.models --help``.

They need the extra ``study``, for rich.
"""

import sys

from dynconv_plugins.errors import UserError, require

# Python imports the package before the command, while its first argument is still "-m"; the command's own imports would
# end in a traceback.
if sys.argv[:1] == ["-m"]:
    try:
        require("rich", extra="study")
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
