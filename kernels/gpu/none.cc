// The GPU backend of a build without the CUDA toolkit: everything answers Unimplemented.
#include "absl/strings/str_cat.h"
#include "kernels/advance_state_cuda.h"
#include "kernels/attention_cuda.h"
#include "kernels/embedding_cuda.h"
#include "kernels/gemm_cuda.h"
#include "kernels/gpu/async.h"
#include "kernels/gpu/queue.h"
#include "kernels/layer_norm_cuda.h"
#include "kernels/long_conv_cuda.h"
#include "kernels/signal_ops_cuda.h"
#include "kernels/ssm_conv_cuda.h"
#include "kernels/ssm_fft_cuda.h"
#include "kernels/ssm_step_cuda.h"
#include "kernels/token_loss_cuda.h"

namespace longwave::gpu {
namespace {

absl::Status None() { return absl::UnimplementedError("this build has no CUDA backend"); }

}  // namespace

int DeviceCount() { return 0; }
absl::StatusOr<Properties> GetProperties(int device) { return None(); }
absl::StatusOr<MemoryInfo> GetMemoryInfo(int device) { return None(); }
absl::StatusOr<DeviceArray> DeviceArray::Allocate(int device, int64_t bytes) { return None(); }
DeviceArray::~DeviceArray() = default;
absl::StatusOr<std::unique_ptr<Queue>> Queue::Open(int device, bool urgent) { return None(); }
Queue::~Queue() = default;
absl::StatusOr<void*> Queue::Scratch(int64_t bytes) { return None(); }
absl::Status Queue::CopyToDevice(void* device, const void* host, int64_t bytes) { return None(); }
absl::Status Queue::CopyToHost(void* host, const void* device, int64_t bytes) { return None(); }
absl::Status Queue::CopyOnDevice(void* to, const void* from, int64_t bytes) { return None(); }
absl::Status Queue::CopyRowsOnDevice(void* to, int64_t to_stride, const void* from,
                                     int64_t from_stride, int64_t bytes, int64_t rows) {
  return None();
}
absl::Status Queue::Fill(void* device, int byte, int64_t bytes) { return None(); }
absl::Status Queue::Synchronize() { return None(); }
absl::StatusOr<PinnedArray> PinnedArray::Allocate(int device, int64_t bytes) { return None(); }
PinnedArray::~PinnedArray() = default;
absl::StatusOr<Event> Event::Create(int device) { return None(); }
Event::~Event() = default;
absl::Status Event::Record(Queue& queue) { return None(); }
absl::Status Event::Wait() const { return None(); }
absl::StatusOr<bool> Event::Done() const { return None(); }
absl::Status Event::Precede(Queue& queue) const { return None(); }
absl::StatusOr<double> Event::SecondsSince(const Event& earlier) const { return None(); }
absl::StatusOr<Graph> Graph::Capture(Queue& queue, std::function<absl::Status()> work) {
  return None();
}
Graph::~Graph() = default;
absl::Status Graph::Launch(Queue& queue) { return None(); }

}  // namespace longwave::gpu

namespace longwave {

using gpu::None;

absl::StatusOr<std::shared_ptr<const SsmDeviceFilter>> UploadSsmFilter(const DiagonalSsm& ssm,
                                                                       Dtype dtype,
                                                                       Stream& stream) {
  return None();
}
absl::Status RunSsmConvCuda(const SsmConvPlan& plan, const SsmDeviceFilter& filter,
                            const SsmConvArgs& args, Stream& stream) {
  return None();
}
absl::Status RunH3MixCuda(const H3MixPlan& plan, const SsmDeviceFilter& filter,
                          const H3MixArgs& args, Stream& stream) {
  return None();
}
absl::Status WriteHalo(const H3MixDesc& desc, const H3MixArgs& args, Stream& stream) {
  return None();
}
absl::Status RunAdvanceStateCuda(const AdvanceStateDesc& desc, const SsmDeviceFilter& filter,
                                 const AdvanceStateArgs& args, Stream& stream) {
  return None();
}
absl::Status RunGemmCuda(const GemmDesc& desc, const GemmArgs& args, void* scratch,
                         Stream& stream) {
  return gpu::None();
}
absl::Status RunLayerNormCuda(const LayerNormWeights& weights, int64_t rows, int64_t width,
                              const void* x, int64_t x_stride, Dtype x_dtype, void* y,
                              Dtype y_dtype, Stream& stream) {
  return gpu::None();
}
absl::Status RunAttentionCuda(const AttentionDesc& desc, void* qkv, KvCache& cache, void* out,
                              const int64_t* position, Stream& stream) {
  return gpu::None();
}
absl::Status RunTokenLossCuda(const TokenLossDesc& desc, const TokenLossArgs& args,
                              Stream& stream) {
  return gpu::None();
}
absl::Status RunEmbeddingCuda(int64_t rows, int64_t width, int64_t vocab, Dtype dtype,
                              const void* table, const int32_t* tokens, float* x, Stream& stream) {
  return gpu::None();
}
absl::Status RunArgmaxCuda(int64_t rows, int64_t vocab, const ArgmaxArgs& args, Stream& stream) {
  return gpu::None();
}
absl::Status RunAdvanceCuda(int64_t* counter, int64_t by, Stream& stream) { return gpu::None(); }
absl::Status RunActivateCuda(Activation activation, int64_t channels, int64_t length,
                             int64_t stride, Dtype dtype, void* x, Stream& stream) {
  return gpu::None();
}
absl::Status RunGluCuda(int64_t rows, int64_t width, bool accumulate, Dtype dtype, const void* z,
                        float* x, Stream& stream) {
  return gpu::None();
}
absl::Status RunTransposeCuda(int64_t rows, int64_t columns, Dtype x_dtype, const void* x,
                              Dtype out_dtype, void* out, int64_t stride, Stream& stream) {
  return gpu::None();
}
absl::Status CreateLongConvFilterCuda(const LongConvPlan& plan, const float* taps, Stream& stream,
                                      LongConvFilter::OnDevice* filter) {
  return None();
}
absl::Status RunLongConvCuda(const LongConvPlan& plan, const LongConvFilter::OnDevice& filter,
                             const LongConvArgs& args, Stream& stream) {
  return None();
}
absl::StatusOr<std::shared_ptr<const SsmFftDeviceFilter>> UploadSsmFft(const DiagonalSsm& ssm,
                                                                       int64_t block, Dtype dtype,
                                                                       Stream& stream) {
  return gpu::None();
}
absl::Status RunSsmConvFftCuda(const SsmConvPlan& plan, const SsmFftDeviceFilter& filter,
                               const SsmConvArgs& args, Stream& stream) {
  return gpu::None();
}

}  // namespace longwave
