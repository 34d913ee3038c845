# the built-in data: `dynconv data diatoms --out DIR`, then DYNCONV_DATA=DIR
_base_ = "./voc.py"
data_root = "{{$DYNCONV_DATA:data/diatoms}}/VOCdevkit/VOC2012"
crop_size = scale = (64, 64)
train_pipeline = [_base_.load_image, _base_.load_annotations, *_base_.augment_and_pack]
test_pipeline = [
    _base_.load_image,
    dict(type="Resize", scale=scale, keep_ratio=True),
    # after `Resize`: the ground truth keeps its own size
    _base_.load_annotations,
    dict(type="PackSegInputs"),
]
tta_resizes = [dict(type="Resize", scale=tuple(int(r * s) for s in scale), keep_ratio=True) for r in _base_.tta_ratios]
tta_pipeline = [_base_.load_image, dict(type="TestTimeAug", transforms=[tta_resizes, *_base_.tta_after_resize])]
workers = dict(num_workers=0, persistent_workers=False)
train_dataloader = dict(batch_size=8, **workers, dataset=dict(data_root=data_root, pipeline=train_pipeline))
val_dataloader = dict(**workers, dataset=dict(data_root=data_root, pipeline=test_pipeline))
test_dataloader = val_dataloader
