// What a client may write into a connection: any bytes, to a session of the HTTP listener over a
// real socket. Whatever it answers is HTTP, and what it was sent leaves nothing behind but files.
#include <sys/socket.h>
#include <unistd.h>

#include <boost/asio/detached.hpp>
#include <boost/asio/io_context.hpp>
#include <cstdlib>
#include <filesystem>
#include <string>

#include "scheduler/protocol/messages.h"
#include "services/cluster/http_server_session.h"
#include "tests/fuzz/fuzz_check.h"

namespace longwave {
namespace {

namespace asio = boost::asio;
using asio::ip::tcp;

// A server without models: no job and no session can be made, so no answer waits for one.
class Fuzzed {
 public:
  Fuzzed() {
    char folder[] = "/tmp/fuzz_http_XXXXXX";
    FUZZ_CHECK(mkdtemp(folder) != nullptr);
    folder_ = folder;
    std::filesystem::create_directories(folder_ + "/models");
    jobs_ = *JobStore::Open(*OpenSqlite(":memory:"));
    tokens_ = std::make_unique<TokenStore>(jobs_->database());
    sessions_ = std::make_unique<SessionStore>(jobs_->database());
    objects_ = *ObjectStore::Open("file://" + folder_ + "/objects");
    models_ = std::make_unique<ModelCatalog>(folder_ + "/models");
    api_ = std::make_unique<Api>(Api::Stores{*jobs_, *tokens_, *sessions_, *objects_, *models_},
                                 Authenticator::Options{});
  }
  const std::string& folder() const { return folder_; }

  // All that a client gets that writes `bytes` and then no more.
  std::string Converse(const std::string& bytes) {
    int ends[2];
    FUZZ_CHECK(socketpair(AF_UNIX, SOCK_STREAM, 0, ends) == 0);
    FUZZ_CHECK(write(ends[1], bytes.data(), bytes.size()) == static_cast<ssize_t>(bytes.size()));
    FUZZ_CHECK(shutdown(ends[1], SHUT_WR) == 0);
    asio::io_context context;
    asio::co_spawn(context, Serve(tcp::socket(context, tcp::v4(), ends[0])), asio::detached);
    std::string answer;
    char block[65536];
    const auto drain = [&] {  // so that what answers never waits
      ssize_t got = 0;
      while ((got = recv(ends[1], block, sizeof(block), MSG_DONTWAIT)) > 0) {
        answer.append(block, got);
      }
    };
    while (context.run_one() > 0) drain();
    drain();
    close(ends[1]);
    return answer;
  }

  void RemoveFiles() {
    const absl::StatusOr<std::vector<StoredFile>> files = jobs_->ListFiles("", INT64_MAX, 100);
    FUZZ_CHECK(files.ok());
    for (const StoredFile& file : *files) {
      FUZZ_CHECK(jobs_->DeleteFile(file.id).ok());
      FUZZ_CHECK(objects_->Delete(FileName(file.id)).ok());
    }
    // An upload that was cut short has gone with its connection.
    const absl::StatusOr<std::vector<PartialObject>> partial = objects_->ListPartial("files");
    FUZZ_CHECK(partial.ok() && partial->empty());
  }

 private:
  asio::awaitable<void> Serve(tcp::socket socket) {
    const SessionContext shared{
        *api_, *objects_, handlers_, handlers_, stopping_, streams_, std::chrono::seconds(5)};
    HttpSession<tcp::socket> session(std::move(socket), shared);
    co_await session.Run();
  }

  std::string folder_;
  std::unique_ptr<JobStore> jobs_;
  std::unique_ptr<TokenStore> tokens_;
  std::unique_ptr<SessionStore> sessions_;
  std::unique_ptr<ObjectStore> objects_;
  std::unique_ptr<ModelCatalog> models_;
  std::unique_ptr<Api> api_;
  asio::thread_pool handlers_{1};
  std::atomic<bool> stopping_ = false;
  std::atomic<int64_t> streams_ = HttpServer::kMostStreams;  // no more of them: they do not end
};

}  // namespace
}  // namespace longwave

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace longwave;
  static auto* fuzzed = new Fuzzed();  // its thread ends with the process, after OpenSSL's end
  static const int removes = std::atexit([] { std::filesystem::remove_all(fuzzed->folder()); });
  FUZZ_CHECK(removes == 0);
  if (size > 65536) return 0;  // the socket's buffer takes it at once
  const std::string answer =
      fuzzed->Converse(std::string(reinterpret_cast<const char*>(data), size));
  FUZZ_CHECK(answer.empty() || answer.rfind("HTTP/1.", 0) == 0);
  FUZZ_CHECK(answer.find(" 500 ") > 20);
  fuzzed->RemoveFiles();
  return 0;
}
