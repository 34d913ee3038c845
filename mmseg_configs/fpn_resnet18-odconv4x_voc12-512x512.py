_base_ = "./fpn_resnet18-odconv_voc12-512x512.py"
model = dict(backbone=dict(model_name="resnet18_odconv4x"))
