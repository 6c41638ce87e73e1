// The C interface over dispatch, pack and ops: argument checks, and exceptions turned into status
// codes.
#include "c_api/bitinfer.h"

#include <exception>
#include <limits>
#include <new>
#include <stdexcept>
#include <string>

#include "dispatch/dispatch.h"
#include "ops/ternary_matmul.h"
#include "pack/pack.h"
#include "util/check.h"

namespace {

using bitinfer::PackedTernary;
using bitinfer::Packing;

std::string& last_error() {
  thread_local std::string text;
  return text;
}

// Keeps the text for bitinfer_last_error(); without memory for it the text becomes empty.
bitinfer_status fail(bitinfer_status status, const char* text) noexcept {
  try {
    last_error() = text;
  } catch (...) {
    last_error().clear();
  }
  return status;
}

// Runs fn and names what it threw; `refused` is the status of a failed check inside fn.
template <typename Fn>
bitinfer_status guarded(bitinfer_status refused, const Fn& fn) noexcept {
  try {
    fn();
    return BITINFER_OK;
  } catch (const std::invalid_argument& error) {
    return fail(refused, error.what());
  } catch (const std::bad_alloc&) {
    return fail(BITINFER_ERROR_MEMORY, "out of memory");
  } catch (const std::length_error&) {  // a size that no allocation can have
    return fail(BITINFER_ERROR_MEMORY, "out of memory");
  } catch (const std::exception& error) {
    return fail(BITINFER_ERROR_INTERNAL, error.what());
  } catch (...) {
    return fail(BITINFER_ERROR_INTERNAL, "unknown exception");
  }
}

void check_shape(bitinfer_packing packing, int64_t n, int64_t k) {
  BITINFER_CHECK(packing >= BITINFER_I2 && packing <= BITINFER_B1,
                 "packing: expected 0 to 3, got " << packing);
  bitinfer::check_packed_shape(n, k);
}

void check_pointer(const void* pointer, const char* name, std::size_t align = 1) {
  BITINFER_CHECK(pointer, name << ": expected a pointer, got null");
  BITINFER_CHECK(reinterpret_cast<uintptr_t>(pointer) % align == 0,
                 name << ": expected alignment to " << align << " bytes");
}

// Shape, pointer and size of a packed matrix.
PackedTernary packed_view(bitinfer_packing packing, int64_t n, int64_t k, const uint8_t* packed,
                          std::size_t size, std::size_t align) {
  check_shape(packing, n, k);
  check_pointer(packed, "packed", align);
  const auto p = static_cast<Packing>(packing);
  const auto expected = static_cast<std::size_t>(bitinfer::packed_bytes(p, n, k));
  BITINFER_CHECK(size == expected, "packed_size: expected " << expected << ", got " << size);
  return {p, n, k, packed};
}

// The row in use, as BITINFER_ERROR_ISA where the environment forbids one.
bitinfer_status find_table(const bitinfer::KernelTable*& table) {
  return guarded(BITINFER_ERROR_ISA, [&] { table = &bitinfer::active_table(); });
}

}  // namespace

