_base_ = "./deeplabv3plus_resnet18_voc12-128x128.py"
model = dict(backbone=dict(model_name="resnet18_orconv"))
