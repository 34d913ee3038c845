_base_ = "./deeplabv3plus_resnet18-odconv_voc12-128x128.py"
model = dict(backbone=dict(model_name="resnet18_odconv4x"))
