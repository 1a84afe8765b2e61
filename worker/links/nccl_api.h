// The part of NCCL that links use: communicators of two ranks, one of which sends and the other
// receives. NCCL is loaded when the program runs, so that the same program does without it where it
// is not; tests put something else in its place.
//
// Communicators are non-blocking: a call only begins what it is named for, Settled() tells when it
// is under way. Until then nothing else may be begun on the same communicator.
//
// Errors: Unavailable, with NCCL's own words.
// Thread safety: the table is safe; a communicator belongs to one thread.
#pragma once

#include <array>
#include <cstdint>
#include <memory>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "kernels/gpu/queue.h"
#include "kernels/stream.h"

struct ncclComm;  // ncclComm_t is a pointer to it

namespace longwave {

using NcclId = std::array<char, 128>;  // what the ranks of one communicator have in common

class NcclApi {
 public:
  // libnccl.so.2, as the loader finds it; 2.17 or later.
  static absl::StatusOr<std::shared_ptr<NcclApi>> Load();
  virtual ~NcclApi() = default;

  virtual std::string version() const = 0;  // "2.28.3"
  virtual absl::StatusOr<NcclId> NewId() = 0;
  // A communicator of two ranks. REQUIRES: a gpu::Queue was opened on this thread; its device is
  // the rank's.
  virtual absl::StatusOr<ncclComm*> Begin(const NcclId& id, int rank) = 0;
  // Whether what was begun is under way; an error too where the communicator has broken since.
  virtual absl::StatusOr<bool> Settled(ncclComm* comm) = 0;
  // Device memory, to and from the other rank.
  virtual absl::Status Send(ncclComm* comm, const void* data, int64_t bytes, gpu::Queue& queue) = 0;
  virtual absl::Status Receive(ncclComm* comm, void* data, int64_t bytes, gpu::Queue& queue) = 0;
  // Ends whatever is under way, on the GPU too, without the other rank.
  virtual void Abort(ncclComm* comm) = 0;
};

// What `--collective` says: null for zmq, and for auto where NCCL or the GPU is missing, which one
// line of the log says. InvalidArgument for another word, and for nccl without a GPU; Unavailable
// for nccl where it cannot be loaded.
absl::StatusOr<std::shared_ptr<NcclApi>> ChooseCollective(const std::string& collective,
                                                          Device device);

}  // namespace longwave
