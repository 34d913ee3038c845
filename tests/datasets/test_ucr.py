"""UCR: both formats, tsai's arrays, and every kind of file that must be refused by name and line."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from dynconv_plugins.datasets import find, ucr
from dynconv_plugins.errors import UnknownName, UserError

np = pytest.importorskip("numpy")

TS = """# a comment
@problemName Waves
@timeStamps false
@missing false
@univariate true
@equalLength true
@seriesLength 4
@classLabel true up down

@data
1.0,2.0,3.25,4e-1:up
-1,-2,-3,-4:down
"""
TSV = "up\t1.0\t2.0\t3.25\t4e-1\ndown\t-1\t-2\t-3\t-4\n"


def waves(folder: Path, train: str = TS, test: str = TS, suffix: str = ".ts") -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"Waves_TRAIN{suffix}").write_text(train)
    (folder / f"Waves_TEST{suffix}").write_text(test)
    return folder


def test_both_formats_give_the_same_arrays(tmp_path):
    for suffix, text in ((".ts", TS), (".tsv", TSV)):
        x, y, splits = ucr.load(waves(tmp_path / suffix[1:], text, text, suffix), "Waves")
        assert x.dtype == np.float32 and x.shape == (4, 1, 4)
        assert x[:2, 0].tolist() == [[1.0, 2.0, 3.25, np.float32(0.4)], [-1, -2, -3, -4]]
        assert y.tolist() == ["up", "down"] * 2 and splits == ([0, 1], [2, 3])


def test_tsai_takes_what_load_returns(pristine):
    tsai = pytest.importorskip("tsai.data.core")
    x, y, splits = ucr.load(pristine, "Diatoms")
    dls = tsai.get_ts_dls(x, y, splits=splits, tfms=[None, tsai.TSClassification()], bs=4, num_workers=0)
    assert (dls.vars, dls.c, dls.len) == (1, 3, 176) and len(dls.valid_ds) == 6


@pytest.mark.parametrize("label, read", [("1", "1"), ("1.0000000e+00", "1"), ("-1", "-1"), (" a b ", "a b")])
def test_labels(label, read, tmp_path):
    text = f"{label}\t1\t2\n"
    assert set(ucr.load(waves(tmp_path, text, text, ".tsv"), "Waves")[1]) == {read}


@pytest.mark.parametrize("root", [".", "UCR", "UCR/Diatoms"])
def test_load_finds_the_data_set_from_any_level(root, pristine):
    assert ucr.load(pristine / root, "Diatoms")[0].shape == (18, 1, 176)


@pytest.mark.parametrize("form", ["folder", "one", "zip"])
def test_prepare_links_tsv(form, official, tmp_path):
    source = {"folder": official, "one": official / "UCR" / "Diatoms", "zip": tmp_path / "UCR.zip"}[form]
    if form == "zip":
        shutil.make_archive(str(tmp_path / "UCR"), "zip", official, "UCR")
    lines: list[str] = []
    root = ucr.prepare(source, tmp_path / "out", log=lines.append)
    assert (root / "Diatoms" / "Diatoms_TRAIN.tsv").is_symlink()
    made, there = ucr.load(root, "Diatoms"), ucr.load(official, "Diatoms")
    assert (made[0] == there[0]).all() and (made[1] == there[1]).all()
    before = {p: p.lstat().st_mtime_ns for p in (tmp_path / "out").rglob("*")}
    ucr.prepare(source, tmp_path / "out", log=lines.append)
    assert before == {p: p.lstat().st_mtime_ns for p in (tmp_path / "out").rglob("*")}
    assert [line.partition(":")[0] for line in lines] == ["prepared", "already prepared"]


def test_prepare_converts_ts(tmp_path):
    root = ucr.prepare(waves(tmp_path / "in"), tmp_path / "out")
    assert (root / "Waves" / "Waves_TRAIN.tsv").read_text() == TSV
    assert sorted(p.name for p in (root / "Waves").iterdir()) == ["Waves_TEST.tsv", "Waves_TRAIN.tsv"]


def test_names_choose_and_add_up(official, tmp_path):
    waves(official / "UCR" / "Waves")
    ucr.prepare(official, tmp_path / "out", names=["Waves"])
    root = ucr.prepare(official, tmp_path / "out", names=["Diatoms"])
    assert sorted(p.name for p in root.iterdir()) == ["Diatoms", "Waves"]
    with pytest.raises(UnknownName, match="did you mean Diatoms"):
        ucr.prepare(official, tmp_path / "out", names=["Diatom"])
    with pytest.raises(UnknownName, match="did you mean Waves"):
        ucr.load(root, "Wavs")


def test_archives_replace_each_other_and_add_up(tmp_path):
    def packed(name: str, value: int) -> Path:
        for kind in ("Waves", "Tides"):
            folder = tmp_path / name / kind
            folder.mkdir(parents=True)
            for part in ("TRAIN", "TEST"):
                (folder / f"{kind}_{part}.tsv").write_text(f"a\t{value}\t2\n")
        return Path(shutil.make_archive(str(tmp_path / name), "zip", tmp_path / name))

    def values() -> list[float]:
        return [ucr.load(out, name)[0][0, 0, 0] for name in ("Waves", "Tides")]

    one, two, out = packed("one", 1), packed("two", 9), tmp_path / "out"
    ucr.prepare(one, out)
    ucr.prepare(two, out, names=["Tides"])
    assert values() == [1, 9] and len(list((out / ".source").iterdir())) == 2
    ucr.prepare(two, out)
    assert values() == [9, 9] and len(list((out / ".source").iterdir())) == 1


def test_adjusted_copies_count(tmp_path):
    waves(tmp_path / "in" / "Waves", "a\t1\tNaN\n", "a\t1\tNaN\n", ".tsv")
    waves(tmp_path / "in" / "Missing_value_and_variable_length_datasets_adjusted" / "Waves", TSV, TSV, ".tsv")
    assert ucr.load(ucr.prepare(tmp_path / "in", tmp_path / "out"), "Waves")[0].shape == (4, 1, 4)


DAMAGE = {
    "ragged tsv": (".tsv", "a\t1\t2\t3\na\t1\t2\n", r"Waves_TRAIN.tsv:2: 2 values, but line 1 has 3"),
    "NaN tsv": (".tsv", "a\t1\t2\n\na\tNaN\t2\n", r"Waves_TRAIN.tsv:3: value 1 is missing \(NaN\)"),
    "hole tsv": (".tsv", "a\t1\t\t3\n", r"Waves_TRAIN.tsv:1: value 2 is missing"),
    "infinite": (".tsv", "a\t1\tinf\n", r"Waves_TRAIN.tsv:1: value 2 is infinite"),
    "text": (".tsv", "a\t1\tx7\n", r"Waves_TRAIN.tsv:1: value 2 is not a number: 'x7'"),
    "commas": (".tsv", "1,2,3\n", r"Waves_TRAIN.tsv:1: expected tab-separated"),
    "no label": (".tsv", "\t1\t2\n", r"Waves_TRAIN.tsv:1: the label is missing"),
    "NaN label": (".tsv", "NaN\t1\t2\n", r"Waves_TRAIN.tsv:1: the label is NaN"),
    "empty": (".tsv", "\n", r"Waves_TRAIN.tsv holds no series"),
    "ragged ts": (".ts", TS + "1,2,3:up\n", r"Waves_TRAIN.ts:13: 3 values, but line 11 has 4"),
    "missing ts": (".ts", TS + "1,?,3,4:up\n", r"Waves_TRAIN.ts:13: value 2 is missing"),
    "multivariate row": (".ts", TS + "1,2,3,4:1,2,3,4:up\n", r"Waves_TRAIN.ts:13: several dimensions"),
    "row without label": (".ts", TS + "1,2,3,4\n", r"Waves_TRAIN.ts:13: no label"),
    "unknown class": (".ts", TS + "1,2,3,4:left\n", r"Waves_TRAIN.ts:13: label 'left' is not in @classLabel"),
    "multivariate": (".ts", TS.replace("@univariate true", "@univariate false"), r"Waves_TRAIN.ts is multivariate"),
    "time stamps": (".ts", TS.replace("@timeStamps false", "@timeStamps true"), r"Waves_TRAIN.ts has time stamps"),
    "lengths": (".ts", TS.replace("@equalLength true", "@equalLength false"), r"series of different lengths"),
    "regression": (".ts", TS.replace("@classLabel true up down", "@targetlabel true"), r"has no class labels"),
    "no data": (".ts", TS.partition("@data")[0], r"Waves_TRAIN.ts has no @data"),
    "no header": (".ts", "1,2:up\n", r"Waves_TRAIN.ts:1: expected a header line"),
}


@pytest.mark.parametrize("case", DAMAGE)
def test_damage_is_one_line_and_leaves_no_result(case, tmp_path):
    suffix, text, line = DAMAGE[case]
    source = waves(tmp_path / "in", text, TS if suffix == ".ts" else TSV, suffix)
    with pytest.raises(UserError, match=line) as raised:
        ucr.prepare(source, tmp_path / "out")
    assert "\n" not in str(raised.value)
    assert not (tmp_path / "out" / "dataset.json").exists() and not (tmp_path / "out" / "UCR").exists()
    with pytest.raises(UserError, match=line):
        ucr.load(source, "Waves")


def test_train_and_test_that_disagree(tmp_path):
    with pytest.raises(UserError, match=r"Waves_TEST.tsv:1: label 'left' does not occur"):
        ucr.load(waves(tmp_path / "a", TSV, "left\t1\t2\t3\t4\n", ".tsv"), "Waves")
    with pytest.raises(UserError, match=r"Waves_TEST.tsv has length 2"):
        ucr.load(waves(tmp_path / "b", TSV, "up\t1\t2\n", ".tsv"), "Waves")
    (tmp_path / "b" / "Waves_TEST.tsv").unlink()
    with pytest.raises(UserError, match=r"Waves_TRAIN.tsv has no Waves_TEST.tsv"):
        ucr.load(tmp_path / "b", "Waves")


def test_binary_file(tmp_path):
    source = waves(tmp_path)
    (source / "Waves_TRAIN.ts").write_bytes(b"\xff\xfe\x00\x81")
    with pytest.raises(UserError, match="is not a text file"):
        ucr.load(source, "Waves")


def test_real_data_has_the_official_sizes(tmp_path):
    root = find().get("ucr")
    if root is None:
        pytest.skip("no UCR data under DYNCONV_DATA")
    there = [name for name in ucr.scan(root) if name in ucr.OFFICIAL]
    ucr.prepare(root, tmp_path, names=there, strict=True)
    for name in there:
        x, y, (train, test) = ucr.load(tmp_path, name)
        assert (len(train), len(test), x.shape[-1], len(set(y))) == ucr.OFFICIAL[name]
