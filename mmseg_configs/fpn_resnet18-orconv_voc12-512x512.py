_base_ = "./fpn_resnet18_voc12-512x512.py"
model = dict(backbone=dict(model_name="resnet18_orconv"))
