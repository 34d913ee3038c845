"""Recipes of the study: `compose` writes one config file that ``mim train mmsegmentation FILE`` trains."""

from __future__ import annotations

import contextlib
import inspect
import io
import math
import threading
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import mmseg_configs
from dynconv_plugins import registry
from dynconv_plugins.errors import UnknownName, UserError

from . import modern, study

__all__ = ["batch", "compose", "names", "quietly"]

_RECIPES = {"study": study, "modern": modern}
_HEADS = ("fpn", "deeplabv3plus")
_STATIC = "static"
_LISTS = "ImageSets/Segmentation"
# What a run needs of the config that is built upon; its helper variables stay behind.
_KEPT = ("custom_imports", "default_scope", "env_cfg", "visualizer", "log_level", "load_from", "resume", "model")
_KEPT += ("val_cfg", "test_cfg", "val_evaluator", "test_evaluator", "default_hooks", "tta_model")


def names() -> list[str]:
    """The recipes there are."""
    return list(_RECIPES)


def batch(recipe: str) -> int:
    """Images a step that a recipe is made for."""
    if recipe not in _RECIPES:
        raise UnknownName("recipe", recipe, _RECIPES)
    return _RECIPES[recipe].BATCH


def compose(
    out: Path,
    *,
    head: str,
    operator: str,
    arguments: Mapping[str, Any] | None = None,
    where: str | None = None,
    recipe: str = "study",
    data_root: Path,
    pixels: int = 128,
    epochs: float | None = None,
    batch_size: int | None = None,
    train_list: str = f"{_LISTS}/train.txt",
    valid_list: str,
    test_list: str = f"{_LISTS}/val.txt",
    backbone_checkpoint: str | Path | None = None,
    seed: int = 0,
    workers: int = 0,
    processes: int = 1,
) -> Path:
    """Writes a config that stands alone: network, data, recipe.

    The schedule, early stopping and the checkpoint that is kept (``best_mIoU_epoch_N.pth``) look at `valid_list` alone;
    `test_list` is read by ``mim test`` only. A training that as many processes resume goes on exactly (``workers=0``).

    Args:
        out: The file, ``.py``.
        head: ``'fpn'`` or ``'deeplabv3plus'``, on ResNet-18.
        operator: A name of the registry, or ``'static'``.
        arguments: The operator's, e.g. ``{'num_kernels': 8}``.
        where: Its placement, see `dynconv_plugins.placement`; ``None``: the operator's own.
        recipe: One of `names`.
        data_root: ``VOC2012`` or the folder that holds ``VOCdevkit/VOC2012``.
        pixels: Side of the training crops; images are tested with their shorter side at this size.
        epochs: Passes over `train_list`, a whole number; ``None``: the recipe's.
        batch_size: Of each process; ``None``: the recipe's.
        train_list: Names of images, one a line; relative to the data, or absolute.
        valid_list: The same for validation: a part of the training data that `train_list` leaves out.
        test_list: The same for the test.
        backbone_checkpoint: Weights of a classifier to start from, e.g. trained by ``python -m timm_models train``.
        seed: Of initialisation, order and augmentation.
        workers: Processes that load data; 0: none.
        processes: How many train together; they share `train_list`.

    Returns:
        `out`, absolute.

    Raises:
        UserError: If anything is unknown, missing or out of range, or lists overlap; nothing is written then.
    """
    for kind, name, known in (("head", head, _HEADS), ("recipe", recipe, _RECIPES)):
        if name not in known:
            raise UnknownName(kind, name, known)
    chosen = _RECIPES[recipe]
    epochs = _whole("epochs", chosen.EPOCHS if epochs is None else epochs)
    batch_size = _whole("batch_size", chosen.BATCH if batch_size is None else batch_size)
    pixels, workers = _whole("pixels", pixels, least=32), _whole("workers", workers, least=0)
    seed, processes = _whole("seed", seed, least=0), _whole("processes", processes)
    if Path(out).suffix != ".py":
        raise UserError(f"{out}: a config's name ends in .py")
    root = _voc(Path(data_root))
    lists = {"train_list": train_list, "valid_list": valid_list, "test_list": test_list}
    samples = {name: _names(name, root / path) for name, path in lists.items()}
    _apart(samples)
    backbone, hooks = _backbone(operator, dict(arguments or {}), where, backbone_checkpoint, head, epochs)

    with quietly():
        from mmengine.config import Config

        base = Config.fromfile(mmseg_configs.path(f"{head}_resnet18_voc12-128x128")).to_dict()
    cfg = {key: base[key] for key in _KEPT}
    each = math.ceil(len(samples["train_list"]) / processes)  # mmengine's DefaultSampler fills up the last process
    # A last batch of one image would leave DeepLabV3+'s pooled branch with one value per channel to normalise.
    drop_last = each % batch_size == 1 and each > 1
    cfg.update(chosen.settings(epochs))
    cfg["model"]["backbone"].update(backbone)
    cfg["model"]["data_preprocessor"]["size"] = (pixels, pixels)
    for part in ("decode_head", "auxiliary_head"):
        if part in cfg["model"]:
            cfg["model"][part]["dropout_ratio"] = chosen.DROPOUT

    load, labels, pack = dict(type="LoadImageFromFile", imdecode_backend="pillow"), "LoadAnnotations", "PackSegInputs"
    shrink = dict(type="Resize", scale=(4 * pixels, pixels), keep_ratio=True)
    train = [load, dict(type=labels), *chosen.augmentation(pixels), dict(type=pack)]
    test = [load, shrink, dict(type=labels), dict(type=pack)]  # the truth keeps its own size
    sizes = [dict(shrink, scale=(int(4 * r * pixels), int(r * pixels))) for r in base["tta_ratios"]]
    cfg["test_pipeline"] = test  # read by mmseg.apis, and the next by `mim test ... --tta`
    cfg["tta_pipeline"] = [load, dict(type="TestTimeAug", transforms=[sizes, *base["tta_after_resize"]])]
    prefix = base["dataset_train"]["data_prefix"]
    shared = dict(num_workers=workers, persistent_workers=workers > 0)
    for loader, name, pipeline, size in (
        ("train", "train_list", train, batch_size),
        ("val", "valid_list", test, 1),
        ("test", "test_list", test, 1),
    ):
        source = dict(type="CheckedVOCDataset", data_root=str(root), data_prefix=prefix, ann_file=str(lists[name]))
        sampler = dict(type="DefaultSampler", shuffle=loader == "train")
        cfg[f"{loader}_dataloader"] = dict(
            batch_size=size, **shared, sampler=sampler, dataset=dict(source, pipeline=pipeline)
        )
    cfg["train_dataloader"]["drop_last"] = drop_last

    every = max(1, epochs // (chosen.VALIDATIONS or epochs))
    cfg["train_cfg"] = dict(type="EpochBasedTrainLoop", max_epochs=epochs, val_interval=every)
    saving = dict(type="ExactCheckpointHook", save_best="mIoU", rule="greater", max_keep_ckpts=2)
    if getattr(chosen, "SETTLES", False) and "temperature" in hooks:
        # The last iteration of an epoch, of `steps`, is that much before its end; a short training has one validation.
        steps = each // batch_size if drop_last else math.ceil(each / batch_size)
        cfg["train_cfg"]["val_begin"] = min(epochs, math.ceil(hooks["temperature"]["epochs"] + 1 / max(1, steps)))
        saving["interval"] = 1  # by default it would wait for a validation
    # one line an epoch, with the mean over it
    whole = dict(data_src="loss", method_name="mean", window_size="epoch")
    cfg["log_processor"] = dict(by_epoch=True, custom_cfg=[whole])
    cfg["randomness"] = dict(seed=seed)
    del cfg["default_hooks"]["interrupt"]  # for loops that count iterations
    cfg["default_hooks"] |= dict(
        logger=dict(type="LoggerHook", interval=10**9),
        checkpoint=saving,
        **hooks,
    )
    return _write(Path(out), cfg, f"{head} on ResNet-18, {operator}, recipe {recipe}: {chosen.__doc__.strip()}")


def _whole(name: str, value: float, least: int = 1) -> int:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or value != int(value) or value < least:
        raise UserError(f"{name} must be a whole number of at least {least}, not {value!r}")
    return int(value)


def _voc(folder: Path) -> Path:
    for root in (folder / "VOCdevkit" / "VOC2012", folder):
        if (root / "JPEGImages").is_dir():
            return root.resolve()
    raise UserError(f"no VOC 2012 in {folder}: JPEGImages/, SegmentationClass/ and ImageSets/ are expected there")


def _names(kind: str, path: Path) -> list[str]:
    try:
        found = path.read_text().split()
    except (OSError, UnicodeDecodeError):
        raise UserError(f"{kind} {path} is missing or unreadable") from None
    if not found:
        raise UserError(f"{kind} {path} is empty")
    return found


def _apart(samples: Mapping[str, list[str]]) -> None:
    kinds = list(samples)
    for i, one in enumerate(kinds):
        for other in kinds[i + 1 :]:
            both = sorted(set(samples[one]) & set(samples[other]))
            if both:
                raise UserError(f"{one} and {other} share {len(both)} images, first {both[0]}: they must be apart")


def _backbone(
    operator: str, arguments: dict[str, Any], where: str | None, checkpoint: str | Path | None, head: str, epochs: int
) -> tuple[dict[str, Any], dict[str, Any]]:
    """The backbone's entries and the hooks that it needs; it is built once, so that mistakes show before a run does."""
    if operator == _STATIC and (arguments or where):
        raise UserError("the static network takes neither arguments= nor where=")
    if operator != _STATIC:
        registry.get(operator)
    with quietly():
        from mmseg_configs.register import backbone as module

    import dynconv_plugins as dc

    own = set(inspect.signature(module.DynConvBackbone).parameters) | {"type", "where"}
    taken = sorted(own & set(arguments))
    if taken:
        raise UserError(f"{taken[0]} is no argument of {operator}")
    entries = {"model_name": "resnet18" if operator == _STATIC else f"resnet18_{operator}", **arguments}
    if where is not None:
        entries["where"] = where
    if checkpoint is not None:
        entries["checkpoint"] = str(Path(checkpoint).resolve())
    built = module.DynConvBackbone(**entries)
    built.load_checkpoint()
    hooks: dict[str, Any] = {}
    if any(hasattr(op.attention, "temperature") for op in dc.operators_in(built).values()):
        # 30 -> 1 over the first tenth of the schedule, as the paper's 10 of 100 epochs
        hooks["temperature"] = dict(type="TemperatureHook", epochs=epochs / 10)
    if dc.budget(built):
        hooks["budget"] = dict(type="BudgetHook")
    return entries, hooks


_ALONE = threading.RLock()


@contextlib.contextmanager
def quietly():
    """Holds back what mmcv and mmseg remark on optional parts that are missing: it is of no use to a reader.

    Standard output belongs to the whole process: threads come in one after the other.
    """
    with _ALONE, warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore")
        yield


def _write(out: Path, cfg: dict[str, Any], about: str) -> Path:
    from mmengine.config import Config

    from dynconv_plugins.writing import write_text

    comment = "".join(f"# {line}".rstrip() + "\n" for line in about.splitlines())
    out.parent.mkdir(parents=True, exist_ok=True)
    write_text(out, comment + Config(cfg).pretty_text)
    return out.resolve()
