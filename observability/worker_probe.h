// What a worker (`longwave worker`) measures. docs/metrics.md has every name, unit and meaning.
//
// Thread safety: safe. Lifetime: those who have a probe are outlived by it.
#pragma once

#include <cstdint>
#include <memory>
#include <string>

#include "absl/strings/string_view.h"
#include "observability/request_probe.h"

namespace longwave {

// How states pass between chunks.
enum class Link { kProcess, kZmq, kNccl };
const char* Name(Link link);  // "process"

class WorkerProbe {
 public:
  explicit WorkerProbe(absl::string_view device);
  ~WorkerProbe();

  // A chunk computed, with output and boundary in the object store; `seconds` of all of that.
  void ChunkComputed(int64_t tokens, double seconds);
  void ChunkFailed();
  void ChunkDropped();  // its result was refused, or it was taken back

  void StateSent(Link link, int64_t bytes);
  void StateReceived(Link link, int64_t bytes);
  // From the moment a chunk needed a tensor to the moment it had it.
  void StateLatency(Link link, double seconds);
  void LinkFailed(Link link);  // it was given up for this chunk or epoch
  // The states came from the boundary in the object store and not over a link.
  void StateFromStore();

  void BoundaryWritten(double seconds, int64_t bytes);
  // A chunk's boundary, or its output before that, could not be written.
  void BoundaryFailed();
  void BoundaryRead(double seconds, int64_t bytes);
  void OutputWritten(double seconds, int64_t bytes);

  void DeviceHealth(bool healthy);
  void Connected(bool connected);  // a server that leads knows this worker

  RequestProbe& objects() const;

  // What was said last: for /healthz and /readyz.
  bool healthy() const;
  bool connected() const;
  std::string Text() const;  // see ServerProbe::Text()

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace longwave
