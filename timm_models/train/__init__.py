"""Our own image classification trainer, made of timm's parts: ``python -m timm_models train DATA --model NAME``.

timm's wheel ships no ``train.py``. This package is for people who have only the wheel; it keeps timm's flag names and
defaults, and adds what that script lacks: exact resume, early stopping and temperature annealing.
"""
