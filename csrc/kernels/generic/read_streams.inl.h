// The memory roofline: reads every byte once, in the access pattern of the GEMV kernels (a cache
// line of each far-apart stream in turn, prefetched as theirs are), and does nothing else with it.
// Needs read_ahead.inl.h and WordVec (load, add of 32-bit lanes, fold).
#pragma once

template <int num_streams>
BITINFER_INLINE uint32_t sum_streams(const uint8_t* data, int64_t stream_bytes) {
  constexpr int kVecs = 64 / static_cast<int>(sizeof(WordVec));
  const uint8_t* stream[num_streams];
  WordVec sums[num_streams];
  for (int s = 0; s < num_streams; ++s) {
    stream[s] = data + s * stream_bytes;
    sums[s] = zero_words();
  }
  for (int64_t offset = 0; offset < stream_bytes; offset += 64) {
    for (int s = 0; s < num_streams; ++s) {
      prefetch(stream[s] + offset + prefetch_ahead<num_streams>(s));
      for (int v = 0; v < kVecs; ++v) {
        const uint8_t* vec = stream[s] + offset + v * static_cast<int>(sizeof(WordVec));
        sums[s] = add_words(sums[s], load_words(vec));
      }
    }
  }
  WordVec sum = zero_words();
  for (int s = 0; s < num_streams; ++s) sum = add_words(sum, sums[s]);
  return fold_words(sum);
}

BITINFER_INLINE uint32_t read_streams_by_count(const uint8_t* data, int64_t bytes,
                                               int num_streams) {
  assert(num_streams >= 1 && num_streams <= kMaxStreams && bytes % (64 * num_streams) == 0);
  const int64_t stream_bytes = bytes / num_streams;
  switch (num_streams) {
    case 1:
      return sum_streams<1>(data, stream_bytes);
    case 2:
      return sum_streams<2>(data, stream_bytes);
    case 3:
      return sum_streams<3>(data, stream_bytes);
    case 4:
      return sum_streams<4>(data, stream_bytes);
    case 5:
      return sum_streams<5>(data, stream_bytes);
    case 6:
      return sum_streams<6>(data, stream_bytes);
    case 7:
      return sum_streams<7>(data, stream_bytes);
    default:
      return sum_streams<8>(data, stream_bytes);
  }
}
