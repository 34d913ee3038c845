# PASCAL VOC 2012, 1464 + 1449 images, in $DYNCONV_DATA/VOCdevkit/VOC2012
_base_ = "./voc.py"
crop_size = (512, 512)
scale = (4 * crop_size[0], crop_size[1])
train_pipeline = [
    _base_.load_image,
    _base_.load_annotations,
    dict(type="RandomResize", scale=scale, ratio_range=(0.5, 2.0), keep_ratio=True),
    dict(type="RandomCrop", crop_size=crop_size, cat_max_ratio=0.75),
    *_base_.augment_and_pack,
]
test_pipeline = [
    _base_.load_image,
    dict(type="Resize", scale=scale, keep_ratio=True),
    # after `Resize`: the ground truth keeps its own size
    _base_.load_annotations,
    dict(type="PackSegInputs"),
]
tta_resizes = [dict(type="Resize", scale=tuple(int(r * s) for s in scale), keep_ratio=True) for r in _base_.tta_ratios]
tta_pipeline = [_base_.load_image, dict(type="TestTimeAug", transforms=[tta_resizes, *_base_.tta_after_resize])]
workers = dict(num_workers=4, persistent_workers=True)
train_dataloader = dict(batch_size=16, **workers, dataset=dict(pipeline=train_pipeline))
val_dataloader = dict(**workers, dataset=dict(pipeline=test_pipeline))
test_dataloader = val_dataloader
