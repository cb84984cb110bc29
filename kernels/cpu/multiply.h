// Which GEMM computes a product. By its shape alone: results must not depend on how rows are split.
#pragma once
#include "gemm.h"
#if defined(__AMX_BF16__)
#include "gemm_amx.h"
#endif

namespace FASTGAN_NS {

// C[m][n] = sum_k A[m][k] B[k][n], the arguments as of gemm().
template <Left A, class Epilogue>
INLINE void multiply(const Operands& o, int m0, int m1, int second, int n0, int n1, const Epilogue& epilogue) {
#if defined(__AMX_BF16__)
  constexpr int least = 2 * PAIRED;  // a tile holds 32 of k: few of them leave most of it empty
  if (o.K >= least) return gemm_amx<A>(o, m0, m1, second, n0, n1, epilogue);
#endif
  gemm<A>(o, m0, m1, second, n0, n1, epilogue);
}

}  // namespace FASTGAN_NS
