#include "scheduler/observed_objects.h"

#include <chrono>
#include <string>
#include <utility>
#include <vector>

namespace longwave {
namespace {

using Clock = std::chrono::steady_clock;

bool Failed(const absl::Status& status) {
  return !status.ok() && !absl::IsNotFound(status) && !absl::IsOutOfRange(status) &&
         !absl::IsInvalidArgument(status);
}

void Tell(RequestProbe& probe, Clock::time_point began, const absl::Status& status) {
  probe.Took(std::chrono::duration<double>(Clock::now() - began).count(), Failed(status));
}

absl::Status StatusOf(const absl::Status& status) { return status; }
template <typename T>
absl::Status StatusOf(const absl::StatusOr<T>& result) {
  return result.status();
}

class ObservedWriter final : public ObjectWriter {
 public:
  ObservedWriter(std::unique_ptr<ObjectWriter> writer, RequestProbe& probe, Clock::duration spent)
      : writer_(std::move(writer)), probe_(probe), spent_(spent) {}

  absl::Status Append(absl::string_view bytes) override {
    const auto began = Clock::now();
    absl::Status status = writer_->Append(bytes);
    if (!status.ok()) Tell(probe_, began - spent_, status);
    spent_ += Clock::now() - began;
    return status;
  }
  absl::StatusOr<ObjectInfo> Commit() override {
    const auto began = Clock::now();
    absl::StatusOr<ObjectInfo> info = writer_->Commit();
    Tell(probe_, began - spent_, info.status());
    return info;
  }

 private:
  const std::unique_ptr<ObjectWriter> writer_;
  RequestProbe& probe_;
  Clock::duration spent_;  // in the store, not between calls
};

class ObservedObjects final : public ObjectStore {
 private:
  template <typename Request>
  auto Timed(const Request& request) {
    const auto began = Clock::now();
    auto answer = request();
    Tell(probe_, began, StatusOf(answer));
    return answer;
  }

 public:
  ObservedObjects(std::unique_ptr<ObjectStore> objects, RequestProbe& probe)
      : objects_(std::move(objects)), probe_(probe) {}

  absl::StatusOr<std::unique_ptr<ObjectWriter>> Create(const std::string& name) override {
    const auto began = Clock::now();
    absl::StatusOr<std::unique_ptr<ObjectWriter>> writer = objects_->Create(name);
    if (!writer.ok()) {
      Tell(probe_, began, writer.status());
      return writer;
    }
    return std::make_unique<ObservedWriter>(*std::move(writer), probe_, Clock::now() - began);
  }
  absl::StatusOr<std::string> Read(const std::string& name, int64_t offset,
                                   int64_t count) override {
    return Timed([&] { return objects_->Read(name, offset, count); });
  }
  absl::StatusOr<int64_t> Size(const std::string& name) override {
    return Timed([&] { return objects_->Size(name); });
  }
  absl::Status Delete(const std::string& name) override {
    return Timed([&] { return objects_->Delete(name); });
  }
  absl::StatusOr<std::vector<ListedObject>> ListObjects(const std::string& folder) override {
    return Timed([&] { return objects_->ListObjects(folder); });
  }
  absl::StatusOr<std::vector<std::string>> ListFolders(const std::string& folder) override {
    return Timed([&] { return objects_->ListFolders(folder); });
  }
  absl::StatusOr<std::vector<PartialObject>> ListPartial(const std::string& folder) override {
    return Timed([&] { return objects_->ListPartial(folder); });
  }
  absl::Status DeletePartial(const PartialObject& partial) override {
    return Timed([&] { return objects_->DeletePartial(partial); });
  }
  const std::string& uri() const override { return objects_->uri(); }

 private:
  const std::unique_ptr<ObjectStore> objects_;
  RequestProbe& probe_;
};

}  // namespace

std::unique_ptr<ObjectStore> Observe(std::unique_ptr<ObjectStore> objects, RequestProbe& probe) {
  return std::make_unique<ObservedObjects>(std::move(objects), probe);
}

}  // namespace longwave
