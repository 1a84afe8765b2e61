// Numbers and strings as bytes, little endian: what boundary files and messages are built of.
// Reading checks every length against what is there before it allocates.
//
// Thread safety: none.
#pragma once

#include <bit>
#include <concepts>
#include <cstdint>
#include <cstring>
#include <string>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"
#include "absl/types/span.h"

namespace longwave {

static_assert(std::endian::native == std::endian::little, "bytes are copied as they are");

template <typename T>
concept Number = std::integral<T> || std::floating_point<T>;

class ByteWriter {
 public:
  template <Number T>
  void Put(T value) {
    bytes_.append(reinterpret_cast<const char*>(&value), sizeof(T));
  }
  template <Number T>
  void PutAll(absl::Span<const T> values) {
    bytes_.append(reinterpret_cast<const char*>(values.data()), values.size() * sizeof(T));
  }
  void PutRaw(absl::string_view bytes) { bytes_.append(bytes.data(), bytes.size()); }
  void PutString(absl::string_view text) {  // its length (uint32), then itself
    Put(static_cast<uint32_t>(text.size()));
    PutRaw(text);
  }
  const std::string& bytes() const { return bytes_; }
  std::string Take() { return std::move(bytes_); }

 private:
  std::string bytes_;
};

// After the first read past the end all reads give zeros and empty strings; status() says so.
class ByteReader {
 public:
  explicit ByteReader(absl::string_view bytes) : bytes_(bytes) {}

  template <Number T>
  T Get() {
    T value = 0;
    const absl::string_view raw = GetRaw(sizeof(T));
    if (!raw.empty()) std::memcpy(&value, raw.data(), sizeof(T));
    return value;
  }
  template <Number T>
  void GetAll(absl::Span<T> values) {
    const absl::string_view raw = GetRaw(values.size() * sizeof(T));
    if (!raw.empty()) std::memcpy(values.data(), raw.data(), raw.size());
  }
  absl::string_view GetRaw(uint64_t count) {
    if (count > left() || failed_) {
      failed_ = true;
      return {};
    }
    at_ += count;
    return bytes_.substr(at_ - count, count);
  }
  std::string GetString() { return std::string(GetRaw(Get<uint32_t>())); }

  uint64_t left() const { return bytes_.size() - at_; }
  bool failed() const { return failed_; }
  // InvalidArgument where a read passed the end.
  absl::Status status() const {
    if (!failed_) return absl::OkStatus();
    return absl::InvalidArgumentError(absl::StrCat("cut short at byte ", at_));
  }
  // The same, and where bytes are left over.
  absl::Status Finish() const {
    if (failed_ || left() == 0) return status();
    return absl::InvalidArgumentError(absl::StrCat(left(), " bytes too many"));
  }

 private:
  absl::string_view bytes_;
  uint64_t at_ = 0;
  bool failed_ = false;
};

}  // namespace longwave
