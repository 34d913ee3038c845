"""The gradients of a dynamic convolution to its kernels and its attentions, in Triton's language.

As in `convolve`, nothing but Triton's built-in functions is called. ``tl.sum`` is none of them, but what it is made of.
"""

from __future__ import annotations

import triton.language as tl
from triton.language.standard import _sum_combine


def correlate(
    x,  # [batch, groups * I, n0, n1, n2]
    gy,  # [batch, groups * O, o0, o1, o2]
    w,  # [K, groups, O, I] per tap, by strides
    a,  # [batch, K]
    s,  # [batch, taps]
    c,  # [batch, groups * I]
    f,  # [batch, groups * O]
    gw,  # [chunks, K, groups * O, taps, I]
    ga,  # [programs of a chunk, batch, K]
    gs,  # [programs of a tap, batch, taps]
    gc,  # [taps * tiles of O, batch, groups * I]
    gf,  # [taps * tiles of I, batch, groups * O]
    batch,
    chunk,
    groups,
    O,  # noqa: E741 - the letter of the equation
    I,  # noqa: E741 - the same
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
    gb,
    gch,
    g0,
    g1,
    g2,
    wk,
    wo,
    wi,
    w0,
    w1,
    w2,
    K: tl.constexpr,
    HAS_A: tl.constexpr,
    HAS_S: tl.constexpr,
    HAS_C: tl.constexpr,
    HAS_F: tl.constexpr,
    FOR_W: tl.constexpr,
    FOR_A: tl.constexpr,
    FOR_S: tl.constexpr,
    FOR_C: tl.constexpr,
    FOR_F: tl.constexpr,
    PRECISION: tl.constexpr,
    WIDEN: tl.constexpr,
    BO: tl.constexpr,
    BI: tl.constexpr,
    BP: tl.constexpr,
):
    """What every gradient is made of is one sample's ``G[o, i] = sum_p gy[o, p] x[i, stride p + step t + start]``:

    to the kernels ``sum_b a_k s f c G``, and to a factor the product of G, the kernels and all the other factors,
    summed over what the factor does not depend on. A program computes G for BO times BI channels of one tap, of one
    sample after the other; the kernels' gradients stay in registers until its chunk of samples is done. Nothing is
    divided by a factor, and every sum has its place in a buffer, which the caller adds up: the same result each time.
    """
    pid = tl.program_id(0)
    taps = t0 * t1 * t2
    tiles_o = (O + BO - 1) // BO
    tiles_i = (I + BI - 1) // BI
    programs = taps * tiles_o * tiles_i * groups
    here = pid % programs
    tap = here % taps
    tile_i = here // taps % tiles_i
    tile_o = here // (taps * tiles_i) % tiles_o
    g = here // (taps * tiles_i * tiles_o)
    i = tile_i * BI + tl.arange(0, BI)
    o = tile_o * BO + tl.arange(0, BO)
    ok_i = i < I
    ok_o = o < O
    ok = ok_o[:, None] & ok_i[None, :]
    i0 = tap // (t1 * t2)
    i1 = tap // t2 % t1
    i2 = tap % t2
    positions = o0 * o1 * o2
    of_w = w + g * O * wo + (i0 * w0 + i1 * w1 + i2 * w2) + (o * wo)[:, None] + (i * wi)[None, :]
    grads = ()
    if FOR_W:
        for _ in tl.static_range(K):
            grads += (tl.full((BO, BI), 0.0, tl.float32),)
    first = pid // programs * chunk
    last = first + chunk
    if last > batch:
        last = batch
    for b in range(first, last):
        of_x = x + tl.cast(b, tl.int64) * xb + g * I * xc
        of_g = gy + tl.cast(b, tl.int64) * gb + g * O * gch
        G = tl.full((BO, BI), 0.0, tl.float32)
        for block in range(0, positions, BP):
            p = block + tl.arange(0, BP)
            ok_p = p < positions
            p0 = p // (o1 * o2)
            p1 = p // o2 % o1
            p2 = p % o2
            j0 = p0 * stride0 + i0 * step0 + start0
            j1 = p1 * stride1 + i1 * step1 + start1
            j2 = p2 * stride2 + i2 * step2 + start2
            inside = ok_p & (j0 >= 0) & (j0 < n0) & (j1 >= 0) & (j1 < n1) & (j2 >= 0) & (j2 < n2)
            at_g = (p0 * g0 + p1 * g1 + p2 * g2)[None, :] + (o * gch)[:, None]
            at_x = (j0 * x0 + j1 * x1 + j2 * x2)[:, None] + (i * xc)[None, :]
            left = tl.load(of_g + at_g, mask=ok_o[:, None] & ok_p[None, :], other=0.0)
            right = tl.load(of_x + at_x, mask=inside[:, None] & ok_i[None, :], other=0.0)
            if WIDEN:
                left, right = left.to(tl.float32), right.to(tl.float32)
            G = tl.dot(left, right, G, input_precision=PRECISION)
        tap_factor = tl.load(s + b * taps + tap).to(tl.float32) if HAS_S else 1.0
        scaled = G
        if HAS_F:
            filters = tl.load(f + (b * groups + g) * O + o, mask=ok_o, other=0.0).to(tl.float32)
            scaled = scaled * filters[:, None]
        if HAS_C:
            channels = tl.load(c + (b * groups + g) * I + i, mask=ok_i, other=0.0).to(tl.float32)
            scaled = scaled * channels[None, :]
        if FOR_C or FOR_F:
            mixed = tl.full((BO, BI), 0.0, tl.float32)
        whole = 0.0
        added = ()
        for k in tl.static_range(K):
            mixing = tl.load(a + b * K + k).to(tl.float32) if HAS_A else 1.0
            if FOR_W:
                added += (grads[k] + scaled * (mixing * tap_factor),)
            if FOR_A or FOR_S or FOR_C or FOR_F:
                one = tl.load(of_w + k * wk, mask=ok, other=0.0).to(tl.float32)
            if FOR_C or FOR_F:
                mixed += one * mixing
            if FOR_A or FOR_S:
                inner = tl.reduce(tl.reduce(one * scaled, 1, _sum_combine), 0, _sum_combine)
                whole += inner * mixing
                if FOR_A:
                    tl.store(ga + (tl.cast(here, tl.int64) * batch + b) * K + k, inner * tap_factor)
        grads = added
        if FOR_S:
            tl.store(gs + (tl.cast(here // taps, tl.int64) * batch + b) * taps + tap, whole)
        if FOR_C or FOR_F:
            mixed = mixed * G * tap_factor
        if FOR_C:
            of_c = gc + ((tl.cast(tile_o * taps + tap, tl.int64) * batch + b) * groups + g) * I + i
            tl.store(of_c, tl.reduce(mixed * filters[:, None] if HAS_F else mixed, 0, _sum_combine), mask=ok_i)
        if FOR_F:
            of_f = gf + ((tl.cast(tile_i * taps + tap, tl.int64) * batch + b) * groups + g) * O + o
            tl.store(of_f, tl.reduce(mixed * channels[None, :] if HAS_C else mixed, 1, _sum_combine), mask=ok_o)
    if FOR_W:
        for k in tl.static_range(K):
            row = tl.cast((pid // programs * K + k) * groups + g, tl.int64) * O + o
            tl.store(gw + (row * taps + tap)[:, None] * I + i[None, :], grads[k], mask=ok)
