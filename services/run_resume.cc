#include "services/run_resume.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "formats/atomic_file.h"
#include "formats/npy.h"
#include "formats/sha256.h"
#include "kernels/stream.h"
#include "services/cluster/model_hash.h"
#include "services/device.h"

namespace longwave {
namespace {

constexpr int64_t kBlock = 1 << 20;
constexpr int kShare = 50;  // at most one part in so many of the time

std::string Processor() {
  std::ifstream info("/proc/cpuinfo");
  for (std::string line; std::getline(info, line);) {
    if (line.rfind("model name", 0) == 0) return line.substr(line.find(':') + 1);
  }
  return "";
}

// The first line of `a` that `b` has not, and what it has there.
std::string Difference(const std::string& a, const std::string& b) {
  const std::vector<std::string> left = absl::StrSplit(a, '\n'), right = absl::StrSplit(b, '\n');
  for (size_t i = 0; i < std::min(left.size(), right.size()); ++i) {
    if (left[i] != right[i]) return absl::StrCat(left[i], ", not ", right[i]);
  }
  return "another run";
}

class File {
 public:
  explicit File(const std::string& path) : fd(open(path.c_str(), O_RDONLY | O_CLOEXEC)) {}
  ~File() {
    if (fd >= 0) close(fd);
  }
  const int fd;
};

}  // namespace

FileStamp StampOf(const std::string& path) {
  struct stat info;
  if (stat(path.c_str(), &info) != 0) return {};
  return {static_cast<int64_t>(info.st_dev), static_cast<int64_t>(info.st_ino), info.st_size,
          info.st_mtim.tv_sec * int64_t{1000000000} + info.st_mtim.tv_nsec};
}

std::vector<FileStamp> StampsOfModel(const std::string& folder) {
  return {StampOf(folder + "/config.json"), StampOf(folder + "/model.safetensors")};
}

std::string RunIdentity(const JobSpec& job, int64_t chunk, const Model& model) {
  const FileStamp program = StampOf("/proc/self/exe");
  const Device device = model.device();
  const char* blas = std::getenv("OPENBLAS_CORETYPE");
  std::string text = absl::StrCat("--task ", Name(job.task), "\n--chunk ", chunk, "\n--device ",
                                  device.ToString(), "\n--dtype ", Name(model.dtype()), "\n");
  if (job.task == Task::kEmbed) absl::StrAppend(&text, "--window ", job.window, "\n");
  absl::StrAppend(&text, "a program of ", program.bytes, " bytes and ", program.mtime_ns, "\n",
                  device.is_gpu() ? DeviceName(device) : absl::StrCat("CPU", Processor()), " ",
                  CpuTargetName(), " ", blas == nullptr ? "" : blas, "\n");
  return text;
}

absl::StatusOr<Boundary> ExportBoundary(SequenceRunner& runner, ChunkTask& task) {
  absl::StatusOr<HostState> state = runner.ExportState();
  if (!state.ok()) return state.status();
  Boundary boundary;
  boundary.position = runner.position();
  boundary.carry.assign(task.carry().begin(), task.carry().end());
  for (size_t i = 0; i < state->size(); ++i) {
    const StateTensorSpec& spec = runner.model().state_specs()[i];
    boundary.tensors.push_back({spec.name, spec.shape, std::move((*state)[i])});
  }
  return boundary;
}

absl::Status ImportBoundary(const Boundary& boundary, SequenceRunner& runner, ChunkTask& task) {
  const std::vector<StateTensorSpec>& specs = runner.model().state_specs();
  bool same =
      specs.size() == boundary.tensors.size() && boundary.carry.size() == task.carry().size();
  HostState state;
  for (size_t i = 0; same && i < specs.size(); ++i) {
    const BoundaryTensor& tensor = boundary.tensors[i];
    same = tensor.name == specs[i].name && tensor.shape == specs[i].shape;
    state.push_back(tensor.values);
  }
  if (!same) return absl::FailedPreconditionError("its states are not those of this model");
  std::copy(boundary.carry.begin(), boundary.carry.end(), task.carry().begin());
  return runner.Resume(boundary.position, state);
}

RunResume::RunResume(std::string out, std::string model, std::vector<FileStamp> stamps,
                     double seconds)
    : path_(std::move(out) + ".resume"),
      model_(std::move(model)),
      stamps_(std::move(stamps)),
      seconds_(seconds),
      next_(Clock::now() +
            std::chrono::duration_cast<Clock::duration>(std::chrono::duration<double>(seconds))) {}

RunResume::~RunResume() { Wait(); }

absl::StatusOr<std::string> RunResume::OutputDigest(int fd, int64_t elements, Chain& chain) {
  const int64_t end = elements * static_cast<int64_t>(sizeof(float));
  if (end < chain.bytes) return absl::InternalError("the output in the making got shorter");
  std::string block(kBlock, '\0');
  while (true) {
    const int64_t wanted = std::min(kBlock, end - chain.bytes);
    for (int64_t got = 0; got < wanted;) {
      const ssize_t n =
          pread(fd, block.data() + got, wanted - got, kWrittenNpyHeader + chain.bytes + got);
      if (n < 0 && errno == EINTR) continue;
      if (n < 0) return absl::ErrnoToStatus(errno, "the output in the making");
      if (n == 0) return absl::DataLossError("the output in the making is too short");
      got += n;
    }
    Sha256 hash;
    hash.Add(chain.digest);
    hash.Add(absl::string_view(block.data(), wanted));
    const std::string digest = hash.HexDigest();
    if (wanted < kBlock) return digest;
    chain = {digest, chain.bytes + kBlock};
  }
}

absl::Status RunResume::HashModel() {
  if (!model_hash_.empty()) return absl::OkStatus();
  const absl::StatusOr<std::string> hash = ModelHash(model_);
  if (!hash.ok()) return hash.status();
  if (StampsOfModel(model_) != stamps_) {
    return absl::FailedPreconditionError(absl::StrCat(model_, " has changed since it was read"));
  }
  model_hash_ = *hash;
  return absl::OkStatus();
}

absl::StatusOr<std::optional<ResumePoint>> RunResume::Load(const std::string& identity,
                                                           const std::string& partial) {
  if (StampOf(path_).bytes < 0) return std::nullopt;
  there_ = true;
  std::ifstream file(path_, std::ios::binary);
  const std::string bytes((std::istreambuf_iterator<char>(file)), {});
  absl::StatusOr<ResumePoint> point = ParseResumePoint(bytes);
  if (!point.ok()) return point.status();
  if (point->identity != identity) {
    return absl::FailedPreconditionError(
        absl::StrCat("it is of ", Difference(point->identity, identity)));
  }
  bool whole = !point->done.empty();  // all sequences before are
  for (const ResumeSequence& sequence : point->done) {
    if (sequence.output.empty()) {
      whole = false;
      continue;
    }
    const FileStamp stamp = StampOf(sequence.output);
    if (stamp.bytes != sequence.output_bytes || stamp.mtime_ns != sequence.output_mtime_ns) {
      return absl::FailedPreconditionError(
          absl::StrCat(sequence.output, " is not what the run before had written"));
    }
  }
  absl::Status status = HashModel();
  if (status.ok()) {
    status = CheckBoundary(point->boundary, model_hash_, point->boundary.position);
  }
  if (!status.ok()) return status;
  const File output(partial);
  const absl::StatusOr<std::string> digest = OutputDigest(output.fd, point->elements, chain_);
  if (!digest.ok() || *digest != point->output_digest) {
    chain_ = {};
    if (!whole) {
      return absl::FailedPreconditionError(
          absl::StrCat(partial, " is not what the run before had written"));
    }
    point->boundary.position = point->elements = 0;
    point->boundary.tensors.clear();
    point->boundary.carry.clear();
  }
  of_this_file_ = true;
  return std::optional<ResumePoint>(*std::move(point));
}

bool RunResume::Due() {
  if (off_ || Clock::now() < next_) return false;
  return !writing_.valid() ||
         writing_.wait_for(std::chrono::seconds(0)) == std::future_status::ready;
}

void RunResume::Put(ResumePoint point, const std::string& partial, Clock::time_point began) {
  Wait();
  if (off_) return;
  of_this_file_ = point.elements > 0;
  writing_ = std::async(std::launch::async, [this, point = std::move(point), partial]() mutable {
    return Write(std::move(point), partial);
  });
  const Clock::time_point now = Clock::now();
  const auto pause =
      std::chrono::duration_cast<Clock::duration>(std::chrono::duration<double>(seconds_));
  next_ = now + std::max(pause, kShare * (now - began));
}

absl::Status RunResume::Write(ResumePoint point, const std::string& partial) {
  absl::Status status = HashModel();
  if (!status.ok()) return status;
  const File output(partial);
  if (output.fd < 0 && point.elements > 0) return absl::ErrnoToStatus(errno, partial);
  absl::StatusOr<std::string> digest = OutputDigest(output.fd, point.elements, chain_);
  if (!digest.ok()) return digest.status();
  point.output_digest = *std::move(digest);
  point.boundary.model_hash = model_hash_;
  // The output first: a point must never speak of what a loss of power may take.
  if (point.elements > 0 && fdatasync(output.fd) != 0) return absl::ErrnoToStatus(errno, partial);
  const absl::StatusOr<std::string> bytes = FormatResumePoint(point);
  if (!bytes.ok()) return bytes.status();
  absl::StatusOr<std::unique_ptr<AtomicFile>> file = AtomicFile::CreateKept(path_);
  if (file.ok()) status = (*file)->Restart(0);
  if (file.ok() && status.ok()) {
    status = (*file)->Append({reinterpret_cast<const uint8_t*>(bytes->data()), bytes->size()});
  }
  if (file.ok() && status.ok()) status = (*file)->Commit();
  return file.ok() ? status : file.status();
}

bool RunResume::Wait() {
  if (writing_.valid()) {
    const absl::Status status = writing_.get();
    if (status.ok()) {
      there_ = true;
    } else {
      std::fprintf(stderr, "longwave: if interrupted, this run cannot go on later: %s\n",
                   std::string(status.message()).c_str());
      off_ = true;
      unlink(path_.c_str());
      there_ = false;
    }
  }
  return there_;
}

bool RunResume::NextFile() {
  Wait();
  chain_ = {};
  return std::exchange(of_this_file_, false);
}

void RunResume::Remove() {
  Wait();
  if (there_) unlink(path_.c_str());
  there_ = of_this_file_ = false;
  chain_ = {};  // of an output that is begun anew, if at all
}

}  // namespace longwave
