"""Gets UCR data sets through tsai.

Their owner publishes no checksums: the sizes and every value are checked instead.
"""

from __future__ import annotations

import contextlib
import io
import shutil
import signal
import threading
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path

from torch.hub import tqdm

from ..errors import UnknownName, UserError, require
from . import files
from .download import FOLDER, time_limited, unreachable

PAGE = "http://www.timeseriesclassification.com"


def fetch(names: Sequence[str] | None, out: Path) -> Path:
    """Returns the folder ``out/.download/UCR`` with the data sets as .tsv, downloaded unless they are there.

    Raises:
        UnknownName: If tsai knows no univariate data set of that name.
        UserError: If no names are given, or the network cannot be reached.
    """
    if not names:
        raise UserError("--download gets single data sets: choose them with --names, e.g. --names Adiac")
    folder = out / FOLDER / "UCR"
    missing = [name for name in names if not (folder / name / f"{name}_TEST.tsv").is_file()]
    if not missing:
        return folder
    require("tsai", extra="tsai")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # deprecations inside the hosts are nothing the user can mend
        from tsai.data.external import get_UCR_data, get_UCR_univariate_list

    for name in missing:
        if name not in get_UCR_univariate_list():
            raise UnknownName("UCR data set", name, get_UCR_univariate_list())
    raw = out / FOLDER / ".tsai"
    try:
        with tqdm(total=len(missing), desc="downloading", unit="set", leave=False, disable=None) as bar:
            for name in missing:
                # It prints its failures and returns None; the reason is lost.
                with _interruptible(), time_limited(), contextlib.redirect_stdout(io.StringIO()):
                    got = get_UCR_data(name, path=raw, parent_dir="", on_disk=False, Xdtype=None)
                if got[0] is None:
                    place = f"{name}_TRAIN.ts and {name}_TEST.ts in a folder and give it as SOURCE"
                    raise UserError(unreachable(f"{PAGE}, {name}", "tsai got no data", place))
                _write(folder / name, name, *got)
                bar.update(1)
    finally:
        shutil.rmtree(raw, ignore_errors=True)
        for empty in (folder, out / FOLDER, out):
            if empty.is_dir() and not any(empty.iterdir()):
                empty.rmdir()
    return folder


@contextlib.contextmanager
def _interruptible() -> Iterator[None]:
    """Raises at its end the interrupt that tsai took for a failed download."""
    before = signal.getsignal(signal.SIGINT)
    if before is not signal.default_int_handler or threading.current_thread() is not threading.main_thread():
        yield
        return
    came = False

    def note(number, frame) -> None:
        nonlocal came
        came = True
        raise KeyboardInterrupt

    signal.signal(signal.SIGINT, note)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
    if came:
        raise KeyboardInterrupt


def _write(folder: Path, name: str, x_train, y_train, x_test, y_test) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for split, x, y in (("TRAIN", x_train, y_train), ("TEST", x_test, y_test)):
        if x.shape[1] != 1:
            raise UserError(f"{name} is multivariate; only univariate data are read")
        lines = ["\t".join([str(label), *map(repr, row.tolist())]) for row, label in zip(x[:, 0], y, strict=True)]
        files.write(folder / f"{name}_{split}.tsv", "".join(f"{line}\n" for line in lines))
