"""The demonstration: static and dynamic twins trained by all three hosts' own trainers, with a report at the end.

``python -m dynconv_plugins.demo`` or ``dynconv demo``. Nothing in here trains: each cell is one command line that a
user could have typed, run as a subprocess, and every number is read from the files which that command wrote.
"""
