/* The register tiles: R rows of the destination, NV vectors wide, held in registers over the whole inner loop.
 *
 * Written with the vector types of GCC and Clang, so that one source serves AVX-512, AVX2 and NEON.
 */
#include <string.h>

#ifndef REAL
#define REAL float
#endif

#if defined(__AVX512F__)
#define BYTES 64  /* of a vector */
#define WIDEST 4  /* vectors in a tile: 6 * 4 sums, 4 weights and a broadcast value in 32 registers */
#elif defined(__AVX__)
#define BYTES 32
#define WIDEST 2 /* 6 * 2 sums in 16 registers */
#else
#define BYTES 16
#define WIDEST 4
#endif
#define ROWS 6
#define WIDE 4 /* what memory is reserved for, and the largest WIDEST */
#define LANES ((long)(BYTES / sizeof(REAL)))

typedef REAL vec __attribute__((vector_size(BYTES), aligned(sizeof(REAL)), may_alias));

#define INLINE static inline __attribute__((always_inline))
#define UNROLL _Pragma("GCC unroll 16")

INLINE long least(long a, long b) { return a < b ? a : b; }
INLINE vec load(const REAL *p) { return *(const vec *)p; }
INLINE void store(REAL *p, vec v) { *(vec *)p = v; }

/* A vector of which only some lanes are there; the others are zero, and stay unwritten. */
INLINE vec load_some(const REAL *p, long lanes) {
    vec v = {0};
    if (lanes >= LANES) return load(p);
    if (lanes > 0) memcpy(&v, p, (size_t)lanes * sizeof(REAL));
    return v;
}
INLINE void store_some(REAL *p, vec v, long lanes) {
    if (lanes >= LANES) store(p, v);
    else if (lanes > 0) memcpy(p, &v, (size_t)lanes * sizeof(REAL));
}
/* By halves, which keeps it in registers: a loop over lanes would wait for each addition. */
INLINE REAL sum(vec v) {
#if BYTES == 64
    typedef REAL half __attribute__((vector_size(32)));
    const union { vec whole; half part[2]; } wide = {v};
    const half h = wide.part[0] + wide.part[1];
#elif BYTES == 32
    typedef vec half;
    const half h = v;
#endif
#if BYTES >= 32
    typedef REAL quarter __attribute__((vector_size(16)));
    const union { half whole; quarter part[2]; } narrow = {h};
    const quarter q = narrow.part[0] + narrow.part[1];
#else
    const vec q = v;
#endif
    REAL total = q[0] + q[1];
    for (unsigned i = 2; i < 16 / sizeof(REAL); i += 2) total += q[i] + q[i + 1];
    return total;
}

/* to[r] += sum_i from[r][i] * weight[i]: positions of a map times one tap of a kernel.
 *
 * from, to: numbers of rows in src and dst; weight: [n][NV * LANES].
 */
INLINE void rows_tile(const int R, const int NV, const REAL *src, const int *from, long src_row, const REAL *weight,
                      long n, REAL *dst, const int *to, long dst_row) {
    vec acc[ROWS][WIDE];
    const REAL *x[ROWS];
    UNROLL for (int r = 0; r < R; r++) {
        x[r] = src + from[r] * src_row;
        UNROLL for (int v = 0; v < NV; v++) acc[r][v] = load(dst + to[r] * dst_row + v * LANES);
    }
    for (long i = 0; i < n; i++) {
        vec w[WIDE];
        UNROLL for (int v = 0; v < NV; v++) w[v] = load(weight + (i * NV + v) * LANES);
        UNROLL for (int r = 0; r < R; r++)
            UNROLL for (int v = 0; v < NV; v++) acc[r][v] += x[r][i] * w[v];
    }
    UNROLL for (int r = 0; r < R; r++)
        UNROLL for (int v = 0; v < NV; v++) store(dst + to[r] * dst_row + v * LANES, acc[r][v]);
}

/* product[r] += sum_p x[from[p]][r] * g[to[p]]: the gradient of one tap of one sample's kernel, [R][NV * LANES]. */
INLINE void outer_tile(const int R, const int NV, const REAL *x, const int *from, long x_row, const REAL *g,
                       const int *to, long g_row, long n, REAL *product) {
    vec acc[ROWS][WIDE];
    UNROLL for (int r = 0; r < R; r++)
        UNROLL for (int v = 0; v < NV; v++) acc[r][v] = load(product + (r * NV + v) * LANES);
    for (long p = 0; p < n; p++) {
        const REAL *xp = x + from[p] * x_row, *gp = g + to[p] * g_row;
        vec w[WIDE];
        UNROLL for (int v = 0; v < NV; v++) w[v] = load(gp + v * LANES);
        UNROLL for (int r = 0; r < R; r++)
            UNROLL for (int v = 0; v < NV; v++) acc[r][v] += xp[r] * w[v];
    }
    UNROLL for (int r = 0; r < R; r++)
        UNROLL for (int v = 0; v < NV; v++) store(product + (r * NV + v) * LANES, acc[r][v]);
}

/* A function for every number of rows and every width, so that the sums have registers of their own. */
#define TILE(name, R, NV, parameters, ...) \
    static void name##_##R##_##NV parameters { name(R, NV, __VA_ARGS__); }
#define TILES(name, NV, parameters, ...)      \
    TILE(name, 1, NV, parameters, __VA_ARGS__) \
    TILE(name, 2, NV, parameters, __VA_ARGS__) \
    TILE(name, 4, NV, parameters, __VA_ARGS__) \
    TILE(name, 6, NV, parameters, __VA_ARGS__)
#define ALL(name, parameters, ...)                                     \
    TILES(name, 1, parameters, __VA_ARGS__)                            \
    TILES(name, 2, parameters, __VA_ARGS__)                            \
    TILES(name, 4, parameters, __VA_ARGS__)                            \
    typedef void name##_function parameters;                           \
    static name##_function *const name##_table[][4] = {                \
        {name##_1_1, name##_2_1, name##_4_1, name##_6_1},              \
        {name##_1_2, name##_2_2, name##_4_2, name##_6_2},              \
        {name##_1_4, name##_2_4, name##_4_4, name##_6_4},              \
    };

ALL(rows_tile,
    (const REAL *src, const int *from, long src_row, const REAL *weight, long n, REAL *dst, const int *to, long dst_row),
    src, from, src_row, weight, n, dst, to, dst_row)
ALL(outer_tile,
    (const REAL *x, const int *from, long x_row, const REAL *g, const int *to, long g_row, long n, REAL *product),
    x, from, x_row, g, to, g_row, n, product)

/* The largest tile that still fits: which column of the table, and how many rows it has. */
INLINE int tile_of(long rows) { return rows >= 6 ? 3 : rows >= 4 ? 2 : rows >= 2 ? 1 : 0; }
static const int tile_rows[] = {1, 2, 4, 6};
INLINE int tile_width(long vectors) { return vectors == 1 ? 0 : vectors == 2 ? 1 : 2; }
