/* bitinfer: ternary and binary matrices times int8 vectors on the CPU. The stable C interface of
 * libbitinfer.
 *
 *   acc[m][n] = sum_k w[n][k] * a[m][k],   w in {-1, 0, 1}, a in -128..127
 *
 * Matrices are row-major. Every function checks its arguments, never aborts, and is safe to call
 * from several threads at once. A status other than BITINFER_OK leaves a sentence in
 * bitinfer_last_error() and outputs unspecified. No function keeps a pointer beyond its return.
 * Inputs and outputs must not overlap.
 */
#ifndef BITINFER_H
#define BITINFER_H

#include <stddef.h>
#include <stdint.h>

#if defined(__GNUC__)
#define BITINFER_API __attribute__((visibility("default")))
#else
#define BITINFER_API
#endif

#ifdef __cplusplus
extern "C" {
#endif

/* The enumerations are plain ints, so that their size is the same for every compiler and language.
 */

typedef int bitinfer_status;
enum {
  BITINFER_OK = 0,
  BITINFER_ERROR_ARGUMENT = 1, /* null or misaligned pointer, wrong size, unknown enumerator */
  BITINFER_ERROR_CODE = 2,     /* a weight outside -1..1, or packed bytes that encode no weight */
  BITINFER_ERROR_ISA = 3,     /* unknown instruction set row, or one that this machine cannot run */
  BITINFER_ERROR_MEMORY = 4,  /* an allocation failed */
  BITINFER_ERROR_INTERNAL = 5 /* a defect in bitinfer */
};

/* Exact encodings of a ternary matrix; docs/packed-format.md draws the bytes. */
typedef int bitinfer_packing;
enum {
  BITINFER_I2 = 0, /* 2.00 bits a weight */
  BITINFER_T3 = 1, /* 1.67 bits a weight */
  BITINFER_T5 = 2, /* 1.60 bits a weight */
  BITINFER_B1 = 3  /* 1.00 bit a weight; holds -1 and 1, and refuses 0 */
};

/* How a GEMV sums. The result is the same. */
typedef int bitinfer_family;
enum {
  BITINFER_GEMV_AUTO =
      0, /* what the environment variable BITINFER_GEMV says, else the faster one */
  BITINFER_GEMV_ADDSUB = 1, /* additions and subtractions only */
  BITINFER_GEMV_DOT = 2     /* dot-product instructions */
};

/* Packed buffers must start at a multiple of this many bytes. */
enum { BITINFER_PACKED_ALIGN = 64 };

/* "0.1.0". Static storage. */
BITINFER_API const char* bitinfer_version(void);

/* Why the last failing call of this thread failed; "" if none has. Valid until the thread's next
 * failing call. */
BITINFER_API const char* bitinfer_last_error(void);

/* The instruction set row in use ("avx2", "neon", ...), or NULL with an error text if the
 * environment variable BITINFER_ISA names no usable row. Static storage. */
BITINFER_API const char* bitinfer_active_isa(void);

/* Name of the index-th row that this machine can run, best first; NULL past the last. Static
 * storage. */
BITINFER_API const char* bitinfer_available_isa(size_t index);

/* Uses another row from now on, in the whole process. */
BITINFER_API bitinfer_status bitinfer_set_isa(const char* name);

/* Bytes of a packed (n, k) matrix. 1 <= n < 2^31, 1 <= k < 2^23. */
BITINFER_API bitinfer_status bitinfer_packed_size(bitinfer_packing packing, int64_t n, int64_t k,
                                                  size_t* size);

/* num_threads below: 0 means as many as the process may run on. Results do not depend on it. */

/* weights: int8 (n, k) in {-1, 0, 1}. packed: packed_size bytes, any alignment, overwritten. */
BITINFER_API bitinfer_status bitinfer_pack(bitinfer_packing packing, int64_t n, int64_t k,
                                           const int8_t* weights, uint8_t* packed,
                                           size_t packed_size, int num_threads);

/* The reverse; refuses impossible codes. weights: int8 (n, k), overwritten. packed: any alignment.
 */
BITINFER_API bitinfer_status bitinfer_unpack(bitinfer_packing packing, int64_t n, int64_t k,
                                             const uint8_t* packed, size_t packed_size,
                                             int8_t* weights, int num_threads);

/* BITINFER_ERROR_CODE, with row, column and byte, where packed bytes encode nothing. Call it once
 * for bytes that come from outside: gemv and gemm do not look, and give meaningless sums (never a
 * fault) for such bytes. */
BITINFER_API bitinfer_status bitinfer_validate(bitinfer_packing packing, int64_t n, int64_t k,
                                               const uint8_t* packed, size_t packed_size,
                                               int num_threads);

/* acc (n) = packed (n, k) x activations (k). packed: BITINFER_PACKED_ALIGN-aligned; the others need
 * no alignment beyond their type's. */
BITINFER_API bitinfer_status bitinfer_gemv(bitinfer_packing packing, bitinfer_family family,
                                           int64_t n, int64_t k, const uint8_t* packed,
                                           size_t packed_size, const int8_t* activations,
                                           int32_t* acc, int num_threads);

/* acc (m, n) = activations (m, k) x packed (n, k) transposed. */
BITINFER_API bitinfer_status bitinfer_gemm(bitinfer_packing packing, int64_t m, int64_t n,
                                           int64_t k, const uint8_t* packed, size_t packed_size,
                                           const int8_t* activations, int32_t* acc,
                                           int num_threads);

#ifdef __cplusplus
}
#endif

#endif
