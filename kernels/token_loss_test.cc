#include "kernels/token_loss.h"

#include <cmath>
#include <random>

#include "kernels/testing/reference.h"

namespace longwave {
namespace {

using reference::BitwiseEqual;
using reference::Doubles;
using reference::Floats;
using reference::Guarded;
using reference::Near;
using reference::Normal;
using reference::Rejected;

struct Inputs {
  Floats hidden, embedding;
  std::vector<int32_t> targets;
};

Inputs MakeInputs(uint64_t seed, const TokenLossDesc& desc, double scale = 1) {
  std::mt19937_64 random(seed);
  Inputs in{Normal(seed, desc.rows * desc.width, scale / std::sqrt(desc.width)),
            Normal(seed + 1, desc.vocab * desc.width),
            {}};
  for (int64_t r = 0; r < desc.rows; ++r) {
    in.targets.push_back(static_cast<int32_t>(random() % desc.vocab));
  }
  in.targets.front() = static_cast<int32_t>(desc.vocab - 1);  // the ends of the table
  in.targets.back() = 0;
  return in;
}

Floats Evaluate(const TokenLossDesc& desc, const Inputs& in, int threads = 1) {
  Guarded hidden(in.hidden), embedding(in.embedding), nll(desc.rows);
  reference::PoisonedStream stream(threads, desc.scratch_floats());
  const absl::Status status =
      RunTokenLoss(desc, {hidden.data(), embedding.data(), in.targets.data(), nll.data()}, *stream);
  EXPECT_TRUE(status.ok()) << status;
  EXPECT_TRUE(stream.ScratchKept());
  for (const Guarded* buffer : {&hidden, &embedding, &nll}) EXPECT_TRUE(buffer->Intact());
  return nll.Packed();
}

Doubles Expected(const TokenLossDesc& desc, const Inputs& in) {
  return reference::TokenLoss(desc.rows, desc.width, desc.vocab, in.hidden, in.embedding,
                              in.targets);
}

void ExpectCorrect(const TokenLossDesc& desc, const Inputs& in, int threads = 1) {
  EXPECT_TRUE(Near(Evaluate(desc, in, threads), Expected(desc, in), reference::Tolerance(Device{})))
      << desc.ToString();
}

TEST(TokenLossTest, Rows) {
  for (const int64_t rows : {1, 2, 3, 17, 63, 64, 65, 127, 128, 129, 300}) {
    const TokenLossDesc desc{rows, 32, 100};
    ExpectCorrect(desc, MakeInputs(rows, desc), 2);
  }
}

TEST(TokenLossTest, WidthsAndVocabularies) {
  for (const int64_t width : {1, 7, 64, 200}) {
    for (const int64_t vocab : {2, 3, 4, 8, 50, 255, 256, 257, 511, 1024, 5003}) {
      const TokenLossDesc desc{9, width, vocab};
      ExpectCorrect(desc, MakeInputs(width + vocab, desc));
    }
  }
}

TEST(TokenLossTest, LargeVocabulary) {
  const TokenLossDesc desc{5, 16, 50264};
  ExpectCorrect(desc, MakeInputs(1, desc), 2);
}

TEST(TokenLossTest, ThreadsDoNotChangeTheResult) {
  for (const int64_t rows : {1, 100, 129, 700}) {
    const TokenLossDesc desc{rows, 24, 300};
    const Inputs in = MakeInputs(rows, desc);
    const Floats one = Evaluate(desc, in);
    for (const int threads : {2, 3})
      EXPECT_TRUE(BitwiseEqual(Evaluate(desc, in, threads), one)) << rows;
  }
}

// Logits of some hundreds: exp overflows unless the largest is taken off, in every tile anew. A
// logit of 400 is off by 400 x 2^-23 in float32, and a loss that is the small difference of two is,
// too.
TEST(TokenLossTest, LargeLogits) {
  const TokenLossDesc desc{40, 16, 3000};
  Inputs in = MakeInputs(2, desc, 100);
  const Doubles expected = Expected(desc, in);
  EXPECT_GT(expected[0], 88);
  ExpectCorrect(desc, in);
  // The likeliest token as the target: a loss near zero.
  for (int64_t r = 0; r < desc.rows; ++r) {
    double best = -INFINITY;
    for (int64_t v = 0; v < desc.vocab; ++v) {
      double logit = 0;
      for (int64_t i = 0; i < 16; ++i) {
        logit += static_cast<double>(in.hidden[r * 16 + i]) *
                 static_cast<double>(in.embedding[v * 16 + i]);
      }
      if (logit > best) {
        best = logit;
        in.targets[r] = static_cast<int32_t>(v);
      }
    }
  }
  const Floats likely = Evaluate(desc, in);
  const Doubles expected_likely = Expected(desc, in);
  for (int64_t r = 0; r < desc.rows; ++r)
    EXPECT_NEAR(likely[r], expected_likely[r], 400 * std::ldexp(1, -22));
}

TEST(TokenLossTest, ZeroHiddenGivesTheUniformLoss) {
  const TokenLossDesc desc{3, 8, 777};
  Inputs in = MakeInputs(3, desc);
  in.hidden.assign(in.hidden.size(), 0.0f);
  EXPECT_TRUE(
      Near(Evaluate(desc, in), Doubles(3, std::log(777.0)), reference::Tolerance(Device{})));
}

TEST(TokenLossTest, OneTokenIsCertain) {
  const TokenLossDesc desc{4, 8, 1};
  for (const float nll : Evaluate(desc, MakeInputs(4, desc))) EXPECT_NEAR(nll, 0, 1e-6);
}

// All logits far below zero: the sum of the exponentials alone would be 0.
TEST(TokenLossTest, AllLogitsFarBelowZero) {
  const TokenLossDesc desc{3, 1, 600};
  Inputs in = MakeInputs(5, desc);
  in.hidden.assign(3, -1.0f);
  for (size_t v = 0; v < in.embedding.size(); ++v)
    in.embedding[v] = 500.0f + static_cast<float>(v % 7);
  ExpectCorrect(desc, in);
}

TEST(TokenLossTest, RejectsEachBadFieldWithItsValue) {
  const TokenLossDesc good{10, 20, 30};
  ASSERT_TRUE(good.Validate().ok()) << good.Validate();
  auto expect_rejected = [&](auto change, int64_t value) {
    TokenLossDesc desc = good;
    change(desc);
    EXPECT_TRUE(Rejected(desc.Validate(), {std::to_string(value)})) << desc.ToString();
    reference::PoisonedStream stream(1, 0);
    EXPECT_TRUE(Rejected(RunTokenLoss(desc, TokenLossArgs{}, *stream), {std::to_string(value)}));
  };
  for (const int64_t bad : {0, -1, -7177}) {
    expect_rejected([&](TokenLossDesc& d) { d.rows = bad; }, bad);
    expect_rejected([&](TokenLossDesc& d) { d.width = bad; }, bad);
    expect_rejected([&](TokenLossDesc& d) { d.vocab = bad; }, bad);
  }
}

}  // namespace
}  // namespace longwave
