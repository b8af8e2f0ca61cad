#!/usr/bin/env bash
# From `git clone` to the first verdict, measured: clones this checkout (what is committed) into an empty folder, with
# empty caches of pip and of compiled rules, types what a new user types, and prints the seconds of each command.
#   tools/first-verdict.sh             the first verdict, later ones, and README's first command
#   tools/first-verdict.sh --verdict   without README's first command, a sweep of some minutes
#   tools/first-verdict.sh --test      README's second command too, all tests
# Exit status: 0 every command ended as README says, 1 one did not.
set -euo pipefail
source=$(cd "$(dirname "$0")/.." && pwd)
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
unset UF_VENV PYTHONPATH VIRTUAL_ENV ULTRAFOLIO_REDIS PYTHONDONTWRITEBYTECODE PIP_CACHE_DIR
export XDG_CACHE_HOME="$folder/cache" ULTRAFOLIO_CACHE="$folder/rules" BROWSER=true

typed() { # the exit status that README promises, then the command
  local want=$1 code=0 begun=$EPOCHREALTIME
  shift
  "$@" >"$folder/said" 2>&1 || code=$?
  awk -v a="$begun" -v b="$EPOCHREALTIME" -v c="$*" 'BEGIN { printf "%8.1f s  %s\n", b - a, c }'
  [ "$code" = "$want" ] && return
  echo "exit $code, not $want:"
  tail -20 "$folder/said"
  exit 1
}

cd "$folder"
echo "$(nproc) cores, load $(cut -d' ' -f1 /proc/loadavg 2>/dev/null || echo unknown), caches empty"
typed 0 git clone -q "$source" ultrafolio
cd ultrafolio
for time in "the first, with the installation" "again" "and again"; do
  echo "$time:"
  typed 1 ./uf check scenarios/03-virtio.toml --policy whole-folio
done
[ "${1:-}" = --verdict ] && exit
typed 0 ./uf sweep sweeps/seed.toml --open
[ "${1:-}" = --test ] || exit 0
typed 0 ./uf test
