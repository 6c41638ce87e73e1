// One hash of the logits for each kind of model: equal for all rows of this CPU, packings, GEMV
// families, thread counts and chunk sizes, which this program checks, and equal on all machines,
// which run_emulated.sh checks.
//
//   forward_test [--best-row]    prints a line "<model> <FNV-1a of the logits' bytes>" each;
//                                with --best-row only this CPU's best row is tried
#include <cinttypes>
#include <cmath>
#include <cstdio>
#include <memory>
#include <string>
#include <vector>

#include "dispatch/dispatch.h"
#include "expect.h"
#include "model/decoder.h"
#include "random_model.h"

namespace bitinfer_test {
namespace {

using bitinfer::Decoder;
using bitinfer::HiddenAct;
using bitinfer::KvType;
using bitinfer::LogitsRows;

constexpr ModelVariant kVariants[] = {
    {"relu2, sub-norms, int8 head, f16 cache", HiddenAct::kRelu2, true, false, true, "f16",
     KvType::kF16},
    {"silu, biases, bf16 head, int8 cache", HiddenAct::kSilu, false, true, false, "bf16",
     KvType::kInt8},
    {"gelu, sub-norms, f16 head, f32 cache, window", HiddenAct::kGeluTanh, true, false, false,
     "f16", KvType::kF32, 20},
};
constexpr int64_t kPrompt = 70;  // two blocks of the cache
constexpr int64_t kDecoded = 5;

uint64_t fnv1a(const std::vector<float>& values) {
  uint64_t hash = 0xcbf29ce484222325u;
  const auto* bytes = reinterpret_cast<const unsigned char*>(values.data());
  for (std::size_t i = 0; i < values.size() * sizeof(float); ++i)
    hash = (hash ^ bytes[i]) * 0x100000001b3u;
  return hash;
}

// Logits of every position: a prompt at once, then tokens one by one.
uint64_t run(const RandomModel& model, KvType kv_type, int num_threads, int64_t prefill_chunk) {
  Decoder decoder(model.spec, model.tensors, num_threads);
  decoder.set_prefill_chunk(prefill_chunk);
  const auto cache = decoder.new_cache(kPrompt + kDecoded, kv_type);
  std::vector<int32_t> tokens;
  Random random(5);
  for (int64_t i = 0; i < kPrompt + kDecoded; ++i) {
    tokens.push_back(random.below(static_cast<int>(model.spec.vocab_size)));
  }
  std::vector<float> logits(static_cast<std::size_t>((kPrompt + kDecoded) * model.spec.vocab_size));
  decoder.forward({{tokens.data(), kPrompt, cache.get(), LogitsRows::kAll}}, logits.data());
  for (int64_t i = kPrompt; i < kPrompt + kDecoded; ++i) {
    decoder.forward({{tokens.data() + i, 1, cache.get()}},
                    logits.data() + i * model.spec.vocab_size);
  }
  float least = logits[0];
  float most = logits[0];
  for (const float logit : logits) {
    EXPECT(std::isfinite(logit), "a logit of %g", static_cast<double>(logit));
    least = logit < least ? logit : least;
    most = logit > most ? logit : most;
  }
  EXPECT(most > least, "all logits are %g", static_cast<double>(most));
  return fnv1a(logits);
}

void all_ways_give_one_hash(const ModelVariant& variant, bool binary,
                            const std::vector<std::string>& rows) {
  const char* weights = binary ? ", binary weights" : "";
  uint64_t expected = 0;
  bool first = true;
  const auto check = [&](const std::string& way, uint64_t hash) {
    if (first) expected = hash;
    first = false;
    EXPECT(hash == expected, "%s%s: %s: %016" PRIx64 ", not %016" PRIx64, variant.name, weights,
           way.c_str(), hash, expected);
  };
  std::vector<std::unique_ptr<RandomModel>> models;
  for (int p = 0; p < bitinfer::kNumPackings; ++p) {
    const auto packing = static_cast<bitinfer::Packing>(p);
    if (is_binary(packing) && !binary) continue;
    models.push_back(std::make_unique<RandomModel>(variant, packing, binary));
  }
  for (const std::string& isa : rows) {
    bitinfer::set_isa(isa);
    for (const auto& model : models) {
      const std::string way = isa + ", " + bitinfer::layout(model->packing).name;
      for (const char* family : {"addsub", "dot"}) {
        bitinfer::set_gemv(family);
        check(way + ", " + family, run(*model, variant.kv_type, 2, 256));
      }
    }
    bitinfer::set_gemv("auto");
    check(isa + ", chunks of 7 on 3 threads", run(*models[1], variant.kv_type, 3, 7));
  }
  EXPECT(bitinfer::dispatch_notes().empty(), "%s", bitinfer::dispatch_notes()[0].c_str());
  std::printf("%s%s: %016" PRIx64 "\n", variant.name, weights, expected);
  std::fflush(stdout);
}

}  // namespace
}  // namespace bitinfer_test

int main(int argc, char** argv) {
  std::vector<std::string> rows = bitinfer::available_isas();
  if (argc > 1 && std::string(argv[1]) == "--best-row") rows.resize(1);
  for (const auto& variant : bitinfer_test::kVariants) {
    bitinfer_test::all_ways_give_one_hash(variant, false, rows);
  }
  bitinfer_test::all_ways_give_one_hash(bitinfer_test::kVariants[0], true, rows);
  return 0;
}
