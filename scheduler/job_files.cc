// The job store's part about uploaded files and tenants.
#include <algorithm>
#include <utility>

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "scheduler/job_store.h"
#include "scheduler/job_transaction.h"

namespace longwave {
namespace {

constexpr size_t kMostName = 64;
constexpr int64_t kMostWeight = 1000000;

absl::Status Check(const Tenant& tenant) {
  const std::string& name = tenant.name;
  const bool good = !name.empty() && name.size() <= kMostName &&
                    std::all_of(name.begin(), name.end(), [](unsigned char c) {
                      return absl::ascii_isalnum(c) || c == '-' || c == '_' || c == '.';
                    });
  if (!good) {
    return absl::InvalidArgumentError(absl::StrCat(
        "tenant \"", CleanText(name), "\": must be 1 to ", kMostName, " letters, digits and -_."));
  }
  if (tenant.weight < 1 || tenant.weight > kMostWeight) {
    return absl::InvalidArgumentError(
        absl::StrCat("weight ", tenant.weight, ": must be from 1 to ", kMostWeight));
  }
  for (const auto& [field, value] :
       {std::pair("most_queued_jobs", tenant.most_queued_jobs),
        std::pair("most_leases", tenant.most_leases), std::pair("most_bytes", tenant.most_bytes)}) {
    if (value < 0) {
      return absl::InvalidArgumentError(
          absl::StrCat(field, " ", value, ": must be 0 (no quota) or above"));
    }
  }
  return absl::OkStatus();
}

absl::Status CheckBytes(JobTransaction& change, const StoredFile& file) {
  const absl::StatusOr<Tenant> tenant = change.GetTenant(file.tenant);
  if (!tenant.ok()) return tenant.status();
  if (tenant->most_bytes == 0) return absl::OkStatus();
  const absl::StatusOr<SqlResult> sum =
      change.Run("SELECT CAST(COALESCE(SUM(bytes), 0) AS BIGINT) FROM files WHERE tenant = $1",
                 {{file.tenant}});
  if (!sum.ok()) return sum.status();
  const int64_t used = RowReader(sum->rows[0]).Number();
  if (file.bytes <= tenant->most_bytes - used) return absl::OkStatus();
  return absl::ResourceExhaustedError(absl::StrCat("tenant \"", file.tenant, "\" has files of ",
                                                   used, " bytes; ", file.bytes,
                                                   " more pass its quota of ", tenant->most_bytes));
}

}  // namespace

absl::StatusOr<std::vector<StoredFile>> JobStore::Files(const std::string& where,
                                                        const Values& values) {
  const absl::StatusOr<SqlResult> result = database_->Read(
      absl::StrCat("SELECT id, name, sha256, bytes, created_ms, tenant, number FROM files WHERE ",
                   where)
          .c_str(),
      values);
  if (!result.ok()) return result.status();
  std::vector<StoredFile> files;
  for (const SqlRow& columns : result->rows) {
    RowReader row(columns);
    StoredFile& file = files.emplace_back();
    for (std::string* field : {&file.id, &file.name, &file.sha256}) *field = row.Text();
    file.bytes = row.Number();
    file.created_ms = row.Number();
    file.tenant = row.Text();
    file.number = row.Number();
  }
  return files;
}

absl::Status JobStore::AddFile(const StoredFile& file) {
  return Write(file.created_ms, [&](JobTransaction& change) {
    absl::Status status = CheckBytes(change, file);
    if (!status.ok()) return status;
    return change
        .Change(
            "INSERT INTO files (id, name, sha256, bytes, created_ms, tenant, number) "
            "SELECT $1, $2, $3, $4, $5, $6, COALESCE(MAX(number), 0) + 1 FROM files",
            {{file.id, file.name, file.sha256, file.bytes, file.created_ms, file.tenant}})
        .status();
  });
}

absl::StatusOr<StoredFile> JobStore::GetFile(const std::string& id) {
  absl::StatusOr<std::vector<StoredFile>> files = Files("id = $1", {id});
  if (!files.ok()) return files.status();
  if (files->empty()) return absl::NotFoundError(absl::StrCat("there is no file \"", id, "\""));
  return std::move(files->front());
}

absl::StatusOr<std::vector<StoredFile>> JobStore::ListFiles(const std::string& tenant,
                                                            int64_t before, int64_t limit) {
  if (tenant.empty()) return Files("number < $1 ORDER BY number DESC LIMIT $2", {before, limit});
  return Files("tenant = $1 AND number < $2 ORDER BY number DESC LIMIT $3",
               {tenant, before, limit});
}

absl::Status JobStore::DeleteFile(const std::string& id) {
  return Write(0, [&](JobTransaction& change) {
    const absl::StatusOr<std::vector<Job>> readers =
        change.Jobs("input = $1 AND finished_ms = 0 LIMIT 1", {{id}});
    if (!readers.ok()) return readers.status();
    if (!readers->empty()) {
      const Job& job = readers->front();
      return absl::FailedPreconditionError(absl::StrCat("file ", id, " is the input of job ",
                                                        job.id, ", which is ", Name(job.state)));
    }
    const absl::StatusOr<int64_t> gone = change.Change("DELETE FROM files WHERE id = $1", {{id}});
    if (gone.ok() && *gone == 0) {
      return absl::NotFoundError(absl::StrCat("there is no file \"", id, "\""));
    }
    return gone.status();
  });
}

absl::Status JobStore::PutTenant(const Tenant& tenant) {
  absl::Status status = Check(tenant);
  if (!status.ok()) return status;
  return Write(0, [&](JobTransaction& change) {
    return change
        .Change(
            "INSERT INTO tenants (name, weight, most_queued_jobs, most_leases, most_bytes) "
            "VALUES ($1, $2, $3, $4, $5) ON CONFLICT (name) DO UPDATE SET "
            "weight = excluded.weight, most_queued_jobs = excluded.most_queued_jobs, "
            "most_leases = excluded.most_leases, most_bytes = excluded.most_bytes",
            {{tenant.name, tenant.weight, tenant.most_queued_jobs, tenant.most_leases,
              tenant.most_bytes}})
        .status();
  });
}

absl::StatusOr<Tenant> JobStore::GetTenant(const std::string& name) {
  const absl::StatusOr<SqlResult> result =
      database_->Read(SelectTenants("name = $1").c_str(), {{name}});
  if (!result.ok()) return result.status();
  if (result->rows.empty()) {
    return absl::NotFoundError(absl::StrCat("there is no tenant \"", name, "\""));
  }
  return TenantOf(result->rows[0]);
}

absl::StatusOr<std::vector<Tenant>> JobStore::ListTenants() {
  const absl::StatusOr<SqlResult> result =
      database_->Read(SelectTenants("1 = 1 ORDER BY name").c_str(), {});
  if (!result.ok()) return result.status();
  std::vector<Tenant> tenants;
  for (const SqlRow& row : result->rows) tenants.push_back(TenantOf(row));
  return tenants;
}

}  // namespace longwave
