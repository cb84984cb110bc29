// Memory and layout of buffers and parameters.
#include <cstdlib>
#include <cstring>
#include <new>

#include "plan.h"

namespace fastgan {

Arena::~Arena() {
  for (void* block : blocks_) std::free(block);
}

float* Arena::take(size_t floats) {
  const size_t bytes = (floats * sizeof(float) + 4095) / 4096 * 4096;
  void* block = nullptr;
  if (posix_memalign(&block, 4096, bytes)) throw std::bad_alloc();
  blocks_.push_back(block);
  std::memset(block, 0, bytes);
  return static_cast<float*>(block);
}

Panels Arena::panels(long rows, int columns) {
  const long panel = (rows | 1) * kPanel;
  return {take((size_t)panel * (size_t)panels_of(columns)), panel};
}

std::vector<Layer> make_layers(Arena& arena, const std::vector<int>& widths, LayerParts parts) {
  std::vector<Layer> layers;
  for (size_t i = 0; i + 1 < widths.size(); i++) {
    Layer layer{widths[i], widths[i + 1], false, {}, {}, {}};
    layer.flat = parts.logit && i + 2 == widths.size();
    // One memory layout for a parameter, its moments and its average.
    auto make = [&](auto take) {
      Weights p;
      const Panels w = take();
      p.w = w.p;
      p.panel = w.panel;
      if (parts.moments) p.m = take().p, p.v = take().p;
      if (parts.average) p.average = take().p;
      return p;
    };
    auto vector = [&](int n) { return [&arena, n] { return arena.panels(1, n); }; };
    // Whole groups of 16 rows in a panel, so that a transposition may read past the last input.
    auto matrix = [&] { return arena.panels(padded(layer.inputs), layer.outputs); };
    layer.weight = layer.flat ? make(vector(layer.inputs)) : make(matrix);
    layer.bias = make(vector(layer.outputs));
    if (!layer.flat && parts.input_gradients && (i > 0 || parts.first_input_gradient))
      layer.transposed = arena.panels(padded(layer.outputs), layer.inputs);
    layers.push_back(layer);
  }
  return layers;
}

void one_hot(Panels x, int row, int rows, int column, int classes, const int64_t* labels) {
  for (int k = 0; k < classes; k++) {
    float* p = x.row(row) + (column + k) / kPanel * x.panel + (column + k) % kPanel;
    for (int r = 0; r < rows; r++) p[r * kPanel] = labels[r] == k ? 1.0f : 0.0f;
  }
}

// Where weight (o, i) of a layer lies.
static size_t offset(const Layer& layer, int o, int i) {
  if (layer.flat) return (size_t)i;
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
