#include "scheduler/s3/client.h"

#include <curl/curl.h>

#include <algorithm>
#include <array>
#include <chrono>
#include <cmath>
#include <mutex>
#include <random>
#include <thread>

#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/strip.h"
#include "formats/sha256.h"
#include "scheduler/s3/xml.h"

namespace longwave {
namespace {

using Clock = std::chrono::steady_clock;
using std::chrono::milliseconds;

constexpr size_t kMostErrorBody = 64 << 10;
constexpr size_t kMostHeaders = 64 << 10;
constexpr size_t kMostMessage = 300;

template <size_t N>
bool IsOneOf(absl::string_view code, const std::array<absl::string_view, N>& codes) {
  return std::find(codes.begin(), codes.end(), code) != codes.end();
}

// S3's codes that matter, beyond what the HTTP status says.
constexpr std::array<absl::string_view, 10> kTryAgain = {
    "InternalError",      "SlowDown",
    "ServiceUnavailable", "RequestTimeout",
    "OperationAborted",   "BadDigest",
    "IncompleteBody",     "XAmzContentSHA256Mismatch",
    "Throttling",         "RequestLimitExceeded"};
constexpr std::array<absl::string_view, 4> kDenied = {"ExpiredToken", "InvalidToken",
                                                      "TokenRefreshRequired", "InvalidAccessKeyId"};
constexpr std::array<absl::string_view, 4> kFull = {"InsufficientStorage", "QuotaExceeded",
                                                    "XMinioStorageFull", "EntityTooLarge"};

bool IsWorthAnotherAttempt(int status, absl::string_view code) {
  if (IsOneOf(code, kTryAgain)) return true;
  if (IsOneOf(code, kFull)) return false;
  return status == 408 || status == 429 ||
         (status >= 500 && status != 501 && status != 505 && status != 507);
}

absl::StatusCode CodeOf(int status, absl::string_view code) {
  if (IsOneOf(code, kDenied)) return absl::StatusCode::kPermissionDenied;
  if (IsOneOf(code, kFull)) return absl::StatusCode::kResourceExhausted;
  switch (status) {
    case 401:
    case 403:
      return absl::StatusCode::kPermissionDenied;
    case 404:
      return absl::StatusCode::kNotFound;
    case 416:
      return absl::StatusCode::kOutOfRange;
    case 507:
      return absl::StatusCode::kResourceExhausted;
    default:
      return absl::StatusCode::kUnknown;
  }
}

// One line that may be printed.
std::string Plain(absl::string_view text) {
  std::string plain(text.substr(0, kMostMessage));
  std::replace_if(
      plain.begin(), plain.end(), [](char c) { return !absl::ascii_isprint(c); }, '?');
  return plain;
}

void StartCurl() {
  static const CURLcode kStarted = curl_global_init(CURL_GLOBAL_DEFAULT);
  (void)kStarted;
}

// Between half of it and all, so that many who failed together do not come again together.
milliseconds Jittered(int64_t ms) {
  thread_local std::minstd_rand random{std::random_device{}()};
  return milliseconds(std::uniform_int_distribution<int64_t>(ms / 2, ms)(random));
}

std::string QueryOf(const S3Request& request) {
  std::string query;
  for (const auto& [name, value] : request.query) {  // in the order in which they are signed
    absl::StrAppend(&query, query.empty() ? "?" : "&", name, "=");
    for (const char c : value) {
      if (absl::ascii_isalnum(c) || c == '-' || c == '.' || c == '_' || c == '~') {
        query.push_back(c);
      } else {
        absl::StrAppend(&query, "%",
                        absl::AsciiStrToUpper(absl::StrCat(
                            absl::Hex(static_cast<unsigned char>(c), absl::kZeroPad2))));
      }
    }
  }
  return query;
}

}  // namespace

struct S3Client::Outcome {
  absl::StatusOr<S3Response> response;
  bool again = false;    // worth another attempt
  int64_t pause_ms = 0;  // at least so long, says the server
};

std::string S3Response::Header(const std::string& name) const {
  const auto found = headers.find(name);
  return found == headers.end() ? "" : found->second;
}

// One transfer: what curl is told, and where it puts what comes.
class S3Client::Attempt {
 public:
  Attempt(const S3Config& config, const S3Request& request, CURL* curl)
      : config_(config), request_(request), curl_(curl) {}
  ~Attempt() { curl_slist_free_all(headers_); }
  Attempt(const Attempt&) = delete;
  Attempt& operator=(const Attempt&) = delete;

