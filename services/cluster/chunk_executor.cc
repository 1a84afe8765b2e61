#include "services/cluster/chunk_executor.h"

#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstring>
#include <optional>
#include <utility>

#include "absl/strings/str_cat.h"
#include "formats/boundary.h"
#include "kernels/checks.h"
#include "observability/log.h"
#include "observability/trace.h"
#include "services/cluster/model_hash.h"
#include "services/cluster/observed_flow.h"
#include "services/cluster/wave_flow.h"
#include "services/job_task.h"
#include "services/run_limits.h"
#include "services/run_options.h"
#include "worker/model/weights.h"

namespace longwave {
namespace {

using Seconds = double;
Seconds Now() {
  return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

template <typename T>
absl::string_view Bytes(absl::Span<const T> values) {
  return {reinterpret_cast<const char*>(values.data()), values.size() * sizeof(T)};
}

template <typename T>
StateBytes SharedBytes(absl::Span<const T> values) {
  return std::make_shared<const std::string>(Bytes(values));
}

JobSpec SpecOf(const Assign& assign) {
  JobSpec job;
  job.task = static_cast<Task>(assign.task);
  job.window = assign.window;
  job.max_logits_bytes = assign.max_logits_bytes;
  return job;
}

absl::Status CheckAssign(const Assign& assign) {
  const bool good = assign.task <= static_cast<uint8_t>(Task::kTransform) && assign.window >= 1 &&
                    assign.tokens >= 1 && assign.tokens <= assign.chunk_tokens &&
                    assign.tokens <= assign.length &&
                    assign.first <= assign.length - assign.tokens &&
                    assign.first % assign.chunk_tokens == 0 && assign.given <= assign.length &&
                    assign.token_bytes >= 1;
  if (good) return absl::OkStatus();
  return absl::InvalidArgumentError(absl::StrCat(
      assign.key.ToString(), ": task ", assign.task, ", tokens ", assign.first, " and ",
      assign.tokens, " more of ", assign.length, ", of which ", assign.given, " are given, of ",
      assign.token_bytes, " bytes, in chunks of ", assign.chunk_tokens));
}

}  // namespace

// Streams have the model's tensors and then the task's carry, as doubles.
struct ChunkExecutor::Work final : ChunkWork {
  using ChunkWork::ChunkWork;
  int64_t carry_index() const { return model->state_specs().size(); }