extern "C" {

const char* bitinfer_version(void) { return BITINFER_VERSION; }

const char* bitinfer_last_error(void) { return last_error().c_str(); }

const char* bitinfer_active_isa(void) {
  const char* name = nullptr;
  guarded(BITINFER_ERROR_ISA, [&] { name = bitinfer::active_isa(); });
  return name;
}

const char* bitinfer_available_isa(size_t index) {
  const char* name = nullptr;
  guarded(BITINFER_ERROR_INTERNAL, [&] { name = bitinfer::available_isa_name(index); });
  return name;
}

bitinfer_status bitinfer_set_isa(const char* name) {
  if (!name) return fail(BITINFER_ERROR_ARGUMENT, "name: expected a pointer, got null");
  return guarded(BITINFER_ERROR_ISA, [&] { bitinfer::set_isa(name); });
}

bitinfer_status bitinfer_packed_size(bitinfer_packing packing, int64_t n, int64_t k, size_t* size) {
  return guarded(BITINFER_ERROR_ARGUMENT, [&] {
    check_shape(packing, n, k);
    check_pointer(size, "size");
    *size = static_cast<std::size_t>(bitinfer::packed_bytes(static_cast<Packing>(packing), n, k));
  });
}

bitinfer_status bitinfer_pack(bitinfer_packing packing, int64_t n, int64_t k, const int8_t* weights,
                              uint8_t* packed, size_t packed_size, int num_threads) {
  const bitinfer_status status = guarded(BITINFER_ERROR_ARGUMENT, [&] {
    packed_view(packing, n, k, packed, packed_size, 1);
    check_pointer(weights, "weights");
    bitinfer::resolve_num_threads(num_threads);
  });
  if (status != BITINFER_OK) return status;
  return guarded(BITINFER_ERROR_CODE, [&] {
    bitinfer::pack(weights, n, k, static_cast<Packing>(packing), packed, num_threads);
  });
}

bitinfer_status bitinfer_unpack(bitinfer_packing packing, int64_t n, int64_t k,
                                const uint8_t* packed, size_t packed_size, int8_t* weights,
                                int num_threads) {
  PackedTernary w{};
  const bitinfer_status status = guarded(BITINFER_ERROR_ARGUMENT, [&] {
    w = packed_view(packing, n, k, packed, packed_size, 1);
    check_pointer(weights, "weights");
    bitinfer::resolve_num_threads(num_threads);
  });
  if (status != BITINFER_OK) return status;
  return guarded(BITINFER_ERROR_CODE, [&] { bitinfer::unpack(w, weights, num_threads); });
}

bitinfer_status bitinfer_validate(bitinfer_packing packing, int64_t n, int64_t k,
                                  const uint8_t* packed, size_t packed_size, int num_threads) {
  PackedTernary w{};
  const bitinfer_status status = guarded(BITINFER_ERROR_ARGUMENT, [&] {
    w = packed_view(packing, n, k, packed, packed_size, 1);
    bitinfer::resolve_num_threads(num_threads);
  });
  if (status != BITINFER_OK) return status;
  return guarded(BITINFER_ERROR_CODE, [&] { bitinfer::validate_packed(w, num_threads); });
}

bitinfer_status bitinfer_gemv(bitinfer_packing packing, bitinfer_family family, int64_t n,
                              int64_t k, const uint8_t* packed, size_t packed_size,
                              const int8_t* activations, int32_t* acc, int num_threads) {
  const bitinfer::KernelTable* table = nullptr;
  const bitinfer_status status = find_table(table);
  if (status != BITINFER_OK) return status;
  return guarded(BITINFER_ERROR_ARGUMENT, [&] {
    BITINFER_CHECK(family >= BITINFER_GEMV_AUTO && family <= BITINFER_GEMV_DOT,
                   "family: expected 0 to 2, got " << family);
    const PackedTernary w = packed_view(packing, n, k, packed, packed_size, BITINFER_PACKED_ALIGN);
    check_pointer(activations, "activations");
    check_pointer(acc, "acc", alignof(int32_t));
    const bitinfer::GemvFamily chosen =
        family == BITINFER_GEMV_AUTO  ? bitinfer::gemv_for(w.packing).family
        : family == BITINFER_GEMV_DOT ? bitinfer::GemvFamily::kDot
                                      : bitinfer::GemvFamily::kAddsub;
    bitinfer::ternary_gemv(*table, chosen, {w, activations, k, 1, acc}, bitinfer::kMaxStreams,
                           num_threads);
  });
}

bitinfer_status bitinfer_gemm(bitinfer_packing packing, int64_t m, int64_t n, int64_t k,
                              const uint8_t* packed, size_t packed_size, const int8_t* activations,
                              int32_t* acc, int num_threads) {
  const bitinfer::KernelTable* table = nullptr;
  const bitinfer_status status = find_table(table);
  if (status != BITINFER_OK) return status;
  return guarded(BITINFER_ERROR_ARGUMENT, [&] {
    const PackedTernary w = packed_view(packing, n, k, packed, packed_size, BITINFER_PACKED_ALIGN);
    BITINFER_CHECK(m >= 1 && m <= std::numeric_limits<int32_t>::max(),
                   "m: expected 1 to 2^31 - 1, got " << m);
    check_pointer(activations, "activations");
    check_pointer(acc, "acc", alignof(int32_t));
    bitinfer::ternary_gemm(*table, {w, activations, k, m, acc}, num_threads);
  });
}

}  // extern "C"
