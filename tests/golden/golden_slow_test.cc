// The DNA model over the last 65537 bases of the genome, at two chunk lengths. The slow half.
#include <algorithm>
#include <cstdio>

#include "formats/token_input.h"
#include "tests/golden/golden_util.h"

namespace longwave {
namespace {

std::vector<int32_t> Genome() {
  auto input = TokenInput::Open(Source("examples/ecoli536.fna.gz"), InputFormat::kAuto);
  EXPECT_TRUE(input.ok()) << input.status();
  EXPECT_TRUE((*input)->NextSequence().value());
  std::vector<int32_t> bases(5'000'000);
  bases.resize((*input)->Read(absl::MakeSpan(bases)).value());
  return bases;
}

TEST(GoldenDna, EveryBase) {
  const Case golden("examples/h3-dna");
  ASSERT_NE(golden.model, nullptr);
  const std::vector<float> want = Values<float>(*golden.golden, "nll_last65536_of_ecoli536");
  std::vector<int32_t> bases = Genome();
  ASSERT_EQ(bases.size(), 4938920u);
  bases.erase(bases.begin(), bases.end() - 65537);
  ThreadPool pool(0);
  for (int64_t chunk : {4096, 65536}) {
    const std::unique_ptr<SequenceRunner> runner = golden.Runner(chunk, pool);
    const std::vector<float> got = Score(*runner, bases, chunk);
    ASSERT_EQ(got.size(), want.size());
    double worst = 0, sum = 0;
    for (size_t i = 0; i < got.size(); ++i) {
      worst = std::max(worst, std::abs(double{got[i]} - double{want[i]}));
      sum += got[i];
    }
    const double mean = sum / static_cast<double>(got.size());
    std::printf("h3-dna chunk %lld: mean %.6f nats, greatest difference of a base %.2e\n",
                static_cast<long long>(chunk), mean, worst);
    EXPECT_LE(worst, 1e-3);
    EXPECT_NEAR(mean, 1.27166, 1e-5);
  }
}

}  // namespace
}  // namespace longwave
