"""The comparative study: a plan of tasks x models x seeds, each cell one run of its host's own trainer.

``dynconv study PLAN``. Nothing in here trains: a cell is one command line that a user could have typed, run in its own
process and folder. What it left there is read, and scored on the test set, by the host's module in `hosts`.
"""
