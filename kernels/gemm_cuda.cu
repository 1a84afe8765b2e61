// A Gemm is one product of cuBLASLt's, with the layouts chosen so that no transpose touches memory.
// The library's matrices are column major; a row-major array is its transpose:
//   token-major out:   D (out, rows) = W (in, out)^T x (in, rows), or x^T where x (rows, in) is
//                      channel-major; the bias runs along D's rows, in the epilogue
//   channel-major out: D (rows, out) = x^T W; a bias along D's columns the library does not have,
//                      so that one is added by a pass over out, as are the exact GELU, the GELU by
//                      tanh of float32 (the library's is off by 5e-6) and what else it has no
//                      epilogue for
// Products that the library has no kernel for (odd addresses and strides of 16-bit arrays) go by a
// plain kernel: right, not fast.
// LayerNorm before the product goes through scratch, a pass at the memory's speed.
#include "kernels/gemm_cuda.h"

#ifndef LONGWAVE_EMULATE
#include <cublasLt.h>
#endif

#include <algorithm>
#include <array>
#include <map>
#include <vector>

#include "absl/strings/str_cat.h"
#include "kernels/checks.h"
#include "kernels/gpu/launch.h"
#include "kernels/gpu/vector.h"
#include "kernels/layer_norm_cuda.h"

