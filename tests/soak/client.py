"""A client that launches and cancels runs while the service comes and goes, and remembers what it was promised."""

import random
import threading

import httpx

#: pipeline -> how often it is chosen
MIX = {"chain": 5, "fan": 4, "slow": 2, "sensing": 1, "endless": 1}


class Client(threading.Thread):
    """Launches about every `pause_s` seconds until it is told to stop."""

    def __init__(self, urls: list[str], seed: int, pause_s: float = 0.25) -> None:
        super().__init__(name="client")
        self._urls, self._random, self._pause_s = urls, random.Random(seed), pause_s
        self._done = threading.Event()
        #: run id -> pipeline, of every launch that was answered with 201
        self.acknowledged: dict[int, str] = {}
        self.unanswered = 0
        self._to_cancel: list[int] = []

    def run(self) -> None:
        with httpx.Client(timeout=10) as http:
            while not self._done.wait(self._pause_s):
                self._launch(http, self._random.choices(list(MIX), list(MIX.values()))[0])
                self._cancel(http)
            while self._to_cancel:
                self._cancel(http)
                self._done.wait(0.1)

    def finish(self) -> None:
        """Launch no more; returns when everything that should be cancelled is."""
        self._done.set()
        self.join()

    def _launch(self, http: httpx.Client, pipeline: str) -> None:
        url = f"{self._random.choice(self._urls)}/api/v1/pipelines/{pipeline}/pipeline_runs"
        try:
            answer = http.post(url)
        except httpx.HTTPError:
            self.unanswered += 1
            return
        if answer.status_code == 201:
            self.acknowledged[answer.json()["id"]] = pipeline
            if pipeline == "endless":
                self._to_cancel.append(answer.json()["id"])
        elif answer.status_code != 503:
            raise AssertionError(f"{answer.status_code}: {answer.text}")

    def _cancel(self, http: httpx.Client) -> None:
        for run in list(self._to_cancel):
            url = f"{self._random.choice(self._urls)}/api/v1/pipeline_runs/{run}/cancel"
            try:
                if http.post(url, headers={"Prefer": "wait=0"}).status_code == 200:
                    self._to_cancel.remove(run)
            except httpx.HTTPError:
                continue
