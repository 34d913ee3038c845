_base_ = "./fpn_resnet18-odconv_diatoms-64x64.py"
model = dict(backbone=dict(model_name="resnet18_odconv4x"))
