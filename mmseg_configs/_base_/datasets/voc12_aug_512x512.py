# PASCAL VOC 2012 with the masks of SBD (SegmentationClassAug/ and aug.txt beside the official ones)
_base_ = "./voc12_512x512.py"
official = _base_.train_dataloader.dataset
more = dict(
    official,
    data_prefix=dict(img_path="JPEGImages", seg_map_path="SegmentationClassAug"),
    ann_file="ImageSets/Segmentation/aug.txt",
)
train_dataloader = dict(dataset=dict(_delete_=True, type="ConcatDataset", datasets=[official, more]))
