#include "formats/boundary.h"

#include <algorithm>
#include <limits>

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "formats/byte_codec.h"
#include "formats/sha256.h"

namespace longwave {
namespace {

constexpr absl::string_view kMagic = "LWSTATE2";
constexpr size_t kHashDigits = 2 * Sha256::kBytes;
constexpr size_t kMostRank = 8;
constexpr size_t kMostName = 1024;

bool IsHash(absl::string_view text) {
  return text.size() == kHashDigits && std::all_of(text.begin(), text.end(), [](char c) {
           return absl::ascii_isdigit(c) || (c >= 'a' && c <= 'f');
         });
}

// The product of the shape, -1 where it is more than `most`.
int64_t Elements(absl::Span<const int64_t> shape, int64_t most) {
  int64_t count = 1;
  for (int64_t size : shape) {
    if (size < 1 || count > most / size) return -1;
    count *= size;
  }
  return count;
}

absl::Status Bad(absl::string_view what) {
  return absl::InvalidArgumentError(absl::StrCat("not a boundary: ", what));
}

}  // namespace

absl::Status BoundaryWriter::Put(absl::string_view bytes) {
  hash_.Add(bytes);
  return sink_(bytes);
}

absl::Status BoundaryWriter::Begin(absl::string_view model_hash, int64_t position,
                                   int64_t tensors) {
  if (!IsHash(model_hash)) return Bad(absl::StrCat("model hash \"", model_hash, "\""));
  if (position < 0) return Bad(absl::StrCat("position ", position));
  tensors_left_ = tensors;
  ByteWriter out;
  out.PutRaw(kMagic);
  out.PutRaw(model_hash);
  out.Put(position);
  out.Put(static_cast<uint32_t>(tensors));
  return Put(out.bytes());
}

absl::Status BoundaryWriter::Tensor(absl::string_view name, absl::Span<const int64_t> shape,
                                    absl::string_view values) {
  constexpr int64_t kFloat = sizeof(float);
  const int64_t count = Elements(shape, std::numeric_limits<int64_t>::max() / kFloat);
  if (name.size() > kMostName || shape.size() > kMostRank || --tensors_left_ < 0 ||
      count * kFloat != static_cast<int64_t>(values.size())) {
    return Bad(absl::StrCat("tensor \"", name, "\" of ", shape.size(), " dimensions and ",
                            values.size(), " bytes"));
  }
  ByteWriter out;
  out.PutString(name);
  out.Put(static_cast<uint8_t>(shape.size()));
  out.PutAll<int64_t>(shape);
  const absl::Status put = Put(out.bytes());
  return put.ok() ? Put(values) : put;
}

absl::Status BoundaryWriter::End(absl::Span<const double> carry) {
  if (tensors_left_ != 0) return Bad(absl::StrCat(tensors_left_, " tensors too few"));
  ByteWriter out;
  out.Put(static_cast<uint32_t>(carry.size()));
  out.PutAll<double>(carry);
  const absl::Status put = Put(out.bytes());
  return put.ok() ? sink_(hash_.Digest()) : put;
}

absl::StatusOr<std::string> FormatBoundary(const Boundary& boundary) {
  std::string bytes;
  BoundaryWriter writer([&](absl::string_view piece) {
    bytes.append(piece.data(), piece.size());
    return absl::OkStatus();
  });
  absl::Status status = writer.Begin(boundary.model_hash, boundary.position,
                                     static_cast<int64_t>(boundary.tensors.size()));
  for (const BoundaryTensor& tensor : boundary.tensors) {
    if (!status.ok()) return status;
    status = writer.Tensor(tensor.name, tensor.shape,
                           {reinterpret_cast<const char*>(tensor.values.data()),
                            tensor.values.size() * sizeof(float)});
  }
  if (status.ok()) status = writer.End(boundary.carry);
  if (!status.ok()) return status;
  return bytes;
}

absl::StatusOr<Boundary> ParseBoundary(absl::string_view bytes) {
  if (bytes.substr(0, kMagic.size()) != kMagic || bytes.size() < kMagic.size() + Sha256::kBytes) {
    return Bad(absl::StrCat(bytes.size(), " bytes that do not begin with ", kMagic));
  }
  const absl::string_view content = bytes.substr(0, bytes.size() - Sha256::kBytes);
  Sha256 hash;
  hash.Add(content);
  if (hash.Digest() != bytes.substr(content.size())) {
    return absl::DataLossError(
        absl::StrCat("a boundary of ", bytes.size(), " bytes does not have its checksum"));
  }
  ByteReader in(content.substr(kMagic.size()));
  Boundary boundary;
  boundary.model_hash = std::string(in.GetRaw(kHashDigits));
  boundary.position = in.Get<int64_t>();
  const uint32_t tensors = in.Get<uint32_t>();
  for (uint32_t i = 0; i < tensors && !in.failed(); ++i) {
    BoundaryTensor& tensor = boundary.tensors.emplace_back();
    tensor.name = in.GetString();
    const uint8_t rank = in.Get<uint8_t>();
    if (tensor.name.size() > kMostName || rank > kMostRank) {
      return Bad(absl::StrCat("tensor ", i, " has a name of ", tensor.name.size(), " bytes and ",
                              rank, " dimensions"));
    }
    tensor.shape.resize(rank);
    in.GetAll(absl::MakeSpan(tensor.shape));
    const int64_t most = static_cast<int64_t>(in.left() / sizeof(float));
    const int64_t count = in.failed() ? 0 : Elements(tensor.shape, most);
    if (count < 0) return Bad(absl::StrCat("the shape of tensor \"", tensor.name, "\""));
    tensor.values.resize(count);
    in.GetAll(absl::MakeSpan(tensor.values));
  }
  const uint32_t carry = in.Get<uint32_t>();
  if (carry > in.left() / sizeof(double)) return Bad(absl::StrCat("carry of ", carry));
  boundary.carry.resize(carry);
  in.GetAll(absl::MakeSpan(boundary.carry));
  const absl::Status whole = in.Finish();
  if (!whole.ok()) return Bad(whole.message());
  if (!IsHash(boundary.model_hash)) return Bad("its model hash is not hexadecimal");
  if (boundary.position < 0) return Bad(absl::StrCat("position ", boundary.position));
  return boundary;
}

absl::Status CheckBoundary(const Boundary& boundary, const std::string& model_hash,
                           int64_t position) {
  if (boundary.model_hash != model_hash) {
    return absl::FailedPreconditionError(
        absl::StrCat("the boundary is of model ", boundary.model_hash, ", not ", model_hash));
  }
  if (boundary.position != position) {
    return absl::FailedPreconditionError(
        absl::StrCat("the boundary is of position ", boundary.position, ", not ", position));
  }
  return absl::OkStatus();
}

}  // namespace longwave
