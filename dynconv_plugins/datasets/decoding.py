"""Decodes every file, in threads: Pillow releases the interpreter lock while it decodes."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path

from torch.hub import tqdm

from ..errors import UserError
from .preparation import Preparation

CHUNK = 128


def image_problem(path: Path) -> str | None:
    """Says what is wrong with an image file, or returns None if it decodes to the last row."""
    from PIL import Image

    try:
        with Image.open(path) as image:
            image.load()
    except Image.UnidentifiedImageError:
        return "not an image" if path.stat().st_size else "empty"
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as e:
        return str(e)
    return None


def verify(
    work: Preparation,
    items: Sequence[str],
    problem: Callable[[str], str | None],
    *,
    what: str,
    advice: str,
    jobs: int | None = None,
) -> None:
    """Checks every item and keeps a journal of those that passed, so that a killed run does not check them again.

    Args:
        work: Whose staging folder holds the journal. Its fingerprint decides whether the journal still counts.
        items: Names, in the order in which problems are told.
        problem: Returns what is wrong with an item, or None. Called in threads.
        what: What the items are and cannot be, for the error, e.g. ``'images cannot be decoded'``.
        advice: What to do about it.
        jobs: Threads; default: one a processor, at most 16.

    Raises:
        UserError: If some item has a problem. The first is named.
    """
    journal = work.stage / f"verified-{what.partition(' ')[0]}.txt"
    passed = _read(journal, work.fingerprint)
    left = [item for item in items if item not in passed]
    found: dict[str, str] = {}
    pool = ThreadPoolExecutor(jobs or min(16, os.cpu_count() or 1))
    fresh = not passed
    try:
        with open(journal, "w" if fresh else "a") as log:
            if fresh:
                log.write(work.fingerprint + "\n")
            bar = tqdm(total=len(items), desc="decoding", unit="file", leave=False, disable=None)
            with bar:
                bar.update(len(items) - len(left))
                chunks = [left[i : i + CHUNK] for i in range(0, len(left), CHUNK)]
                for done in as_completed([pool.submit(lambda c=c: [(i, problem(i)) for i in c]) for c in chunks]):
                    results = done.result()
                    found |= {item: wrong for item, wrong in results if wrong}
                    log.writelines(item + "\n" for item, wrong in results if not wrong)
                    log.flush()
                    bar.update(len(results))
    finally:
        pool.shutdown(cancel_futures=True)
    if found:
        first = next(item for item in items if item in found)
        raise UserError(f"{len(found)} {what}, first: {first} ({found[first]}); {advice}")


def _read(journal: Path, fingerprint: str) -> set[str]:
    try:
        first, *names = journal.read_text().splitlines(keepends=True)
    except (FileNotFoundError, ValueError):
        return set()
    # A line that was cut off when the process died has no line end.
    return {n[:-1] for n in names if n.endswith("\n")} if first.strip() == fingerprint else set()