  Outcome Perform(const std::string& sha256) {
    Prepare(sha256);
    const CURLcode code = curl_easy_perform(curl_);
    if (code != CURLE_OK) return Broken(code);
    absl::string_view reason;
    XmlElement error;
    const bool maybe_error = response_.status >= 300 || request_.method == "POST";
    if (maybe_error && absl::StrContains(response_.body, "<Error")) {
      absl::StatusOr<XmlElement> parsed = ParseXml(response_.body);
      if (parsed.ok() && parsed->name == "Error") error = *std::move(parsed);
    }
    if (response_.status >= 200 && response_.status < 300 && error.name.empty()) {
      return {std::move(response_)};
    }
    return Refused(error.ChildText("Code"), error.ChildText("Message"));
  }

 private:
  template <typename Value>
  void Set(CURLoption option, Value value) {
    curl_easy_setopt(curl_, option, value);
  }
  void AddHeader(absl::string_view name, absl::string_view value) {
    headers_ = curl_slist_append(headers_, absl::StrCat(name, ": ", value).c_str());
  }

  void Prepare(const std::string& sha256) {
    const std::string url =
        absl::StrCat(config_.url, request_.key.empty() ? "" : "/", request_.key, QueryOf(request_));
    Set(CURLOPT_URL, url.c_str());
    Set(CURLOPT_PROTOCOLS_STR, "http,https");
    Set(CURLOPT_HTTP_VERSION, long{CURL_HTTP_VERSION_1_1});
    Set(CURLOPT_NOSIGNAL, 1L);
    Set(CURLOPT_TCP_KEEPALIVE, 1L);
    Set(CURLOPT_CONNECTTIMEOUT_MS, static_cast<long>(config_.connect_ms));
    Set(CURLOPT_TIMEOUT_MS, static_cast<long>(config_.attempt_ms));
    Set(CURLOPT_LOW_SPEED_LIMIT, 1L);
    Set(CURLOPT_LOW_SPEED_TIME, static_cast<long>(std::max<int64_t>(1, config_.stall_ms / 1000)));
    Set(CURLOPT_UPLOAD_BUFFERSIZE, 512L << 10);
    Set(CURLOPT_BUFFERSIZE, 512L << 10);
    if (!config_.ca_file.empty()) Set(CURLOPT_CAINFO, config_.ca_file.c_str());
    Set(CURLOPT_AWS_SIGV4, absl::StrCat("aws:amz:", config_.region, ":s3").c_str());
    Set(CURLOPT_USERNAME, config_.key_id.c_str());
    Set(CURLOPT_PASSWORD, config_.secret.c_str());
    Set(CURLOPT_CUSTOMREQUEST, request_.method.c_str());
    if (request_.method == "HEAD") {
      Set(CURLOPT_NOBODY, 1L);
    } else if (request_.method == "PUT" || request_.method == "POST") {
      Set(CURLOPT_POSTFIELDSIZE_LARGE, static_cast<curl_off_t>(request_.body.size()));
      Set(CURLOPT_POSTFIELDS, request_.body.empty() ? "" : request_.body.data());
      AddHeader("Content-Type", "application/octet-stream");
    }
    AddHeader("x-amz-content-sha256", sha256);
    if (!config_.session_token.empty()) AddHeader("x-amz-security-token", config_.session_token);
    for (const auto& [name, value] : request_.headers) AddHeader(name, value);
    Set(CURLOPT_HTTPHEADER, headers_);
    Set(CURLOPT_ERRORBUFFER, error_);
    Set(CURLOPT_HEADERFUNCTION, &TakeHeader);
    Set(CURLOPT_HEADERDATA, this);
    Set(CURLOPT_WRITEFUNCTION, &TakeBody);
    Set(CURLOPT_WRITEDATA, this);
  }

  static size_t TakeHeader(char* bytes, size_t, size_t size, void* self) {
    return static_cast<Attempt*>(self)->Header({bytes, size}) ? size : 0;
  }
  static size_t TakeBody(char* bytes, size_t, size_t size, void* self) {
    return static_cast<Attempt*>(self)->Body({bytes, size}) ? size : 0;
  }

  bool Header(absl::string_view line) {
    header_bytes_ += line.size();
    if (header_bytes_ > kMostHeaders) return false;
    if (absl::StartsWith(line, "HTTP/")) {  // after a "100 Continue" the true one
      long status = 0;
      curl_easy_getinfo(curl_, CURLINFO_RESPONSE_CODE, &status);
      response_ = {static_cast<int>(status), {}, {}};
      return true;
    }
    const size_t colon = line.find(':');
    if (colon != absl::string_view::npos) {
      response_.headers[absl::AsciiStrToLower(line.substr(0, colon))] =
          std::string(absl::StripAsciiWhitespace(line.substr(colon + 1)));
    }
    return true;
  }

