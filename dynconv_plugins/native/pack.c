/* Kernels in the order the tiles read them: [K][groups][blocks][taps][in][width], zero beyond `out`. */
#include "blocks.h"

#define CHUNK 16 /* input channels moved at a time */

/* The strides of a weight in elements: of a kernel, a group, an output channel, an input channel and a tap. Of a filter,
 * either a channel's taps lie side by side and then the next channel's, or a tap's channels do. To be packed for the
 * way back, output and input channels change places.
 */
typedef struct {
    long kernel, group, out, in, tap;
} Strides;

/* Copies n input channels of one output channel, all taps, in the order they have in memory; back from `near`. */
INLINE void copy(const int back, const Strides *by, long taps, long n, REAL *far, REAL *near) {
    const int together = by->tap == 1 && by->in == taps;
    for (long t = 0; t < (together ? 1 : taps); t++) {
        REAL *f = far + t * by->tap, *c = near + t * CHUNK;
        const size_t bytes = (together ? taps * n : n) * sizeof(REAL);
        if (back) memcpy(f, c, bytes);
        else memcpy(c, f, bytes);
    }
}

/* One row of the packed weight, from values that are `step` apart. */
INLINE void line(const REAL *from, long step, long lanes, REAL *to, long width) {
    if (step == 1) memcpy(to, from, lanes * sizeof(REAL));
    else if (lanes < width)
        for (long o = 0; o < lanes; o++) to[o] = from[o * step];
    else
        for (long first = 0; first < width; first += LANES)
            UNROLL for (long o = first; o < first + LANES; o++) to[o] = from[o * step];
    memset(to + lanes, 0, (width - lanes) * sizeof(REAL));
}

/* Every value of the packed weight and its place in the other; `back` says which is written.
 *
 * By way of a small piece that stays in cache, so that memory is read and written in runs: an output channel's
 * neighbours are far apart in one order, and next to each other in the other.
 */
INLINE int move(const int back, const Shape *z, const Strides *by, REAL *weight, REAL *packed) {
    const long width = z->vectors * LANES, blocks = blocks_of(z), all = z->kernels * z->groups * blocks;
    const int together = by->tap == 1 && by->in == z->taps;
    const long in = together ? z->taps : 1, tap = together ? 1 : CHUNK, row = CHUNK * z->taps + 1;
    int failed = 0;
#pragma omp parallel num_threads(z->threads)
    {
        REAL *piece = calloc(width * row, sizeof(REAL));
        if (!piece) failed = 1;
#pragma omp for schedule(static)
        for (long block = 0; block < all; block++) {
            const long one = z->groups * blocks, lanes = least(width, z->out - block % blocks * width);
            REAL *w = weight + block / one * by->kernel + block / blocks % z->groups * by->group +
                      block % blocks * width * by->out;
            REAL *p = packed + block / one * kernel_size(z) + block % one * z->taps * z->in * width;
            for (long i = 0; by->out < by->in && i < z->in; i += CHUNK) /* exchanged: neighbours are neighbours */
                for (long t = 0; t < z->taps; t++)
                    for (long j = i; j < least(i + CHUNK, z->in); j++)
                        line(w + j * by->in + t * by->tap, by->out, lanes, p + (t * z->in + j) * width, width);
            for (long i = 0; by->out >= by->in && piece && i < z->in; i += CHUNK) {
                const long n = least(CHUNK, z->in - i);
                for (long o = 0; !back && o < lanes; o++)
                    copy(0, by, z->taps, n, w + o * by->out + i * by->in, piece + o * row);
                for (long t = 0; t < z->taps; t++)
                    for (long j = 0; j < n; j++) {
                        REAL *to = p + (t * z->in + i + j) * width, *from = piece + j * in + t * tap;
                        if (back) __builtin_prefetch(to + z->in * width), __builtin_prefetch(to + z->in * width + LANES * 2);
                        for (long first = 0; first < width; first += LANES)
                            UNROLL for (long o = first; o < first + LANES; o++) {
                                if (back) from[o * row] = to[o];
                                else to[o] = from[o * row];
                            }
                    }
                for (long o = 0; back && o < lanes; o++)
                    copy(1, by, z->taps, n, w + o * by->out + i * by->in, piece + o * row);
            }
        }
        free(piece);
    }
    return failed;
}

int pack(const Shape *z, const Strides *by, const REAL *weight, REAL *packed) {
    return move(0, z, by, (REAL *)weight, packed);
}
int unpack(const Shape *z, const Strides *by, const REAL *packed, REAL *weight) {
    return move(1, z, by, weight, (REAL *)packed);
}

long packed_size(const Shape *z) { return z->kernels * kernel_size(z); }

/* The vectors that fit best side by side for so many output channels of a group, and how many values they hold. */
long vectors_for(long out) { return out > 2 * LANES && WIDEST == 4 ? 4 : out > LANES ? 2 : 1; }
long width_of(long vectors) { return vectors * LANES; }
