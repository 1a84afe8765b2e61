#include "services/cluster/sim_executor.h"

#include <sys/prctl.h>

#include <chrono>
#include <cstring>
#include <thread>
#include <utility>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "formats/boundary.h"
#include "kernels/checks.h"
#include "worker/model/weights.h"

namespace longwave {
namespace {

constexpr absl::string_view kSim = "sim";
constexpr int64_t kMostSimulated = int64_t{1} << 30;  // bytes of a boundary
constexpr unsigned long kTimerSlackNs = 1000;

// The state before a chunk: another for each layer and chunk.
uint64_t StateBefore(int64_t layer, int64_t chunk) {
  if (chunk == 0) return 0;
  uint64_t mixed = 0x9e3779b97f4a7c15 * static_cast<uint64_t>(1 + layer + (chunk << 16));
  mixed = (mixed ^ (mixed >> 30)) * 0xbf58476d1ce4e5b9;
  return mixed ^ (mixed >> 27);
}

uint64_t ValueOf(const std::string& bytes) {
  uint64_t value = 0;
  std::memcpy(&value, bytes.data(), std::min(bytes.size(), sizeof(value)));
  return value;
}

}  // namespace

std::string SimDevice::ToString() const {
  return absl::StrCat("sim:layer_ms=", layer_ms, ",layers=", layers, ",state_bytes=", state_bytes,
                      ",early=", early, ",wave=", wave ? 1 : 0);
}

bool IsSimDevice(absl::string_view text) { return text == kSim || absl::StartsWith(text, "sim:"); }

absl::StatusOr<SimDevice> ParseSimDevice(absl::string_view text) {
  SimDevice device;
  if (text == kSim) return device;
  for (absl::string_view part : absl::StrSplit(text.substr(kSim.size() + 1), ',')) {
    const std::vector<std::string> pair = absl::StrSplit(part, absl::MaxSplits('=', 1));
    double value = 0;
    const bool number = pair.size() == 2 && absl::SimpleAtod(pair[1], &value);
    const std::string& name = pair[0];
    if (number && name == "layer_ms" && value >= 0 && value <= 60000) {
      device.layer_ms = value;
    } else if (number && name == "layers" && value >= 1 && value <= 1024) {
      device.layers = static_cast<int64_t>(value);
    } else if (number && name == "state_bytes" && value >= 8 && value <= (1 << 28)) {
      device.state_bytes = static_cast<int64_t>(value) / 8 * 8;
    } else if (number && name == "early" && value >= 0 && value <= 1) {
      device.early = value;
    } else if (number && name == "fails_after" && value >= 0 && value <= (1 << 30)) {
      device.fails_after = static_cast<int64_t>(value);
    } else if (number && name == "wave" && (value == 0 || value == 1)) {
      device.wave = value == 1;
    } else {
      return absl::InvalidArgumentError(
          absl::StrCat("device ", text, ": \"", part,
                       "\" must be layer_ms=0..60000, layers=1..1024, state_bytes=8..268435456, "
                       "early=0..1, fails_after=0..1073741824 or wave=0|1"));
    }
  }
  return device;
}

SimExecutor::SimExecutor(std::unique_ptr<ObjectStore> objects, const SimDevice& device,
                         Exchange* exchange, WorkerProbe& probe, FinishedFn finished)
    : ChunkPipeline(exchange, std::move(finished)),
      objects_(std::move(objects)),
      device_(device),
      probe_(probe) {
  Start();
}

SimExecutor::~SimExecutor() { Stop(); }

bool SimExecutor::IsFinal(const absl::Status& status) const {
  return absl::IsInvalidArgument(status) || absl::IsFailedPrecondition(status) ||
         absl::IsDataLoss(status);
}

StateBytes SimExecutor::State(uint64_t value) const {
  auto bytes = std::make_shared<std::string>(device_.state_bytes, '\0');
  std::memcpy(bytes->data(), &value, sizeof(value));
  return bytes;
}

absl::Status SimExecutor::Compute(ChunkWork& work) {
  prctl(PR_SET_TIMERSLACK, kTimerSlackNs);
  if (static_cast<Task>(work.assign.task) != Task::kScore) {
    return absl::InvalidArgumentError("a simulated device has the task score only");
  }
  if (++computed_ > device_.fails_after && device_.fails_after > 0) {
    return absl::InternalError(
        absl::StrCat("the simulated device failed after ", device_.fails_after, " chunks"));
  }
  const int64_t layers = device_.layers;
  const int64_t chunk = work.assign.first / std::max<int64_t>(work.assign.chunk_tokens, 1);
  std::shared_ptr<StateStream> before;
  LONGWAVE_ASSIGN_OR_RETURN(before, StreamBefore(work, layers, [&](StateStream& stream) {
                              for (int64_t i = 0; i < layers; ++i) stream.Put(i, State(0));
                            }));
  work.after = StreamAfter(work, layers);
  const double share =
      static_cast<double>(work.count()) / static_cast<double>(work.assign.chunk_tokens);
  const std::chrono::duration<double, std::milli> layer_time(device_.layer_ms * share);
  auto now = std::chrono::steady_clock::now();
  const auto pass = [&](double part) {
    now += std::chrono::duration_cast<std::chrono::steady_clock::duration>(layer_time * part);
  };
  for (int64_t layer = 0; layer < layers; ++layer) {
    if (!device_.wave) pass(device_.early);
    std::this_thread::sleep_until(now);  // for what of the layer before came after its state, too
    const bool late = before->first_missing() <= layer;  // who woke late did not compute longer
    const absl::StatusOr<StateBytes> state = before->Wait(layer);
    if (!state.ok()) return state.status();
    if (late) now = std::max(now, std::chrono::steady_clock::now());
    const uint64_t value = ValueOf(**state);
    if (static_cast<int64_t>((*state)->size()) != device_.state_bytes ||
        value != StateBefore(layer, chunk)) {
      return absl::DataLossError(absl::StrCat(work.key().ToString(), " layer ", layer,
                                              ": the state is ", value, ", of ", (*state)->size(),
                                              " bytes, not that of the chunk before"));
    }
    if (device_.wave) {
      pass(1);
      std::this_thread::sleep_until(now);
    }
    work.after->Put(layer, State(StateBefore(layer, chunk + 1)));
    if (!device_.wave) pass(1 - device_.early);
  }
  std::this_thread::sleep_until(now);
  return absl::OkStatus();
}

absl::Status SimExecutor::TakeValues(ChunkWork&) { return absl::OkStatus(); }

absl::StatusOr<Done> SimExecutor::Store(ChunkWork& work) {
  const ChunkKey& key = work.key();
  std::vector<float> values(work.count());
  for (int64_t i = 0; i < work.count(); ++i) values[i] = static_cast<float>(work.position() + i);
  ObjectInfo output, written;
  LONGWAVE_ASSIGN_OR_RETURN(output, objects_->Write(OutputName(key.job, key.epoch, key.chunk),
                                                    {reinterpret_cast<const char*>(values.data()),
                                                     values.size() * sizeof(float)}));
  if (!work.assign.last) LONGWAVE_ASSIGN_OR_RETURN(written, WriteBoundary(work));
  return Done{key, output.bytes, output.sha256, written.sha256, 0};
}

absl::StatusOr<ObjectInfo> SimExecutor::WriteBoundary(const ChunkWork& work) {
  Boundary boundary;
  boundary.model_hash = work.assign.model_hash;
  boundary.position = work.position() + work.count();
  for (int64_t i = 0; i < device_.layers; ++i) {
    std::vector<float> state(device_.state_bytes / sizeof(float));
    std::memcpy(state.data(), work.after->Get(i)->data(), device_.state_bytes);
    boundary.tensors.push_back(
        {absl::StrCat("layers.", i), {static_cast<int64_t>(state.size())}, std::move(state)});
  }
  std::string bytes;
  LONGWAVE_ASSIGN_OR_RETURN(bytes, FormatBoundary(boundary));
  const ChunkKey& key = work.key();
  return objects_->Write(BoundaryName(key.job, key.epoch, key.chunk), bytes);
}

absl::Status SimExecutor::Fill(const ChunkWork& work, const BoundaryObject& object,
                               StateStream& stream) {
  Boundary boundary;
  LONGWAVE_ASSIGN_OR_RETURN(boundary, ReadBoundary(*objects_, object, work.assign.model_hash,
                                                   work.position(), kMostSimulated, &probe_));
  for (size_t i = 0; i < boundary.tensors.size(); ++i) {
    const std::vector<float>& values = boundary.tensors[i].values;
    stream.Put(i, std::make_shared<const std::string>(reinterpret_cast<const char*>(values.data()),
                                                      values.size() * sizeof(float)));
  }
  return absl::OkStatus();
}

}  // namespace longwave
