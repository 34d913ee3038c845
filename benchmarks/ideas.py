"""Times the ways to convolve each sample with its own kernel that were tried before the compiled one.

    python -m benchmarks.ideas

Forward only, kernels given (making them comes on top, except for `native`, which makes them as it goes), every side in
channels-last memory but the static convolution, which is measured in both orders.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable

import torch
import torch.nn.functional as F
from rich.console import Console
from rich.table import Table
from torch import Tensor

import dynconv_plugins as dc
from dynconv_plugins.errors import run_cli

from .checks import check_positive
from .operators import SHAPES, inputs
from .timing import compare, warm_up


def one_call_a_sample(x: Tensor, kernels: Tensor) -> Callable[[], object]:
    """The library's convolution for each sample by itself."""
    kernels = [k.contiguous(memory_format=torch.channels_last) for k in kernels]
    return lambda: [F.conv2d(x[i : i + 1], k, padding=1) for i, k in enumerate(kernels)]


def eight_samples_a_call(x: Tensor, kernels: Tensor) -> Callable[[], object]:
    """Grouped convolutions of eight samples, whose kernels stay in cache."""
    x = x.contiguous()
    size = x.shape[2:]

    def run():
        return [
            F.conv2d(xs.reshape(1, -1, *size), ks.flatten(0, 1), padding=1, groups=len(xs))
            for xs, ks in zip(x.split(8), kernels.split(8), strict=True)
        ]

    return run


def im2col(x: Tensor, kernels: Tensor) -> Callable[[], object]:
    """Columns in memory, one batched matrix product."""
    batch, channels, height, width = x.shape
    flat = kernels.permute(0, 3, 4, 2, 1).reshape(batch, -1, kernels.shape[1])

    def run():
        padded = F.pad(x.movedim(1, -1), (0, 0, 1, 1, 1, 1)).contiguous()
        b, row, column, one = padded.stride()
        shape = (batch, height, width, 3, 3, channels)
        return padded.as_strided(shape, (b, row, column, row, column, one)).reshape(batch, height * width, -1) @ flat

    return run


def tap_by_tap(x: Tensor, kernels: Tensor) -> Callable[[], object]:
    """No columns: for each tap a batched matrix product on a shifted view of the padded rows, added up."""
    batch, channels, height, width = x.shape
    taps = kernels.permute(3, 4, 0, 2, 1).flatten(0, 1).contiguous()
    positions = height * (width + 2)  # two of each row are computed for nothing

    def run():
        rows = F.pad(x.movedim(1, -1), (0, 0, 1, 1, 1, 1)).flatten(1, 2)
        rows = F.pad(rows, (0, 0, 0, 2))
        y = torch.zeros(batch, positions, kernels.shape[1])
        for t, tap in enumerate(taps):
            first = t // 3 * (width + 2) + t % 3
            y.baddbmm_(rows[:, first : first + positions], tap)
        return y

    return run


IDEAS = {
    "one call a sample": one_call_a_sample,
    "eight samples a call": eight_samples_a_call,
    "im2col": im2col,
    "tap by tap": tap_by_tap,
}


@torch.no_grad()
def measure(channels: int, size: int, batch: int, seconds: float) -> tuple[str, float, dict[str, float]]:
    """The static convolution's faster layout and milliseconds, and everything else's ratio to it."""
    x, weight, attention = inputs(channels, size, 1, batch, False)
    last = {"memory_format": torch.channels_last}
    x_last, static, static_last = x.contiguous(**last), weight[0], weight[0].contiguous(**last)
    kernels = torch.randn(batch, *weight.shape[1:])
    functions: dict[str, Callable[[], object]] = {name: idea(x_last, kernels) for name, idea in IDEAS.items()}

    def native():
        with dc.backend("native"):
            return dc.dynamic_conv(x_last, weight, attention, padding=1)

    functions["native"] = native
    functions["NCHW"] = lambda: F.conv2d(x, static, padding=1)
    functions["NHWC"] = lambda: F.conv2d(x_last, static_last, padding=1)
    times = compare(functions, seconds)
    layout = min(("NCHW", "NHWC"), key=lambda name: times[name].median)
    base = times[layout]
    return layout, base.median * 1e3, {name: times[name].over(base).median for name in (*IDEAS, "native")}


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.ideas", description=__doc__.splitlines()[0])
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--seconds", type=float, default=2.0, help="for each shape")
    args = parser.parse_args()
    check_positive(batch=args.batch)
    torch.manual_seed(0)
    warm_up()
    table = Table(
        title=f"ratio to the static convolution, K = 1, batch {args.batch}, {torch.get_num_threads()} threads"
    )
    for column in ("shape", "static ms", *IDEAS, "native"):
        table.add_column(column, justify="left" if column == "shape" else "right")
    for channels, size in SHAPES:
        if args.batch * channels**2 * 9 > 25e6:
            continue  # kernels that do not fit in cache lose to everything else
        layout, milliseconds, ratios = measure(channels, size, args.batch, args.seconds)
        row = (f"{ratio:.2f}" for ratio in ratios.values())
        table.add_row(f"{channels} @ {size}", f"{milliseconds:.2f} {layout}", *row)
    Console(width=150).print(table)
    return 0


if __name__ == "__main__":
    run_cli(main)
