"""Shows a run while it goes on. Everything here reads files; `recorder`, `board` and `seen`
write them, inside the coordinator's processes."""
