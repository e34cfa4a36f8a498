/* The loss and the gradient of a two-layer ReLU network, for REAL = float or double. This file is included once for each type,
   with INT the integer type of the same size and NAME(x) the name of x for that type.

   f(x) = sum_j a_j relu(<w_j, x>),  L = 1/(2 total) sum_{i < count} (f(x_i) - y_i)^2, with samples on the last axis. Samples
   from number `count` on are not read.

   For each tile of samples, which stays in the first-level cache, there are three parts: z = W x for blocks of neurons, the
   residuals, and the gradients as sums over the lanes of blocks of (neurons x coordinates), which are held in registers. */

typedef REAL NAME(vec) __attribute__((vector_size(BYTES), aligned(sizeof(REAL)), may_alias));
#define VEC NAME(vec)
typedef INT NAME(mask) __attribute__((vector_size(BYTES), aligned(sizeof(REAL)), may_alias));
#define MASK NAME(mask)
/* The number of samples in one vector. */
#define LANES ((long)(BYTES / sizeof(REAL)))

#define INLINE static inline __attribute__((always_inline))

INLINE VEC NAME(load)(const REAL *p) { return *(const VEC *)p; }
INLINE void NAME(store)(REAL *p, VEC v) { *(VEC *)p = v; }

/* z_j = <w_j, x> of `nb` neurons at the samples of a tile, SV vectors of samples at a time. */
INLINE void NAME(forward)(const int nb, long tile, long n, long d, const REAL *x, const REAL *w, REAL *z) {
  long i = 0;
  for (; i + SV * LANES <= tile; i += SV * LANES) {
    VEC sum[6][SV];
    for (int j = 0; j < nb; j++)
      for (int s = 0; s < SV; s++) sum[j][s] = (VEC){0};
    for (long k = 0; k < d; k++) {
      VEC in[SV];
      for (int s = 0; s < SV; s++) in[s] = NAME(load)(x + k * n + i + s * LANES);
      for (int j = 0; j < nb; j++)
        for (int s = 0; s < SV; s++) sum[j][s] += w[j * d + k] * in[s];
    }
    for (int j = 0; j < nb; j++)
      for (int s = 0; s < SV; s++) NAME(store)(z + j * TILE + i + s * LANES, sum[j][s]);
  }
  for (; i < tile; i += LANES) {
    VEC sum[6];
    for (int j = 0; j < nb; j++) sum[j] = (VEC){0};
    for (long k = 0; k < d; k++) {
      VEC in = NAME(load)(x + k * n + i);
      for (int j = 0; j < nb; j++) sum[j] += w[j * d + k] * in;
    }
    for (int j = 0; j < nb; j++) NAME(store)(z + j * TILE + i, sum[j]);
  }
}

/* sums[j][k] += s_j x_k over the samples of a tile, lane by lane. */
INLINE void NAME(backward)(const int nb, const int kb, long tile, long n, long d, const REAL *x, const REAL *s,
                           REAL *sums) {
  VEC sum[5][5];
  for (int j = 0; j < nb; j++)
    for (int k = 0; k < kb; k++) sum[j][k] = NAME(load)(sums + (j * d + k) * LANES);
  for (long i = 0; i < tile; i += LANES) {
    VEC in[5];
    for (int k = 0; k < kb; k++) in[k] = NAME(load)(x + k * n + i);
    for (int j = 0; j < nb; j++) {
      VEC side = NAME(load)(s + j * TILE + i);
      for (int k = 0; k < kb; k++) sum[j][k] += side * in[k];
    }
  }
  for (int j = 0; j < nb; j++)
    for (int k = 0; k < kb; k++) NAME(store)(sums + (j * d + k) * LANES, sum[j][k]);
}

static void NAME(forward_block)(int nb, long tile, long n, long d, const REAL *x, const REAL *w, REAL *z) {
  switch (nb) {
    case 1: NAME(forward)(1, tile, n, d, x, w, z); break;
    case 2: NAME(forward)(2, tile, n, d, x, w, z); break;
    case 3: NAME(forward)(3, tile, n, d, x, w, z); break;
    case 4: NAME(forward)(4, tile, n, d, x, w, z); break;
    case 5: NAME(forward)(5, tile, n, d, x, w, z); break;
    case 6: NAME(forward)(6, tile, n, d, x, w, z); break;
  }
}

#define ROW(NB) \
  switch (kb) { \
    case 1: NAME(backward)(NB, 1, tile, n, d, x, s, sums); break; \
    case 2: NAME(backward)(NB, 2, tile, n, d, x, s, sums); break; \
    case 3: NAME(backward)(NB, 3, tile, n, d, x, s, sums); break; \
    case 4: NAME(backward)(NB, 4, tile, n, d, x, s, sums); break; \
    case 5: NAME(backward)(NB, 5, tile, n, d, x, s, sums); break; \
  }

