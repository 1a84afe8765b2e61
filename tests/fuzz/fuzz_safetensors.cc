// Any bytes as a safetensors file: refused, or every view lies in the data and they tile it.
#include <algorithm>
#include <cmath>
#include <vector>

#include "formats/safetensors.h"
#include "tests/fuzz/fuzz_check.h"

using longwave::DType;
using longwave::TensorView;

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const auto parsed = longwave::Safetensors::Parse(absl::MakeConstSpan(data, size), "fuzz");
  if (!parsed.ok()) {
    FUZZ_CHECK(parsed.status().message().size() < 4000);
    return 0;
  }
  FUZZ_CHECK(size >= 8);
  uint64_t header = 0;
  for (int i = 7; i >= 0; --i) header = header << 8 | data[i];
  FUZZ_CHECK(header <= size - 8);
  const uint8_t* const start = data + 8 + header;

  int64_t covered = 0;
  for (const auto& [name, tensor] : (*parsed)->tensors()) {
    const auto found = (*parsed)->Find(name);
    FUZZ_CHECK(found.ok() && found->data == tensor.data);
    for (int64_t n : tensor.shape) FUZZ_CHECK(n >= 0);
    const int64_t bytes = tensor.elements() * ByteSize(tensor.dtype);
    FUZZ_CHECK(bytes >= 0 && tensor.data >= start && tensor.data <= data + size);
    FUZZ_CHECK(bytes <= data + size - tensor.data);
    covered += bytes;
    if (tensor.dtype == DType::kF16 || tensor.dtype == DType::kBF16 ||
        tensor.dtype == DType::kF32 || tensor.dtype == DType::kF64) {
      std::vector<float> floats(tensor.elements());
      ConvertToFloat(tensor, floats.data());
    }
  }
  FUZZ_CHECK(covered == data + size - start);
  return 0;
}
