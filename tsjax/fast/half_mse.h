/* The loss and the gradient of a two-layer ReLU network, for REAL = float or double, with INT the integer type of the same size.

   f(x) = sum_j a_j relu(<w_j, x>),  L = 1/(2 total) sum_{i < count} (f(x_i) - y_i)^2, with samples on the last axis. Samples
   from number `count` on are not read.

   For each tile of samples, which stays in the first-level cache, there are three parts: z = W x for blocks of neurons, the
   residuals, and the gradients as sums over the lanes of blocks of (neurons x coordinates), which are held in registers. */

typedef REAL VEC __attribute__((vector_size(BYTES), aligned(sizeof(REAL)), may_alias));
typedef INT MASK __attribute__((vector_size(BYTES), aligned(sizeof(REAL)), may_alias));
/* The number of samples in one vector. */
#define LANES ((long)(BYTES / sizeof(REAL)))

#define INLINE static inline __attribute__((always_inline))

INLINE VEC load(const REAL *p) { return *(const VEC *)p; }
INLINE void store(REAL *p, VEC v) { *(VEC *)p = v; }

/* z_j = <w_j, x> of `nb` neurons at the samples of a tile, `sv` vectors of samples at a time: so many sums that the processor
   need not wait for one before it adds to it again. */
INLINE void forward(const int nb, long tile, long stride, long d, const REAL *x, const REAL *w, REAL *z) {
  const int sv = nb <= 3 ? 2 * SV : SV;
  long i = 0;
  for (; i + sv * LANES <= tile; i += sv * LANES) {
    VEC sum[6][2 * SV];
    for (int j = 0; j < nb; j++)
      for (int s = 0; s < sv; s++) sum[j][s] = (VEC){0};
    for (long k = 0; k < d; k++) {
      VEC in[2 * SV];
      for (int s = 0; s < sv; s++) in[s] = load(x + k * stride + i + s * LANES);
      for (int j = 0; j < nb; j++)
        for (int s = 0; s < sv; s++) sum[j][s] += w[j * d + k] * in[s];
    }
    for (int j = 0; j < nb; j++)
      for (int s = 0; s < sv; s++) store(z + j * TILE + i + s * LANES, sum[j][s]);
  }
  for (; i < tile; i += LANES) {
    VEC sum[6];
    for (int j = 0; j < nb; j++) sum[j] = (VEC){0};
    for (long k = 0; k < d; k++) {
      VEC in = load(x + k * stride + i);
      for (int j = 0; j < nb; j++) sum[j] += w[j * d + k] * in;
    }
    for (int j = 0; j < nb; j++) store(z + j * TILE + i, sum[j]);
  }
}

/* sums[j][k] += s_j x_k over the samples of a tile, lane by lane. */
INLINE void backward(const int nb, const int kb, long tile, long stride, long d, const REAL *x, const REAL *s,
                           REAL *sums) {
  VEC sum[5][5];
  for (int j = 0; j < nb; j++)
    for (int k = 0; k < kb; k++) sum[j][k] = load(sums + (j * d + k) * LANES);
  for (long i = 0; i < tile; i += LANES) {
    VEC in[5];
    for (int k = 0; k < kb; k++) in[k] = load(x + k * stride + i);
    for (int j = 0; j < nb; j++) {
      VEC side = load(s + j * TILE + i);
      for (int k = 0; k < kb; k++) sum[j][k] += side * in[k];
    }
  }
  for (int j = 0; j < nb; j++)
    for (int k = 0; k < kb; k++) store(sums + (j * d + k) * LANES, sum[j][k]);
}

static void forward_block(int nb, long tile, long stride, long d, const REAL *x, const REAL *w, REAL *z) {
  switch (nb) {
    case 1: forward(1, tile, stride, d, x, w, z); break;
    case 2: forward(2, tile, stride, d, x, w, z); break;
    case 3: forward(3, tile, stride, d, x, w, z); break;
    case 4: forward(4, tile, stride, d, x, w, z); break;
    case 5: forward(5, tile, stride, d, x, w, z); break;
    case 6: forward(6, tile, stride, d, x, w, z); break;
  }
}

#define BLOCK(NB, KB) \
  case 8 * NB + KB: \
    if (NB * KB <= SUMS) backward(NB, KB, tile, stride, d, x, s, sums); \
    break;
