// t5 tiles to panels of codes (unpack_panel.inl.h): 4 K-blocks are 20 columns, 5 quads. Included
// inside the anonymous namespace of a row.
//
// A 128-entry look-up turns each packed byte into the codes of those of its trits that belong to
// one quad, 2 bits each, so a quad takes one look-up or two; the index ignores bit 7, which as a
// mask turns every code c into 2 - c. vpmultishiftqb then spreads the 4 codes of a row over 4
// bytes.
#pragma once

constexpr int64_t kT5BlockBytes = kLayouts[static_cast<int>(Packing::kT5)].block_bytes;
constexpr int64_t kT5BlockK = kLayouts[static_cast<int>(Packing::kT5)].block_k;
constexpr int kT5Rows = 64;

// Trits [first, first + count) of K-block `block` are the codes from `place` on of quad `quad`.
struct T5Part {
  int block, first, count, quad, place;
};
constexpr int kT5Parts = 8;
constexpr T5Part kT5PartList[kT5Parts] = {{0, 0, 4, 0, 0}, {0, 4, 1, 1, 0}, {1, 0, 3, 1, 1},
                                          {1, 3, 2, 2, 0}, {2, 0, 2, 2, 2}, {2, 2, 3, 3, 0},
                                          {3, 0, 1, 3, 3}, {3, 1, 4, 4, 0}};
constexpr int kT5Quads = 5;

struct T5Unpack {
  alignas(64) uint8_t codes[kT5Parts][128];  // of magnitudes 0..121
  uint8_t twos[kT5Parts];                    // code 2 in every place of the part
  alignas(64) uint8_t row[64];               // row that byte i is to hold
  alignas(64) uint8_t shift[4][64];          // bits down to the code of each byte of a group
};

constexpr T5Unpack make_t5_unpack() {
  T5Unpack t{};
  for (int p = 0; p < kT5Parts; ++p) {
    const T5Part& part = kT5PartList[p];
    for (int m = 0; m < 122; ++m) {
      int digits[5] = {};  // base 3 of 121 + m, highest first
      for (int i = 4, u = 121 + m; i >= 0; --i, u /= 3) digits[i] = u % 3;
      int byte = 0;
      for (int i = 0; i < part.count; ++i) byte |= digits[part.first + i] << 2 * (part.place + i);
      t.codes[p][m] = static_cast<uint8_t>(byte);
    }
    for (int i = 0; i < part.count; ++i)
      t.twos[p] = static_cast<uint8_t>(t.twos[p] | 2 << 2 * (part.place + i));
  }
  for (int i = 0; i < 64;
       ++i) {  // byte 2 g + e of qword z: row 16 g + 2 z + e, as a group wants it
    const int z = i / 8, g = i % 8 / 2, e = i % 2;
    t.row[i] = static_cast<uint8_t>(16 * g + 2 * z + e);
    for (int group = 0; group < 4; ++group) {  // here i is 4 r + place of a row r of the group
      const int r = i / 4, place = i % 4;
      t.shift[group][i] = static_cast<uint8_t>(8 * (2 * group + r % 2) + 2 * place);
    }
  }
  return t;
}
constexpr T5Unpack kT5Unpack = make_t5_unpack();

// 4 K-blocks of a tile (64 rows), `blocks` of them there, to 5 quads of a byte a row, the code of
// column 4 q + i in bits 2 i + 1..2 i; columns beyond the last block get any codes (their
// activations are zero). Rows stand in the order of T5Unpack::row.
BITINFER_INLINE void t5_to_quads(const uint8_t* tile, int blocks, __m512i* quad) {
  const T5Unpack& t = kT5Unpack;
  const __m512i row = load64(t.row);
  __m512i packed[4];
  for (int i = 0; i < 4; ++i)
    packed[i] = _mm512_permutexvar_epi8(row, load64(tile + kT5BlockBytes * (i < blocks ? i : 0)));
#pragma GCC unroll 8
  for (int p = 0; p < kT5Parts; ++p) {
    const T5Part& part = kT5PartList[p];
    const __m512i bytes = packed[part.block];
    const __m512i c = _mm512_permutex2var_epi8(load64(t.codes[p]), bytes, load64(t.codes[p] + 64));
    const __m512i twos = _mm512_set1_epi8(static_cast<char>(t.twos[p]));
    const __m512i codes = _mm512_mask_sub_epi8(c, _mm512_movepi8_mask(bytes), twos, c);
    quad[part.quad] = part.place == 0 ? codes : _mm512_or_si512(quad[part.quad], codes);
  }
}

// A quad of a group of 16 rows, a byte a code.
BITINFER_INLINE __m512i spread_t5(__m512i quad, __m512i shift) {
  return _mm512_and_si512(_mm512_multishift_epi64_epi8(shift, quad), _mm512_set1_epi8(3));
}

// One tile; see unpack_panel.inl.h.
BITINFER_INLINE void unpack_t5(const uint8_t* tile, int64_t num_blocks, uint8_t* panel,
                               int64_t group_bytes) {
  for (int64_t b = 0; b < num_blocks; b += 4, tile += 4 * kT5BlockBytes) {
    const int blocks = num_blocks - b < 4 ? static_cast<int>(num_blocks - b) : 4;
    for (int i = 0; i < 4; ++i) prefetch(tile + kT5BlockBytes * i + kBytesAhead);
    __m512i quad[kT5Quads];
    t5_to_quads(tile, blocks, quad);
    for (int q = 0; q < kT5Quads; ++q, panel += kQuadBytes) {
      for (int g = 0; g < 4; ++g)
        _mm512_storeu_si512(panel + g * group_bytes,
                            spread_t5(quad[q], load64(kT5Unpack.shift[g])));
    }
  }
}
