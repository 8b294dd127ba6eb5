"""The console script `fedperfit-edge`, whose command line takes a second to load."""

import signal


def main() -> None:
    """Run the console script; Ctrl-C ends it without a traceback while it loads, and where it comes twice."""
    try:
        from fedperfit.edge.cli.main import main as run

        run()
    except KeyboardInterrupt:
        raise SystemExit(130) from None
    finally:  # from here on it is Python that ends, and shows where a signal found it
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, signal.SIG_DFL)


if __name__ == "__main__":
    main()
