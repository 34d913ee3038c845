"""Intervals and tests. Everything that scipy has is scipy's."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from scipy import stats

LEVEL = 0.05
FEWEST = 3  # of runs for a test and its interval
ENOUGH = 5  # of runs for a firm result


@dataclass(frozen=True)
class Summary:
    """Mean, standard deviation (n - 1 below) and 95% confidence interval; ``nan`` where n is too small for them."""

    n: int
    mean: float
    sd: float
    low: float
    high: float

    @property
    def clipped(self) -> tuple[float, float]:
        """The interval of a score, which lies within 0 and 1."""
        return (self.low, self.high) if math.isnan(self.low) else (max(0.0, self.low), min(1.0, self.high))


@dataclass(frozen=True)
class Paired:
    """Differences of pairs: their summary, and two-sided p values; None where no test can be made.

    Attributes:
        summary: Of the differences, with the interval that belongs to `p`; none where there is no test.
        p: The test that decides: paired t, corrected where the pairs are folds.
        plain: The paired t-test without correction.
        wilcoxon: The signed-rank test.
        why: Why there is no test.
    """

    summary: Summary
    p: float | None = None
    plain: float | None = None
    wilcoxon: float | None = None
    why: str = ""


def summarise(values: Sequence[float], overlap: float = 0.0) -> Summary:
    """Mean and Student's t interval.

    Args:
        values: One per seed or fold.
        overlap: Test samples over training samples, ``1 / (k - 1)`` for k folds. The training sets of folds overlap, so
            that their scores vary less than those of independent runs; the variance of the mean is taken as
            ``(1/n + overlap) sd^2`` (Nadeau & Bengio, Inference for the Generalization Error, Machine Learning 52,
            2003, section 3). 0 for seeds.
    """
    x = np.asarray(values, dtype=float)
    n = len(x)
    if n < 2:
        return Summary(n, float(x.mean()) if n else math.nan, math.nan, math.nan, math.nan)
    mean, sd = float(x.mean()), float(x.std(ddof=1))
    half = float(stats.t.ppf(1 - LEVEL / 2, n - 1)) * sd * math.sqrt(1 / n + overlap)
    return Summary(n, mean, sd, mean - half, mean + half)


def resolution(differences: Summary, tests: int) -> float:
    """The least mean difference that would have been significant, with this spread and Bonferroni for `tests` tests.

    That is what the largest of them has to pass under Holm's correction.
    """
    df = differences.n - 1
    ratio = stats.t.ppf(1 - LEVEL / (2 * tests), df) / stats.t.ppf(1 - LEVEL / 2, df)
    return float(ratio) * (differences.high - differences.low) / 2


def wilson(score: float, n: int) -> tuple[float, float]:
    """Wilson's 95% interval of an accuracy on `n` test samples: the sampling error of the test set alone."""
    low, high = stats.binomtest(round(score * n), n).proportion_ci(1 - LEVEL, method="wilson")
    return float(low), float(high)


def paired(ours: Sequence[float], theirs: Sequence[float], overlap: float = 0.0) -> Paired:
    """Tests whether `ours` differ from `theirs`, pair by pair.

    Source: Student's paired t-test; with `overlap`, the corrected resampled t-test of Nadeau & Bengio (2003), which for
    folds divides by ``sd sqrt(1/n + n_test/n_train)``; Wilcoxon's signed-rank test beside them.

    Args:
        ours, theirs: Scores of the same units in the same order.
        overlap: See `summarise`.
    """
    d = np.asarray(ours, dtype=float) - np.asarray(theirs, dtype=float)
    summary = summarise(d, overlap)
    n = len(d)
    if n < FEWEST:
        # The interval would be the test: what is too little for one is too little for the other.
        return Paired(replace(summary, low=math.nan, high=math.nan), why="too few runs to test")
    if np.ptp(d) < 1e-12:
        # No spread at all: t would be 0/0 or infinite. Equal everywhere is no difference; equally far apart in every
        # run means that the units did not vary what they should.
        same = abs(summary.mean) < 1e-12
        summary = replace(summary, low=math.nan, high=math.nan)
        return Paired(summary, *(1.0, 1.0, 1.0) if same else (), why="" if same else "no spread between runs to test")
    t = summary.mean / (summary.sd * math.sqrt(1 / n + overlap))
    p = float(2 * stats.t.sf(abs(t), n - 1))
    # Scores are counts over counts: differences that differ by rounding alone are ties of the ranks.
    ranked = stats.wilcoxon(np.round(d, 10)).pvalue
    return Paired(summary, p, float(stats.ttest_1samp(d, 0).pvalue), float(ranked))


def welch(ours: Summary, theirs: Summary) -> Summary:
    """The difference of two independent means, whose variances differ, with Welch's 95% interval.

    Source: B. L. Welch, Biometrika 34, 1947. The standard errors are those of the two intervals.

    Args:
        ours, theirs: Summaries with intervals, of more than one value each.

    Returns:
        A summary without a standard deviation; `n` is that of `ours`.
    """
    (v, df), (w, df_theirs) = ((_error(s) ** 2, s.n - 1) for s in (ours, theirs))
    mean = ours.mean - theirs.mean
    if not v + w > 0:  # no spread, or no intervals
        return Summary(ours.n, mean, math.nan, math.nan, math.nan)
    half = float(stats.t.ppf(1 - LEVEL / 2, (v + w) ** 2 / (v**2 / df + w**2 / df_theirs))) * math.sqrt(v + w)
    return Summary(ours.n, mean, math.nan, mean - half, mean + half)


def _error(summary: Summary) -> float:
    """The standard error of a mean, from its interval."""
    return (summary.high - summary.low) / 2 / float(stats.t.ppf(1 - LEVEL / 2, summary.n - 1))


def holm(ps: Sequence[float | None]) -> list[float | None]:
    """Holm's step-down correction for several tests; None stays None.

    Source: S. Holm, A Simple Sequentially Rejective Multiple Test Procedure, Scand. J. Statistics 6, 1979.
    """
    known = sorted((p, i) for i, p in enumerate(ps) if p is not None)
    adjusted: list[float | None] = [None] * len(ps)
    highest = 0.0
    for rank, (p, i) in enumerate(known):
        highest = max(highest, min(1.0, p * (len(known) - rank)))
        adjusted[i] = highest
    return adjusted


@dataclass(frozen=True)
class McNemar:
    """Samples that only one of two networks gets right, and the exact two-sided p."""

    only_ours: int
    only_theirs: int
    p: float


def mcnemar(truth: np.ndarray, ours: np.ndarray, theirs: np.ndarray) -> McNemar:
    """McNemar's exact test of two networks on the same test samples ``[N]``.

    Source: Q. McNemar, Psychometrika 12, 1947; exact form: a binomial test of the samples on which they disagree. It is
    about these two trained networks, and says nothing about what another seed would give.
    """
    a, b = ours == truth, theirs == truth
    won, lost = int((a & ~b).sum()), int((b & ~a).sum())
    return McNemar(won, lost, float(stats.binomtest(won, won + lost).pvalue) if won + lost else 1.0)
