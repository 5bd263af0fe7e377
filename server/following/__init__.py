"""Follows a run between hospitals to its end, over crashes and reboots."""
