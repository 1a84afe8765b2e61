#include "scheduler/job.h"

#include <cmath>
#include <functional>
#include <limits>
#include <string>

#include "absl/strings/str_cat.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace longwave {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;

JobSpec Good() {
  JobSpec job;
  job.model = "h3-dna";
  job.input = "genome.fa";
  return job;
}

TEST(Task, NamesGoBothWays) {
  for (Task task : {Task::kScore, Task::kEmbed, Task::kLogits, Task::kGenerate, Task::kTransform}) {
    ASSERT_TRUE(ParseTask(Name(task)).ok()) << Name(task);
    EXPECT_EQ(*ParseTask(Name(task)), task);
  }
  EXPECT_EQ(ParseTask("guess").status().message(),
            "task \"guess\": must be one of score, embed, logits, generate, transform");
}

TEST(JobSpec, DefaultsAreValid) { EXPECT_TRUE(Good().Validate().ok()); }

TEST(JobSpec, EveryRefusalNamesTheValue) {
  struct Case {
    std::function<void(JobSpec&)> spoil;
    std::string field, value;
  };
  const Case cases[] = {
      {[](JobSpec& job) { job.model = ""; }, "no model", ""},
      {[](JobSpec& job) { job.input = ""; }, "no input", ""},
      {[](JobSpec& job) { job.prompt = "x"; }, "prompt", "score"},
      {[](JobSpec& job) { job.task = Task::kGenerate, job.prompt = "x"; }, "both", "genome.fa"},
      {[](JobSpec& job) { job.task = Task::kGenerate, job.input = ""; }, "no input", "prompt"},
      {[](JobSpec& job) { job.chunk = 0; }, "chunk", "0"},
      {[](JobSpec& job) { job.chunk = -7; }, "chunk", "-7"},
      {[](JobSpec& job) { job.window = 0; }, "window", "0"},
      {[](JobSpec& job) { job.max_logits_bytes = -1; }, "max-logits-bytes", "-1"},
      {[](JobSpec& job) { job.max_new_tokens = 0; }, "max-new-tokens", "0"},
      {[](JobSpec& job) { job.temperature = -0.5; }, "temperature", "-0.5"},
      {[](JobSpec& job) { job.temperature = std::nan(""); }, "temperature", "nan"},
      {[](JobSpec& job) { job.temperature = std::numeric_limits<double>::infinity(); },
       "temperature", "inf"},
      {[](JobSpec& job) { job.top_k = -2; }, "top-k", "-2"},
      {[](JobSpec& job) { job.top_p = 0; }, "top-p", "0"},
      {[](JobSpec& job) { job.top_p = 1.25; }, "top-p", "1.25"},
  };
  for (const Case& c : cases) {
    JobSpec job = Good();
    c.spoil(job);
    const absl::Status status = job.Validate();
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument) << c.field;
    EXPECT_THAT(status.message(), AllOf(HasSubstr(c.field), HasSubstr(c.value)));
  }
}

TEST(Sampling, ComesBackToTheBit) {
  JobSpec job = Good();
  job.max_new_tokens = std::numeric_limits<int64_t>::max();
  job.temperature = 0.1;
  job.top_k = 40;
  job.top_p = std::nextafter(1.0, 0.0);
  job.seed = std::numeric_limits<uint64_t>::max();
  JobSpec again;
  ASSERT_TRUE(ParseSampling(FormatSampling(job), again).ok());
  EXPECT_EQ(again.max_new_tokens, job.max_new_tokens);
  EXPECT_EQ(again.temperature, job.temperature);
  EXPECT_EQ(again.top_k, job.top_k);
  EXPECT_EQ(again.top_p, job.top_p);
  EXPECT_EQ(again.seed, job.seed);
}

TEST(Sampling, WhatIsNoneIsRefused) {
  for (const char* text : {"", "256 0 0 1", "256 0 0 1 0 0", "256 0  0 1 0", "x 0 0 1 0",
                           "256 0 0 1 -1", "9223372036854775808 0 0 1 0"}) {
    JobSpec job;
    EXPECT_THAT(ParseSampling(text, job).message(), HasSubstr(absl::StrCat("\"", text, "\"")));
  }
  JobSpec job;
  EXPECT_THAT(ParseSampling("0 0 0 1 0", job).message(), HasSubstr("max-new-tokens 0"));
  EXPECT_THAT(ParseSampling("1 nan 0 1 0", job).message(), HasSubstr("temperature nan"));
  EXPECT_THAT(ParseSampling("1 1 -1 1 0", job).message(), HasSubstr("top-k -1"));
  EXPECT_THAT(ParseSampling("1 1 0 1.5 0", job).message(), HasSubstr("top-p 1.5"));
  EXPECT_LT(ParseSampling(std::string(1 << 20, '7'), job).message().size(), 300u);
}

TEST(JobSpec, PrintsWhatItsTaskReads) {
  JobSpec job = Good();
  EXPECT_EQ(job.ToString(), "score model=h3-dna input=genome.fa chunk=8192");
  job.task = Task::kEmbed;
  EXPECT_THAT(job.ToString(), HasSubstr("window=all"));
  job.window = 100;
  EXPECT_THAT(job.ToString(), HasSubstr("window=100"));
  job.task = Task::kGenerate;
  job.input = "";
  job.prompt = "ACGT";
  job.seed = std::numeric_limits<uint64_t>::max();
  EXPECT_EQ(job.ToString(),
            "generate model=h3-dna chunk=8192 prompt_bytes=4 max_new_tokens=256 temperature=0 "
            "top_k=0 top_p=1 seed=18446744073709551615");
}

}  // namespace
}  // namespace longwave
