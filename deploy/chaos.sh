#!/bin/sh
# Kills containers of the cluster at random (SIGKILL) and starts them again:   deploy/chaos.sh [ROUNDS [SEED]]
# Afterwards:   docker compose up --wait && docker compose run --rm client sh -c 'ultrafolio trace validate "$(cat /keys/admin/redis.url)"'
set -eu
rounds=${1:-10} seed=${2:-$$}
parts="redis ultravisor host-mm guest lab worker"
echo "seed $seed"
for round in $(seq "$rounds"); do
  # a seed repeats the same kills in the same order
  part=$(echo "$parts" | tr ' ' '\n' | awk -v n="$seed$round" 'BEGIN { srand(n) } { if (rand() * NR < 1) one = $0 } END { print one }')
  echo "round $round: $part"
  # one of its containers, where it has several
  one=$(docker compose ps --quiet "$part" | awk -v n="$seed$round" 'BEGIN { srand(n) } { if (rand() * NR < 1) one = $0 } END { print one }')
  docker kill --signal KILL "$one"
  sleep 1
  docker compose start "$part"
  sleep 3
done
