// After the first steps, the decoder's forward call takes no memory: every global operator new is
// counted.
#include <atomic>
#include <cstdlib>
#include <new>
#include <vector>

#include "expect.h"
#include "model/decoder.h"
#include "random_model.h"

namespace {

std::atomic<int64_t> allocations{0};

void* counted(std::size_t bytes, std::size_t alignment) {
  allocations.fetch_add(1);
  const std::size_t whole = (bytes + alignment - 1) / alignment * alignment;
  if (void* memory = std::aligned_alloc(alignment, whole ? whole : alignment)) return memory;
  throw std::bad_alloc();
}

}  // namespace

void* operator new(std::size_t bytes) { return counted(bytes, alignof(std::max_align_t)); }
void* operator new[](std::size_t bytes) { return counted(bytes, alignof(std::max_align_t)); }
void* operator new(std::size_t bytes, std::align_val_t alignment) {
  return counted(bytes, static_cast<std::size_t>(alignment));
}
void* operator new[](std::size_t bytes, std::align_val_t alignment) {
  return counted(bytes, static_cast<std::size_t>(alignment));
}
void operator delete(void* memory) noexcept { std::free(memory); }
void operator delete[](void* memory) noexcept { std::free(memory); }
void operator delete(void* memory, std::size_t) noexcept { std::free(memory); }
void operator delete[](void* memory, std::size_t) noexcept { std::free(memory); }
void operator delete(void* memory, std::align_val_t) noexcept { std::free(memory); }
void operator delete[](void* memory, std::align_val_t) noexcept { std::free(memory); }
void operator delete(void* memory, std::size_t, std::align_val_t) noexcept { std::free(memory); }
void operator delete[](void* memory, std::size_t, std::align_val_t) noexcept { std::free(memory); }

namespace bitinfer_test {
namespace {

using bitinfer::Decoder;
using bitinfer::HiddenAct;
using bitinfer::KvType;
using bitinfer::LogitsRows;
using bitinfer::Packing;
using bitinfer::Sequence;

constexpr ModelVariant kVariants[] = {
    {"relu2, int8 head", HiddenAct::kRelu2, true, false, true, "f16", KvType::kF16},
    {"silu, bf16 head", HiddenAct::kSilu, false, true, false, "bf16", KvType::kInt8},
};

void steps_take_no_memory(const ModelVariant& variant, Packing packing, int num_threads) {
  constexpr int64_t kPrompt = 60, kSteps = 150;  // into the third block of the cache
  const RandomModel model(variant, packing, is_binary(packing));
  Decoder decoder(model.spec, model.tensors, num_threads);
  const auto cache = decoder.new_cache(kPrompt + kSteps, variant.kv_type);
  const auto other = decoder.new_cache(2 * kPrompt + kSteps, variant.kv_type);
  const std::vector<int32_t> prompt(kPrompt, 7);
  std::vector<float> logits(static_cast<std::size_t>(2 * model.spec.vocab_size));
  const std::vector<Sequence> prompts = {{prompt.data(), kPrompt, cache.get()},
                                         {prompt.data(), kPrompt, other.get()}};
  const std::vector<Sequence> again = {{prompt.data(), kPrompt, other.get(), LogitsRows::kNone}};
  const std::vector<Sequence> step = {{prompt.data(), 1, cache.get()}};
  const std::vector<Sequence> steps = {{prompt.data(), 1, cache.get()},
                                       {prompt.data(), 1, other.get()}};
  decoder.forward(prompts, logits.data());
  decoder.forward(step, logits.data());
  const int64_t before = allocations.load();
  for (int i = 1; i < kSteps; ++i) decoder.forward(i % 2 ? step : steps, logits.data());
  decoder.forward(again, nullptr);
  EXPECT(allocations.load() == before, "%s, %s, %d threads: %lld allocations", variant.name,
         bitinfer::layout(packing).name, num_threads,
         static_cast<long long>(allocations.load() - before));
}

}  // namespace
}  // namespace bitinfer_test

int main() {
  for (const auto& variant : bitinfer_test::kVariants) {
    for (int p = 0; p < bitinfer::kNumPackings; ++p) {
      for (const int num_threads : {1, 3})
        bitinfer_test::steps_take_no_memory(variant, static_cast<bitinfer::Packing>(p),
                                            num_threads);
    }
  }
  EXPECT(allocations.load() > 0, "nothing was counted");
  return 0;
}
