#include "ops/sampling.h"

#include <algorithm>
#include <cmath>
#include <functional>
#include <limits>
#include <numeric>

#include "dispatch/dispatch.h"
#include "util/check.h"

namespace bitinfer {
namespace {

std::vector<float> block_maxima(const float* values, int64_t n) {
  std::vector<float> maxima(static_cast<std::size_t>((n + kMaxBlock - 1) / kMaxBlock));
  active_table().f32.block_max(values, n, maxima.data());
  return maxima;
}

double sum(const std::vector<float>& values) {
  return total(values.data(), static_cast<int64_t>(values.size()));
}

}  // namespace

int64_t argmax(const float* values, int64_t n) {
  const std::vector<float> maxima = block_maxima(values, n);
  const auto top = std::max_element(maxima.begin(), maxima.end());
  if (!std::isfinite(*top)) return -1;
  const float* block = values + (top - maxima.begin()) * kMaxBlock;
  return std::find(block, values + n, *top) - values;
}

std::vector<int32_t> largest(const float* values, int64_t n, int64_t count) {
  const std::vector<float> maxima = block_maxima(values, n);
  float least = -std::numeric_limits<float>::infinity();
  if (0 < count && count <= static_cast<int64_t>(maxima.size())) {
    std::vector<float> order = maxima;  // so many maxima are no less, so as many values are
    std::nth_element(order.begin(), order.begin() + (count - 1), order.end(), std::greater<>());
    least = order[static_cast<std::size_t>(count - 1)];
  }
  std::vector<std::pair<float, int32_t>> found;  // (value, -place): the larger pair comes first
  for (int64_t start = 0; start < n; start += kMaxBlock) {
    if (maxima[static_cast<std::size_t>(start / kMaxBlock)] < least) continue;
    for (int64_t i = start; i < std::min(start + kMaxBlock, n); ++i) {
      if (values[i] >= least) found.emplace_back(values[i], static_cast<int32_t>(-i));
    }
  }
  std::partial_sort(found.begin(), found.begin() + count, found.end(), std::greater<>());
  std::vector<int32_t> places(static_cast<std::size_t>(count));
  for (std::size_t i = 0; i < places.size(); ++i) places[i] = -found[i].second;
  return places;
}

double total(const float* values, int64_t n) { return std::accumulate(values, values + n, 0.0); }

Candidates::Candidates(const SamplingRules& rules) : rules_(rules) {
  BITINFER_CHECK(rules.temperature > 0.0f && rules.top_k >= 0,
                 "sampling: expected a temperature above 0 and a top_k of at least 0, got "
                     << rules.temperature << " and " << rules.top_k);
}

bool Candidates::choose(const float* logits, int64_t n, bool xtc) {
  const int64_t best = argmax(logits, n);
  if (best < 0) return false;
  weigh(logits, n, logits[best]);
  if (rules_.typical_p < 1.0) keep_typical();
  if (rules_.top_p < 1.0) keep_top();
  if (rules_.min_p > 0.0) keep_likely();
  if (xtc) leave_out_top_choices();
  return true;
}

int32_t Candidates::draw(double uniform) const {
  const double whole = sum(weights_);
  const double bound = std::min(uniform * whole, std::nextafter(whole, 0.0));
  double running = 0.0;
  std::size_t i = 0;
  while ((running += static_cast<double>(weights_[i])) <= bound) ++i;
  return ids_[i];
}

// Temperature and top-k.
void Candidates::weigh(const float* logits, int64_t n, float top) {
  if (0 < rules_.top_k && rules_.top_k < n) {
    ids_ = largest(logits, n, rules_.top_k);
    std::sort(ids_.begin(), ids_.end());
    scaled_.resize(ids_.size());
    for (std::size_t i = 0; i < ids_.size(); ++i) scaled_[i] = logits[ids_[i]];
  } else {
    ids_.resize(static_cast<std::size_t>(n));
    std::iota(ids_.begin(), ids_.end(), 0);
    scaled_.assign(logits, logits + n);
  }
  const float temperature = rules_.temperature;
  for (float& s : scaled_) s = (s - top) / temperature;
  weights_.resize(ids_.size());
  active_table().f32.exp(scaled_.data(), static_cast<int64_t>(ids_.size()), weights_.data());
}

// The key is |-ln p - H|, H the entropy; infinite where p = 0.
//
// With s the scaled logits and S the sum of w = exp(s): -ln p = ln S - s and H = ln S - mean(s), so
// it is |mean(s) - s|, and no logarithm is needed.
void Candidates::keep_typical() {
  double weighted = 0.0;
  for (std::size_t i = 0; i < ids_.size(); ++i) {
    if (weights_[i] > 0.0f)
      weighted += static_cast<double>(weights_[i]) * static_cast<double>(scaled_[i]);
  }
  const double whole = sum(weights_), mean = weighted / whole;
  const auto key = [&](std::size_t i) {
    return weights_[i] > 0.0f ? std::fabs(mean - static_cast<double>(scaled_[i]))
                              : std::numeric_limits<double>::infinity();
  };
  keep_shortest_run(key, rules_.typical_p * whole);
}

void Candidates::keep_top() {
  const auto key = [&](std::size_t i) { return -static_cast<double>(scaled_[i]); };
  keep_shortest_run(key, rules_.top_p * sum(weights_));
}

// Keeps the fewest tokens, least key (>= 0) first, whose weights sum up to `bound`; at least one.
template <typename Key>
void Candidates::keep_shortest_run(const Key& key, double bound) {
  constexpr double kWidth = 0.125;  // only keys up to the bucket that reaches the bound are sorted
  constexpr int kBuckets = 256;
  double mass[kBuckets] = {};
  for (std::size_t i = 0; i < ids_.size(); ++i) {
    mass[static_cast<int>(std::min(key(i) / kWidth, kBuckets - 1.0))] += weights_[i];
  }
  int buckets = 1;
  for (double running = mass[0]; running < bound && buckets < kBuckets; ++buckets) {
    running += mass[buckets];
  }
  const double end =
      buckets < kBuckets ? buckets * kWidth : std::numeric_limits<double>::infinity();
  // None is there, or summed in this order they fall short: then all are sorted.
  if (!find_run(key, bound, end)) find_run(key, bound, std::numeric_limits<double>::infinity());
  keep_places();
}

// Sets places_ to the run among the keys up to `end`; false if there is none.
template <typename Key>
bool Candidates::find_run(const Key& key, double bound, double end) {
  order_.clear();
  for (std::size_t i = 0; i < ids_.size(); ++i) {
    if (const double k = key(i); k <= end) order_.emplace_back(k, static_cast<int32_t>(i));
  }
  std::sort(order_.begin(), order_.end());
  places_.clear();
  double running = 0.0;
  for (std::size_t i = 0; i < order_.size() && (i == 0 || running < bound); ++i) {
    places_.push_back(order_[i].second);
    running += static_cast<double>(weights_[static_cast<std::size_t>(order_[i].second)]);
  }
  std::sort(places_.begin(), places_.end());
  return !places_.empty() && running >= bound;
}

void Candidates::keep_likely() {
  const auto n = static_cast<int64_t>(weights_.size());
  const std::vector<float> maxima = block_maxima(weights_.data(), n);
  const float most = *std::max_element(maxima.begin(), maxima.end());
  const float least = static_cast<float>(rules_.min_p * static_cast<double>(most));
  places_.clear();
  for (std::size_t i = 0; i < ids_.size(); ++i) {
    if (weights_[i] >= least) places_.push_back(static_cast<int32_t>(i));
  }
  keep_places();
}

// XTC: of the top choices only the least likely stays, of equals the last.
void Candidates::leave_out_top_choices() {
  const float least = static_cast<float>(rules_.xtc_threshold * sum(weights_));
  std::size_t stays = ids_.size();
  for (std::size_t i = 0; i < ids_.size(); ++i) {
    if (weights_[i] >= least && (stays == ids_.size() || scaled_[i] <= scaled_[stays])) stays = i;
  }
  places_.clear();
  for (std::size_t i = 0; i < ids_.size(); ++i) {
    if (weights_[i] < least || i == stays) places_.push_back(static_cast<int32_t>(i));
  }
  keep_places();
}

// places_ are ascending, so nothing is overwritten too soon.
void Candidates::keep_places() {
  for (std::size_t i = 0; i < places_.size(); ++i) {
    const auto from = static_cast<std::size_t>(places_[i]);
    ids_[i] = ids_[from];
    scaled_[i] = scaled_[from];
    weights_[i] = weights_[from];
  }
  ids_.resize(places_.size());
  scaled_.resize(places_.size());
  weights_.resize(places_.size());
}

}  // namespace bitinfer
