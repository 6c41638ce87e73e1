// The self-test notices every kernel that is wrong in one place, and the choice of a row steps down
// past it.
#include "dispatch/self_test.h"

#include <cstring>
#include <string>
#include <vector>

#include "dispatch/dispatch.h"
#include "expect.h"

namespace bitinfer_test {
namespace {

using bitinfer::compare_kernels;
using bitinfer::FloatKernels;
using bitinfer::KernelTable;
using bitinfer::Settled;
using bitinfer::SoftmaxState;
using bitinfer::step_down;

// The kernels that the broken ones call.
const KernelTable& right() { return bitinfer::table_of("scalar"); }

// The smallest change of a float.
void nudge(float* value) {
  uint32_t bits;
  std::memcpy(&bits, value, sizeof(bits));
  bits ^= 1;
  std::memcpy(value, &bits, sizeof(bits));
}

struct Broken {
  std::string kernel;  // how the self-test names it
  KernelTable table;
};

template <int p>
void break_packing(std::vector<Broken>* all) {
  const std::string name = bitinfer::kLayouts[p].name;
  KernelTable t = right();
  t.gemv_addsub[p] = [](const bitinfer::TileStreams& s, int64_t blocks,
                        const bitinfer::Activation& a) {
    right().gemv_addsub[p](s, blocks, a);
    s.acc[s.num_streams - 1][s.tiles_per_stream * bitinfer::kLayouts[p].tile_rows - 1] += 1;
  };
  all->push_back({"gemv_addsub " + name, t});
  t = right();
  t.gemv_dot[p] = [](const bitinfer::TileStreams& s, int64_t blocks,
                     const bitinfer::Activation& a) {
    right().gemv_dot[p](s, blocks, a);
    s.acc[0][0] -= 1;
  };
  all->push_back({"gemv_dot " + name, t});
  t = right();
  t.gemm[p] = [](const uint8_t* tiles, int64_t num_tiles, int64_t num_blocks, const int8_t* a,
                 int64_t a_stride, const int32_t* a_sum, int64_t m, int32_t* acc,
                 int64_t acc_stride, uint8_t* scratch) {
    right().gemm[p](tiles, num_tiles, num_blocks, a, a_stride, a_sum, m, acc, acc_stride, scratch);
    acc[(m - 1) * acc_stride] += 1;
  };
  all->push_back({"gemm " + name, t});
}

template <int split>
void break_head(std::vector<Broken>* all) {
  const std::string name = std::string("head planes ") + bitinfer::kHeadSplits[split].name;
  KernelTable t = right();
  t.head_high[split] = [](const uint8_t* high, int64_t n, int64_t k, const int8_t* a,
                          int64_t a_stride, int32_t* acc) {
    right().head_high[split](high, n, k, a, a_stride, acc);
    acc[2 * n - 1] += 1;
  };
  all->push_back({name, t});
  t = right();
  t.head_join[split] = [](const uint8_t* high, const uint8_t* low, int64_t k, int8_t* codes) {
    right().head_join[split](high, low, k, codes);
    codes[k - 1] ^= 1;
  };
  all->push_back({name, t});
}

void break_integers(std::vector<Broken>* all) {
  break_packing<0>(all);
  break_packing<1>(all);
  break_packing<2>(all);
  break_packing<3>(all);
  break_head<0>(all);
  break_head<1>(all);
  KernelTable t = right();
  t.gemv_rows = [](const bitinfer::ChosenRows& w, const bitinfer::Activation& a, int32_t* acc) {
    right().gemv_rows(w, a, acc);
    acc[w.count - 1] += 1;
  };
  all->push_back({"gemv_rows", t});
  t = right();
  t.gemv_columns = [](const bitinfer::ChosenRows& w, const int8_t* codes, int32_t* scratch,
                      int32_t* acc) {
    right().gemv_columns(w, codes, scratch, acc);
    acc[0] -= 1;
  };
  all->push_back({"gemv_columns", t});
  t = right();
  t.gemm_i8 = [](const int8_t* w, int64_t n, const int8_t* a, int64_t a_stride,
                 const int32_t* a_sum, int64_t m, int64_t k_padded, int32_t* acc,
                 int64_t acc_stride) {
    right().gemm_i8(w, n, a, a_stride, a_sum, m, k_padded, acc, acc_stride);
    acc[n - 1] += 1;
  };
  all->push_back({"gemm_i8", t});
  t = right();
  t.read_streams = [](const uint8_t* data, int64_t bytes, int streams) {
    return right().read_streams(data, bytes, streams) + 1;
  };
  all->push_back({"read_streams", t});
}

template <int type>
void break_kv(std::vector<Broken>* all) {
  constexpr const char* kNames[] = {"f32", "f16", "int8"};
  KernelTable t = right();
  t.f32.append_kv[type] = [](const bitinfer::KvBlock& block, int64_t pos, int64_t head_dim,
                             const float* k, const float* v) {
    right().f32.append_kv[type](block, pos, head_dim, k, v);
    if (pos == 63) static_cast<uint8_t*>(block.v)[0] ^= 1;
  };
  all->push_back({std::string("append_kv ") + kNames[type], t});
  t = right();
  t.f32.prepare_query[type] = [](float* q, int64_t head_dim, float scale) {
    float factor = right().f32.prepare_query[type](q, head_dim, scale);
    nudge(&factor);
    return factor;
  };
  all->push_back({std::string("prepare_query ") + kNames[type], t});
  t = right();
  t.f32.attend_block[type] = [](const bitinfer::KvBlock& block, const void* next, int64_t head_dim,
                                const bitinfer::QueryRows& rows,
                                const bitinfer::SoftmaxState& out) {
    right().f32.attend_block[type](block, next, head_dim, rows, out);
    nudge(out.o + (rows.count - 1) * out.o_stride + head_dim - 1);
  };
  all->push_back({std::string("attend_block ") + kNames[type], t});
}

// Adds a table with changed float kernels.
class Adder {
 public:
  explicit Adder(std::vector<Broken>* all) : all_(all) {}
  void operator()(const std::string& kernel, void (*change)(FloatKernels&)) const {
    all_->push_back({kernel, right()});
    change(all_->back().table.f32);
  }

