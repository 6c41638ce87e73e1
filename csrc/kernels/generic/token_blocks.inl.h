// Cuts the tokens of a GEMM into blocks whose size its micro-kernel is compiled for. Included
// inside the anonymous namespace of a row.
#pragma once

template <int n>
struct Constant {
  static constexpr int value = n;
};

// fn(Constant<count>) for a count of 1..most that is known at run time.
template <int most, typename Fn>
BITINFER_INLINE void with_constant(int64_t count, const Fn& fn) {
  if (count == most) {
    fn(Constant<most>());
  } else if constexpr (most > 1) {
    with_constant<most - 1>(count, fn);
  }
}

// fn(Constant<size>, first) for as few blocks of at most `tokens` of the tokens [first, m) as there
// can be, of even size: a small one at the end would take the time of a larger one.
template <int tokens, typename Fn>
BITINFER_INLINE void for_each_token_block(int64_t first, int64_t m, const Fn& fn) {
  for (int64_t left = ceil_div(m - first, tokens); left > 0; --left) {
    const int64_t size = ceil_div(m - first, left);
    with_constant<tokens>(size, [&](auto here) { fn(here, first); });
    first += size;
  }
}

// Rows and tokens whose dot products are in registers at once.
struct DotShape {
  int rows;
  int tokens;
};
