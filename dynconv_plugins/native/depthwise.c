/* One filter per channel and sample: no matrix product, every vector of channels by itself.
 *
 * near[row][taps] is the source row that a tap reads for a row of the destination, or -1 in the padding. x is
 * [B][src_rows][channels], kernels [B][taps][channels].
 */
#include "blocks.h"

#define VECTORS 4 /* next to each other: enough independent sums to hide an addition's latency */

typedef struct {
    long batch, taps, channels, src_rows, dst_rows, threads;
    const int *near;
} Depthwise;

INLINE void row(const Depthwise *z, const REAL *x, const REAL *k, const int *near, REAL *y, long lanes, const int whole) {
    vec acc[VECTORS] = {{0}};
    for (long t = 0; t < z->taps; t++) {
        const REAL *xt = x + near[t] * z->channels, *kt = k + t * z->channels;
        if (near[t] < 0) continue;
        UNROLL for (int v = 0; v < VECTORS; v++)
            if (whole) acc[v] += load(xt + v * LANES) * load(kt + v * LANES);
            else acc[v] += load_some(xt + v * LANES, lanes - v * LANES) * load_some(kt + v * LANES, lanes - v * LANES);
    }
    UNROLL for (int v = 0; v < VECTORS; v++) store_some(y + v * LANES, acc[v], whole ? LANES : lanes - v * LANES);
}

void depthwise(const Depthwise *z, const REAL *x, const REAL *kernels, REAL *y) {
    const long width = VECTORS * LANES, blocks = ceil_div(z->channels, width);
#pragma omp parallel for schedule(static) num_threads(z->threads)
    for (long task = 0; task < z->batch * blocks; task++) {
        const long b = task / blocks, first = task % blocks * width, lanes = least(width, z->channels - first);
        const REAL *k = kernels + b * z->taps * z->channels + first, *xb = x + b * z->src_rows * z->channels + first;
        REAL *yb = y + b * z->dst_rows * z->channels + first;
        for (long p = 0; p < z->dst_rows; p++, yb += z->channels)
            if (lanes == width) row(z, xb, k, z->near + p * z->taps, yb, lanes, 1);
            else row(z, xb, k, z->near + p * z->taps, yb, lanes, 0);
    }
}

INLINE void tap(const Depthwise *z, const REAL *x, const REAL *g, long t, REAL *d, long lanes, const int whole) {
    vec acc[VECTORS] = {{0}};
    for (long p = 0; p < z->dst_rows; p++) {
        const int at = z->near[p * z->taps + t];
        const REAL *xp = x + at * z->channels, *gp = g + p * z->channels;
        if (at < 0) continue;
        UNROLL for (int v = 0; v < VECTORS; v++)
            if (whole) acc[v] += load(xp + v * LANES) * load(gp + v * LANES);
            else acc[v] += load_some(xp + v * LANES, lanes - v * LANES) * load_some(gp + v * LANES, lanes - v * LANES);
    }
    UNROLL for (int v = 0; v < VECTORS; v++) store_some(d + v * LANES, acc[v], whole ? LANES : lanes - v * LANES);
}

/* The gradient of the kernels for the output's gradient g. */
void depthwise_gradient(const Depthwise *z, const REAL *x, const REAL *g, REAL *d) {
    const long width = VECTORS * LANES, blocks = ceil_div(z->channels, width);
#pragma omp parallel for schedule(static) num_threads(z->threads)
    for (long task = 0; task < z->batch * blocks; task++) {
        const long b = task / blocks, first = task % blocks * width, lanes = least(width, z->channels - first);
        const REAL *xb = x + b * z->src_rows * z->channels + first, *gb = g + b * z->dst_rows * z->channels + first;
        for (long t = 0; t < z->taps; t++) {
            REAL *dt = d + (b * z->taps + t) * z->channels + first;
            if (lanes == width) tap(z, xb, gb, t, dt, lanes, 1);
            else tap(z, xb, gb, t, dt, lanes, 0);
        }
    }
}
