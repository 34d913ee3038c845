/* What the routines share: a problem's sizes, and one block of output channels of one group.
 *
 * Activations are [B][positions][groups * channels]. `from` and `to` list, tap after tap, the rows of source and
 * destination that a tap connects, in rising order, so that padding costs nothing, and the number of dimensions, strides
 * and dilations do not matter; offset[t] is where tap t's list begins. Weights are packed: [K][groups][blocks][taps]
 * [in][width], zero beyond `out`. Every factor is given: a [B][K], s [B][taps], c [B][groups * in],
 * f [B][groups * out]. Functions return non-zero when there is no memory.
 */
#pragma once
#include <stdlib.h>

#include "tiles.h"

#define SMALL 48 /* maps below this many rows are gone over again for each tap, so that the kernels are not */
#define TASKS 8  /* for each thread, at least */

typedef struct {
    long batch, kernels, taps, in, out, groups, src_rows, dst_rows, vectors, threads;
    const int *from, *to, *offset;
} Shape;

typedef struct {
    const Shape *z;
    long group, block, lanes, width, src_row, dst_row, kernel;
    const REAL *base, *weight; /* all packed weights; this block's of the first kernel */
} Block;

INLINE long ceil_div(long a, long b) { return (a + b - 1) / b; }
INLINE long blocks_of(const Shape *z) { return ceil_div(z->out, z->vectors * LANES); }

/* From one packed kernel to the next: were it a multiple of the page size, as it often is without the last term, the K
 * values that are mixed would share one line of the cache, and each would wait for the store before it. */
INLINE long kernel_size(const Shape *z) {
    return z->groups * blocks_of(z) * z->taps * z->in * z->vectors * LANES + 20 * LANES;
}

INLINE Block block_of(const Shape *z, const REAL *weight, long index) {
    const long width = z->vectors * LANES, blocks = blocks_of(z), size = z->taps * z->in * width;
    return (Block){
        .z = z,
        .group = index / blocks,
        .block = index % blocks,
        .lanes = least(width, z->out - index % blocks * width),
        .width = width,
        .src_row = z->groups * z->in,
        .dst_row = z->groups * z->out,
        .kernel = kernel_size(z),
        .base = weight,
        .weight = weight + index * size,
    };
}
INLINE long first_out(const Block *k) { return k->group * k->z->out + k->block * k->width; }

/* The factors of sample b, for this block. */
INLINE const REAL *input_factor(const Block *k, const REAL *c, long b) {
    return c + b * k->src_row + k->group * k->z->in;
}
INLINE const REAL *output_factor(const Block *k, const REAL *f, long b) { return f + b * k->dst_row + first_out(k); }
