// Any bytes as FASTA: read in pieces of two sizes the records are the same, and they are those that
// a plain parser over the whole text finds; skipping them finds the same names.
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "formats/token_input.h"
#include "tests/fuzz/fuzz_check.h"

namespace longwave {
namespace {

struct Record {
  std::string name, letters;
  bool operator==(const Record&) const = default;
};
using Records = std::vector<Record>;

bool IsBlank(char c) { return c == ' ' || (c >= '\t' && c <= '\r'); }

// nullopt where the input is refused. `chunk` 0 skips every letter.
std::optional<Records> Read(absl::Span<const uint8_t> bytes, int64_t chunk) {
  auto source = FuzzSource(bytes);
  if (source == nullptr) return std::nullopt;
  auto input = TokenInput::FromSource(std::move(source), InputFormat::kFasta, "");
  if (!input.ok()) return std::nullopt;
  Records records;
  std::vector<int32_t> out(chunk);
  while (true) {
    const auto more = (*input)->NextSequence();
    if (!more.ok()) {
      FUZZ_CHECK(more.status().message().size() < 1000);
      return std::nullopt;
    }
    if (!*more) return records;
    FUZZ_CHECK((*input)->sequence().index == static_cast<int64_t>(records.size()));
    records.push_back({(*input)->sequence().name, ""});
    for (int64_t got = chunk; chunk > 0 && got == chunk;) {
      const auto read = (*input)->Read(absl::MakeSpan(out));
      if (!read.ok()) return std::nullopt;
      got = *read;
      FUZZ_CHECK(got >= 0 && got <= chunk);
      for (int64_t i = 0; i < got; ++i) {
        FUZZ_CHECK(out[i] >= 0 && out[i] < 256 && !IsBlank(static_cast<char>(out[i])));
        FUZZ_CHECK(out[i] < 'a' || out[i] > 'z');
        records.back().letters += static_cast<char>(out[i]);
      }
    }
    FUZZ_CHECK(chunk == 0 || !records.back().letters.empty());
    if (chunk % 2 == 1) {  // looking ahead changes nothing
      const auto next = (*input)->HasNextSequence();
      if (next.ok() && !*next) FUZZ_CHECK(!*(*input)->NextSequence());
    }
  }
}

// The grammar of fasta_input.h over lines held whole.
std::optional<Records> Model(const std::string& text) {
  Records records;
  for (size_t at = 0; at < text.size();) {
    const size_t end = std::min(text.find('\n', at), text.size());
    const std::string line = text.substr(at, end - at);
    at = end + 1;
    if (!line.empty() && line[0] == '>') {
      if (line.size() > (64 << 10)) return std::nullopt;
      if (!records.empty() && records.back().letters.empty()) return std::nullopt;
      size_t from = 1;
      while (from < line.size() && IsBlank(line[from])) ++from;
      size_t to = from;
      while (to < line.size() && !IsBlank(line[to])) ++to;
      records.push_back({line.substr(from, to - from), ""});
      continue;
    }
    if (records.empty() && !line.empty() && line[0] == ';') continue;
    for (char c : line) {
      if (IsBlank(c)) continue;
      if (records.empty()) return std::nullopt;
      records.back().letters += c >= 'a' && c <= 'z' ? static_cast<char>(c - 'a' + 'A') : c;
    }
  }
  if (records.empty() || records.back().letters.empty()) return std::nullopt;
  return records;
}

std::optional<std::string> Unpack(absl::Span<const uint8_t> bytes) {
  auto source = FuzzSource(bytes);
  if (source == nullptr) return std::nullopt;
  std::string text;
  std::vector<uint8_t> out(1 << 16);
  while (static_cast<int64_t>(text.size()) < kFuzzElements) {
    const auto got = source->Read(absl::MakeSpan(out));
    if (!got.ok()) return std::nullopt;
    text.append(out.begin(), out.begin() + *got);
    if (*got < static_cast<int64_t>(out.size())) return text;
  }
  return std::nullopt;
}

}  // namespace
}  // namespace longwave

// The first byte picks the size of the pieces.
extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace longwave;  // NOLINT: the harness's one function
  if (size < 1) return 0;
  const auto bytes = absl::MakeConstSpan(data + 1, size - 1);
  const std::optional<std::string> text = Unpack(bytes);
  if (!text) return 0;
  const std::optional<Records> model = Model(*text);
  FUZZ_CHECK(Read(bytes, 1 + data[0]) == model);
  FUZZ_CHECK(Read(bytes, 70'000) == model);
  std::optional<Records> skipped = Read(bytes, 0);
  FUZZ_CHECK(skipped.has_value() == model.has_value());
  for (size_t i = 0; model && i < model->size(); ++i) {
    FUZZ_CHECK((*skipped)[i].name == (*model)[i].name);
  }
  return 0;
}
