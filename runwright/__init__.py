"""The name under which programs outside the service import it; see `runwright.client`."""
