// What the parts of the native module fastgan.kernels.cpu._native share: NumPy arrays in and out, no torch.
#pragma once
#include <nanobind/nanobind.h>
#include <nanobind/ndarray.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/vector.h>

#include <cstdint>
#include <stdexcept>

#include "kernels.h"

template <class T>
using In = nanobind::ndarray<const T, nanobind::c_contig, nanobind::device::cpu>;
// An output is written in place, so arguments of this type take no conversions: those would be copies.
template <class T>
using Out = nanobind::ndarray<T, nanobind::c_contig, nanobind::device::cpu>;

inline void want(bool ok, const char* message) {
  if (!ok) throw std::invalid_argument(message);
}

inline int team(int threads) {
  want(threads > 0, "threads: at least one");
  return threads;
}

// Numbers of `count` rows: that of the first, or an int64 array, which `index` keeps alive.
fastgan::RowNumbers numbers_of(const nanobind::object& rows, size_t count, In<int64_t>& index);

void bind_models(nanobind::module_& m);  // Engine and Sampler
void bind_ops(nanobind::module_& m);
