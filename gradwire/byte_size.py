"""Sizes for people."""

from __future__ import annotations

UNITS = ("kB", "MB", "GB", "TB")


def byte_size(size_bytes: float) -> str:
    """Such as 512 bytes, 8.9 kB or 1.2 GB; a kilobyte has 1000."""
    if size_bytes < 1000:
        return f"{size_bytes:.0f} bytes"
    power = 1
    while power < len(UNITS) and size_bytes >= 999.95 * 1000**power:
        power += 1
    return f"{size_bytes / 1000**power:.1f} {UNITS[power - 1]}"
