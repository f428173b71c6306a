"""`python -m prometheus_backup`."""

from prometheus_backup.cli.main import main

if __name__ == "__main__":
    main()
