#include "services/report.h"

#include <cmath>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "boost/json/array.hpp"
#include "services/text.h"

namespace longwave {
namespace {

namespace json = boost::json;

json::value OrNull(const std::optional<double>& value) {
  // JSON has no word for a number that is not finite.
  if (!value.has_value() || !std::isfinite(*value)) return nullptr;
  return *value;
}

json::object ToJson(const SequenceReport& sequence) {
  std::optional<double> bits;
  if (sequence.mean_nats.has_value()) bits = BitsPerToken(*sequence.mean_nats);
  json::object object;
  object["name"] = ToUtf8(sequence.name);
  object["tokens"] = sequence.tokens;
  object["mean_nats"] = OrNull(sequence.mean_nats);
  object["bits_per_token"] = OrNull(bits);
  json::value& output = object["output"];  // null: none
  if (!sequence.output.empty()) output = ToUtf8(sequence.output);
  if (sequence.generated.has_value()) {
    object["generated_tokens"] = *sequence.generated;
    if (sequence.text.has_value()) {
      object["text"] = ToUtf8(*sequence.text);
    } else {
      object["ids"] = json::array(sequence.ids.begin(), sequence.ids.end());
    }
  }
  return object;
}

}  // namespace

double BitsPerToken(double mean_nats) { return mean_nats / std::log(2.0); }

json::object ToJson(const RunReport& report) {
  json::object object;
  object["model"] = ToUtf8(report.model);
  object["task"] = report.task;
  object["device"] = report.device;
  if (!report.device_name.empty()) object["device_name"] = report.device_name;
  object["dtype"] = report.dtype;
  object["tokens"] = report.tokens;
  if (report.resumed_tokens > 0) object["resumed_tokens"] = report.resumed_tokens;
  object["seconds"] = report.seconds;
  object["tokens_per_second"] = report.tokens_per_second();
  object["chunk"] = report.chunk;
  object["threads"] = report.threads;
  json::array& sequences = object["sequences"].emplace_array();
  for (const SequenceReport& sequence : report.sequences) sequences.push_back(ToJson(sequence));
  json::array& outputs = object["outputs"].emplace_array();
  for (const std::string& path : report.outputs) outputs.push_back(json::value(ToUtf8(path)));
  return object;
}

std::string SequenceLine(const SequenceReport& sequence) {
  std::string line =
      absl::StrCat(sequence.name.empty() ? "input" : sequence.name, ": ",
                   WithCommas(sequence.tokens), sequence.tokens == 1 ? " token" : " tokens");
  if (sequence.mean_nats.has_value()) {
    absl::StrAppendFormat(&line, ", mean %.5f nats, %.4f bits per token", *sequence.mean_nats,
                          BitsPerToken(*sequence.mean_nats));
  }
  if (sequence.generated.has_value()) {
    absl::StrAppend(&line, ", ", WithCommas(*sequence.generated), " generated");
  }
  if (!sequence.output.empty()) absl::StrAppend(&line, " -> ", sequence.output);
  return line + "\n";
}

std::string TotalLine(const RunReport& report) {
  return absl::StrCat(WithCommas(report.tokens - report.resumed_tokens),
                      report.tokens == 1 ? " token" : " tokens", " in ",
                      HumanSeconds(report.seconds), ": ",
                      WithCommas(static_cast<int64_t>(report.tokens_per_second())), " tokens/s\n");
}

}  // namespace longwave