  bool Body(absl::string_view bytes) {
    if (response_.status >= 300) {
      const size_t room = kMostErrorBody - std::min(kMostErrorBody, response_.body.size());
      response_.body.append(bytes.data(), std::min(bytes.size(), room));
      return true;
    }
    const size_t most = static_cast<size_t>(request_.most_bytes);
    if (bytes.size() > most - response_.body.size()) {
      too_long_ = true;
      return false;
    }
    if (response_.body.empty()) {
      curl_off_t length = 0;
      curl_easy_getinfo(curl_, CURLINFO_CONTENT_LENGTH_DOWNLOAD_T, &length);
      response_.body.reserve(std::min<size_t>(std::max<curl_off_t>(length, 0), most));
    }
    response_.body.append(bytes.data(), bytes.size());
    return true;
  }

  std::string Where() const {
    return absl::StrCat("s3://", config_.bucket, request_.key.empty() ? "" : "/", request_.key,
                        ": ", request_.method);
  }

  // The connection, or the answer as a whole.
  Outcome Broken(CURLcode code) const {
    if (too_long_) {
      return {absl::UnknownError(
          absl::StrCat(Where(), ": an answer of more than ", request_.most_bytes, " bytes"))};
    }
    const std::string why = error_[0] != 0 ? error_ : curl_easy_strerror(code);
    const std::string message = absl::StrCat(Where(), ": ", Plain(why));
    switch (code) {
      case CURLE_URL_MALFORMAT:
      case CURLE_NOT_BUILT_IN:
      case CURLE_SSL_CACERT_BADFILE:
      case CURLE_PEER_FAILED_VERIFICATION:
        return {absl::UnknownError(message)};
      default:
        return {absl::UnavailableError(message), true};
    }
  }

  Outcome Refused(const std::string& code, const std::string& said) {
    std::string message = absl::StrCat(Where(), ": HTTP ", response_.status);
    if (!code.empty()) absl::StrAppend(&message, " ", Plain(code));
    if (!said.empty()) absl::StrAppend(&message, ": ", Plain(said));
    const std::string region = response_.Header("x-amz-bucket-region");
    if (!region.empty() && region != config_.region) {
      absl::StrAppend(&message, " (the bucket is in ", Plain(region), ", AWS_REGION is ",
                      config_.region, ")");
    }
    if (IsWorthAnotherAttempt(response_.status, code)) {
      int64_t seconds = 0;
      if (!absl::SimpleAtoi(response_.Header("retry-after"), &seconds)) seconds = 0;
      return {absl::UnavailableError(message), true, std::clamp<int64_t>(seconds, 0, 3600) * 1000};
    }
    return {absl::Status(CodeOf(response_.status, code), message)};
  }

  const S3Config& config_;
  const S3Request& request_;
  CURL* const curl_;
  curl_slist* headers_ = nullptr;
  char error_[CURL_ERROR_SIZE] = {};
  S3Response response_;
  size_t header_bytes_ = 0;
  bool too_long_ = false;
};

S3Client::S3Client(S3Config config) : config_(std::move(config)) { StartCurl(); }

S3Client::~S3Client() {
  for (void* curl : idle_) curl_easy_cleanup(curl);
}

S3Client::Outcome S3Client::SendOnce(const S3Request& request, const std::string& sha256) {
  CURL* curl = nullptr;
  {
    const std::lock_guard<std::mutex> lock(mutex_);
    if (!idle_.empty()) {
      curl = idle_.back();
      idle_.pop_back();
    }
  }
  if (curl == nullptr) curl = curl_easy_init();
  if (curl == nullptr) return {absl::ResourceExhaustedError("curl: out of memory")};
  Outcome outcome = Attempt(config_, request, curl).Perform(sha256);
  curl_easy_reset(curl);  // keeps the connection
  const std::lock_guard<std::mutex> lock(mutex_);
  idle_.push_back(curl);
  return outcome;
}

absl::StatusOr<S3Response> S3Client::Send(const S3Request& request) {
  const std::string sha256 =
      request.body_sha256.empty() ? HexSha256(request.body) : request.body_sha256;
  const Clock::time_point start = Clock::now();
  const milliseconds total(request.total_ms > 0 ? request.total_ms : config_.total_ms);
  int64_t pause_ms = config_.first_pause_ms;
  for (int attempts = 1;; ++attempts) {
    Outcome outcome = SendOnce(request, sha256);
    if (!outcome.again) return std::move(outcome.response);
    const milliseconds pause = std::max(
        Jittered(pause_ms), milliseconds(std::min(outcome.pause_ms, config_.most_pause_ms)));
    if (Clock::now() + pause - start >= total) {
      const double seconds = std::chrono::duration<double>(Clock::now() - start).count();
      return absl::UnavailableError(absl::StrCat(outcome.response.status().message(), " (",
                                                 attempts, " attempts in ", std::lround(seconds),
                                                 " s)"));
    }
    std::this_thread::sleep_for(pause);
    pause_ms = std::min(pause_ms * 2, config_.most_pause_ms);
  }
}

}  // namespace longwave
