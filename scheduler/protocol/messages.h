// What scheduler and workers say to each other, and its bytes; docs/protocol.md has the grammar.
// Whatever is about a chunk names it by ChunkKey: job, chunk and epoch.
//
// Thread safety: plain data and pure functions.
#pragma once

#include <cstdint>
#include <string>
#include <variant>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "scheduler/job_store.h"

namespace longwave {

inline constexpr uint16_t kProtocolVersion = 3;
inline constexpr int64_t kMaxMessageBytes = 1 << 20;
inline constexpr int64_t kMostSlots = 1024;  // chunks that a worker may hold

// Worker to scheduler.
struct Hello {
  uint16_t version = kProtocolVersion;
  std::string device;
  std::string links;     // where others reach its Exchange; empty: it takes part in no links
  int64_t age_ms = 0;    // of its process
  std::string uid = {};  // of its pod; see RemovalRank
  bool operator==(const Hello&) const = default;
};
struct Report {                // how it is with the worker, all of it; also the heartbeat
  int64_t slots = 0;           // chunks that it takes at a time, in work and queued; 0: it leaves
  int64_t credit_bytes = 0;    // the tokens of a chunk may take so many bytes
  std::vector<ChunkKey> held;  // in work, queued, or done and not answered
  bool operator==(const Report&) const = default;
};
struct Done {  // output and boundary are in the object store; no boundary: its sha256 is empty
  ChunkKey key;
  int64_t output_bytes = 0;
  std::string output_sha256, boundary_sha256;
  int64_t busy_us = 0;  // that the worker was at it
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
  bool device_failed = false;  // it ends because of that
  bool operator==(const Goodbye&) const = default;
};

// Scheduler to worker.
struct BoundaryObject {
  std::string name;    // in the object store; empty: none
  std::string sha256;  // that its content must have; empty: known to nobody
  bool operator==(const BoundaryObject&) const = default;
};
struct Welcome {
  std::string objects;  // the object store's URI
  std::string models;   // the folder of model folders
  int64_t heartbeat_ms = 0;
  int64_t lease_ms = 0;
  bool operator==(const Welcome&) const = default;
};
struct Assign {
  ChunkKey key;
  // Where the chunk starts from: an object, where it is committed; else the stream of the chunk
  // before it and who publishes it, until BoundaryReady; neither: the zero state.
  BoundaryObject boundary;
  std::string before, before_links;
  std::string model, model_hash;
  uint8_t task = 0;  // of enum Task
  int64_t window = 0, max_logits_bytes = 0;
  std::string sampling = {};  // generate: see FormatSampling()
  int64_t chunk_tokens = 0;   // the most that a chunk of the job has
  // The chunk's tokens are [first, first + tokens) of its sequence's `length`. The first `given` of
  // these stand in the job's token file, from `first_token` on; generate makes the others.
  int64_t first = 0, tokens = 0, length = 0, given = 0, first_token = 0;
  int64_t start_position = 0;  // tokens that were before the sequence
  int64_t token_bytes = 0;     // of one in the file: 1 or 4; transform: of a row
  bool serial = false;         // all of the chunk before is wanted, and no link
  bool trace = false;          // write down what is done when, as TraceName()
  bool last = false;           // nothing goes on after the chunk: its boundary is not written
  bool operator==(const Assign&) const = default;
};
struct BoundaryReady {  // the chunk before `key` is committed; its boundary is this object
  ChunkKey key;
  BoundaryObject boundary;
  bool operator==(const BoundaryReady&) const = default;
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
struct Drain {  // finish the chunk in work, then leave this server
  bool operator==(const Drain&) const = default;
};
struct Redirect {  // another server leads: connect there
  std::string endpoint;
  bool operator==(const Redirect&) const = default;
};

// The order is that of the type's number on the wire.
using Message = std::variant<Hello, Report, Done, Failed, HandBack, Goodbye, Welcome, Assign,
                             BoundaryReady, Committed, Dropped, Unknown, Drain, Redirect>;

std::string Encode(const Message& message);
// InvalidArgument: the bytes are no message of this protocol.
absl::StatusOr<Message> Decode(absl::string_view bytes);
const char* Name(const Message& message);  // "Hello"

// The stream of what a chunk hands on while it is computed: "JOB/EPOCH/CHUNK".
std::string StreamName(const ChunkKey& key);
// Names in the object store.
std::string FileName(const std::string& id);       // of an upload
std::string JobFolder(const std::string& job);     // "jobs/ID"
std::string TokensName(const std::string& job);    // "jobs/ID/tokens"
std::string ManifestName(const std::string& job);  // "jobs/ID/manifest.json"
std::string OutputName(const std::string& job, int64_t epoch, int64_t chunk);  // ".../E/C.output"
std::string TraceName(const std::string& job, int64_t epoch, int64_t chunk);   // ".../E/C.trace"
std::string BoundaryName(const std::string& job, int64_t epoch,
                         int64_t chunk);  // ".../E/C.boundary"
// What the chunk of a boundary added to attention's caches: ".../E/C.boundary.caches".
std::string CachesName(const std::string& boundary);

}  // namespace longwave
