/* The convolution: kernels are mixed and scaled block by block, in cache, right before their use. */
#include "blocks.h"

#define POSITIONS 256 /* rows of a large map worked on at a time: they stay in the second-level cache */
#define CHANNELS 64   /* input channels worked on at a time: a tap of the mixed kernel stays in the first-level cache */

INLINE void mix_tap(const int NV, const Block *k, long t, long i, long n, const REAL *a, REAL s, const REAL *c,
                    const REAL *f, REAL *mixed) {
    vec factor[WIDE];
    UNROLL for (int v = 0; v < NV; v++) factor[v] = load_some(f + v * LANES, k->lanes - v * LANES);
    for (long j = 0; j < n; j++) {
        const REAL *w = k->weight + (t * k->z->in + i + j) * NV * LANES;
        const REAL scale = s * c[i + j];
        vec m[WIDE];
        UNROLL for (int v = 0; v < NV; v++) m[v] = a[0] * load(w + v * LANES);
        for (long kernel = 1; kernel < k->z->kernels; kernel++) {
            w += k->kernel;
            UNROLL for (int v = 0; v < NV; v++) m[v] += a[kernel] * load(w + v * LANES);
        }
        UNROLL for (int v = 0; v < NV; v++) store(mixed + (j * NV + v) * LANES, m[v] * factor[v] * scale);
    }
}

/* Sample b's kernel, mixed and with its factors, for one tap and n input channels: [n][width]. */
static void mix(const Block *k, long t, long b, long i, long n, const REAL *const factors[4], REAL *mixed) {
    const Shape *z = k->z;
    const REAL *a = factors[0] + b * z->kernels, s = factors[1][b * z->taps + t];
    const REAL *c = input_factor(k, factors[2], b), *f = output_factor(k, factors[3], b);
    switch (z->vectors) {
    case 1: mix_tap(1, k, t, i, n, a, s, c, f, mixed); break;
    case 2: mix_tap(2, k, t, i, n, a, s, c, f, mixed); break;
    default: mix_tap(WIDE, k, t, i, n, a, s, c, f, mixed);
    }
}

/* y[to] += x[from] @ mixed for some rows of a tap's list. */
static void multiply(const Block *k, const REAL *x, const int *from, const REAL *mixed, long n, REAL *y, const int *to,
                     long rows) {
    rows_tile_function *const *table = rows_tile_table[tile_width(k->z->vectors)];
    static const int own[] = {0, 1, 2, 3, 4, 5};
    while (rows > 0) {
        const int tile = tile_of(rows), count = tile_rows[tile];
        if (k->lanes == k->width) {
            table[tile](x, from, k->src_row, mixed, n, y, to, k->dst_row);
        } else { /* in memory that has all lanes */
            REAL part[ROWS * WIDE * LANES];
            for (int r = 0; r < count; r++) memcpy(part + r * k->width, y + to[r] * k->dst_row, k->lanes * sizeof(REAL));
            table[tile](x, from, k->src_row, mixed, n, part, own, k->width);
            for (int r = 0; r < count; r++) memcpy(y + to[r] * k->dst_row, part + r * k->width, k->lanes * sizeof(REAL));
        }
        from += count, to += count, rows -= count;
    }
}

/* dst[to] += src[from] @ (each sample's kernel at each tap); dst is zero before. */
int convolve(const Shape *z, const REAL *src, const REAL *weight, const REAL *a, const REAL *s, const REAL *c,
             const REAL *f, REAL *dst) {
    if (!z->batch) return 0;
    const long all = z->groups * blocks_of(z), most = z->src_rows > z->dst_rows ? z->src_rows : z->dst_rows;
    const long splits = least(z->batch, ceil_div(z->threads * TASKS, all)), share = ceil_div(z->batch, splits);
    const long parts = ceil_div(most, POSITIONS), together = most < SMALL ? 1 : z->taps;
    const long chunk = least(z->in, CHANNELS), size = chunk * z->vectors * LANES;
    const REAL *const factors[] = {a, s, c, f};
    int failed = 0;
#pragma omp parallel num_threads(z->threads)
    {
        REAL *mixed = malloc((parts > 1 ? z->taps : 1) * size * sizeof(REAL));
        if (!mixed) failed = 1;
#pragma omp for schedule(dynamic)
        for (long task = 0; task < all * splits; task++) {
            if (!mixed) continue;
            const Block k = block_of(z, weight, task / splits);
            const long first = task % splits * share, stop = least(first + share, z->batch);
            for (long i = 0; i < z->in; i += chunk)
                for (long group = 0; group < z->taps; group += together)
                    for (long b = first; b < stop; b++) {
                        const long n = least(chunk, z->in - i);
                        const REAL *x = src + b * z->src_rows * k.src_row + k.group * z->in + i;
                        REAL *y = dst + b * z->dst_rows * k.dst_row + first_out(&k);
                        for (long part = 0; part < parts; part++)
                            for (long t = group; t < group + together; t++) {
                                const long rows = z->offset[t + 1] - z->offset[t];
                                const long from = z->offset[t] + rows * part / parts;
                                REAL *tap = parts > 1 ? mixed + t * size : mixed;
                                if (!rows) continue;
                                if (!part) mix(&k, t, b, i, n, factors, tap);
                                multiply(&k, x, z->from + from, tap, n, y, z->to + from,
                                         z->offset[t] + rows * (part + 1) / parts - from);
                            }
                    }
        }
        free(mixed);
    }
    return failed;
}
