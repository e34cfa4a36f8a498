/* Many steps of gradient descent of one student in float32, with noise that is the same as that of `tsjax.optim`:

   theta <- theta - eta grad (L + lambda |theta|^2) + noise xi.

   The loss of half_mse.h comes before this file. Samples that may fit into a cache are copied once, into tiles that lie one
   after the other and are filled up with zeros, which add nothing to sums. A student's samples and parameters then stay in the
   nearest cache over all its steps. More samples are read where they are, so that no thread keeps much memory. */

typedef uint32_t WORDS __attribute__((vector_size(BYTES), aligned(4), may_alias));
typedef int32_t WHOLE __attribute__((vector_size(BYTES), aligned(4), may_alias));
typedef float REALS __attribute__((vector_size(BYTES), aligned(4), may_alias));
#define WIDE ((long)(BYTES / 4))
#define ROTATE(v, by) (((v) << (by)) | ((v) >> (32 - (by))))

/* Threefry-2x32 with 20 rounds (Salmon et al. 2011), as `tsjax.optim.threefry`. */
static inline void threefry(uint32_t key0, uint32_t key1, WORDS *high, WORDS *low) {
  static const int rotations[2][4] = {{13, 15, 26, 6}, {17, 29, 16, 24}};
  const uint32_t keys[3] = {key0, key1, key0 ^ key1 ^ 0x1BD11BDAu};
  WORDS h = *high + keys[0], l = *low + keys[1];
#pragma GCC unroll 5
  for (int group = 0; group < 5; group++) {
#pragma GCC unroll 4
    for (int i = 0; i < 4; i++) {
      h += l;
      l = ROTATE(l, rotations[group % 2][i]) ^ h;
    }
    h += keys[(group + 1) % 3];
    l += keys[(group + 2) % 3] + (uint32_t)(group + 1);
  }
  *high = h, *low = l;
}

/* log t for t in [2^-24, 1]. With t = 2^e f and f in [sqrt(1/2), sqrt(2)), log f = 2 artanh s for s = (f - 1) / (f + 1), whose
   series in s^2 <= 0.0295 is cut after s^9 (relative error below 1e-9). */
static inline REALS log_of(REALS t) {
  WHOLE bits = (WHOLE)t, exponent = (bits - 0x3F3504F3) >> 23;
  REALS f = (REALS)(bits - (exponent << 23));
  REALS s = (f - 1.0f) / (f + 1.0f), q = s * s;
  REALS series = 2.0f + q * (0.66666666f + q * (0.4f + q * (0.2857143f + q * 0.22222222f)));
  return __builtin_convertvector(exponent, REALS) * 0.69314718f + s * series;
}

/* sqrt(2) erf^{-1}(u), where u is the midpoint of one of 2^24 equal parts of (-1, 1), chosen by the first 24 bits, with the
   polynomials of Giles 2010, "Approximating the erfinv function", in w = -log(1 - u^2). */
static inline REALS normal_of(WORDS bits) {
  REALS u = (__builtin_convertvector((WHOLE)bits >> 8, REALS) + 0.5f) * 0x1p-23f;
  REALS w = -log_of((1.0f - u) * (1.0f + u)), v = w - 2.5f;
  REALS p = 2.81022636e-08f * v + 3.43273939e-07f;
  p = p * v - 3.5233877e-06f;
  p = p * v - 4.39150654e-06f;
  p = p * v + 0.00021858087f;
  p = p * v - 0.00125372503f;
  p = p * v - 0.00417768164f;
  p = p * v + 0.246640727f;
  p = p * v + 1.50140941f;
  /* Only one number in 300 is in the tails, where w >= 5. */
  int tail = 0;
  for (int i = 0; i < WIDE; i++) tail |= w[i] >= 5.0f;
  if (tail)
    for (int i = 0; i < WIDE; i++)
      if (w[i] >= 5.0f) {
        float t = __builtin_sqrtf(w[i]) - 3.0f, q = -0.000200214257f * t + 0.000100950558f;
        q = q * t + 0.00134934322f;
        q = q * t - 0.00367342844f;
        q = q * t + 0.00573950773f;
        q = q * t - 0.0076224613f;
        q = q * t + 0.00943887047f;
        q = q * t + 1.00167406f;
        p[i] = q * t + 2.83297682f;
      }
  return 1.41421356f * (p * u);
}

/* The noise of one step: xi_p for p < `size`, as `tsjax.optim.counter_normals`. Block b of the generator, at the counter
   (step, b), gives xi_b and xi_{b + blocks}. `xi` has room for `noise_room(size)` numbers. */
static long noise_room(long size) { return size + 3 * WIDE; }

