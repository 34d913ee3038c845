"""The published parameters and multiply-adds, and why some of them are not ours.

ImageNet head of 1000 classes, 224 px. Sources: the tables of ODConv (ICLR 2022) and of its repository, and of A2D2C
(its tables 4, 5, 6, 8 and 11), which agree where both have a row. A2D2C's placements are of its tables 8 and 11, which
print multiply-adds to three decimals of 10^9.
"""

from __future__ import annotations

from typing import NamedTuple


class Row(NamedTuple):
    """A published row.

    Attributes:
        model: The network.
        operator: Name in the registry.
        params: Parameters in millions, as printed.
        macs: Multiply-adds in millions, as printed.
        note: Key of `NOTES` where parameters or multiply-adds differ by more than 1% (ODConv: half a percent).
        options: Arguments of the model beyond the name's own.
    """

    model: str
    operator: str
    params: str
    macs: float
    note: str = ""
    options: dict = {}


NOTES = {
    "mixing": "Mixing 8 kernels of all these convolutions takes 8 x 23.4M = 188M multiply-adds; the published count "
    "adds 120M, though the parameters of its row are those of all convolutions.",
    "classifier": "This row is the CondConv paper's own placement, the last six blocks and the classifier: it gives "
    "13.65M. A classifier is no convolution; here every convolution is replaced, and the classifier is not.",
    "projections": "The published multiply-adds leave out the two projections Q and P of each convolution: without "
    "them the counts here are 1835M, 3900M and 103.4M.",
    "dcd-mobilenet": "The published MobileNetV2 has other layers: its classifier is dynamic too, the squeeze is by 8 "
    "instead of 16 and gated. Multiply-adds: without Q and P 103.4M.",
    "sets": "The number N of weight sets is not printed. Two sets are taken here; with three the multiply-adds are "
    "1938M, 4073M and 108.4M.",
    "shortcuts": "The published multiply-adds count the 1x1 downsample convolutions as dynamic, although parameters "
    "and code have them static: counted so, all ResNet rows agree to 0.02%.",
    "placements": "1.920G is printed for every ResNet-18 placement of these tables, however many convolutions are "
    "replaced; here each has the multiply-adds of its own.",
    "smaller": "Below the static network's parameters or between those of any placement: replacing a convolution by "
    "four kernels of its own shape cannot give them. Median and terminal are the middle and the last convolution of "
    "the blocks here. The multiply-adds are the 1.920G of every placement.",
}

ROWS = [
    Row("resnet18", "condconv", "89.89", 1894),
    Row("resnet18", "dyconv", "45.47", 1861),
    Row("resnet18", "dcd", "14.70", 1841, "projections"),
    Row("resnet18", "odconv", "11.94", 1838),
    Row("resnet18", "odconv4x", "44.90", 1916),
    Row("resnet18", "a2d2c", "44.93", 1926),
    Row("resnet18", "a2d2cplus", "44.93", 1934, "sets"),
    Row("resnet50", "condconv", "189.92", 3978, "mixing"),
    Row("resnet50", "dyconv", "100.88", 3965),
    Row("resnet50", "dcd", "29.84", 3944, "projections"),
    Row("resnet50", "odconv", "28.64", 3916),
    Row("resnet50", "odconv4x", "90.67", 4080, "shortcuts"),
    Row("resnet50", "a2d2c", "89.70", 4083, "sets"),
    Row("resnet50", "a2d2cplus", "89.70", 4095, "sets"),
    Row("resnet101", "odconv", "50.82", 7675),
    Row("resnet101", "odconv", "90.44", 7802, options={"num_kernels": 2}),
    Row("mobilenetv2_100", "odconv", "4.94", 311.8),
    Row("mobilenetv2_100", "odconv4x", "11.51", 327.1),
    Row("mobilenetv2_075", "odconv", "3.51", 217.1),
    Row("mobilenetv2_075", "odconv4x", "7.50", 226.3),
    Row("mobilenetv2_050", "condconv", "13.61", 110.0, "classifier"),
    Row("mobilenetv2_050", "dyconv", "4.57", 103.2),
    Row("mobilenetv2_050", "dcd", "3.06", 105.6, "dcd-mobilenet"),
    Row("mobilenetv2_050", "odconv", "2.43", 101.8),
    Row("mobilenetv2_050", "odconv4x", "4.44", 106.4),
    Row("mobilenetv2_050", "a2d2c", "4.05", 105.2),
    Row("mobilenetv2_050", "a2d2cplus", "4.05", 105.2),
    Row("resnet18", "a2d2cplus", "11.72", 1920, "placements", {"where": "initial"}),
    Row("resnet18", "a2d2cplus", "10.58", 1920, "smaller", {"where": "median"}),
    Row("resnet18", "a2d2cplus", "12.74", 1920, "smaller", {"where": "terminal"}),
    Row("resnet18", "a2d2cplus", "44.78", 1920, "placements", {"where": "block_first", "num_kernels": 8}),
    Row("resnet50", "a2d2cplus", "55.95", 3900, options={"where": "block_first", "num_kernels": 8}),
]
