"""Intervals and tests against scipy, textbook numbers and the paper's own folds."""

from __future__ import annotations

import math

import numpy as np
import pytest

pytest.importorskip("scipy")
from scipy import stats

from dynconv_plugins.report import gains, published
from dynconv_plugins.report.statistics import holm, mcnemar, paired, resolution, summarise, welch, wilson


def test_the_least_gain_that_would_show_grows_with_the_number_of_tests() -> None:
    differences = summarise([0.01, -0.02, 0.03, 0.0, -0.01])
    half = (differences.high - differences.low) / 2
    assert resolution(differences, 1) == pytest.approx(half)
    # t at 4 degrees of freedom: 2.776 at 5%, 7.7 at 5% / 33, by the tables
    assert resolution(differences, 33) / half == pytest.approx(7.7 / 2.776, rel=0.02)


def test_the_interval_is_scipys() -> None:
    values = [0.61, 0.64, 0.60, 0.66, 0.63]
    ours = summarise(values)
    theirs = stats.ttest_1samp(values, 0).confidence_interval(0.95)
    assert (ours.low, ours.high) == pytest.approx((theirs.low, theirs.high))
    assert ours.sd == pytest.approx(np.std(values, ddof=1)) and ours.mean == pytest.approx(0.628)


@pytest.mark.parametrize("values", [[], [0.5]])
def test_no_interval_from_fewer_than_two(values: list[float]) -> None:
    found = summarise(values)
    assert found.n == len(values) and math.isnan(found.sd) and math.isnan(found.low)


def test_overlapping_training_sets_widen_the_interval_as_nadeau_and_bengio_do() -> None:
    values = np.linspace(0.5, 0.7, 10)
    plain, folds = summarise(values), summarise(values, overlap=1 / 9)
    ratio = (folds.high - folds.mean) / (plain.high - plain.mean)
    assert ratio == pytest.approx(math.sqrt((1 / 10 + 1 / 9) / (1 / 10)))


def test_wilson_is_the_closed_form() -> None:
    n, p, z = 391, 300 / 391, stats.norm.ppf(0.975)
    centre = (p + z**2 / (2 * n)) / (1 + z**2 / n)
    half = z / (1 + z**2 / n) * math.sqrt(p * (1 - p) / n + z**2 / (4 * n**2))
    assert wilson(p, n) == pytest.approx((centre - half, centre + half))
    low, high = wilson(1.0, 30)
    assert high == pytest.approx(1.0) and low == pytest.approx(30 / (30 + z**2)), (
        "an interval, not a point, at the edge"
    )


def test_the_papers_own_folds() -> None:
    """Table 4a: means as printed in Table 4b; its standard deviations divide by n."""
    cnn, dcnn = (published.folds()[name]["accuracy"] for name in ("CNN", "D-CNN"))
    assert (np.mean(cnn), np.mean(dcnn)) == pytest.approx((0.571, 0.653), abs=5e-4)
    assert (np.std(cnn), np.std(dcnn)) == pytest.approx((0.059, 0.062), abs=5e-4)
    found = gains.own_test()
    d = np.subtract(dcnn, cnn)
    plain = stats.ttest_rel(dcnn, cnn)
    assert found.plain == pytest.approx(plain.pvalue) == pytest.approx(5.965e-4, rel=1e-3)
    t = d.mean() / (d.std(ddof=1) * math.sqrt(1 / 10 + 1 / 9))
    assert t == pytest.approx(3.550, abs=1e-3)
    assert found.p == pytest.approx(2 * stats.t.sf(t, 9)) == pytest.approx(6.215e-3, rel=1e-3)
    assert found.wilcoxon == pytest.approx(2 / 2**10), "ahead in all ten folds: the smallest p there is"
    note = gains.note()
    assert "+8.2 points" in note and "p = 0.0062" in note and "p < 0.001" in note


