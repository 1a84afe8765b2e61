// The GPU's benchmark in the emulator: every row is there, right by its own check, and has times.
#include <cmath>
#include <set>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "services/bench_cuda.h"
#include "services/bench_ops.h"

namespace longwave {
namespace {

struct Result {
  absl::Status status;
  std::vector<BenchRow> rows;
  std::vector<BenchFailure> failures;

  std::set<std::string> ops() const {
    std::set<std::string> names;
    for (const BenchRow& row : rows) names.insert(row.op);
    return names;
  }
};

Result RunTiny(const BenchOptions& options) {
  Result result;
  auto queue = gpu::Queue::Open(0);
  if (!queue.ok()) return {queue.status(), {}, {}};
  result.status = BenchOpsCuda(
      options, *std::move(queue), [&](const BenchRow& row) { result.rows.push_back(row); },
      [&](const BenchFailure& failure) { result.failures.push_back(failure); });
  for (const BenchFailure& f : result.failures) {
    ADD_FAILURE() << f.op << " " << Name(f.dtype) << ", " << f.length << " tokens: " << f.reason;
  }
  return result;
}

BenchOptions Tiny() {
  BenchOptions options;
  options.channels = 3;
  options.lengths = {300, 513};  // so many values that a relative error says something
  options.pairs = 32;
  options.threads = 1;
  options.seconds = 1e-9;
  options.tokens = 600;
  return options;
}

TEST(BenchOpsCudaTest, EveryRow) {
  const Result result = RunTiny(Tiny());
  EXPECT_TRUE(result.status.ok()) << result.status;
  EXPECT_THAT(result.ops(),
              ::testing::IsSupersetOf({"copy", "SsmConv dual", "SsmConv gates", "SsmConv fft",
                                       "SsmConv state only", "SsmConv one sequence", "SsmConv step",
                                       "H3Mix", "LongConv"}));
  for (const BenchRow& row : result.rows) {
    EXPECT_GT(row.ns, 0) << row.op;
    EXPECT_LE(row.ns_fastest, row.ns) << row.op;
    EXPECT_GE(row.ns_slowest, row.ns) << row.op;
    EXPECT_GT(row.gigabytes, 0) << row.op;
    EXPECT_GT(row.ratio, 0) << row.op;
    EXPECT_GE(row.runs, 7) << row.op;
    if (row.op != "copy") {
      EXPECT_LE(row.error, row.tolerance) << row.op;
    }
  }
}

TEST(BenchOpsCudaTest, OneOperatorOfOneType) {
  BenchOptions options = Tiny();
  options.only = "SsmConv dual";
  options.lengths = {1200};  // more than options.tokens: half the channels
  options.dtypes = {Dtype::kFloat32};
  const Result result = RunTiny(options);
  ASSERT_TRUE(result.status.ok()) << result.status;
  ASSERT_EQ(result.rows.size(), 2u);
  EXPECT_EQ(result.rows[1].op, "SsmConv dual");
  EXPECT_EQ(result.rows[1].dtype, Dtype::kFloat32);
  EXPECT_EQ(result.rows[1].channels, 1);
  EXPECT_EQ(result.rows[1].batch, 1);
}

TEST(BenchOpsCudaTest, Refuses) {
  BenchOptions options = Tiny();
  options.only = "nonsense";
  EXPECT_TRUE(absl::IsInvalidArgument(RunTiny(options).status));
  options = Tiny();
  options.tokens = 0;
  EXPECT_TRUE(absl::IsInvalidArgument(RunTiny(options).status));
}

TEST(BenchCudaTest, PatternIsWhatIsOnTheDevice) {
  ThreadPool pool(1);
  auto queue = gpu::Queue::Open(0);
  ASSERT_TRUE(queue.ok());
  Stream stream(&pool, *std::move(queue));
  for (Dtype dtype : {Dtype::kFloat32, Dtype::kBFloat16, Dtype::kFloat16}) {
    const auto pattern = BenchPattern::Create(dtype, 101, stream);
    ASSERT_TRUE(pattern.ok()) << pattern.status();
    const auto array = pattern->Repeat(1000, 90, stream);
    ASSERT_TRUE(array.ok()) << array.status();
    const auto values = Fetch(dtype, array->data(), 300, 400, stream);
    ASSERT_TRUE(values.ok()) << values.status();
    std::vector<float> copy(400);
    pattern->Copy(90 + 300, 400, 1, copy.data());
    for (int64_t i = 0; i < 400; ++i) {
      ASSERT_EQ((*values)[i], pattern->At(390 + i)) << i;
      ASSERT_EQ(copy[i], pattern->At(390 + i)) << i;
    }
  }
}

TEST(BenchCudaTest, ErrorSum) {
  ErrorSum error;
  EXPECT_FALSE(error.relative() < 1);  // nothing was compared
  error.Add(3.003, 3);
  error.Add(4, 4);
  EXPECT_NEAR(error.relative(), 0.003 / 5, 1e-9);
  error.Add(NAN, 1);
  EXPECT_FALSE(error.relative() < 1e9);
}

TEST(BenchReferenceTest, RecurrenceIsTheTaps) {
  const DiagonalSsm ssm = RandomSsm(2, 5);
  constexpr int64_t kLength = 40;
  std::vector<double> taps(kLength), state(10), y;
  ssm.Taps(1, absl::MakeSpan(taps));
  taps[0] += ssm.d[1];
  SsmRecurrence(
      ssm, 1, kLength, [](int64_t t) { return t == 0 ? 1.0 : 0.0; }, state,
      [&](int64_t, double value) { y.push_back(value); });
  for (int64_t t = 0; t < kLength; ++t) EXPECT_NEAR(y[t], taps[t], 1e-12) << t;
}

}  // namespace
}  // namespace longwave
