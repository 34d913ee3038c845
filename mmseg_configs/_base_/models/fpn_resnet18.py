# Semantic FPN on ResNet-18
_base_ = "./segmentor_resnet18.py"
model = dict(
    neck=dict(type="FPN", in_channels=[64, 128, 256, 512], out_channels=256, num_outs=4),
    decode_head=dict(
        type="FPNHead",
        in_channels=[256, 256, 256, 256],
        in_index=[0, 1, 2, 3],
        feature_strides=[4, 8, 16, 32],
        channels=128,
    ),
)