#define ROW(NB) BLOCK(NB, 1) BLOCK(NB, 2) BLOCK(NB, 3) BLOCK(NB, 4) BLOCK(NB, 5)

static void backward_block(int nb, int kb, long tile, long stride, long d, const REAL *x, const REAL *s, REAL *sums) {
  switch (8 * nb + kb) { ROW(1) ROW(2) ROW(3) ROW(4) ROW(5) }
}

/* The size of the next block, from `start` on, if `total` is split into as few blocks of at most `most` as possible, of nearly
   equal sizes. */
static int part(long total, long start, int most) {
  long blocks = (total - start + most - 1) / most;
  return (int)((total - start + blocks - 1) / blocks);
}

/* The number of REALs of working memory that half_mse needs. */
static size_t scratch_of(long d, long m) { return m * (TILE + d * LANES); }

/* L and its gradient in a (m) and w (m, d). Coordinate k of sample i in tile t is x[t jump + k stride + i]: for x (d, n) the
   stride is n and the jump TILE. y is (n).

   With G_j = sum_i r_i 1[<w_j, x_i> > 0] x_i for the residuals r, the gradient is a_j G_j / total in w_j and
   <w_j, G_j> / total in a_j. A z that is NaN counts as active, so that it spreads. */
static REAL half_mse(long count, REAL total, long d, long m, const REAL *x, long stride, long jump, const REAL *y,
                           const REAL *a, const REAL *w, REAL *ga, REAL *gw, REAL *scratch) {
  REAL *z = scratch, *sums = z + m * TILE;
  memset(sums, 0, sizeof(REAL) * m * d * LANES);
  VEC squares = {0}, zero = {0};
  long whole = count / LANES * LANES;
  for (long start = 0; start < whole; start += TILE) {
    long tile = whole - start < TILE ? whole - start : TILE;
    const REAL *xs = x + start / TILE * jump, *ys = y + start;
    for (long j = 0; j < m;) {
      int nb = part(m, j, 6);
      forward_block(nb, tile, stride, d, xs, w + j * d, z + j * TILE);
      j += nb;
    }
    for (long i = 0; i < tile; i += LANES) {
      VEC r = -load(ys + i);
      for (long j = 0; j < m; j++) {
        VEC v = load(z + j * TILE + i);
        r += a[j] * (VEC)((MASK)v & ~(v <= zero));
      }
      squares += r * r;
      for (long j = 0; j < m; j++) {
        MASK active = ~(load(z + j * TILE + i) <= zero);
        store(z + j * TILE + i, (VEC)((MASK)r & active));
      }
    }
    for (long j = 0; j < m;) {
      int nb = part(m, j, 5);
      for (long k = 0; k < d;) {
        int kb = part(d, k, SUMS / nb < 5 ? SUMS / nb : 5);
        backward_block(nb, kb, tile, stride, d, xs + k * stride, z + j * TILE, sums + (j * d + k) * LANES);
        k += kb;
      }
      j += nb;
    }
  }
  REAL loss = 0;
  for (int l = 0; l < LANES; l++) loss += squares[l];
  for (long p = 0; p < m * d; p++) {
    REAL *lanes = sums + p * LANES;
    for (long half = LANES / 2; half > 0; half /= 2)
      for (long l = 0; l < half; l++) lanes[l] += lanes[l + half];
    gw[p] = lanes[0];
  }
  for (long i = whole; i < count; i++) {
    const REAL *at = x + i / TILE * jump + i % TILE;
    REAL r = -y[i];
    for (long j = 0; j < m; j++) {
      REAL v = 0;
      for (long k = 0; k < d; k++) v += w[j * d + k] * at[k * stride];
      z[j] = v <= 0 ? 0 : v;
      r += a[j] * z[j];
    }
    loss += r * r;
    for (long j = 0; j < m; j++)
      if (z[j] != 0)
        for (long k = 0; k < d; k++) gw[j * d + k] += r * at[k * stride];
  }
  for (long j = 0; j < m; j++) {
    /* A loss that is not finite reaches every a_j, also those of neurons that are not active there, as it does in XLA. */
    REAL sum = 0 * loss;
    for (long k = 0; k < d; k++) {
      sum += w[j * d + k] * gw[j * d + k];
      gw[j * d + k] *= a[j] / total;
    }
    ga[j] = sum / total;
  }
  return loss / (2 * total);
}
