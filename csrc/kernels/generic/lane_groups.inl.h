// Cuts the tiles of all streams into groups of lanes that a GEMV kernel works on side by side.
//
// Tiles are taken in the order of reading: tile 0 of every stream, then tile 1, ... With few
// streams a group holds neighbouring tiles of one stream, so that a table load is shared even
// there. Included inside the anonymous namespace of a row, after read_ahead.inl.h; no multiply,
// since the addsub kernels use it.
#pragma once

template <int count>
struct LaneGroup {
  static constexpr int kCount = count;
  const uint8_t* tile[count];
  int32_t* acc[count];
};

// What a kernel prefetches while it reads a block of lane r. Not lambdas: GCC 12 takes a function
// that only prefetches for one without effect, and drops calls that need not be inlined.
template <int count>
struct FetchAhead {
  BITINFER_INLINE void operator()(int r, const uint8_t* block) const {
    __builtin_prefetch(block + prefetch_ahead<count>(r));
  }
};

template <int count>
BITINFER_INLINE FetchAhead<count> fetch_ahead(const LaneGroup<count>&) {
  return {};
}

// The next tiles to read: tile_offset and acc_offset are those of the present tile in each stream.
struct LaneCursor {
  const TileStreams& streams;
  int64_t tile_bytes;
  int64_t tile_rows;
  int64_t tiles_left = streams.tiles_per_stream;
  int stream = 0;
  int64_t tile_offset = 0;
  int64_t acc_offset = 0;

  template <int count>
  BITINFER_INLINE int take(LaneGroup<count>& lanes) {
    int taken = 0;
    while (taken < count && tiles_left > 0) {
      lanes.tile[taken] = streams.tiles[stream] + tile_offset;
      lanes.acc[taken] = streams.acc[stream] + acc_offset;
      ++taken;
      if (++stream == streams.num_streams) {
        stream = 0;
        --tiles_left;
        tile_offset += tile_bytes;
        acc_offset += tile_rows;
      }
    }
    return taken;
  }
};

// A remainder of fewer than max_count lanes has loops of fixed length too.
template <int count, int max_count, typename Fn>
BITINFER_INLINE void call_with(const LaneGroup<max_count>& lanes, int taken, const Fn& fn) {
  if (taken == count) {
    LaneGroup<count> exact;
    for (int i = 0; i < count; ++i) {
      exact.tile[i] = lanes.tile[i];
      exact.acc[i] = lanes.acc[i];
    }
    fn(exact);
  } else if constexpr (count > 1) {
    call_with<count - 1>(lanes, taken, fn);
  }
}

// fn(LaneGroup<1..max_count>) once per group of at most max_count lanes.
template <int max_count, typename Fn>
BITINFER_INLINE void for_each_lane_group(const TileStreams& streams, int64_t tile_bytes,
                                         int64_t tile_rows, const Fn& fn) {
  assert(streams.num_streams >= 1 && streams.num_streams <= kMaxStreams);
  assert(streams.tiles_per_stream >= 1);
  LaneCursor cursor{streams, tile_bytes, tile_rows};
  LaneGroup<max_count> lanes{};
  for (int taken = cursor.take(lanes); taken > 0; taken = cursor.take(lanes)) {
    call_with<max_count>(lanes, taken, fn);
  }
}
