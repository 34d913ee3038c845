"""Shared by the mmseg tests: the host, the built-in data, and a way to call `mim` as a user does.

Also lets the tests import the module beside them."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))
pytest.importorskip("mmseg")
pytest.importorskip("timm")

import mmseg_configs.register
from dynconv_plugins.datasets import diatoms

ROOT = Path(mmseg_configs.__file__).parents[1]


@pytest.fixture(autouse=True)
def _scope():
    from mmengine.registry import init_default_scope

    init_default_scope("mmseg")


@pytest.fixture(scope="session")
def diatoms_root() -> Iterator[Path]:
    """A folder for DYNCONV_DATA: 8 training and 4 validation images of two shapes."""
    # Not under pytest's folders: mmengine formats a config at every start and checkpoint, which takes seconds once a
    # path in it is too long for a line.
    with tempfile.TemporaryDirectory(prefix="d") as folder:
        yield diatoms.make(folder, classes=2, train=4, test=2)


@pytest.fixture
def voc(diatoms_root) -> Iterator[Path]:
    """A copy of the VOC part, to be damaged; its path is short, too."""
    with tempfile.TemporaryDirectory(prefix="v") as folder:
        yield Path(shutil.copytree(diatoms_root / "VOCdevkit" / "VOC2012", Path(folder) / "VOCdevkit" / "VOC2012"))


@pytest.fixture
def parts(voc) -> dict[str, object]:
    """The built-in data with a validation part of its own: 5 images to train on, 3 to validate on, 4 to test on."""
    lists = "ImageSets/Segmentation"
    names = (voc / lists / "train.txt").read_text().split()
    (voc / lists / "fit.txt").write_text("\n".join(names[:5]))
    (voc / lists / "look.txt").write_text("\n".join(names[5:]))
    return dict(data_root=voc, train_list=f"{lists}/fit.txt", valid_list=f"{lists}/look.txt", pixels=64)


@pytest.fixture
def python(diatoms_root):
    """Runs a module, or the script at a `Path`, from outside the source tree, as an installed package is used."""

    def run(*args: object, cwd: Path, data: Path = diatoms_root) -> subprocess.CompletedProcess:
        env = {**os.environ, "DYNCONV_DATA": str(data), "OMP_NUM_THREADS": "1"}
        env["PYTHONPATH"] = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
        # `python -m mim` is the `mim` of this environment, whether or not it is on PATH
        command = [sys.executable, *([] if isinstance(args[0], Path) else ["-m"]), *map(str, args)]
        return subprocess.run(command, cwd=cwd, env=env, capture_output=True, text=True, timeout=500)

    return run
