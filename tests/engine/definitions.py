"""Every operator once more, from its paper's formula: float64, sample by sample, without the engine or its modules.

A definition takes the operator (for its parameters and geometry only) and ``[B, C_in, *S]``.
"""

from __future__ import annotations

import bisect
import math

import torch
import torch.nn.functional as F
from torch import Tensor

CONV = {1: F.conv1d, 2: F.conv2d, 3: F.conv3d}


def sizes(op) -> tuple[int, ...]:
    """The padding as numbers; the battery's definitions are asked for even padding only."""
    if op.padding == "same":
        return tuple(d * (k - 1) // 2 for d, k in zip(op.dilation, op.kernel_size, strict=True))
    return (0,) * op.dims if op.padding == "valid" else op.padding


def static(op, x: Tensor, weight: Tensor) -> Tensor:
    """torch's convolution with the operator's geometry, without bias."""
    return CONV[op.dims](x, weight, None, op.stride, sizes(op), op.dilation, op.groups)


def gap(x: Tensor) -> Tensor:
    """Global average pooling."""
    return x.mean(tuple(range(2, x.dim())))


def norm(layer, z: Tensor, axes: tuple[int, ...] = (0,)) -> Tensor:
    """Batch norm over `axes`, with the batch's statistics in training."""
    shape = [1 if i in axes else -1 for i in range(z.dim())]
    mean, var = layer.running_mean.reshape(shape), layer.running_var.reshape(shape)
    if layer.training and math.prod(z.shape[i] for i in axes) > 1:
        mean, var = z.mean(axes, keepdim=True), z.var(axes, unbiased=False, keepdim=True)
    return (z - mean) / (var + layer.eps).sqrt() * layer.weight.reshape(shape) + layer.bias.reshape(shape)


def linear(layer, z: Tensor) -> Tensor:
    """``z W^T + b``."""
    y = z @ layer.weight.t()
    return y if layer.bias is None else y + layer.bias


def equation(op, x: Tensor, a=None, s=None, c=None, f=None) -> Tensor:
    """``y_b = f_b * conv(c_b * x_b, sum_k a_bk (s_b * W_k)) + bias``, one sample and one kernel at a time."""
    one = (1,) * op.dims
    weights = op.weight.reshape(-1, op.out_channels, *op.weight.shape[1:])
    outputs = []
    for b in range(len(x)):
        xb = x[b : b + 1] if c is None else x[b : b + 1] * c[b].reshape(1, -1, *one)
        y = 0
        for k, weight in enumerate(weights):
            yk = static(op, xb, weight if s is None else weight * s[b].reshape(op.kernel_size))
            y = y + (yk if a is None else yk * a[b, k])
        y = y if f is None else y * f[b].reshape(1, -1, *one)
        outputs.append(y if op.bias is None else y + op.bias.reshape(-1, *one))
    return torch.cat(outputs)


def condconv(op, x: Tensor) -> Tensor:
    """CondConv: ``a = sigmoid(W GAP(x) + b)``."""
    return equation(op, x, a=1 / (1 + (-linear(op.attention.routing, gap(x))).exp()))


def dyconv(op, x: Tensor) -> Tensor:
    """Dynamic Convolution: ``a = softmax(W_2 ReLU(W_1 GAP(x)) / T)``."""
    head = op.attention
    z = linear(head.logits, linear(head.squeeze, gap(x)).clamp(min=0)) / head.temperature
    return equation(op, x, a=z.exp() / z.exp().sum(1, keepdim=True))


def odconv(op, x: Tensor) -> Tensor:
    """ODConv: ``z = ReLU(BN(W GAP(x)))``; c, f, s by sigmoid and a by softmax, all of logits over T."""
    head = op.attention
    z = norm(head.norm, linear(head.squeeze, gap(x))).clamp(min=0)
    logits = linear(head.logits, z) / head.temperature
    depthwise = op.groups == op.in_channels == op.out_channels
    taps = math.prod(op.kernel_size)
    gates = [op.in_channels, 0 if depthwise else op.out_channels, taps if taps > 1 else 0]
    c, f, s, a = logits.split([*gates, op.num_kernels if op.num_kernels > 1 else 0], 1)
    return equation(
        op,
        x,
        a=a.softmax(1) if a.numel() else None,
        s=s.sigmoid() if s.numel() else None,
        c=c.sigmoid(),
        f=f.sigmoid() if f.numel() else None,
    )


def globalsoft(op, x: Tensor) -> Tensor:
    """The study: ``F_new = sigmoid(W GAP(F)) * F``, then the convolution."""
    return equation(op, x, c=linear(op.attention.gate, gap(x)).sigmoid())


def localsoft(op, x: Tensor) -> Tensor:
    """One layer of our reading of the study's 2.1.2: weights per position from a gated state and a local map."""
    head, one = op.attention, (1,) * op.dims
    d, before = gap(x), head.state.expand(len(x), -1)
    u = linear(head.gate, torch.cat([d, before], 1)).sigmoid()
    representation = (1 - u) * before + u * (linear(head.proposal, d) + head.state).tanh()
    # A 1x1 map, then the average over the kernel's taps: one convolution with a constant kernel.
    weight = head.local.weight.reshape(op.num_kernels, -1, *one).expand(-1, -1, *op.kernel_size)
    local = CONV[op.dims](x, weight / weight[0, 0].numel(), None, op.stride, sizes(op), op.dilation)
    logits = (linear(head.generator, representation).reshape(len(x), -1, *one) + local) / head.temperature
    a = logits.exp() / logits.exp().sum(1, keepdim=True)
    weights = op.weight.reshape(-1, op.out_channels, *op.weight.shape[1:])
    y = sum(a[:, k, None] * static(op, x, weight) for k, weight in enumerate(weights))
    return y if op.bias is None else y + op.bias.reshape(-1, *one)


def hard(op, x: Tensor) -> Tensor:
    """MetaDOCK's switch, per filter from the input or per slice of the kernel; its gradient is the sigmoid's."""
    beta = op.beta
    if op.mask == "input":
        soft = (beta * linear(op.attention.logits, gap(x))).sigmoid()
        return equation(op, x, f=soft + ((soft > 0.5).double() - soft).detach())
    soft = (beta * op.zeta).sigmoid()
    weight = op.weight * (soft + ((soft > 0.5).double() - soft).detach())
    y = static(op, x, weight)
    return y if op.bias is None else y + op.bias.reshape(-1, *(1,) * op.dims)


def dcd(op, x: Tensor) -> Tensor:
    """DCD: ``L conv(x, W_0) + P (BN_2(Phi q) + q)``, ``q = BN_1(Q x)`` under the kernel's middle tap."""
    head, one = op.attention, (1,) * op.dims
    cells = (F.adaptive_avg_pool1d, F.adaptive_avg_pool2d, F.adaptive_avg_pool3d)[op.dims - 1](x, head.grid)
    z = linear(head.squeeze, cells.reshape(len(x), -1)).clamp(min=0)
    scale = (linear(head.scale, z) / 3 + 1).clamp(0, 2)
    phi = linear(head.mixing, z).reshape(len(x), head.latent, head.latent)
    # The middle tap alone, as a convolution of the same geometry.
    middle = tuple((k - 1) // 2 for k in op.kernel_size)
    weight = x.new_zeros(head.latent, op.in_channels, *op.kernel_size)
    weight[(slice(None), slice(None), *middle)] = 1.0
    weight = weight * op.q.weight.reshape(head.latent, -1, *one)
    q = CONV[op.dims](x, weight, None, op.stride, sizes(op), op.dilation)
    axes = (0, *range(2, x.dim()))
    q = norm(op.norm1, q, axes)
    mixed = torch.stack([torch.einsum("ij,j...->i...", phi[b], q[b]) for b in range(len(x))])
    residual = torch.einsum("oj,bj...->bo...", op.p.weight, norm(op.norm2, mixed, axes) + q)
    return equation(op, x, f=scale) + residual


def a2d2c(op, x: Tensor) -> Tensor:
    """A2D2C: average the K feature maps over sampled points and kernels, bottleneck, softmax, mix, convolve.

    In training the positions come from torch's generator, which the caller seeds.
    """
    head = op.attention
    weights = op.weight.reshape(-1, op.out_channels, *op.weight.shape[1:])
    maps = torch.stack([static(op, x, weight).flatten(2) for weight in weights])
    total = maps.shape[-1]
    points = [list(range(total))]
    if op.sampling != "none":
        where = torch.rand_like(op.positions) if op.training and op.sampling == "random" else op.positions
        points = (where * total).floor().long().clamp(max=total - 1).tolist()
    p = torch.stack([maps[..., chosen].mean((0, 3)) for chosen in points], 1)
    z = norm(head.norm, linear(head.squeeze, p), (0, 1)).clamp(min=0)
    return equation(op, x, a=(linear(head.logits, z) / head.temperature).softmax(2).mean(1))


def orconv(op, x: Tensor) -> Tensor:
    """Rotated copies of one kernel by quarter turns, a convolution with each, their maximum or mean."""
    assert op.rotations in (2, 4)
    if op.dims == 1:
        turned = [op.weight, op.weight.flip(2)]
    else:
        turned = [torch.rot90(op.weight, i * 4 // op.rotations, (-2, -1)) for i in range(op.rotations)]
    maps = torch.stack([static(op, x, weight) for weight in turned])
    y = maps.max(0).values if op.pool == "max" else maps.mean(0)
    return y if op.bias is None else y + op.bias.reshape(-1, *(1,) * op.dims)


def dft(n: int) -> Tensor:
    """The matrix of the discrete Fourier transform, ``exp(-2 pi i j k / n)``."""
    k = torch.arange(n, dtype=torch.float64)
    return torch.polar(torch.ones(n, n, dtype=torch.float64), -2 * math.pi * torch.outer(k, k) / n)


def fdconv(op, x: Tensor) -> Tensor:
    """FDConv's disjoint weight: the kernel's spectrum in K bands of growing frequency, each transformed back."""
    count, last = op.num_kernels, op.kernel_size[-1]
    # Rows are input channels and all axes of the kernel but the last, columns are filters and the last.
    blocks = op.weight.reshape(op.out_channels, op.weight.shape[1], -1, last)
    plane = blocks.permute(1, 2, 0, 3).reshape(-1, op.out_channels * last)
    rows, columns = plane.shape
    spectrum = dft(rows) @ plane.to(torch.complex128) @ dft(columns)
    # Frequencies above the middle are the negative ones.
    signed = [[k if 2 * k <= n else k - n for k in range(n)] for n in (rows, columns)]
    lengths = [[(u * columns) ** 2 + (v * rows) ** 2 for v in signed[1]] for u in signed[0]]
    order = sorted(sum(lengths, []))
    band = torch.tensor([[bisect.bisect_left(order, n) * count // len(order) for n in row] for row in lengths])
    head = op.attention
    z = linear(head.logits, linear(head.squeeze, gap(x)).clamp(min=0)) / head.temperature
    a = count * z.exp() / z.exp().sum(1, keepdim=True)
    y = 0
    for k in range(count):
        kernel = dft(rows).conj() @ (spectrum * (band == k)) @ dft(columns).conj() / len(order)
        assert kernel.imag.abs().max() < 1e-12
        kernel = kernel.real.reshape(*blocks.shape[1:3], op.out_channels, last).permute(2, 0, 1, 3)
        y = y + a[:, k].reshape(-1, 1, *(1,) * op.dims) * static(op, x, kernel.reshape(op.weight.shape))
    return y if op.bias is None else y + op.bias.reshape(-1, *(1,) * op.dims)
