"""Reads the two text formats of the UCR archive: ``.tsv`` (label first) and ``.ts`` (sktime's, label last)."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from ..errors import UserError


class Row(NamedTuple):
    """One series: the line it stands on, its label, and its values as written."""

    line: int
    label: str
    values: list[str]


def read(path: Path) -> list[Row]:
    """Reads a file and checks it.

    Returns:
        Its series, all of one length, with finite values.

    Raises:
        UserError: Naming file and line, for rows of another length, missing or non-numeric values, a multivariate
            or regression file, or one without series.
    """
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except UnicodeDecodeError:
        raise UserError(f"{path} is not a text file; expected .tsv or .ts") from None
    rows = list(_ts_rows(path, lines) if path.suffix == ".ts" else _tsv_rows(path, lines))
    if not rows:
        raise UserError(f"{path} holds no series")
    expected = len(rows[0].values)
    for row in rows:
        if len(row.values) != expected:
            raise UserError(
                f"{path}:{row.line}: {len(row.values)} values, but line {rows[0].line} has {expected}; "
                "series must have one length: pad or cut them"
            )
        for position, text in enumerate(row.values, 1):
            _check_value(path, row.line, position, text)
    return rows


def _check_value(path: Path, line: int, position: int, text: str) -> None:
    try:
        value = float("nan" if text.strip() in ("", "?") else text)
    except ValueError:
        raise UserError(f"{path}:{line}: value {position} is not a number: '{text.strip()[:40]}'") from None
    if not math.isfinite(value):
        what = "missing (NaN)" if math.isnan(value) else "infinite"
        raise UserError(f"{path}:{line}: value {position} is {what}; fill it or remove the series")


def _label(path: Path, line: int, text: str) -> str:
    text = text.strip()
    try:
        number = float(text)
    except ValueError:
        if text:
            return text
        raise UserError(f"{path}:{line}: the label is missing") from None
    if math.isnan(number):
        raise UserError(f"{path}:{line}: the label is NaN")
    # Older copies of the archive write class 1 as 1.0000000e+00.
    return str(int(number)) if number.is_integer() else text


def _tsv_rows(path: Path, lines: list[str]) -> Iterator[Row]:
    for number, line in enumerate(lines, 1):
        if line.strip():
            label, *values = line.split("\t")
            if not values:
                raise UserError(f"{path}:{number}: expected tab-separated values, the label first")
            yield Row(number, _label(path, number, label), values)


def _ts_rows(path: Path, lines: list[str]) -> Iterator[Row]:
    header: dict[str, list[str]] = {}
    in_data = False
    for number, line in enumerate(lines, 1):
        line = line.strip()
        if not line or line.startswith("#"):
            continue
        if not in_data:
            if not line.startswith("@"):
                raise UserError(f"{path}:{number}: expected a header line such as '@problemName', or '@data'")
            key, *values = line[1:].split()
            header[key.lower()] = values
            in_data = key.lower() == "data"
            if in_data:
                _check_header(path, header)
            continue
        fields = line.split(":")
        if len(fields) != 2:
            what = "no label" if len(fields) == 1 else "several dimensions or time stamps"
            raise UserError(f"{path}:{number}: {what}; expected 'value,value,...:label', one dimension")
        known = header["classlabel"][1:]
        if known and fields[1].strip() not in known:
            raise UserError(f"{path}:{number}: label '{fields[1].strip()}' is not in @classLabel ({' '.join(known)})")
        yield Row(number, _label(path, number, fields[1]), fields[0].split(","))
    if not in_data:
        raise UserError(f"{path} has no @data line; expected sktime's .ts format")


def _check_header(path: Path, header: dict[str, list[str]]) -> None:
    def is_set(key: str, default: str) -> bool:
        return (header.get(key) or [default])[0].lower() == "true"

    if not is_set("univariate", "true") or (header.get("dimensions") or header.get("dimension") or ["1"])[0] != "1":
        raise UserError(f"{path} is multivariate (@univariate false); only univariate data are read")
    if is_set("timestamps", "false"):
        raise UserError(f"{path} has time stamps (@timeStamps true); only evenly spaced values are read")
    if not is_set("equallength", "true"):
        raise UserError(f"{path} has series of different lengths (@equalLength false); pad or cut them")
    if not is_set("classlabel", "false"):
        raise UserError(f"{path} has no class labels (@classLabel); only classification data are read")
