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

class GoldenDna : public testing::TestWithParam<Target> {};
INSTANTIATE_TEST_SUITE_P(Cases, GoldenDna, testing::ValuesIn(Targets()),
                         [](const auto& info) { return info.param.name(); });

TEST_P(GoldenDna, EveryBase) {
  const Target& target = GetParam();
  const Case golden("examples/h3-dna", target);
  ASSERT_NE(golden.model, nullptr);
  std::vector<float> want = Values<float>(*golden.golden, "nll_last65536_of_ecoli536");
  std::vector<int32_t> bases = Genome();
  ASSERT_EQ(bases.size(), 4938920u);
  bases.erase(bases.begin(), bases.end() - 65537);
  if (target.emulated()) {
    bases.resize(301);
    want.resize(300);
  }
  double want_mean = 0;
  for (float nll : want) want_mean += nll / static_cast<double>(want.size());
  ThreadPool pool(0);
  std::vector<int64_t> chunks = {4096, 65536};
  if (target.emulated()) chunks = {128};
  for (int64_t chunk : chunks) {
    const std::unique_ptr<SequenceRunner> runner = golden.Runner(chunk, pool);
    const std::vector<float> got = Score(*runner, bases, chunk);
    ASSERT_EQ(got.size(), want.size());
    double worst = 0, sum = 0;
    for (size_t i = 0; i < got.size(); ++i) {
      worst = std::max(worst, std::abs(double{got[i]} - double{want[i]}));
      sum += got[i];
    }
    const double mean = sum / static_cast<double>(got.size());
    std::printf("h3-dna %s chunk %lld: mean %.6f nats, greatest difference of a base %.2e\n",
                target.name().c_str(), static_cast<long long>(chunk), mean, worst);
    const bool float32 = target.options.dtype == Dtype::kFloat32;
    EXPECT_LE(worst, float32 ? 1e-3 : 0.5);
    EXPECT_NEAR(mean, want_mean, float32 ? 1e-5 : target.emulated() ? 1e-2 : 1e-3);
    EXPECT_NEAR(want_mean, 1.27166, target.emulated() ? 1 : 1e-5);
  }
}

}  // namespace
}  // namespace longwave
