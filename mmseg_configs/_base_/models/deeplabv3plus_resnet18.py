# DeepLabV3+ on ResNet-18 at output stride 8
_base_ = "./segmentor_resnet18.py"
model = dict(
    backbone=dict(output_stride=8),
    decode_head=dict(
        type="DepthwiseSeparableASPPHead",
        in_channels=512,
        in_index=3,
        channels=128,
        dilations=(1, 12, 24, 36),
        c1_in_channels=64,
        c1_channels=12,
    ),
    auxiliary_head=dict(
        _base_.head,
        type="FCNHead",
        in_channels=256,
        in_index=2,
        channels=64,
        num_convs=1,
        concat_input=False,
        loss_decode=dict(_base_.head.loss_decode, loss_weight=0.4),
    ),
)
