"""What every ``prepare`` shares: is it done already, staging, publishing, and the record that says so."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from ..errors import UserError
from ..locking import sole
from . import archives, files

RECORD = "dataset.json"
FORMAT = 1


@contextmanager
def held(out: Path) -> Iterator[None]:
    """Holds `out`, which is made if it is not there, so that one preparation at a time writes to it.

    Raises:
        UserError: If it is a file, or another run holds it.
    """
    if out.exists() and not out.is_dir():
        raise UserError(f"--out {out} is a file; choose another name")
    out.mkdir(parents=True, exist_ok=True)
    with sole(out, "--out"):
        yield


class Preparation:
    """One data set on its way into a folder.

    Everything is made in a hidden staging folder and moved into place when it is complete; ``dataset.json`` is
    written last. A killed run therefore never looks finished, and the next one goes on from the staging folder.

    Args:
        kind: Key of the data set in ``dataset.json``, which may hold several.
        out: The folder to fill.
        products: Paths below `out` that this data set owns.
        sources: Files and folders that it is made from.
        options: What else decides the result; JSON types.

    Raises:
        UserError: If `out` lies in a source, a source in a product, or foreign files where the products go.
    """

    def __init__(
        self, kind: str, out: Path, products: Iterable[str], sources: Iterable[Path] = (), options: dict | None = None
    ) -> None:
        self.kind = kind
        self.out = Path(out).expanduser().absolute()
        self.products = list(products)
        self.options = options or {}
        self.sources = [Path(s).absolute() for s in sources]
        for source in self.sources:
            self._apart(source)
        rows = [files.listing(s) for s in self.sources]
        told = json.dumps([FORMAT, kind, self.options, [str(s) for s in self.sources], rows], sort_keys=True)
        self.fingerprint = hashlib.sha256(told.encode()).hexdigest()
        self.stage = self.out / f".{kind.replace('/', '-')}.part"

    def _apart(self, source: Path) -> None:
        out = self.out.resolve()
        # A link in a product goes when the product does; what a link elsewhere leads to, as well.
        for place in (source.parent.resolve() / source.name, source.resolve()):
            if source.is_dir() and (place == out or place in out.parents):
                raise UserError(f"--out {self.out} lies inside the source {source}; choose another folder")
            for product in (out / p for p in self.products):
                if place == product or product in place.parents or place in product.parents:
                    where = f"{source} lies where --out {self.out} puts its result"
                    raise UserError(f"{where}; give the original, or another --out")

    def finished(self) -> dict | None:
        """Returns the record of an earlier run of the same sources and options if its result is still there."""
        record = self._records().get(self.kind)
        if not record or record["fingerprint"] != self.fingerprint:
            return None
        return record if all((self.out / p).exists() for p in record["probe"]) else None

    def begin(self) -> None:
        """Claims the products. An older result of this kind stays valid until ``publish``."""
        foreign = [p for p in self.products if os.path.lexists(self.out / p)]
        if foreign and self.kind not in self._records() and not self.stage.exists():
            raise UserError(f"{self.out / foreign[0]} exists and was not made by this command; choose another --out")
        self.stage.mkdir(parents=True, exist_ok=True)

    def fresh(self, product: str) -> Path:
        """Returns an empty folder in the staging area to build `product` in."""
        folder = self.stage / product
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        return folder

    def link(self, target: Path, relative: str) -> None:
        """Links ``relative`` (a path below `out`, in a product being built) to `target`."""
        files.link(target, self.stage / relative, self.out / relative, self.out)

    def publish(self, probe: Iterable[str], **record) -> dict:
        """Moves the products into place and writes the record.

        Args:
            probe: Paths below `out` that must exist for the result to count as still there.
            **record: What else ``dataset.json`` tells: counts, classes, notes.
        """
        records = self._records()
        if records.pop(self.kind, None):
            files.write(self.out / RECORD, json.dumps(records, indent=1))
        for product in self.products:
            final = self.out / product
            if os.path.lexists(final):
                outgoing = self.stage / "outgoing"
                shutil.rmtree(outgoing, ignore_errors=True)
                os.replace(final, outgoing)
            final.parent.mkdir(parents=True, exist_ok=True)
            os.replace(self.stage / product, final)
        record = {"fingerprint": self.fingerprint, "options": self.options, "probe": list(probe), **record}
        record["unpacked"] = archives.used(self.out, [*self.sources, *(self.out / p for p in record["probe"])])
        files.write(self.out / RECORD, json.dumps({**records, self.kind: record}, indent=1))
        shutil.rmtree(self.stage)
        archives.tidy(self.out, self.kind, [n for r in (*records.values(), record) for n in r.get("unpacked", ())])
        return record

    def _records(self) -> dict:
        try:
            records = json.loads((self.out / RECORD).read_text())
            if isinstance(records, dict) and all(isinstance(record, dict) for record in records.values()):
                return records
            raise ValueError("not a record of each data set")
        except FileNotFoundError:
            return {}
        except (ValueError, UnicodeDecodeError):
            raise UserError(f"{self.out / RECORD} is damaged; delete it and run the command again") from None


def report(record: dict, summary: str, notes: list[str], strict: bool, log: Callable[[str], None], done: bool) -> None:
    """Tells the result; `strict` makes deviations from the official data an error.

    Raises:
        UserError: If there are notes and `strict` is set.
    """
    if strict and notes:
        raise UserError(f"{notes[0]} (--strict)")
    log(("already prepared: " if done else "prepared: ") + summary)
    for note in notes:
        log(f"note: {note}")
