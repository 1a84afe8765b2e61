#include "scheduler/job.h"

#include <cmath>
#include <iterator>
#include <vector>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_split.h"

namespace longwave {
namespace {

constexpr const char* kTaskNames[] = {"score", "embed", "logits", "generate", "transform"};

template <typename Value>
absl::Status Refuse(absl::string_view field, Value value, absl::string_view expected) {
  return absl::InvalidArgumentError(absl::StrCat(field, " ", value, ": must be ", expected));
}

// The comparisons are written so that a NaN is refused.
absl::Status ValidateGenerate(const JobSpec& job) {
  if (job.max_new_tokens < 1) {
    return Refuse("max-new-tokens", job.max_new_tokens, "at least 1");
  }
  if (!(job.temperature >= 0) || std::isinf(job.temperature)) {
    return Refuse("temperature", job.temperature, "a finite number, 0 (greedy) or above");
  }
  if (job.top_k < 0) return Refuse("top-k", job.top_k, "0 (all tokens) or above");
  if (!(job.top_p > 0 && job.top_p <= 1)) {
    return Refuse("top-p", job.top_p, "above 0 and at most 1 (all tokens)");
  }
  return absl::OkStatus();
}

// Fields that one task alone reads: with another they are a mistake, not a wish to ignore.
constexpr struct {
  const char* field;
  Task task;
} kTaskFields[] = {
    {"window", Task::kEmbed},         {"max_logits_bytes", Task::kLogits},
    {"prompt", Task::kGenerate},      {"max_new_tokens", Task::kGenerate},
    {"temperature", Task::kGenerate}, {"top_k", Task::kGenerate},
    {"top_p", Task::kGenerate},       {"seed", Task::kGenerate},
};

}  // namespace

const char* Name(Task task) { return kTaskNames[static_cast<int>(task)]; }

absl::StatusOr<Task> ParseTask(absl::string_view name) {
  for (size_t i = 0; i < std::size(kTaskNames); ++i) {
    if (name == kTaskNames[i]) return static_cast<Task>(i);
  }
  return Refuse("task", absl::StrCat("\"", name, "\""), absl::StrCat("one of ", TaskNames()));
}

std::string TaskNames() {
  std::string names;
  for (const char* name : kTaskNames) absl::StrAppend(&names, names.empty() ? "" : ", ", name);
  return names;
}

absl::Status JobSpec::Validate() const {
  if (model.empty()) return absl::InvalidArgumentError("no model given");
  if (task != Task::kGenerate && !prompt.empty()) {
    return absl::InvalidArgumentError(absl::StrCat("a prompt is for generate, not ", Name(task)));
  }
  if (input.empty() && prompt.empty()) {
    return absl::InvalidArgumentError(
        absl::StrCat("no input given", task == Task::kGenerate ? ", nor a prompt" : ""));
  }
  if (!input.empty() && !prompt.empty()) {
    return absl::InvalidArgumentError(
        absl::StrCat("both an input (", input, ") and a prompt given"));
  }
  if (chunk < 1) return Refuse("chunk", chunk, "at least 1 token");
  if (window < 1) return Refuse("window", window, "at least 1 token");
  if (max_logits_bytes < 1) return Refuse("max-logits-bytes", max_logits_bytes, "at least 1");
  return ValidateGenerate(*this);
}

std::string JobSpec::ToString() const {
  std::string text = absl::StrCat(Name(task), " model=", model);
  if (!input.empty()) absl::StrAppend(&text, " input=", input);
  absl::StrAppend(&text, " chunk=", chunk);
  switch (task) {
    case Task::kEmbed:
      if (window == JobSpec().window) return absl::StrCat(text, " window=all");
      return absl::StrCat(text, " window=", window);
    case Task::kLogits:
      return absl::StrCat(text, " max_logits_bytes=", max_logits_bytes);
    case Task::kGenerate:
      if (!prompt.empty()) absl::StrAppend(&text, " prompt_bytes=", prompt.size());
      return absl::StrCat(text, " max_new_tokens=", max_new_tokens, " temperature=", temperature,
                          " top_k=", top_k, " top_p=", top_p, " seed=", seed);
    case Task::kScore:
    case Task::kTransform:
      return text;
  }
  return text;
}

absl::Status CheckFieldsGiven(const JobSpec& job,
                              absl::FunctionRef<bool(const std::string& field)> given,
                              absl::FunctionRef<std::string(const std::string& field)> named) {
  for (const auto& [field, only] : kTaskFields) {
    if (!given(field) || job.task == only) continue;
    return absl::InvalidArgumentError(
        absl::StrCat(named(field), " is for task ", Name(only), ", not ", Name(job.task)));
  }
  absl::Status valid = job.Validate();
  if (!valid.ok()) return valid;
  for (const char* field : {"top_k", "top_p", "seed"}) {
    if (!given(field) || job.temperature != 0) continue;
    return absl::InvalidArgumentError(
        absl::StrCat(named(field), " needs a temperature above 0: at 0 no token is drawn"));
  }
  return absl::OkStatus();
}

std::string FormatSampling(const JobSpec& job) {
  return absl::StrFormat("%d %.17g %d %.17g %d", job.max_new_tokens, job.temperature, job.top_k,
                         job.top_p, job.seed);
}

absl::Status ParseSampling(absl::string_view text, JobSpec& job) {
  const std::vector<absl::string_view> parts = absl::StrSplit(text, ' ');
  if (parts.size() != 5 || !absl::SimpleAtoi(parts[0], &job.max_new_tokens) ||
      !absl::SimpleAtod(parts[1], &job.temperature) || !absl::SimpleAtoi(parts[2], &job.top_k) ||
      !absl::SimpleAtod(parts[3], &job.top_p) || !absl::SimpleAtoi(parts[4], &job.seed)) {
    return Refuse("sampling", absl::StrCat("\"", text.substr(0, 200), "\""), "five numbers");
  }
  return ValidateGenerate(job);
}

}  // namespace longwave
