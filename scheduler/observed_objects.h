// An object store of which a probe is told: every request's time, and those that fail.
//
// Thread safety: as the store's.
#pragma once

#include <memory>

#include "observability/request_probe.h"
#include "scheduler/object_store.h"

namespace longwave {

// A write counts as one request, from its start to its commit. That there is no such object is an
// answer and no failure. The probe outlives the store.
std::unique_ptr<ObjectStore> Observe(std::unique_ptr<ObjectStore> objects, RequestProbe& probe);

}  // namespace longwave
