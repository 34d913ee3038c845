"""Loading that can start at any batch of any epoch and yields exactly what it would have yielded there.

A sampler hands out tickets ``(epoch, position, index)``; what follows it (decoding and augmentation per sample, mixup
per batch, erasing on the device) seeds itself from the ticket. Tickets also reach persistent workers, which an epoch
number stored on the data set does not.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import torch
from PIL import Image, UnidentifiedImageError
from timm.data import FastCollateMixup
from timm.data.dataset import ImageDataset
from torch.utils.data import Dataset, Sampler

from dynconv_plugins.errors import UserError

from .seeds import Purpose, derive, seed_device, seed_host

Ticket = tuple[int, int, int]


class BadImage(UserError):
    """An image file that cannot be decoded; the message names it."""


class EpochSampler(Sampler[Ticket]):
    """This rank's share of an epoch's order, which is a function of (seed, epoch) alone.

    Args:
        length: Samples in the data set.
        seed: The run's seed.
        rank: This process.
        world_size: Number of processes. Every rank gets ``length // world_size`` samples.
    """

    def __init__(self, length: int, seed: int, rank: int = 0, world_size: int = 1) -> None:
        self.length, self.seed, self.rank, self.world_size = length, seed, rank, world_size
        self.epoch, self.skip = 0, 0

    def start(self, epoch: int, skip: int = 0) -> None:
        """Makes the next iteration yield `epoch`, without its first `skip` samples of this rank."""
        self.epoch, self.skip = epoch, skip

    def __len__(self) -> int:
        return self.length // self.world_size

    def __iter__(self) -> Iterator[Ticket]:
        generator = torch.Generator().manual_seed(derive(Purpose.ORDER, self.seed, self.epoch))
        order = torch.randperm(self.length, generator=generator).tolist()
        for number in range(self.skip, len(self)):
            position = number * self.world_size + self.rank
            yield self.epoch, position, order[position]


class StrictImages(Dataset):
    """A timm data set that names the file it cannot read, where timm's own takes the next sample instead."""

    def __init__(self, dataset: Dataset) -> None:
        self.dataset = dataset

    @property
    def transform(self) -> Callable:
        return self.dataset.transform

    @transform.setter
    def transform(self, transform: Callable) -> None:
        self.dataset.transform = transform

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, index: int) -> tuple[Any, int]:
        dataset = self.dataset
        if not isinstance(dataset, ImageDataset):
            return tuple(dataset[index][:2])
        try:
            file, target = dataset.reader[index][:2]
            with file, Image.open(file) as image:
                image = image.convert(dataset.input_img_mode or image.mode)
        except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as e:
            reason = "not an image" if isinstance(e, UnidentifiedImageError) else str(e).splitlines()[0]
            raise BadImage(f"cannot read {dataset.filename(index, absolute=True)}: {reason}") from None
        return dataset.transform(image), -1 if target is None else target


class SeededImages(StrictImages):
    """Training samples ``(image, target, (epoch, position))`` whose augmentation depends on the ticket alone."""

    def __init__(self, dataset: Dataset, seed: int) -> None:
        super().__init__(dataset)
        self.seed = seed

    def __getitem__(self, ticket: Ticket) -> tuple[Any, int, tuple[int, int]]:
        epoch, position, index = ticket
        seed_host(Purpose.SAMPLE, self.seed, epoch, position)
        return *super().__getitem__(index), (epoch, position)


class PlainCollate:
    """Drops the tickets and collates with `collate`."""

    def __init__(self, collate: Callable) -> None:
        self.collate = collate

    def __call__(self, batch: list) -> Any:
        return self.collate([sample[:2] for sample in batch])


class SeededMixup(FastCollateMixup):
    """timm's mixup while collating, drawn from the batch's ticket.

    Args:
        seed: The run's seed.
        off_epoch: First epoch without mixing; 0 never stops. Read from the ticket, so that persistent workers obey.
        **mixup: timm's arguments.
    """

    def __init__(self, seed: int, off_epoch: int = 0, **mixup: Any) -> None:
        super().__init__(**mixup)
        self.seed, self.off_epoch = seed, off_epoch

    def __call__(self, batch: list, _: Any = None) -> Any:
        epoch, position = batch[0][2]
        self.mixup_enabled = not self.off_epoch or epoch < self.off_epoch
        seed_host(Purpose.MIX, self.seed, epoch, position)
        return super().__call__([sample[:2] for sample in batch])


class SeededErasing:
    """timm's random erasing on the device, drawn from (epoch, batch): the prefetcher erases one batch ahead."""

    def __init__(self, erasing: Callable, device: torch.device, seed: int, rank: int) -> None:
        self.erasing, self.device, self.seed, self.rank = erasing, device, seed, rank
        self.epoch, self.batch = 0, 0

    def start(self, epoch: int, batch: int) -> None:
        self.epoch, self.batch = epoch, batch

    def __call__(self, images: torch.Tensor) -> torch.Tensor:
        seed_device(self.device, Purpose.ERASE, self.seed, self.rank, self.epoch, self.batch)
        self.batch += 1
        return self.erasing(images)
