#include "scheduler/protocol/messages.h"

#include <array>
#include <type_traits>
#include <utility>

#include "absl/strings/str_cat.h"
#include "formats/byte_codec.h"

namespace longwave {
namespace {

constexpr uint8_t kMagic = 0x4c;  // 'L'
constexpr const char* kNames[] = {"Hello",   "Report",  "Done",   "Failed",        "HandBack",
                                  "Goodbye", "Welcome", "Assign", "BoundaryReady", "Committed",
                                  "Dropped", "Unknown", "Drain",  "Redirect"};

// Each message's fields in the order of the wire; Writer and Reader go through the same list.
template <typename Codec>
void Fields(Codec& c, Hello& m) {
  c(m.version), c(m.device), c(m.links), c(m.age_ms), c(m.uid);
}
template <typename Codec>
void Fields(Codec& c, Report& m) {
  c(m.slots), c(m.credit_bytes), c(m.held);
}
template <typename Codec>
void Fields(Codec& c, Done& m) {
  c(m.key), c(m.output_bytes), c(m.output_sha256), c(m.boundary_sha256);
  c(m.busy_us);
}
template <typename Codec>
void Fields(Codec& c, Failed& m) {
  c(m.key), c(m.final), c(m.error);
}
template <typename Codec>
void Fields(Codec& c, HandBack& m) {
  c(m.key);
}
template <typename Codec>
void Fields(Codec& c, Goodbye& m) {
  c(m.device_failed);
}
template <typename Codec>
void Fields(Codec& c, Welcome& m) {
  c(m.objects), c(m.models), c(m.heartbeat_ms), c(m.lease_ms);
}
template <typename Codec>
void Fields(Codec& c, Assign& m) {
  c(m.key), c(m.boundary), c(m.before), c(m.before_links), c(m.model), c(m.model_hash), c(m.task);
  c(m.window), c(m.max_logits_bytes), c(m.sampling), c(m.chunk_tokens), c(m.first), c(m.tokens);
  c(m.length), c(m.given), c(m.first_token), c(m.start_position), c(m.token_bytes), c(m.serial);
  c(m.trace), c(m.last);
}
template <typename Codec>
void Fields(Codec& c, BoundaryReady& m) {
  c(m.key), c(m.boundary);
}
template <typename Codec>
void Fields(Codec& c, Committed& m) {
  c(m.key);
}
template <typename Codec>
void Fields(Codec& c, Dropped& m) {
  c(m.key), c(m.reason);
}
template <typename Codec>
void Fields(Codec&, Unknown&) {}
template <typename Codec>
void Fields(Codec&, Drain&) {}
template <typename Codec>
void Fields(Codec& c, Redirect& m) {
  c(m.endpoint);
}

struct Writer {
  ByteWriter out;
  void operator()(const std::string& text) { out.PutString(text); }
  void operator()(bool flag) { out.Put(static_cast<uint8_t>(flag)); }
  void operator()(const ChunkKey& key) { (*this)(key.job), (*this)(key.chunk), (*this)(key.epoch); }
  void operator()(const BoundaryObject& object) { (*this)(object.name), (*this)(object.sha256); }
  void operator()(const std::vector<ChunkKey>& keys) {
    out.Put(static_cast<uint16_t>(keys.size()));
    for (const ChunkKey& key : keys) (*this)(key);
  }
  template <std::integral T>
  void operator()(T number) {
    out.Put(number);
  }
};

struct Reader {
  ByteReader in;
  bool good = true;  // flags are 0 or 1, numbers not negative
  void operator()(std::string& text) { text = in.GetString(); }
  void operator()(bool& flag) {
    const uint8_t byte = in.Get<uint8_t>();
    good = good && byte <= 1;
    flag = byte == 1;
  }
  void operator()(ChunkKey& key) { (*this)(key.job), (*this)(key.chunk), (*this)(key.epoch); }
  void operator()(BoundaryObject& object) { (*this)(object.name), (*this)(object.sha256); }
  void operator()(std::vector<ChunkKey>& keys) {
    const auto count = in.Get<uint16_t>();
    good = good && count <= kMostSlots;
    for (int i = 0; good && !in.failed() && i < count; ++i) (*this)(keys.emplace_back());
  }
  template <std::integral T>
  void operator()(T& number) {
    number = in.Get<T>();
    good = good && number >= 0;
  }
};

template <size_t... kTypes>
Message Empty(size_t type, std::index_sequence<kTypes...>) {
  Message message;
  (void)((type == kTypes && (message.emplace<kTypes>(), true)) || ...);
  return message;
}

absl::Status Bad(absl::string_view what) {
  return absl::InvalidArgumentError(absl::StrCat("not a message: ", what));
}

}  // namespace

const char* Name(const Message& message) { return kNames[message.index()]; }

std::string Encode(const Message& message) {
  Writer writer;
  writer.out.Put(kMagic);
  writer.out.Put(static_cast<uint8_t>(message.index()));
  std::visit([&](auto fields) { Fields(writer, fields); }, message);
  return writer.out.Take();
}

absl::StatusOr<Message> Decode(absl::string_view bytes) {
  if (static_cast<int64_t>(bytes.size()) > kMaxMessageBytes) {
    return Bad(absl::StrCat(bytes.size(), " bytes"));
  }
  Reader reader{ByteReader(bytes)};
  const uint8_t magic = reader.in.Get<uint8_t>(), type = reader.in.Get<uint8_t>();
  if (magic != kMagic || type >= std::variant_size_v<Message>) {
    return Bad(absl::StrCat("it begins with ", magic, " and type ", type));
  }
  Message message = Empty(type, std::make_index_sequence<std::variant_size_v<Message>>());
  std::visit([&](auto& fields) { Fields(reader, fields); }, message);
  const absl::Status whole = reader.in.Finish();
  if (!whole.ok()) return Bad(absl::StrCat(Name(message), ": ", whole.message()));
  if (!reader.good) return Bad(absl::StrCat(Name(message), ": a number out of its range"));
  return message;
}

std::string StreamName(const ChunkKey& key) {
  return absl::StrCat(key.job, "/", key.epoch, "/", key.chunk);
}
std::string FileName(const std::string& id) { return absl::StrCat("files/", id); }
std::string JobFolder(const std::string& job) { return absl::StrCat("jobs/", job); }
std::string TokensName(const std::string& job) { return absl::StrCat("jobs/", job, "/tokens"); }
std::string ManifestName(const std::string& job) {
  return absl::StrCat("jobs/", job, "/manifest.json");
}
std::string OutputName(const std::string& job, int64_t epoch, int64_t chunk) {
  return absl::StrCat("jobs/", job, "/", epoch, "/", chunk, ".output");
}
std::string TraceName(const std::string& job, int64_t epoch, int64_t chunk) {
  return absl::StrCat("jobs/", job, "/", epoch, "/", chunk, ".trace");
}
std::string BoundaryName(const std::string& job, int64_t epoch, int64_t chunk) {
  return absl::StrCat("jobs/", job, "/", epoch, "/", chunk, ".boundary");
}
std::string CachesName(const std::string& boundary) { return boundary + ".caches"; }

}  // namespace longwave
