"""A wheel, built and installed elsewhere, carries everything and needs torch alone."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import zipfile
from importlib.metadata import distributions
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = ("dynconv_plugins", "timm_models", "tsai_models", "mmseg_configs")
# Everything the extras bring; numpy too, which torch itself can do without.
EXTRAS = (
    "timm torchvision safetensors huggingface_hub tensorboard tsai fastai fastcore pyts jupyter_core mmengine mmcv "
    "mmseg mim fvcore pytorch_grad_cam submitit matplotlib rich PIL tqdm yaml jinja2 numpy pandas sklearn scipy cv2"
).split()
BLOCK = f"""
import sys
class Block:
    def find_spec(self, name, path=None, target=None):
        if name.partition('.')[0] in {EXTRAS!r}:
            raise ModuleNotFoundError(f'No module named {{name!r}}', name=name)
sys.meta_path.insert(0, Block())
"""


def run(code_or_args: str | list[str], cwd: Path, site: Path) -> subprocess.CompletedProcess[str]:
    args = ["-c", code_or_args] if isinstance(code_or_args, str) else code_or_args
    env = {k: v for k, v in os.environ.items() if not k.startswith(("PYTHON", "DYNCONV"))}
    return subprocess.run(
        [sys.executable, "-W", "ignore", *args],
        cwd=cwd,
        env=env | {"PYTHONPATH": str(site)},
        capture_output=True,
        text=True,
        timeout=240,
    )


def sources() -> set[str]:
    """Every file of the import packages, as a path inside the wheel."""
    found = (p for name in PACKAGES for p in (ROOT / name).rglob("*") if p.is_file())
    return {p.relative_to(ROOT).as_posix() for p in found if "__pycache__" not in p.parts}


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Built from a copy: setuptools leaves `build/` behind, and would ship stale files from an old one."""
    copy, out = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("dist")
    for name in PACKAGES:
        shutil.copytree(ROOT / name, copy / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, copy)
    command = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(out), str(copy)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    (path,) = out.glob("dynconv_plugins-*.whl")
    return path


@pytest.fixture(scope="module")
def site(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    target = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "pip", "install", "-q", "--no-deps", "--no-index", "--target", str(target)]
    done = subprocess.run([*command, str(wheel)], capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stderr[-2000:]
    return target


def test_every_source_file_is_in_the_wheel(wheel: Path) -> None:
    names = set(zipfile.ZipFile(wheel).namelist())
    assert sources() <= names, f"not packaged: {sorted(sources() - names)}"
    strays = {n for n in names if n.partition("/")[0] not in PACKAGES and ".dist-info/" not in n}
    assert not strays, f"packaged by accident: {sorted(strays)}"
    assert any(n.endswith(".dist-info/licenses/LICENSE") for n in names)
    assert {f"{package}/py.typed" for package in PACKAGES} <= names, "type checkers take the hints of none without it"


def test_metadata(site: Path) -> None:
    (dist,) = distributions(name="dynconv-plugins", path=[str(site)])
    base = [r for r in dist.requires or [] if "extra ==" not in r]
    assert [r.partition(">")[0] for r in base] == ["torch"]
    assert set(dist.metadata.get_all("Provides-Extra")) == {"timm", "mmseg", "tsai", "study", "all", "dev"}
    (script,) = dist.entry_points.select(group="console_scripts")
    assert (script.name, script.value) == ("dynconv", "dynconv_plugins.cli:main")


def test_recipes_and_configs_are_installed(site: Path) -> None:
    recipes = {p.name for p in (site / "timm_models" / "recipes").glob("*.yaml")}
    assert {"tiny_imagenet_64.yaml", "tiny_imagenet_study.yaml"} <= recipes
    configs = {p.name for p in (site / "mmseg_configs").glob("*.py")}
    assert "fpn_resnet18-odconv_voc12-512x512.py" in configs
    assert list((site / "mmseg_configs" / "_base_").rglob("*.py"))


def test_torch_alone_is_enough(site: Path, tmp_path: Path) -> None:
    code = (
        BLOCK
        + """
import torch, dynconv_plugins as dc
print(dc.__file__)
conv = dc.registry.build('odconv4x', 2, 8, 8, 3, padding=1)
y = dc.dynamize(torch.nn.Sequential(torch.nn.Conv2d(3, 8, 3)), 'odconv', where='all')(torch.zeros(2, 3, 8, 8))
y = conv(y)
y.sum().backward()
print(tuple(y.shape))
"""
    )
    done = run(code, tmp_path, site)
    assert done.returncode == 0, done.stderr
    where, shape = done.stdout.splitlines()
    assert Path(where).is_relative_to(site), "imported the checkout, not the wheel"
    assert shape == "(2, 8, 6, 6)"


@pytest.mark.parametrize(
    ("module", "extra"), [("timm_models", "timm"), ("tsai_models", "tsai"), ("mmseg_configs.register", "mmseg")]
)
def test_a_missing_host_is_named_with_its_extra(site: Path, tmp_path: Path, module: str, extra: str) -> None:
    done = run(f"{BLOCK}\nimport {module}", tmp_path, site)
    assert done.returncode != 0
    assert f"pip install 'dynconv-plugins[{extra}]'" in done.stderr.strip().splitlines()[-1]


def test_complexity_names_its_extra(site: Path, tmp_path: Path) -> None:
    code = f"{BLOCK}\nimport torch, dynconv_plugins as dc\ndc.complexity(torch.nn.Conv2d(3, 8, 3), (1, 3, 8, 8))"
    done = run(code, tmp_path, site)
    assert done.returncode != 0
    assert "pip install 'dynconv-plugins[study]'" in done.stderr.strip().splitlines()[-1]


def test_the_command_runs_from_elsewhere(site: Path, tmp_path: Path) -> None:
    done = run([str(site / "bin" / "dynconv"), "--help"], tmp_path, site)
    assert done.returncode == 0, done.stderr
    assert "data" in done.stdout and "demo" in done.stdout
    (dist,) = distributions(name="dynconv-plugins", path=[str(site)])
    said = run([str(site / "bin" / "dynconv"), "--version"], tmp_path, site)
    assert (said.returncode, said.stdout) == (0, f"dynconv {dist.version}\n"), said.stderr
