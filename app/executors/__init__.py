"""Where a block runs: worker processes under a warden, or inline on the service's loop."""
