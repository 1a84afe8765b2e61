#include "scheduler/session_store.h"

#include <utility>

#include "absl/strings/str_cat.h"

namespace longwave {
namespace {

std::string Select(const char* where) {
  return absl::StrCat(
      "SELECT id, tenant, model, model_hash, boundary, pending, number, position, version, "
      "created_ms, updated_ms FROM sessions WHERE ",
      where);
}

absl::StatusOr<std::vector<Session>> SessionsOf(const absl::StatusOr<SqlResult>& result) {
  if (!result.ok()) return result.status();
  std::vector<Session> sessions;
  for (const SqlRow& columns : result->rows) {
    RowReader row(columns);
    Session& session = sessions.emplace_back();
    for (std::string* field : {&session.id, &session.tenant, &session.model, &session.model_hash,
                               &session.boundary, &session.pending}) {
      *field = row.Text();
    }
    for (int64_t* field : {&session.number, &session.position, &session.version,
                           &session.created_ms, &session.updated_ms}) {
      *field = row.Number();
    }
  }
  return sessions;
}

absl::StatusOr<Session> OneOf(const absl::StatusOr<SqlResult>& result, const std::string& id) {
  absl::StatusOr<std::vector<Session>> sessions = SessionsOf(result);
  if (!sessions.ok()) return sessions.status();
  if (sessions->empty()) {
    return absl::NotFoundError(absl::StrCat("there is no session \"", id, "\""));
  }
  return std::move(sessions->front());
}

}  // namespace

absl::StatusOr<Session> SessionStore::Create(const Session& session) {
  absl::StatusOr<Session> created;
  absl::Status status = database_.Write([&](SqlConnection& connection) {
    absl::Status inserted =
        connection
            .Run(
                "INSERT INTO sessions (id, number, tenant, model, model_hash, position, boundary, "
                "pending, version, created_ms, updated_ms) SELECT $1, COALESCE(MAX(number), 0) + "
                "1, $2, $3, $4, $5, $6, $7, 1, $8, $8 FROM sessions",
                {session.id, session.tenant, session.model, session.model_hash, session.position,
                 session.boundary, session.pending, session.created_ms})
            .status();
    if (absl::IsAlreadyExists(inserted)) {
      return absl::AlreadyExistsError(
          absl::StrCat("there is a session \"", session.id, "\" already"));
    }
    if (!inserted.ok()) return inserted;
    created = OneOf(connection.Run(Select("id = $1").c_str(), {session.id}), session.id);
    return created.status();
  });
  if (!status.ok()) return status;
  return created;
}

absl::StatusOr<Session> SessionStore::Get(const std::string& id) {
  return OneOf(database_.Read(Select("id = $1").c_str(), {id}), id);
}

absl::StatusOr<std::vector<Session>> SessionStore::List(const std::string& tenant, int64_t before,
                                                        int64_t limit) {
  if (tenant.empty()) {
    return SessionsOf(database_.Read(Select("number < $1 ORDER BY number DESC LIMIT $2").c_str(),
                                     {before, limit}));
  }
  return SessionsOf(
      database_.Read(Select("tenant = $1 AND number < $2 ORDER BY number DESC LIMIT $3").c_str(),
                     {tenant, before, limit}));
}

absl::Status SessionStore::Delete(const std::string& id) {
  return database_.Write([&](SqlConnection& connection) {
    const absl::StatusOr<SqlResult> gone =
        connection.Run("DELETE FROM sessions WHERE id = $1", {id});
    if (gone.ok() && gone->changed == 0) {
      return absl::NotFoundError(absl::StrCat("there is no session \"", id, "\""));
    }
    return gone.status();
  });
}

absl::StatusOr<Session> SessionStore::CompareAndSet(const Session& session) {
  absl::StatusOr<Session> now;
  absl::Status status = database_.Write([&](SqlConnection& connection) {
    const absl::StatusOr<SqlResult> changed = connection.Run(
        "UPDATE sessions SET position = $1, boundary = $2, pending = $3, updated_ms = $4, "
        "version = version + 1 WHERE id = $5 AND version = $6 AND created_ms = $7",
        {session.position, session.boundary, session.pending, session.updated_ms, session.id,
         session.version, session.created_ms});
    if (!changed.ok()) return changed.status();
    now = OneOf(connection.Run(Select("id = $1").c_str(), {session.id}), session.id);
    if (now.ok() && changed->changed == 0) {
      if (now->created_ms != session.created_ms) {
        return absl::AbortedError(absl::StrCat("session ", session.id, " was made again since"));
      }
      return absl::AbortedError(absl::StrCat("session ", session.id, " has version ", now->version,
                                             ", not ", session.version));
    }
    return now.status();
  });
  if (!status.ok()) return status;
  return now;
}

}  // namespace longwave