  std::shared_ptr<const Model> model;
  std::unique_ptr<ChunkTask> task;
  std::unique_ptr<ObjectWriter> output;
  std::vector<int32_t> tokens;
  std::vector<float> rows;
  TokenChunk chunk;                // of those
  std::optional<Boundary> caches;  // attention's, what the chunk added to them
  std::unique_ptr<ObjectWriter> boundary_object;
  std::unique_ptr<BoundaryWriter> boundary_writer;  // into that one
  std::unique_ptr<TraceRecorder> trace;             // null: nobody asked for one
  Seconds began = Now();
};

ChunkExecutor::ChunkExecutor(std::string name, std::unique_ptr<ObjectStore> objects,
                             std::string models, const ModelOptions& options, int threads,
                             bool wavefront, Exchange* exchange, WorkerProbe& probe,
                             FinishedFn finished)
    : ChunkPipeline(exchange, std::move(finished)),
      name_(std::move(name)),
      objects_(std::move(objects)),
      models_(std::move(models)),
      options_(options),
      wavefront_(wavefront),
      probe_(probe),
      pool_(threads) {
  Start();
}

ChunkExecutor::~ChunkExecutor() { Stop(); }

absl::Status ChunkExecutor::Wrote(absl::Status status) {
  if (!status.ok()) probe_.BoundaryFailed();
  return status;
}

std::unique_ptr<ChunkWork> ChunkExecutor::NewWork(const Assign& assign) {
  return std::make_unique<Work>(assign);
}

bool ChunkExecutor::IsFinal(const absl::Status& status) const {
  return absl::IsInvalidArgument(status) || absl::IsFailedPrecondition(status) ||
         absl::IsResourceExhausted(status) || absl::IsDataLoss(status) ||
         absl::IsOutOfRange(status);
}

absl::Status ChunkExecutor::Prepare(Work& work) {
  const Assign& assign = work.assign;
  const int64_t chunk = assign.chunk_tokens;
  if (model_hash_ != assign.model_hash || runner_ == nullptr || chunk_ != chunk) {
    WaitForValues();  // they are in the runner
    runner_.reset();
    stands_.clear();
  }
  if (model_hash_ != assign.model_hash) {
    flow_.reset();
    model_.reset();
    model_hash_.clear();
    LONGWAVE_RETURN_IF_ERROR(CheckObjectName(assign.model));
    const std::string folder = absl::StrCat(models_, "/", assign.model);
    const absl::StatusOr<std::string> hash = ModelHash(folder);
    if (!hash.ok()) return absl::UnavailableError(hash.status().message());
    if (*hash != assign.model_hash) {
      return absl::UnavailableError(absl::StrCat("model ", folder, " is ", *hash,
                                                 " here, the job is of ", assign.model_hash));
    }
    LONGWAVE_ASSIGN_OR_RETURN(model_, Model::Load(folder, options_));
    model_hash_ = *hash;
  }
  if (runner_ == nullptr) {
    LONGWAVE_RETURN_IF_ERROR(
        model_->device().is_gpu()
            ? absl::OkStatus()
            : CheckChunkFits(*model_, chunk, pool_.threads(), PhysicalMemoryBytes()));
    RunnerOptions options;
    options.chunk = chunk;
    options.cache_budget_bytes = RunOptions::DefaultCacheBudget();
    LONGWAVE_ASSIGN_OR_RETURN(runner_, SequenceRunner::Create(model_, options, &pool_));
    chunk_ = chunk;
    std::vector<int64_t> floats;
    for (const StateTensorSpec& spec : model_->state_specs()) floats.push_back(spec.elements());
    LONGWAVE_ASSIGN_OR_RETURN(flow_, LinkFlow::Create(model_->device(), std::move(floats)));
  }
  work.model = model_;
  JobSpec job = SpecOf(assign);
  if (job.task == Task::kGenerate) {
    LONGWAVE_RETURN_IF_ERROR(ParseSampling(assign.sampling, job));
  }
  LONGWAVE_RETURN_IF_ERROR(CheckTaskSuits(*model_, job.task));
  work.task = MakeTask(job, *model_, chunk, [&work](int32_t token) {
    if (work.dropped) return absl::CancelledError("not wanted");
    return work.output->Append(Bytes(absl::Span<const int32_t>(&token, 1)));
  });
  return absl::OkStatus();
}

// What is given of the chunk, and the token after it.
absl::Status ChunkExecutor::ReadInput(Work& work) {
  const Assign& assign = work.assign;
  const int64_t size = assign.token_bytes;
  const int64_t count = std::clamp<int64_t>(assign.given - assign.first, 0, assign.tokens);
  const bool lookahead = assign.first + count < assign.given;
  work.chunk.steps = assign.tokens - count;
  if (count == 0) return absl::OkStatus();
  const bool rows = static_cast<Task>(assign.task) == Task::kTransform;
  const std::string name = TokensName(work.key().job);
  const absl::StatusOr<std::string> bytes =
      objects_->Read(name, (assign.first_token + assign.first) * size, (count + lookahead) * size);
  if (!bytes.ok()) return bytes.status();
  const int64_t row = work.model->config().d_model * int64_t{sizeof(float)};
  if (static_cast<int64_t>(bytes->size()) != (count + lookahead) * size ||
      (rows ? size != row : size != 1 && size != 4)) {
    return absl::DataLossError(absl::StrCat(name, ": ", bytes->size(), " bytes where ",
                                            count + lookahead, " tokens of ", size,
                                            " were expected"));
  }
  if (rows) {
    work.rows.resize(count * size / sizeof(float));
    std::memcpy(work.rows.data(), bytes->data(), work.rows.size() * sizeof(float));
    work.chunk.rows = work.rows;
    return absl::OkStatus();
  }
  work.tokens.resize(count + lookahead);
  if (size == 4) {
    std::memcpy(work.tokens.data(), bytes->data(), bytes->size());
  } else {
    std::transform(bytes->begin(), bytes->end(), work.tokens.begin(),
                   [](char byte) { return static_cast<uint8_t>(byte); });
  }
  work.chunk.tokens = absl::MakeConstSpan(work.tokens).first(count);
  if (lookahead) work.chunk.lookahead = work.tokens.back();
  return absl::OkStatus();
}

absl::Status ChunkExecutor::Fill(const ChunkWork& chunk, const BoundaryObject& object,
                                 StateStream& stream) {
  const std::string& name = object.name;
  const Work& work = static_cast<const Work&>(chunk);
  const absl::StatusOr<Boundary> boundary = ReadBoundary(*objects_, object, work.assign.model_hash,
                                                         work.position(), kMostBoundary, &probe_);
  if (!boundary.ok()) return boundary.status();
  const std::vector<StateTensorSpec>& specs = work.model->state_specs();
  const size_t carry = work.task->carry().size();
  bool same = specs.size() == boundary->tensors.size() && boundary->carry.size() == carry;
  for (size_t i = 0; same && i < specs.size(); ++i) {
    const BoundaryTensor& tensor = boundary->tensors[i];
    same = tensor.name == specs[i].name && tensor.shape == specs[i].shape;
  }
  if (!same) {
    return absl::FailedPreconditionError(absl::StrCat(
        name, ": its ", boundary->tensors.size(), " tensors and carry of ", boundary->carry.size(),
        " are not those of this model and task, ", specs.size(), " and ", carry));
  }
  for (size_t i = 0; i < specs.size(); ++i) {
    stream.Put(i, SharedBytes(absl::MakeConstSpan(boundary->tensors[i].values)));
  }
  stream.Put(work.carry_index(), SharedBytes(absl::MakeConstSpan(boundary->carry)));
  return absl::OkStatus();
}

absl::Status ChunkExecutor::Compute(ChunkWork& chunk) {
  Work& work = static_cast<Work&>(chunk);
  const absl::Status run = Run(work);
  if (!run.ok()) {
    WaitForValues();
    runner_.reset();  // whatever state it is in
  }
  return run;
}

absl::Status ChunkExecutor::Run(Work& work) {
  const Assign& assign = work.assign;
  const ChunkKey& key = work.key();
  LONGWAVE_RETURN_IF_ERROR(CheckAssign(assign));
  if (assign.trace) work.trace = std::make_unique<TraceRecorder>();
  LONGWAVE_RETURN_IF_ERROR(Prepare(work));
  LONGWAVE_RETURN_IF_ERROR(ReadInput(work));
  auto output = objects_->Create(OutputName(key.job, key.epoch, key.chunk));
  LONGWAVE_RETURN_IF_ERROR(Wrote(output.status()));
  work.output = *std::move(output);
  const int64_t tensors = work.carry_index() + 1;
  const auto zeros = [&](StateStream& stream) {
    for (int64_t i = 0; i < work.carry_index(); ++i) {
      const auto bytes = work.model->state_specs()[i].elements() * sizeof(float);
      stream.Put(i, std::make_shared<const std::string>(bytes, '\0'));
    }
    stream.Put(work.carry_index(), SharedBytes(absl::Span<const double>(work.task->carry())));
  };
  std::shared_ptr<StateStream> before;
  LONGWAVE_ASSIGN_OR_RETURN(before, StreamBefore(work, tensors, zeros));
  if (assign.serial) return RunSerial(work);
  work.after = StreamAfter(work, tensors);
  LONGWAVE_RETURN_IF_ERROR(runner_->Seek(work.position()));
  flow_->Begin(before, work.after);
  ObservedFlow flow(*flow_, work.model->state_specs(), probe_, work.trace.get());
  if (wavefront_) {
    WaveFlow wave(flow, work.model->state_specs());
    LONGWAVE_RETURN_IF_ERROR(work.task->Forward(work.chunk, *runner_, &wave));
    LONGWAVE_RETURN_IF_ERROR(wave.End());
  } else {
    LONGWAVE_RETURN_IF_ERROR(work.task->Forward(work.chunk, *runner_, &flow));
  }
  flow.End();
  return ReadValues(work);
}

// Values that are read out of the runner before it goes on.
absl::Status ChunkExecutor::ReadValues(Work& work) {
  if (work.task->overlaps()) return absl::OkStatus();
  LONGWAVE_RETURN_IF_ERROR(TakeCarry(work));
  const auto sink = [&](absl::Span<const float> values) {
    return Wrote(work.output->Append(Bytes(values)));
  };
  LONGWAVE_RETURN_IF_ERROR(work.task->Values(work.chunk, *runner_, sink));
  return work.task->Flush(*runner_, sink);
}

// The chunk before is committed. All of its state is taken up first, then nothing else is needed.
absl::Status ChunkExecutor::RunSerial(Work& work) {
  work.after = std::make_shared<StateStream>(work.carry_index() + 1);
  HostState state;
  for (int64_t i = 0; i < work.carry_index(); ++i) {
    StateBytes bytes;
    LONGWAVE_ASSIGN_OR_RETURN(bytes, work.before->Wait(i));
    state.emplace_back(bytes->size() / sizeof(float));
    std::memcpy(state.back().data(), bytes->data(), state.back().size() * sizeof(float));
  }
  const bool caches = work.model->attention_layers() > 0;
  if (caches) LONGWAVE_RETURN_IF_ERROR(TakeCaches(work.assign));
  LONGWAVE_RETURN_IF_ERROR(runner_->Seek(work.position()));
  LONGWAVE_RETURN_IF_ERROR(runner_->ImportState(state));
  LONGWAVE_RETURN_IF_ERROR(work.task->Forward(work.chunk, *runner_));
  LONGWAVE_RETURN_IF_ERROR(ReadValues(work));
  LONGWAVE_ASSIGN_OR_RETURN(state, runner_->ExportState());
  for (int64_t i = 0; i < work.carry_index(); ++i) {
    work.after->Put(i, SharedBytes(absl::MakeConstSpan(state[i])));
  }
  return caches && !work.assign.last ? GiveCaches(work) : absl::OkStatus();
}

// The caches as the chunk before left them: they are there still, or come out of the store, from
// what each chunk of the sequence has added.
absl::Status ChunkExecutor::TakeCaches(const Assign& assign) {
  const bool there = assign.first == 0 || stands_ == assign.boundary.name;
  stands_.clear();
  if (assign.first == 0) {
    cache_epochs_.clear();
    return runner_->Seek(0);
  }
  if (there) return absl::OkStatus();
  const ChunkKey& key = assign.key;
  const int64_t before = assign.first / assign.chunk_tokens;  // chunks
  LONGWAVE_RETURN_IF_ERROR(runner_->Seek(0));
  Boundary last;
  const auto read = [&](const std::string& name, int64_t chunks) {
    return ReadBoundary(*objects_, {name, ""}, assign.model_hash, chunks * assign.chunk_tokens,
                        kMostBoundary, nullptr);
  };
  const std::string name = CachesName(assign.boundary.name);
  LONGWAVE_ASSIGN_OR_RETURN(last, read(name, before));
  if (static_cast<int64_t>(last.carry.size()) != before) {
    return absl::DataLossError(
        absl::StrCat(name, ": it names ", last.carry.size(), " chunks, not ", before));
  }
  for (const double epoch : last.carry) {  // NaN too is refused
    if (epoch >= 0 && epoch < 0x1p53 && epoch == std::floor(epoch)) continue;
    return absl::DataLossError(absl::StrCat(name, ": it names an epoch ", epoch));
  }
  for (int64_t i = 0; i < before; ++i) {
    Boundary added;
    if (i + 1 < before) {
      const std::string boundary =
          BoundaryName(key.job, static_cast<int64_t>(last.carry[i]), key.chunk - before + i);
      LONGWAVE_ASSIGN_OR_RETURN(added, read(CachesName(boundary), i + 1));
    } else {
      added.tensors = std::move(last.tensors);
    }
    std::vector<CacheRows> caches;
    for (size_t t = 0; t + 1 < added.tensors.size(); t += 2) {
      caches.push_back({assign.chunk_tokens, std::move(added.tensors[t].values),
                        std::move(added.tensors[t + 1].values)});
    }
    LONGWAVE_RETURN_IF_ERROR(runner_->AppendCaches(caches));
  }
  cache_epochs_ = std::move(last.carry);
  return absl::OkStatus();
}

absl::Status ChunkExecutor::GiveCaches(Work& work) {
  const ChunkKey& key = work.key();
  std::vector<CacheRows> caches;
  LONGWAVE_ASSIGN_OR_RETURN(caches, runner_->ExportCaches(work.assign.first));
  cache_epochs_.push_back(static_cast<double>(key.epoch));
  stands_ = BoundaryName(key.job, key.epoch, key.chunk);
  work.caches.emplace();
  work.caches->model_hash = work.assign.model_hash;
  work.caches->position = work.position() + work.count();
  work.caches->carry = cache_epochs_;
  const std::vector<int64_t> shape = {work.model->config().d_model, work.count()};
  for (size_t i = 0; i < caches.size(); ++i) {
    for (auto [what, values] :
         {std::pair{"keys", &caches[i].keys}, {"values", &caches[i].values}}) {
      work.caches->tensors.push_back(
          {absl::StrCat("caches.", i, ".", what), shape, std::move(*values)});
    }
  }
  return absl::OkStatus();
}

// Adds what the chunk before handed on.
absl::Status ChunkExecutor::TakeCarry(Work& work) {
  const absl::StatusOr<StateBytes> bytes = work.before->Wait(work.carry_index());
  if (!bytes.ok()) return bytes.status();
  const absl::Span<double> carry = work.task->carry();
  if ((*bytes)->size() != carry.size() * sizeof(double)) {
    return absl::InvalidArgumentError(absl::StrCat("the carry of the chunk before has ",
                                                   (*bytes)->size(), " bytes, the task's has ",
                                                   carry.size() * sizeof(double)));
  }
  for (size_t i = 0; i < carry.size(); ++i) {
    double before;
    std::memcpy(&before, (*bytes)->data() + i * sizeof(double), sizeof(double));
    carry[i] += before;
  }
  return absl::OkStatus();
}

absl::Status ChunkExecutor::TakeValues(ChunkWork& chunk) {
  Work& work = static_cast<Work&>(chunk);
  absl::Status stored;
  if (!work.assign.last && !work.dropped) {
    const ScopedSpan span(work.trace.get(), "states", -1, TraceLane::kObjects);
    stored = StoreStates(work);
  }
  if (!work.task->overlaps()) return stored;
  const ScopedSpan span(work.trace.get(), "values", -1, TraceLane::kObjects);
  // All are taken, stored or not: the next chunk's come after them.
  const auto sink = [&](absl::Span<const float> values) {
    if (stored.ok()) stored = Wrote(work.output->Append(Bytes(values)));
    return absl::OkStatus();
  };
  LONGWAVE_RETURN_IF_ERROR(work.task->Values(work.chunk, *runner_, sink));
  LONGWAVE_RETURN_IF_ERROR(work.task->Flush(*runner_, sink));
  return stored;
}

absl::StatusOr<Done> ChunkExecutor::Store(ChunkWork& chunk) {
  Work& work = static_cast<Work&>(chunk);
  if (work.task->overlaps()) LONGWAVE_RETURN_IF_ERROR(TakeCarry(work));
  work.after->Put(work.carry_index(), SharedBytes(absl::Span<const double>(work.task->carry())));
  absl::StatusOr<ObjectInfo> written;
  std::string boundary_sha256;
  {
    const Seconds began = Now();
    const ScopedSpan span(work.trace.get(), "output", -1, TraceLane::kObjects);
    written = work.output->Commit();
    LONGWAVE_RETURN_IF_ERROR(Wrote(written.status()));
    probe_.OutputWritten(Now() - began, written->bytes);
  }
  if (!work.assign.last) {
    const Seconds began = Now();
    const ScopedSpan span(work.trace.get(), "boundary", -1, TraceLane::kObjects);
    LONGWAVE_RETURN_IF_ERROR(work.boundary_writer->End(work.task->carry()));
    const absl::StatusOr<ObjectInfo> boundary = work.boundary_object->Commit();
    LONGWAVE_RETURN_IF_ERROR(Wrote(boundary.status()));
    probe_.BoundaryWritten(Now() - began, boundary->bytes);
    boundary_sha256 = boundary->sha256;
  }
  WriteTrace(work);
  probe_.ChunkComputed(work.count(), Now() - work.began);
  return Done{work.key(), written->bytes, written->sha256, boundary_sha256, 0};
}

// What fails here is only not to be seen.
void ChunkExecutor::WriteTrace(Work& work) {
  if (work.trace == nullptr) return;
  const ChunkKey& key = work.key();
  ChunkTrace trace;
  trace.job = key.job;
  trace.chunk = key.chunk;
  trace.epoch = key.epoch;
  trace.tokens = work.count();
  trace.worker = name_;
  trace.device = work.model->device().ToString();
  const absl::Status written = objects_
                                   ->Write(TraceName(key.job, key.epoch, key.chunk),
                                           FormatTrace(work.trace->Take(std::move(trace))))
                                   .status();
  if (!written.ok()) log::Warning("no trace", {{"job", key.job}, {"error", written.message()}});
}

// Each as soon as it is there, while the chunk is computed.
absl::Status ChunkExecutor::StoreStates(Work& work) {
  const ChunkKey& key = work.key();
  auto object = objects_->Create(BoundaryName(key.job, key.epoch, key.chunk));
  LONGWAVE_RETURN_IF_ERROR(Wrote(object.status()));
  work.boundary_object = *std::move(object);
  work.boundary_writer = std::make_unique<BoundaryWriter>([this, &work](absl::string_view bytes) {
    return Wrote(work.boundary_object->Append(bytes));
  });
  BoundaryWriter& writer = *work.boundary_writer;
  LONGWAVE_RETURN_IF_ERROR(
      writer.Begin(work.assign.model_hash, work.position() + work.count(), work.carry_index()));
  for (int64_t i = 0; i < work.carry_index(); ++i) {
    const StateTensorSpec& spec = work.model->state_specs()[i];
    StateBytes values;
    LONGWAVE_ASSIGN_OR_RETURN(values, work.after->Wait(i));
    LONGWAVE_RETURN_IF_ERROR(writer.Tensor(spec.name, spec.shape, *values));
  }
  if (!work.caches.has_value()) return absl::OkStatus();
  std::string bytes;
  LONGWAVE_ASSIGN_OR_RETURN(bytes, FormatBoundary(*work.caches));
  work.caches.reset();
  const std::string name = CachesName(BoundaryName(key.job, key.epoch, key.chunk));
  return Wrote(objects_->Write(name, bytes).status());
}

}  // namespace longwave
