/* The gradients of the shared kernels and of the four factors, from products that never leave the cache. */
#include "blocks.h"

#define PRODUCT 72  /* input channels whose products are made at a time */
#define CACHE 16384 /* bytes of shared kernels that small maps, which go over them once a sample, keep in the first-level cache */
#define NEAR 128    /* rows multiplied at a time: they stay in the second-level cache */

/* product[j] += sum_p x[from[p]][j] * g[to[p]] over a tap's list, for n input channels; `copy` is [NEAR][width]. */
static void outer(const Block *k, const REAL *x, const int *from, const REAL *g, const int *to, long rows, long n,
                  REAL *product, REAL *copy, const int *own) {
    outer_tile_function *const *table = outer_tile_table[tile_width(k->z->vectors)];
    const int whole = k->lanes == k->width;
    while (rows > 0) {
        const long near = least(rows, NEAR);
        for (long p = 0; !whole && p < near; p++) /* into memory that has all lanes */
            memcpy(copy + p * k->width, g + to[p] * k->dst_row, k->lanes * sizeof(REAL));
        for (long j = 0; j < n;) {
            const int tile = tile_of(n - j);
            table[tile](x + j, from, k->src_row, whole ? g : copy, whole ? to : own, whole ? k->dst_row : k->width,
                        near, product + j * k->width);
            j += tile_rows[tile];
        }
        from += near, to += near, rows -= near;
    }
}

/* What one sample's product P of a tap, n input channels from i, adds to every gradient:
 *
 *     dW_k += a_k s c_i f_o P_io        da_k = sum s c_i f_o P_io W_kio       ds = sum_k a_k c_i f_o P_io W_kio
 *     dc_i = sum_ko a_k s f_o P_io W_kio          df_o = sum_ki a_k s c_i P_io W_kio
 *
 * No factor is divided by: any may be zero. total: [K] vectors of memory.
 */
INLINE void spread(const int NV, const Block *k, long t, long i, long n, const REAL *product, const REAL *a, REAL s,
                   const REAL *restrict c, const REAL *f, int first, REAL *dw, REAL *da, REAL *ds, REAL *restrict dc,
                   REAL *df, vec *restrict total) {
    const long kernels = k->z->kernels, step = k->kernel, start = (k->weight - k->base) + (t * k->z->in + i) * NV * LANES;
    const REAL *restrict w = k->base + start;
    REAL *restrict d = dw + start;
    vec factor[WIDE], d_factor[WIDE];
    REAL d_tap = 0;
    UNROLL for (int v = 0; v < NV; v++) {
        factor[v] = load_some(f + v * LANES, k->lanes - v * LANES);
        d_factor[v] = load_some(df + v * LANES, k->lanes - v * LANES);
    }
    for (long kernel = 0; kernel < kernels; kernel++) total[kernel] = (vec){0};
    for (long j = 0; j < n; j++, w += NV * LANES, d += NV * LANES) {
        const REAL scale = s * c[i + j];
        vec p[WIDE], q[WIDE], mixed[WIDE], row = {0};
        UNROLL for (int v = 0; v < NV; v++) {
            p[v] = load(product + (j * NV + v) * LANES);
            q[v] = p[v] * factor[v] * scale;
            mixed[v] = (vec){0};
        }
        for (long kernel = 0; kernel < kernels; kernel++) {
            const REAL weight = a[kernel];
            vec sums[2] = {total[kernel], {0}}; /* two, or each addition waits for the one before */
            UNROLL for (int v = 0; v < NV; v++) {
                const vec wv = load(w + kernel * step + v * LANES);
                mixed[v] += weight * wv;
                sums[v % 2] += q[v] * wv;
            }
            UNROLL for (int v = 0; v < NV; v++) {
                REAL *at = d + kernel * step + v * LANES;
                store(at, first ? weight * q[v] : load(at) + weight * q[v]);
            }
            total[kernel] = sums[0] + sums[1];
        }
        UNROLL for (int v = 0; v < NV; v++) {
            row += p[v] * factor[v] * mixed[v];
            d_factor[v] += scale * p[v] * mixed[v];
        }
        const REAL r = sum(row);
        dc[i + j] = s * r;
        d_tap += c[i + j] * r;
    }
    *ds += d_tap;
    for (long kernel = 0; kernel < kernels; kernel++) da[kernel] += sum(total[kernel]);
    UNROLL for (int v = 0; v < NV; v++) store_some(df + v * LANES, d_factor[v], k->lanes - v * LANES);
}

