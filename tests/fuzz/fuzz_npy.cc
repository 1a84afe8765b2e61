// Any bytes as .npy: the header parser, the reader in pieces of two sizes, and what the header says
// written and parsed again.
#include <algorithm>
#include <cstring>
#include <string>
#include <type_traits>
#include <vector>

#include "formats/npy.h"
#include "formats/token_input.h"
#include "tests/fuzz/fuzz_check.h"

namespace longwave {
namespace {

// All elements, until the end, an error or kFuzzElements.
template <typename T>
std::vector<T> ReadAll(absl::Span<const uint8_t> bytes, int64_t chunk, bool* ok) {
  std::vector<T> all, out(chunk);
  auto source = FuzzSource(bytes);
  FUZZ_CHECK(source != nullptr);
  auto reader = NpyReader::Open(std::move(source));
  FUZZ_CHECK(reader.ok());
  int64_t got = chunk;
  *ok = true;
  while (*ok && got == chunk && static_cast<int64_t>(all.size()) < kFuzzElements) {
    absl::StatusOr<int64_t> read = 0;
    if constexpr (std::is_same_v<T, float>) {
      read = (*reader)->ReadFloats(absl::MakeSpan(out));
    } else {
      read = (*reader)->ReadIds(absl::MakeSpan(out));
    }
    *ok = read.ok();
    got = *ok ? *read : 0;
    FUZZ_CHECK(got >= 0 && got <= chunk);
    all.insert(all.end(), out.begin(), out.begin() + got);
  }
  const int64_t elements = (*reader)->header().elements();
  if (*ok && got < chunk) FUZZ_CHECK(static_cast<int64_t>(all.size()) == elements);
  FUZZ_CHECK(static_cast<int64_t>(all.size()) <= elements);
  return all;
}

template <typename T>
void CheckChunks(absl::Span<const uint8_t> bytes, int64_t chunk) {
  bool ok_a, ok_b;
  const std::vector<T> a = ReadAll<T>(bytes, chunk, &ok_a), b = ReadAll<T>(bytes, 65536, &ok_b);
  const size_t both = std::min(a.size(), b.size());  // an error may come a piece earlier in one
  FUZZ_CHECK(both == 0 || std::memcmp(a.data(), b.data(), both * sizeof(T)) == 0);
  if (std::max<int64_t>(a.size(), b.size()) < kFuzzElements) {
    FUZZ_CHECK(ok_a == ok_b && (!ok_a || a.size() == b.size()));
  }
}

void CheckHeader(absl::Span<const uint8_t> bytes) {
  const auto header = ParseNpyHeader(bytes);
  if (!header.ok()) {
    FUZZ_CHECK(header.status().message().size() < 4000);
    // What asks for more bytes must not do so with all it may see.
    FUZZ_CHECK(!absl::IsOutOfRange(header.status()) ||
               static_cast<int64_t>(bytes.size()) < kMaxNpyHeader);
    return;
  }
  FUZZ_CHECK(header->data_offset <= static_cast<int64_t>(bytes.size()));
  FUZZ_CHECK(header->elements() >= 0);
  const auto written = FormatNpyHeader(header->type, header->shape, 4096);
  FUZZ_CHECK(written.ok());
  const auto again = ParseNpyHeader(
      absl::MakeConstSpan(reinterpret_cast<const uint8_t*>(written->data()), written->size()));
  FUZZ_CHECK(again.ok() && again->shape == header->shape && again->type == header->type);
  FUZZ_CHECK(again->data_offset == 4096);
}

// As tokens no id is negative, and the sequences are those of the shape.
void CheckTokens(absl::Span<const uint8_t> bytes) {
  auto source = FuzzSource(bytes);
  FUZZ_CHECK(source != nullptr);
  auto input = TokenInput::FromSource(std::move(source), InputFormat::kNpy, "");
  if (!input.ok()) return;
  std::vector<int32_t> out(1000);
  for (int64_t index = 0, total = 0; total < kFuzzElements; ++index) {
    const auto more = (*input)->NextSequence();
    if (!more.ok()) return;
    if (!*more) {
      FUZZ_CHECK(index == (*input)->batch().value_or(1));
      return;
    }
    FUZZ_CHECK((*input)->sequence().index == index);
    for (int64_t read = 0, got = 1; got > 0; read += got) {
      const auto now = (*input)->Read(absl::MakeSpan(out));
      if (!now.ok()) return;
      got = *now;
      total += got;
      if (got == 0) FUZZ_CHECK(read == (*input)->sequence().length);
      for (int64_t i = 0; i < got; ++i) FUZZ_CHECK(out[i] >= 0);
      if (total >= kFuzzElements) return;
    }
  }
}

}  // namespace
}  // namespace longwave

// The first byte picks the size of the pieces.
extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace longwave;  // NOLINT: the harness's one function
  if (size < 1) return 0;
  const auto bytes = absl::MakeConstSpan(data + 1, size - 1);
  CheckHeader(bytes);
  auto source = FuzzSource(bytes);
  if (source == nullptr) return 0;
  auto reader = NpyReader::Open(std::move(source));
  if (!reader.ok()) return 0;
  if ((*reader)->header().type == NpyType::kFloat32) {
    CheckChunks<float>(bytes, 1 + data[0]);
  } else {
    CheckChunks<int32_t>(bytes, 1 + data[0]);
    CheckTokens(bytes);
  }
  return 0;
}
