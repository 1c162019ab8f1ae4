"""What a node may conclude from the renewals of its lease. Pure: every time is given.

`steady` seconds are those of :func:`app.clock.steady`, which never steps; `database` times are what the database's
own clock showed.
"""

from dataclasses import dataclass
from datetime import datetime, timedelta

#: A node stops itself after this share of its lease without a renewal: well before anybody may take over.
FENCE_SHARE = 0.6
#: A database clock that moved this much against the steady one, in seconds, is worth a warning.
JUMP_S = 60.0


@dataclass(slots=True)
class Tenure:
    """A lease as its holder sees it: never shortened or prolonged by the host's wall clock."""

    lease_s: float
    #: steady time at which the present unbroken stretch began
    since: float
    #: steady time at which the last acknowledged renewal was sent
    renewed: float
    #: what the database's clock showed at steady time `at`
    database: datetime
    at: float

    def renew(self, sent: float, answered: float, database: datetime) -> timedelta:
        """Take note of a renewal; returns how far the database's clock has jumped since the last one."""
        # The database looked at its clock somewhere within the round trip: its middle is the best guess.
        middle, doubt = (sent + answered) / 2, (answered - sent) / 2
        jump = database - self.database_time(middle)
        if jump > timedelta(seconds=self.lease_s / 8 + doubt):
            # Every lease ended at once, of the living too: they get a whole one to renew in.
            self.since = sent
        self.renewed, self.database, self.at = sent, database, middle
        return jump

    def left_s(self, steady: float) -> float:
        """Seconds until this node must be gone; counted from when the last renewal was sent, not answered."""
        return max(0.0, self.renewed + self.lease_s * FENCE_SHARE - steady)

    def database_time(self, steady: float) -> datetime:
        """What the database's clock shows by now, if it has not jumped."""
        return self.database + timedelta(seconds=steady - self.at)

    def judges(self, steady: float) -> datetime | None:
        """The moment before which others' leases must have ended for them to be dead; None: judge nobody.

        Only who has held a lease of its own, unbroken, for a whole lease time knows that the database was there
        for the others to renew theirs.
        """
        if self.left_s(steady) <= 0 or steady - self.since < self.lease_s:
            return None
        return self.database_time(steady)
