"""Image folders: found, checked and turned into timm's loaders."""

from __future__ import annotations

import argparse
import signal
from functools import partial
from pathlib import Path
from typing import Any

import torch
from timm.data import create_dataset, create_loader
from timm.data.loader import fast_collate
from timm.data.transforms import MaybePILToTensor, MaybeToTensor
from torch.utils.data import DataLoader, Dataset, IterableDataset, default_collate

from dynconv_plugins.errors import UserError

from ..inputs import image_mode
from .replay import EpochSampler, PlainCollate, SeededErasing, SeededImages, SeededMixup, StrictImages
from .seeds import Purpose, derive
from .world import World

_UNORGANISED = (
    "{0} is laid out as in the official Tiny ImageNet archive; make folders of classes with: "
    "dynconv data tiny-imagenet {1} --out DIR"
)

# timm's parameter: our (and its script's) flag
_AUGMENTATION = {
    **{name: name for name in ("no_aug", "train_crop_mode", "scale", "ratio", "hflip", "vflip", "color_jitter")},
    **{name: name for name in ("color_jitter_prob", "grayscale_prob", "gaussian_blur_prob")},
    "re_prob": "reprob",
    "re_mode": "remode",
    "re_count": "recount",
    "auto_augment": "aa",
}
_MIXUP = {
    "mixup_alpha": "mixup",
    "cutmix_alpha": "cutmix",
    "cutmix_minmax": "cutmix_minmax",
    "mode": "mixup_mode",
    "prob": "mixup_prob",
    "switch_prob": "mixup_switch_prob",
    "label_smoothing": "smoothing",
}


def open_datasets(args: argparse.Namespace, channels: int) -> tuple[Dataset, Dataset | None]:
    """Opens the training and the validation split and checks that they are labelled alike.

    Returns:
        Data sets of timm; the second is None with ``--val-split ''``.

    Raises:
        UserError: If a folder is missing, empty, unorganised, or has classes that the other lacks.
    """
    root = Path(args.data_dir)
    if not args.dataset and not root.exists():
        raise UserError(f"no data folder {root}")
    if args.dataset.split("/")[0].lower() in ("tfds", "wds", "hfids"):
        raise UserError(
            f"{args.dataset} is a stream, which cannot be resumed exactly: use timm's own train.py through "
            "python -m timm_models run"
        )
    train = _open(args, args.train_split, channels, args.class_map)
    if not args.val_split:
        return train, None
    val = _open(args, args.val_split, channels, args.class_map)
    folders = [getattr(getattr(d, "reader", None), "root", None) for d in (train, val)]
    for split, flag, at in zip(
        (args.train_split, args.val_split), ("--train-split", "--val-split"), folders, strict=True
    ):
        # timm then takes all images below the root, those of the other split among them.
        if at is not None and Path(at) == root:
            raise UserError(
                f"{root} has no folder of its own for the split '{split}': add one, or name it with {flag}"
                + (", or train without validation: --val-split ''" if flag == "--val-split" else "")
            )
    known, seen = class_names(train), class_names(val)
    if known and seen and known != seen and not args.class_map:
        unknown = sorted(set(seen) - set(known))
        if unknown:
            raise UserError(f"{folders[1]} has classes that {folders[0]} lacks: {', '.join(unknown[:5])}")
        # timm numbers each split's folders on its own: a class without validation images would shift the others.
        val = _open(args, args.val_split, channels, known)
    return train, val


def class_names(dataset: Dataset) -> dict[str, int]:
    """Returns ``{class: index}`` where the data set knows it, else ``{}``."""
    owner = getattr(dataset, "reader", dataset)
    return dict(getattr(owner, "class_to_idx", None) or {})


def _open(args: argparse.Namespace, split: str, channels: int, class_map: Any) -> Dataset:
    root = Path(args.data_dir)
    try:
        dataset = create_dataset(
            args.dataset,
            root=str(root),
            split=split,
            is_training=split == args.train_split,
            class_map=class_map,
            download=args.dataset_download,
            batch_size=args.batch_size,
            seed=args.seed,
            input_img_mode=image_mode(args.input_img_mode, channels),
        )
    except (RuntimeError, OSError, AssertionError, ValueError, TypeError, ImportError) as e:
        if str(e).startswith("Found 0 images"):
            raise UserError(f"no images for split '{split}' in {root}") from None
        raise UserError(f"cannot open split '{split}' of {args.dataset or root}: {' '.join(str(e).split())}") from None
    if isinstance(dataset, IterableDataset):
        raise UserError(f"{args.dataset} is a stream, which cannot be resumed exactly")
    if class_names(dataset).keys() == {"images"}:
        raise UserError(_UNORGANISED.format(dataset.reader.root, root))
    return dataset


