_base_ = "./fpn_resnet18_voc12-512x512.py"
model = dict(backbone=dict(model_name="resnet18_odconv"))
# temperature 30 -> 1 over the first tenth of the schedule, as the paper's 10 of 100 epochs
default_hooks = dict(temperature=dict(type="TemperatureHook", part=0.1))
