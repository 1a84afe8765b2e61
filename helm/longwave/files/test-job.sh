#!/bin/sh
# Submits a job and checks its result: what `helm test` runs, and a person against any server.
#   usage: test-job.sh MODEL MODELS_FOLDER
# LONGWAVE_SERVER and LONGWAVE_TOKEN say where. The result must be, byte for byte, what `longwave run` computes here.
set -eu

model=$1 models=$2
program=${LONGWAVE:-longwave}
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
trap 'exit 1' INT TERM

# 51,200 letters that are not all alike: a linear congruential generator.
awk 'BEGIN {
  split("A C G T", letter, " "); x = 20241
  print ">test"
  for (row = 0; row < 800; ++row) {
    line = ""
    for (i = 0; i < 64; ++i) { x = (x * 1103 + 12345) % 65537; line = line letter[1 + int(x / 16) % 4] }
    print line
  }
}' >"$folder/input.fa"

echo "test-job: submitting 51,200 tokens for $model to $LONGWAVE_SERVER"
job=$("$program" submit "$model" "$folder/input.fa" --chunk 8192)
echo "test-job: job $job"
"$program" status "$job" --wait
"$program" result "$job" --out "$folder/result.npy"
"$program" run "$models/$model" "$folder/input.fa" --chunk 8192 --quiet --out "$folder/expected.npy"
if ! cmp "$folder/result.npy" "$folder/expected.npy"; then
  echo "test-job: the cluster's result is not that of longwave run" >&2
  exit 1
fi
echo "test-job: passed: the result is that of longwave run, $(wc -c <"$folder/result.npy") bytes"
