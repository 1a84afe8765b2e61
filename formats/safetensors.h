// The safetensors container, memory-mapped and read only: a little-endian uint64 header length, a
// JSON header {name: {dtype, shape, data_offsets}}, then the data.
// Format: https://github.com/huggingface/safetensors#format
//
// Thread safety: const methods may be called from any thread. Views live as long as the object.
// Errors: absl::Status naming the file, the tensor and the offending value.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/types/span.h"
#include "formats/shape.h"

namespace longwave {

enum class DType { kF64, kF32, kF16, kBF16, kI64, kI32, kI16, kI8, kU8, kBool };

int64_t ByteSize(DType type);
const char* Name(DType type);  // as safetensors spells it: "F32"

struct TensorView {
  DType dtype;
  std::vector<int64_t> shape;
  const uint8_t* data = nullptr;  // may be unaligned: the format promises nothing

  int64_t elements() const;
};

class Safetensors {
 public:
  // Maps the file and checks the header: length within the file, every offset in order, within the
  // data, without overlap or gap, size = product of shape x dtype, no duplicate name.
  static absl::StatusOr<std::shared_ptr<const Safetensors>> Open(const std::string& path);
  // The same over bytes that the caller keeps alive; `name` stands in messages. For tests and
  // fuzzing.
  static absl::StatusOr<std::shared_ptr<const Safetensors>> Parse(absl::Span<const uint8_t> bytes,
                                                                  const std::string& name);
  ~Safetensors();

  // NotFound names the tensor and the file.
  absl::StatusOr<TensorView> Find(const std::string& name) const;
  bool Contains(const std::string& name) const { return tensors_.count(name) != 0; }
  const std::map<std::string, TensorView>& tensors() const { return tensors_; }
  const std::string& path() const { return path_; }

 private:
  Safetensors() = default;
  std::string path_;
  const uint8_t* map_ = nullptr;
  int64_t map_size_ = 0;
  std::map<std::string, TensorView> tensors_;
};

// Element `n` values converted to float32. REQUIRES: dtype is F16, BF16, F32 or F64.
void ConvertToFloat(const TensorView& tensor, float* out);

}  // namespace longwave
