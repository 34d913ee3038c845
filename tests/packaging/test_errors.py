"""What ends a command, as a user sees it."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from dynconv_plugins.errors import run_cli


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (PermissionError(13, "Permission denied", "/locked/x"), "error: /locked/x: permission denied"),
        (OSError(30, "Read-only file system", "/mnt/x"), "error: /mnt/x: read-only file system"),
        (
            OSError(28, "No space left on device", "/x/y"),
            "error: no space left on the disk while writing /x/y; ",
        ),
    ],
)
def test_what_the_system_refuses_is_one_line(capsys, monkeypatch, error: OSError, line: str) -> None:
    monkeypatch.delenv("DYNCONV_DEBUG", raising=False)

    def main() -> int:
        raise error

    with pytest.raises(SystemExit) as ended:
        run_cli(main)
    said = capsys.readouterr().err
    assert ended.value.code == 2 and said.startswith(line) and said.count("\n") == 1


def test_a_reader_that_has_gone_is_no_error() -> None:
    script = "from dynconv_plugins.errors import run_cli; run_cli(lambda: [print('x' * 99) for _ in range(9999)] and 0)"
    child = subprocess.Popen(
        (sys.executable, "-c", script), stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=dict(os.environ)
    )
    child.stdout.readline()
    child.stdout.close()
    assert child.stderr.read() == b"" and child.wait(60) == 141
