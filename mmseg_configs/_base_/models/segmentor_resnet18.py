# What both heads share. Start from ImageNet weights with model.backbone.checkpoint=FILE.
norm_cfg = dict(type="BN", requires_grad=True)
data_preprocessor = dict(
    type="SegDataPreProcessor",
    mean=[123.675, 116.28, 103.53],
    std=[58.395, 57.12, 57.375],
    bgr_to_rgb=True,
    pad_val=0,
    seg_pad_val=255,
)
# of every head; the loss's weight is the main head's
head = dict(
    dropout_ratio=0.1,
    num_classes=21,
    norm_cfg=norm_cfg,
    align_corners=False,
    loss_decode=dict(type="CrossEntropyLoss", use_sigmoid=False, loss_weight=1.0),
)
model = dict(
    type="EncoderDecoder",
    data_preprocessor=data_preprocessor,
    backbone=dict(type="DynConvBackbone", model_name="resnet18", out_indices=(1, 2, 3, 4), checkpoint=None),
    decode_head=head,
    train_cfg=dict(),
    test_cfg=dict(mode="whole"),
)
