// Signals of the process.
//
// Thread safety: the first two once each, before any thread starts; the rest from anywhere.
#pragma once

#include "absl/status/status.h"

namespace longwave {

// SIGPIPE and SIGXFSZ are ignored: a closed pipe and a full quota are errors of the write, like
// others.
void IgnoreWriteSignals();
// From here on the first SIGINT or SIGTERM asks for a stop, which the work notices at its next
// chunk boundary, and the second ends the process at once.
void CatchStopSignals();
// The signal that asked for a stop; 0: none did.
int StopSignal();
// Cancelled, naming the signal, once a stop was asked for.
absl::Status CheckStop();

}  // namespace longwave
