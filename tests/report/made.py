"""What the tests of the report compare: made-up scores of one task."""

from __future__ import annotations

from dynconv_plugins.report.collect import collect
from dynconv_plugins.report.compare import compare

STATIC = [0.60, 0.61, 0.62, 0.60, 0.61]


def study_of(fabricate, scores, host="timm", **more):
    study = collect([fabricate().task("task", host, scores, **more).root])
    task = study.tasks["task"]
    return study, task, compare(task)
