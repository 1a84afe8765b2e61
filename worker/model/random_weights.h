// Random tensors of an untrained model, by the names of model.safetensors (docs/models.md): for
// benchmarks and tests of shapes without a checkpoint. The same name, shape and seed give the same
// values on every machine.
//
// Thread safety: a free function without state.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace longwave {

// Matrices keep the size of what goes through them, norms are near one, and the state-space
// parameters are those of S4D-Lin with time steps from 1e-3 to 1e-1.
std::vector<float> RandomWeights(const std::string& name, const std::vector<int64_t>& shape,
                                 uint64_t seed);

}  // namespace longwave
