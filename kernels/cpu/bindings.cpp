// The native module: what it can run, noise, the peak. Engine, sampler and ops are bound in files of their own.
#include <algorithm>
#include <numeric>

#include "bind.h"
#include "dispatch.h"
#include "plan.h"
#include "pool.h"

namespace nb = nanobind;
using namespace nb::literals;

// Numbers of `count` rows: that of the first, or an int64 array, which `index` keeps alive.
fastgan::RowNumbers numbers_of(const nb::object& rows, size_t count, In<int64_t>& index) {
  uint64_t first = 0;
  if (nb::try_cast(rows, first, false)) return {first};
  want(nb::try_cast(rows, index, false), "rows: the number of the first, or int64 [count]");
  want(index.ndim() == 1 && index.size() == count, "rows: one number for each row of out");
  want(std::all_of(index.data(), index.data() + count, [](int64_t row) { return row >= 0; }), "rows: from 0 on");
  return {0, index.data()};
}

// Multiply-adds on all threads: at least so many flops together, and none where there is no `fma`.
long at_peak(long (*fma)(long flops, float* out), int threads, long flops) {
  team(threads);
  if (!fma) return 0;
  fastgan::Pool pool(threads);
  std::vector<long> done((size_t)threads);
  nb::gil_scoped_release release;
  pool.run([&](int thread) {
    volatile float unknown = 2;
    float sums = unknown;
    done[(size_t)thread] = fma(flops / threads, &sums);
    unknown = sums;
  });
  return std::accumulate(done.begin(), done.end(), 0L);
}

NB_MODULE(_native, m) {
  m.doc() = "fastgan's native CPU kernels";
  // A spawned DataLoader worker ends beside daemon threads of its own. What they reach is never freed, and by the
  // globals of multiprocessing and torch that is its dataset: nanobind would call this a leak of ours, in ten lines.
  nb::set_leak_warnings(false);
  bind_models(m);
  bind_ops(m);
  m.def("isas", &fastgan::usable_isas, "Instruction sets usable here, best first.");
  m.def("isa", [] { return std::string(fastgan::choose_kernels().name); }, "The one in use (FASTGAN_ISA).");
  m.def("maker", &fastgan::maker, "Who made the processor: amd, intel or other.");
  m.def("refused", &fastgan::refused_isa, "One that the processor has and the system refuses, and why; or ''.");

  m.def("words", [](uint64_t seed, uint32_t stream, nb::object rows, const Out<uint32_t>& out) {
    want(out.ndim() == 2, "out: a matrix");
    In<int64_t> index;
    const fastgan::RowNumbers numbers = numbers_of(rows, out.shape(0), index);
    const fastgan::Kernels& kernels = fastgan::choose_kernels();
    for (size_t r = 0; r < out.shape(0); r++) {
      const uint64_t row = numbers.index ? (uint64_t)numbers.index[r] : numbers.first + r;
      kernels.words(seed, stream, row, (int)out.shape(1), out.data() + r * out.shape(1));
    }
  }, "seed"_a, "stream"_a, "rows"_a, "out"_a.noconvert(), "noise.words and words_at, into uint32 [rows, columns].");

  m.def("normal", [](uint64_t seed, uint32_t stream, nb::object numbered, const Out<float>& out) {
    want(out.ndim() == 2, "out: a matrix");
    In<int64_t> index;
    const fastgan::RowNumbers numbers = numbers_of(numbered, out.shape(0), index);
    const int rows = (int)out.shape(0), columns = (int)out.shape(1);
    fastgan::Arena arena(true);
    const fastgan::Kernels& kernels = fastgan::choose_kernels();
    const int block = std::min(fastgan::padded(rows), 256);  // rows at a time
    const fastgan::Panels panels = arena.by_column(block, columns), turned = arena.by_row(block, columns);
    for (int r = 0; r < rows; r += block) {
      const fastgan::Rows some{0, std::min(block, rows - r)};
      kernels.normal(seed, stream, numbers.from(r), panels, some, columns);
      kernels.turn(panels, turned, some, columns);
      kernels.rows_f32(turned, some, columns, out.data() + (long)r * columns);
    }
  }, "seed"_a, "stream"_a, "rows"_a, "out"_a.noconvert(), "noise.normal and normal_at, into float32 [rows, columns].");

  m.def("epoch_index", [](uint64_t seed, uint64_t first, uint64_t size, const Out<int64_t>& out) {
    want(size > 0, "size: at least one data row");
    fastgan::choose_kernels().epoch_index(seed, first, (int)out.size(), size, out.data());
  }, "seed"_a, "first"_a, "size"_a, "out"_a.noconvert(), "noise.epoch_index, into int64 [count].");

  m.def("fma", [](int threads, long flops) {
    return at_peak(fastgan::choose_kernels().fma, threads, flops);
  }, "threads"_a, "flops"_a, "At least that many flops in registers, on all threads: the peak. Returns how many.");
  m.def("tile_fma", [](int threads, long flops) {
    return at_peak(fastgan::choose_kernels().tile_fma, threads, flops);
  }, "threads"_a, "flops"_a, "The same of bfloat16 numbers on the tile unit; 0 where the instruction set in use has none.");
  m.attr("tile_passes") = fastgan::kTilePasses;  // of them for a float32 product
}
