// What the kinds of ByteSource share: a buffer that Peek() looks into, over one Fill() each.
#pragma once

#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "formats/byte_source.h"

namespace longwave {

class BufferedSource : public ByteSource {
 public:
  absl::StatusOr<int64_t> Read(absl::Span<uint8_t> out) final;
  absl::StatusOr<absl::Span<const uint8_t>> Peek(int64_t n) final;
  const std::string& name() const final { return name_; }

 protected:
  explicit BufferedSource(std::string name) : name_(std::move(name)) {}
  // Some bytes, at least one; 0 means the end, and will not be asked again.
  virtual absl::StatusOr<int64_t> Fill(absl::Span<uint8_t> out) = 0;
  // Bytes that Fill() has given and no one has read yet.
  int64_t buffered() const { return end_ - begin_; }

 private:
  absl::StatusOr<int64_t> FillOnce(absl::Span<uint8_t> out);

  std::string name_;
  std::vector<uint8_t> buffer_;
  int64_t begin_ = 0, end_ = 0;
  bool at_end_ = false;
};

}  // namespace longwave
