// The fused ops on row-major tensors: forward and backward of dense + leaky ReLU, and BCE with logits.
//
// Shapes: B batch, I inputs, O outputs. Everything is float32. Nothing is kept between calls but scratch memory,
// and any number of threads may call at once.
#pragma once
#include <cstdint>

namespace fastgan {

// Row r, column c lies at p[r * stride + c].
struct RowMajor {
  const float* p;
  int rows, columns;
  long stride;
};

// c [m, n] = sum_k a b, with a and b in panels (gemm.h) and c row-major.
struct RowsProduct {
  const float* a;
  long a_panel;
  const float* b;
  long b_panel;
  int k, n;
  int batch;  // rows of the whole product, of which this may be a part
  const float* bias;
  float slope;
  float* c;
  long c_stride;
};

// `count` logits with what goes with them; where a pointer is null, `value` (target) or 1 (weights) stands for all.
struct BceArrays {
  const float *logits, *target, *weight, *pos_weight;
  float value;  // the target
  float scale;  // of the gradient
  float *losses, *gradient;  // or null
};

// What one instruction set offers to the ops; see op_kernels.h.
struct OpKernels {
  void (*pack)(RowMajor, int r0, int r1, float* to, long panel);
  void (*pack_masked)(RowMajor dy, RowMajor y, float slope, int r0, int r1, float* to, long panel);
  void (*pack_turned)(RowMajor, int r0, int r1, float* to, long panel);
  // Rows [m0, m1), panels [n0, n1); `partial` holds as many floats as these, whole panels.
  void (*forward)(const RowsProduct&, int m0, int m1, int n0, int n1, float* partial);
  void (*plain)(const RowsProduct&, int m0, int m1, int n0, int n1, float* partial);
  void (*turned)(const RowsProduct&, bool add, int m0, int m1, int n0, int n1, float* partial);
  void (*column_sums)(const float* panels, long panel, int rows, int columns, bool add, float* out);
  double (*bce)(const BceArrays&, long begin, long end);
};

enum Reduction { kNone, kMean, kSum };

// y = leaky_relu(x weight^T + bias, slope). bias may be null. y is contiguous.
void dense_forward(RowMajor x, RowMajor weight, const float* bias, float slope, float* y, int threads);

// With g = dy where y > 0, elsewhere slope dy: dx = g weight, dweight = g^T x, dbias = sum of g over the batch. Those
// whose output is null are left out, and then weight, or x, is not read. Outputs are contiguous.
void dense_backward(RowMajor dy, RowMajor x, RowMajor weight, RowMajor y, float slope, float* dx, float* dweight,
                    float* dbias, int threads);

// Writes b.losses (kNone) or *loss, and b.gradient unless that is null; sets b.scale.
void bce_with_logits(BceArrays b, long count, Reduction reduction, float* loss, int threads);

// From now on threads come from the caller's OpenMP runtime: addresses of its GOMP_parallel and omp_get_thread_num.
void use_openmp(uint64_t parallel, uint64_t number);

}  // namespace fastgan
