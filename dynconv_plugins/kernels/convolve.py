"""The implicit GEMM of a dynamic convolution and of its gradient to the input, in Triton's language.

A function of this module is no kernel yet: `compiling.kernel` compiles it, or hands it to Triton's interpreter. It
calls none but Triton's built-in functions, so that either works whatever Triton was first imported for.
"""

from __future__ import annotations

import triton.language as tl


def convolve(
    x,  # [batch, groups * R, n0, n1, n2]
    w,  # [K, groups, M, R] per tap (t0, t1, t2), by strides
    a,  # [batch, K]
    s,  # [batch, t0, t1, t2]
    c,  # [batch, groups * R]
    f,  # [batch, groups * M]
    y,  # [batch, groups * M, o0, o1, o2]
    batch,
    groups,
    M,
    R,
    n0,
    n1,
    n2,
    o0,
    o1,
    o2,
    t0,
    t1,
    t2,
    stride0,
    stride1,
    stride2,
    step0,
    step1,
    step2,
    start0,
    start1,
    start2,
    xb,
    xc,
    x0,
    x1,
    x2,
    yb,
    yc,
    y0,
    y1,
    y2,
    wk,
    wg,
    wm,
    wr,
    w0,
    w1,
    w2,
    sb,
    s0,
    s1,
    s2,
    K: tl.constexpr,
    HAS_A: tl.constexpr,
    HAS_S: tl.constexpr,
    HAS_C: tl.constexpr,
    HAS_F: tl.constexpr,
    SHARED: tl.constexpr,
    PRECISION: tl.constexpr,
    WIDEN: tl.constexpr,
    BM: tl.constexpr,
    BN: tl.constexpr,
    BR: tl.constexpr,
):
    """``y[b, m, p] = f[b, m] sum_tr (sum_k a[b, k] w[k, m, r, t]) s[b, t] c[b, r] x[b, r, stride p + step t + start]``

    The gradient to the input is of the same form, with a negative step. A program computes BM channels of BN positions.
    Unless SHARED, the positions are one sample's and the factors meet in the kernel: its K tiles are mixed in registers
    on their way to the product. If SHARED, the positions run on from sample to sample, the K kernels follow one
    another in the sum, and the factors meet in the input; small maps then fill their tiles.
    """
    pid = tl.program_id(0)
    tiles_m = (M + BM - 1) // BM
    positions = o0 * o1 * o2
    m = pid % tiles_m * BM + tl.arange(0, BM)
    rest = pid // tiles_m
    if SHARED:
        tiles_n = (batch * positions + BN - 1) // BN
        n = rest % tiles_n * BN + tl.arange(0, BN)
        g = rest // tiles_n
        ok_n = n < batch * positions
        b = tl.where(ok_n, n // positions, 0)
        p = n % positions
    else:
        tiles_n = (positions + BN - 1) // BN
        p = rest % tiles_n * BN + tl.arange(0, BN)
        rest = rest // tiles_n
        g = rest % groups
        b = rest // groups
        ok_n = p < positions
    ok_m = m < M
    p0 = p // (o1 * o2)
    p1 = p // o2 % o1
    p2 = p % o2
    # A sample's own offsets fit into 32 bits, which `supports` sees to; where the sample lies may not.
    of_x = x + b.to(tl.int64) * xb + g * R * xc
    of_y = y + b.to(tl.int64) * yb + g * M * yc
    from0 = p0 * stride0 + start0
    from1 = p1 * stride1 + start1
    from2 = p2 * stride2 + start2
    mixing = ()
    if HAS_A and not SHARED:
        for k in tl.static_range(K):
            mixing += (tl.load(a + b * K + k).to(tl.float32),)
    acc = tl.full((BM, BN), 0.0, tl.float32)
    blocks = (R + BR - 1) // BR
    steps = t0 * t1 * t2 * blocks
    if SHARED:
        steps *= K
    # One loop, not one in the other: a few channels then still leave many steps to overlap.
    for i in range(steps):
        at = i // K if SHARED else i
        tap = at // blocks
        r = at % blocks * BR + tl.arange(0, BR)
        ok_r = r < R
        i0 = tap // (t1 * t2)
        i1 = tap // t2 % t1
        i2 = tap % t2
        j0 = from0 + i0 * step0
        j1 = from1 + i1 * step1
        j2 = from2 + i2 * step2
        inside = ok_n & (j0 >= 0) & (j0 < n0) & (j1 >= 0) & (j1 < n1) & (j2 >= 0) & (j2 < n2)
        where = of_x + (j0 * x0 + j1 * x1 + j2 * x2)
        values = tl.load(where[None, :] + (r * xc)[:, None], mask=ok_r[:, None] & inside[None, :], other=0.0)
        of_w = w + g * wg + i0 * w0 + i1 * w1 + i2 * w2 + (m * wm)[:, None] + (r * wr)[None, :]
        ok_w = ok_m[:, None] & ok_r[None, :]
        of_s = s + b * sb + i0 * s0 + i1 * s1 + i2 * s2
        if SHARED:
            k = i % K
            tile = tl.load(of_w + k * wk, mask=ok_w, other=0.0)
            if HAS_A or HAS_S or HAS_C:
                scaled = values.to(tl.float32)
                if HAS_A:
                    scaled *= tl.load(a + b * K + k).to(tl.float32)[None, :]
                if HAS_S:
                    scaled *= tl.load(of_s).to(tl.float32)[None, :]
                if HAS_C:
                    of_c = c + (b * groups + g)[None, :] * R + r[:, None]
                    scaled *= tl.load(of_c, mask=ok_r[:, None], other=0.0).to(tl.float32)
                values = scaled.to(values.dtype)
        else:
            mixed = tl.full((BM, BR), 0.0, tl.float32)
            for k in tl.static_range(K):
                one = tl.load(of_w + k * wk, mask=ok_w, other=0.0).to(tl.float32)
                mixed += one * mixing[k] if HAS_A else one
            if HAS_C:
                factor = tl.load(c + (b * groups + g) * R + r, mask=ok_r, other=0.0).to(tl.float32)
                if HAS_S:
                    factor *= tl.load(of_s).to(tl.float32)
                mixed *= factor[None, :]
            elif HAS_S:
                mixed *= tl.load(of_s).to(tl.float32)
            tile = mixed.to(values.dtype)
        if WIDEN:
            tile, values = tile.to(tl.float32), values.to(tl.float32)
        acc = tl.dot(tile, values, acc, input_precision=PRECISION)
    ok = ok_m[:, None] & ok_n[None, :]
    if HAS_F:
        if SHARED:
            of_f = f + (b * groups + g)[None, :] * M + m[:, None]
            acc *= tl.load(of_f, mask=ok, other=0.0).to(tl.float32)
        else:
            acc *= tl.load(f + (b * groups + g) * M + m, mask=ok_m, other=0.0).to(tl.float32)[:, None]
    where = of_y + (p0 * y0 + p1 * y1 + p2 * y2)
    tl.store(where[None, :] + (m * yc)[:, None], acc.to(y.dtype.element_ty), mask=ok)
