"""How long do raters wait while many of them answer at once?

    python benchmarks/study.py
    python benchmarks/study.py --raters 200 --think 0.5

Makes a study of pairs, starts `kinema study serve` on it as a person would, and plays whole sessions over loopback: page,
consent, own trials, and per trial both clips at once, a pause to look, and the answer. A trial waits for the slower clip, then
for its answer; the rater's page hides the first wait, for it loads clips while the trial before is looked at. Client and server
share the machine. Prints one JSON line, after counting the answers in the database.
"""

import argparse
import asyncio
import json
import os
import random
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from pathlib import Path

import httpx2
import numpy as np

from kinema.evaluation.study.design import Material, Plan, design, order_for
from kinema.evaluation.study.folder import Study, write_study
from kinema.evaluation.study.store import Store

TARGET = 200.0  # milliseconds, at the 95th percentile of a trial
LIMIT = 50.0  # seconds


def write(folder: Path, trials: int) -> Study:
    """Write a study of two systems with twenty clips each: a square that moves over smooth noise."""
    rng = np.random.default_rng(0)

    def clip() -> np.ndarray:
        ground = rng.integers(60, 200, (8, 8, 3), np.uint8).repeat(8, axis=0).repeat(8, axis=1)
        frames = np.repeat(ground[None], 32, axis=0)
        for number, frame in enumerate(frames):
            frame[20:36, number : number + 16] = rng.integers(0, 256, 3)
        return frames

    materials = [Material(name, "", "made", [clip() for _ in range(20)], 16.0) for name in ("one", "two")]
    study, videos = design(materials, Plan(trials=trials, noise=1, repeats=1, practice=1))
    write_study(folder, study, videos)
    return study


class Rater:
    """One rater's session.

    Args:
        client: of all raters.
        think: mean seconds before an answer.
        waits: where waits go, in milliseconds by kind of request.
        number: of the rater.
    """

    def __init__(self, client: httpx2.AsyncClient, think: float, waits: dict[str, list[float]], number: int) -> None:
        self.client, self.think, self.waits = client, think, waits
        self.random = random.Random(number)

    async def _ask(self, what: str, method: str, address: str, token: str = "", body: object = None) -> httpx2.Response:
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        began = time.perf_counter()
        response = await self.client.request(method, address, headers=headers, json=body)
        self.waits[what].append(1000 * (time.perf_counter() - began))
        response.raise_for_status()
        return response

    async def take_part(self) -> None:
        """Answer every trial."""
        await asyncio.sleep(self.random.random() * self.think)
        await self._ask("page", "GET", "")
        token = (await self._ask("consent", "POST", "api/raters")).json()["token"]
        trials = (await self._ask("session", "GET", "api/session", token)).json()["trials"]
        for trial in trials:
            began = time.perf_counter()
            await asyncio.gather(*(self._ask("clip", "GET", name) for name in trial["clips"]))
            loaded = time.perf_counter()
            await asyncio.sleep(self.think * self.random.uniform(0.5, 1.5))
            answer = {"trial": trial["id"], "ranking": self.random.choice([[0, 1], [1, 0]]), "milliseconds": 1000}
            answered = time.perf_counter()
            await self._ask("answer", "POST", "api/votes", token, answer)
            self.waits["trial"].append(1000 * (time.perf_counter() - answered + loaded - began))


async def play(address: str, raters: int, think: float) -> dict[str, list[float]]:
    """Play all sessions at once; return the waits by kind of request."""
    waits: dict[str, list[float]] = defaultdict(list)
    limits = httpx2.Limits(max_connections=None, max_keepalive_connections=None)  # browsers hold up to six each
    async with httpx2.AsyncClient(base_url=address, limits=limits, timeout=LIMIT, trust_env=False) as client:
        sessions = [Rater(client, think, waits, number).take_part() for number in range(raters)]
        await asyncio.wait_for(asyncio.gather(*sessions), LIMIT)
    return waits


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--raters", type=int, default=50)
    parser.add_argument("--trials", type=int, default=12, help="comparisons per rater; three trials more come with them")
    parser.add_argument("--think", type=float, default=1.0, help="mean seconds before an answer; people take longer")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name) / "study"
        study = write(folder, arguments.trials)
        command = [sys.executable, "-m", "kinema", "study", "serve", str(folder), "--port", "0"]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:
            assert server.stdout is not None
            address = server.stdout.readline().split()[0]
            began, busy = time.perf_counter(), os.getloadavg()[0]
            try:
                waits = asyncio.run(play(address, arguments.raters, arguments.think))
            except TimeoutError:
                raise SystemExit(
                    f"sessions did not end within {LIMIT:g} s; the machine is too busy, or raters too many"
                ) from None
            finally:
                seconds = time.perf_counter() - began
                server.terminate()
        store = Store(folder, study)
        stored = len(store.votes())
        store.close()
    expected = arguments.raters * len(order_for(study, 1))
    report = {
        "benchmark": "study",
        "raters": arguments.raters,
        "answers": stored,
        "lost": expected - stored,
        "requests_per_second": round(sum(len(w) for what, w in waits.items() if what != "trial") / seconds),
        "milliseconds": {
            what: {f"p{share}": round(float(np.percentile(waited, share)), 1) for share in (50, 95, 99)}
            for what, waited in sorted(waits.items())
        },
        "target_p95": TARGET,
        "met": bool(np.percentile(waits["trial"], 95) < TARGET),
        "seconds": round(seconds, 1),
        "cores": os.cpu_count(),
        "load_before": round(busy, 1),
    }
    print(json.dumps(report))


if __name__ == "__main__":
    main()