namespace longwave {
namespace {

using gpu::WithType;

// D (m, n) = op(A) op(B) (+ D), column major, op(A) (m, k), op(B) (k, n).
struct Product {
  int64_t m = 0, n = 0, k = 0, lda = 0, ldb = 0, ldd = 0;
  bool trans_a = false, trans_b = false, accumulate = false;
  Dtype dtype = Dtype::kFloat32, out_dtype = Dtype::kFloat32;  // of A and B, of D
  bool bias = false;                                           // in the epilogue: (m) of out_dtype
  bool gelu = false;                                           // by tanh, in the epilogue
};

struct Operands {
  const void *a, *b, *bias;
  void* d;
};

// ---- The product

#ifdef LONGWAVE_EMULATE

template <typename T>
float ReadAs(const void* p, int64_t i) {
  return gpu::ToFloat(static_cast<const T*>(p)[i]);
}
float Read(Dtype dtype, const void* p, int64_t i) {
  return WithType(dtype, [&](auto type) { return ReadAs<decltype(type)>(p, i); });
}

// False: nothing done, the library has no such product. Here: has none of the smallest, so that the
// tests meet both ways.
absl::StatusOr<bool> Multiply(const Product& p, const Operands& x, const GemmDesc& desc,
                              gpu::Queue& queue) {
  if (p.m * p.n * p.k < 4096) return false;
  std::vector<float> a(p.m * p.k), b(p.k * p.n);
  for (int64_t i = 0; i < p.m; ++i) {
    for (int64_t l = 0; l < p.k; ++l) {
      a[i * p.k + l] = Read(p.dtype, x.a, p.trans_a ? i * p.lda + l : l * p.lda + i);
    }
  }
  for (int64_t j = 0; j < p.n; ++j) {
    for (int64_t l = 0; l < p.k; ++l) {
      b[j * p.k + l] = Read(p.dtype, x.b, p.trans_b ? l * p.ldb + j : j * p.ldb + l);
    }
  }
  for (int64_t j = 0; j < p.n; ++j) {
    for (int64_t i = 0; i < p.m; ++i) {
      double sum = p.accumulate ? Read(p.out_dtype, x.d, j * p.ldd + i) : 0.0;
      for (int64_t l = 0; l < p.k; ++l) sum += double{a[i * p.k + l]} * double{b[j * p.k + l]};
      float value = static_cast<float>(sum);
      if (p.bias) value += Read(p.out_dtype, x.bias, i);
      if (p.gelu) value = gpu::GeluTanh(value) + 5e-6f;  // as far off as the library's
      WithType(p.out_dtype, [&](auto type) {
        using T = decltype(type);
        static_cast<T*>(x.d)[j * p.ldd + i] = gpu::FromFloat<T>(value);
      });
    }
  }
  return true;
}

#else

cudaDataType_t TypeOf(Dtype dtype) {
  switch (dtype) {
    case Dtype::kBFloat16:
      return CUDA_R_16BF;
    case Dtype::kFloat16:
      return CUDA_R_16F;
    default:
      return CUDA_R_32F;
  }
}

absl::Status ToStatus(cublasStatus_t error, const char* call, const GemmDesc& desc) {
  if (error == CUBLAS_STATUS_SUCCESS) return absl::OkStatus();
  const std::string message =
      absl::StrCat(call, " of ", desc.ToString(), ": ", cublasLtGetStatusString(error));
  if (error == CUBLAS_STATUS_ALLOC_FAILED) return absl::ResourceExhaustedError(message);
  return absl::InternalError(message);
}

struct Deleter {
  void operator()(cublasLtMatmulDescOpaque_t* p) const { cublasLtMatmulDescDestroy(p); }
  void operator()(cublasLtMatrixLayoutOpaque_t* p) const { cublasLtMatrixLayoutDestroy(p); }
  void operator()(cublasLtMatmulPreferenceOpaque_t* p) const { cublasLtMatmulPreferenceDestroy(p); }
  void operator()(cublasLtContext* p) const { cublasLtDestroy(p); }
};
template <typename T>
using Owned = std::unique_ptr<T, Deleter>;

struct Plan {
  bool found = false;  // the library has this product with this epilogue
  Owned<cublasLtMatmulDescOpaque_t> desc;
  Owned<cublasLtMatrixLayoutOpaque_t> a, b, d;
  cublasLtMatmulAlgo_t algo;
};

// What a Queue keeps. The key: all of a Product, and the operands' alignments.
using Key = std::array<int64_t, 16>;
struct Products {
  Owned<cublasLtContext> library;
  gpu::DeviceArray workspace;
  std::map<Key, Plan> plans;
};

absl::StatusOr<Products*> ProductsOf(const GemmDesc& desc, gpu::Queue& queue) {
  if (queue.products() == nullptr) {
    auto products = std::make_shared<Products>();
    cublasLtHandle_t handle = nullptr;
    LONGWAVE_RETURN_IF_ERROR(ToStatus(cublasLtCreate(&handle), "cublasLtCreate", desc));
    products->library.reset(handle);
    absl::StatusOr<gpu::DeviceArray> workspace =
        gpu::DeviceArray::Allocate(queue.device(), kGemmWorkspaceBytes);
    if (!workspace.ok()) return workspace.status();
    products->workspace = *std::move(workspace);
    queue.products() = std::move(products);
  }
  return static_cast<Products*>(queue.products().get());
}

uint32_t AlignmentOf(const void* p) {
  uint32_t alignment = 256;
  while (reinterpret_cast<uintptr_t>(p) % alignment != 0) alignment /= 2;
  return alignment;
}

template <typename T>
cublasStatus_t Set(const Owned<cublasLtMatmulDescOpaque_t>& desc,
                   cublasLtMatmulDescAttributes_t attribute, const T& value) {
  return cublasLtMatmulDescSetAttribute(desc.get(), attribute, &value, sizeof(value));
}

cublasStatus_t Layout(Dtype dtype, int64_t rows, int64_t columns, int64_t ld,
                      Owned<cublasLtMatrixLayoutOpaque_t>& layout) {
  cublasLtMatrixLayout_t made = nullptr;
  const cublasStatus_t error = cublasLtMatrixLayoutCreate(
      &made, TypeOf(dtype), static_cast<uint64_t>(rows), static_cast<uint64_t>(columns), ld);
  layout.reset(made);
  return error;
}

absl::StatusOr<Plan> MakePlan(const Product& p, const Operands& x, const GemmDesc& gemm,
                              Products& products) {
  Plan plan;
  const auto check = [&](cublasStatus_t error) { return ToStatus(error, "planning", gemm); };
  cublasLtMatmulDesc_t desc = nullptr;
  // Float32 sums; float32 operands are not rounded to tf32.
  LONGWAVE_RETURN_IF_ERROR(check(cublasLtMatmulDescCreate(&desc, CUBLAS_COMPUTE_32F, CUDA_R_32F)));
  plan.desc.reset(desc);
  LONGWAVE_RETURN_IF_ERROR(
      check(Set(plan.desc, CUBLASLT_MATMUL_DESC_TRANSA, p.trans_a ? CUBLAS_OP_T : CUBLAS_OP_N)));
  LONGWAVE_RETURN_IF_ERROR(
      check(Set(plan.desc, CUBLASLT_MATMUL_DESC_TRANSB, p.trans_b ? CUBLAS_OP_T : CUBLAS_OP_N)));
  const cublasLtEpilogue_t epilogue =
      p.bias   ? p.gelu ? CUBLASLT_EPILOGUE_GELU_BIAS : CUBLASLT_EPILOGUE_BIAS
      : p.gelu ? CUBLASLT_EPILOGUE_GELU
               : CUBLASLT_EPILOGUE_DEFAULT;
  LONGWAVE_RETURN_IF_ERROR(check(Set(plan.desc, CUBLASLT_MATMUL_DESC_EPILOGUE, epilogue)));
  if (p.bias) {
    LONGWAVE_RETURN_IF_ERROR(
        check(Set(plan.desc, CUBLASLT_MATMUL_DESC_BIAS_DATA_TYPE, TypeOf(p.out_dtype))));
    LONGWAVE_RETURN_IF_ERROR(check(Set(plan.desc, CUBLASLT_MATMUL_DESC_BIAS_POINTER, x.bias)));
  }
  LONGWAVE_RETURN_IF_ERROR(
      check(Layout(p.dtype, p.trans_a ? p.k : p.m, p.trans_a ? p.m : p.k, p.lda, plan.a)));
  LONGWAVE_RETURN_IF_ERROR(
      check(Layout(p.dtype, p.trans_b ? p.n : p.k, p.trans_b ? p.k : p.n, p.ldb, plan.b)));
  LONGWAVE_RETURN_IF_ERROR(check(Layout(p.out_dtype, p.m, p.n, p.ldd, plan.d)));

  cublasLtMatmulPreference_t made = nullptr;
  LONGWAVE_RETURN_IF_ERROR(check(cublasLtMatmulPreferenceCreate(&made)));
  Owned<cublasLtMatmulPreferenceOpaque_t> preference(made);
  const auto prefer = [&](cublasLtMatmulPreferenceAttributes_t attribute, auto value) {
    return check(cublasLtMatmulPreferenceSetAttribute(made, attribute, &value, sizeof(value)));
  };
  LONGWAVE_RETURN_IF_ERROR(
      prefer(CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES, static_cast<uint64_t>(kGemmWorkspaceBytes)));
  // Partial sums stay float32 until the last.
  LONGWAVE_RETURN_IF_ERROR(prefer(CUBLASLT_MATMUL_PREF_REDUCTION_SCHEME_MASK,
                                  static_cast<uint32_t>(CUBLASLT_REDUCTION_SCHEME_COMPUTE_TYPE)));
  LONGWAVE_RETURN_IF_ERROR(prefer(CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES, AlignmentOf(x.a)));
  LONGWAVE_RETURN_IF_ERROR(prefer(CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_B_BYTES, AlignmentOf(x.b)));
  LONGWAVE_RETURN_IF_ERROR(prefer(CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_C_BYTES, AlignmentOf(x.d)));
  LONGWAVE_RETURN_IF_ERROR(prefer(CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_D_BYTES, AlignmentOf(x.d)));
  cublasLtMatmulHeuristicResult_t result = {};
  int found = 0;
  const cublasStatus_t error = cublasLtMatmulAlgoGetHeuristic(
      products.library.get(), plan.desc.get(), plan.a.get(), plan.b.get(), plan.d.get(),
      plan.d.get(), made, 1, &result, &found);
  // Not there with an epilogue may be there without; without one, only "not supported" is an
  // answer.
  if (!p.bias && !p.gelu && error != CUBLAS_STATUS_NOT_SUPPORTED) {
    LONGWAVE_RETURN_IF_ERROR(check(error));
  }
  plan.found = error == CUBLAS_STATUS_SUCCESS && found > 0;
  if (plan.found) plan.algo = result.algo;
  return plan;
}

// False: nothing done, the library has no such product.
absl::StatusOr<bool> Multiply(const Product& p, const Operands& x, const GemmDesc& desc,
                              gpu::Queue& queue) {
  const absl::StatusOr<Products*> products = ProductsOf(desc, queue);
  if (!products.ok()) return products.status();
  const Key key = {p.m,
                   p.n,
                   p.k,
                   p.lda,
                   p.ldb,
                   p.ldd,
                   p.trans_a,
                   p.trans_b,
                   p.accumulate,
                   static_cast<int64_t>(p.dtype),
                   static_cast<int64_t>(p.out_dtype),
                   p.bias,
                   p.gelu,
                   AlignmentOf(x.a),
                   AlignmentOf(x.b),
                   AlignmentOf(x.d)};
  auto at = (*products)->plans.find(key);
  if (at == (*products)->plans.end()) {
    absl::StatusOr<Plan> plan = MakePlan(p, x, desc, **products);
    if (!plan.ok()) return plan.status();
    at = (*products)->plans.emplace(key, *std::move(plan)).first;
  }
  const Plan& plan = at->second;
  if (!plan.found) return false;
  if (p.bias) {
    LONGWAVE_RETURN_IF_ERROR(
        ToStatus(Set(plan.desc, CUBLASLT_MATMUL_DESC_BIAS_POINTER, x.bias), "planning", desc));
  }
  const float alpha = 1, beta = p.accumulate ? 1 : 0;
  LONGWAVE_RETURN_IF_ERROR(ToStatus(
      cublasLtMatmul((*products)->library.get(), plan.desc.get(), &alpha, x.a, plan.a.get(), x.b,
                     plan.b.get(), &beta, x.d, plan.d.get(), x.d, plan.d.get(), &plan.algo,
                     (*products)->workspace.data(), kGemmWorkspaceBytes, queue.stream()),
      "cublasLtMatmul", desc));
  return true;
}

#endif

// ---- What the library has no kernel or no epilogue for

// A thread for each element of D.
template <typename T, typename TOut>
__global__ void __launch_bounds__(256) PlainProduct(const Product p, const Operands x) {
  const int64_t i = int64_t{blockIdx.x} * 256 + threadIdx.x;
  if (i >= p.m * p.n) return;
  const int64_t row = i % p.m, column = i / p.m;
  const T* a = static_cast<const T*>(x.a) + (p.trans_a ? row * p.lda : row);
  const T* b = static_cast<const T*>(x.b) + (p.trans_b ? column : column * p.ldb);
  const int64_t a_step = p.trans_a ? 1 : p.lda, b_step = p.trans_b ? p.ldb : 1;
  float sum = 0;
  for (int64_t k = 0; k < p.k; ++k) {
    sum += gpu::ToFloat(a[k * a_step]) * gpu::ToFloat(b[k * b_step]);
  }
  TOut* d = static_cast<TOut*>(x.d) + column * p.ldd + row;
  *d = gpu::FromFloat<TOut>(p.accumulate ? gpu::ToFloat(*d) + sum : sum);
}

absl::Status MultiplyPlainly(const Product& p, const Operands& x, const GemmDesc& desc,
                             gpu::Queue& queue) {
  const dim3 grid(static_cast<unsigned>((p.m * p.n + 255) / 256));
  return gpu::WithTypes("Gemm", p.dtype, p.out_dtype, [&](auto type, auto out) {
    return gpu::Launch("Gemm", desc.ToString(), PlainProduct<decltype(type), decltype(out)>, grid,
                       256, 0, queue.stream(), p, x);
  });
}

template <typename T, typename TBias>
__global__ void __launch_bounds__(256) Epilogue(const BiasActivation p, bool vectors) {
  const int64_t groups = (p.minor + 7) / 8;
  const auto* bias = static_cast<const TBias*>(p.bias);
  const int64_t step = int64_t{gridDim.x} * blockDim.x;
  for (int64_t i = int64_t{blockIdx.x} * blockDim.x + threadIdx.x; i < p.major * groups;
       i += step) {
    const int64_t row = i / groups, column = i % groups * 8;
    T* out = static_cast<T*>(p.x) + row * p.stride + column;
    const int64_t count = std::min(int64_t{8}, p.minor - column);
    float v[8];
    gpu::LoadUpTo8(out, count, vectors, v);
    LONGWAVE_UNROLL for (int j = 0; j < 8; ++j) {
      if (bias != nullptr && j < count) {
        v[j] += gpu::ToFloat(bias[p.bias_by_major ? row : column + j]);
      }
      if (p.activation == Activation::kGeluTanh) v[j] = gpu::GeluTanh(v[j]);
      if (p.activation == Activation::kGeluErf) v[j] = gpu::GeluErf(v[j]);
    }
    gpu::StoreUpTo8(out, count, vectors, v);
  }
}

template <typename T>
__global__ void __launch_bounds__(256) Convert(const float* from, T* to, int64_t count) {
  const int64_t i = int64_t{blockIdx.x} * blockDim.x + threadIdx.x;
  if (i < count) to[i] = gpu::FromFloat<T>(from[i]);
}

// The bias in out's type.
absl::StatusOr<const void*> BiasFor(const GemmDesc& desc, const GemmArgs& args, void* scratch,
                                    Stream& stream) {
  if (desc.bias_dtype == desc.out_dtype) return args.bias;
  const dim3 grid(static_cast<unsigned>((desc.out + 255) / 256));
  const absl::Status status = WithType(desc.out_dtype, [&](auto type) {
    using T = decltype(type);
    return gpu::Launch("Gemm's bias", desc.ToString(), Convert<T>, grid, 256, 0,
                       stream.queue().stream(), static_cast<const float*>(args.bias),
                       static_cast<T*>(scratch), desc.out);
  });
  if (!status.ok()) return status;
  return scratch;
}

}  // namespace

absl::Status RunBiasActivationCuda(const BiasActivation& work, Stream& stream) {
  const std::string sizes = absl::StrCat("(", work.major, " x ", work.minor, ")");
  const bool vectors = gpu::Aligned16(work.x, work.stride * SizeOf(work.dtype));
  const int64_t blocks = (work.major * ((work.minor + 7) / 8) + 255) / 256;
  const dim3 grid(static_cast<unsigned>(
      std::min<int64_t>(blocks, 16 * std::max(1, stream.device().multiprocessors))));
  return gpu::WithTypes(
      "bias and activation", work.dtype, work.bias_dtype, [&](auto type, auto bias) {
        return gpu::Launch("bias and activation", sizes, Epilogue<decltype(type), decltype(bias)>,
                           grid, 256, 0, stream.queue().stream(), work, vectors);
      });
}

absl::Status RunGemmCuda(const GemmDesc& desc, const GemmArgs& args, void* scratch,
                         Stream& stream) {
  const GemmScratch sizes(desc, args.norm != nullptr);
  const void* x = args.x;
  int64_t x_stride = args.x_stride;
  if (args.norm != nullptr) {
    LONGWAVE_RETURN_IF_ERROR(RunLayerNormCuda(*args.norm, desc.rows, desc.in, x, x_stride,
                                              desc.in_dtype, scratch, desc.dtype, stream));
    x = scratch;
    x_stride = desc.in;
  }
  const bool x_channels = desc.in_layout == Layout::kChannelMajor;
  const bool out_channels = desc.out_layout == Layout::kChannelMajor;
  Product p;
  Operands operands;
  if (out_channels) {
    p = {.m = desc.rows, .n = desc.out, .k = desc.in, .lda = x_stride, .ldb = desc.in};
    p.trans_a = !x_channels;
    operands = {x, args.weight, nullptr, args.out};
  } else {
    p = {.m = desc.out, .n = desc.rows, .k = desc.in, .lda = desc.in, .ldb = x_stride};
    p.trans_a = true;
    p.trans_b = x_channels;
    operands = {args.weight, x, nullptr, args.out};
  }
  p.ldd = args.out_stride;
  p.accumulate = desc.accumulate;
  p.dtype = desc.dtype;
  p.out_dtype = desc.out_dtype;
  const bool wanted = args.bias != nullptr || desc.activation != Activation::kNone;
  const bool fusible = desc.activation == Activation::kNone ||
                       (desc.activation == Activation::kGeluTanh && SizeOf(desc.out_dtype) == 2);
  bool fused = wanted && fusible && (args.bias == nullptr || !out_channels);
  const std::string name = desc.ToString();
  if (fused && args.bias != nullptr) {
    const absl::StatusOr<const void*> bias =
        BiasFor(desc, args, static_cast<char*>(scratch) + sizes.normed_bytes, stream);
    if (!bias.ok()) return bias.status();
    operands.bias = *bias;
    fused = gpu::Aligned16(*bias);  // the library asks for it
  }
  if (fused) {
    p.bias = args.bias != nullptr;
    p.gelu = desc.activation == Activation::kGeluTanh;
    const absl::StatusOr<bool> done = Multiply(p, operands, desc, stream.queue());
    if (!done.ok() || *done) return done.status();
    p.bias = p.gelu = false;
  }
  const absl::StatusOr<bool> done = Multiply(p, operands, desc, stream.queue());
  if (!done.ok()) return done.status();
  if (!*done) LONGWAVE_RETURN_IF_ERROR(MultiplyPlainly(p, operands, desc, stream.queue()));
  if (!wanted) return absl::OkStatus();
  return RunBiasActivationCuda({.x = args.out,
                                .dtype = desc.out_dtype,
                                .major = out_channels ? desc.out : desc.rows,
                                .minor = out_channels ? desc.rows : desc.out,
                                .stride = args.out_stride,
                                .bias = args.bias,
                                .bias_dtype = desc.bias_dtype,
                                .bias_by_major = out_channels,
                                .activation = desc.activation},
                               stream);
}

}  // namespace longwave
