// Python face of the KV cache: pools of blocks, handles of blocks, caches made of them.
#include "model/kv_cache.h"

#include <pybind11/numpy.h>
#include <pybind11/stl.h>

#include <cstring>
#include <memory>
#include <vector>

#include "bindings/register.h"
#include "util/check.h"

namespace py = pybind11;

namespace bitinfer {

namespace {

using U8 = py::array_t<uint8_t, py::array::c_style>;

U8 bytes_of(const HeldBlock& held) {
  U8 bytes(held.pool()->layout().block_bytes());
  std::memcpy(bytes.mutable_data(), held.pool()->address(held.block()),
              static_cast<std::size_t>(bytes.nbytes()));
  return bytes;
}

void check_size(const KvLayout& layout, const U8& data) {
  BITINFER_CHECK(data.nbytes() == layout.block_bytes(),
                 "block: expected " << layout.block_bytes() << " bytes, got " << data.nbytes());
}

std::unique_ptr<HeldBlock> new_block(std::shared_ptr<KvPool> pool, const U8& data) {
  check_size(pool->layout(), data);
  const int32_t block = pool->take();
  std::memcpy(pool->address(block), data.data(), static_cast<std::size_t>(data.nbytes()));
  auto held = std::make_unique<HeldBlock>(pool, block);
  pool->release(block);  // the handle holds it now
  return held;
}

}  // namespace

void register_kv_cache(py::module_& m) {
  py::class_<HeldBlock>(m, "KvBlock", "Keeps a block of a pool, whose positions stay as they are.")
      .def_property_readonly("shared", &HeldBlock::shared,
                             "Whether a cache or another handle has it too.")
      .def("bytes", &bytes_of, "A copy of its bytes, uint8 (block_bytes).");

  py::class_<KvCache>(m, "KvCache", "Keys and values of one sequence; made by Decoder.new_cache.")
      .def_property_readonly("length", &KvCache::length, "Positions stored.")
      .def_property_readonly("capacity", &KvCache::capacity, "Positions that fit.")
      .def_property_readonly("dtype", [](const KvCache& c) { return kv_name(c.layout().type); })
      .def_property_readonly("nbytes", &KvCache::nbytes, "Bytes at full capacity.")
      .def_property_readonly("used_bytes", &KvCache::used_bytes,
                             "Bytes of the 64-position blocks in use.")
      .def("trim", &KvCache::trim, py::arg("length"), "Forget all positions from `length` on.")
      .def("copy", &KvCache::copy,
           "A cache of its own with equal content, in the same memory until one is appended to.")
      .def("block", &KvCache::block, py::arg("index"),
           "A handle of the block of positions 64 · index and following.")
      .def(
          "append_block",
          [](KvCache& cache, const U8& data, int64_t length) {
            check_size(cache.layout(), data);
            cache.append_block(data.data(), length);
          },
          py::arg("data"), py::arg("length"),
          "Store `length` positions that lie in the bytes of a block, behind whole blocks.")
      .def("new_blocks", &KvCache::new_blocks, py::arg("count"),
           "Blocks that it would take for `count` positions more.");

  py::class_<KvPool, std::shared_ptr<KvPool>>(
      m, "KvPool", "Memory of a fixed size for the caches of many sequences.")
      .def_property_readonly("num_blocks", &KvPool::num_blocks, "Blocks of 64 positions.")
      .def_property_readonly("used_blocks", &KvPool::used_blocks,
                             "Blocks that caches and handles have.")
      .def_property_readonly(
          "block_bytes", [](const KvPool& p) { return p.layout().block_bytes(); },
          "Bytes of a block.")
      .def("new_block", &new_block, py::arg("data"), "A block with a copy of these bytes.")
      .def(
          "new_cache",
          [](std::shared_ptr<KvPool> pool, int64_t capacity,
             const std::vector<const HeldBlock*>& blocks, int64_t length) {
            return std::make_unique<KvCache>(std::move(pool), capacity, blocks, length);
          },
          py::arg("capacity"), py::arg("blocks") = py::list(), py::arg("length") = 0,
          "A cache of this pool that begins with `length` positions, which lie in `blocks`.");
  m.attr("KV_BLOCK") = kKvBlock;
}

}  // namespace bitinfer
