#include "ops.h"

#include <sys/mman.h>

#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <limits>
#include <new>
#include <vector>

#include "dispatch.h"
#include "plan.h"
#include "team.h"

namespace fastgan {

namespace {

constexpr int kRows = 96;         // of a product that are computed together
constexpr int kPanels = 32;       // 512 columns, likewise: sums that wait stay in the second-level cache
constexpr int kBatch = 1024;      // rows of the batch whose gradients are packed together
constexpr long kBceUnit = 16384;  // logits of one thread at a time

long panel_of(int rows) { return (rows | 1) * (long)kPanel; }

// Scratch that a thread keeps for its next call, unless it is large.
class Scratch {
 public:
  explicit Scratch(size_t floats) {
    if (floats > kept_.size) {
      kept_.release();
      // Whole large pages: packed weights are read panel by panel.
      const size_t page = size_t{2} << 20, bytes = (floats * sizeof(float) + page - 1) / page * page;
      void* p = nullptr;
      if (posix_memalign(&p, bytes > page ? page : 64, bytes)) throw std::bad_alloc();
#ifdef MADV_HUGEPAGE
      if (bytes > page) madvise(p, bytes, MADV_HUGEPAGE);
#endif
      kept_.p = static_cast<float*>(p);
      kept_.size = bytes / sizeof(float);
    }
    next_ = kept_.p;
  }
  ~Scratch() {
    if (kept_.size > kMost) kept_.release();
  }
  Scratch(const Scratch&) = delete;
  Scratch& operator=(const Scratch&) = delete;

  float* take(size_t floats) {
    float* piece = next_;
    next_ += aligned(floats);
    return piece;
  }
  static size_t aligned(size_t floats) { return (floats + 15) / 16 * 16; }

