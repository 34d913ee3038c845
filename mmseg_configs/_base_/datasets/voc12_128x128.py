# PASCAL VOC 2012 at a quarter of the size, for a CPU
_base_ = "./voc12_512x512.py"
crop_size = (128, 128)
scale = (4 * crop_size[0], crop_size[1])
sizes = dict(RandomResize=dict(scale=scale), RandomCrop=dict(crop_size=crop_size), Resize=dict(scale=scale))
train_pipeline = [dict(step, **sizes.get(step.type, {})) for step in _base_.train_pipeline]
test_pipeline = [dict(step, **sizes.get(step.type, {})) for step in _base_.test_pipeline]
tta_resizes = [dict(type="Resize", scale=tuple(int(r * s) for s in scale), keep_ratio=True) for r in _base_.tta_ratios]
tta_pipeline = [_base_.load_image, dict(type="TestTimeAug", transforms=[tta_resizes, *_base_.tta_after_resize])]
train_dataloader = dict(batch_size=8, num_workers=2, dataset=dict(pipeline=train_pipeline))
val_dataloader = dict(num_workers=2, dataset=dict(pipeline=test_pipeline))
test_dataloader = val_dataloader
