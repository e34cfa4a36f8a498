/* Phase I of many students, wholly in C: how fast the machine could be. The gradient is tsjax's own kernel; noise, steps and
   threads have nothing of Python, JAX or XLA around them. Noise is Box-Muller on xoshiro128+ (Blackman & Vigna 2021), cheaper
   than a generator that depends on (student, step) alone. */

#include <math.h>
#include <pthread.h>
#include <stdint.h>

#include "students.c"

#define WIDE 16

typedef struct {
  uint32_t s[4][WIDE];
} Generator;

static void seed(Generator *g, uint64_t value) {
  for (int i = 0; i < 4; i++)
    for (int l = 0; l < WIDE; l++) { /* splitmix64 */
      uint64_t z = (value += 0x9e3779b97f4a7c15ull);
      z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9ull;
      z = (z ^ (z >> 27)) * 0x94d049bb133111ebull;
      g->s[i][l] = (uint32_t)(z >> 32);
    }
}

static void uniforms(Generator *g, float *u) {
  for (int l = 0; l < WIDE; l++) {
    uint32_t *a = &g->s[0][l], *b = &g->s[1][l], *c = &g->s[2][l], *d = &g->s[3][l];
    u[l] = ((float)((*a + *d) >> 8) + 0.5f) * 0x1p-24f;
    uint32_t t = *b << 9;
    *c ^= *a, *d ^= *b, *b ^= *c, *a ^= *d, *c ^= t;
    *d = (*d << 11) | (*d >> 21);
  }
}

static void normals(Generator *g, float *out) {
  float r[WIDE], angle[WIDE];
  uniforms(g, r);
  uniforms(g, angle);
  for (int l = 0; l < WIDE; l++) {
    r[l] = sqrtf(-2 * logf(r[l]));
    angle[l] *= 6.2831853f;
  }
  for (int l = 0; l < WIDE; l++) {
    out[l] = r[l] * cosf(angle[l]);
    out[WIDE + l] = r[l] * sinf(angle[l]);
  }
}

typedef struct {
  long first, stride, batch, n, d, m, steps;
  float eta, noise, penalty;
  const float *x, *y;
  float *theta, *losses;
} Part;

static void *train(void *argument) {
  const Part p = *(Part *)argument;
  const long size = p.m * (p.d + 1), padded = (size + 2 * WIDE - 1) / (2 * WIDE) * 2 * WIDE;
  float *scratch = aligned_alloc(64, (scratch_of(p.d, p.m) * sizeof(float) + 63) / 64 * 64);
  float *gradient = aligned_alloc(64, padded * sizeof(float)), *xi = aligned_alloc(64, padded * sizeof(float));
  for (long b = p.first; b < p.batch; b += p.stride) {
    const float *x = p.x + b * p.d * p.n, *y = p.y + b * p.n;
    float *theta = p.theta + b * size; /* a, then w */
    Generator generator;
    seed(&generator, b);
    for (long step = 0; step < p.steps; step++) {
      half_mse(p.n, p.n, p.d, p.m, x, p.n, TILE, y, theta, theta + p.m, gradient, gradient + p.m, scratch);
      if (p.noise > 0)
        for (long i = 0; i < padded; i += 2 * WIDE) normals(&generator, xi + i);
      else
        memset(xi, 0, padded * sizeof(float));
      for (long i = 0; i < size; i++)
        theta[i] += p.noise * xi[i] - p.eta * (gradient[i] + 2 * p.penalty * theta[i]);
    }
    p.losses[b] = half_mse(p.n, p.n, p.d, p.m, x, p.n, TILE, y, theta, theta + p.m, gradient, gradient + p.m, scratch);
  }
  free(scratch), free(gradient), free(xi);
  return NULL;
}

/* x (batch, d, n), y (batch, n), theta (batch, m + m d) in and out, losses (batch). */
void train_all(long threads, long batch, long n, long d, long m, long steps, float eta, float noise, float penalty,
               const float *x, const float *y, float *theta, float *losses) {
  pthread_t ids[64];
  Part parts[64];
  if (threads > 64) threads = 64;
  for (long t = 0; t < threads; t++) {
    parts[t] = (Part){t, threads, batch, n, d, m, steps, eta, noise, penalty, x, y, theta, losses};
    pthread_create(&ids[t], NULL, train, &parts[t]);
  }
  for (long t = 0; t < threads; t++) pthread_join(ids[t], NULL);
}