def make_train_loader(
    dataset: Dataset, args: argparse.Namespace, config: dict, world: World, num_classes: int
) -> DataLoader:
    """Makes timm's training loader, with every random draw seeded by place (see `replay`)."""
    images = SeededImages(dataset, args.seed)
    prefetch = not args.no_prefetcher
    if mixes(args) and prefetch:
        collate = SeededMixup(args.seed, args.mixup_off_epoch, **mixup_options(args, num_classes))
    else:
        collate = PlainCollate(fast_collate if prefetch else default_collate)
    interpolation = config["interpolation"] if args.no_aug else args.train_interpolation or config["interpolation"]
    options = {name: getattr(args, flag) for name, flag in _AUGMENTATION.items()}
    try:
        loader = _make_loader(
            images,
            args,
            config,
            world,
            args.batch_size,
            True,
            collate_fn=collate,
            interpolation=interpolation,
            **options,
        )
        if not args.no_aug:
            _add_affine(images.transform.transforms, args, config)
    except (AssertionError, ValueError, KeyError) as e:
        raise UserError(f"augmentation flags: {' '.join(str(e).split()) or 'not a policy timm knows'}") from None
    # timm takes no sampler; the batch sampler's may be replaced as long as nothing has been drawn.
    loader.batch_sampler.sampler = EpochSampler(len(images), args.seed, world.rank, world.size)
    if not len(loader):
        raise UserError(
            f"the training split has {len(images)} images, less than one batch of {args.batch_size} on "
            f"{world.size} process(es): use a smaller --batch-size"
        )
    if getattr(loader, "random_erasing", None):
        loader.random_erasing = SeededErasing(loader.random_erasing, world.device, args.seed, world.rank)
    return loader


def make_eval_loader(dataset: Dataset, args: argparse.Namespace, config: dict, world: World) -> DataLoader:
    """Makes timm's validation loader."""
    batch = args.validation_batch_size or args.batch_size
    return _make_loader(
        StrictImages(dataset),
        args,
        config,
        world,
        batch,
        False,
        interpolation=config["interpolation"],
        crop_pct=config["crop_pct"],
        crop_mode=config["crop_mode"],
    )


def _make_loader(images: StrictImages, args, config: dict, world: World, batch_size: int, training: bool, **options):
    loader = create_loader(
        images,
        input_size=config["input_size"],
        batch_size=batch_size,
        is_training=training,
        mean=config["mean"],
        std=config["std"],
        num_workers=args.workers,
        # Our own sampler deals out the ranks in training; timm's does it in validation.
        distributed=world.distributed and not training,
        pin_memory=args.pin_mem,
        device=world.device,
        use_prefetcher=not args.no_prefetcher,
        worker_seeding=partial(_start_worker, args.seed),
        **options,
    )
    # A loader draws its workers' base seed from the global generator unless it has one of its own.
    inner = getattr(loader, "loader", loader)
    inner.generator = torch.Generator().manual_seed(derive(Purpose.LOADER, args.seed))
    return loader


def _start_worker(seed: int, info: Any) -> int:
    """Called in each worker: the parent alone answers Ctrl-C, so that a batch under way can be finished."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    return derive(Purpose.LOADER, seed, info.id + 1) % 2**63


def start_epoch(loader: DataLoader, epoch: int, batch: int, batch_size: int) -> None:
    """Makes the next pass over a training loader yield `epoch` from its `batch`-th batch on."""
    loader.batch_sampler.sampler.start(epoch, batch * batch_size)
    if isinstance(getattr(loader, "random_erasing", None), SeededErasing):
        loader.random_erasing.start(epoch, batch)


def mixes(args: argparse.Namespace) -> bool:
    return args.mixup > 0 or args.cutmix > 0 or args.cutmix_minmax is not None


def mixup_options(args: argparse.Namespace, num_classes: int) -> dict[str, Any]:
    return {name: getattr(args, flag) for name, flag in _MIXUP.items()} | {"num_classes": num_classes}


def _add_affine(steps: list, args: argparse.Namespace, config: dict) -> None:
    """Inserts rotation, zoom and brightness, which timm has in its random policies only, before the tensor step."""
    from torchvision.transforms import InterpolationMode, v2

    added: list[Any] = []
    if args.rotate or args.zoom:
        fill = [round(255 * m) for m in config["mean"]]
        span = (1 - args.zoom, 1 + args.zoom)
        added.append(v2.RandomAffine(args.rotate, scale=span, interpolation=InterpolationMode.BILINEAR, fill=fill))
    if args.brightness:
        added.append(v2.ColorJitter(brightness=args.brightness))
    at = next(i for i, step in enumerate(steps) if isinstance(step, (MaybePILToTensor, MaybeToTensor)))
    steps[at:at] = added
