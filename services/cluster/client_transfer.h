// Inputs to a server and outputs from it.
//
// Thread safety: one caller.
#pragma once

#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "formats/token_input.h"
#include "services/cluster/http_client.h"

namespace longwave {

// Uploads a file, or standard input ("-"), as it is, and compares what arrived with it; returns its
// id. The name says to the server what `format` says to `longwave run`. An upload that was cut
// short is begun again where the input can be.
absl::StatusOr<std::string> UploadInput(HttpClient& client, const std::string& input,
                                        InputFormat format);
// The same of a text; `name`: for messages.
absl::StatusOr<std::string> UploadText(HttpClient& client, const std::string& name,
                                       const std::string& text);
// Writes what is at `target` to a file that appears whole or not at all.
absl::Status FetchFile(HttpClient& client, const std::string& target, const std::string& out);
// Of an .npy of token ids: only the ids, each as the byte that it is.
absl::Status FetchBytes(HttpClient& client, const std::string& target, const std::string& out);

}  // namespace longwave
