"""Reading TSDB files. Blocks are what Prometheus wrote: never changed here."""
