_base_ = [
    "_base_/models/fpn_resnet18.py",
    "_base_/datasets/voc12_512x512.py",
    "_base_/schedules/schedule_20k.py",
    "_base_/default_runtime.py",
]
model = dict(data_preprocessor=dict(size=_base_.crop_size))
