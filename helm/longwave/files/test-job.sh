#!/bin/sh
# Submits a job and checks its result: what `helm test` runs, and a person against any server.
#   usage: test-job.sh MODEL MODELS_FOLDER
# LONGWAVE_SERVER and LONGWAVE_TOKEN say where. The result must be what `longwave run` computes here: byte for byte, or,
# where workers have other processors or GPUs, which round differently, within 0.1 nats for each token and 0.01 in the mean.
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
"$program" run "$models/$model" "$folder/input.fa" --chunk 8192 --threads 2 --quiet --out "$folder/expected.npy"
if cmp -s "$folder/result.npy" "$folder/expected.npy"; then
  echo "test-job: passed: the result is that of longwave run, $(wc -c <"$folder/result.npy") bytes"
  exit 0
fi

# The values: float32 after a header of as many bytes as its ninth and tenth say, and ten.
values() {
  skip=$(od -An -tu1 -j8 -N2 "$1" | awk '{ print 10 + $1 + 256 * $2 }')
  od -An -v -tf4 -w4 -j"$skip" "$1"
}
values "$folder/result.npy" >"$folder/result" && values "$folder/expected.npy" >"$folder/expected"
paste "$folder/result" "$folder/expected" | awk '
  NF != 2 { bad = 1 }
  $1 != $2 { d = $1 - $2; if (d < 0) d = -d; sum += d; if (!(d <= most)) most = d; if (tolower($1 $2) ~ /nan|inf/) differ = 1 }
  END {
    printf "test-job: %d values, %g apart in the mean, %g at most\n", NR, sum / NR, most
    exit bad || differ || !(most <= 0.1) || !(sum / NR <= 0.01)
  }' || {
  echo "test-job: the cluster's result is not that of longwave run" >&2
  exit 1
}
echo "test-job: passed: the result is that of longwave run, rounded differently"