/* How many pieces the input channels are cut into, so that there is work for every thread. */
long gradient_pieces(const Shape *z) {
    const long tasks = z->groups * blocks_of(z) * z->taps;
    return least(ceil_div(z->threads * TASKS, tasks), ceil_div(z->in, ROWS));
}

/* All gradients but the input's. x is [B][src_rows][groups * in], g [B][dst_rows][groups * out]; with the blocks of
 * output channels of all groups, taps and pieces each a task: dw as the packed weights; the others zero before, and
 * summed by the caller over tasks: da [groups, blocks, taps, pieces][B][K], ds [groups, blocks, pieces][B][taps],
 * dc [blocks, taps][B][groups * in], df [taps, pieces][B][groups * out].
 */
int gradient(const Shape *z, const REAL *x, const REAL *g, const REAL *weight, const REAL *a, const REAL *s,
             const REAL *c, const REAL *f, REAL *dw, REAL *da, REAL *ds, REAL *dc, REAL *df) {
    const long blocks = blocks_of(z), pieces = gradient_pieces(z), width = z->vectors * LANES;
    const long piece = ceil_div(ceil_div(z->in, pieces), ROWS) * ROWS;
    const long few = CACHE / (z->kernels * width * (long)sizeof(REAL)) / ROWS * ROWS;
    const long most = z->dst_rows < SMALL ? least(PRODUCT, few > ROWS ? few : ROWS) : PRODUCT;
    int failed = 0, own[NEAR];
    for (int p = 0; p < NEAR; p++) own[p] = p;
#pragma omp parallel num_threads(z->threads)
    {
        REAL *product = malloc((most + NEAR) * width * sizeof(REAL)), *copy = product + most * width;
        vec *total = malloc(z->kernels * sizeof(vec));
        if (!product || !total) failed = 1;
        else memset(copy, 0, NEAR * width * sizeof(REAL));
#pragma omp for schedule(dynamic)
        for (long task = 0; task < z->groups * blocks * z->taps * pieces; task++) {
            const long part = task % pieces, t = task / pieces % z->taps, index = task / pieces / z->taps;
            const Block k = block_of(z, weight, index);
            const long first = z->offset[t], rows = z->offset[t + 1] - first;
            if (!product || !total) continue;
            for (long i = part * piece; i < least(z->in, (part + 1) * piece); i += most)
                for (long b = 0; b < z->batch; b++) {
                    const long n = least(most, least(z->in, (part + 1) * piece) - i);
                    memset(product, 0, n * width * sizeof(REAL));
                    outer(&k, x + b * z->src_rows * k.src_row + k.group * z->in + i, z->from + first,
                          g + b * z->dst_rows * k.dst_row + first_out(&k), z->to + first, rows, n, product, copy, own);
                    const REAL *ab = a + b * z->kernels, sb = s[b * z->taps + t];
                    const REAL *cb = input_factor(&k, c, b), *fb = output_factor(&k, f, b);
                    REAL *dab = da + (task * z->batch + b) * z->kernels;
                    REAL *dsb = ds + ((index * pieces + part) * z->batch + b) * z->taps + t;
                    REAL *dcb = dc + ((k.block * z->taps + t) * z->batch + b) * k.src_row + k.group * z->in;
                    REAL *dfb = df + ((t * pieces + part) * z->batch + b) * k.dst_row + first_out(&k);
                    switch (z->vectors) {
                    case 1: spread(1, &k, t, i, n, product, ab, sb, cb, fb, !b, dw, dab, dsb, dcb, dfb, total); break;
                    case 2: spread(2, &k, t, i, n, product, ab, sb, cb, fb, !b, dw, dab, dsb, dcb, dfb, total); break;
                    default: spread(WIDE, &k, t, i, n, product, ab, sb, cb, fb, !b, dw, dab, dsb, dcb, dfb, total);
                    }
                }
        }
        free(product), free(total);
    }
    return failed;
}
