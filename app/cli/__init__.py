"""The command line: `runwright`, and `mage`, which is the same program. Commands are thin and import late."""


def main() -> None:
    """Run the command line of this process."""
    from app.cli.root import program

    program()
