/* Kernels in the order the tiles read them: [K][groups][blocks][taps][in][width], zero beyond `out`. */
#include "blocks.h"

/* The strides of a weight in elements: of a kernel, a group, an output channel, an input channel and a tap. */
typedef struct {
    long kernel, group, out, in, tap;
} Strides;

/* Each value of the packed weight and its place in the other; `back` says which is written. */
INLINE void move(const int back, const Shape *z, const Strides *by, REAL *weight, REAL *packed) {
    const long width = z->vectors * LANES, blocks = blocks_of(z), all = z->kernels * z->groups * blocks;
#pragma omp parallel for schedule(static) num_threads(z->threads)
    for (long block = 0; block < all; block++) {
        const long lanes = least(width, z->out - block % blocks * width);
        REAL *w = weight + block / blocks / z->groups * by->kernel + block / blocks % z->groups * by->group +
                  block % blocks * width * by->out;
        REAL *p = packed + block * z->taps * z->in * width;
        for (long i = 0; i < z->in; i++)
            for (long t = 0; t < z->taps; t++) {
                REAL *row = p + (t * z->in + i) * width, *at = w + i * by->in + t * by->tap;
                if (back)
                    for (long o = 0; o < lanes; o++) at[o * by->out] = row[o];
                else {
                    for (long o = 0; o < lanes; o++) row[o] = at[o * by->out];
                    for (long o = lanes; o < width; o++) row[o] = 0;
                }
            }
    }
}

void pack(const Shape *z, const Strides *by, const REAL *weight, REAL *packed) {
    move(0, z, by, (REAL *)weight, packed);
}
void unpack(const Shape *z, const Strides *by, const REAL *packed, REAL *weight) {
    move(1, z, by, weight, (REAL *)packed);
}

/* The vectors that fit best side by side for so many output channels of a group, and how many values they hold. */
long vectors_for(long out) { return out > 2 * LANES && WIDEST == 4 ? 4 : out > LANES ? 2 : 1; }
long width_of(long vectors) { return vectors * LANES; }
