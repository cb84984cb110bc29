// Memory and layout of buffers and parameters.
#include <sys/mman.h>

#include <cstdlib>
#include <cstring>
#include <new>

#include "plan.h"

#if defined(__has_feature)
#if __has_feature(address_sanitizer)
#define FASTGAN_ASAN
#endif
#elif defined(__SANITIZE_ADDRESS__)
#define FASTGAN_ASAN
#endif

#ifdef FASTGAN_ASAN
#include <sanitizer/asan_interface.h>
#endif

namespace fastgan {

Arena::~Arena() {
  for (void* block : blocks_) std::free(block);
}

namespace {

#ifdef FASTGAN_ASAN
// For AddressSanitizer every piece is a block of its own, and what lies between panels is out of bounds: one float
// too far is seen everywhere.
constexpr size_t kBlock = 64, kSpare = 0;
void use_large_pages(void*, size_t) {}
void forbid(float* p, size_t floats) { ASAN_POISON_MEMORY_REGION(p, floats * sizeof(float)); }
#else
// Pieces come from large blocks in large pages: a step touches some ten megabytes, panel by panel, more than a
// processor keeps small pages' addresses for.
constexpr size_t kBlock = size_t{2} << 20, kSpare = kBlock;
void use_large_pages([[maybe_unused]] void* block, [[maybe_unused]] size_t bytes) {
#ifdef MADV_HUGEPAGE
  madvise(block, bytes, MADV_HUGEPAGE);
#endif
}
void forbid(float*, size_t) {}
#endif

size_t round_up(size_t bytes, size_t unit) { return (bytes + unit - 1) / unit * unit; }

}  // namespace

float* Arena::take(size_t floats) {
  const size_t bytes = round_up(floats * sizeof(float), 64);
  if (bytes > left_) {
    left_ = small_ ? bytes : round_up(bytes + kSpare, kBlock);
    void* block = nullptr;
    if (posix_memalign(&block, small_ ? 64 : kBlock, left_)) throw std::bad_alloc();
    if (!small_) use_large_pages(block, left_);
    blocks_.push_back(block);
    std::memset(block, 0, left_);
    next_ = static_cast<char*>(block);
  }
  float* piece = reinterpret_cast<float*>(next_);
  next_ += bytes;
  left_ -= bytes;
  return piece;
}

Panels Arena::by_column(int rows, int columns) {
  const long used = rows * (long)kPanel, panel = (rows | 1) * (long)kPanel;
  const int count = panels_of(columns);
  float* p = take((size_t)panel * (size_t)count);
  for (int n = 0; n < count; n++) forbid(p + n * panel + used, (size_t)(panel - used));
  return {p, panel, false};
}

Panels Arena::by_row(int rows, int columns) {
  const Panels turned = by_column(padded(columns), rows);
  return {turned.p, turned.panel, true};
}

std::vector<Layer> make_layers(Arena& arena, const std::vector<int>& widths, LayerParts parts) {
  std::vector<Layer> layers;
  const size_t count = widths.size() - 1;
  for (size_t i = 0; i < count; i++) {
    const bool first = i == 0, last = i + 1 == count;
    Layer layer{widths[i], widths[i + 1], last && parts.data_first, last && !parts.data_first, {}, {}, {}};
    const int along = layer.by_input ? layer.outputs : layer.inputs;
    const int across = layer.by_input ? layer.inputs : layer.outputs;
    // One memory layout for a parameter, its moments and its average.
    const auto make = [&](auto take) {
      Weights p;
      const Panels w = take();
      p.w = w.p;
      p.panel = w.panel;
      if (parts.moments) p.m = take().p, p.v = take().p;
      if (parts.average) p.average = take().p;
      return p;
    };
    const auto vector = [&](int n) { return [&arena, n] { return arena.by_column(1, n); }; };
    // Whole groups of 16 rows in a panel, so that a transposition may read past the last one.
    const auto matrix = [&] { return arena.by_column(padded(along), across); };
    layer.weight = layer.flat ? make(vector(layer.inputs)) : make(matrix);
    layer.bias = make(vector(layer.outputs));
    if (parts.transposed && !first && !last) layer.transposed = arena.by_column(padded(layer.outputs), layer.inputs);
    layers.push_back(layer);
  }
  return layers;
}

void one_hot(Panels x, Rows rows, int column, int classes, const int64_t* labels) {
  for (int k = column; k < column + classes; k++)
    for (int r = rows.begin; r < rows.end; r++) {
      float* p = x.by_row ? x.p + r / kPanel * x.panel + k * kPanel + r % kPanel
                          : x.p + k / kPanel * x.panel + r * kPanel + k % kPanel;
      *p = labels[r] == k - column ? 1.0f : 0.0f;
    }
}

// Where weight (o, i) of a layer lies.
static size_t offset(const Layer& layer, int o, int i) {
  if (layer.flat) return (size_t)i;
  if (layer.by_input) return (size_t)(i / kPanel * layer.weight.panel + o * kPanel + i % kPanel);
  return (size_t)(o / kPanel * layer.weight.panel + i * kPanel + o % kPanel);
}

void pack(const Layer& layer, const float* rows, float* panels) {
  for (int o = 0; o < layer.outputs; o++)
    for (int i = 0; i < layer.inputs; i++) panels[offset(layer, o, i)] = *rows++;
}

void unpack(const Layer& layer, const float* panels, float* rows) {
  for (int o = 0; o < layer.outputs; o++)
    for (int i = 0; i < layer.inputs; i++) *rows++ = panels[offset(layer, o, i)];
}

void refresh_transposed(const Layer& layer) {
  if (!layer.transposed.p) return;
  for (int o = 0; o < layer.outputs; o++)
    for (int i = 0; i < layer.inputs; i++)
      layer.transposed.p[i / kPanel * layer.transposed.panel + o * kPanel + i % kPanel] =
          layer.weight.w[offset(layer, o, i)];
}

}  // namespace fastgan
