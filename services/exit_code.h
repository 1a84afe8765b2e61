// How the program ends: one line on standard error and a code that says whose fault it was.
#pragma once

#include "absl/strings/string_view.h"
#include "services/commands.h"

namespace longwave {

inline constexpr int kInternalFault = 1;  // ours
inline constexpr int kRefused = 2;        // what the caller can mend
inline constexpr int kStopped = 128;      // by a signal, whose number is added

// Prints "longwave: MESSAGE" as one line; returns `code`.
int Fail(int code, absl::string_view message);
// Does the work and returns the exit code; 0 where it succeeds.
int RunAction(const Action& action);

}  // namespace longwave