static void noise_of(const uint32_t *key, uint32_t step, long size, float *xi) {
  const long blocks = (size + 1) / 2, second = (blocks + WIDE - 1) / WIDE * WIDE;
  WORDS place;
  for (int i = 0; i < WIDE; i++) place[i] = i;
  for (long b = 0; b < blocks; b += WIDE) {
    WORDS high = (WORDS){0} + step, low = place + (uint32_t)b;
    threefry(key[0], key[1], &high, &low);
    *(REALS *)(xi + b) = normal_of(high);
    *(REALS *)(xi + second + b) = normal_of(low);
  }
  memmove(xi + blocks, xi + second, sizeof(float) * (size - blocks));
}

/* What a student needs beside its parameters. */
typedef struct {
  long d, m;       /* inputs, neurons */
  long count;      /* samples that count; of a copy, filled up to whole vectors */
  float total;     /* the divisor of sums over samples */
  float eta, noise, penalty;
  long first;      /* parameters before this one do not move */
  const uint32_t *key;
  const float *x, *y;
  long stride, jump; /* where the coordinates of x are, see half_mse.h */
  float *copy;     /* samples in tiles: x (tiles, d, TILE), then y (tiles, TILE) */
  float *gradient; /* (m (d + 1)) */
  float *xi;       /* noise_room(m (d + 1)) */
  float *scratch;  /* scratch_of(d, m) */
} Descent;

/* The largest copy, in floats. */
#define MOST_COPIED (1L << 20)

/* The number of floats in a copy of n samples, in whole tiles. */
static long copy_room(long n, long d) { return (n + TILE - 1) / TILE * TILE * (d + 1); }

/* The number of floats in the arrays of a Descent. */
static size_t descent_room(long n, long d, long m) {
  const long copied = copy_room(n, d) < MOST_COPIED ? copy_room(n, d) : MOST_COPIED;
  return copied + m * (d + 1) + noise_room(m * (d + 1)) + scratch_of(d, m);
}

/* `room` has the alignment of vectors, and so have z and the tiles of a copy. */
static void place_arrays(Descent *s, float *room, long n) {
  const long copied = copy_room(n, s->d) < MOST_COPIED ? copy_room(n, s->d) : MOST_COPIED;
  s->copy = room;
  s->scratch = s->copy + copied;
  s->gradient = s->scratch + scratch_of(s->d, s->m);
  s->xi = s->gradient + s->m * (s->d + 1);
}

/* Takes the first `count` samples of x (d, n) and y (n). Whether they are copied depends on `count` and not on n, so that
   padding changes no bit of the results. */
static void take_samples(Descent *s, long n, long count, const float *x, const float *y) {
  const long room = copy_room(count, s->d);
  if (room > MOST_COPIED) {
    s->x = x, s->y = y, s->stride = n, s->jump = TILE, s->count = count;
    return;
  }
  float *const xs = s->copy, *const ys = xs + room / (s->d + 1) * s->d;
  for (long start = 0; start < count; start += TILE) {
    const long tile = count - start < TILE ? count - start : TILE, filled = (tile + WIDE - 1) / WIDE * WIDE;
    for (long k = 0; k <= s->d; k++) {
      float *to = k < s->d ? xs + start * s->d + k * TILE : ys + start;
      memcpy(to, k < s->d ? x + k * n + start : y + start, sizeof(float) * tile);
      memset(to + tile, 0, sizeof(float) * (filled - tile));
    }
  }
  s->x = xs, s->y = ys, s->stride = TILE, s->jump = s->d * TILE, s->count = (count + WIDE - 1) / WIDE * WIDE;
}

/* Steps `start` to `stop` from theta = (a, w). Returns L + lambda |theta|^2 before the last step, and 0 if there is no step. */
static float descend(const Descent *s, long start, long stop, float *theta) {
  const long m = s->m, size = m * (s->d + 1), moving = size - s->first;
  float loss = 0, squares = 0;
  for (long step = start; step < stop; step++) {
    loss = half_mse(s->count, s->total, s->d, m, s->x, s->stride, s->jump, s->y, theta, theta + m, s->gradient,
                        s->gradient + m, s->scratch);
    if (step == stop - 1)
      for (long p = 0; p < size; p++) squares += theta[p] * theta[p];
    float *const moved = theta + s->first, *const gradient = s->gradient + s->first;
    for (long p = 0; p < moving; p++) moved[p] -= s->eta * (gradient[p] + 2 * s->penalty * moved[p]);
    if (s->noise != 0) {
      noise_of(s->key, (uint32_t)step, moving, s->xi);
      for (long p = 0; p < moving; p++) moved[p] += s->noise * s->xi[p];
    }
  }
  return loss + s->penalty * squares;
}
