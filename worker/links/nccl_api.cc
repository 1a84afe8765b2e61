#include "worker/links/nccl_api.h"

#include <dlfcn.h>

#include <algorithm>
#include <climits>
#include <cstdlib>
#include <iterator>
#include <type_traits>

#include "absl/strings/str_cat.h"
#include "observability/log.h"

namespace longwave {
namespace {

// As nccl.h has them.
using Result = int;
constexpr Result kSuccess = 0, kInProgress = 7;
constexpr int kInt8 = 0;
constexpr int kOldest = 21700;  // NCCL_VERSION(2, 17, 0): the first with maxCTAs

struct Id {
  char internal[128];
};

// ncclConfig_t of 2.17; later ones are longer and take this one, by its size and version.
struct Config {
  size_t size = sizeof(Config);
  unsigned magic = 0xcafebeef;
  unsigned version = kOldest;
  int blocking = 0;
  int cga_cluster_size = INT_MIN;  // undefined
  // Two blocks of threads. The GPU is there to compute: what is computed waits for as long as a
  // block has its multiprocessor, with two half as long as with one, and no less with four.
  int min_ctas = 2;
  int max_ctas = 2;
  const char* net_name = nullptr;
};
static_assert(sizeof(Config) == 40);

struct Functions {
  Result (*get_version)(int*);
  Result (*get_unique_id)(Id*);
  Result (*init)(ncclComm**, int ranks, Id, int rank, Config*);
  Result (*get_async_error)(ncclComm*, Result*);
  Result (*send)(const void*, size_t, int type, int peer, ncclComm*, CUstream_st*);
  Result (*receive)(void*, size_t, int type, int peer, ncclComm*, CUstream_st*);
  Result (*abort)(ncclComm*);
  const char* (*get_error_string)(Result);
  const char* (*get_last_error)(ncclComm*);
};

class LoadedNccl final : public NcclApi {
 public:
  LoadedNccl(const Functions& functions, int version) : f_(functions), version_(version) {}

  std::string version() const override {
    return absl::StrCat(version_ / 10000, ".", version_ / 100 % 100, ".", version_ % 100);
  }

  absl::StatusOr<NcclId> NewId() override {
    Id id;
    const absl::Status status = Check("ncclGetUniqueId", f_.get_unique_id(&id), nullptr);
    if (!status.ok()) return status;
    NcclId result;
    std::copy(std::begin(id.internal), std::end(id.internal), result.begin());
    return result;
  }

  absl::StatusOr<ncclComm*> Begin(const NcclId& id, int rank) override {
    Id raw;
    std::copy(id.begin(), id.end(), raw.internal);
    Config config;
    ncclComm* comm = nullptr;
    const absl::Status status =
        Check("ncclCommInitRankConfig", f_.init(&comm, 2, raw, rank, &config), nullptr);
    if (!status.ok()) return status;
    return comm;
  }

  absl::StatusOr<bool> Settled(ncclComm* comm) override {
    Result state = kSuccess;
    absl::Status status = Check("ncclCommGetAsyncError", f_.get_async_error(comm, &state), comm);
    if (status.ok()) status = Check("NCCL", state, comm);
    if (!status.ok()) return status;
    return state == kSuccess;
  }

  absl::Status Send(ncclComm* comm, const void* data, int64_t bytes, gpu::Queue& queue) override {
    return Check("ncclSend", f_.send(data, bytes, kInt8, kReceiver, comm, queue.stream()), comm);
  }
  absl::Status Receive(ncclComm* comm, void* data, int64_t bytes, gpu::Queue& queue) override {
    return Check("ncclRecv", f_.receive(data, bytes, kInt8, kSender, comm, queue.stream()), comm);
  }
  void Abort(ncclComm* comm) override { f_.abort(comm); }

 private:
  static constexpr int kSender = 0, kReceiver = 1;  // ranks

  absl::Status Check(const char* call, Result result, ncclComm* comm) const {
    if (result == kSuccess || result == kInProgress) return absl::OkStatus();
    const char* why = f_.get_last_error(comm);
    return absl::UnavailableError(
        absl::StrCat(call, ": ", f_.get_error_string(result), " (", result, ")",
                     why != nullptr && *why != '\0' ? absl::StrCat(": ", why) : ""));
  }

  const Functions f_;
  const int version_;
};

}  // namespace

absl::StatusOr<std::shared_ptr<NcclApi>> NcclApi::Load() {
  constexpr char kLibrary[] = "libnccl.so.2";
  // Two ranks that only send and receive have no use for NVLink's multicast.
  setenv("NCCL_NVLS_ENABLE", "0", /*overwrite=*/0);
  // Never unloaded: it has threads of its own.
  void* library = dlopen(kLibrary, RTLD_NOW | RTLD_LOCAL);
  if (library == nullptr) return absl::UnavailableError(dlerror());
  Functions f;
  std::string missing;
  const auto find = [&](auto& function, const char* name) {
    void* symbol = dlsym(library, name);
    if (symbol == nullptr) missing = name;
    function = reinterpret_cast<std::remove_reference_t<decltype(function)>>(symbol);
  };
  find(f.get_version, "ncclGetVersion");
  find(f.get_unique_id, "ncclGetUniqueId");
  find(f.init, "ncclCommInitRankConfig");
  find(f.get_async_error, "ncclCommGetAsyncError");
  find(f.send, "ncclSend");
  find(f.receive, "ncclRecv");
  find(f.abort, "ncclCommAbort");
  find(f.get_error_string, "ncclGetErrorString");
  find(f.get_last_error, "ncclGetLastError");
  if (!missing.empty()) {
    return absl::UnavailableError(absl::StrCat(kLibrary, " has no ", missing));
  }
  int version = 0;
  if (f.get_version(&version) != kSuccess || version < kOldest) {
    return absl::UnavailableError(absl::StrCat(kLibrary, " is of version ", version, "; ", kOldest,
                                               " (2.17) or later needed"));
  }
  return std::make_shared<LoadedNccl>(f, version);
}

absl::StatusOr<std::shared_ptr<NcclApi>> ChooseCollective(const std::string& collective,
                                                          Device device) {
  if (collective != "nccl" && collective != "zmq" && collective != "auto") {
    return absl::InvalidArgumentError(
        absl::StrCat("--collective ", collective, ": must be nccl, zmq or auto"));
  }
  const bool wanted = collective == "nccl";
  if (collective == "zmq" || (!wanted && !device.is_gpu())) return nullptr;
  if (!device.is_gpu()) {
    return absl::InvalidArgumentError(
        absl::StrCat("--collective nccl: joins GPUs, and the device is ", device.ToString()));
  }
  absl::StatusOr<std::shared_ptr<NcclApi>> api = NcclApi::Load();
  if (api.ok()) {
    log::Info("states pass over NCCL where both sides have it", {{"version", (*api)->version()}});
    return api;
  }
  if (wanted) {
    return absl::UnavailableError(absl::StrCat("--collective nccl: ", api.status().message()));
  }
  log::Info("states pass over ZeroMQ: there is no NCCL", {{"error", api.status().message()}});
  return nullptr;
}

}  // namespace longwave
