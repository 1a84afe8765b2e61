#include "scheduler/leadership.h"

#include <cstdlib>

#include "absl/strings/str_cat.h"

namespace longwave {

absl::StatusOr<Leader> Leadership::Beat() {
  const std::string look = absl::StrCat("SELECT term, server, endpoint, beat_ms, ",
                                        database_.clock_ms(), " FROM leadership WHERE id = 1");
  Leader leader;
  // Whether this server is to write the row.
  const auto read = [&](const SqlResult& result) {
    RowReader row(result.rows[0]);
    leader.term = row.Number();
    leader.server = row.Text();
    leader.endpoint = row.Text();
    leader.self = leader.server == server_;
    const int64_t beat = row.Number();
    // A beat from the future is one from before the clock was set back.
    const bool stale = leader.server.empty() || std::abs(row.Number() - beat) >= stale_ms_;
    return leader.self || stale || !database_.shared();
  };
  const absl::StatusOr<SqlResult> now = database_.Read(look.c_str(), {});
  if (!now.ok()) return now.status();
  if (!read(*now)) return leader;
  const absl::Status status = database_.Write([&](SqlConnection& connection) {
    const absl::StatusOr<SqlResult> row = connection.Run(look.c_str(), {});
    if (!row.ok()) return row.status();
    if (!read(*row)) return absl::OkStatus();  // another one was quicker
    leader = {leader.term + (leader.self ? 0 : 1), server_, endpoint_, true};
    const std::string take =
        absl::StrCat("UPDATE leadership SET term = $1, server = $2, endpoint = $3, beat_ms = ",
                     database_.clock_ms(), " WHERE id = 1");
    return connection.Run(take.c_str(), {leader.term, server_, endpoint_}).status();
  });
  if (!status.ok()) return status;
  return leader;
}

absl::Status Leadership::Resign() {
  return database_.Write([&](SqlConnection& connection) {
    return connection
        .Run("UPDATE leadership SET server = '', endpoint = '', beat_ms = 0 WHERE server = $1",
             {server_})
        .status();
  });
}

}  // namespace longwave
