// How gemv_rows and gemv_columns walk their rows: the list is cut into kMaxStreams runs that are
// read side by side, so that the reads are far apart, with prefetch, since rows are too short for
// the CPU to foresee. On prefetch and the row's i2_dot_lanes. Included inside the anonymous
// namespace of a row.
#pragma once

// Row i of the list, the last one from there on: it fills the runs at the end.
struct RowRuns {
  const ChosenRows& w;
  int64_t run = ceil_div(w.count, kMaxStreams);  // rows of each
  int64_t row_bytes = w.num_blocks * kI2BlockBytes;

  BITINFER_INLINE const uint8_t* row(int64_t i) const {
    return w.w + w.rows[i < w.count ? i : w.count - 1] * row_bytes;
  }
};

// The same block of the row after it.
template <int count>
struct FetchNext {
  int64_t ahead[count];
  BITINFER_INLINE void operator()(int r, const uint8_t* block) const { prefetch(block + ahead[r]); }
};

BITINFER_INLINE void gemv_chosen_rows(const ChosenRows& w, const Activation& a, int32_t* acc) {
  assert(w.count >= 1 && w.num_blocks >= 1);
  const RowRuns runs{w};
  for (int64_t i = 0; i < runs.run; ++i) {
    for (int first = 0; first < kMaxStreams; first += kI2DotLanes) {
      LaneGroup<kI2DotLanes> lanes;
      FetchNext<kI2DotLanes> fetch;
      for (int r = 0; r < kI2DotLanes; ++r) {
        const int64_t at = (first + r) * runs.run + i;
        lanes.tile[r] = runs.row(at);
        lanes.acc[r] = acc + (at < w.count ? at : w.count - 1);
        fetch.ahead[r] = runs.row(at + (i + 1 < runs.run)) - lanes.tile[r];
      }
      i2_dot_lanes(lanes, w.num_blocks, a, fetch);
    }
  }
}

constexpr int kColumns = kMaxStreams;  // that gemv_columns adds up in registers, one of each run

struct Columns {
  const uint8_t* w[kColumns];  // first block of each
  FetchNext<kColumns> fetch;
  int8_t codes[kColumns];  // 0 where a run has no column left
  int32_t sum;             // of the codes
};

BITINFER_INLINE Columns take_columns(const RowRuns& runs, const int8_t* codes, int64_t i) {
  Columns columns;
  columns.sum = 0;
  for (int c = 0; c < kColumns; ++c) {
    const int64_t at = c * runs.run + i;
    columns.w[c] = runs.row(at);
    columns.fetch.ahead[c] = runs.row(at + (i + 1 < runs.run)) - columns.w[c];
    columns.codes[c] = at < runs.w.count ? codes[runs.w.rows[at]] : int8_t{0};
    columns.sum += columns.codes[c];
  }
  return columns;
}
