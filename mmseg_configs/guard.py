"""Loading a checkpoint succeeds, or says why not: mmengine's own loading only warns when keys do not match.

Saving one is fast: mmengine writes the config into it, for which its formatter takes seconds where paths are long.
"""

from __future__ import annotations

import pickle
import zipfile
from pathlib import Path

from mmengine.hooks import Hook
from mmengine.model import BaseTTAModel
from mmengine.registry import HOOKS
from mmengine.runner import CheckpointLoader, Runner

from dynconv_plugins.errors import UserError

from .hooks import bare
from .weights import trouble

_ZIP = b"PK\x03\x04"


@HOOKS.register_module(force=True)
class CheckpointGuard(Hook):
    """Refuses damaged and foreign checkpoints, and resumes from the newest that is whole.

    Args:
        strict: Every key of the model must be in the checkpoint, with the same shape. With ``False`` (fine-tuning with
            other classes) it is enough that something matches.

    Raises:
        UserError: If the checkpoint to load is missing, damaged, or of another architecture.
    """

    def __init__(self, strict: bool = True) -> None:
        self.strict = strict

    def before_run(self, runner: Runner) -> None:
        """Looks at the file before mmengine opens it, and leaves the configs in checkpoints unformatted."""
        if "_format_python_code" in vars(runner.cfg):
            # a plain assignment to a `Config` would be one to its content
            vars(runner.cfg)["_format_python_code"] = False
        load_from = runner.cfg.get("load_from")
        if load_from and "://" not in str(load_from):
            if not Path(load_from).is_file():
                raise UserError(f"checkpoint {load_from} does not exist")
            if why := damage(Path(load_from)):
                raise UserError(f"checkpoint {load_from} {why}")
        elif runner.cfg.get("resume"):
            self._choose(runner, Path(runner.work_dir))

    def after_load_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        """Compares the keys before they are loaded."""
        model = bare(runner)
        if isinstance(model, BaseTTAModel):  # around the network, but none of mmengine's wrappers
            model = model.module
        weights = checkpoint.get("state_dict", checkpoint)
        weights = {key.removeprefix("module."): value for key, value in weights.items()}
        own = model.state_dict()
        why = trouble(own, weights)
        if not self.strict:
            if any(key in weights and weights[key].shape == value.shape for key, value in own.items()):
                return
            why = "no key matches"
        if why:
            raise UserError(
                f"the checkpoint is of another architecture than the config: {why}"
                + ("; default_hooks.guard.strict=False loads what matches" if self.strict else "")
            )

    def _choose(self, runner: Runner, work_dir: Path) -> None:
        """Points mmengine's ``last_checkpoint`` to the newest whole checkpoint."""
        note = work_dir / "last_checkpoint"
        if not note.is_file():
            return
        noted = Path(note.read_text().strip())
        last = work_dir / noted.name  # the folder may have been moved since
        found = sorted(
            (p for kind in ("iter", "epoch") for p in work_dir.glob(f"{kind}_*.pth")), key=_step, reverse=True
        )
        candidates = [last, *(path for path in found if path.name != last.name)]
        whole = next((path for path in candidates if not damage(path)), None)
        if whole is None:
            raise UserError(f"cannot resume: every checkpoint in {work_dir} is damaged; start again in another folder")
        if whole != last:
            runner.logger.warning(f"{last} is missing or damaged: resuming from the previous good one, {whole}")
        if whole != noted:
            note.write_text(str(whole))


def damage(path: Path) -> str:
    """Returns why a checkpoint is not to be loaded, in part of a line; empty if it is whole.

    torch's files are zip archives with checksums. Those of its older format have none: what counts is whether mmengine,
    which opens the file next, can read them.
    """
    try:
        with path.open("rb") as file:
            zipped = file.read(len(_ZIP)) == _ZIP
        if zipped:
            with zipfile.ZipFile(path) as archive:
                return "is damaged (cut off or altered)" if archive.testzip() else ""
        CheckpointLoader.load_checkpoint(str(path), map_location="cpu", logger="silent")
    except (OSError, EOFError, zipfile.BadZipFile, pickle.UnpicklingError):
        return "is damaged (cut off or altered)"
    except Exception as e:  # a pickle raises whatever it leads to
        return f"cannot be read: {(str(e).strip().splitlines() or [type(e).__name__])[0]}"
    return ""


def _step(path: Path) -> int:
    digits = path.stem.rpartition("_")[2]
    return int(digits) if digits.isdigit() else -1
