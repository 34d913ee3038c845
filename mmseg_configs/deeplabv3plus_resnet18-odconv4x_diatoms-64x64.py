_base_ = "./deeplabv3plus_resnet18_diatoms-64x64.py"
model = dict(backbone=dict(model_name="resnet18_odconv4x"))
# temperature 30 -> 1 over the first tenth of the schedule, as the paper's 10 of 100 epochs
default_hooks = dict(temperature=dict(type="TemperatureHook", part=0.1))