 private:
  struct Block {
    float* p = nullptr;
    size_t size = 0;
    Block() = default;
    Block(const Block&) = delete;  // a temporary one would free what it has handed on
    Block& operator=(const Block&) = delete;
    void release() {
      std::free(p);
      p = nullptr;
      size = 0;
    }
    ~Block() { release(); }
  };
  static constexpr size_t kMost = size_t{16} << 20;  // 64 MiB
  static thread_local Block kept_;
  float* next_;
};

thread_local Scratch::Block Scratch::kept_;

// How a [rows, columns] result is cut into blocks, enough of them for every thread.
struct Blocks {
  int rows, height, panels, width;  // width in panels
  Blocks(int rows, int columns, int threads, int unit) : rows(rows), panels(panels_of(columns)) {
    const int even = (rows + threads - 1) / threads;
    height = std::min(kRows, (even + unit - 1) / unit * unit);
    const int across = (rows + height - 1) / height, least = (threads + across - 1) / across;
    width = std::max(1, std::min(kPanels, (panels + least - 1) / least));
  }
  long down() const { return (rows + height - 1) / height; }
  long across() const { return (panels + width - 1) / width; }
  size_t partial() const { return (size_t)height * (size_t)width * kPanel; }
  // Call f(m0, m1, n0, n1) for the blocks of one row of them.
  template <class F>
  void along(long row, const F& f) const {
    const int m0 = (int)row * height, m1 = std::min(rows, m0 + height);
    for (int n = 0; n < panels; n += width) f(m0, m1, n, std::min(panels, n + width));
  }
};

}  // namespace

void dense_forward(RowMajor x, RowMajor weight, const float* bias, float slope, float* y, int threads) {
  const OpKernels& kernels = *choose_kernels().ops;
  const int batch = x.rows, inputs = x.columns, outputs = weight.rows;
  if (batch == 0 || outputs == 0) return;
  if (inputs == 0) {  // no product: the bias alone
    for (int o = 0; o < outputs; o++) y[o] = !bias ? 0 : bias[o] > 0 ? bias[o] : slope == 0 ? 0 : bias[o] * slope;
    for (int r = 1; r < batch; r++) std::copy_n(y, outputs, y + r * (long)outputs);
    return;
  }
  const Blocks blocks(batch, outputs, threads, 2);
  const long w_panel = panel_of(inputs), x_panel = panel_of(blocks.height);
  const size_t w_size = Scratch::aligned((size_t)w_panel * (size_t)panels_of(outputs));
  const size_t x_size = Scratch::aligned((size_t)x_panel * (size_t)panels_of(inputs));
  const size_t partial = Scratch::aligned(blocks.partial()), bias_size = (size_t)padded(outputs);
  Scratch scratch(w_size + bias_size + (size_t)threads * (x_size + partial));
  float* w = scratch.take(w_size);
  float* padded_bias = nullptr;
  if (bias) {
    padded_bias = scratch.take(bias_size);
    std::copy_n(bias, outputs, padded_bias);
    std::fill(padded_bias + outputs, padded_bias + bias_size, 0.0f);
  }
  float* own = scratch.take((size_t)threads * (x_size + partial));

  const int group = 4 * kPanel;  // rows of the weight that one thread packs at a time
  for_units(threads, (outputs + group - 1) / group, [&](long unit, int) {
    const int first = (int)unit * group;
    kernels.pack_turned(weight, first, std::min(outputs, first + group), w, w_panel);
  });
  const bool few = blocks.down() < threads;  // rows of blocks: then a unit is a block
  for_units(threads, few ? blocks.down() * blocks.across() : blocks.down(), [&](long unit, int member) {
    float* packed = own + (size_t)member * (x_size + partial);
    const long row = few ? unit / blocks.across() : unit;
    const int m0 = (int)row * blocks.height, m1 = std::min(batch, m0 + blocks.height);
    kernels.pack(x, m0, m1, packed, x_panel);
    // Rows of the packed block count from 0.
    const RowsProduct product{packed, x_panel,     w,     w_panel,                 inputs, outputs,
                              batch,  padded_bias, slope, y + m0 * (long)outputs, outputs};
    const auto block = [&](int n0, int n1) { kernels.forward(product, 0, m1 - m0, n0, n1, packed + x_size); };
    if (few) {
      const int n0 = (int)(unit % blocks.across()) * blocks.width;
      block(n0, std::min(blocks.panels, n0 + blocks.width));
    } else {
      blocks.along(row, [&](int, int, int n0, int n1) { block(n0, n1); });
    }
  });
}

void dense_backward(RowMajor dy, RowMajor x, RowMajor weight, RowMajor y, float slope, float* dx, float* dweight,
                    float* dbias, int threads) {
  const OpKernels& kernels = *choose_kernels().ops;
  const int batch = dy.rows, outputs = dy.columns, inputs = dx ? weight.columns : dweight ? x.columns : 0;
  if (batch == 0 || outputs == 0) {
    if (dx) std::fill_n(dx, (size_t)batch * (size_t)inputs, 0.0f);
    if (dweight) std::fill_n(dweight, (size_t)outputs * (size_t)inputs, 0.0f);
    if (dbias) std::fill_n(dbias, outputs, 0.0f);
    return;
  }
  if (inputs == 0) dx = dweight = nullptr;  // nothing to write
  const int chunk = std::min(batch, kBatch);
  const Blocks dx_blocks(chunk, inputs, threads, 2), dw_blocks(outputs, inputs, threads, kPanel);
  const long w_panel = panel_of(outputs), panel = panel_of(chunk);
  const size_t w_size = dx ? Scratch::aligned((size_t)w_panel * (size_t)panels_of(inputs)) : 0;
  const size_t g_size = Scratch::aligned((size_t)panel * (size_t)panels_of(outputs));
  const size_t x_size = dweight ? Scratch::aligned((size_t)panel * (size_t)panels_of(inputs)) : 0;
  const size_t partial = Scratch::aligned(std::max(dx_blocks.partial(), dw_blocks.partial()));
  Scratch scratch(w_size + g_size + x_size + (size_t)threads * partial);
  float *w = scratch.take(w_size), *g = scratch.take(g_size), *xs = scratch.take(x_size);
  float* partials = scratch.take((size_t)threads * partial);

  const int some = 32;  // rows that one thread packs at a time
  const auto pack_rows = [&](int rows, const auto& f) {
    for_units(threads, (rows + some - 1) / some, [&](long unit, int) {
      f((int)unit * some, std::min(rows, ((int)unit + 1) * some));
    });
  };
  if (dx)
    pack_rows(outputs, [&](int r0, int r1) { kernels.pack(weight, r0, r1, w + r0 * (long)kPanel, w_panel); });
  for (int first = 0; first < batch; first += chunk) {
    const int rows = std::min(chunk, batch - first);
    pack_rows(rows, [&](int r0, int r1) {
      kernels.pack_masked(dy, y, slope, first + r0, first + r1, g + r0 * (long)kPanel, panel);
      if (dweight) kernels.pack(x, first + r0, first + r1, xs + r0 * (long)kPanel, panel);
    });
    Blocks down = dx_blocks;
    down.rows = rows;
    const RowsProduct of_x{g, panel, w, w_panel, outputs, inputs, batch, nullptr, 0, dx + first * (long)inputs, inputs};
    const RowsProduct of_w{g, panel, xs, panel, rows, inputs, batch, nullptr, 0, dweight, inputs};
    const long x_units = dx ? down.down() : 0, w_units = dweight ? dw_blocks.down() : 0, b_units = dbias ? 1 : 0;
    for_units(threads, w_units + x_units + b_units, [&](long unit, int member) {
      float* own = partials + (size_t)member * partial;
      if (unit < w_units)
        dw_blocks.along(unit, [&](int m0, int m1, int n0, int n1) {
          kernels.turned(of_w, first > 0, m0, m1, n0, n1, own);
        });
      else if (unit < w_units + x_units)
        down.along(unit - w_units, [&](int m0, int m1, int n0, int n1) { kernels.plain(of_x, m0, m1, n0, n1, own); });
      else
        kernels.column_sums(g, panel, rows, outputs, first > 0, dbias);
    });
  }
}

void bce_with_logits(BceArrays b, long count, Reduction reduction, float* loss, int threads) {
  const OpKernels& kernels = *choose_kernels().ops;
  b.scale = reduction == kMean && count ? (float)(1.0 / (double)count) : 1.0f;
  const long units = (count + kBceUnit - 1) / kBceUnit;
  double total = 0;
  if (units <= 1) {
    total = kernels.bce(b, 0, count);
  } else {
    std::vector<double> sums((size_t)units);  // added in order, whoever computed them
    for_units(threads, units, [&](long unit, int) {
      sums[(size_t)unit] = kernels.bce(b, unit * kBceUnit, std::min(count, (unit + 1) * kBceUnit));
    });
    for (double sum : sums) total += sum;
  }
  if (reduction == kMean) total = count ? total / (double)count : std::numeric_limits<double>::quiet_NaN();
  if (reduction != kNone) *loss = (float)total;
}

}  // namespace fastgan