def test_a_paired_test_without_overlap_is_scipys() -> None:
    ours, theirs = [0.71, 0.69, 0.74, 0.70, 0.73], [0.70, 0.66, 0.70, 0.71, 0.69]
    found = paired(ours, theirs)
    assert [found.p, found.plain] == pytest.approx([stats.ttest_rel(ours, theirs).pvalue] * 2)
    assert found.wilcoxon == pytest.approx(stats.wilcoxon(np.subtract(ours, theirs)).pvalue)
    assert (found.p < 0.05) == (found.summary.low > 0), "test and interval agree"


def test_ranks_tie_where_differences_differ_by_rounding() -> None:
    """Folds of 78 series: one series more or less is one difference, whatever the scores it is between."""
    counts = [(1, 40), (-1, 47), (-1, 51), (-1, 38), (-1, 55), (-1, 44), (2, 50), (-3, 41), (0, 50), (-2, 46)]
    ours, theirs = [(n + d) / 78 for d, n in counts], [n / 78 for _, n in counts]
    exact = stats.wilcoxon([d for d, _ in counts]).pvalue
    assert paired(ours, theirs).wilcoxon == pytest.approx(exact)
    assert stats.wilcoxon(np.subtract(ours, theirs)).pvalue != pytest.approx(exact), "which rounding would break"


def test_what_cannot_be_tested_says_why() -> None:
    assert paired([0.7, 0.8], [0.5, 0.6]).why == "too few runs to test"
    assert paired([0.7], [0.5]).p is None and paired([], []).p is None
    for two in ([0.7, 0.8], [0.7, 0.9]):
        few = paired(two, [0.5, 0.6])
        assert math.isnan(few.summary.low) and math.isnan(few.summary.high), "equally far apart or not"
        assert few.summary.mean == pytest.approx(sum(two) / 2 - 0.55)
    same = paired([0.7, 0.6, 0.8], [0.7, 0.6, 0.8])
    assert same.p == same.wilcoxon == 1.0 and not same.why
    shifted = paired([0.7, 0.6, 0.8], [0.6, 0.5, 0.7])
    assert shifted.p is None and "spread" in shifted.why


def test_the_difference_of_two_means_is_scipys_welch() -> None:
    ours, theirs = [0.021, 0.043, -0.012, 0.035, 0.001, 0.018], [0.09, 0.07, 0.11, 0.065]
    found = welch(summarise(ours), summarise(theirs))
    expected = stats.ttest_ind(ours, theirs, equal_var=False).confidence_interval(0.95)
    assert (found.low, found.high) == pytest.approx((expected.low, expected.high))
    assert found.mean == pytest.approx(np.mean(ours) - np.mean(theirs))
    # Folds that overlap make the interval of either mean wider, and that of the difference with it.
    wider = welch(summarise(ours, 1 / 5), summarise(theirs))
    assert wider.low < found.low and wider.high > found.high
    assert math.isnan(welch(summarise([0.1, 0.1]), summarise([0.2, 0.2])).low)
    assert math.isnan(welch(paired([0.7, 0.8], [0.5, 0.7]).summary, summarise(theirs)).low)


def test_holm_by_hand() -> None:
    # Sorted 0.005, 0.01, 0.03, 0.04 times 4, 3, 2, 1, made monotone; what has no p does not count.
    assert holm([0.01, None, 0.04, 0.03, 0.005]) == pytest.approx([0.03, None, 0.06, 0.06, 0.02])
    assert holm([0.9, 0.8]) == [1.0, 1.0] and holm([]) == [] and holm([None]) == [None]


def test_mcnemar_counts_disagreements_only() -> None:
    truth = np.zeros(100, int)
    ours, theirs = np.zeros(100, int), np.zeros(100, int)
    theirs[:10] = 1  # ours alone is right
    ours[10:12] = 1  # theirs alone is right
    ours[12:20] = theirs[12:20] = 1  # both are wrong
    found = mcnemar(truth, ours, theirs)
    assert (found.only_ours, found.only_theirs) == (10, 2)
    assert found.p == pytest.approx(2 * sum(math.comb(12, i) for i in range(3)) / 2**12)
    assert mcnemar(truth, ours, ours).p == 1.0
