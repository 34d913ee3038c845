"""What the page of operators says in words; its numbers and pictures are made by `benchmarks.operator_page`."""

from __future__ import annotations

from typing import NamedTuple


class Entry(NamedTuple):
    """One operator.

    Attributes:
        title: The operator's name in its paper.
        source: The paper.
        equation: In the symbols of the page's head.
        sees: What the picture shows.
        when: When to take it.
        differs: What differs from the paper.
    """

    title: str
    source: str
    equation: str
    sees: str
    when: str
    differs: str


KERNELS = "One row a validation image, grouped by class, one column a kernel, in an early, a middle and a late layer."

ENTRIES = {
    "condconv": Entry(
        "CondConv",
        "Yang et al., CondConv: Conditionally Parameterized Convolutions for Efficient Inference, NeurIPS 2019",
        "a = sigmoid(W GAP(x) + b);  y = conv(x, sum_k a_k W_k)",
        KERNELS + " The weights are independent of each other and do not add up to one.",
        "Many kernels and parameters to spare, at few multiply-adds; memory for weights is what it costs.",
        "Every convolution is replaced, stem and shortcuts included, as the parameters of its ResNet rows say; the "
        "paper's own MobileNets replace the last six blocks and the classifier "
        "(`where=r'^blocks\\.(4\\.[12]|5|6)\\.'`).",
    ),
    "dyconv": Entry(
        "Dynamic Convolution",
        "Chen et al., Dynamic Convolution: Attention over Convolution Kernels, CVPR 2020",
        "a = softmax(W_2 ReLU(W_1 GAP(x)) / T);  y = conv(x, sum_k a_k W_k)",
        KERNELS + " Rows add up to one.",
        "The simple mixture of kernels; a baseline that is well understood. Anneal T, or few kernels get trained.",
        "The K biases of the paper are one static bias.",
    ),
    "dcd": Entry(
        "Dynamic Convolution Decomposition",
        "Li et al., Revisiting Dynamic Convolution via Matrix Decomposition, ICLR 2021",
        "y = L(x) * conv(x, W_0) + P (BN_2(Phi(x) q) + q),  q = BN_1(Q x);  L in 0..2, Phi is l x l",
        "The diagonal L: one row a validation image, one column a filter. One is neutral.",
        "Few parameters: no second kernel, and no kernel per sample is made. Its many small steps are slow on CPUs.",
        "The squeeze is a ReLU bottleneck; the published code gates it once more. For kernels larger than 1x1 the "
        "low-rank part looks at the middle tap. One and three dimensions pool to 2 cells per dimension as well.",
    ),
    "odconv": Entry(
        "Omni-dimensional dynamic convolution, one kernel",
        "Li, Zhou, Yao, Omni-Dimensional Dynamic Convolution, ICLR 2022",
        "z = ReLU(BN(W GAP(x)));  c, f, s = sigmoid(head(z) / T);  y = f * conv(c * x, s * W)",
        "The spatial attention s of one layer for four images of different classes: which of its 3x3 taps count.",
        "The first thing to try: hardly any parameters more, and the best published accuracy at that price. In our "
        "small studies it was ahead in some tasks and behind in others ([results](results.md)).",
        "The four heads are one matrix product. Batch norm of a single sample uses the running statistics; the "
        "published code stops there. Those statistics lag behind while the learning rate is high: an average of the "
        "weights (EMA, SWA) needs its own, `dc.update_bn(model, batches)`; tsai's `strong` recipe takes them.",
    ),
    "odconv4x": Entry(
        "Omni-dimensional dynamic convolution, four kernels",
        "As above",
        "z as above, a = softmax(head(z) / T);  y = f * conv(c * x, sum_k a_k (s * W_k))",
        KERNELS + " Rows add up to one.",
        "When parameters are no concern; its gain over one kernel is small in the published tables.",
        "As above.",
    ),
    "a2d2c": Entry(
        "A2D2C",
        "Zhang et al., A2D2C: Adaptive Attention-Driven Dynamic Convolution",
        "p = mean over kernels and M points of conv(x, W_k);  a = mean over N sets of softmax(head(p) / T);  "
        "y = conv(x, sum_k a_k W_k)",
        "The positions that the first dynamic layer samples in eval mode, on four images.",
        "Where the global average hides what matters: small objects, fine texture.",
        "The K feature maps are not computed: the average of a convolution's outputs is the kernel times the average "
        "of its input patches, which is exact. Positions are random in training and a fixed, stored set in eval mode. "
        "The shapes of the weight sets are our reading, chosen by the parameter counts; N = 2.",
    ),
    "a2d2cplus": Entry(
        "A2D2C+",
        "As above, section 3.4",
        "y = sum_k a_k * conv(x, W_k)",
        KERNELS + " Rows add up to one.",
        "As a2d2c: by its equation 8 it is the same function, and how it is executed is the engine's choice.",
        "No difference to a2d2c but the name.",
    ),
    "globalsoft": Entry(
        "Global soft attention",
        "Bhati and Sherawat, Comprehensive Study Dynamic CNN, section 2.1.3",
        "A = sigmoid(W GAP(F) + b);  y = conv(A * F, W)",
        "The gates: one row a validation image, one column an input channel.",
        "The cheapest: gates on channels, as squeeze-and-excitation has them, on the convolution's input.",
        "One fully connected layer without a bottleneck, as its equations have it.",
    ),
    "localsoft": Entry(
        "Local soft attention",
        "The same, section 2.1.2, after Zhou and Ng, Kernel Representation for Dynamic Networks, BMVC 2024",
        "KR_l = gate(GAP(x), KR_{l-1}, state);  a[k, pos] = softmax_k((G KR_l + map(x)[pos]) / T);  "
        "y[pos] = sum_k a[k, pos] conv(x, W_k)[pos]",
        "The weight of one kernel at each position of the image.",
        "Dense prediction, where different places of one image want different kernels. K times the multiply-adds.",
        "The texts give no formulas and the code is not to be had: gate and generator are our reading. The carried "
        "representation restarts with every forward of the network it was connected in.",
    ),
    "hard": Entry(
        "Hard attention",
        "The same, section 2.1.4, after Chavan et al., MetaDOCK, CVPR 2022",
        "f = 1[sigmoid(beta (W GAP(x) + b)) > 0.5], or for a task W' = W * 1[sigmoid(beta zeta) > 0.5];  "
        "loss + w1 (mean(mask) - budget)^2 + w2 |zeta|_1",
        "The switches of one layer: one row a validation image, one column a filter, dark is off.",
        "To switch off half of a network: `mask='task'` with `granularity='filter'` and `prune` make it smaller for "
        "good. With `mask='input'` no time is saved yet: the filters that are off are computed and dropped, and in our "
        "studies on real data it was behind its static twin every time ([results](results.md)).",
        "MetaDOCK's mask is per task; the study's selection by input is the default here. The budget is kept for each "
        "convolution by itself. Its gradient joins any trainer's backward pass.",
    ),
    "orconv": Entry(
        "Oriented convolution",
        "The same, section 2.1.5 and section 5 (orientation pooling)",
        "y = max over r of conv(x, rot_r W)",
        "Which of the four rotations won, at each position of one channel of the image's map; one colour a rotation.",
        "Objects at any angle: aerial images, microscopy. No parameters more, R times the multiply-adds.",
        "The study gives no equation. It does not depend on the input otherwise, and a converted network does not "
        "start as the static one: the maximum over rotations is another function.",
    ),
    "fdconv": Entry(
        "FDConv's disjoint weight",
        "Chen et al., Frequency Dynamic Convolution for Dense Image Prediction, CVPR 2025",
        "W_k = inverse Fourier transform of band k of W;  a = K softmax(W_2 ReLU(W_1 GAP(x)) / T);  "
        "y = conv(x, sum_k a_k W_k)",
        KERNELS + " Each row adds up to the number of bands.",
        "Several kernels at the parameters of one. It is here as the example of [adding an operator](extending.md).",
        "The first of the paper's three parts only, and the kernel is stored, not its spectrum.",
    ),
}
