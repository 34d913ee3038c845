# the built-in data: `dynconv data diatoms --out DIR`, then DYNCONV_DATA=DIR
dataset_type = "CheckedVOCDataset"
data_root = "{{$DYNCONV_DATA:data/diatoms}}/VOCdevkit/VOC2012"
crop_size = (64, 64)
load_image = dict(type="LoadImageFromFile", imdecode_backend="pillow")  # a truncated file is an error to Pillow
train_pipeline = [
    load_image,
    dict(type="LoadAnnotations"),
    dict(type="RandomFlip", prob=0.5),
    dict(type="PhotoMetricDistortion"),
    dict(type="PackSegInputs"),
]
test_pipeline = [
    load_image,
    dict(type="Resize", scale=(64, 64), keep_ratio=True),
    # after `Resize`: the ground truth keeps its own size
    dict(type="LoadAnnotations"),
    dict(type="PackSegInputs"),
]
dataset_train = dict(
    type=dataset_type,
    data_root=data_root,
    data_prefix=dict(img_path="JPEGImages", seg_map_path="SegmentationClass"),
    ann_file="ImageSets/Segmentation/train.txt",
    pipeline=train_pipeline,
)
dataset_val = dict(
    type=dataset_type,
    data_root=data_root,
    data_prefix=dict(img_path="JPEGImages", seg_map_path="SegmentationClass"),
    ann_file="ImageSets/Segmentation/val.txt",
    pipeline=test_pipeline,
)
train_dataloader = dict(
    batch_size=8,
    num_workers=0,
    persistent_workers=False,
    sampler=dict(type="InfiniteSampler", shuffle=True),
    dataset=dataset_train,
)
val_dataloader = dict(
    batch_size=1,
    num_workers=0,
    persistent_workers=False,
    sampler=dict(type="DefaultSampler", shuffle=False),
    dataset=dataset_val,
)
test_dataloader = val_dataloader
val_evaluator = dict(type="IoUMetric", iou_metrics=["mIoU"])
test_evaluator = val_evaluator
