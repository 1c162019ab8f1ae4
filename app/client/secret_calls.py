"""Calls about secrets: their names; a value goes in and never comes out."""

from app.client.calls import Calls, one, pages, part, post
from app.client.flow import Flow, Request, Stream, call, stream
from app.client.sending import send
from app.models.schemas import Rotated, Secret


class SecretCalls(Calls):
    """What both clients can do with secrets."""

    @stream
    def secrets(self) -> Stream[Secret]:
        """The names of the secrets, and when they were set; no value."""
        return pages(Secret, "secrets", {}, self._retries)

    @call
    def put_secret(self, name: str, value: str) -> Flow[Secret]:
        """Make a secret or change it."""
        return one(Secret, Request("PUT", f"secrets/{part(name)}", body={"value": value}), self._retries)

    @call
    def delete_secret(self, name: str) -> Flow[None]:
        """Forget a secret."""
        yield from send(Request("DELETE", f"secrets/{part(name)}"), self._retries)

    @call
    def rotate_secrets(self) -> Flow[int]:
        """Seal all secrets with the first key, a new one where the key is in a file; how many there are."""
        done = yield from one(Rotated, post("secrets/rotate"), self._retries)
        return done.secrets
