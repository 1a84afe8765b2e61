#include "services/report.h"

#include <cmath>

#include "boost/json/serialize.hpp"
#include "gtest/gtest.h"

namespace longwave {
namespace {

TEST(Report, SequenceLines) {
  SequenceReport sequence;
  sequence.name = "chr1";
  sequence.tokens = 1000;
  EXPECT_EQ(SequenceLine(sequence), "chr1: 1,000 tokens\n");
  sequence.mean_nats = std::log(2.0);
  sequence.output = "out.chr1.npy";
  EXPECT_EQ(SequenceLine(sequence),
            "chr1: 1,000 tokens, mean 0.69315 nats, 1.0000 bits per token -> out.chr1.npy\n");
  sequence.mean_nats.reset();
  sequence.generated = 20;
  EXPECT_EQ(SequenceLine(sequence), "chr1: 1,000 tokens, 20 generated -> out.chr1.npy\n");
}

TEST(Report, Json) {
  RunReport report;
  report.model = "m";
  report.task = "score";
  report.tokens = 3;
  report.seconds = 2;
  report.sequences.resize(2);
  report.sequences[0].mean_nats = 1.5;
  report.sequences[1].name = "\xFF";
  const boost::json::object json = ToJson(report);
  EXPECT_EQ(json.at("tokens").as_int64(), 3);
  EXPECT_EQ(json.at("tokens_per_second").as_double(), 1.5);
  const boost::json::array& sequences = json.at("sequences").as_array();
  EXPECT_EQ(sequences[0].at("mean_nats").as_double(), 1.5);
  EXPECT_DOUBLE_EQ(sequences[0].at("bits_per_token").as_double(), 1.5 / std::log(2.0));
  EXPECT_TRUE(sequences[1].at("mean_nats").is_null());
  EXPECT_TRUE(sequences[1].at("output").is_null());
  EXPECT_EQ(sequences[1].at("name").as_string(), "\xEF\xBF\xBD");
  EXPECT_TRUE(json.at("outputs").as_array().empty());
}

TEST(Report, JsonHasNoNan) {
  RunReport report;
  report.sequences.resize(1);
  report.sequences[0].mean_nats = std::nan("");
  EXPECT_EQ(boost::json::serialize(ToJson(report)).find("nan"), std::string::npos);
}

}  // namespace
}  // namespace longwave
