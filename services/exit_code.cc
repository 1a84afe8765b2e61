#include "services/exit_code.h"

#include <cstdio>
#include <exception>
#include <new>

#include "absl/strings/str_replace.h"
#include "services/signals.h"

namespace longwave {

int Fail(int code, absl::string_view message) {
  const std::string line = absl::StrReplaceAll(message, {{"\r", " "}, {"\n", " "}});
  std::fprintf(stderr, "longwave: %s\n", line.c_str());
  return code;
}

int RunAction(const Action& action) try {
  const absl::Status status = action();
  if (status.ok()) return 0;
  if (StopSignal() != 0) {
    const absl::Status said = absl::IsCancelled(status) ? status : CheckStop();
    return Fail(kStopped + StopSignal(), said.message());
  }
  return Fail(absl::IsInternal(status) ? kInternalFault : kRefused, status.message());
} catch (const std::bad_alloc&) {
  return Fail(kRefused, "out of memory (a smaller --chunk needs less)");
} catch (const std::exception& e) {
  return Fail(kInternalFault, e.what());
}

}  // namespace longwave