 private:
  std::vector<Broken>* all_;
};

void break_linear(const Adder& add) {
  add("rms_norm", [](FloatKernels& f) {
    f.rms_norm = [](const float* x, const float* w, int64_t k, float eps, float* y) {
      right().f32.rms_norm(x, w, k, eps, y);
      nudge(y + k - 1);
    };
  });
  add("scale", [](FloatKernels& f) {  // wrong with a bias only
    f.scale = [](const int32_t* acc, int64_t n, float a, float w, const float* bias, float* y) {
      right().f32.scale(acc, n, a, w, bias, y);
      if (bias) nudge(y);
    };
  });
  add("scale_add", [](FloatKernels& f) {
    f.scale_add = [](const int32_t* acc, int64_t n, float a, float w, const float* bias, float* x) {
      right().f32.scale_add(acc, n, a, w, bias, x);
      if (!bias) nudge(x + n - 1);
    };
  });
  add("scale_head", [](FloatKernels& f) {
    f.scale_head = [](const int32_t* hi, const int32_t* lo, int64_t n, float a, const float* row,
                      float* y) {
      right().f32.scale_head(hi, lo, n, a, row, y);
      nudge(y + n - 1);
    };
  });
  add("scale_rows_add f16", [](FloatKernels& f) {  // wrong with two planes of f16 only
    f.scale_rows_add = [](const int32_t* hi, const int32_t* lo, int64_t n, float a, const void* row,
                          bitinfer::FloatType type, float* y) {
      right().f32.scale_rows_add(hi, lo, n, a, row, type, y);
      if (lo && type == bitinfer::FloatType::kF16) nudge(y + n - 1);
    };
  });
  add("rope", [](FloatKernels& f) {
    f.rope = [](float* x, int64_t heads, int64_t head_dim, const float* cos, const float* sin) {
      right().f32.rope(x, heads, head_dim, cos, sin);
      nudge(x + heads * head_dim - 1);
    };
  });
  add("widen bf16", [](FloatKernels& f) {
    f.widen = [](const void* from, bitinfer::FloatType type, int64_t n, float* y) {
      right().f32.widen(from, type, n, y);
      if (type == bitinfer::FloatType::kBF16) nudge(y + n - 1);
    };
  });
  add("dot_rows f16", [](FloatKernels& f) {
    f.dot_rows = [](const void* w, bitinfer::FloatType type, int64_t n, int64_t k, const float* x,
                    float* y) {
      right().f32.dot_rows(w, type, n, k, x, y);
      if (type == bitinfer::FloatType::kF16) nudge(y + n - 1);
    };
  });
  add("quantize_i8", [](FloatKernels& f) {
    f.quantize_i8 = [](const float* x, int64_t k, int64_t bytes, float levels, int8_t* codes,
                       int32_t* sum) {
      const float scale = right().f32.quantize_i8(x, k, bytes, levels, codes, sum);
      *sum += 1;
      return scale;
    };
  });
  add("quantize_planes", [](FloatKernels& f) {
    f.quantize_planes = [](const float* x, int64_t k, int64_t bytes, int8_t* hi, int8_t* lo,
                           int32_t* sums) {
      const float scale = right().f32.quantize_planes(x, k, bytes, hi, lo, sums);
      lo[bytes - 1] = 1;
      return scale;
    };
  });
}

void break_activations(const Adder& add) {
  add("exp", [](FloatKernels& f) {
    f.exp = [](const float* x, int64_t n, float* y) {
      right().f32.exp(x, n, y);
      nudge(y + n - 1);
    };
  });
  add("relu2_mul", [](FloatKernels& f) {
    f.relu2_mul = [](const float* gate, const float* up, int64_t n, float* y) {
      right().f32.relu2_mul(gate, up, n, y);
      nudge(y + n - 1);
    };
  });
  add("silu_mul", [](FloatKernels& f) {
    f.silu_mul = [](const float* gate, const float* up, int64_t n, float* y) {
      right().f32.silu_mul(gate, up, n, y);
      nudge(y + n - 1);
    };
  });
  add("gelu_mul", [](FloatKernels& f) {
    f.gelu_mul = [](const float* gate, const float* up, int64_t n, float* y) {
      right().f32.gelu_mul(gate, up, n, y);
      nudge(y + n - 1);
    };
  });
  add("divide", [](FloatKernels& f) {
    f.divide = [](const float* o, float l, int64_t n, float* y) {
      right().f32.divide(o, l, n, y);
      nudge(y + n - 1);
    };
  });
  add("join_softmax", [](FloatKernels& f) {
    f.join_softmax = [](const SoftmaxState& s, const SoftmaxState& p, int64_t rows) {
      int64_t rescaled = -1;  // the last row that is
      for (int64_t r = 0; r < rows; ++r) rescaled = p.m[r] > s.m[r] ? r : rescaled;
      right().f32.join_softmax(s, p, rows);
      if (rescaled >= 0) nudge(s.l + rescaled);
    };
  });
}

void every_broken_kernel_is_noticed_and_passed_over() {
  std::vector<Broken> all;
  break_integers(&all);
  break_linear(Adder(&all));
  break_activations(Adder(&all));
  break_kv<0>(&all);
  break_kv<1>(&all);
  break_kv<2>(&all);
  for (const Broken& broken : all) {
    const std::string text = compare_kernels(broken.table, right());
    EXPECT(text.rfind(broken.kernel + ":", 0) == 0, "%s broken: the self-test says \"%s\"",
           broken.kernel.c_str(), text.c_str());
    const Settled settled = step_down({{"fast", &broken.table}, {"plain", &right()}});
    EXPECT(settled.index == 1, "%s broken: still in use", broken.kernel.c_str());
    EXPECT(settled.note == "fast failed its self-test (" + text + "): using plain", "%s",
           settled.note.c_str());
  }
}

// Tables of partial sums have no form that all rows share: the sums made of them are wrong.
template <int p>
void broken_tables_are_noticed(const KernelTable& row) {
  static const KernelTable* intact;
  intact = &row;
  if (!row.build_tables[p]) return;
  KernelTable t = row;
  t.build_tables[p] = [](const int8_t* codes, int64_t begin, int64_t end, uint8_t* tables) {
    intact->build_tables[p](codes, begin, end, tables);
    // An entry of its own may be one that no weight selects.
    for (int64_t b = begin; b < end; ++b) tables[b * intact->table_bytes[p] + 1] ^= 1;
  };
  const std::string text = compare_kernels(t, right());
  EXPECT(text.rfind("gemv_addsub ", 0) == 0, "broken build_tables: \"%s\"", text.c_str());
}

void choice_steps_down_over_all_that_fail() {
  const KernelTable sound = right();
  KernelTable broken = right();
  broken.read_streams = [](const uint8_t*, int64_t, int) { return 0u; };
  Settled settled = step_down({{"a", &sound}, {"b", &broken}, {"c", &right()}});
  EXPECT(settled.index == 0 && settled.note.empty(), "%s", settled.note.c_str());
  settled = step_down({{"a", &broken}, {"b", &broken}, {"c", &sound}, {"d", &right()}});
  EXPECT(settled.index == 2, "stopped at %zu", settled.index);
  const std::string why = " failed its self-test (read_streams: another checksum with 1 streams)";
  EXPECT(settled.note == "a" + why + "; b" + why + ": using c", "%s", settled.note.c_str());
  settled = step_down({{"only", &broken}});
  EXPECT(settled.index == 0 && settled.note.empty(), "the last candidate is right by definition");
}

}  // namespace
}  // namespace bitinfer_test

int main() {
  using namespace bitinfer_test;
  for (const std::string& isa : bitinfer::available_isas()) {
    const KernelTable& row = bitinfer::table_of(isa);
    EXPECT(compare_kernels(row, right()).empty(), "%s is wrong", isa.c_str());
    broken_tables_are_noticed<0>(row);
    broken_tables_are_noticed<1>(row);
    broken_tables_are_noticed<2>(row);
  }
  every_broken_kernel_is_noticed_and_passed_over();
  choice_steps_down_over_all_that_fail();
  return 0;
}
