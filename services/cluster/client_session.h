// What the client's commands share: the options that all of them have, requests about jobs, and
// the wait for a job's end.
//
// Thread safety: one caller.
#pragma once

#include <cstdint>
#include <memory>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "boost/json/object.hpp"
#include "services/cluster/http_client.h"

namespace CLI {
class App;
}

namespace longwave {

struct ClientOptions {
  std::string server = "http://127.0.0.1:8080", token_file, ca;
  bool json = false;
};

// Which server, and how it is trusted; and what to say of that in the command's help.
void AddServerOptions(CLI::App& command, ClientOptions& client);
// Of the options, and of the token that the file or the environment (LONGWAVE_TOKEN) has; from then
// on a signal stops what waits.
absl::StatusOr<std::unique_ptr<HttpClient>> OpenClient(const ClientOptions& options);

std::string EscapeForUrl(const std::string& text);
// A member of an object; empty, or 0, where it has none of this kind.
std::string Text(const boost::json::object& object, const char* name);
int64_t Number(const boost::json::object& object, const char* name);
double Real(const boost::json::object& object, const char* name);
boost::json::object Member(const boost::json::object& object, const char* name);
// The server's answer, where it is the object that it should be.
absl::StatusOr<boost::json::object> Object(absl::StatusOr<boost::json::value> answer);

absl::StatusOr<boost::json::object> GetJob(HttpClient& client, const std::string& id);
// "4f1c...  running  score h3-dna  1,000 of 9,000 tokens", with a newline.
std::string JobLine(const boost::json::object& job);
// With progress on standard error, until the job is over. Not succeeded: InvalidArgument that says
// why.
absl::StatusOr<boost::json::object> WaitForJob(HttpClient& client, const std::string& id);

}  // namespace longwave
