// Owning storage aligned to 64 bytes, zeroed once at construction; moves, never copies.
#pragma once

#include <cstddef>
#include <cstring>
#include <memory>
#include <new>

namespace bitinfer {

template <typename T>
class AlignedBuffer {
 public:
  AlignedBuffer() = default;
  explicit AlignedBuffer(std::size_t count)
      : data_(static_cast<T*>(::operator new[](count * sizeof(T) + 64, std::align_val_t{64}))),
        count_(count) {
    std::memset(static_cast<void*>(data_.get()), 0, count * sizeof(T));
  }

  T* data() { return data_.get(); }
  const T* data() const { return data_.get(); }
  std::size_t size() const { return count_; }
  T& operator[](std::size_t i) { return data_.get()[i]; }
  const T& operator[](std::size_t i) const { return data_.get()[i]; }

 private:
  struct Free {
    void operator()(T* p) const {
      ::operator delete[](static_cast<void*>(p), std::align_val_t{64});
    }
  };
  std::unique_ptr<T, Free> data_;
  std::size_t count_ = 0;
};

}  // namespace bitinfer
