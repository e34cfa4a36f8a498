/* The loss and gradient of half_mse.h in float32, or in float64 if DOUBLE is defined, and the steps of descent.h in float32, as
   functions that XLA's CPU programs call (the C interface of XLA FFI). */

#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "xla/ffi/api/c_api.h"

/* BYTES is the size of a vector, and TILE the number of samples in a tile. Sums must fit into the registers: those of 6 neurons
   times SV vectors of samples, and SUMS derivatives. */
#if defined(__AVX512F__)
#define BYTES 64
#elif defined(__AVX__)
#define BYTES 32
#else
#define BYTES 16
#endif
#if defined(__AVX512F__) || defined(__aarch64__)
#define SV 4
#define SUMS 25
#else
#define SV 2
#define SUMS 12
#endif
#define TILE 256

#ifdef DOUBLE
#define REAL double
#define INT long long
#else
#define REAL float
#define INT int
#endif
#include "half_mse.h"

static XLA_FFI_Error *failure(XLA_FFI_CallFrame *call, XLA_FFI_Error_Code code, const char *message) {
  XLA_FFI_Error_Create_Args args = {.struct_size = XLA_FFI_Error_Create_Args_STRUCT_SIZE, .message = message, .errc = code};
  return call->api->XLA_FFI_Error_Create(&args);
}

/* The address of the data of batch entry `index` (row-major over `dims`). Axes of size 1 are shared by all entries. */
static char *entry(const XLA_FFI_Buffer *buffer, long index, long rank, const int64_t *dims, size_t size) {
  long each = 1, offset = 0, stride;
  for (long i = rank; i < buffer->rank; i++) each *= buffer->dims[i];
  stride = each;
  for (long i = rank - 1; i >= 0; i--) {
    if (buffer->dims[i] != 1) offset += index % dims[i] * stride;
    index /= dims[i];
    stride *= buffer->dims[i];
  }
  return (char *)buffer->data + offset * size;
}

/* Whether XLA asks for the version of the interface, which is then written. */
static int asks_version(XLA_FFI_CallFrame *call) {
  if (!call->extension_start || call->extension_start->type != XLA_FFI_Extension_Metadata) return 0;
  XLA_FFI_Metadata *metadata = ((XLA_FFI_Metadata_Extension *)call->extension_start)->metadata;
  metadata->api_version.major_version = XLA_FFI_API_MAJOR;
  metadata->api_version.minor_version = XLA_FFI_API_MINOR;
  return 1;
}

/* At least `bytes` of working memory, or NULL. Each of XLA's threads keeps one array, since fresh pages in every step would
   cost more than the step. */
static void *working_memory(size_t bytes) {
  static _Thread_local void *memory;
  static _Thread_local size_t held;
  if (bytes > held) {
    free(memory);
    held = (bytes + 63) / 64 * 64;
    memory = aligned_alloc(64, held);
    if (!memory) held = 0;
  }
  return memory;
}

static long product(long rank, const int64_t *dims) {
  long all = 1;
  for (long i = 0; i < rank; i++) all *= dims[i];
  return all;
}

/* The number of samples that count, between 0 and n. */
static long samples(const void *count, long n) {
  const long value = *(const int32_t *)count;
  return value < 0 ? 0 : value > n ? n : value;
}

