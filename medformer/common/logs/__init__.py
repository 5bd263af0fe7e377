"""One format of log lines for guard, node and coordinator, and files that do not grow for ever."""
