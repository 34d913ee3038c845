"""The table of results: means, and how far runs lie apart."""

from tsai_models.results import summary, table


def test_summary_is_the_studys():
    """Its table 4: ten folds of the static CNN, 0.571 +- 0.059, a deviation that divides by n where ours, by n - 1."""
    folds = [0.506, 0.564, 0.526, 0.462, 0.654, 0.590, 0.590, 0.551, 0.615, 0.654]
    result = summary([{"accuracy": a, "loss": 1.0} for a in folds])
    assert round(result["mean"], 3) == 0.571 and round(result["sd"] * (9 / 10) ** 0.5, 3) == 0.059


def test_a_single_run_has_no_deviation():
    rows = [{"run": 0, "accuracy": 0.5, "loss": 1.0, "seconds": 2.0}]
    assert summary(rows) == {"mean": 0.5, "sd": None, "mean_loss": 1.0, "sd_loss": None}
    assert list(table(rows, "one", "seed").columns[0].cells) == ["0", "mean"]
    assert list(table(rows * 2, "two", "seed").columns[0].cells)[-1] == "sd"
