// What each binding file offers to module.cpp.
#pragma once

#include <pybind11/pybind11.h>

namespace bitinfer {

void register_isa(pybind11::module_& m);  // isa rows, GEMV family, self-test, threads
void register_pack(
    pybind11::module_& m);  // layouts, pack, unpack, validate, checkpoint conversions
void register_scaled(pybind11::module_& m);    // float matrices that are ternary already
void register_head(pybind11::module_& m);      // planes of a two-plane head
void register_ops(pybind11::module_& m);       // read bandwidth, deterministic maths
void register_kv_cache(pybind11::module_& m);  // KvPool, KvBlock, KvCache
void register_model(pybind11::module_& m);     // Decoder
void register_sampling(pybind11::module_& m);  // logits to the next token

}  // namespace bitinfer
