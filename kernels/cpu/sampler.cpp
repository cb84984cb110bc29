#include "sampler.h"

#include <algorithm>

#include "dispatch.h"

namespace fastgan {

Sampler::Sampler(const Spec& s, int threads) : kernels(choose_kernels()), spec(s), pool_(threads) {
  std::vector<int> widths{s.latent + s.classes};
  widths.insert(widths.end(), s.g_hidden.begin(), s.g_hidden.end());
  widths.push_back(s.features);
  layers = make_layers(arena_, widths, {});
  for (int t = 0; t < threads; t++) {
    Buffers b;
    b.input = arena_.by_column(s.batch, widths.front());
    for (int width : s.g_hidden) b.hidden.push_back(arena_.by_column(s.batch, width));
    b.last = arena_.by_row(s.batch, s.g_hidden.back());
    b.output = arena_.by_row(s.batch, s.features);
    buffers_.push_back(b);
  }
}

void Sampler::rows(uint64_t seed, uint32_t stream, RowNumbers numbers, long count, const int64_t* labels,
                   uint8_t* out_u8, float* out_f32, float scale, float shift) {
  pool_.run([&](int thread) { work(thread, seed, stream, numbers, count, labels, out_u8, out_f32, scale, shift); });
}

void Sampler::work(int thread, uint64_t seed, uint32_t stream, RowNumbers numbers, long count, const int64_t* labels,
                   uint8_t* out_u8, float* out_f32, float scale, float shift) {
  const Buffers& b = buffers_[(size_t)thread];
  const long end = count * (thread + 1) / pool_.size();
  for (long at = count * thread / pool_.size(); at < end; at += spec.batch) {
    const Rows rows{0, (int)std::min<long>(spec.batch, end - at)};
    kernels.normal(seed, stream, numbers.from(at), b.input, rows, spec.latent);
    if (spec.classes) one_hot(b.input, rows, spec.latent, spec.classes, labels + at);
    for (size_t i = 0; i < b.hidden.size(); i++) {
      const Layer& layer = layers[i];
      const Product product{i ? b.hidden[i - 1] : b.input, layer.weight.w, layer.weight.panel, b.hidden[i],
                            layer.inputs, layer.outputs, kAnyBatch};
      kernels.dense(product, rows, layer.bias.w, kLeakyRelu, spec.slope);
    }
    kernels.turn(b.hidden.back(), b.last, rows, spec.g_hidden.back());
    const Layer& head = layers.back();
    const Product last{b.last,      head.weight.w, head.weight.panel, b.output,
                       head.inputs, head.outputs,  kAnyBatch};
    kernels.dense(last, rows, head.bias.w, spec.head, spec.slope);
    if (out_u8)
      kernels.rows_u8(b.output, rows, spec.features, scale, shift, out_u8 + at * spec.features);
    else
      kernels.rows_f32(b.output, rows, spec.features, out_f32 + at * spec.features);
  }
}

}  // namespace fastgan
