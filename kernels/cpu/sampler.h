// Rows from a trained generator: noise, forward pass and decoding, on a team of threads. Row i of a seed is the
// same bits whatever was asked for together with it.
#pragma once
#include "plan.h"
#include "pool.h"

namespace fastgan {

class Sampler {
 public:
  // Only the generator's part of `spec` is read; `batch` is the number of rows in flight per thread.
  Sampler(const Spec& spec, int threads);

  const Kernels& kernels;
  const Spec spec;
  std::vector<Layer> layers;

  // `count` numbered rows of stream `stream`, row-major: uint8 ((x - shift) / scale, rounded) or float32.
  // `labels` [count] for a conditional generator, else null.
  void rows(uint64_t seed, uint32_t stream, RowNumbers numbers, long count, const int64_t* labels, uint8_t* out_u8,
            float* out_f32, float scale, float shift);

 private:
  void work(int thread, uint64_t seed, uint32_t stream, RowNumbers numbers, long count, const int64_t* labels,
            uint8_t* out_u8, float* out_f32, float scale, float shift);

  struct Buffers {
    Panels input, last, output;  // noise; the last hidden activations and the rows, lanes along rows
    std::vector<Panels> hidden;
  };
  Arena arena_;
  Pool pool_;
  std::vector<Buffers> buffers_;  // by thread
};

}  // namespace fastgan
