// The API's description for programs: openapi.json, as it stood when this was built.
#pragma once

namespace longwave {

extern const char kOpenApi[];

}  // namespace longwave
