#include "services/run_limits.h"

#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace longwave {
namespace {

TEST(RunLimits, AChunkIsHalvedUntilItFits) {
  ModelConfig config;
  config.d_model = 8;
  config.n_layer = 1;
  config.d_inner = 16;
  config.vocab_size = 11;
  const auto made = Model::Random(config);
  ASSERT_TRUE(made.ok()) << made.status();
  const Model& model = **made;
  for (const int64_t fits : {int64_t{1}, int64_t{500}, int64_t{1000}}) {
    const int64_t memory = model.workspace_bytes(fits, 0);
    EXPECT_EQ(ChunkThatFits(model, fits, memory).value(), fits);
    EXPECT_EQ(ChunkThatFits(model, 2 * fits, memory).value(), fits);
    EXPECT_EQ(ChunkThatFits(model, fits << 30, memory).value(), fits);
  }
  EXPECT_LE(model.workspace_bytes(ChunkThatFits(model, int64_t{1} << 62, 1 << 20).value(), 0),
            1 << 20);
  const absl::Status none = ChunkThatFits(model, 100, 100).status();
  EXPECT_TRUE(absl::IsResourceExhausted(none));
  EXPECT_THAT(none.message(), testing::HasSubstr("one token needs"));
}

}  // namespace
}  // namespace longwave
