#include "worker/executor/sequence_runner.h"

#include <algorithm>

#include "absl/strings/str_cat.h"
#include "kernels/checks.h"
#include "kernels/embedding.h"
#include "kernels/gemm.h"
#include "kernels/token_loss.h"
#include "worker/model/weights.h"

namespace longwave {
namespace {

constexpr int64_t kFloat = sizeof(float);

absl::Status CheckCount(const char* call, int64_t count, int64_t most) {
  return CheckRange(call, "tokens", count, 1, most);
}

int64_t Size(absl::Span<const int32_t> tokens) { return static_cast<int64_t>(tokens.size()); }

}  // namespace

SequenceRunner::SequenceRunner(std::shared_ptr<const Model> model, const RunnerOptions& options,
                               ThreadPool* pool, std::unique_ptr<gpu::Queue> queue)
    : model_(std::move(model)), options_(options), stream_(pool, std::move(queue)) {}

absl::StatusOr<std::unique_ptr<SequenceRunner>> SequenceRunner::Create(
    std::shared_ptr<const Model> model, const RunnerOptions& options, ThreadPool* pool) {
  LONGWAVE_RETURN_IF_ERROR(CheckRange("run", "chunk", options.chunk, 1, int64_t{1} << 32));
  LONGWAVE_RETURN_IF_ERROR(CheckRange("run", "batch", options.batch, 1, int64_t{1} << 20));
  const Device device = model->device();
  if (!device.is_gpu() && options.batch > 1 && model->attention_layers() > 0) {
    return absl::InvalidArgumentError(absl::StrCat(
        "run: batch = ", options.batch, ": attention on the CPU takes one sequence at a time"));
  }
  std::unique_ptr<gpu::Queue> queue;
  if (device.is_gpu()) LONGWAVE_ASSIGN_OR_RETURN(queue, gpu::Queue::Open(device.index));
  std::unique_ptr<SequenceRunner> runner(
      new SequenceRunner(std::move(model), options, pool, std::move(queue)));
  LONGWAVE_RETURN_IF_ERROR(runner->Allocate());
  return runner;
}

absl::Status SequenceRunner::Allocate() {
  const ModelConfig& config = model_->config();
  const Device device = model_->device();
  const int64_t rows = options_.batch * options_.chunk;
  LONGWAVE_ASSIGN_OR_RETURN(workspace_, model_->NewWorkspace(options_.chunk, options_.batch));
  LONGWAVE_ASSIGN_OR_RETURN(state_,
                            model_->NewState(stream_, options_.batch, options_.cache_tokens));
  if (config.type != ModelConfig::Type::kH3) return absl::OkStatus();
  LONGWAVE_ASSIGN_OR_RETURN(
      hidden_, Array::Allocate(device, rows * config.d_model * SizeOf(model_->dtype())));
  LONGWAVE_ASSIGN_OR_RETURN(tokens_, TokenUpload::Create(device, rows));
  LONGWAVE_ASSIGN_OR_RETURN(targets_, TokenUpload::Create(device, rows));
  LONGWAVE_ASSIGN_OR_RETURN(losses_, LossDownload::Create(device, rows));
  if (!device.is_gpu()) return absl::OkStatus();
  const int64_t logits = model_->RunnerLogits(rows, options_.batch);
  logits_rows_ = logits / config.vocab_size;
  LONGWAVE_ASSIGN_OR_RETURN(logits_, Array::Allocate(device, logits * kFloat));
  LONGWAVE_ASSIGN_OR_RETURN(step_position_, Array::Allocate(device, sizeof(int64_t)));
  return absl::OkStatus();
}

void SequenceRunner::Reset() {
  state_.position = 0;
  reset_ = absl::OkStatus();
  for (const Array& tensor : state_.tensors) reset_.Update(FillZeros(tensor, stream_));
  for (KvCache& cache : state_.caches) cache.Clear();
  losses_.Clear();
  length_ = 0;
  stepped_ = false;
}

absl::Status SequenceRunner::Seek(int64_t position) {
  for (KvCache& cache : state_.caches) {
    if (position == 0) cache.Clear();
    if (cache.tokens() == position) continue;
    return absl::FailedPreconditionError(absl::StrCat(
        "a sequence cannot be resumed at ", position, ": the model has ",
        model_->attention_layers(), " attention layers, whose caches hold ", cache.tokens()));
  }
  state_.position = position;
  length_ = 0;
  stepped_ = false;
  return absl::OkStatus();
}

absl::Status SequenceRunner::Resume(int64_t position, const HostState& host) {
  Reset();
  LONGWAVE_RETURN_IF_ERROR(reset_);
  LONGWAVE_RETURN_IF_ERROR(Seek(position));
  return ImportState(host);
}

absl::StatusOr<std::vector<CacheRows>> SequenceRunner::ExportCaches(int64_t first) {
  std::vector<CacheRows> caches;
  for (const KvCache& cache : state_.caches) {
    absl::StatusOr<CacheRows> rows = cache.Export(first, stream_);
    if (!rows.ok()) return rows.status();
    caches.push_back(*std::move(rows));
  }
  return caches;
}

absl::Status SequenceRunner::AppendCaches(const std::vector<CacheRows>& caches) {
  const int64_t layers = model_->attention_layers();
  LONGWAVE_RETURN_IF_ERROR(
      CheckRange("caches", "layers", static_cast<int64_t>(caches.size()), layers, layers));
  for (int64_t i = 0; i < layers; ++i) {
    LONGWAVE_RETURN_IF_ERROR(state_.caches[i].Append(caches[i], stream_));
  }
  return absl::OkStatus();
}

absl::Status SequenceRunner::CheckTokens(absl::Span<const int32_t> tokens,
                                         int64_t first_position) const {
  const int64_t vocab = model_->config().vocab_size, length = Size(tokens) / options_.batch;
  for (int64_t i = 0; i < Size(tokens); ++i) {
    if (tokens[i] < 0 || tokens[i] >= vocab) {
      return absl::InvalidArgumentError(absl::StrCat("token id ", tokens[i], " at position ",
                                                     first_position + i % length,
                                                     " is outside the vocabulary of ", vocab));
    }
  }
  return absl::OkStatus();
}

absl::Status SequenceRunner::CheckCache(int64_t tokens) const {
  if (model_->attention_layers() == 0) return absl::OkStatus();
  const int64_t needed = model_->cache_bytes(state_.position + tokens, options_.batch);
  if (needed <= options_.cache_budget_bytes) return absl::OkStatus();
  const int64_t page = model_->cache_bytes(1, options_.batch);
  return absl::ResourceExhaustedError(absl::StrCat(
      "the attention layers' caches need ", needed, " bytes at ", state_.position + tokens,
      " tokens; the budget is ", options_.cache_budget_bytes, " bytes, enough for ",
      options_.cache_budget_bytes / page * (on_gpu() ? 1 : KvCache::kPageTokens), " tokens"));
}

absl::Status SequenceRunner::Forward(absl::Span<const int32_t> tokens, StateFlow* flow) {
  if (model_->config().type != ModelConfig::Type::kH3) {
    return absl::InvalidArgumentError(
        absl::StrCat(model_->folder(), " takes signals, not tokens: use the task transform"));
  }
  const int64_t length = Size(tokens) / options_.batch;
  LONGWAVE_RETURN_IF_ERROR(CheckCount("forward", length, options_.chunk));
  LONGWAVE_RETURN_IF_ERROR(CheckRange("forward", "tokens of the batch", Size(tokens),
                                      length * options_.batch, length * options_.batch));
  LONGWAVE_RETURN_IF_ERROR(CheckTokens(tokens, state_.position));
  LONGWAVE_RETURN_IF_ERROR(CheckCache(length));
  LONGWAVE_RETURN_IF_ERROR(reset_);
  ModelInput input;
  input.length = length;
  LONGWAVE_ASSIGN_OR_RETURN(input.tokens, tokens_.Send(tokens, stream_));
  if (on_gpu() && length == 1 && flow == nullptr) return Step();
  stepped_ = false;
  LONGWAVE_RETURN_IF_ERROR(
      model_->Forward(input, state_, workspace_, stream_, hidden_.data(), timer_, flow));
  length_ = length;
  return absl::OkStatus();
}

absl::StatusOr<absl::Span<const float>> SequenceRunner::hidden() {
  const int64_t count = rows() * model_->config().d_model;
  if (!on_gpu()) return absl::Span<const float>(hidden_.floats(), static_cast<size_t>(count));
  const int64_t bytes = count * SizeOf(model_->dtype());
  // The raw values stand in the second half and are converted from the front on.
  host_hidden_.resize(std::max<size_t>(host_hidden_.size(), 2 * count));
  float* raw = host_hidden_.data() + count;
  LONGWAVE_RETURN_IF_ERROR(CopyOut(raw, hidden_.data(), bytes, stream_));
  ToFloats(model_->dtype(), raw, count, host_hidden_.data());
  return absl::MakeConstSpan(host_hidden_).first(count);
}

absl::Status SequenceRunner::TokenLoss(absl::Span<const int32_t> targets, absl::Span<float> nll) {
  LONGWAVE_RETURN_IF_ERROR(CheckRange("loss", "pending", losses_.pending(), 0, 0));
  LONGWAVE_RETURN_IF_ERROR(
      CheckRange("loss", "out", static_cast<int64_t>(nll.size()), Size(targets)));
  LONGWAVE_RETURN_IF_ERROR(StartTokenLoss(targets));
  const absl::StatusOr<absl::Span<const float>> values = TakeTokenLoss();
  if (!values.ok()) return values.status();
  std::copy(values->begin(), values->end(), nll.begin());
  return absl::OkStatus();
}

absl::Status SequenceRunner::StartTokenLoss(absl::Span<const int32_t> targets) {
  const int64_t count = Size(targets);
  LONGWAVE_RETURN_IF_ERROR(CheckCount("loss", count, rows()));
  if (options_.batch > 1) LONGWAVE_RETURN_IF_ERROR(CheckCount("loss", rows(), count));
  LONGWAVE_RETURN_IF_ERROR(CheckTokens(targets, state_.position - length_ + 1));
  LONGWAVE_RETURN_IF_ERROR(
      CheckRange("loss", "pending", losses_.pending(), 0, LossDownload::kMost - 1));
  TokenLossArgs args;
  args.hidden = hidden_.data();
  args.embedding = model_->embedding();
  LONGWAVE_ASSIGN_OR_RETURN(args.targets, targets_.Send(targets, stream_));
  args.nll = losses_.Begin(count);
  if (timer_ != nullptr) LONGWAVE_RETURN_IF_ERROR(timer_->Mark("other", stream_));
  TokenLossDesc desc{count, model_->config().d_model, model_->config().vocab_size};
  desc.dtype = model_->dtype();
  LONGWAVE_RETURN_IF_ERROR(RunTokenLoss(desc, args, stream_));
  if (timer_ != nullptr) LONGWAVE_RETURN_IF_ERROR(timer_->Mark("loss", stream_));
  return losses_.End(stream_);
}

absl::StatusOr<absl::Span<const float>> SequenceRunner::TakeTokenLoss() {
  LONGWAVE_RETURN_IF_ERROR(
      CheckRange("loss", "pending", losses_.pending(), 1, LossDownload::kMost));
  return losses_.Take();
}

absl::Status SequenceRunner::QueueLogits(int64_t first, int64_t stride, int64_t rows, float* out) {
  const int64_t d = model_->config().d_model, vocab = model_->config().vocab_size;
  GemmDesc desc{.rows = rows, .in = d, .out = vocab};
  desc.dtype = desc.in_dtype = model_->dtype();
  const char* hidden = static_cast<const char*>(hidden_.data());
  return RunGemm(desc,
                 {.x = hidden + first * d * SizeOf(model_->dtype()),
                  .x_stride = stride * d,
                  .weight = model_->embedding(),
                  .out = out,
                  .out_stride = vocab},
                 stream_);
}

absl::Status SequenceRunner::Logits(int64_t first, int64_t rows, absl::Span<float> out) {
  const int64_t vocab = model_->config().vocab_size, seen = this->rows();
  LONGWAVE_RETURN_IF_ERROR(CheckRange("logits", "first", first, 0, seen));
  LONGWAVE_RETURN_IF_ERROR(CheckRange("logits", "rows", rows, 1, seen - first));
  LONGWAVE_RETURN_IF_ERROR(
      CheckRange("logits", "out", static_cast<int64_t>(out.size()), rows * vocab, rows * vocab));
  if (!on_gpu()) return QueueLogits(first, 1, rows, out.data());
  if (stepped_) {  // they are there
    return CopyOut(out.data(), logits_.floats() + first * vocab, rows * vocab * kFloat, stream_);
  }
  for (int64_t done = 0; done < rows; done += logits_rows_) {
    const int64_t part = std::min(logits_rows_, rows - done);
    LONGWAVE_RETURN_IF_ERROR(QueueLogits(first + done, 1, part, logits_.floats()));
    LONGWAVE_RETURN_IF_ERROR(
        CopyOut(out.data() + done * vocab, logits_.data(), part * vocab * kFloat, stream_));
  }
  return absl::OkStatus();
}

absl::Status SequenceRunner::QueueStep() {
  const ModelInput input{tokens_.on_device(), 1, static_cast<int64_t*>(step_position_.data())};
  LONGWAVE_RETURN_IF_ERROR(
      model_->Forward(input, state_, workspace_, stream_, hidden_.data(), timer_));
  LONGWAVE_RETURN_IF_ERROR(QueueLogits(0, 1, options_.batch, logits_.floats()));
  ArgmaxArgs argmax;
  argmax.logits = logits_.floats();
  argmax.stride = model_->config().vocab_size;
  argmax.tokens = tokens_.on_device();
  LONGWAVE_RETURN_IF_ERROR(RunArgmax(options_.batch, argmax.stride, argmax, stream_));
  LONGWAVE_RETURN_IF_ERROR(RunAdvance(static_cast<int64_t*>(step_position_.data()), 1, stream_));
  return timer_ == nullptr ? absl::OkStatus() : timer_->Mark("logits", stream_);
}

absl::Status SequenceRunner::Step() {
  gpu::Queue& queue = stream_.queue();
  for (KvCache& cache : state_.caches) {
    LONGWAVE_RETURN_IF_ERROR(cache.Reserve(state_.position + 1, stream_));
  }
  if (host_step_position_ != state_.position) {
    LONGWAVE_RETURN_IF_ERROR(
        CopyIn(step_position_.data(), &state_.position, sizeof(int64_t), stream_));
    host_step_position_ = state_.position;
  }
  // A step runs plainly the first time, which sizes the scratch, and whenever memory has moved
  // since; the second time it is recorded.
  std::vector<const void*>& known = step_memory_;
  const void* scratch;
  LONGWAVE_ASSIGN_OR_RETURN(scratch, queue.Scratch(0));
  bool moved = known.size() != state_.caches.size() + 1 || known[0] != scratch;
  for (size_t i = 0; !moved && i < state_.caches.size(); ++i) {
    moved = known[i + 1] != state_.caches[i].gpu_keys();
  }
  if (moved || timer_ != nullptr) {
    step_ = gpu::Graph();
    known.clear();
    LONGWAVE_RETURN_IF_ERROR(QueueStep());
    LONGWAVE_ASSIGN_OR_RETURN(scratch, queue.Scratch(0));
    known.push_back(scratch);
    for (const KvCache& cache : state_.caches) known.push_back(cache.gpu_keys());
  } else {
    if (step_.empty()) {
      LONGWAVE_ASSIGN_OR_RETURN(step_, gpu::Graph::Capture(queue, [this] { return QueueStep(); }));
    }
    LONGWAVE_RETURN_IF_ERROR(step_.Launch(queue));
  }
  ++host_step_position_;
  ++state_.position;
  for (KvCache& cache : state_.caches) cache.Extend(1);
  length_ = 1;
  stepped_ = true;
  return absl::OkStatus();
}

absl::Status SequenceRunner::Greedy(int64_t count, absl::Span<int32_t> out) {
  const int64_t batch = options_.batch, vocab = model_->config().vocab_size;
  LONGWAVE_RETURN_IF_ERROR(CheckRange("greedy", "rows", rows(), 1));
  LONGWAVE_RETURN_IF_ERROR(CheckRange("greedy", "count", count, 1));
  LONGWAVE_RETURN_IF_ERROR(
      CheckRange("greedy", "out", static_cast<int64_t>(out.size()), batch * count, batch * count));
  LONGWAVE_RETURN_IF_ERROR(CheckCache(count - 1));
  const Device device = model_->device();
  Array logits, history;  // (batch, vocab); (count, batch): the tokens
  if (!on_gpu()) LONGWAVE_ASSIGN_OR_RETURN(logits, Array::Allocate(device, batch * vocab * kFloat));
  LONGWAVE_ASSIGN_OR_RETURN(history,
                            Array::Allocate(device, count * batch * int64_t{sizeof(int32_t)}));
  for (KvCache& cache : state_.caches) {
    if (on_gpu()) {
      LONGWAVE_RETURN_IF_ERROR(cache.Reserve(state_.position + count - 1, stream_));
    }
  }
  int32_t* tokens = static_cast<int32_t*>(history.data());
  for (int64_t i = 0; i < count; ++i, tokens += batch) {
    if (i > 0 && on_gpu()) LONGWAVE_RETURN_IF_ERROR(Step());
    if (i > 0 && !on_gpu()) {
      LONGWAVE_RETURN_IF_ERROR(Forward({tokens - batch, static_cast<size_t>(batch)}));
    }
    if (!stepped_) {
      ArgmaxArgs argmax;
      argmax.logits = on_gpu() ? logits_.floats() : logits.floats();
      argmax.stride = vocab;
      argmax.tokens = on_gpu() ? tokens_.on_device() : tokens;
      LONGWAVE_RETURN_IF_ERROR(
          QueueLogits(length_ - 1, length_, batch, const_cast<float*>(argmax.logits)));
      LONGWAVE_RETURN_IF_ERROR(RunArgmax(batch, vocab, argmax, stream_));
    }
    if (on_gpu()) {
      LONGWAVE_RETURN_IF_ERROR(stream_.queue().CopyOnDevice(tokens, tokens_.on_device(),
                                                            batch * int64_t{sizeof(int32_t)}));
    }
  }
  std::vector<int32_t> made(count * batch);
  LONGWAVE_RETURN_IF_ERROR(CopyOut(made.data(), history.data(), history.bytes(), stream_));
  for (int64_t b = 0; b < batch; ++b) {
    for (int64_t i = 0; i < count; ++i) out[b * count + i] = made[i * batch + b];
  }
  return absl::OkStatus();
}

absl::Status SequenceRunner::Transform(absl::Span<const float> x, absl::Span<float> y,
                                       StateFlow* flow) {
  const int64_t d = model_->config().d_model, row = d * options_.batch;
  const int64_t length = static_cast<int64_t>(x.size()) / row;
  if (model_->config().type != ModelConfig::Type::kS4d) {
    return absl::InvalidArgumentError(
        absl::StrCat(model_->folder(), " takes tokens, not signals: use another task"));
  }
  LONGWAVE_RETURN_IF_ERROR(CheckCount("transform", length, options_.chunk));
  if (static_cast<int64_t>(x.size()) != length * row || y.size() != x.size()) {
    return absl::InvalidArgumentError(absl::StrCat("transform: ", x.size(), " values in and ",
                                                   y.size(), " out, not rows of ", row));
  }
  LONGWAVE_RETURN_IF_ERROR(reset_);
  const int64_t bytes = static_cast<int64_t>(x.size()) * kFloat;
  float* signal = on_gpu() ? workspace_.x.floats() : y.data();
  LONGWAVE_RETURN_IF_ERROR(CopyIn(signal, x.data(), bytes, stream_));
  LONGWAVE_RETURN_IF_ERROR(
      model_->Transform(signal, length, state_, workspace_, stream_, timer_, flow));
  return on_gpu() ? CopyOut(y.data(), signal, bytes, stream_) : absl::OkStatus();
}

absl::Status SequenceRunner::Synchronize() {
  return on_gpu() ? stream_.queue().Synchronize() : absl::OkStatus();
}

}  // namespace longwave