/* (a, w, x, y, count, total) -> (loss, gradient in a, gradient in w). Leading axes are batch axes and broadcast. */
XLA_FFI_Error *tsjax_half_mse(XLA_FFI_CallFrame *call) {
  if (asks_version(call)) return NULL;
  XLA_FFI_Buffer **in = (XLA_FFI_Buffer **)call->args.args, **out = (XLA_FFI_Buffer **)call->rets.rets;
  if (call->args.size != 6 || call->rets.size != 3)
    return failure(call, XLA_FFI_Error_Code_INVALID_ARGUMENT, "tsjax_half_mse takes 6 arrays and returns 3");
  XLA_FFI_Buffer *a = in[0], *w = in[1], *x = in[2], *y = in[3], *counts = in[4], *totals = in[5];
  const long rank = out[0]->rank, n = x->dims[rank + 1], d = x->dims[rank], m = a->dims[rank];
  const int64_t *dims = out[0]->dims;
  const size_t size = sizeof(REAL);
  REAL *scratch = working_memory(size * scratch_of(d, m));
  if (!scratch) return failure(call, XLA_FFI_Error_Code_RESOURCE_EXHAUSTED, "tsjax_half_mse: out of memory");
  for (long b = 0; b < product(rank, dims); b++) {
#define ENTRY(buffer) ((void *)entry(buffer, b, rank, dims, size))
    const long count = samples(entry(counts, b, rank, dims, sizeof(int32_t)), n);
    *(REAL *)ENTRY(out[0]) = half_mse(count, *(REAL *)ENTRY(totals), d, m, ENTRY(x), n, TILE, ENTRY(y), ENTRY(a), ENTRY(w),
                                      ENTRY(out[1]), ENTRY(out[2]), scratch);
#undef ENTRY
  }
  return NULL;
}

#ifndef DOUBLE
#include "descent.h"

/* (a, w, x, y, count, total, span, rates, seed) -> (a, w, loss) in float32. `span` is (first step, end, number of parameters
   that do not move) and `rates` is (eta, noise, lambda). Leading axes are batch axes and broadcast. */
XLA_FFI_Error *tsjax_descend(XLA_FFI_CallFrame *call) {
  if (asks_version(call)) return NULL;
  XLA_FFI_Buffer **in = (XLA_FFI_Buffer **)call->args.args, **out = (XLA_FFI_Buffer **)call->rets.rets;
  if (call->args.size != 9 || call->rets.size != 3)
    return failure(call, XLA_FFI_Error_Code_INVALID_ARGUMENT, "tsjax_descend takes 9 arrays and returns 3");
  const long rank = out[2]->rank, n = in[2]->dims[rank + 1], d = in[2]->dims[rank], m = in[0]->dims[rank];
  const int64_t *dims = out[2]->dims;
  const long size = m * (d + 1);
  float *room = working_memory(sizeof(float) * (descent_room(n, d, m) + size));
  if (!room) return failure(call, XLA_FFI_Error_Code_RESOURCE_EXHAUSTED, "tsjax_descend: out of memory");
  Descent student = {.d = d, .m = m};
  place_arrays(&student, room, n);
  const float *x_before = NULL, *y_before = NULL;
  long count_before = -1;
  for (long b = 0; b < product(rank, dims); b++) {
#define ENTRY(buffer) ((void *)entry(buffer, b, rank, dims, 4))
    const float *x = ENTRY(in[2]), *y = ENTRY(in[3]), *rates = ENTRY(in[7]);
    const int32_t *span = ENTRY(in[6]);
    const long count = samples(ENTRY(in[4]), n);
    float *theta = room + descent_room(n, d, m);
    memcpy(theta, ENTRY(in[0]), sizeof(float) * m);
    memcpy(theta + m, ENTRY(in[1]), sizeof(float) * m * d);
    if (span[0] < span[1] && (x != x_before || y != y_before || count != count_before)) {
      /* Restarts share their samples. */
      take_samples(&student, n, count, x, y);
      x_before = x, y_before = y, count_before = count;
    }
    student.total = *(float *)ENTRY(in[5]);
    student.first = span[2], student.key = ENTRY(in[8]);
    student.eta = rates[0], student.noise = rates[1], student.penalty = rates[2];
    *(float *)ENTRY(out[2]) = descend(&student, span[0], span[1], theta);
    memcpy(ENTRY(out[0]), theta, sizeof(float) * m);
    memcpy(ENTRY(out[1]), theta + m, sizeof(float) * m * d);
#undef ENTRY
  }
  return NULL;
}
#endif
