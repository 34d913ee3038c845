"""mmseg's PASCAL VOC data set, with one clear line for what is missing or broken in it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from mmseg.datasets import PascalVOCDataset
from mmseg.registry import DATASETS

from dynconv_plugins.errors import UserError

_FILES = {"image": "img_path", "mask": "seg_map_path"}


@DATASETS.register_module(force=True)
class CheckedVOCDataset(PascalVOCDataset):
    """``PascalVOCDataset`` that checks its files before training starts and its labels when they are read.

    It takes the same arguments and yields the same samples; without ``seg_map_path`` in `data_prefix` there are no
    masks.

    Raises:
        UserError: If the folder, the list, an image or a mask is missing; when a sample is read, if its image or mask
            cannot be decoded, if the pipeline loads masks and there are none, or if a mask holds a label that is
            neither a class nor `ignore_index`.
    """

    def load_data_list(self) -> list[dict]:
        """Lists the samples, as the base class does, and makes sure that every file is there."""
        if self.data_root and not Path(self.data_root).is_dir():
            raise UserError(
                f"no data in {self.data_root}: set DYNCONV_DATA to the folder that holds VOCdevkit/, or make one with "
                "`dynconv data diatoms --out DIR`"
            )
        if not Path(self.ann_file).is_file():
            raise UserError(f"the list of images is missing: {self.ann_file}")
        samples = super().load_data_list()
        if not samples:
            raise UserError(f"the list of images is empty: {self.ann_file}")
        for kind, key in _FILES.items():
            absent = [s[key] for s in samples if key in s and not Path(s[key]).is_file()]
            if absent:
                raise UserError(f"{kind} missing for {len(absent)} of {len(samples)} samples, first {absent[0]}")
        return samples

    def prepare_data(self, idx: int) -> dict:
        """Loads and transforms one sample, and checks its labels."""
        try:
            sample = super().prepare_data(idx)
        except (OSError, SyntaxError) as e:  # Pillow's way of saying that a file is truncated or no image at all
            info = self.get_data_info(idx)
            files = " or ".join(info[key] for key in _FILES.values() if key in info)
            raise UserError(f"cannot decode {files}: {e}") from e
        except KeyError as e:
            if e.args != (_FILES["mask"],):
                raise
            raise UserError(
                "the pipeline loads masks (LoadAnnotations), but data_prefix names no folder of them (seg_map_path)"
            ) from e
        truth = getattr(sample["data_samples"], "gt_sem_seg", None) if "data_samples" in sample else None
        if truth is not None:
            labels = np.unique(truth.data.numpy())
            unknown = labels[(labels >= len(self.metainfo["classes"])) & (labels != self.ignore_index)]
            if len(unknown):
                raise UserError(
                    f"unknown label {unknown[0]} in {self.get_data_info(idx)['seg_map_path']}: "
                    f"known are 0..{len(self.metainfo['classes']) - 1} and {self.ignore_index} (ignored)"
                )
        return sample
