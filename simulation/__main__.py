"""The console script `fedperfit`, whose command line takes a second to load."""


def main() -> None:
    """Run the console script; Ctrl-C while it loads ends it without a traceback."""
    try:
        from fedperfit.simulation.cli import main as run
    except KeyboardInterrupt:
        raise SystemExit(130) from None
    run()


if __name__ == "__main__":
    main()
