/* One GEMV call of every row, packing and family that the machine has, for instructions.py to count
 * under valgrind. Writes "row packing family" for each, in the order of the calls.
 *
 *   count_gemv ROWS COLUMNS
 */
#include <bitinfer.h>
#include <stdio.h>
#include <stdlib.h>

static const struct {
  bitinfer_packing packing;
  const char* name;
} kPackings[] = {
    {BITINFER_I2, "i2"}, {BITINFER_T3, "t3"}, {BITINFER_T5, "t5"}, {BITINFER_B1, "b1"}};
enum { kNumPackings = 4 };

static const struct {
  bitinfer_family family;
  const char* name;
} kFamilies[] = {{BITINFER_GEMV_ADDSUB, "addsub"}, {BITINFER_GEMV_DOT, "dot"}};

static uint32_t random_state = 1;

static uint32_t next_random(void) {
  random_state = random_state * 1664525u + 1013904223u;
  return random_state >> 16;
}

static void check(bitinfer_status status) {
  if (status == BITINFER_OK) return;
  fprintf(stderr, "%s\n", bitinfer_last_error());
  exit(1);
}

static void* allocate(size_t bytes) {
  const size_t align = BITINFER_PACKED_ALIGN;
  void* memory = aligned_alloc(align, (bytes + align - 1) / align * align);
  if (memory) return memory;
  fprintf(stderr, "out of memory\n");
  exit(1);
}

int main(int argc, char** argv) {
  const int64_t n = argc == 3 ? atoll(argv[1]) : 0, k = argc == 3 ? atoll(argv[2]) : 0;
  size_t bytes[kNumPackings];
  for (int p = 0; p < kNumPackings; ++p)
    check(bitinfer_packed_size(kPackings[p].packing, n, k, &bytes[p]));
  int8_t* weights = allocate((size_t)(n * k));
  int8_t* activations = allocate((size_t)k);
  int32_t* acc = allocate((size_t)n * sizeof(int32_t));
  for (int64_t i = 0; i < k; ++i) activations[i] = (int8_t)(next_random() % 255) - 127;
  uint8_t* packed[kNumPackings];
  for (int p = 0; p < kNumPackings; ++p) {
    const int is_binary = kPackings[p].packing == BITINFER_B1;  // it holds no 0
    for (int64_t i = 0; i < n * k; ++i)
      weights[i] = (int8_t)(is_binary ? next_random() % 2 * 2 : next_random() % 3) - 1;
    packed[p] = allocate(bytes[p]);
    check(bitinfer_pack(kPackings[p].packing, n, k, weights, packed[p], bytes[p], 1));
  }
  const char* row;
  for (size_t i = 0; (row = bitinfer_available_isa(i)); ++i) {
    check(bitinfer_set_isa(row));  // and its self-test
    for (int call = 0; call < 2 * kNumPackings; ++call) {
      const int p = call / 2, f = call % 2;
      check(bitinfer_gemv(kPackings[p].packing, kFamilies[f].family, n, k, packed[p], bytes[p],
                          activations, acc, 1));
      printf("%s %s %s\n", row, kPackings[p].name, kFamilies[f].name);
    }
  }
  return 0;
}
