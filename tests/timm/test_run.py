"""``python -m timm_models``: running scripts that know nothing of this package."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("timm", reason="needs timm: pip install 'dynconv-plugins[timm]'")

from dynconv_plugins.errors import UserError
from timm_models.__main__ import main

ROOT = Path(__file__).parents[2]

SCRIPT = """
import argparse
import sys

import helper_beside_the_script
import timm

parser = argparse.ArgumentParser()
parser.add_argument("--model")
parser.add_argument("--model-kwargs", nargs="*", action=timm.utils.ParseKwargs, default={})
args = parser.parse_args()

if __name__ == "__main__":
    model = timm.create_model(args.model, device="meta", **args.model_kwargs)
    print(helper_beside_the_script.NAME, sys.argv[0], sum(p.numel() for p in model.parameters()))
"""


def command(*arguments, cwd=None, **env):
    """Runs the command line as a user does; costs an import of torch and timm."""
    path = os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])
    return subprocess.run(
        [sys.executable, "-m", "timm_models", *map(str, arguments)],
        env={**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1", **env},
        cwd=cwd or ROOT,
        capture_output=True,
        text=True,
        timeout=300,
    )


def fails_with_a_line(result, *says):
    assert result.returncode == 2, result.stderr
    assert "Traceback" not in result.stderr
    assert result.stderr.startswith("error: ") and result.stderr.count("\n") == 1
    for words in says:
        assert words in result.stderr


@pytest.fixture
def script(tmp_path):
    (tmp_path / "scripts").mkdir()
    (tmp_path / "scripts" / "helper_beside_the_script.py").write_text("NAME = 'helped'\n")
    path = tmp_path / "scripts" / "build.py"
    path.write_text(SCRIPT)
    return path


def test_runs_a_script_with_its_arguments_from_any_folder(script, tmp_path):
    result = command(
        "run", "scripts/build.py", "--model", "resnet18_odconv", "--model-kwargs", "num_kernels=4", cwd=tmp_path
    )
    assert result.returncode == 0, result.stderr
    helped, argv0, parameters = result.stdout.split()
    assert (helped, argv0) == ("helped", "scripts/build.py")
    assert round(int(parameters) / 1e6, 2) == 44.90


def test_hands_over_options_that_look_like_its_own(script, capsys):
    with pytest.raises(SystemExit) as left:
        main(["run", str(script), "--help"])
    assert left.value.code == 0 and "--model-kwargs" in capsys.readouterr().out


def test_leaves_the_interpreter_as_it_was(script, capsys):
    argv, path = list(sys.argv), list(sys.path)
    main(["run", str(script), "--model", "mobilenetv2_050_odconv"])
    assert capsys.readouterr().out.startswith("helped ")
    assert (sys.argv, sys.path) == (argv, path)


def test_unknown_model_is_one_line_with_suggestions(script):
    fails_with_a_line(command("run", script, "--model", "resnet18_odcnv"), "unknown model", "resnet18_odconv")


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--model", "resnet18_odconv", "--model-kwargs", "where=blokcs"], "unknown placement 'blokcs'; did you mean"),
        (
            ["--model", "resnet18_odconv", "--model-kwargs", "kernels=2"],
            "unknown model argument 'kernels'; did you mean",
        ),
        (["--model", "resnet18_odconv4"], "unknown model 'resnet18_odconv4'; did you mean"),
        (["--model", "resnet18_odconv.foo"], "resnet18_odconv has no weights with the tag 'foo'"),
    ],
)
def test_bad_names_come_with_suggestions(script, arguments, says):
    with pytest.raises(UserError, match=says):
        main(["run", str(script), *arguments])


@pytest.mark.parametrize(
    ("raises", "says"),
    [
        (
            "Error(s) in loading state_dict for ResNet:\n\tsize mismatch for fc.weight: 3, 5.\n\tmore",
            "fc.weight: 3, 5.$",
        ),
        (
            "No pretrained weights exist for resnet18_odconv. Use `pretrained=False`.",
            r"resnet18_odconv comes without .*--checkpoint \(train.py: --initial-checkpoint\)",
        ),
        ("Found 0 images in subfolders of data. Supported image extensions are .png", "subfolders of data:"),
    ],
)
def test_timms_complaints_are_one_line(raises, says, tmp_path):
    (tmp_path / "complains.py").write_text(f"raise RuntimeError({raises!r})\n")
    with pytest.raises(UserError, match=says) as caught:
        main(["run", str(tmp_path / "complains.py")])
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("missing", ["missing.py", "."])
def test_no_script(missing, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match="give the path of a script"):
        main(["run", missing])


def test_a_scripts_own_failure_is_its_own(tmp_path):
    (tmp_path / "breaks.py").write_text("raise RuntimeError('of the script')\n")
    with pytest.raises(RuntimeError, match="of the script"):
        main(["run", str(tmp_path / "breaks.py")])
    (tmp_path / "exits.py").write_text("raise SystemExit(7)\n")
    with pytest.raises(SystemExit) as left:
        main(["run", str(tmp_path / "exits.py")])
    assert left.value.code == 7


def test_lists_names(capsys):
    main(["list", "resnet18_*"])
    assert {"resnet18_odconv", "resnet18_odconv4x"} <= set(capsys.readouterr().out.split())
    main(["list", "odconv"])
    assert {"resnet18_odconv", "mobilenetv2_050_odconv4x"} <= set(capsys.readouterr().out.split())
    with pytest.raises(UserError, match=r"no model here matches vit\*"):
        main(["list", "vit*"])


def test_usage(capsys):
    with pytest.raises(SystemExit) as left:
        main(["--help"])
    assert left.value.code == 0 and "run SCRIPT.py" in capsys.readouterr().out
    for command_ in ("run", "list"):
        main([command_, "--help"])
        assert "run SCRIPT.py" in capsys.readouterr().out
    with pytest.raises(SystemExit) as left:
        main(["walk"])
    assert left.value.code == 2
    with pytest.raises(UserError, match="run needs a script"):
        main(["run"])


def test_says_which_extra_to_install_without_timm(tmp_path):
    (tmp_path / "sitecustomize.py").write_text(
        "import sys\n"
        "class Hide:\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        "        if name == 'timm':\n"
        "            raise ModuleNotFoundError(f'No module named {name!r}', name=name)\n"
        "sys.meta_path.insert(0, Hide())\n"
    )
    result = command("list", PYTHONPATH=os.pathsep.join([str(tmp_path), str(ROOT)]))
    fails_with_a_line(result, "pip install 'dynconv-plugins[timm]'")
