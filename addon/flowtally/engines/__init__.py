"""Session logs in engines that speak SQL: DuckDB, which the command line has, and Spark."""
