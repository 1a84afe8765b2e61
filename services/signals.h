// Signals of the process. The first SIGINT or SIGTERM asks for a stop, which work notices at its next
// chunk boundary; the second ends the process at once. SIGPIPE and SIGXFSZ are ignored, so that a
// closed pipe and a full quota are errors of the write like any other.
//
// Thread safety: InstallSignals() once, before any thread; the rest from anywhere.
#pragma once

#include "absl/status/status.h"

namespace longwave {

void InstallSignals();
// The signal that asked for a stop; 0: none did.
int StopSignal();
// Cancelled, naming the signal, once a stop was asked for.
absl::Status CheckStop();

}  // namespace longwave
