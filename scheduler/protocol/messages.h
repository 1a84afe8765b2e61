// What scheduler and workers say to each other, and its bytes; docs/protocol.md has the grammar.
// Whatever is about a chunk names it by ChunkKey: job, chunk and epoch.
//
// Thread safety: plain data and pure functions.
#pragma once

#include <cstdint>
#include <string>
#include <variant>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "scheduler/job_store.h"

namespace longwave {

inline constexpr uint16_t kProtocolVersion = 1;
inline constexpr int64_t kMaxMessageBytes = 1 << 20;

// Worker to scheduler.
struct Hello {
  uint16_t version = kProtocolVersion;
  std::string device;
  bool operator==(const Hello&) const = default;
};
struct Ready {  // idle; the tokens of a chunk may take so many bytes
  int64_t credit_bytes = 0;
  bool operator==(const Ready&) const = default;
};
struct Progress {  // at work on it
  ChunkKey key;
  bool operator==(const Progress&) const = default;
};
struct Done {  // output and boundary are in the object store
  ChunkKey key;
  int64_t output_bytes = 0;
  std::string output_sha256, boundary_sha256;
  bool operator==(const Done&) const = default;
};
struct Failed {
  ChunkKey key;
  bool final = false;  // it would fail elsewhere too
  std::string error;
  bool operator==(const Failed&) const = default;
};
struct HandBack {  // not computed
  ChunkKey key;
  bool operator==(const HandBack&) const = default;
};
struct Goodbye {
  bool operator==(const Goodbye&) const = default;
};

// Scheduler to worker.
struct Welcome {
  std::string objects;  // the object store's URI
  std::string models;   // the folder of model folders
  int64_t heartbeat_ms = 0;
  int64_t lease_ms = 0;
  bool operator==(const Welcome&) const = default;
};
struct Assign {
  ChunkKey key;
  int64_t boundary_epoch = 0;  // the boundary in is of chunk key.chunk - 1; 0: none, the start
  std::string model, model_hash;
  uint8_t task = 0;  // of enum Task
  int64_t chunk_tokens = 0, window = 0, max_logits_bytes = 0;
  int64_t length = 0;  // of the sequence
  uint8_t token_bytes = 0;
  bool operator==(const Assign&) const = default;
};
struct Committed {
  ChunkKey key;
  bool operator==(const Committed&) const = default;
};
struct Dropped {  // the chunk is the worker's no longer
  ChunkKey key;
  std::string reason;
  bool operator==(const Dropped&) const = default;
};
struct Unknown {  // say Hello: the scheduler does not know this worker
  bool operator==(const Unknown&) const = default;
};
struct Drain {  // finish the chunk, then leave
  bool operator==(const Drain&) const = default;
};

// The order is that of the type's number on the wire.
using Message = std::variant<Hello, Ready, Progress, Done, Failed, HandBack, Goodbye, Welcome,
                             Assign, Committed, Dropped, Unknown, Drain>;

std::string Encode(const Message& message);
// InvalidArgument: the bytes are no message of this protocol.
absl::StatusOr<Message> Decode(absl::string_view bytes);
const char* Name(const Message& message);  // "Hello"

// Names in the object store.
std::string JobFolder(const std::string& job);     // "jobs/ID"
std::string TokensName(const std::string& job);    // "jobs/ID/tokens"
std::string ManifestName(const std::string& job);  // "jobs/ID/manifest.json"
std::string OutputName(const std::string& job, int64_t epoch, int64_t chunk);  // ".../E/C.output"
std::string BoundaryName(const std::string& job, int64_t epoch,
                         int64_t chunk);  // ".../E/C.boundary"

}  // namespace longwave