static void NAME(backward_block)(int nb, int kb, long tile, long n, long d, const REAL *x, const REAL *s, REAL *sums) {
  switch (nb) {
    case 1: ROW(1) break;
    case 2: ROW(2) break;
    case 3: ROW(3) break;
    case 4: ROW(4) break;
    case 5: ROW(5) break;
  }
}

/* The size of the next block, from `start` on, if `total` is split into as few blocks of at most `most` as possible, of nearly
   equal sizes. */
static int NAME(part)(long total, long start, int most) {
  long blocks = (total - start + most - 1) / most;
  return (int)((total - start + blocks - 1) / blocks);
}

/* The number of REALs of working memory that half_mse needs. */
static size_t NAME(scratch)(long d, long m) { return m * TILE + m * (d + 1) * LANES; }

/* L and its gradient in a (m) and w (m, d), for x (d, n) and y (n). A z that is NaN counts as active, so that it spreads. */
static REAL NAME(half_mse)(long n, long count, REAL total, long d, long m, const REAL *x, const REAL *y, const REAL *a,
                           const REAL *w, REAL *ga, REAL *gw, REAL *scratch) {
  REAL *z = scratch, *sums_w = z + m * TILE, *sums_a = sums_w + m * d * LANES;
  memset(sums_w, 0, sizeof(REAL) * m * (d + 1) * LANES);
  VEC squares = {0};
  long whole = count / LANES * LANES;
  for (long start = 0; start < whole; start += TILE) {
    long tile = whole - start < TILE ? whole - start : TILE;
    const REAL *xs = x + start, *ys = y + start;
    for (long j = 0; j < m;) {
      int nb = NAME(part)(m, j, 6);
      NAME(forward_block)(nb, tile, n, d, xs, w + j * d, z + j * TILE);
      j += nb;
    }
    for (long i = 0; i < tile; i += LANES) {
      VEC r = -NAME(load)(ys + i), zero = {0};
      for (long j = 0; j < m; j++) {
        VEC v = NAME(load)(z + j * TILE + i);
        r += a[j] * (VEC)((MASK)v & ~(v <= zero));
      }
      squares += r * r;
      for (long j = 0; j < m; j++) {
        VEC v = NAME(load)(z + j * TILE + i);
        MASK active = ~(v <= zero);
        /* This multiplies by 0 and does not mask, so that a residual that is NaN reaches every a_j, as it does in XLA. */
        NAME(store)(sums_a + j * LANES, NAME(load)(sums_a + j * LANES) + r * (VEC)((MASK)v & active));
        NAME(store)(z + j * TILE + i, a[j] * (VEC)((MASK)r & active));
      }
    }
    for (long j = 0; j < m;) {
      int nb = NAME(part)(m, j, 5);
      for (long k = 0; k < d;) {
        int kb = NAME(part)(d, k, 5);
        NAME(backward_block)(nb, kb, tile, n, d, xs + k * n, z + j * TILE, sums_w + (j * d + k) * LANES);
        k += kb;
      }
      j += nb;
    }
  }
  REAL loss = 0;
  for (int l = 0; l < LANES; l++) loss += squares[l];
  for (long j = 0; j < m * d; j++) {
    REAL sum = 0;
    for (int l = 0; l < LANES; l++) sum += sums_w[j * LANES + l];
    gw[j] = sum;
  }
  for (long j = 0; j < m; j++) {
    REAL sum = 0;
    for (int l = 0; l < LANES; l++) sum += sums_a[j * LANES + l];
    ga[j] = sum;
  }
  for (long i = whole; i < count; i++) {
    REAL r = -y[i];
    for (long j = 0; j < m; j++) {
      REAL v = 0;
      for (long k = 0; k < d; k++) v += w[j * d + k] * x[k * n + i];
      z[j] = v <= 0 ? 0 : v;
      r += a[j] * z[j];
    }
    loss += r * r;
    for (long j = 0; j < m; j++) {
      ga[j] += r * z[j];
      if (z[j] != 0)
        for (long k = 0; k < d; k++) gw[j * d + k] += r * a[j] * x[k * n + i];
    }
  }
  for (long j = 0; j < m * d; j++) gw[j] /= total;
  for (long j = 0; j < m; j++) ga[j] /= total;
  return loss / (2 * total);
}
#undef ROW
#undef VEC
#undef MASK
#undef LANES
#undef INLINE
