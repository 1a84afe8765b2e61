#include "services/cluster/chunk_executor.h"

#include <algorithm>
#include <cstring>
#include <utility>

#include "absl/strings/str_cat.h"
#include "formats/boundary.h"
#include "services/cluster/model_hash.h"
#include "services/run_limits.h"
#include "services/run_options.h"

namespace longwave {
namespace {

constexpr int64_t kMostBoundary = int64_t{1} << 34;

// Whether another worker, or this one a little later, may succeed.
bool IsFinal(const absl::Status& status) {
  return absl::IsInvalidArgument(status) || absl::IsFailedPrecondition(status) ||
         absl::IsResourceExhausted(status) || absl::IsDataLoss(status) ||
         absl::IsOutOfRange(status);
}

absl::string_view Bytes(absl::Span<const float> values) {
  return {reinterpret_cast<const char*>(values.data()), values.size() * sizeof(float)};
}

absl::StatusOr<std::unique_ptr<ChunkTask>> TaskOf(const Assign& assign, const Model& model,
                                                  int64_t chunk) {
  const ModelConfig& config = model.config();
  switch (static_cast<Task>(assign.task)) {
    case Task::kScore:
      return std::make_unique<ScoreTask>(chunk);
    case Task::kEmbed:
      return std::make_unique<EmbedTask>(config.d_model, assign.window);
    case Task::kLogits:
      return std::make_unique<LogitsTask>(
          config.vocab_size, assign.max_logits_bytes / static_cast<int64_t>(sizeof(float)));
    default:
      return absl::InvalidArgumentError(
          absl::StrCat("task ", assign.task, " is not done in chunks"));
  }
}

}  // namespace

WorkerLoop::Executed ChunkExecutor::Run(const Assign& assign) {
  absl::StatusOr<Done> done = Compute(assign);
  if (done.ok()) return {*std::move(done), absl::OkStatus()};
  runner_.reset();  // whatever state it is in
  const absl::Status& status = done.status();
  return {Failed{assign.key, IsFinal(status), std::string(status.message())},
          absl::IsInternal(status) ? status : absl::OkStatus()};
}

absl::Status ChunkExecutor::Prepare(const Assign& assign) {
  if (model_hash_ != assign.model_hash) {
    runner_.reset();
    model_.reset();
    model_hash_.clear();
    absl::Status named = CheckObjectName(assign.model);
    if (!named.ok()) return named;
    const std::string folder = absl::StrCat(models_, "/", assign.model);
    const absl::StatusOr<std::string> hash = ModelHash(folder);
    if (!hash.ok()) return absl::UnavailableError(hash.status().message());
    if (*hash != assign.model_hash) {
      return absl::UnavailableError(absl::StrCat("model ", folder, " is ", *hash,
                                                 " here, the job is of ", assign.model_hash));
    }
    absl::StatusOr<std::shared_ptr<const Model>> model = Model::Load(folder, options_);
    if (!model.ok()) return model.status();
    model_ = *std::move(model);
    model_hash_ = *hash;
  }
  const int64_t chunk = std::min(assign.chunk_tokens, assign.length);
  if (runner_ == nullptr || chunk_ != chunk) {
    runner_.reset();
    absl::Status fits = model_->device().is_gpu() ? absl::OkStatus()
                                                  : CheckChunkFits(*model_, chunk, pool_.threads(),
                                                                   PhysicalMemoryBytes());
    if (!fits.ok()) return fits;
    RunnerOptions options;
    options.chunk = chunk;
    absl::StatusOr<std::unique_ptr<SequenceRunner>> runner =
        SequenceRunner::Create(model_, options, &pool_);
    if (!runner.ok()) return runner.status();
    runner_ = *std::move(runner);
    chunk_ = chunk;
  }
  absl::StatusOr<std::unique_ptr<ChunkTask>> task = TaskOf(assign, *model_, chunk);
  if (!task.ok()) return task.status();
  task_ = *std::move(task);
  return absl::OkStatus();
}

absl::Status ChunkExecutor::TakeUp(const Assign& assign, int64_t position) {
  if (position == 0) {
    runner_->Reset();
    return absl::OkStatus();
  }
  const std::string name =
      BoundaryName(assign.key.job, assign.boundary_epoch, assign.key.chunk - 1);
  const absl::StatusOr<std::string> bytes = objects_->ReadAll(name, kMostBoundary);
  if (!bytes.ok()) return bytes.status();
  absl::StatusOr<Boundary> boundary = ParseBoundary(*bytes);
  absl::Status status = boundary.status();
  if (status.ok()) status = CheckBoundary(*boundary, assign.model_hash, position);
  if (!status.ok()) return absl::Status(status.code(), absl::StrCat(name, ": ", status.message()));
  const std::vector<StateTensorSpec>& specs = model_->state_specs();
  bool same =
      specs.size() == boundary->tensors.size() && boundary->carry.size() == task_->carry().size();
  HostState state;
  for (size_t i = 0; same && i < specs.size(); ++i) {
    BoundaryTensor& tensor = boundary->tensors[i];
    same = tensor.name == specs[i].name && tensor.shape == specs[i].shape;
    state.push_back(std::move(tensor.values));
  }
  if (!same) {
    return absl::FailedPreconditionError(absl::StrCat(
        name, ": its ", boundary->tensors.size(), " tensors and carry of ", boundary->carry.size(),
        " are not those of this model and task, ", specs.size(), " and ", task_->carry().size()));
  }
  std::copy(boundary->carry.begin(), boundary->carry.end(), task_->carry().begin());
  return runner_->Resume(position, state);
}

absl::StatusOr<std::vector<int32_t>> ChunkExecutor::Tokens(const Assign& assign, int64_t first,
                                                           int64_t count) {
  const int64_t size = assign.token_bytes;
  const absl::StatusOr<std::string> bytes =
      objects_->Read(TokensName(assign.key.job), first * size, count * size);
  if (!bytes.ok()) return bytes.status();
  if ((size != 1 && size != 4) || static_cast<int64_t>(bytes->size()) != count * size) {
    return absl::DataLossError(absl::StrCat(TokensName(assign.key.job), ": ", bytes->size(),
                                            " bytes where ", count, " tokens of ", size,
                                            " were expected"));
  }
  std::vector<int32_t> tokens(count);
  if (size == 4) {
    std::memcpy(tokens.data(), bytes->data(), bytes->size());
  } else {
    std::transform(bytes->begin(), bytes->end(), tokens.begin(),
                   [](char byte) { return static_cast<uint8_t>(byte); });
  }
  return tokens;
}

absl::StatusOr<ObjectInfo> ChunkExecutor::WriteBoundary(const Assign& assign) {
  absl::StatusOr<HostState> state = runner_->ExportState();
  if (!state.ok()) return state.status();
  Boundary boundary;
  boundary.model_hash = assign.model_hash;
  boundary.position = runner_->position();
  boundary.carry.assign(task_->carry().begin(), task_->carry().end());
  for (size_t i = 0; i < state->size(); ++i) {
    const StateTensorSpec& spec = model_->state_specs()[i];
    boundary.tensors.push_back({spec.name, spec.shape, std::move((*state)[i])});
  }
  const absl::StatusOr<std::string> bytes = FormatBoundary(boundary);
  if (!bytes.ok()) return bytes.status();
  return objects_->Write(BoundaryName(assign.key.job, assign.key.epoch, assign.key.chunk), *bytes);
}

absl::StatusOr<Done> ChunkExecutor::Compute(const Assign& assign) {
  const ChunkKey& key = assign.key;
  if (assign.chunk_tokens < 1 || assign.window < 1 ||
      key.chunk > (assign.length - 1) / assign.chunk_tokens) {
    return absl::InvalidArgumentError(absl::StrCat(key.ToString(), " of ", assign.length,
                                                   " tokens in chunks of ", assign.chunk_tokens));
  }
  absl::Status status = Prepare(assign);
  const int64_t first = key.chunk * assign.chunk_tokens;
  if (status.ok()) status = TakeUp(assign, first);
  if (!status.ok()) return status;
  const int64_t count = std::min(assign.chunk_tokens, assign.length - first);
  const bool last = first + count == assign.length;
  const absl::StatusOr<std::vector<int32_t>> tokens = Tokens(assign, first, count + !last);
  if (!tokens.ok()) return tokens.status();
  absl::StatusOr<std::unique_ptr<ObjectWriter>> output =
      objects_->Create(OutputName(key.job, key.epoch, key.chunk));
  if (!output.ok()) return output.status();
  TokenChunk chunk;
  chunk.tokens = absl::MakeConstSpan(*tokens).first(count);
  if (!last) chunk.lookahead = tokens->back();
  const auto sink = [&](absl::Span<const float> values) {
    return (*output)->Append(Bytes(values));
  };
  status = task_->Chunk(chunk, *runner_, sink);
  if (status.ok()) status = task_->Flush(*runner_, sink);
  if (!status.ok()) return status;
  const absl::StatusOr<ObjectInfo> written = (*output)->Commit();
  if (!written.ok()) return written.status();
  const absl::StatusOr<ObjectInfo> boundary = WriteBoundary(assign);
  if (!boundary.ok()) return boundary.status();
  return Done{key, written->bytes, written->sha256, boundary->sha256};
}

}  // namespace longwave
