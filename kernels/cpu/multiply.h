// Which GEMM computes a product, and what that asks of those who cut the work into parts.
#pragma once
#include "gemm.h"
#if defined(__AMX_BF16__)
#include "gemm_amx.h"
#endif

namespace FASTGAN_NS {

// Rows of a batch whose products run on tiles, at least; 0: there are none. Weights are split for each part of a batch
// that a thread takes: with fewer rows, that takes longer than the products.
#if defined(__AMX_BF16__)
constexpr int TILES_FROM = 128;
#else
constexpr int TILES_FROM = 0;
#endif

// Whether a product with `batch` rows of a batch, all threads' together, runs on tiles. A tile holds 32 of K. Its other
// size has no part in it: whoever wants some columns of generated rows gets the bits of whole rows.
INLINE bool on_tiles(int batch, int K) { return TILES_FROM && batch >= TILES_FROM && K > 2 * 32; }

// Depth of the blocks that a sum over K is taken in.
INLINE int block_depth([[maybe_unused]] bool tiles, int K) {
#if defined(__AMX_BF16__)
  if (tiles) return depth_on_tiles(K);
#endif
  return depth_on_vectors(K);
}

// C[m][n] = sum_k A[m][k] B[k][n], the arguments as of gemm(); `tiles`: on tiles. That depends on the whole
// product's shape alone, since results must not depend on how it is cut.
template <Left A, class Epilogue>
INLINE void multiply([[maybe_unused]] bool tiles, const Operands& o, int m0, int m1, int second, int n0, int n1,
                     const Epilogue& epilogue) {
#if defined(__AMX_BF16__)
  if (tiles) return gemm_amx<A>(o, m0, m1, second, n0, n1, epilogue);
#endif
  gemm<A>(o, m0, m1, second, n0, n1, epilogue);
}

}  // namespace FASTGAN_NS
