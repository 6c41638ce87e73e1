// How a kernel reads the streams that lie side by side: how far ahead it prefetches them, and each
// vector once. Included inside the anonymous namespace of a row; no multiply by a variable, since
// the addsub kernels use it.
#pragma once

// Bytes that a thread asks for before it reads them, over all its streams: as many lines as the
// memory has under way. Fewer streams that are fetched further ahead are read faster than many, so
// a kernel takes no more lanes than share its loads of activations or look-up tables to advantage.
constexpr int64_t kBytesAhead = 8192;

// Streams that begin at the same place of a page and were fetched in step would ask for the same
// cache sets and memory channels at once: tiles of t5 and i2 do for many K, 2,560 among them.
constexpr int64_t kAheadStep = 192;  // bytes; three lines: of the steps up to 320 the fastest

// Bytes ahead of its present read that stream r of `count` prefetches.
template <int count>
BITINFER_INLINE constexpr int64_t prefetch_ahead(int r) {
  return kBytesAhead / count + (2 * r - (count - 1)) * (kAheadStep / 2);
}

// bytes, loaded by an instruction of its own. Compilers fold a load into all that use its vector:
// then a line is touched several times, and not in the order of addresses, which Zen 5 read at down
// to half of its memory's speed.
template <typename Vec>
BITINFER_INLINE Vec in_register(Vec bytes) {
#if defined(__x86_64__)
  __asm__("" : "+v"(bytes));
#endif
  return bytes;
}
