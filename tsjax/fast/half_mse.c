/* The kernel of half_mse.h in both precisions, as a function that XLA's CPU programs call (the C interface of XLA FFI). */

#include <stdlib.h>
#include <string.h>

#include "xla/ffi/api/c_api.h"

/* BYTES is the size of a vector, TILE the number of samples in a tile, and SV the number of vectors of samples that are
   computed at a time: the sums of 6 neurons times SV vectors must fit into the registers. */
#if defined(__AVX512F__)
#define BYTES 64
#elif defined(__AVX__)
#define BYTES 32
#else
#define BYTES 16
#endif
#if defined(__AVX512F__) || defined(__aarch64__)
#define SV 4
#else
#define SV 2
#endif
#define TILE 256

#define REAL float
#define INT int
#define NAME(x) x##_f32
#include "half_mse.h"
#undef REAL
#undef INT
#undef NAME

#define REAL double
#define INT long long
#define NAME(x) x##_f64
#include "half_mse.h"
#undef REAL
#undef INT
#undef NAME

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

/* (a, w, x, y, count, total) -> (loss, gradient in a, gradient in w). Leading axes are batch axes and broadcast. */
XLA_FFI_Error *tsjax_half_mse(XLA_FFI_CallFrame *call) {
  if (call->extension_start && call->extension_start->type == XLA_FFI_Extension_Metadata) {
    XLA_FFI_Metadata *metadata = ((XLA_FFI_Metadata_Extension *)call->extension_start)->metadata;
    metadata->api_version.major_version = XLA_FFI_API_MAJOR;
    metadata->api_version.minor_version = XLA_FFI_API_MINOR;
    return NULL;
  }
  XLA_FFI_Buffer **in = (XLA_FFI_Buffer **)call->args.args, **out = (XLA_FFI_Buffer **)call->rets.rets;
  if (call->args.size != 6 || call->rets.size != 3)
    return failure(call, XLA_FFI_Error_Code_INVALID_ARGUMENT, "tsjax_half_mse takes 6 arrays and returns 3");
  XLA_FFI_Buffer *a = in[0], *w = in[1], *x = in[2], *y = in[3], *counts = in[4], *totals = in[5];
  const long rank = out[0]->rank, n = x->dims[rank + 1], d = x->dims[rank], m = a->dims[rank];
  const int64_t *dims = out[0]->dims;
  const int single = a->dtype == XLA_FFI_DataType_F32;
  const size_t size = single ? 4 : 8, need = size * (single ? scratch_f32(d, m) : scratch_f64(d, m));
  /* Each of XLA's threads keeps one working array, since fresh pages in every step would cost more than the step. */
  static _Thread_local void *scratch;
  static _Thread_local size_t held;
  if (need > held) {
    free(scratch);
    held = (need + 63) / 64 * 64;
    scratch = aligned_alloc(64, held);
    if (!scratch) {
      held = 0;
      return failure(call, XLA_FFI_Error_Code_RESOURCE_EXHAUSTED, "tsjax_half_mse: out of memory");
    }
  }
  long batch = 1;
  for (long i = 0; i < rank; i++) batch *= dims[i];
  for (long b = 0; b < batch; b++) {
    void *loss = entry(out[0], b, rank, dims, size), *ga = entry(out[1], b, rank, dims, size);
    void *gw = entry(out[2], b, rank, dims, size);
    const void *ab = entry(a, b, rank, dims, size), *wb = entry(w, b, rank, dims, size);
    const void *xb = entry(x, b, rank, dims, size), *yb = entry(y, b, rank, dims, size);
    long count = *(int32_t *)entry(counts, b, rank, dims, sizeof(int32_t));
    const void *total = entry(totals, b, rank, dims, size);
    count = count < 0 ? 0 : count > n ? n : count;
    if (single)
      *(float *)loss = half_mse_f32(n, count, *(float *)total, d, m, xb, yb, ab, wb, ga, gw, scratch);
    else
      *(double *)loss = half_mse_f64(n, count, *(double *)total, d, m, xb, yb, ab, wb, ga, gw, scratch);
  }
  return NULL;
}
