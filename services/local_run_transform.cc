// transform: a stack of layers over float32 values.
#include <memory>
#include <utility>

#include "absl/strings/str_cat.h"
#include "formats/npy.h"
#include "services/local_run.h"
#include "services/run_limits.h"
#include "services/signals.h"
#include "services/text.h"

namespace longwave {

absl::Status LocalRun::RunTransforms(SequenceDone done) {
  if (options_.format != InputFormat::kAuto && options_.format != InputFormat::kNpy) {
    return absl::InvalidArgumentError(
        "transform reads float32 values from .npy alone: see --format");
  }
  absl::StatusOr<std::unique_ptr<ByteSource>> source = ByteSource::Open(job_.input);
  if (!source.ok()) return source.status();
  absl::StatusOr<std::unique_ptr<NpyReader>> opened = NpyReader::Open(*std::move(source));
  if (!opened.ok()) return opened.status();
  NpyReader& reader = **opened;
  const Shape& shape = reader.header().shape;
  const absl::StatusOr<SignalShape> signal =
      ShapeOfSignal(job_.input, reader.header(), model_->config().d_model);
  if (!signal.ok()) return signal.status();
  const int64_t rows = signal->rows, batch = signal->batch.value_or(1);
  absl::Status status = Prepare(rows, 0);
  std::vector<SequenceReport> sequences;
  for (int64_t b = 0; status.ok() && b < batch; ++b) {
    SequenceReport sequence;
    sequence.name = signal->batch.has_value() ? absl::StrCat(b) : BaseName(job_.input);
    sequence.tokens = rows;
    sequence.output = options_.out;
    const double total = static_cast<double>(rows) * batch;
    status = RunTransform(
        *runner_, reader, rows, chunk_,
        [&](absl::Span<const float> values) { return output_.Append(values); },
        [&](int64_t done) { return Tick(done, (report_.tokens + done) / total); });
    report_.tokens += rows;
    sequences.push_back(std::move(sequence));
  }
  return status.ok() ? CommitRows(shape, std::move(sequences), done) : status;
}

}  // namespace longwave
