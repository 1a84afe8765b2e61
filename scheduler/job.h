// What a job is to do: plain data that a client submits and a scheduler keeps, without a trace of
// how or where it runs. Device, threads and output files are the runner's, not the job's.
//
// Thread safety: plain data.
#pragma once

#include <cstdint>
#include <limits>
#include <string>

#include "absl/functional/function_ref.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"

namespace longwave {

enum class Task { kScore, kEmbed, kLogits, kGenerate, kTransform };

const char* Name(Task task);  // "score"
absl::StatusOr<Task> ParseTask(absl::string_view name);
// Every task's name, "score, embed, ...": for messages and help.
std::string TaskNames();

struct JobSpec {
  std::string model;  // a model folder
  std::string input;  // a path, or "-" for standard input; empty where `prompt` stands for it
  Task task = Task::kScore;
  int64_t chunk = 8192;  // tokens

  // embed: tokens of one mean. The default is the whole sequence.
  int64_t window = std::numeric_limits<int64_t>::max();
  // logits: the largest array of them that may be made, in bytes.
  int64_t max_logits_bytes = int64_t{1} << 30;

  // generate
  std::string prompt;
  int64_t max_new_tokens = 256;
  double temperature = 0;  // 0: greedy
  int64_t top_k = 0;       // 0: all
  double top_p = 1;        // 1: all
  uint64_t seed = 0;

  // How many tokens of a sequence are given: all, but for those that generate makes of it.
  int64_t given(int64_t length) const {
    return task == Task::kGenerate ? length - (max_new_tokens - 1) : length;
  }

  // Errors name the field and its value.
  absl::Status Validate() const;
  // One line; of the fields that only one task reads, those of this task.
  std::string ToString() const;
};

// Validate(), and InvalidArgument where a field is given that does nothing: of another task, or of
// sampling where nothing is drawn. `given`: whether the field of this name is ("max_new_tokens");
// `named`: what it and its value are called.
absl::Status CheckFieldsGiven(const JobSpec& job,
                              absl::FunctionRef<bool(const std::string& field)> given,
                              absl::FunctionRef<std::string(const std::string& field)> named);

// The fields of generate as one line and back, to the bit. InvalidArgument for any other text.
std::string FormatSampling(const JobSpec& job);
absl::Status ParseSampling(absl::string_view text, JobSpec& job);

}  // namespace longwave
