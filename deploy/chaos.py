"""Faults of the shared state, one every few seconds at random: Redis pauses, or drops all connections.

deploy/chaos.sh kills containers, which needs the engine's socket. ULTRAFOLIO_REDIS is the URL of a user with all
rights; CHAOS_SEED repeats a series.
"""

from __future__ import annotations

import os
import random
import time

from redis import Redis

PAUSES_S = (2.0, 10.0)
LONGEST_MS = 3000


def main() -> None:
    """Inject faults until the process is stopped."""
    seed = int(os.environ.get("CHAOS_SEED") or random.SystemRandom().randrange(10**6))
    chance = random.Random(seed)
    print(f"seed {seed}", flush=True)
    with Redis.from_url(os.environ["ULTRAFOLIO_REDIS"]) as server:
        while True:
            time.sleep(chance.uniform(*PAUSES_S))
            if chance.random() < 0.5:
                pause = chance.randrange(100, LONGEST_MS)
                server.client_pause(pause, all=True)
                print(f"no answers for {pause} ms", flush=True)
                # the pause also delays this client's next command
                time.sleep(pause / 1000)
            else:
                dropped = server.client_kill_filter(_type="normal", skipme=True)
                print(f"{dropped} connections dropped", flush=True)


if __name__ == "__main__":
    main()
