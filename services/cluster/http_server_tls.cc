#include "services/cluster/http_server_tls.h"

#include <openssl/err.h>
#include <openssl/ssl.h>
#include <openssl/x509err.h>
#include <sys/stat.h>

#include <cstdio>

#include "absl/strings/str_cat.h"

namespace longwave {
namespace {

namespace ssl = boost::asio::ssl;

constexpr auto kLook = std::chrono::seconds(1);

absl::StatusOr<std::shared_ptr<ssl::context>> Load(const std::string& cert,
                                                   const std::string& key) {
  auto context = std::make_shared<ssl::context>(ssl::context::tls_server);
  SSL_CTX_set_min_proto_version(context->native_handle(), TLS1_2_VERSION);
  context->set_options(ssl::context::default_workarounds | SSL_OP_NO_RENEGOTIATION |
                       SSL_OP_CIPHER_SERVER_PREFERENCE);
  boost::system::error_code code;
  context->use_certificate_chain_file(cert, code);
  if (code)
    return absl::InvalidArgumentError(absl::StrCat("--tls-cert ", cert, ": ", code.message()));
  context->use_private_key_file(key, ssl::context::pem, code);
  const bool other = code && ERR_GET_REASON(static_cast<unsigned long>(code.value())) ==
                                 X509_R_KEY_VALUES_MISMATCH;
  if (code && !other) {
    return absl::InvalidArgumentError(absl::StrCat("--tls-key ", key, ": ", code.message()));
  }
  if (other || SSL_CTX_check_private_key(context->native_handle()) != 1) {
    return absl::InvalidArgumentError(
        absl::StrCat("--tls-key ", key, ": is not the key of --tls-cert ", cert));
  }
  return context;
}

}  // namespace

absl::StatusOr<std::unique_ptr<TlsFiles>> TlsFiles::Open(const std::string& cert,
                                                         const std::string& key) {
  std::unique_ptr<TlsFiles> files(new TlsFiles(cert, key));
  absl::Status loaded = files->Reload();
  if (!loaded.ok()) return loaded;
  return files;
}

std::string TlsFiles::Stamp() const {
  std::string stamp;
  for (const std::string& file : {cert_, key_}) {
    struct stat info = {};
    if (stat(file.c_str(), &info) != 0) continue;
    absl::StrAppend(&stamp, info.st_dev, " ", info.st_ino, " ", info.st_size, " ",
                    info.st_mtim.tv_sec, ".", info.st_mtim.tv_nsec, " ");
  }
  return stamp;
}

absl::Status TlsFiles::ReloadLocked() {
  looked_ = std::chrono::steady_clock::now();
  std::string stamp = Stamp();
  absl::StatusOr<std::shared_ptr<ssl::context>> loaded = Load(cert_, key_);
  if (!loaded.ok()) return loaded.status();
  context_ = *std::move(loaded);
  stamp_ = std::move(stamp);  // of before the files were read: a later change is seen
  return absl::OkStatus();
}

absl::Status TlsFiles::Reload() {
  const std::lock_guard<std::mutex> lock(mutex_);
  return ReloadLocked();
}

std::shared_ptr<ssl::context> TlsFiles::Current() {
  const std::lock_guard<std::mutex> lock(mutex_);
  const auto now = std::chrono::steady_clock::now();
  if (now - looked_ >= kLook && Stamp() != stamp_) {
    const absl::Status loaded = ReloadLocked();
    if (!loaded.ok()) {
      std::fprintf(stderr, "longwave: %s; the certificate of before stays\n",
                   std::string(loaded.message()).c_str());
    }
  }
  return context_;
}

}  // namespace longwave
