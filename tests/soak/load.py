"""Clients that ask for runs until they are answered, each run with a key of its own, whatever comes and goes."""

import random
import threading
import time
from collections import Counter
from collections.abc import Mapping, Sequence

import httpx

#: pipeline -> how often it is chosen
SHAPES = {"chain": 5, "fan": 4, "slow": 2, "sensing": 1, "parent": 1, "endless": 1}
_AGAIN = (429, 502, 503, 504)


class Load:
    """`count` runs, `per_s` of them a second, asked for by `threads` clients of all the services."""

    def __init__(
        self,
        urls: Sequence[str],
        *,
        seed: int,
        count: int,
        per_s: float,
        shapes: Mapping[str, int] = SHAPES,
        threads: int = 4,
    ) -> None:
        self._urls, self._seed, self._count, self._per_s = list(urls), seed, count, per_s
        self._shapes = shapes
        self._lock = threading.Lock()
        self._next, self._began = 0, time.monotonic()
        self._halt, self._abandoned = threading.Event(), False
        self._threads = [threading.Thread(target=self._work, args=(n,)) for n in range(threads)]
        #: run id -> pipeline, of every launch that was answered
        self.acknowledged: dict[int, str] = {}
        #: answers that nobody should get
        self.faults: list[str] = []
        self.counts: Counter[str] = Counter()
        self.took_s: list[float] = []

    def start(self) -> None:
        self._began = time.monotonic()
        for thread in self._threads:
            thread.start()

    def join(self) -> None:
        """Wait until everything is asked for and answered."""
        for thread in self._threads:
            thread.join()

    def halt(self) -> None:
        """Ask for nothing more; returns when everything that was asked for is answered."""
        self._halt.set()
        self.join()

    def abandon(self) -> None:
        """The same, whether or not there is an answer: for the end, however it came to that."""
        self._abandoned = True
        self.halt()

    def _work(self, number: int) -> None:
        chance = random.Random(f"{self._seed}.{number}")
        try:
            with httpx.Client(timeout=20) as http:
                while (n := self._take()) is not None:
                    if not self._halt.wait(max(0.0, self._began + n / self._per_s - time.monotonic())):
                        self._one(http, chance, n)
        except Exception as error:  # a thread must not die unseen
            self.faults.append(f"a client ended: {error!r}")
            raise

    def _take(self) -> int | None:
        with self._lock:
            n, self._next = self._next, self._next + 1
        return None if n >= self._count or self._halt.is_set() else n

    def _one(self, http: httpx.Client, chance: random.Random, n: int) -> None:
        pipeline = chance.choices(list(self._shapes), list(self._shapes.values()))[0]
        key = {"Idempotency-Key": f"{self._seed}-{n}"}
        began = time.monotonic()
        run = self._until_answered(http, chance, f"/pipelines/{pipeline}/pipeline_runs", key)
        if run is None:
            return
        self.took_s.append(time.monotonic() - began)
        self.acknowledged[run] = pipeline
        if pipeline == "endless":
            self._until_answered(http, chance, f"/pipeline_runs/{run}/cancel", {"Prefer": "wait=0"})

    def _until_answered(
        self, http: httpx.Client, chance: random.Random, path: str, headers: dict[str, str]
    ) -> int | None:
        """The run of the answer; None when it was a refusal."""
        while not self._abandoned:
            try:
                answer = http.post(f"{chance.choice(self._urls)}/api/v1{path}", headers=headers)
            except httpx.HTTPError as error:
                self._note(type(error).__name__)
                time.sleep(chance.uniform(0.02, 0.2))
                continue
            if answer.status_code in _AGAIN:
                self._note(str(answer.status_code))
                time.sleep(chance.uniform(0.05, 0.3))
                continue
            if answer.status_code >= 300:
                self.faults.append(f"{path}: {answer.status_code} {answer.text}")
                return None
            self._note("repeated" if "idempotency-replayed" in answer.headers else "answered")
            return int(answer.json()["id"])
        return None

    def _note(self, what: str) -> None:
        with self._lock:
            self.counts[what] += 1
