# Images and masks in PASCAL VOC's folders; whoever inherits this adds sizes, pipelines and batches.
dataset_type = "CheckedVOCDataset"
data_root = "{{$DYNCONV_DATA:data}}/VOCdevkit/VOC2012"
load_image = dict(type="LoadImageFromFile", imdecode_backend="pillow")  # a truncated file is an error to Pillow
load_annotations = dict(type="LoadAnnotations")
augment_and_pack = [
    dict(type="RandomFlip", prob=0.5),
    dict(type="PhotoMetricDistortion"),
    dict(type="PackSegInputs"),
]
# `mim test ... --tta`: at multiples of the size of a plain test, which whoever inherits this has
tta_model = dict(type="SegTTAModel")
tta_ratios = (0.5, 0.75, 1.0, 1.25, 1.5, 1.75)
tta_after_resize = [
    [dict(type="RandomFlip", prob=p, direction="horizontal") for p in (0.0, 1.0)],
    [load_annotations],
    [dict(type="PackSegInputs")],
]
dataset_train = dict(
    type=dataset_type,
    data_root=data_root,
    data_prefix=dict(img_path="JPEGImages", seg_map_path="SegmentationClass"),
    ann_file="ImageSets/Segmentation/train.txt",
)
dataset_val = dict(dataset_train, ann_file="ImageSets/Segmentation/val.txt")
train_dataloader = dict(sampler=dict(type="InfiniteSampler", shuffle=True), dataset=dataset_train)
val_dataloader = dict(batch_size=1, sampler=dict(type="DefaultSampler", shuffle=False), dataset=dataset_val)
test_dataloader = val_dataloader
val_evaluator = dict(type="IoUMetric", iou_metrics=["mIoU"])
test_evaluator = val_evaluator
