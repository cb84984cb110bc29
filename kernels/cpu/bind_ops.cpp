// The ops of the native module: addresses and sizes of a caller's float32 tensors, checked before anything is read.
#include <nanobind/stl/optional.h>
#include <nanobind/stl/tuple.h>

#include <climits>
#include <stdexcept>
#include <string>

#include "bind.h"
#include "ops.h"

namespace nb = nanobind;
using namespace nb::literals;
using fastgan::RowMajor;

namespace {

[[noreturn]] void refuse(const char* name, const char* what) {
  throw std::invalid_argument(std::string(name) + ": " + what);
}

// The largest size of a dimension: indices of rows and columns, rounded up to whole panels, are ints.
constexpr long kMost = INT_MAX - 64;

// An address, floats from one row to the next, and how many floats lie in memory from the address on.
using Address = std::tuple<uint64_t, long, long>;

float* floats(const char* name, uint64_t address, long count, long room) {
  if (count < 0) refuse(name, "its size is negative");
  if (count > room) refuse(name, "its memory ends before its last element");
  if (count && !address) refuse(name, "it has no memory");
  if (address % alignof(float)) refuse(name, "its address is not that of a float");
  return reinterpret_cast<float*>(address);
}

RowMajor matrix(const char* name, const Address& a, long rows, long columns) {
  const auto [address, stride, room] = a;
  if (rows < 0 || rows > kMost || columns < 0 || columns > kMost) refuse(name, "its size is out of range");
  if (rows > 1 && stride < columns) refuse(name, "its rows overlap");
  if (rows > 1 && stride > LONG_MAX / rows) refuse(name, "its stride is out of range");
  const long used = rows && columns ? (rows - 1) * stride + columns : 0;
  return {floats(name, address, used, room), (int)rows, (int)columns, stride};
}

// A contiguous output, or null where there is none.
float* output(const char* name, const std::optional<Address>& a, long rows, long columns) {
  if (!a) return nullptr;
  if (rows > 1 && columns > 0 && std::get<1>(*a) != columns) refuse(name, "it is not contiguous");
  return const_cast<float*>(matrix(name, *a, rows, columns).p);
}

int team(int threads) {
  if (threads < 1 || threads > 4096) refuse("threads", "wanted 1 to 4096");
  return threads;
}

void dense_forward(long batch, long inputs, long outputs, const Address& x, const Address& weight,
                   const std::optional<Address>& bias, double slope, const Address& y, int threads) {
  const RowMajor xs = matrix("x", x, batch, inputs), ws = matrix("weight", weight, outputs, inputs);
  const float* bs = bias ? matrix("bias", *bias, 1, outputs).p : nullptr;
  float* ys = output("y", y, batch, outputs);
  if (!(slope >= 0)) refuse("slope", "wanted a number >= 0");
  team(threads);
  nb::gil_scoped_release release;
  fastgan::dense_forward(xs, ws, bs, (float)slope, ys, threads);
}

void dense_backward(long batch, long inputs, long outputs, const Address& dy, const std::optional<Address>& x,
                    const std::optional<Address>& weight, const Address& y, double slope,
                    const std::optional<Address>& dx, const std::optional<Address>& dweight,
                    const std::optional<Address>& dbias, int threads) {
  const RowMajor none{nullptr, 0, 0, 0};
  const RowMajor ds = matrix("dy", dy, batch, outputs), ys = matrix("y", y, batch, outputs);
  if (dx.has_value() != weight.has_value()) refuse("dx", "it goes with weight");
  if (dweight.has_value() != x.has_value()) refuse("dweight", "it goes with x");
  const RowMajor xs = x ? matrix("x", *x, batch, inputs) : none;
  const RowMajor ws = weight ? matrix("weight", *weight, outputs, inputs) : none;
  float* dxs = output("dx", dx, batch, inputs);
  float* dws = output("dweight", dweight, outputs, inputs);
  float* dbs = output("dbias", dbias, 1, outputs);
  if (!(slope >= 0)) refuse("slope", "wanted a number >= 0");
  team(threads);
  nb::gil_scoped_release release;
  fastgan::dense_backward(ds, xs, ws, ys, (float)slope, dxs, dws, dbs, threads);
}

void bce(long count, const Address& logits, const std::optional<Address>& target, double value,
         const std::optional<Address>& weight, const std::optional<Address>& pos_weight, int reduction,
         const Address& loss, const std::optional<Address>& gradient, int threads) {
  const auto input = [&](const char* name, const std::optional<Address>& a) -> const float* {
    return a ? floats(name, std::get<0>(*a), count, std::get<2>(*a)) : nullptr;
  };
  if (reduction < fastgan::kNone || reduction > fastgan::kSum) refuse("reduction", "wanted 0, 1 or 2");
  const bool each = reduction == fastgan::kNone;
  float* out = floats("loss", std::get<0>(loss), each ? count : 1, std::get<2>(loss));
  const fastgan::BceArrays arrays{
      input("logits", logits), input("target", target), input("weight", weight), input("pos_weight", pos_weight),
      (float)value, 1.0f, each ? out : nullptr, const_cast<float*>(input("gradient", gradient))};
  team(threads);
  nb::gil_scoped_release release;
  fastgan::bce_with_logits(arrays, count, (fastgan::Reduction)reduction, out, threads);
}

}  // namespace

void bind_ops(nb::module_& m) {
  m.def("dense_forward", &dense_forward, "batch"_a, "inputs"_a, "outputs"_a, "x"_a, "weight"_a, "bias"_a.none(),
        "slope"_a, "y"_a, "threads"_a, "leaky_relu(x weight^T + bias) into y. Tensors: (address, row stride, room).");
  m.def("dense_backward", &dense_backward, "batch"_a, "inputs"_a, "outputs"_a, "dy"_a, "x"_a.none(),
        "weight"_a.none(), "y"_a, "slope"_a, "dx"_a.none(), "dweight"_a.none(), "dbias"_a.none(), "threads"_a,
        "The gradients whose outputs are given.");
  m.def("bce", &bce, "count"_a, "logits"_a, "target"_a.none(), "value"_a, "weight"_a.none(), "pos_weight"_a.none(),
        "reduction"_a, "loss"_a, "gradient"_a.none(), "threads"_a, "BCE with logits, all tensors contiguous.");
  m.def("use_openmp", &fastgan::use_openmp, "parallel"_a, "number"_a,
        "Take threads from the OpenMP runtime with this GOMP_parallel and omp_get_thread_num.");
}
