_base_ = "./deeplabv3plus_resnet18_voc12-512x512.py"
model = dict(backbone=dict(model_name="resnet18_hard"))
# logs how much of the masks is on, and the loss that holds it to the budget
default_hooks = dict(budget=dict(type="BudgetHook"))
