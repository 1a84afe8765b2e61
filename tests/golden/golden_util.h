// What the golden tests share: loading a case and measuring an error.
#pragma once

#include <gtest/gtest.h>

#include <cstdlib>
#include <cstring>
#include <memory>
#include <string>
#include <vector>

#include "formats/safetensors.h"
#include "worker/executor/sequence_runner.h"
#include "worker/model/relative_error_test_util.h"

namespace longwave {

// Where the test was built, or LONGWAVE_SOURCE: another folder with the same files.
inline std::string Source(const std::string& path) {
  const char* moved = std::getenv("LONGWAVE_SOURCE");
  return (moved != nullptr ? std::string(moved) : std::string(LONGWAVE_SOURCE_DIR)) + "/" + path;
}

template <typename T>
std::vector<T> Values(const Safetensors& file, const std::string& name) {
  const absl::StatusOr<TensorView> tensor = file.Find(name);
  EXPECT_TRUE(tensor.ok()) << tensor.status();
  if (!tensor.ok()) return {};
  std::vector<T> values(tensor->elements());
  EXPECT_EQ(ByteSize(tensor->dtype), static_cast<int64_t>(sizeof(T))) << name;
  std::memcpy(values.data(), tensor->data, values.size() * sizeof(T));
  return values;
}

// What a test runs on: the CPU, and the GPU that there is, or the emulated one, with each type.
// gtest names it: "cpu", "cuda_bfloat16".
struct Target {
  ModelOptions options;

  bool gpu() const { return options.device.is_gpu(); }
  // In the emulator everything takes long: there the first tokens must do.
  bool emulated() const {
    const absl::StatusOr<gpu::Properties> device = gpu::GetProperties(0);
    return gpu() && device.ok() && device->name == "emulated";
  }
  // Largest accepted error where float32 on the CPU may have `float32`.
  double Tolerance(double float32) const {
    return options.dtype == Dtype::kFloat32 ? float32 : 2e-2;
  }
  std::string name() const { return gpu() ? std::string("cuda_") + Name(options.dtype) : "cpu"; }
};
inline void PrintTo(const Target& target, std::ostream* out) { *out << target.name(); }

// The CPU is left out of the program that has the emulator: another has it.
inline std::vector<Target> Targets() {
  std::vector<Target> targets;
#ifndef LONGWAVE_EMULATE
  targets.emplace_back();
#endif
  if (gpu::DeviceCount() == 0) return targets;
  for (Dtype dtype : {Dtype::kFloat32, Dtype::kBFloat16, Dtype::kFloat16}) {
    targets.push_back({{Device{Device::Kind::kCuda}, dtype}});
  }
  return targets;
}

// A model with its golden file.
struct Case {
  std::shared_ptr<const Model> model;
  std::shared_ptr<const Safetensors> golden;

  explicit Case(const std::string& folder, const Target& target = {}) {
    absl::StatusOr<std::shared_ptr<const Model>> loaded =
        Model::Load(Source(folder), target.options);
    absl::StatusOr<std::shared_ptr<const Safetensors>> file =
        Safetensors::Open(Source(folder + "/golden.safetensors"));
    EXPECT_TRUE(loaded.ok()) << loaded.status();
    EXPECT_TRUE(file.ok()) << file.status();
    if (loaded.ok()) model = *loaded;
    if (file.ok()) golden = *file;
  }
  std::unique_ptr<SequenceRunner> Runner(int64_t chunk, ThreadPool& pool, int64_t batch = 1) const {
    auto runner = SequenceRunner::Create(model, {.chunk = chunk, .batch = batch}, &pool);
    EXPECT_TRUE(runner.ok()) << runner.status();
    return *std::move(runner);
  }
};

// nll[t] of ids[t + 1] given ids[0..t], in chunks.
inline std::vector<float> Score(SequenceRunner& runner, const std::vector<int32_t>& ids,
                                int64_t chunk) {
  const int64_t last = static_cast<int64_t>(ids.size()) - 1;
  std::vector<float> nll(last);
  runner.Reset();
  for (int64_t t = 0; t < last; t += chunk) {
    const size_t n = static_cast<size_t>(std::min(chunk, last - t));
    EXPECT_EQ(runner.Forward({ids.data() + t, n}), absl::OkStatus());
    EXPECT_EQ(runner.TokenLoss({ids.data() + t + 1, n}, {nll.data() + t, n}), absl::OkStatus());
  }
  return nll;
}

}  // namespace longwave
