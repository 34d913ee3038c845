"""The command: one line on stderr for every mistake, downloads without a network, missing hosts, lazy imports."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import types
from pathlib import Path

import pytest

from dynconv_plugins import cli, datasets, locking
from dynconv_plugins.datasets import files, ucr_download
from dynconv_plugins.errors import UserError


def test_diatoms_and_the_three_preparations(dynconv, tmp_path):
    made, out = tmp_path / "made", tmp_path / "out"
    steps = [
        ("diatoms", "--out", made, "--classes", 2, "--train", 2, "--test", 1, "--size", 32),
        ("tiny-imagenet", made, "--out", out),
        ("voc2012", made, "--out", out),
        ("ucr", made, "--out", out),
    ]
    for step in steps:
        done = dynconv("data", *step)
        assert done.returncode == 0 and done.stdout.startswith("prepared: ") and not done.stderr, done
    for step in steps:
        done = dynconv("data", *step)
        assert done.returncode == 0 and done.stdout.startswith("already prepared: "), done
    assert datasets.find(out) == {
        "tiny-imagenet": out,
        "voc2012": out / "VOCdevkit" / "VOC2012",
        "ucr": out / "UCR",
    }


def test_a_process_of_its_own_ends_in_one_line(tmp_path):
    command = [sys.executable, "-m", "dynconv_plugins.cli", "data", "voc2012", tmp_path / "nowhere", "--out", tmp_path]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == 2 and not done.stdout
    assert done.stderr.startswith("error: ") and done.stderr.count("\n") == 1


@pytest.mark.parametrize("kind", ["tiny-imagenet", "voc2012", "ucr"])
@pytest.mark.parametrize("source", ["missing", "empty", None])
def test_missing_or_empty_source(kind, source, fails, tmp_path):
    (tmp_path / "empty").mkdir()
    line = fails("data", kind, *([tmp_path / source] if source else []), "--out", tmp_path / "out")
    assert "expected" in line and (source is None or source in line)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    "kind, extra, place",
    [
        ("tiny-imagenet", (), "tiny-imagenet-200.zip"),
        ("voc2012", (), "VOCtrainval_11-May-2012.tar"),
        ("ucr", ("--names", "Adiac"), "Adiac_TRAIN.ts"),
    ],
)
def test_download_without_a_network(kind, extra, place, fails, tmp_path):
    pytest.importorskip("tsai" if kind == "ucr" else "torchvision")
    line = fails("data", kind, "--download", *extra, "--out", tmp_path / "out")
    assert "cannot reach http" in line and f"place {place}" in line
    assert not (tmp_path / "out").exists()


def test_an_archive_placed_by_hand_must_have_the_checksum(fails, tmp_path):
    pytest.importorskip("torchvision")
    placed = tmp_path / ".download" / "tiny-imagenet-200.zip"
    placed.parent.mkdir()
    placed.write_bytes(b"something else")
    assert "does not have the checksum" in fails("data", "tiny-imagenet", "--download", "--out", tmp_path)
    assert placed.read_bytes() == b"something else"


@pytest.mark.parametrize(
    "args, expected",
    [
        (("tiny-imagenet", "SOURCE", "--download"), "not both"),
        (("tiny-imagenet", "SOURCE", "--jobs", "0"), "--jobs 0"),
        (("tiny-imagenet", "SOURCE", "--classes", "0"), "--classes 0"),
        (("ucr", "--download"), "--names"),
        (("diatoms", "--classes", "50"), "out of range"),
    ],
)
def test_wrong_arguments(args, expected, fails, tmp_path):
    assert expected in fails("data", *args, "--out", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_out_that_cannot_be_used(fails, tmp_path):
    (tmp_path / "file").write_text("")
    assert "is a file" in fails("data", "diatoms", "--out", tmp_path / "file")
    line = fails("data", "diatoms", "--out", tmp_path / "file" / "below")
    assert "Not a directory" in line


@pytest.mark.parametrize("text", ["{", "[]", '{"tiny-imagenet": []}'])
def test_damaged_record(text, pristine, fails, tmp_path):
    (tmp_path / "dataset.json").write_text(text)
    assert "dataset.json is damaged; delete it" in fails("data", "tiny-imagenet", pristine, "--out", tmp_path)


def test_find(pristine, tmp_path, monkeypatch):
    assert set(datasets.find(pristine)) == {"tiny-imagenet", "voc2012", "ucr"}
    monkeypatch.delenv("DYNCONV_DATA", raising=False)
    assert datasets.find() == {}
    monkeypatch.setenv("DYNCONV_DATA", str(tmp_path / "nowhere"))
    with pytest.raises(UserError, match=r"DYNCONV_DATA=.*nowhere is not a folder"):
        datasets.find()
    monkeypatch.setenv("DYNCONV_DATA", str(tmp_path))
    with pytest.raises(UserError, match="holds none of"):
        datasets.find()


@pytest.mark.parametrize("missing, kind, extra", [("PIL", "diatoms", "timm"), ("PIL", "voc2012", "mmseg")])
def test_a_missing_host_is_named_with_its_extra(missing, kind, extra, tmp_path):
    source = "" if kind == "diatoms" else f", {str(tmp_path)!r}"
    script = (
        f"import sys; sys.modules[{missing!r}] = None\nfrom dynconv_plugins import cli\n"
        f"cli.main(['data', {kind!r}{source}, '--out', {str(tmp_path / 'out')!r}])"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=120)
    assert done.returncode == 2 and done.stderr.count("\n") == 1, done.stderr
    assert missing in done.stderr and f"pip install 'dynconv-plugins[{extra}]'" in done.stderr


def test_importing_the_package_and_the_command_needs_torch_alone():
    script = (
        "import sys\nfor name in ('PIL', 'numpy', 'torchvision', 'tqdm', 'timm', 'tsai', 'mmseg'):\n"
        "    sys.modules[name] = None\n"
        "import dynconv_plugins.datasets, dynconv_plugins.cli, dynconv_plugins.datasets.cli\n"
        "dynconv_plugins.datasets.find()"
    )
    subprocess.run([sys.executable, "-W", "ignore", "-c", script], check=True, timeout=120)


def test_every_command_is_listed_and_only_the_one_asked_for_is_imported(capsys):
    with pytest.raises(SystemExit):
        cli.run(["--help"])
    listed = capsys.readouterr().out
    assert all(name in listed for name in cli.COMMANDS)
    script = (
        "import sys\nfrom dynconv_plugins import cli\n"
        "try: cli.run(['data', '--help'])\nexcept SystemExit: pass\n"
        "assert 'dynconv_plugins.datasets.cli' in sys.modules\n"
        "assert 'dynconv_plugins.demo.cli' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", script], check=True, timeout=120, stdout=subprocess.DEVNULL)


def test_sources_are_never_changed(official, dynconv, tmp_path):
    def state(root: Path):
        return {p: (p.stat().st_mtime_ns, p.stat().st_size) for p in root.rglob("*")}

    before = state(official)
    for kind in ("tiny-imagenet", "voc2012", "ucr"):
        assert dynconv("data", kind, official, "--out", tmp_path / kind).returncode == 0
    assert state(official) == before


@pytest.mark.parametrize(
    "kind, more",
    [("tiny-imagenet", ("--classes", 2)), ("voc2012", ("--aug", "OUT/VOCdevkit/VOC2012")), ("ucr", ())],
)
@pytest.mark.parametrize("through", ["out", "alias"])
def test_what_an_earlier_run_made_is_no_source(kind, more, through, official, fails, dynconv, tmp_path):
    out = tmp_path / "out"
    sbd = official / "VOCdevkit" / "VOC2012"
    if kind == "voc2012":
        lists = sbd / "ImageSets" / "Segmentation" / "train.txt"
        lists.write_text("\n".join(lists.read_text().split()[1:]))
        (sbd / "SegmentationClass").rename(sbd / "SegmentationClassAug")
        (sbd / "SegmentationClass").symlink_to("SegmentationClassAug")
    first = ("--aug", sbd) if kind == "voc2012" else ()
    assert dynconv("data", kind, official, "--out", out, *first).returncode == 0
    (tmp_path / "alias").symlink_to(out)
    before = {p: p.read_bytes() for p in out.rglob("*") if p.is_file()}
    assert len(before) > 2
    line = fails("data", kind, out, "--out", tmp_path / through, *first)
    assert "puts its result; give the original" in line
    more = [str(m).replace("OUT", str(out)) for m in more]
    source = official if kind == "voc2012" else out
    assert "give the original" in fails("data", kind, source, "--out", tmp_path / through, *more)
    assert before == {p: p.read_bytes() for p in out.rglob("*") if p.is_file()}


@pytest.mark.parametrize("kind", ["diatoms", "tiny-imagenet", "voc2012", "ucr"])
def test_a_folder_that_another_run_fills(kind, pristine, fails, tmp_path, monkeypatch):
    monkeypatch.setattr(locking, "PATIENCE", 0)
    with locking.sole(tmp_path, "--out"):
        line = fails("data", kind, *([] if kind == "diatoms" else [pristine]), "--out", tmp_path)
    assert f"another run writes to {tmp_path}" in line and not list(tmp_path.iterdir())


def test_another_process_may_be_writing_the_same_file(tmp_path):
    theirs = tmp_path / "list.txt.part"
    theirs.write_text("half of")
    files.write(tmp_path / "list.txt", "whole")
    assert theirs.read_text() == "half of" and (tmp_path / "list.txt").read_text() == "whole"


def test_an_interrupt_that_tsai_swallows(tmp_path, monkeypatch):
    def get(name, **_):
        try:
            os.kill(os.getpid(), signal.SIGINT)
        except:  # noqa: E722 - as tsai has it
            pass
        return None, None, None, None

    external = types.ModuleType("tsai.data.external")
    external.get_UCR_data, external.get_UCR_univariate_list = get, lambda: ["Adiac"]
    for name in ("tsai", "tsai.data"):
        monkeypatch.setitem(sys.modules, name, types.ModuleType(name))
    monkeypatch.setitem(sys.modules, "tsai.data.external", external)
    handler = signal.getsignal(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt):
        ucr_download.fetch(["Adiac"], tmp_path / "out")
    assert signal.getsignal(signal.SIGINT) is handler and not (tmp_path / "out").exists()
