#!/usr/bin/env bash
# What `./dev demo` shows once build/longwave is there: a real genome scored by a real state-space
# model, a picture of it, and a text model that goes on from a prompt. Writes only demo-output/.
# Needs bash, awk, gzip and coreutils. Stops at the first step that fails, with its exit code.
set -euo pipefail
export LC_ALL=C
cd "$(dirname "${BASH_SOURCE[0]}")/.."

program=build/longwave
out=demo-output
bases=1000000
prompt="The programmer said unto the user, "
sampling=(--max-new-tokens 200 --temperature 0.6 --top-p 0.9 --seed 1)

bold='' plain=''
if [[ -t 1 ]]; then bold=$'\033[1m' plain=$'\033[0m'; fi

step() { printf '\n%s%s%s\n' "$bold" "$*" "$plain"; }
# field NAME: the first number of that name in the JSON on standard input.
field() { sed -n "s/.*\"$1\":\([-+.0-9eE]*\).*/\1/p"; }
# commas NUMBER: rounded to a whole number, its thousands apart.
commas() { printf '%.0f' "$1" | sed -e ':a' -e 's/\([0-9]\)\([0-9]\{3\}\)\($\|,\)/\1,\2\3/;ta'; }

if [[ ! -x $program ]]; then
  echo "demo: there is no $program yet; ./dev build makes it" >&2
  exit 1
fi
mkdir -p "$out"

step "1  A genome: the first $(commas $bases) bases of Escherichia coli 536"
gzip -dc examples/ecoli536.fna.gz |
  awk -v want=$bases '
    /^>/ { print; next }
    have < want { line = substr($0, 1, want - have); have += length(line); print line }
    END { if (have < want) { print "demo: only " have " bases" > "/dev/stderr"; exit 1 } }
  ' >"$out/ecoli536-1M.fna.partial"
mv "$out/ecoli536-1M.fna.partial" "$out/ecoli536-1M.fna"

step "2  How well h3-dna predicts each base from all the bases before it"
score=$("$program" run examples/h3-dna "$out/ecoli536-1M.fna" --task score \
  --out "$out/bits-track.npy" --json)
bits=$(field bits_per_token <<<"$score")
rate=$(field tokens_per_second <<<"$score")
seconds=$(field seconds <<<"$score")
printf '%s%.4f bits per base%s, where guessing among four letters needs 2\n' "$bold" "$bits" "$plain"
printf '%s tokens/s, %.0f s in all (a base is a token)\n' "$(commas "$rate")" "$seconds"

step "3  The picture"
for picture in bits.html bits.svg; do
  "$program" plot "$out/bits-track.npy" --out "$out/$picture" --input "$out/ecoli536-1M.fna" \
    --title "Escherichia coli 536 read by h3-dna" >/dev/null
done
echo "$out/bits.html opens in any browser: point to read, drag to zoom"

step "4  h3-text, which has read the King James Bible and the Jargon File, goes on from a prompt"
printf '%s%s%s' "$bold" "$prompt" "$plain"
"$program" run examples/h3-text --task generate --prompt "$prompt" "${sampling[@]}" 2>"$out/.text.log" ||
  { status=$?; echo; cat "$out/.text.log" >&2; exit $status; }
[[ -t 1 ]] || echo  # on a terminal the program has ended the line
tail -n 1 "$out/.text.log"  # so many tokens in so many seconds
rm -f "$out/.text.log"

step "Done in $SECONDS s. Written:"
cat <<END
  $PWD/$out/bits.html         the picture, with hover and zoom
  $PWD/$out/bits.svg          the same, still
  $PWD/$out/bits-track.npy    nats of every base (float32)
  $PWD/$out/ecoli536-1M.fna   the bases
Next:
  $program run examples/h3-dna examples/ecoli536.fna.gz --out track.npy   # the whole genome
  $program run examples/h3-text --task generate --prompt "hacker: n. "    # another prompt
  $program inspect examples/h3-dna                                        # what the model is
  $program run --help; examples/README.md says more
END
