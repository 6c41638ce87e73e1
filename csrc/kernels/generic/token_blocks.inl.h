// Cuts the tokens of a GEMM into blocks of fixed size for its micro-kernel. Included inside the
// anonymous namespace of a row.
#pragma once

template <int n>
struct Constant {
  static constexpr int value = n;
};

// As many tokens as fit at once, then half as many (rounded up), ... down to one.
template <int tokens, typename Fn>
BITINFER_INLINE void for_each_token_block(int64_t done, int64_t m, const Fn& fn) {
  for (; m - done >= tokens; done += tokens) fn(Constant<tokens>(), done);
  if constexpr (tokens > 1) for_each_token_block<(tokens + 1) / 2>(done, m, fn);
}

// Rows and tokens whose dot products are in registers at once.
struct DotShape {
  int rows;
  int tokens;
};
