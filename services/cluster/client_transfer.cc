#include "services/cluster/client_transfer.h"

#include <fcntl.h>
#include <unistd.h>

#include <cerrno>
#include <chrono>
#include <memory>
#include <thread>
#include <utility>

#include "absl/functional/function_ref.h"
#include "absl/strings/str_cat.h"
#include "formats/atomic_file.h"
#include "formats/byte_source.h"
#include "formats/npy.h"
#include "formats/sha256.h"
#include "services/cluster/client_session.h"
#include "services/signals.h"

namespace longwave {
namespace {

constexpr int64_t kBlock = 256 << 10;
constexpr int kUploads = 5;  // tries

// The name of the upload: see docs/formats.md, "Which format".
absl::StatusOr<std::string> NameFor(const std::string& input, InputFormat format) {
  const std::string name = input == "-" ? "stdin" : input.substr(input.rfind('/') + 1);
  switch (format) {
    case InputFormat::kAuto:
      return input == "-" ? "" : name;
    case InputFormat::kBytes:
      return name + ".txt";
    case InputFormat::kFasta:
      return name + ".fa";
    case InputFormat::kNpy:
      break;
  }
  // A server finds out by itself; that it will find the same is seen here.
  if (input != "-") {
    const absl::StatusOr<std::unique_ptr<ByteSource>> source = ByteSource::Open(input);
    if (!source.ok()) return source.status();
    const absl::StatusOr<absl::Span<const uint8_t>> start = (*source)->Peek(16);
    if (!start.ok()) return start.status();
    if (!StartsWithNpyMagic(*start)) {
      return absl::InvalidArgumentError(absl::StrCat(input, ": is no npy file"));
    }
  }
  return name + ".npy";
}

class Input {
 public:
  explicit Input(const std::string& path)
      : path_(path), fd_(path == "-" ? STDIN_FILENO : open(path.c_str(), O_RDONLY | O_CLOEXEC)) {}
  ~Input() {
    if (fd_ > STDIN_FILENO) close(fd_);
  }
  Input(const Input&) = delete;
  Input& operator=(const Input&) = delete;

  absl::Status status() const {
    return fd_ >= 0 ? absl::OkStatus() : absl::ErrnoToStatus(errno, path_);
  }
  bool Rewind() { return lseek(fd_, 0, SEEK_SET) == 0; }
  absl::StatusOr<std::string> Next() {
    std::string block(kBlock, '\0');
    ssize_t got = 0;
    do {
      got = read(fd_, block.data(), block.size());
    } while (got < 0 && errno == EINTR && StopSignal() == 0);
    absl::Status stop = CheckStop();
    if (!stop.ok()) return stop;
    if (got < 0) return absl::ErrnoToStatus(errno, path_);
    block.resize(got);
    return block;
  }

 private:
  const std::string path_;
  const int fd_;
};

// Uploads what `next` gives, block by block until an empty one; `rewind`: to begin again, if that
// can be. `what`: it, for messages.
absl::StatusOr<std::string> Send(HttpClient& client, const std::string& name,
                                 const std::string& what, const HttpClient::BodyFn& next,
                                 absl::FunctionRef<bool()> rewind) {
  for (int attempt = 1;; ++attempt) {
    Sha256 hash;
    const auto body = [&]() -> absl::StatusOr<std::string> {
      absl::StatusOr<std::string> block = next();
      if (block.ok()) hash.Add(*block);
      return block;
    };
    const absl::StatusOr<boost::json::object> file =
        Object(client.Upload(absl::StrCat("/v1/files?name=", EscapeForUrl(name)), body));
    if (file.ok()) {
      const std::string sent = hash.HexDigest(), arrived = Text(*file, "sha256");
      if (arrived == sent) return Text(*file, "id");
      return absl::DataLossError(
          absl::StrCat(what, ": ", sent, " was sent, the server has ", arrived));
    }
    if (!absl::IsUnavailable(file.status()) || attempt == kUploads || !rewind()) {
      return file.status();
    }
    std::this_thread::sleep_for(std::chrono::milliseconds(200 << attempt));
  }
}

}  // namespace

absl::StatusOr<std::string> UploadInput(HttpClient& client, const std::string& input,
                                        InputFormat format) {
  const absl::StatusOr<std::string> name = NameFor(input, format);
  if (!name.ok()) return name.status();
  Input source(input);
  if (!source.status().ok()) return source.status();
  return Send(
      client, *name, input, [&] { return source.Next(); }, [&] { return source.Rewind(); });
}

absl::StatusOr<std::string> UploadText(HttpClient& client, const std::string& name,
                                       const std::string& text) {
  bool sent = false;
  return Send(
      client, name + ".txt", name,
      [&]() -> absl::StatusOr<std::string> { return std::exchange(sent, true) ? "" : text; },
      [&] {
        sent = false;
        return true;
      });
}

namespace {

absl::Status Fetch(HttpClient& client, const std::string& target, const std::string& out,
                   absl::FunctionRef<absl::StatusOr<std::string>(absl::string_view)> convert) {
  absl::StatusOr<std::unique_ptr<AtomicFile>> file = AtomicFile::Create(out);
  if (!file.ok()) return file.status();
  absl::Status status = client.Download(target, [&](absl::string_view bytes) {
    absl::Status stop = CheckStop();
    if (!stop.ok()) return stop;
    const absl::StatusOr<std::string> made = convert(bytes);
    if (!made.ok()) return made.status();
    return (*file)->Append({reinterpret_cast<const uint8_t*>(made->data()), made->size()});
  });
  return status.ok() ? (*file)->Commit() : status;
}

}  // namespace

absl::Status FetchFile(HttpClient& client, const std::string& target, const std::string& out) {
  return Fetch(client, target, out, [](absl::string_view bytes) { return std::string(bytes); });
}

absl::Status FetchBytes(HttpClient& client, const std::string& target, const std::string& out) {
  int64_t at = -kWrittenNpyHeader;  // of the ids, which are little endian int32
  return Fetch(client, target, out, [&](absl::string_view bytes) -> absl::StatusOr<std::string> {
    std::string text;
    for (const char byte : bytes) {
      if (at >= 0 && at % 4 == 0) text.push_back(byte);
      if (at >= 0 && at % 4 != 0 && byte != 0) {
        return absl::DataLossError(absl::StrCat(target, ": token ", at / 4, " is not a byte"));
      }
      ++at;
    }
    return text;
  });
}

}  // namespace longwave
