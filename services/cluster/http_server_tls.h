// The certificate and key of the HTTP listener, read again when their files change.
//
// Thread safety: safe.
#pragma once

#include <boost/asio/ssl/context.hpp>
#include <chrono>
#include <memory>
#include <mutex>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

namespace longwave {

class TlsFiles {
 public:
  // PEM files: the certificate with what leads to its root, and its key. Errors name the file.
  static absl::StatusOr<std::unique_ptr<TlsFiles>> Open(const std::string& cert,
                                                        const std::string& key);

  // For a new connection. Looks at the files at most once a second.
  std::shared_ptr<boost::asio::ssl::context> Current();
  // Looks now. Where the files cannot be used the context stays as it was.
  absl::Status Reload();

 private:
  TlsFiles(const std::string& cert, const std::string& key) : cert_(cert), key_(key) {}
  absl::Status ReloadLocked();
  std::string Stamp() const;

  const std::string cert_, key_;
  std::mutex mutex_;
  std::shared_ptr<boost::asio::ssl::context> context_;
  std::string stamp_;
  std::chrono::steady_clock::time_point looked_;
};

}  // namespace longwave
