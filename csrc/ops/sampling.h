// Which tokens may be drawn, with what weights, and the draw: the steps from the temperature on, as
// docs/sampling.md defines them.
//
// Every sum is taken in double, one term after the other, and exp is the kernels' own: the same
// logits give the same tokens on every machine. Of equal values the first one comes first.
#pragma once

#include <cstdint>
#include <utility>
#include <vector>

namespace bitinfer {

// Place of the largest value; -1 if it is not finite or a value is NaN. n >= 1
int64_t argmax(const float* values, int64_t n);

// Places of the `count` largest values, largest first; no value is NaN, 0 <= count <= n.
std::vector<int32_t> largest(const float* values, int64_t n, int64_t count);

// values[0] + values[1] + ...
double total(const float* values, int64_t n);

struct SamplingRules {
  float temperature;  // > 0
  int64_t top_k;      // 0: all
  double typical_p;   // 1: all
  double top_p;       // 1: all
  double min_p;       // 0: all
  double xtc_threshold;
};

class Candidates {
 public:
  explicit Candidates(const SamplingRules& rules);

  // Applies the rules to logits (n), XTC only if asked; false if they have no largest number.
  bool choose(const float* logits, int64_t n, bool xtc);

  // What the last choose left: ids, ascending, and weights, not normalised.
  const std::vector<int32_t>& ids() const { return ids_; }
  const std::vector<float>& weights() const { return weights_; }

  // The first id at which the running sum of weights exceeds `uniform` (in [0, 1)) of the whole.
  int32_t draw(double uniform) const;

 private:
  void weigh(const float* logits, int64_t n, float top);
  void keep_typical();
  void keep_top();
  void keep_likely();
  void leave_out_top_choices();
  template <typename Key>
  void keep_shortest_run(const Key& key, double bound);
  template <typename Key>
  bool find_run(const Key& key, double bound, double end);
  void keep_places();

  SamplingRules rules_;
  std::vector<int32_t> ids_;
  std::vector<float> scaled_, weights_;  // s and w of docs/sampling.md, of ids_
  std::vector<int32_t> places_;          // those in ids_ that stay, ascending
  std::vector<std::pair<double, int32_t>> order_;
};

}  // namespace bitinfer
