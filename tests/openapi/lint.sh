#!/usr/bin/env bash
# Lints the API's description with Redocly; `npm ci` here installs it, as ./dev test does. 77: it is
# not installed.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")"
export REDOCLY_TELEMETRY=off REDOCLY_SUPPRESS_UPDATE_NOTICE=true
redocly=node_modules/.bin/redocly
description=../../services/cluster/openapi.json
if [[ ! -x $redocly ]]; then
  echo "not installed: run npm ci in tests/openapi"
  exit 77
fi
"$redocly" lint --config redocly.yaml "$description"
# A linter that finds nothing proves nothing: one mistake, and it must say so.
broken=$(mktemp --suffix=.json)
trap 'rm -f "$broken"' EXIT
sed '0,/"operationId": "getJob"/s//"operationId": "listJobs"/' "$description" >"$broken"
if said=$("$redocly" lint --config redocly.yaml "$broken" 2>&1); then
  echo "two operations of one id were not noticed: $said"
  exit 1
fi
